# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a run is, in a small file that others read while it works. Asking servers is observer.py, showing it _job.py.

The file lies beside the registration of its run, as `<pid>.progress`: JSON, mode 0600, replaced as a whole at most once
a second, gone when the run ends. No statement and no value is in it. A run that ends within a second writes none.
"""

from __future__ import annotations

import json
import time
import typing as t
from pathlib import Path

from .._records import Amount, Seen, Step
from .._tasks import Purge
from .host import replace_private

EVERY = 1.0  # seconds between two writes
SURE = 0.02  # of the work: what less of it took says nothing of the rest


class Under:
    """A step under way."""

    def __init__(self, step: Step, began: float, done: Amount) -> None:
        self.step, self.began, self.done, self.seen = step, began, done, Seen()
        self._phase_from = (began, 0.0)  # when this phase was first seen, and at what percentage

    def see(self, seen: Seen, now: float) -> None:
        """What the server has said of it."""
        if seen.phase != self.seen.phase:
            first = not self.seen.phase  # it began with the step
            self._phase_from = (self.began, 0.0) if first else (now, seen.percent or 0.0)
        self.seen = seen

    def _of_phase(self, now: float) -> float | None:
        """Seconds that this phase will still take, by the speed that it had since it was first seen."""
        at, start = self._phase_from
        percent, since = self.seen.percent, now - at
        if percent is None or percent - start < 100 * SURE or since <= 0:
            return None
        return round(since * (100 - percent) / (percent - start), 1)

    def said(self, now: float) -> dict[str, t.Any]:
        """As others read it: percent (None: unknown), rows, bytes, seconds so far and left."""
        task, seconds = self.step.task, max(0.0, now - self.began)
        share = share_of(self.step, self.done)
        percent = self.seen.percent if share is None else 100 * share
        whole = share is not None or self.seen.whole
        rows, planned = self.done.rows, _planned(self.step)
        remaining = left(seconds, percent if whole else None, self.step.expected.seconds)
        of_phase = self._of_phase(now) if remaining is None else None
        return {
            "kind": task.kind,
            "database": task.ref.database,
            "object": str(task.ref),
            "phase": self.seen.phase,
            "percent": None if percent is None else round(min(100.0, percent), 1),
            "rows": rows or self.seen.rows,
            "rows_planned": planned if rows else None,
            "bytes": self.done.written or self.done.bytes or self.seen.bytes,
            "seconds": round(seconds, 1),
            "seconds_left": of_phase if remaining is None else remaining,
            "left_at_least": of_phase is not None,  # others may come after this phase
        }


def _planned(step: Step) -> int | None:
    """Rows that a purge will take."""
    task = step.task
    if not isinstance(task, Purge):
        return None
    return task.due if task.rows is None or task.due is None else min(task.due, task.rows)


def share_of(step: Step, done: Amount) -> float | None:
    """How much of its work a step has done by its own ticks, from 0 to 1; None where they do not tell."""
    pairs = (
        (done.rows, _planned(step) or 0),
        (done.written, step.expected.written),
        (done.bytes, step.expected.bytes),
    )
    for so_far, whole in pairs:
        if so_far and whole:
            return min(1.0, so_far / whole)
    return None


def left(seconds: float, percent: float | None, expected: float) -> float | None:
    """Seconds that a step will still take: by what it has done, else by what such steps took. None: nobody knows."""
    if percent is not None and percent >= 100 * SURE:
        return round(seconds * (100 - percent) / percent, 1)
    return round(expected - seconds, 1) if expected > seconds else None


class Progress:
    """What one run has done and is at. Used by the main thread alone; never raises, and never ends a run.

    `now` is a clock in seconds, for intervals; `path` None keeps everything to itself.
    """

    def __init__(
        self, path: Path | None, about: t.Mapping[str, t.Any], *, now: t.Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self._about, self._now = path, dict(about), now
        self._began = self._written = now()
        self._stage, self._note = "measuring", ""
        self._counts = {"total": 0, "done": 0, "failed": 0, "skipped": 0, "deferred": 0}
        self.under: dict[int, Under] = {}  # by place in the plan

    def stage(self, name: str, note: str = "", **about: t.Any) -> None:
        """measuring, waiting (`note` says for whom) or working."""
        self._stage, self._note = name, note
        self._about.update(about)
        self.beat()

    def planned(self, steps: int) -> None:
        self._counts["total"] = steps
        self.stage("working")

    def start(self, place: int, step: Step, done: Amount) -> None:
        """`done` by an earlier attempt."""
        self.under[place] = Under(step, self._now(), done)

    def tick(self, place: int, amount: Amount) -> None:
        if place in self.under:
            self.under[place].done = self.under[place].done.plus(amount)

    def end(self, place: int, status: str = "") -> None:
        """Without a status it is tried again later, or only its proof was missing."""
        self.under.pop(place, None)
        if status:
            self._counts[status] = self._counts.get(status, 0) + 1

    def beat(self) -> None:
        """Often: the file is written when it is old enough."""
        now = self._now()
        if self.path is None or now - self._written < EVERY:
            return
        self._written = now
        try:
            replace_private(self.path, json.dumps(self.said(now)))
        except (OSError, ValueError):
            self.path = None  # full, read-only, taken away: the run does not need it

    def said(self, now: float) -> dict[str, t.Any]:
        return {
            **self._about,
            "stage": self._stage,
            "note": self._note,
            "seconds": round(now - self._began, 1),
            "steps": dict(self._counts),
            "running": [under.said(now) for under in list(self.under.values())],
        }

    def close(self) -> None:
        """Nobody reads it any more."""
        path, self.path = self.path, None
        if path is not None:
            for each in (path, path.with_suffix(f"{path.suffix}.new")):
                try:
                    each.unlink(missing_ok=True)
                except OSError:
                    continue  # the next run sweeps it away
