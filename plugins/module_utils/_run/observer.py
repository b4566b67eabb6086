# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the server how far long steps are, in a thread that nobody waits for. What it says is progress.py's."""

from __future__ import annotations

import time
import typing as t

from .._protocols import Engine, Session
from .._records import Seen, Server
from .progress import Progress
from .watch import Asked

LONG = 3.0  # seconds of a step from which on it is worth a question: a fast night asks none
EVERY = 3.0  # seconds between two questions; each is for all steps
FAREWELL = 2.0  # seconds in which the last one may end

MISSES = 3  # faults in a row after which nothing more is asked

Sessions = t.Mapping[int, t.Optional[Session]]


class Observer:
    """One for a run; used by the main thread, which it never makes wait."""

    def __init__(
        self, engine: Engine, server: Server, progress: Progress, *, now: t.Callable[[], float] = time.monotonic
    ) -> None:
        self.server, self.progress, self._now = server, progress, now
        self._ask = getattr(engine, "progress", None)  # an engine whose steps tell by their ticks has none
        self._asked: Asked[t.Mapping[int, Seen]] | None = None
        self._next, self._misses = 0.0, 0

    def look(self, sessions: Sessions) -> None:
        """Takes the answer, if there is one, and asks again when it is time. `sessions` by place in the plan."""
        if self._ask is None or self.progress.path is None:
            return
        if self._asked is not None:
            if not self._asked.done.is_set():
                return
            self._take(self._asked)
        now, under = self._now(), self.progress.under
        old = {p: s for p, s in sessions.items() if s and p in under and now - under[p].began >= LONG}
        long = {place: (session, under[place].step.task) for place, session in old.items()}
        if long and now >= self._next:
            ask, server = self._ask, self.server
            self._next = now + EVERY
            self._asked = Asked(lambda: ask(long, server))
            self._asked.start()

    def _take(self, asked: Asked[t.Mapping[int, Seen]]) -> None:
        """Whatever went wrong with a question: the step itself tells what is wrong with the server."""
        self._asked = None
        self._misses = 0 if asked.result else self._misses + 1
        if self._misses >= MISSES:
            self._ask = None
        for place, seen in asked.result[0].items() if asked.result else ():
            if place in self.progress.under:
                self.progress.under[place].see(seen, self._now())

    def close(self) -> bool:
        """Whether a question was left behind: closing its session might wait for ever."""
        asked, self._ask = self._asked, None
        return asked is not None and not asked.done.wait(FAREWELL)
