# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk that can be stopped before, or in the middle of, each call: by SIGKILL, or by a power cut.

What `os` does is done; what a power cut leaves is what was flushed: a file's bytes by fsync of the file, its name by
fsync of the folder. Disks may keep more than that, so there are several ways to lose power.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CALLS = ("open", "write", "ftruncate", "fsync", "replace", "unlink", "mkdir")
# What is left: all; only what was flushed; flushed bytes under today's names; those, and zeros up to today's length.
CUTS = ("killed", "flushed", "names", "zeros")


class PowerCut(BaseException):
    """Nothing is done from here on: whatever still tries is told so, too."""


class Disk:
    """Watches the folder through `os`. `stop`: the number of the call that is not made any more; a write is half made.

    `deaf`: fsync of a path for which it is true does nothing, as if it had been left out.
    """

    def __init__(self, folder: Path, stop: int | None = None, *, kill: bool = False) -> None:
        self.folder, self.stop, self.kill = folder, stop, kill
        self.deaf: Callable[[str], bool] = lambda path: False
        self.calls: list[str] = []
        self.fault = 0  # an errno: instead of stopping, the disk says so from call `stop` on, where `faulty` can fail
        self.faulty: tuple[str, ...] = ()
        self.failed = 0
        self._real = {name: getattr(os, name) for name in CALLS}
        self._names = {path.name: path.stat().st_ino for path in folder.iterdir()}
        self._bytes = {path.stat().st_ino: path.read_bytes() for path in folder.iterdir()}

    @contextmanager
    def watched(self) -> Iterator[None]:
        for name in CALLS:
            setattr(os, name, self._wrapped(name))
        try:
            yield
        finally:
            for name, real in self._real.items():
                setattr(os, name, real)

    def pause(self) -> None:
        """A moment between two calls."""
        self.calls.append("pause")
        if not self.fault and self.stop is not None and len(self.calls) >= self.stop:
            self._die()

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*args: Any, **keywords: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **keywords)
            self.calls.append(name)
            if self.fault:
                self._fail(name)
            elif self.stop is not None and len(self.calls) >= self.stop:
                if name == "write" and len(self.calls) == self.stop:
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                self._die()
            if name == "fsync":  # this disk does not need it, and the tests would take ten times as long
                return self._flushed(args[0])
            result = real(*args, **keywords)
            if name == "open":  # its number may be that of a file which is gone
                self._bytes.pop(os.fstat(result).st_ino, None)
            return result

        return call

    def _fail(self, name: str) -> None:
        once = self.fault == errno.EIO and self.failed  # after an fsync that failed the next one tells a lie
        if self.stop is not None and len(self.calls) >= self.stop and name in self.faulty and not once:
            self.failed += 1
            raise OSError(self.fault, os.strerror(self.fault))

    def _die(self) -> None:
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise PowerCut

    def _flushed(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if self.deaf(str(path)):
            return
        if path == self.folder:
            self._names = {entry.name: entry.stat().st_ino for entry in self.folder.iterdir()}
        else:
            self._bytes[os.fstat(fd).st_ino] = path.read_bytes()

    def after(self, cut: str) -> None:
        """Makes the folder what it is when the power is back."""
        if cut == "killed":
            return
        now = {path.name: path.stat().st_ino for path in self.folder.iterdir()}
        length = {path.stat().st_ino: path.stat().st_size for path in self.folder.iterdir()}
        names = self._names if cut == "flushed" else now
        left = {}
        for name, inode in names.items():
            data = self._bytes.get(inode, b"")
            grown = length.get(inode, 0) if cut == "zeros" else 0
            left[name] = data + b"\0" * max(grown - len(data), 0)
        for path in self.folder.iterdir():
            path.unlink()
        for name, data in left.items():
            (self.folder / name).write_bytes(data)
