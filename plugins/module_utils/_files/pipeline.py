# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs joined by pipes, without a shell: each one's exit status and words are read. Knows no file of a backup."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import typing as t

from .._errors import Refused
from .._process import Completed, Stage
from . import durable

BLOCK = 1 << 20  # bytes that are read at once
PATIENCE = 10.0  # seconds for a program to clean up behind itself
BROKEN_PIPE = ("broken pipe", "errno 32", "errno: 32", "epipe")  # how programs that ignore SIGPIPE say it


class ProgramFailed(Refused):
    """A program did not end well. An engine may translate it into what it means (Busy, Gone …)."""

    def __init__(self, program: str, code: int, said: str, *, others: str = "", cure: str = "") -> None:
        how = f"exit {code}" if code >= 0 else f"ended by {_signal(-code)}"
        cure = cure or (durable.CURES[errno.ENOSPC] if os.strerror(errno.ENOSPC) in said else "")
        super().__init__(f"{program} ({how}): {' '.join(said.split()) or 'it does not say why'}{others}", cure=cure)
        self.program, self.code, self.said = program, code, said


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Chain:
    """Programs, each reading what the one before it writes.

    `output` is what the last one writes, `input` (where it is `fed`) what the first one reads: the caller's to close.
    """

    def __init__(
        self,
        commands: t.Sequence[t.Sequence[str]],
        env: t.Mapping[str, str],
        *,
        fed: bool = False,
        cwd: str | None = None,
        hand_over: t.Sequence[int] = (),
        under: t.Sequence[str] = (),
    ) -> None:
        self._stages: list[Stage] = []
        self.output, source = -1, None if fed else -1
        try:
            for argv in commands:
                stage = Stage(argv, env=env, source=source, cwd=cwd, hand_over=hand_over, under=under)
                self._stages.append(stage)
                if self.output >= 0:
                    os.close(self.output)
                source = self.output = stage.output
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(self.output)
            self.stop(0.0)
            raise
        self.input = self._stages[0].input

    def finish(self) -> dict[str, str]:
        """Waits until all have ended; what each of them said. Raises ProgramFailed, which names the one at fault."""
        ends = [(stage.name, stage.wait() or Completed(0, "", "")) for stage in self._stages]
        fault = judge(ends)
        if fault:
            raise fault
        return {name: done.err for name, done in ends}

    def stop(self, patience: float = PATIENCE) -> None:
        """Ends all of them that still run."""
        for stage in self._stages:
            stage.stop(patience)


def judge(ends: t.Sequence[tuple[str, Completed]]) -> ProgramFailed | None:
    """Who is at fault, if anybody: in the order of the pipe.

    Whoever writes to a program that has died fails too (SIGPIPE), and whoever reads from one may find too little: the
    first that failed by itself is named first.
    """
    failed = [end for end in ends if end[1].code]
    if not failed:
        return None
    (name, done), *others = [end for end in failed if not _victim(end[1])] or failed
    also = "".join(f"; {other} (exit {end.code}): {end.err[-300:]}" for other, end in others)
    return ProgramFailed(name, done.code, _end_of(done.err), others=also)


def _victim(done: Completed) -> bool:
    said = done.err.lower()
    return done.code in (-signal.SIGPIPE, 128 + signal.SIGPIPE) or any(words in said for words in BROKEN_PIPE)


def _end_of(said: str) -> str:
    """The last words: that is where a program says what it died of."""
    return said if len(said) <= 1500 else "… " + said[-1500:]


def blocks(fd: int) -> t.Iterator[memoryview]:
    """What can be read from the descriptor; each block is there until the next is asked for. Raises OSError.

    Into the same memory each time: fresh memory of that size would cost as much as the reading.
    """
    space = memoryview(bytearray(BLOCK))
    while True:
        size = os.readv(fd, [space])
        if not size:
            return
        yield space[:size]
