# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal as everybody sees it, and its opening. Writing is keeper.py, the file file.py, reading it memory.py."""

from __future__ import annotations

import os
import sqlite3
import time
import typing as t
from datetime import datetime
from pathlib import Path

from .._errors import BadInput
from .._past import Died
from .._records import Attempt, Key, Note, Outcome, Ref, Sample, Step, Tick
from .file import NotAJournal, reading
from .host import make_private, state_directories
from .memory import Memory, recall

if t.TYPE_CHECKING:
    from typing import Self

Warn = t.Callable[[str], None]
KEEP = 400 * 86400.0  # seconds: a year, and the same month of the last one to compare with


class Journal:
    """What is remembered; and, as it stands, the journal that writes nothing: option `none`, and check mode."""

    def __init__(self, memory: Memory | None = None, *, path: Path | None = None, address: str = "") -> None:
        self.path, self.address = path, address
        self._memory = memory or Memory()

    def past(self) -> t.Mapping[Key, Attempt]:
        """How each step went last time on this server: the newest attempt that ended well, unless a later one ran
        longer than it without coming to an end."""
        return self._memory.past

    def overdue(self) -> frozenset[Key]:
        """Steps that an earlier run deferred, or was killed in."""
        return self._memory.overdue

    def rates(self) -> t.Mapping[str, float]:
        """Bytes per second that each kind of step achieved on this server."""
        return self._memory.rates

    def owned(self) -> t.Mapping[Key, tuple[str, ...]]:
        """What steps said they were about to make and have not ended since: wreckage, if it is there."""
        return self._memory.owned

    def notes(self) -> t.Mapping[Key, Note]:
        """What the last step of each kind that ended well left for the next one on the same object."""
        return self._memory.notes

    def died(self) -> tuple[Died, ...]:
        """Runs of the last days that never came to their end, unless a later one of their module did."""
        return self._memory.died

    def cursor(self, step: Step) -> str | None:
        """Where an earlier run stopped in this step."""
        return self._memory.cursors.get(step.key)

    def begin_run(self, module: str, *, check: bool = False) -> None:
        """Opens a run; in check mode it is none."""

    def start(self, step: Step, statements: t.Sequence[str] = ()) -> None:
        """A step is about to run."""

    def tick(self, step: Step, tick: Tick) -> None:
        """Keeps the tick's cursor, what the step is about to own or does not own after all, and its note for later."""

    def close(self, outcome: Outcome) -> None:
        """A step has its outcome, whether it was started or not."""

    def amend(self, outcome: Outcome) -> None:
        """A step that is closed was measured again only now."""

    def put_off(self, outcomes: t.Sequence[Outcome]) -> None:
        """Steps that a run without any (outside its window, say) leaves to the next one."""

    def end_run(self, status: str) -> None:
        """Ends the run (done, failed, stopped) and forgets what is too old, and was so a run before."""

    def samples(self) -> t.Mapping[Ref, tuple[Sample, ...]]:
        """Sizes of the last 30 days, oldest first. Read when they are asked for: most runs need none."""
        if self.path is None:
            return {}
        from . import samples

        try:
            with reading(self.path) as db:
                return samples.recall(db, self.address, time.time()) if db else {}
        except (OSError, sqlite3.Error, NotAJournal):
            return {}  # whoever opened the journal has said what is wrong with it

    def sample(self, database: str, ref: Ref, size: int, rows: int | None, now: datetime) -> None:
        """Keeps the bytes and rows of an object, at most once an hour."""
        self.sample_all([(ref._replace(database=database), size, rows)], now)

    def sample_all(self, sizes: t.Sequence[tuple[Ref, int, int | None]], now: datetime) -> None:
        """Keeps the bytes and rows of many objects, each at most once an hour, in one transaction."""

    def shut(self) -> None:
        """Closes the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shut()


def open_journal(
    path: str | None, address: str, *, readonly: bool, warn: Warn | None = None, keep: float = KEEP
) -> Journal:
    """The journal of the server at `address`: at `path`, at the default place for None, nowhere for "none".

    `readonly` (check mode) changes no file. A run that ends forgets what is `keep` seconds old.
    Raises BadInput for a given path that cannot be used.
    """
    tell = warn or (lambda text: None)
    if path == "none":
        return Journal()
    if path is not None:
        try:
            place = Path(path).expanduser()
            if not place.is_absolute():
                raise NotAJournal("it would lie in another directory each time: the path is not absolute")
            if place.exists() and not place.is_file():
                raise NotAJournal("it is not a file")
            if readonly and not _writable(place):
                tell(f"The journal {place} cannot be written by this user: a run, other than check mode, refuses that")
            return _open_at(place, address, readonly, tell, keep)
        except (OSError, RuntimeError, ValueError, sqlite3.Error, NotAJournal) as error:
            raise BadInput(
                f"journal: {path!r} cannot be used: {error}", cure="Name another file in a directory of yours, or none"
            ) from error
    problems: list[str] = []
    for directory in state_directories():
        try:
            return _open_at(directory / "journal.sqlite", address, readonly, tell, keep)
        except (OSError, sqlite3.Error, NotAJournal) as error:
            problems.append(f"{directory}: {error}")
    tell(f"No journal can be kept ({'; '.join(problems) or 'no place for it'}): nothing is learned from this run")
    return Journal()


def _writable(path: Path) -> bool:
    nearest = next(place for place in (path, *path.parents) if place.exists())
    return os.access(nearest, os.W_OK) and (nearest == path or nearest.is_dir())


def _open_at(path: Path, address: str, readonly: bool, warn: Warn, keep: float) -> Journal:
    if not readonly:
        from .keeper import FileJournal

        make_private(path.parent)
        return FileJournal(path, address, warn, keep)
    try:
        with reading(path) as db:
            return Journal(recall(db, address, time.time()) if db else None, path=path, address=address)
    except sqlite3.Error as error:
        warn(f"The journal {path} cannot be read ({error}): nothing of earlier runs is known")
        return Journal(path=path)
