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
LOCK, NEW = "lock", ".new"  # in a folder; of what is not locked yet
FOLDER = re.compile(rf"{PREFIX}(?:[a-z]+-)?[0-9a-f]{{10}}")
FILE = re.compile(rf"\.{PREFIX}[0-9a-f]{{16}}{re.escape(durable.TEMPORARY)}(?:{re.escape(NEW)})?")
TRIES = 10


class Private:
    """A folder, mode 0700, that is swept up should this process die. Raises OSError."""

    def __init__(self, place: str, prefix: str = PREFIX) -> None:
        self.path, self._lock = _again(lambda: _made(place, prefix))

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
    return _again(lambda: _opened(where))


def _opened(where: str) -> tuple[str, int]:
    path = os.path.join(where, f".{PREFIX}{os.urandom(8).hex()}{durable.TEMPORARY}")
    return path, _locked(path)


def _made(place: str, prefix: str) -> tuple[str, int]:
    path = os.path.join(place, f"{prefix}{os.urandom(5).hex()}")
    os.mkdir(path, 0o700)
    try:
        return path, _locked(os.path.join(path, LOCK))
    except FileNotFoundError:
        raise Swept(path) from None
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _again(make: t.Callable[[], tuple[str, int]]) -> tuple[str, int]:
    """Another one, where a sweep came before the lock and took it for what somebody had left who died just then."""
    for _try in range(TRIES):
        with suppress(Swept):
            return make()
    return make()


class Swept(OSError):
    """What was being made is gone."""


def _locked(path: str) -> int:
    """A new file that never had this name without its lock. Raises Swept, OSError."""
    new = path + NEW
    fd = durable.create(new)
    try:
        if not durable.locked(fd):
            raise Swept(path)
        os.rename(new, path)
    except FileNotFoundError:
        os.close(fd)
        raise Swept(path) from None
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
                _sweep_folder(entry.path)
            elif FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove(entry.path, os.unlink)


def _sweep_folder(path: str) -> None:
    """Also one that was not locked yet, which its maker makes anew where he is alive."""
    lock = os.path.join(path, LOCK)
    with suppress(OSError):
        if os.path.lexists(lock):
            _remove(lock, lambda _lock: shutil.rmtree(path, True))
        elif FOLDER.fullmatch(os.path.basename(path)) and os.lstat(path).st_uid == os.geteuid():
            _remove(lock + NEW, lambda _lock: shutil.rmtree(path, True))
            os.rmdir(path)


def _remove(lock: str, remove: t.Callable[[str], object]) -> None:
    """Where it is this user's own, and free."""
    with suppress(OSError):
        fd = durable.open_again(lock)
        try:
            if os.fstat(fd).st_uid == os.geteuid() and durable.locked(fd):
                remove(lock)
        finally:
            os.close(fd)
