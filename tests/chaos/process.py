# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of a module in a process of its own that stops where it is told to, so that it can be killed there.

The product has no hook for that: what is to be stopped at is wrapped in the child, by whoever knows it (`arm`).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

MODULES = "ansible_collections.dbfleet.maintenance.plugins.modules"


class Stop(NamedTuple):
    """The passage of a phase at which the run stops."""

    phase: str
    passage: int = 1


class Gate:
    """Stops the whole process at the passage of its phase, once; goes on when it is told to."""

    def __init__(self, stop: Stop | None, go: int) -> None:
        self.left = stop.passage if stop else 0
        self.phase = stop.phase if stop else ""
        self._go = go

    def passes(self, phase: str) -> bool:
        """Whether it stopped here."""
        if phase != self.phase or self.left <= 0:
            return False
        self.left -= 1
        if self.left:
            return False
        os.kill(os.getpid(), signal.SIGSTOP)
        os.read(self._go, 1)  # the signal may come a moment later than the call returns
        return True


Arm = Callable[[Gate], None]  # wraps what is to be stopped at; only ever called in a child


def put(place: Any, **things: Any) -> None:
    """In the place of what was there."""
    for name, thing in things.items():
        setattr(place, name, thing)


class Run:
    """A run of the module in a child of this process: what it imports is there already."""

    def __init__(
        self,
        module: str,
        options: Mapping[str, Any],
        output: Path,
        *,
        arm: Arm,
        stop: Stop | None = None,
        check: bool = False,
        traces: Path | None = None,
    ) -> None:
        """`traces`: where its temporary files are to lie."""
        self._output = output
        self._code: int | None = None
        main = importlib.import_module(f"{MODULES}.{module}").main  # its children have it already
        go, self._going = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._going)
            if traces:
                os.environ["TMPDIR"] = tempfile.tempdir = str(traces)
            told = {**options, "_ansible_check_mode": check, "_ansible_remote_tmp": str(output.parent)}
            _child(output, lambda: arm(Gate(stop, go)), lambda: _become(module, main, told))
        os.close(go)

    def _look(self, *, stopped: bool) -> str:
        """How it changed: "", stopped, ended."""
        pid, status = os.waitpid(self.pid, os.WNOHANG | (os.WUNTRACED if stopped else 0))
        if not pid:
            return ""
        if os.WIFSTOPPED(status):
            return "stopped"
        self._code = os.waitstatus_to_exitcode(status)
        os.close(self._going)
        return "ended"

    def stops(self, seconds: float = 60) -> bool:
        """Waits until it has come to its stop, or to its end."""
        return self._wait(seconds, stopped=True) == "stopped"

    def ends(self, seconds: float) -> bool:
        """Whether it comes to its end in so long."""
        until = time.monotonic() + seconds
        while not self._look(stopped=False):
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        return True

    def go(self) -> None:
        os.write(self._going, b"!")
        os.kill(self.pid, signal.SIGCONT)

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, sign)

    def end(self, seconds: float = 120) -> int:
        """Its exit code, negative for a signal's."""
        if self._code is None:
            self._wait(seconds, stopped=False)
        return -1 if self._code is None else self._code

    def dispose(self) -> None:
        """Where the test ended before it did, it does not stay."""
        if self._code is None:
            self.kill()
            self.end()

    def _wait(self, seconds: float, *, stopped: bool) -> str:
        until, pause = time.monotonic() + seconds, 0.002
        while True:
            changed = self._look(stopped=stopped)
            if changed:
                return changed
            if time.monotonic() > until:
                self.kill()
                os.waitpid(self.pid, 0)
                self._code = -int(signal.SIGKILL)
                raise AssertionError(f"it did not end in {seconds:.0f} s: {self._text()[-2000:]}")
            time.sleep(pause)
            pause = min(0.02, pause * 1.3)

    def _text(self) -> str:
        return self._output.read_text(errors="replace")

    def told(self) -> dict[str, Any]:
        """What it returned when it had ended; nothing where it was killed."""
        text = self._text()
        return dict(json.loads(text.strip().splitlines()[0])) if text.strip().startswith("{") else {}

    def result(self) -> dict[str, Any]:
        """What it returned; AssertionError where it did not succeed."""
        code, found = self.end(), self.told()
        if code or not found or found.get("failed"):
            raise AssertionError(f"it ended with {code}: {found.get('msg') or self._text()[-2000:]}")
        return found


def _child(output: Path, arm: Callable[[], None], become: Callable[[], None]) -> NoReturn:
    code = 70
    try:
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        arm()
        become()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _become(name: str, main: Callable[[], None], options: dict[str, Any]) -> None:
    from ansible.module_utils import basic

    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": options}).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    sys.argv = [name]
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    main()
