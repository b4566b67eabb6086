# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client programs: started here and nowhere else, in a process group of their own, without a shell."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import typing as t

from ._errors import MissingMeans
from ._tuples import NamedTuple

SAID = 1 << 16  # bytes of standard error that are kept: its end
PIPE_BYTES = 1 << 20  # /proc/sys/fs/pipe-max-size of an ordinary user
F_SETPIPE_SZ = 1031  # fcntl has the name since Python 3.10; Linux only


class Completed(NamedTuple):
    code: int
    out: str
    err: str


class Program:
    """A client program under way: `wait` in slices, `stop` from any thread. SIGINT first: most clean up then."""

    def __init__(self, argv: t.Sequence[str], *, env: t.Mapping[str, str], package: str = "") -> None:
        _which(argv[0], os.environ, package)
        # Threads use this: AnsibleModule.run_command cannot be stopped, and its output cannot be read as it comes.
        self._child = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._read: list[str] = ["", ""]
        pipes = (self._child.stdout, self._child.stderr)
        self._readers = [threading.Thread(target=self._drain, args=(n, p), daemon=True) for n, p in enumerate(pipes)]
        for reader in self._readers:
            reader.start()

    def _drain(self, number: int, pipe: t.IO[str] | None) -> None:
        if pipe:
            with pipe:
                self._read[number] = pipe.read()

    def wait(self, seconds: float) -> Completed | None:
        """What it said, once it has ended; None while it runs."""
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        for reader in self._readers:
            reader.join(5)
        return Completed(code, *self._read)

    def stop(self, patience: float = 10.0) -> None:
        """Ends the whole process group."""
        _end(self._child, patience)


class Stage:
    """A program inside a pipe: bytes in, bytes out. What it says on standard error is read meanwhile.

    `source` is the descriptor that it reads (-1: none), `drain` where it writes. None: a new pipe, whose other end is
    `input` or `output`, and the caller's to close. `under`: words in front, of what becomes the program (nice).
    """

    def __init__(
        self,
        argv: t.Sequence[str],
        *,
        env: t.Mapping[str, str],
        source: int | None = None,
        drain: int | None = None,
        cwd: str | None = None,
        package: str = "",
        hand_over: t.Sequence[int] = (),
        under: t.Sequence[str] = (),
    ) -> None:
        self.name = os.path.basename(argv[0])
        _which(argv[0], env, package)
        self.input = self.output = -1
        ends: list[int] = []
        try:
            if source is None:
                source, self.input = _pipe(ends)
            if drain is None:
                self.output, drain = _pipe(ends)
            # Bytes pass through threads: AnsibleModule.run_command would keep them all in memory.
            self._child = subprocess.Popen(  # pylint: disable=ansible-bad-function
                [*under, *argv],
                env=dict(env),
                stdin=subprocess.DEVNULL if source == -1 else source,
                stdout=drain,
                stderr=subprocess.PIPE,
                cwd=cwd,
                pass_fds=tuple(hand_over),
                start_new_session=True,
            )
        except BaseException:
            for fd in ends:
                os.close(fd)
            raise
        for fd in ends:
            if fd not in (self.input, self.output):
                os.close(fd)
        self._said = bytearray()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        pipe = self._child.stderr
        if pipe:
            with pipe:
                for words in iter(lambda: os.read(pipe.fileno(), SAID), b""):
                    self._said += words
                    del self._said[:-SAID]

    def wait(self, seconds: float | None = None) -> Completed | None:
        """How it ended, and the end of what it said; None while it runs."""
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(5)
        return Completed(code, "", self._said.decode("utf-8", "replace"))

    def stop(self, patience: float = 10.0) -> None:
        """Ends the whole process group."""
        _end(self._child, patience)


def mortal() -> list[str]:
    """Words in front of a program that is to end with us, however we end, where there is such a means (Linux).

    For those that write into no pipe of ours, which would end them. Source: setpriv(1), prctl(2).
    """
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def _which(program: str, env: t.Mapping[str, str], package: str) -> None:
    if shutil.which(program, path=env.get("PATH")) is None:
        raise MissingMeans(f"{program} is not there", cure=f"Install the package {package or program}")


def _pipe(ends: list[int]) -> tuple[int, int]:
    """A pipe that holds as much as one read takes, where the system lets it."""
    pair = os.pipe()
    ends += pair
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.fcntl(pair[0], F_SETPIPE_SZ, PIPE_BYTES)
    return pair


def _end(child: subprocess.Popen[t.Any], patience: float) -> None:
    """Most clean up at SIGINT."""
    for sign, seconds in ((signal.SIGINT, patience), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if child.poll() is not None:
            return
        try:
            os.killpg(child.pid, sign)
        except ProcessLookupError:
            return
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
