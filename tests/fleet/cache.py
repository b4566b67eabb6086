# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders: what is made once and kept between runs, and where fleets live. Knows no database."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import FleetError
from .processes import server_account

# tmpfs is taken for a fleet only where this much room is left in it, and in memory.
ROOM_ON_TMPFS = 3 * 1024**3


def reachable(path: Path) -> bool:
    """Tell whether the servers' user can get to a folder: no parent is private to another user."""
    if server_account() is None:
        return True
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def common_folder() -> Path:
    """Give a folder for temporary files that the servers' user can get to."""
    for folder in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):
        if folder.is_dir() and os.access(folder, os.W_OK) and reachable(folder.resolve()):
            return folder.resolve()
    raise FleetError("no temporary folder that an unprivileged user can get to: set DBFLEET_CACHE and DBFLEET_DIR")


def cache_dir() -> Path:
    """Give (and make) the cache: DBFLEET_CACHE, else a folder of the caller's own among the temporary files."""
    chosen = os.environ.get("DBFLEET_CACHE")
    path = Path(chosen).absolute() if chosen else common_folder() / f"dbfleet-{os.geteuid()}-cache"
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    # The name can be guessed and the parent may be everybody's: programs are run from here, so it must be ours.
    facts = path.lstat()
    if path.is_symlink() or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise FleetError(f"{path} is not a folder that only its owner, the caller, can write to: set DBFLEET_CACHE")
    if not reachable(path):
        raise FleetError(f"{path} lies in a private folder that the servers' user cannot get to: set DBFLEET_CACHE")
    return path


def once(name: str, build: Callable[[Path], None]) -> Path:
    """Give the cached folder `name`, built by `build(empty folder)` the first time.

    It appears whole or not at all (by rename), and of several processes one builds while the others wait.
    """
    target = cache_dir() / name
    if target.is_dir():
        return target
    with (cache_dir() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        scratch = cache_dir() / f".{name}.partial"
        remove(scratch)
        scratch.mkdir(mode=0o755)
        try:
            build(scratch)
            scratch.rename(target)
        finally:
            remove(scratch)
    return target


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder with owners and modes; blocks are shared where the file system can do that."""
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(target)], check=True)


def remove(path: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    shutil.rmtree(path, ignore_errors=True)


def fleet_base() -> Path:
    """Give the folder for fleets: DBFLEET_DIR, else /dev/shm with room in it, else among the temporary files."""
    chosen = os.environ.get("DBFLEET_DIR")
    if chosen:
        path = Path(chosen).absolute()
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not reachable(path):
            raise FleetError(f"DBFLEET_DIR {path} lies in a private folder that the servers' user cannot get to")
        return path
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and min(shutil.disk_usage(memory).free, _free_memory()) >= ROOM_ON_TMPFS:
        return memory
    return common_folder()


def _free_memory() -> int:
    """Bytes of memory that programs could take now."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
