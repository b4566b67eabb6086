# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a backup that is no backup yet, or no more: its marker, and the names that may be removed with it.

`<id>.partial` is locked by whoever writes, or removes, the backup: the kernel lets go of it when the process dies. It
names the files, so that nothing else is ever taken away.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import typing as t
from contextlib import ExitStack, suppress

from .._errors import Busy, Refused
from .._tuples import NamedTuple
from . import durable
from .backup_manifest import ID, MANIFEST, PARTIAL, is_name

SERVER_FOLDER = "_server"
LONGEST_NAME = 200  # characters of a folder's name
LARGEST = 1 << 26  # bytes of a marker


def folder_name(database: str) -> str:
    """Of the folder that holds a database's backups; "" is the server itself."""
    name = durable.safe_name(database, LONGEST_NAME) if database else SERVER_FOLDER
    return name if not database or name != SERVER_FOLDER else "%5F" + name[1:]


class Told(NamedTuple):
    """What a marker says."""

    server: str = ""
    database: str = ""
    names: tuple[str, ...] = ()
    removed: bool = False  # it was a backup: it is being removed


class Marker:
    """Held while this process writes the backup."""

    def __init__(self, folder: str, ident: str, server: str, database: str) -> None:
        self._path, self._ident = os.path.join(folder, ident + PARTIAL), ident
        self._told = Told(server, database)
        self._fd = durable.create(self._path)
        try:
            if not durable.locked(self._fd):
                raise Busy(f"{self._path} is held by another run")
            # Not flushed: what only we call so is found without it, too.
            self._write()
        except BaseException:
            self.drop()
            raise

    @property
    def shared(self) -> list[int]:
        """For programs that write the backup: they hold the lock, too, should this process die before them."""
        return [self._fd]

    def add(self, name: str) -> None:
        """Before the file is there. Raises OSError."""
        self._told = self._told._replace(names=(*self._told.names, name))
        self._write()

    def _write(self) -> None:
        text = json.dumps({**self._told._asdict(), "host": os.uname().nodename, "pid": os.getpid()})
        os.lseek(self._fd, 0, os.SEEK_SET)
        durable.write_all(self._fd, text.encode("ascii") + b"\n")

    def drop(self) -> None:
        """It is gone, and its lock. Raises OSError."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                durable.unlink(self._path)
            finally:
                os.close(fd)


def told(folder: str, ident: str) -> Told:
    """What the marker says; nothing where it is torn or not there. Never raises."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        fd = durable.open_to_read(os.path.join(folder, ident + PARTIAL))
        with open(fd, "rb") as file:
            found = json.loads(file.read(LARGEST))
        # A manifest whose backup was being removed has files, and says which.
        names = found["names"] if "names" in found else [each["name"] for each in found["files"]]
        owned = tuple(name for name in names if isinstance(name, str) and is_name(name, ident))
        return Told(str(found["server"]), str(found["database"]), owned, "files" in found)
    return Told()


def held(folder: str, ident: str, tail: str = PARTIAL) -> bool:
    """Whether a process that lives has the marker, or the manifest. Raises OSError other than that it is not there."""
    try:
        fd = durable.open_again(os.path.join(folder, ident + tail))
    except FileNotFoundError:
        return False
    try:
        return not durable.locked(fd)
    finally:
        os.close(fd)


def belongings(present: t.Iterable[str], ident: str, named: t.Sequence[str]) -> list[str]:
    """Which of the names in a folder are the unfinished backup's: what its marker names, and what only we call so."""
    wanted = {name.split("/")[0] for name in named}
    wanted |= {name + PARTIAL for name in wanted} | {ident + PARTIAL, ident + MANIFEST + durable.TEMPORARY}
    ours = re.compile(re.escape(ident) + r"\..*" + re.escape(PARTIAL))
    return sorted(name for name in present if name in wanted or ours.fullmatch(name))


def clear(folder: str, names: t.Sequence[str]) -> int:
    """Removes what a backup that died left behind, unless somebody works on it; bytes freed. Raises Busy, Refused.

    `names` as Unfinished.files has them, relative to the backup folder.
    """
    freed = 0
    with durable.refusing(f"{folder} cannot be cleaned up"):
        for place, ident in dict.fromkeys((os.path.dirname(name), _ident(name)) for name in names):
            if os.path.basename(place) != place or place in ("", ".", "..") or not ident:
                raise Refused(f"{place} in {folder} holds no backup of ours")
            freed += _clear(os.path.join(folder, place), ident)
    return freed


def _ident(name: str) -> str:
    found = ID.match(os.path.basename(name))
    return found.group() if found else ""


def _clear(folder: str, ident: str) -> int:
    with ExitStack() as stack:
        for tail in (PARTIAL, MANIFEST):  # who writes a backup has the one, who amends it the other
            with suppress(FileNotFoundError):
                fd = durable.open_again(os.path.join(folder, ident + tail))
                stack.callback(os.close, fd)
                if not durable.locked(fd):
                    raise Busy(f"{folder}/{ident}{tail} is held by a backup that goes on")
        if os.path.lexists(os.path.join(folder, ident + MANIFEST)):
            # It was finished after all: only the marker is left over, or what was to become another manifest.
            names = [ident + PARTIAL, ident + MANIFEST + durable.TEMPORARY]
        else:
            names = belongings(os.listdir(folder), ident, told(folder, ident).names)
        return take_away(folder, names, last=ident + PARTIAL)


def sweep(folder: str, server: str = "", database: str = "") -> None:
    """Clears in that folder what nobody works on any more: of that server's database, or of nobody.

    Of nobody are empty markers: who makes one may die before it says a word, and has nothing else there yet. Raises
    OSError.
    """
    for name in os.listdir(folder):
        ident = name[: -len(PARTIAL)]
        if not (name.endswith(PARTIAL) and ID.fullmatch(ident)):
            continue
        whose = told(folder, ident)
        empty = not whose.server and os.stat(os.path.join(folder, name), follow_symlinks=False).st_size == 0
        if empty or (server and (whose.server, whose.database) == (server, database)):
            with suppress(Busy, FileNotFoundError):
                _clear(folder, ident)


def take_away(folder: str, names: t.Sequence[str], *, last: str) -> int:
    """Removes files and folders of that folder; bytes freed. No symbolic link is followed. Raises OSError."""
    freed = 0
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name in sorted(names, key=lambda name: name == last):
            if name == last:
                os.fsync(at)
            freed += _remove_at(at, name)
        os.fsync(at)
    finally:
        os.close(at)
    return freed


def _remove_at(at: int, name: str) -> int:
    """What is not there any more is removed already. Raises OSError."""
    *folders, leaf = name.split("/")
    opened: list[int] = []
    try:
        for folder in folders:
            opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at))
            at = opened[-1]
        found = os.stat(leaf, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return _remove_tree(at, leaf)
        os.unlink(leaf, dir_fd=at)
    except FileNotFoundError:
        return 0
    finally:
        for fd in opened:
            os.close(fd)
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _remove_tree(at: int, name: str) -> int:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    try:
        freed = sum(_remove_at(fd, each) for each in os.listdir(fd))
    finally:
        os.close(fd)
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=at)
    return freed


def empty(folder: str, names: t.Iterable[str]) -> None:
    """Removes folders inside of a backup that have nothing in them any more."""
    folders = {os.path.dirname(name) for name in names} - {""}
    for name in sorted(folders, key=len, reverse=True):
        parts = name.split("/")
        for depth in range(len(parts), 0, -1):
            try:
                os.rmdir(os.path.join(folder, *parts[:depth]))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                break
