# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thread through which the bytes of a backup pass from programs to a sink, so that somebody can tick meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
import time
import typing as t

from .._errors import Stopped
from .pipeline import Chain, blocks
from .sinks import LONGEST, Sink, Through

TICK = 1.0  # seconds
WAITING = 4  # chunks between threads


class Eyes(t.Protocol):
    """store.Tap."""

    def feed(self, data: bytes) -> None: ...

    def end(self) -> None: ...


class Pace:
    """No more bytes a second than that."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._next, self.halt = limit, time.monotonic(), threading.Event()

    def keep(self, size: int) -> None:
        """Waits until the next block may be read."""
        if self._limit:
            self._next = max(self._next, time.monotonic() - TICK) + size / self._limit
            self.halt.wait(max(0.0, self._next - time.monotonic()))


class Worker:
    """A function in a thread of its own; what it raises comes out of `ticks`."""

    def __init__(self, work: t.Callable[[], None]) -> None:
        self._work, self._fault, self._done = work, t.cast("BaseException | None", None), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._fault = error
        finally:
            self._done.set()

    def ticks(self, stop: threading.Event | None) -> t.Iterator[None]:
        """One a second until it has ended. Raises Stopped, and what the work raised."""
        while not self._done.wait(TICK):
            if stop and stop.is_set():
                raise Stopped("stopped")
            yield
        self.check()

    def check(self) -> None:
        """Raises what the work raised."""
        if self._fault:
            raise self._fault

    def ended(self, seconds: float = LONGEST) -> bool:
        """Whether it has, or does so soon."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


class Pump:
    """From programs through taps into a sink."""

    def __init__(self, source: Chain, sink: Sink, taps: t.Sequence[Eyes], limit: int | None) -> None:
        self._source, self._sink, self._taps = source, sink, taps
        self._pace, self.bytes, self.said = Pace(limit), 0, t.cast("dict[str, str]", {})

    def run(self, stop: threading.Event | None) -> t.Generator[int, None, None]:
        """Yields bytes since the last time. Leaving it ends the programs and closes the file."""
        worker, told = Worker(self._work), 0
        try:
            yield 0  # at once: others may be waiting to be begun
            for _second in worker.ticks(stop):
                now = self.bytes
                yield now - told
                told = now
            yield self.bytes - told
        finally:
            self._pace.halt.set()
            self._source.stop()
            self._sink.abort()
            if worker.ended():  # else the number of its descriptor must not become another file's
                self._sink.close()

    def _work(self) -> None:
        try:
            for size in self._moved() or self._passed():
                self.bytes += size
                self._pace.keep(size)
        finally:
            with contextlib.suppress(OSError):
                os.close(self._source.output)  # whoever goes on writing ends
        self.said = self._source.finish()
        for tap in self._taps:
            tap.end()
        self._sink.finish()

    def _moved(self) -> t.Iterator[int] | None:
        """Where nobody looks and a program takes it: not through this process (splice: Linux, since Python 3.10)."""
        if self._taps or not isinstance(self._sink, Through) or not hasattr(os, "splice"):
            return None
        return self._sink.pull(self._source.output)

    def _passed(self) -> t.Iterator[int]:
        for data in blocks(self._source.output):
            seen = bytes(data) if self._taps else b""
            for tap in self._taps:
                tap.feed(seen)
            self._sink.write(data)
            yield len(data)


def together(works: t.Iterable[t.Generator[int, t.Any, t.Any]], most: int = 0) -> t.Generator[int, None, None]:
    """Several at once, `most` of them (0: all), since each has a thread that goes on while another one is looked at.

    Yields what they yield. The first error ends all of them.
    """
    waiting, running = list(works), t.cast("list[t.Generator[int, t.Any, t.Any]]", [])
    try:
        while waiting or running:
            while waiting and (not most or len(running) < most):
                running.append(waiting.pop(0))
            for work in tuple(running):
                try:
                    yield next(work)
                except StopIteration:
                    running.remove(work)
    finally:
        for work in running:
            work.close()


class Feed:
    """From Python through taps into a sink. Whatever blocks there, the caller's thread goes on ticking."""

    def __init__(self, sink: Sink, taps: t.Sequence[Eyes], limit: int | None) -> None:
        self._sink, self._taps, self._pace, self.bytes = sink, taps, Pace(limit), 0
        self._queue: queue.Queue[bytes | None] = queue.Queue(WAITING)

    def run(self, chunks: t.Iterable[bytes], stop: threading.Event | None) -> t.Generator[int, None, None]:
        """Yields bytes since the last time. Leaving it closes the file."""
        worker, told, last = Worker(self._work), 0, time.monotonic()
        try:
            for chunk in itertools.chain(chunks, [None]):
                for _second in self._put(chunk, worker, stop):
                    yield 0
                if time.monotonic() - last >= TICK:
                    now, last = self.bytes, time.monotonic()
                    yield now - told
                    told = now
            for _second in worker.ticks(stop):
                yield 0
            yield self.bytes - told
        finally:
            self._pace.halt.set()
            self._sink.abort()
            with contextlib.suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
            self._queue.put(None)  # nobody else puts: there is room
            if worker.ended():
                self._sink.close()

    def _put(self, chunk: bytes | None, worker: Worker, stop: threading.Event | None) -> t.Iterator[None]:
        """Yields each second until there is room. Raises what the worker raised, Stopped."""
        while True:
            worker.check()
            if stop and stop.is_set():
                raise Stopped("stopped")
            try:
                self._queue.put(None if chunk is None else bytes(chunk), timeout=TICK)
            except queue.Full:
                yield
            else:
                return

    def _work(self) -> None:
        for data in iter(self._queue.get, None):
            if self._pace.halt.is_set():
                return
            for tap in self._taps:
                tap.feed(data)
            self._sink.write(data)
            self.bytes += len(data)
            self._pace.keep(len(data))
        if self._pace.halt.is_set():
            return
        for tap in self._taps:
            tap.end()
        self._sink.finish()
