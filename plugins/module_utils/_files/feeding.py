# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that is given bytes from Python: a backup's, to be read to their end or restored. Knows no file."""

from __future__ import annotations

import contextlib
import os
import threading
import typing as t

from .._errors import Stopped
from .._process import Completed, Stage

if t.TYPE_CHECKING:
    import io

READ_BYTES = 1 << 20


class Fed:
    """A client program under way; what it writes is taken by a thread of its own: so many bytes of a buffer."""

    def __init__(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str],
        take: t.Callable[[bytearray, int], None] | None = None,
        package: str = "",
    ) -> None:
        if take is None:
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                self._stage = Stage(argv, env=env, drain=null, package=package)
            finally:
                os.close(null)
        else:
            self._stage = Stage(argv, env=env, package=package)
        self.hears = True  # until it has closed its input
        self._open = True
        self._fault: BaseException | None = None  # of whoever takes
        self._taker = threading.Thread(target=self._take, args=(take,), daemon=True)
        self._taker.start()

    def _take(self, take: t.Callable[[bytearray, int], None] | None) -> None:
        if take is None:
            return
        try:
            space = bytearray(READ_BYTES)  # the same each time: fresh memory costs as much as the reading
            for size in iter(lambda: os.readv(self._stage.output, [space]), 0):
                if self._fault is None:
                    take(space, size)
        except BaseException as error:
            self._fault = error
            self._stage.stop(0.0)
        finally:
            os.close(self._stage.output)

    @property
    def input(self) -> int:
        """The pipe that it reads."""
        return self._stage.input

    def give(self, data: bytes | memoryview) -> bool:
        """False: it reads no more, for better or worse; its end tells which."""
        rest = memoryview(data)
        while rest and self.hears:
            try:
                rest = rest[os.write(self._stage.input, rest) :]
            except BrokenPipeError:
                self.hears = False
        return self.hears

    def close(self) -> None:
        """That was all."""
        if self._open:
            self._open = False
            os.close(self._stage.input)

    def wait(self, seconds: float | None = None) -> Completed | None:
        """How it ended, all that it wrote taken; None while it runs. Raises what the taker raised."""
        done = self._stage.wait(seconds)
        if done is None:
            return None
        self._taker.join()
        if self._fault is not None:
            raise self._fault
        return done

    def stop(self, patience: float = 10.0) -> None:
        """Ends it, before it can take the end of its input for the end of the data."""
        self._stage.stop(patience)
        self._taker.join(5)


def mover(source: t.BinaryIO) -> t.Callable[[int], t.Iterator[int] | None] | None:
    """What moves all of it into a pipe, where the source has such a thing (reader.py); nothing has been read yet."""
    found: t.Callable[[int], t.Iterator[int] | None] | None = getattr(getattr(source, "raw", None), "into", None)
    return found


def slices(source: t.BinaryIO) -> t.Callable[[int], memoryview]:
    """Reads into the same memory each time: what was read is there until the next."""
    space = memoryview(bytearray(READ_BYTES))

    def read(_most: int) -> memoryview:
        size = t.cast("io.BufferedIOBase", source).readinto(space)
        return space[:size]

    return read


class _Pump(threading.Thread):
    """Reads the source to its end, whether or not the program wants all of it: its last read says that it is sound."""

    def __init__(
        self,
        fed: Fed,
        read: t.Callable[[int], bytes | memoryview],
        move: t.Callable[[int], t.Iterator[int] | None] | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.fed, self.read, self.move = fed, read, move
        self.given, self.halt = 0, False
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            for data in () if self._moved() else iter(lambda: self.read(READ_BYTES), b""):
                if self.halt or not (self.fed.give(data) or self._well()):
                    return
                self.given += len(data)
            if not self.halt:
                self.fed.close()
        except BaseException as error:
            self.fault = error
            self.fed.stop(0.0)

    def _moved(self) -> bool:
        """Whether there is nothing to be read any more. Where the program reads no more, the rest is."""
        moving = self.move(self.fed.input) if self.move else None
        try:
            for size in moving or ():
                self.given += size
                if self.halt:
                    return True
        except BrokenPipeError:
            self.fed.hears = False
            return False
        return moving is not None

    def _well(self) -> bool:
        done: Completed | None = None
        while done is None and not self.halt:
            done = self.fed.wait(1.0)
        return done is not None and done.code == 0


def pumped(
    fed: Fed,
    read: t.Callable[[int], bytes | memoryview],
    stop: threading.Event | None = None,
    *,
    move: t.Callable[[int], t.Iterator[int] | None] | None = None,
) -> t.Generator[int, None, Completed]:
    """Gives the program all of the source, by `move` (see mover()) where that can be.

    Yields bytes since the last time, at least once a second.
    Raises what the source raises (the program is ended first: what it was given is not to look complete), Stopped.
    """
    pump, told = _Pump(fed, read, move), 0
    pump.start()
    done: Completed | None = None
    try:
        yield 0  # at once: others may be waiting to be begun
        while done is None and pump.fault is None:
            if pump.is_alive():
                pump.join(1.0)
            else:
                done = fed.wait(1.0)
            if stop is not None and stop.is_set():
                raise Stopped("stopped")
            given = pump.given
            yield given - told
            told = given
    finally:
        pump.halt = True
        if done is None:
            with contextlib.suppress(OSError):
                fed.stop()
        pump.join(15)
        fed.close()
    if pump.fault is not None:
        raise pump.fault
    return done or Completed(-1, "", "it was ended")
