# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a safe bite, for every engine: take, archive, flush, commit, settle. The verbs are the engines' own."""

from __future__ import annotations

import json
import time
import typing as t

from .._errors import Busy, Refused
from .._records import Amount, Tick, Work
from .._retention import Frame, Pending, Taken
from .._tasks import Purge


class Doubts(t.Protocol):
    """What an engine knows of bites of dead runs."""

    def committed(self, pending: Pending) -> bool:
        """Whether a bite of a dead run was committed. Waits for its transaction where that is still open."""


class Bites(Doubts, t.Protocol):
    """What an engine can do with the rows of one table. One transaction at a time."""

    def end(self, cursor: str | None, rows: int, until: str | None) -> str | None:
        """The cursor at which a bite ends that begins after `cursor` and looks at `rows` rows; None: nothing is left.

        With `until` it never lies beyond that one. Begins no transaction that stays open.
        """

    def take(self, cursor: str | None, end: str) -> Taken:
        """Removes the rows that are due in (cursor, end], what hangs from them first. Not committed.

        Where the task archives into a table, they are there afterwards, in the same transaction; where it archives into
        files, they are in the frames exactly as they were removed.
        """

    def mark(self) -> str:
        """What tells later whether this transaction was committed; "" where the engine has no such thing."""

    def commit(self) -> None:
        """Raises Gone where nobody knows whether it was committed; Busy and Refused where it certainly was not."""

    def rollback(self) -> None:
        """Harmless where nothing is open; never raises."""


class Shelf(t.Protocol):
    """The files of one step; _files/shelf.py."""

    def put(self, frames: t.Sequence[Frame], mark: str) -> int:
        """On disk when it returns, and known to be unsettled. Returns the bytes written. Raises Refused."""

    def settle(self) -> None:
        """What was put is committed."""

    def discard(self) -> None:
        """What was put was certainly not committed: it is taken out again."""

    def close(self) -> None:
        """Finishes what is settled: final name, manifest. What is unsettled stays for the next run."""


class Wreck(t.Protocol):
    """The files of a step that died."""

    pending: Pending | None

    def keep(self) -> None:
        """The last bite was committed: all of it is finished."""

    def cut(self) -> None:
        """The last bite was not: the rest is finished."""


def settle(bites: Doubts, wrecks: t.Iterable[Wreck]) -> int:
    """Finishes files of dead runs, so that each row is in exactly one place. Returns how many files there were."""
    count = 0
    for wreck in wrecks:
        if wreck.pending is None or bites.committed(wreck.pending):
            wreck.keep()
        else:
            wreck.cut()
        count += 1
    return count


def nibble(bites: Bites, task: Purge, shelf: Shelf | None, cursor: str | None) -> Work:
    """Takes all that is due, bite by bite. Resumed at a cursor it comes round to what lies before that in the end.

    Rows that became due behind the cursor since would else wait for another night.
    """
    pace, left, until, resumed, removed = task.pace, task.rows, t.cast("str | None", None), cursor, 0
    try:
        while left is None or left > 0:
            began = time.monotonic()
            looked = min(pace.rows, task.most, left or task.most)
            end = bites.end(cursor, looked, until)
            if end is None:
                if resumed is None:
                    return
                cursor, until, resumed = None, resumed, None
                continue
            taken, written, waited = _bite(bites, shelf, cursor, end)
            left = None if left is None else left - taken.rows
            removed += taken.rows
            cursor = end
            amount = Amount(
                bytes=taken.bytes,
                rows=taken.rows,
                children=taken.children,
                written=written,
                bites=1 if taken.rows else 0,
                seconds=time.monotonic() - began,
            )
            words = note(task.due, removed, task.rows)
            pace = yield Tick(amount, cursor, waited=waited, note=words, touched=taken.touched)
    finally:
        bites.rollback()
        if shelf:
            shelf.close()


def note(due: int | None, removed: int, allowed: int | None = None) -> str:
    """What the proof and the next run of the rule may know of this one: how fast the backlog shrinks."""
    return json.dumps({"due": due, "removed": removed, "allowed": allowed})


def _bite(bites: Bites, shelf: Shelf | None, cursor: str | None, end: str) -> tuple[Taken, int, float]:
    """The order that loses nothing: what is committed is on disk before, and known to be unsettled until after.

    What was taken, the bytes written, and how long the commit took.
    """
    taken, written = bites.take(cursor, end), 0
    if shelf and taken.frames:
        try:
            written = shelf.put(taken.frames, bites.mark())
        except BaseException:
            bites.rollback()
            shelf.discard()
            raise
    began = time.monotonic()
    try:
        bites.commit()
    except (Busy, Refused):
        # Taken again at once, the rows would else be in two files.
        bites.rollback()
        if shelf and taken.frames:
            shelf.discard()
        raise
    waited = time.monotonic() - began
    if shelf and taken.frames:
        shelf.settle()
    return taken, written, waited
