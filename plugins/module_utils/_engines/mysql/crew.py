# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Second sessions for bites that two can take at once: who has one, and how both delete. What a bite is: purge.py."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from ..._errors import DbFault
from . import purge_session
from .connection import Link

LEAST = 2000  # rows of a half: below that a second session costs more than it gives


class Crew:
    """As many sessions as `jobs` leaves over while that many steps, or fewer, take rows; for all threads of a run."""

    def __init__(self, opened: t.Callable[[], Link], forget: t.Callable[[Link], None], jobs: int) -> None:
        self._opened, self._forget, self._jobs = opened, forget, jobs
        self._lock = threading.Lock()
        self._busy = 0  # steps, and the sessions that some of them have beside their own
        self._idle: list[Link] = []

    @contextlib.contextmanager
    def working(self) -> t.Iterator[None]:
        """While a step takes rows. What was opened is closed when none does any more."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                over, self._idle = (self._idle, []) if not self._busy else ([], self._idle)
            for link in over:
                self._forget(link)

    def lend(self) -> Link | None:
        """A session without a database, prepared for deleting; None where all are at work, or none can be had."""
        with self._lock:
            if self._busy >= self._jobs:
                return None
            self._busy += 1
            link = self._idle.pop() if self._idle else None
        try:
            return link or self._another()
        except DbFault:
            with self._lock:
                self._busy -= 1
            return None

    def _another(self) -> Link:
        link = self._opened()
        try:
            purge_session.prepare(link, strict=False)
        except BaseException:
            self._forget(link)
            raise
        return link

    def give_back(self, link: Link, *, sound: bool) -> None:
        """`sound`: nothing is open in it, and it may be used again."""
        with self._lock:
            self._busy -= 1
            if sound:
                self._idle.append(link)
        if not sound:
            self._forget(link)


class Pair:
    """Two transactions that are one bite: both are there, or both are undone as long as none is committed."""

    def __init__(self, crew: Crew, own: Link, other: Link, obj: str) -> None:
        self._crew, self._own, self._other, self._obj = crew, own, other, obj

    def delete(self, lower: str, upper: str, between: str) -> int:
        """Rows that these statements removed. `between`: of the one row that both leave alone.

        Whoever walks a range looks at the row behind it, too, and waits where that is locked: the two would wait for
        each other until one gives up. Raises what either raises; then both have to be undone.
        """
        gone: list[int] = []
        more: list[int] = []
        faults: list[BaseException] = []
        helper = threading.Thread(target=self._upper, args=(upper, more, faults), daemon=True)
        self._own.run("START TRANSACTION", obj=self._obj)
        helper.start()
        try:
            gone.append(self._own.change(lower, obj=self._obj))
        finally:
            if helper.is_alive() and not gone:
                self._other.cancel()
            helper.join()
        if faults:
            raise faults[0]
        return sum(gone + more) + self._own.change(between, obj=self._obj)

    def _upper(self, statement: str, gone: list[int], faults: list[BaseException]) -> None:
        try:
            self._other.run("START TRANSACTION", obj=self._obj)
            gone.append(self._other.change(statement, obj=self._obj))
        except BaseException as fault:
            faults.append(fault)

    def commit(self) -> None:
        """Where only the second cannot be committed, the next attempt takes its rows: nothing else became of them."""
        sound = False
        try:
            self._own.run("COMMIT", obj=self._obj)
            self._other.run("COMMIT", obj=self._obj)
            sound = True
        finally:
            self._crew.give_back(self._other, sound=sound)

    def undo(self) -> None:
        """Never raises; the second session is closed, which ends whatever it still does."""
        self._own.rollback()
        self._crew.give_back(self._other, sound=False)
