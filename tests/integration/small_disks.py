# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small file systems that become full, also in the middle of a module's work. No test lives here."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import reader
from tests.fleet.processes import give_away

from .conftest import missing
from .module_runner import Ran, start


class Disk:
    """One of memory; what the test itself has put there to fill it is `ballast`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def left(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Takes all but so many bytes of it, at once."""
        with self._ballast.open("ab") as file:
            more = self.left - leave
            while more > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), more)
                    file.seek(0, os.SEEK_END)
                except OSError:  # somebody else has taken some of it meanwhile
                    pass
                more = self.left - leave

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Disk]:
    """A file system of so many megabytes, mounted there; its root belongs to the servers' account."""
    if os.geteuid() != 0:
        missing("root, to mount a small file system")
    path.mkdir(mode=0o700, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=700", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        missing(f"a small file system: {mounted.stderr.decode().strip()}")
    try:
        give_away(path)
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def filled_meanwhile(
    name: str, options: Mapping[str, Any], moment: Callable[[], object], disk: Disk, *, leave: int = 0
) -> Ran:
    """A module that must fail: its disk is full from that moment on, in which it stands still."""
    running = start(name, options)
    end = time.monotonic() + 60
    while not moment() and running.poll() is None:
        assert time.monotonic() < end, "the right moment has not come"
        time.sleep(0.001)
    running.send(signal.SIGSTOP)
    disk.fill(leave)
    running.send(signal.SIGCONT)
    ran = running.wait(120)
    assert ran.result.get("failed"), f"it did not fail: {ran.text[-3000:]}"
    return ran


def whole(backup: Backup) -> None:
    """Every file of it is what its manifest says. Raises Refused."""
    for _bytes in reader.checksum(backup):
        pass


def offspring(of: Path) -> list[str]:
    """Processes that work in there, or are told of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, cwd = (process / "cmdline").read_bytes(), str((process / "cwd").readlink())
        except OSError:
            continue
        if process.name != str(os.getpid()) and (str(of) in cwd or str(of).encode() in words):
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found
