# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of db_cleanup in a process of its own that stops where it is told to, so that it can be killed there.

The product has no hook for that: the verbs of nibble's protocols and the journal's tick are wrapped in the child.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines import nibble
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import purge
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Gone
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import finish, shelf
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention_steps
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run import journal, keeper
from ansible_collections.dbfleet.maintenance.plugins.modules import db_cleanup

# Where a bite can be stopped, in its order. "unanswered": committed, and the answer never came back.
PHASES = ("taken", "written", "flushed", "committed", "unanswered", "settled", "cursor saved", "named")
BITE = 8  # rows


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


class Bites:
    """The engine's verbs, with the gate between them."""

    def __init__(self, inner: Any, gate: Gate) -> None:
        self._inner, self._gate, self._rows = inner, gate, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def take(self, cursor: str | None, end: str) -> Any:
        taken = self._inner.take(cursor, end)
        self._rows = taken.rows
        if taken.rows:
            self._gate.passes("taken")
        return taken

    def commit(self) -> None:
        self._inner.commit()
        if self._rows:
            self._gate.passes("committed")
            if self._gate.passes("unanswered"):
                raise Gone("the connection was lost before the answer came")


class Shelf:
    """The shelf's verbs, with the gate between them."""

    def __init__(self, inner: Any, gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(self, frames: Sequence[Any], mark: str) -> int:
        written = int(self._inner.put(frames, mark))
        self._gate.passes("flushed")
        return written

    def settle(self) -> None:
        self._inner.settle()
        self._gate.passes("settled")


class _System:
    """The module os as shelf.py sees it: what was written is not flushed yet."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        self._gate.passes("written")
        os.fsync(fd)


def _arm(gate: Gate) -> None:
    """Only ever in a child."""
    real, name_one = nibble.nibble, finish._name

    def nibbled(bites: Any, task: Any, files: Any, cursor: str | None) -> Any:
        return real(Bites(bites, gate), task, Shelf(files, gate) if files else None, cursor)

    def named(folder: str, entry: Any) -> None:
        name_one(folder, entry)
        gate.passes("named")

    def told(tick: Callable[..., None]) -> Callable[..., None]:
        def ticked(self: Any, step: Any, said: Any) -> None:
            tick(self, step, said)
            if said.cursor is not None and said.amount.rows:
                gate.passes("cursor saved")

        return ticked

    _put(nibble, nibble=nibbled)
    _put(shelf, os=_System(gate))
    _put(finish, _name=named)
    for kind in (journal.Journal, keeper.FileJournal):
        _put(kind, tick=told(kind.tick))


def _put(place: Any, **things: Any) -> None:
    for name, thing in things.items():
        setattr(place, name, thing)


# ---- mutants: two phases swapped -------------------------------------------------------------------------------------


def _commit_before_put(bites: Any, files: Any, cursor: str | None, end: str) -> tuple[Any, int, float]:
    taken, written = bites.take(cursor, end), 0
    mark = bites.mark() if files and taken.frames else ""
    bites.commit()
    if files and taken.frames:
        written = files.put(taken.frames, mark)
        files.settle()
    return taken, written, 0.0


def _settle_before_commit(bites: Any, files: Any, cursor: str | None, end: str) -> tuple[Any, int, float]:
    taken, written = bites.take(cursor, end), 0
    if files and taken.frames:
        written = files.put(taken.frames, bites.mark())
        files.settle()
    bites.commit()
    return taken, written, 0.0


MUTANTS = {"commit before put": _commit_before_put, "settle before commit": _settle_before_commit}


# ---- the process -----------------------------------------------------------------------------------------------------


class Run:
    """A run of the module in a child of this process: what it imports is there already."""

    def __init__(
        self,
        options: Mapping[str, Any],
        output: Path,
        *,
        stop: Stop | None = None,
        mutant: str = "",
        check: bool = False,
    ) -> None:
        self._output = output
        self._code: int | None = None
        go, self._going = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._going)
            _child(dict(options), output, Gate(stop, go), mutant, check)
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

    def result(self) -> dict[str, Any]:
        """What it returned; AssertionError where it did not succeed."""
        code, text = self.end(), self._text()
        found: dict[str, Any] = {}
        if text.strip().startswith("{"):
            found = json.loads(text.strip().splitlines()[0])
        if code or not found or found.get("failed"):
            raise AssertionError(f"it ended with {code}: {found.get('msg') or text[-2000:]}")
        return found


def _child(options: dict[str, Any], output: Path, gate: Gate, mutant: str, check: bool) -> NoReturn:
    code = 70
    try:
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        _arm(gate)
        if mutant:
            _put(nibble, _bite=MUTANTS[mutant])
        # Small bites, so that there are some.
        _put(retention_steps, FIRST_BITE=BITE, MOST_ROWS=BITE)
        _put(purge, LEAST=BITE // 2)
        _module({**options, "_ansible_check_mode": check, "_ansible_remote_tmp": str(output.parent)})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _module(options: dict[str, Any]) -> None:
    from ansible.module_utils import basic

    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": options}).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    sys.argv = ["db_cleanup"]
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    db_cleanup.main()
