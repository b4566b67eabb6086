# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new data directory: filled out of sight, there whole or not at all. Knows nothing of what stands in it.

All is made in one hidden folder inside of it, so that it may be a mount point, in a folder that is not ours; no server
starts on a directory that has nothing else in it. At the end everything moves up, the one without which no server
starts last. What has died in between is told by that folder, which nobody holds the directory's lock for any more.
"""

from __future__ import annotations

import json
import os
import shutil
import typing as t
from contextlib import contextmanager, suppress

from .._backups import Site
from .._errors import Busy, Refused
from . import durable, unfinished

INSIDE = ".dbfleet-restore"
DATA, NAMES = "data", "names.json"  # in INSIDE: what is being filled; what moves up, noted before it does
OF = "of.json"  # in INSIDE of a directory that belongs to another one, such as one of tablespaces: which
LARGEST = 1 << 20  # bytes of NAMES

Owner = tuple[int, int]  # numbers of the user and the group


def look(path: str, of: Site | None = None) -> Site:
    """The directory as it is; changes nothing. Never raises: what is wrong is in `why_not`.

    `of`: the one that it belongs to.
    """
    free, device = _space(path)
    site = Site(path, free=free, device=device)
    try:
        if not os.path.lexists(path):
            return site._replace(why_not=durable.why_not(path))
        if not os.path.isdir(path):
            return site._replace(why_not=f"{path} is not a folder")
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            return site._replace(why_not=f"this user may not write in {path}")
        names = set(os.listdir(path))
        if not names:
            return site
        left, finished = _left(path, of.path if of and of.left else "")
        if _held(path):
            return site._replace(why_not=f"another restore fills {path} at this moment")
        foreign = sorted(names - set(left))
        if foreign or finished:
            shown = ", ".join((foreign or left)[:3])
            return site._replace(why_not=f"{path} is not empty: there is {shown}", occupied=True)
        return site._replace(left=True)
    except OSError as error:
        return site._replace(why_not=f"{error.filename or path}: {error.strerror}")


def _space(path: str) -> tuple[int | None, int | None]:
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    try:
        return shutil.disk_usage(path).free, os.stat(path).st_dev
    except OSError:
        return None, None


def _left(path: str, of: str = "") -> tuple[list[str], bool]:
    """What a dead run left there; and whether it had come to its end, so that a server may run on it by now.

    `of`: the directory that it belongs to, where that was left: then neither had.
    """
    inside = os.path.join(path, INSIDE)
    if not os.path.isdir(inside) or os.path.islink(inside):
        return [], False
    names = [name for name in _noted(inside, NAMES) if _plain(name)]
    if of and of in _noted(inside, OF):
        return [*names, INSIDE], False
    if names and not os.path.lexists(os.path.join(inside, DATA, names[-1])):
        return [INSIDE], os.path.lexists(os.path.join(path, names[-1]))
    return [*names, INSIDE], False


def _noted(inside: str, name: str) -> list[t.Any]:
    with suppress(FileNotFoundError, ValueError):
        fd = durable.open_to_read(os.path.join(inside, name))
        with open(fd, "rb") as file:
            return list(json.loads(file.read(LARGEST)))
    return []


def _plain(name: t.Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..", INSIDE) and "/" not in name


def _held(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return not durable.locked(fd)
    finally:
        os.close(fd)


class Filling:
    """A directory under way: `data` is filled by whoever restores, then `place` makes it the directory itself."""

    def __init__(self, path: str, owner: Owner | None) -> None:
        self.path, self.owner = path, owner
        self.inside = os.path.join(path, INSIDE)
        self.data = os.path.join(self.inside, DATA)
        self.placed = False

    def begin(self, of: str = "") -> None:
        """Raises OSError."""
        for folder in (self.inside, self.data):
            os.mkdir(folder, 0o700)
            os.chmod(folder, 0o700)  # whatever the umask
            if self.owner:
                os.chown(folder, *self.owner)
        if of:
            durable.replace(os.path.join(self.inside, OF), json.dumps([of]).encode("ascii"))

    def flush(self) -> t.Iterator[int]:
        """Everything in it outlives a power cut; yields a number of files now and then. Raises Refused."""
        done = 0
        with durable.refusing(f"{self.path} cannot be written"):
            for folder, _folders, files in os.walk(self.data):
                for name in files:
                    path = os.path.join(folder, name)
                    if not os.path.islink(path):
                        _flush(path)
                    done += 1
                    if done % 500 == 0:
                        yield done
                durable.sync_folder(folder)

    def place(self, keystone: str) -> None:
        """Everything moves up; `keystone`: what no server starts without, last. Raises Refused."""
        self.raise_up(keystone)
        self.finish()

    def raise_up(self, keystone: str = "") -> None:
        """The same, and what tells of it stays until finish(): it belongs to another one that is not there yet."""
        with durable.refusing(f"{self.path} cannot be written"):
            names = sorted(os.listdir(self.data), key=lambda name: (name == keystone, name))
            if keystone and keystone not in names:
                raise Refused(f"what was restored has no {keystone}", cure="Do not count on this backup")
            durable.replace(os.path.join(self.inside, NAMES), json.dumps(names).encode("ascii"))
            for name in names:
                if name == keystone:
                    durable.sync_folder(self.path)
                os.rename(os.path.join(self.data, name), os.path.join(self.path, name))
            durable.sync_folder(self.path)
        self.placed = bool(keystone)

    def finish(self) -> None:
        """Raises Refused."""
        with durable.refusing(f"{self.path} cannot be written"):
            self.placed = True
            unfinished.take_away(self.path, [INSIDE], last=INSIDE)


def _flush(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def founded(path: str, owner: Owner | None = None, *, of: Site | None = None) -> t.Iterator[Filling]:
    """An empty directory to be filled, its owner's alone; as it was where what comes fails. Raises Busy, Refused.

    What a dead run left there is removed first. `owner`: whose it becomes, where it is not to be this user's. `of`: the
    directory that it belongs to, as it was before that was founded.
    """
    with durable.refusing(f"{path} cannot be written"):
        made = not os.path.lexists(path)
        if made:
            durable.make_folder(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    before, taken = os.fstat(fd), False
    filling = Filling(path, owner)
    try:
        with durable.refusing(f"{path} cannot be written"):
            _take(path, fd, of.path if of and of.left else "")
            taken = True  # before that, what is there is somebody else's
            os.fchmod(fd, 0o700 if made else before.st_mode & 0o750 | 0o700)
            if owner:
                os.fchown(fd, *owner)
            filling.begin(of.path if of else "")
        yield filling
    finally:
        if taken and not filling.placed:
            with suppress(OSError):
                _undo(filling, fd, before, made, of.path if of else "")
        os.close(fd)


def _take(path: str, fd: int, of: str) -> None:
    """Locks the directory, and empties it of what a dead run left there. Raises Busy, Refused, OSError."""
    if not durable.locked(fd):
        raise Busy(f"another restore fills {path} at this moment")
    left, finished = _left(path, of)
    foreign = sorted(set(os.listdir(path)) - set(left))
    if foreign or finished:
        raise Refused(f"{path} is not empty: there is {', '.join((foreign or left)[:3])}", cure=CURE)
    unfinished.take_away(path, left, last=INSIDE)


CURE = "Name a folder that is empty, or not there yet"


def _undo(filling: Filling, fd: int, before: os.stat_result, made: bool, of: str) -> None:
    left, finished = _left(filling.path, of)
    if finished:
        return
    unfinished.take_away(filling.path, left, last=INSIDE)
    if made:
        os.rmdir(filling.path)
        return
    os.fchmod(fd, before.st_mode & 0o7777)
    if filling.owner:
        os.fchown(fd, before.st_uid, before.st_gid)


def owner_of(account: str) -> Owner | None:
    """The account's numbers; None where it is this user, or none is named. Raises Refused."""
    import pwd

    if not account:
        return None
    try:
        found = pwd.getpwnam(account)
    except KeyError:
        raise Refused(f"there is no account {account}", cure="Name another target_owner, or add it") from None
    if found.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise Refused(f"only root gives files to {account}", cure="Run the module as root or as that account (become)")
    return found.pw_uid, found.pw_gid
