# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and folders that are needed for a while, and that nobody misses whose process has died. Knows no backup.

Whoever made one holds its lock, and the kernel lets go of that however he ends: what has a name of ours and a lock that
is free is swept up by the next one that makes something there.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import typing as t
from contextlib import contextmanager, suppress

from . import durable

PREFIX = "dbfleet-"
LOCK = "lock"  # in a folder
FILE = re.compile(r"\.dbfleet-[0-9a-f]{16}\.tmp")


class Private:
    """A folder, mode 0700, that is swept up should this process die."""

    def __init__(self, place: str, prefix: str = PREFIX) -> None:
        self.path = tempfile.mkdtemp(prefix=prefix, dir=place)
        self._lock = -1
        try:
            self._lock = _locked(os.path.join(self.path, LOCK))
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """It is gone. Never raises."""
        shutil.rmtree(self.path, ignore_errors=True)
        fd, self._lock = self._lock, -1
        if fd >= 0:
            os.close(fd)


@contextmanager
def folder(where: str | None = None) -> t.Iterator[str]:
    """A new folder there, or where temporary files lie; gone at the end."""
    sweep(where)
    made = Private(where or tempfile.gettempdir())
    try:
        yield made.path
    finally:
        made.end()


def file(where: str) -> tuple[str, int]:
    """A new file there, mode 0600: its path, and a descriptor that holds its lock. Raises OSError."""
    path = os.path.join(where, f".{PREFIX}{os.urandom(8).hex()}{durable.TEMPORARY}")
    return path, _locked(path)


def _locked(path: str) -> int:
    """A new file that never had this name without its lock."""
    new = path + ".new"
    fd = durable.create(new)
    try:
        durable.locked(fd)
        os.rename(new, path)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            os.unlink(new)
        raise
    return fd


def sweep(where: str | None = None) -> None:
    """Removes what processes of this user left there, or where temporary files lie, and died. Never raises."""
    with suppress(OSError), os.scandir(where or tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                _remove(os.path.join(entry.path, LOCK), lambda path: shutil.rmtree(os.path.dirname(path), True))
            elif FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove(entry.path, os.unlink)


def _remove(lock: str, remove: t.Callable[[str], object]) -> None:
    """Where it is this user's own, and free."""
    with suppress(OSError):
        fd = durable.open_again(lock)
        try:
            if os.fstat(fd).st_uid == os.geteuid() and durable.locked(fd):
                remove(lock)
        finally:
            os.close(fd)
