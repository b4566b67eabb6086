# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module run as a process of its own, without Ansible's packing around it: arguments on standard input.

DBFLEET_FORK=0 starts each of them anew rather than from the nursery.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.fleet.installations import postgresql_majors
from tests.integration.nursery import Child, Nursery

# What PostgreSQL counted is seen up to half a second later in versions before 15. Those are tried by hand.
LATE = 0.6 if min(postgresql_majors()) < 15 else 0.0
MODULES = "ansible_collections.dbfleet.maintenance.plugins.modules"


class Ran(NamedTuple):
    """What a module said."""

    code: int
    result: dict[str, Any]
    text: str

    @property
    def changed(self) -> bool:
        return bool(self.result["changed"])

    def fact(self, name: str = "") -> dict[str, Any]:
        """The fact of that name; without one the only one, or what is due."""
        facts = self.result["ansible_facts"]
        if not name:
            (name,) = facts.keys() - {"db_stats"} or facts.keys()
        return dict(facts[name])

    def steps(self) -> list[tuple[str, str, str]]:
        """Database, object and kind of every step."""
        return [(s["database"], s["object"], s["kind"]) for s in self.fact()["steps"]]

    def statements(self, *statuses: str) -> list[str]:
        """What the steps of these statuses execute, all steps without any."""
        found = [s for s in self.fact()["steps"] if not statuses or s["status"] in statuses]
        return [statement for step in found for statement in step["statements"]]

    def codes(self) -> set[str]:
        """The codes of the findings."""
        return {f["code"] for f in self.fact()["findings"]}


_STARTED: list[Running] = []
_NURSERY: list[Nursery] = []


def _forked(name: str, words: str) -> Child:
    if not _NURSERY:
        _NURSERY.append(Nursery())
    return Child(_NURSERY[0], name, os.environ, words)


def _begun(name: str, words: str, bare: bool) -> subprocess.Popen[str]:
    # Without site-packages there is no driver: the interpreter of a host on which nobody installed one.
    flags, paths = (["-S"], bare_path()) if bare else ([], [p for p in sys.path if p])
    child = subprocess.Popen(
        [sys.executable, *flags, "-m", "tests.integration.module_runner", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if child.stdin:
        child.stdin.write(words)
        child.stdin.close()
        child.stdin = None
    return child


def reap() -> None:
    """Ends what a failing test left running."""
    while _STARTED:
        _STARTED.pop().end()


class Running:
    """A module under way: for what has to happen meanwhile."""

    def __init__(self, name: str, options: Mapping[str, Any], *, check: bool, diff: bool, bare: bool) -> None:
        settings = {"_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": "/tmp"}
        words = json.dumps({"ANSIBLE_MODULE_ARGS": {**options, **settings}})
        fork = not bare and os.environ.get("DBFLEET_FORK") != "0"
        self._heard = False
        time.sleep(LATE)
        self._child = _forked(name, words) if fork else _begun(name, words, bare)
        _STARTED.append(self)

    @property
    def pid(self) -> int:
        return self._child.pid

    def end(self) -> None:
        """Kills it, if it is still there, and lets go of its pipes."""
        if self._child.poll() is None:
            self._child.kill()
        if not self._heard:
            self._heard = True
            self._child.communicate()

    def send(self, sign: signal.Signals) -> None:
        self._child.send_signal(sign)

    def poll(self) -> int | None:
        return self._child.poll()

    def wait(self, timeout: float = 300) -> Ran:
        """The end of it, however it comes."""
        try:
            out, err = self._child.communicate(timeout=timeout)
            self._heard = True
        except subprocess.TimeoutExpired:
            self._child.kill()
            out, err = self._child.communicate()
            raise AssertionError(f"did not end in {timeout} s: {out[-2000:]}{err[-2000:]}") from None
        try:
            result = json.loads(out.strip().splitlines()[-1]) if out.strip() else {}
        except ValueError:
            raise AssertionError(f"not a result: {out[-3000:]}{err[-3000:]}") from None
        return Ran(self._child.poll() or 0, result, out + err)


def start(
    name: str, options: Mapping[str, Any], *, check: bool = False, diff: bool = False, bare: bool = False
) -> Running:
    """Starts a module and does not wait."""
    return Running(name, options, check=check, diff=diff, bare=bare)


def bare_path() -> list[str]:
    """A path that holds Ansible, this collection and these tests, and no other package."""
    import ansible

    folder = Path(tempfile.mkdtemp(prefix="bare"))
    atexit.register(shutil.rmtree, folder)
    (folder / "ansible").symlink_to(Path(ansible.__file__).parent)
    root = Path(__file__).parents[2]
    return [str(folder), str(root), str(root / ".dev" / "collections")]


def run(name: str, options: Mapping[str, Any], *, check: bool = False, fails: bool = False, **more: Any) -> Ran:
    """Runs a module to its end. It must succeed, or with `fails` must not."""
    ran = start(name, options, check=check, **more).wait()
    if bool(ran.result.get("failed", ran.code != 0)) != fails:
        raise AssertionError(f"{name} {'succeeded' if fails else 'failed'}: {ran.text[-4000:]}")
    return ran


def until(condition: Any, seconds: float = 30, what: str = "the condition") -> None:
    """Waits for something that must happen."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true in {seconds} s")
        time.sleep(0.02)


def execute(name: str) -> None:
    """Becomes the module."""
    from ansible.module_utils import basic

    basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
    basic._ANSIBLE_PROFILE = "legacy"
    runpy.run_module(f"{MODULES}.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    execute(sys.argv[1])
