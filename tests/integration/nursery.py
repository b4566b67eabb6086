# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules as processes that were forked from one which has imported what they need.

Most of what a run of a module costs is the import of Ansible and of the collection, and the tests run thousands.
What is forked is as fresh as a process that imported the same: nothing has run in it yet.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
UTILS = "ansible_collections.dbfleet.maintenance.plugins.module_utils"
DRIVERS = ("psycopg2", "psycopg2.extras", "pymysql", "pymysql.cursors", "sqlite3")


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise EOFError
        found += more
    return found


class Nursery:
    """The process that all of them are forked from; it ends when this one does."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )

    def bear(self, name: str, environment: Mapping[str, str], descriptors: Sequence[int]) -> int:
        """The process id of a module's run. Descriptors: standard input, output, errors, and where its end is told."""
        words = json.dumps([name, dict(environment)]).encode()
        socket.send_fds(self._control, [struct.pack("!I", len(words))], list(descriptors))
        self._control.sendall(words)
        return int(struct.unpack("!i", _read(self._control, 4))[0])


class Child:
    """A run of a module, as subprocess.Popen shows it."""

    def __init__(self, nursery: Nursery, name: str, environment: Mapping[str, str], words: str) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        ours_err, theirs_err = os.pipe()
        self._told, theirs_told = os.pipe()
        theirs = (theirs_in, theirs_out, theirs_err, theirs_told)
        try:
            self.pid = nursery.bear(name, environment, theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.returncode: int | None = None
        self._output = {ours_out: b"", ours_err: b""}
        self._order = (ours_out, ours_err)
        self._ended: dict[int, bytes] = {}
        os.set_blocking(self._told, False)
        with os.fdopen(ours_in, "wb") as pipe:
            pipe.write(words.encode())

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                said = os.read(self._told, 4)
            except BlockingIOError:
                return None
            # Without a word the nursery is gone, and took nobody along: nobody can say how it ended.
            self.returncode = struct.unpack("!i", said)[0] if said else -signal.SIGKILL
            os.close(self._told)
        return self.returncode

    def send_signal(self, sign: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sign)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as waiting:
            for descriptor in self._output:
                waiting.register(descriptor, selectors.EVENT_READ)
            while waiting.get_map():
                left = None if until is None else max(0.0, until - time.monotonic())
                found = waiting.select(left)
                if not found:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
                for key, _events in found:
                    self._take(waiting, int(key.fd))
        while self.poll() is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            time.sleep(0.002)
        out, err = (self._ended[descriptor] for descriptor in self._order)
        return out.decode(errors="replace"), err.decode(errors="replace")

    def _take(self, waiting: selectors.BaseSelector, descriptor: int) -> None:
        more = os.read(descriptor, 1 << 16)
        self._output[descriptor] += more
        if not more:
            waiting.unregister(descriptor)
            os.close(descriptor)
            self._ended[descriptor] = self._output.pop(descriptor)


# ---- inside ----------------------------------------------------------------------------------------------------------


def _learn() -> None:
    """Imports what most modules import."""
    importlib.import_module("ansible.module_utils.basic")
    utils = importlib.import_module(UTILS)
    for found in pkgutil.walk_packages(utils.__path__, f"{UTILS}."):
        importlib.import_module(found.name)
    for driver in DRIVERS:
        importlib.import_module(driver)


def _serve(control: socket.socket) -> str:
    """Forks for each request; returns in the children, with the module's name. Raises EOFError at the end."""
    told: dict[int, int] = {}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *ignored: None)
    with selectors.DefaultSelector() as waiting:
        waiting.register(control, selectors.EVENT_READ)
        waiting.register(reading, selectors.EVENT_READ)
        while True:
            for key, _events in waiting.select():
                if key.fd == reading:
                    os.read(reading, 4096)
                    _bury(told)
                else:
                    name = _fork(control, told)
                    if name:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        for descriptor in (reading, writing, *told.values()):
                            os.close(descriptor)
                        return name


def _bury(told: dict[int, int]) -> None:
    for pid in list(told):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            descriptor = told.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # nobody asks any more
                os.write(descriptor, struct.pack("!i", os.waitstatus_to_exitcode(status)))
            os.close(descriptor)


def _fork(control: socket.socket, told: dict[int, int]) -> str:
    """The name of the module in the child; nothing in the parent."""
    head, descriptors, _flags, _address = socket.recv_fds(control, 4, 4)
    if not head:
        raise EOFError
    name, environment = json.loads(_read(control, struct.unpack("!I", head)[0]))
    pid = os.fork()
    if pid:
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        told[pid] = descriptors[3]
        control.sendall(struct.pack("!i", pid))
        return ""
    for place, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, place)
    for descriptor in descriptors:
        os.close(descriptor)
    control.close()
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    random.seed()
    return str(name)


def main() -> None:
    """Begins as the nursery, and goes on as a module in each child."""
    control = socket.socket(fileno=int(sys.argv[1]))
    _learn()
    # What is there now stays: children that looked through it would copy it, which costs more than most runs do.
    gc.collect()
    gc.freeze()
    try:
        name = _serve(control)
    except EOFError:
        return
    from tests.integration.module_runner import execute

    try:
        execute(name)
    except SystemExit as end:
        if isinstance(end.code, int):
            _leave(end.code)
        raise


def _leave(code: int) -> NoReturn:
    """As the interpreter does, but for taking apart what was imported, which would copy it, too."""
    vars(threading)["_shutdown"]()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
