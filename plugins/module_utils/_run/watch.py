# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for what a server may never answer: greeting, measuring, the guard. The steps' own end is the runner's.

No driver gives up on a server that has frozen: its kernel goes on acknowledging. So the questions are asked in a thread
that can be left behind, and this one watches how long they have been waiting.
"""

from __future__ import annotations

import threading
import time
import typing as t

from .._errors import CannotConnect, Refused, Stopped
from .._protocols import Engine
from .._units import say_seconds

S = t.TypeVar("S")
T = t.TypeVar("T")
POLL = 0.2  # seconds
FAREWELL = 5  # seconds in which a question that was cancelled has to end
CLOSING = 5.0  # seconds for the end of sessions of which one does not answer
LONGEST = 600.0  # seconds that one question may take
FROZEN = "Look at the server: is it stopped, out of memory, or waiting for its disk?"


class Watch:
    """One for a run. `patience`: seconds of silence from which on a new connection is tried."""

    def __init__(
        self,
        engine: Engine,
        *,
        patience: float,
        ending: t.Callable[[], str] = lambda: "",
        longest: float = LONGEST,
    ) -> None:
        self.engine, self.patience, self.ending, self.longest = engine, patience, ending, longest
        self.abandoned = False  # a question was left behind: closing its session might wait for ever
        self._probe: Asked[bool] | None = None
        self._probed = 0.0

    def run(self, work: t.Callable[[], T]) -> T:
        """What `work` returns or raises; Stopped or Refused when it was ended, CannotConnect when nobody answers."""
        asked = Asked(work)
        self._probe = None
        asked.start()
        while not asked.done.wait(POLL):
            why = self.ending()
            if why:
                self._end(asked, why)
                raise Stopped(why)
            self._listen(asked)
        return asked.taken()

    def _listen(self, asked: Asked[T]) -> None:
        silence = self.engine.silence()
        waited = f"a question has been waiting for {say_seconds(silence)}"
        if silence > self.longest:
            self._end(asked, waited)
            raise Refused(f"a question took longer than {say_seconds(self.longest)}, and was ended", cure=FROZEN)
        if silence >= self.patience and not self._alive():
            self._end(asked, f"{waited}, and a new connection gets no answer, too")
            raise CannotConnect(f"the server did not answer: {waited}", cure=FROZEN)

    def _alive(self) -> bool:
        """Whether somebody else is answered: asked in turn, and believed until the answer is there."""
        now = time.monotonic()
        if self._probe is None or (self._probe.result == [True] and now - self._probed > self.patience):
            self._probe, self._probed = Asked(self.engine.answers), now
            self._probe.start()
        return self._probe.result != [False] and (self._probe.done.is_set() or now - self._probed < 2 * self.patience)

    def close(self) -> None:
        """Closes the engine. What nobody answers cannot be closed: then the end of the process has to do."""
        if not self.abandoned:
            self.engine.close()
            return
        closing = Asked(self.engine.close)
        closing.start()
        closing.done.wait(CLOSING)

    def _end(self, asked: Asked[T], why: str) -> None:
        """Cancels what is asked. Raises CannotConnect where that does not end it."""
        for _round in range(FAREWELL):
            # Again and again: a cancel that falls between two questions is lost.
            Asked(self.engine.cancel).start()
            if asked.done.wait(1.0):
                return
        self.abandoned = True
        raise CannotConnect(f"the server does not answer ({why})", cure=FROZEN)


def side_by_side(work: t.Callable[[S], T], things: t.Sequence[S], jobs: int) -> list[T]:
    """The answers in the order of the things, from so many threads. Raises the first fault.

    Not by concurrent.futures: the end of the process would wait for threads that a frozen server holds.
    """
    waiting = iter(enumerate(things))
    lock = threading.Lock()
    found: dict[int, T] = {}

    def take_turns() -> None:
        while True:
            with lock:
                place, thing = next(waiting, (-1, None))
            if thing is None:
                return
            found[place] = work(thing)

    threads = [Asked(take_turns) for _thread in range(min(jobs, len(things)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.done.wait()
        thread.taken()
    return [found[place] for place in range(len(things))]


class Asked(t.Generic[T]):
    """Something that runs in a thread of its own, which nobody has to wait for."""

    def __init__(self, work: t.Callable[[], T]) -> None:
        self.work, self.done = work, threading.Event()
        self.result: list[T] = []
        self.error: BaseException | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.result.append(self.work())
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()

    def taken(self) -> T:
        if self.error is not None:
            raise self.error
        return self.result[0]
