# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page cache holds of a server's files: emptied of them, and what had to be read since. No benchmark."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from tests.fleet import Server

IN_MEMORY = ("tmpfs", "ramfs")


def file_system(path: Path) -> str:
    """The type of the file system that a path is on, as the kernel names it."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = {place.encode().decode("unicode_escape"): kind for place, kind in mounts}  # a later mount covers
    above = [str(folder) for folder in (path.resolve(), *path.resolve().parents)]
    return next(places[folder] for folder in above if folder in places)


@contextmanager
def on_a_disk(needed: int) -> Iterator[None]:
    """Servers started meanwhile lie on a disk with so many bytes to spare, unless DBFLEET_DIR says where.

    Where there is none of these they lie where they always do, which may be memory: the benchmark says so.
    """
    places = () if os.environ.get("DBFLEET_DIR") else (Path(tempfile.gettempdir()), Path("/var/tmp"))
    fit = [p for p in places if file_system(p) not in IN_MEMORY and shutil.disk_usage(p).free > needed]
    with patch.dict(os.environ, {"DBFLEET_DIR": str(fit[0])} if fit else {}):
        yield


def evict(server: Server) -> None:
    """Stops the server, lets go of all of its files, and starts it again: it has nothing in memory then.

    The kernel keeps pages that are not on the disk yet, so they are written first. Needs no root.
    """
    server.sql("CHECKPOINT")  # stopping in a hurry would make unlogged tables empty
    server.stop()
    for path in server.data_dir.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    server.start()


def load(server: Server) -> None:
    """Reads all of its files, each from beginning to end: a disk gives them so many times faster than page by page."""
    for path in server.data_dir.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 22):
                    pass


def megabytes_read() -> float:
    """From all disks of the machine, by whomever, since it started."""
    counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counts["pgpgin"]) / 1024
