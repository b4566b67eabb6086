# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the journal tells of the past, as records. Beside _records.py on the bottom shelf: no SQL, no I/O, no threshold.

Times are seconds since 1970, by the clock of the host that wrote the journal. That clock may have jumped: what came
first is told by the numbers of runs and steps.
"""

from __future__ import annotations

import typing as t

from ._records import Ref, Sample
from ._tuples import NamedTuple


class Known(NamedTuple):
    """A server, or a folder of backups, that the journal knows."""

    server: str
    runs: int = 0
    last: float | None = None  # when the last one began


class PastRun(NamedTuple):
    id: int
    server: str
    operation: str  # the module's name
    began: float
    ended: float | None
    status: str  # running, done, failed, stopped, interrupted


class Thing(NamedTuple):
    """What a step was about; the key of a step, and the server."""

    server: str
    kind: str
    rule: str  # of a purge
    ref: Ref


class PastStep(NamedTuple):
    id: int
    run: int
    thing: int  # number of a Thing
    began: float | None
    status: str  # running, done, skipped, deferred, failed, interrupted
    reason: str
    expected_bytes: int
    expected_rows: int
    expected_seconds: float
    bytes: int | None
    rows: int | None
    written: int | None
    seconds: float | None
    bytes_before: int | None
    bytes_after: int | None
    changed: int | None
    proven: int | None
    error: str | None

    @property
    def freed(self) -> int | None:
        """Bytes given back, as the modules report them; None where nothing came of it."""
        if self.bytes_before is None or self.bytes_after is None:
            return self.bytes
        return max(0, self.bytes_before - self.bytes_after)


class Streak(NamedTuple):
    """What failed last time, and how often since it ended well."""

    thing: int
    operation: str
    times: int
    first: float
    last: float
    error: str


class Series(NamedTuple):
    """What an object, or a reading of the server, was sampled at; oldest first."""

    server: str
    ref: Ref
    samples: tuple[Sample, ...]


class Backed(NamedTuple):
    """When a backup of a database was last made, and last verified."""

    server: str
    database: str
    dumped: float | None = None
    verified: float | None = None


class Past(NamedTuple):
    known: tuple[Known, ...] = ()
    first: float | None = None  # the oldest run
    runs: tuple[PastRun, ...] = ()  # as they were begun
    steps: tuple[PastStep, ...] = ()  # as they were begun
    things: t.Mapping[int, Thing] = {}
    streaks: tuple[Streak, ...] = ()
    series: tuple[Series, ...] = ()
    backed: tuple[Backed, ...] = ()


class Died(NamedTuple):
    """A run that began, and never came to its end: its process is gone."""

    module: str
    began: float  # seconds since 1970
    pid: int
    kind: str = ""  # of the first step that it was in
    ref: Ref = Ref("")
