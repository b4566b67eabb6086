# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that a run has started, and theirs, whoever of them has died meanwhile. Servers of the tests are none."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class Process(NamedTuple):
    name: str
    pid: int
    state: str


class Offspring:
    """What descends from this process now is not looked at; what comes later is."""

    def __init__(self) -> None:
        # Orphans become our children, also those that made a session of their own.
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        self._known = {process.pid for process in _below(os.getpid(), set())}

    def of(self, pid: int) -> list[Process]:
        """Of that process, and theirs, as far as they are alive."""
        return sorted(process for process in _below(pid, self._known) if process.state != "Z")

    def kill_one(self, pid: int, number: int, seconds: float = 5.0) -> bool:
        """One of that process' programs, as soon as there is one; whether there was."""
        until = time.monotonic() + seconds
        while not (found := self.of(pid)):
            if time.monotonic() > until or not Path(f"/proc/{pid}/exe").exists():
                return False
            time.sleep(0.005)
        with suppress(ProcessLookupError):
            os.kill(found[number % len(found)].pid, signal.SIGKILL)
        return True

    def left(self) -> list[Process]:
        """Those that still run."""
        found = _below(os.getpid(), self._known)
        for process in found:
            with suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
        return sorted(process for process in found if Path(f"/proc/{process.pid}").exists())

    def gone(self, seconds: float) -> list[Process]:
        """Those that are still there after so long."""
        until = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.02)
        return left

    def end(self) -> None:
        """After a failed test."""
        for process in self.left():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self.gone(5)


def _below(pid: int, known: set[int]) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name, _close, rest = (place / "stat").read_text().partition("(")[2].rpartition(") ")
            state, parent = rest.split()[:2]
            children.setdefault(int(parent), []).append(Process(name, int(place.name), state))
    found: list[Process] = []
    waiting = [pid]
    while waiting:
        more = [child for child in children.get(waiting.pop(), []) if child.pid not in known]
        found += more
        waiting += [child.pid for child in more]
    return found
