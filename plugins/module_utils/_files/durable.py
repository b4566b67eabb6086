# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are there whole or not at all, whatever dies meanwhile. Knows nothing of what stands in them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
import typing as t
from contextlib import contextmanager, suppress
from urllib.parse import quote

from .._errors import Refused

TEMPORARY = ".tmp"  # the tail of what replace() writes before it renames: half of something, whenever it is found
READ_BYTES = 1 << 20
READING = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

# What an operating system's error means to whoever chose the folder.
CURES = {
    errno.ENOSPC: "Make room there, or name a folder on another file system",
    errno.EDQUOT: "The user's quota is used up: raise it, or name another folder",
    errno.EROFS: "The file system is mounted read-only: name another folder",
    errno.EACCES: "Give the user that the module runs as the right to write there, or name another folder",
    errno.EPERM: "Give the user that the module runs as the right to write there, or name another folder",
    errno.ENOTDIR: "A file stands where a folder is needed: move it away, or name another folder",
    errno.EEXIST: "A file stands where a folder is needed: move it away, or name another folder",
    errno.ELOOP: "A symbolic link stands where a file is needed: remove it",
    errno.EIO: "The disk reports errors: look at it before anything else is written there",
}


@contextmanager
def refusing(what: str) -> t.Iterator[None]:
    """Turns errors of the operating system into Refused, with what to do about them."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise Refused(f"{what}: {reason}", cure=CURES.get(error.errno or 0, "")) from error


def make_folder(folder: str) -> None:
    """Makes the folder, mode 0700, where it is not there, and lets it outlive a power cut. Raises OSError."""
    absent, place = [], os.path.abspath(folder)
    while not os.path.lexists(place):
        absent.append(place)
        place = os.path.dirname(place)
    for path in reversed(absent):
        with suppress(FileExistsError):  # another run was faster
            os.mkdir(path, 0o700)
            os.chmod(path, 0o700)  # whatever the umask
        sync_folder(os.path.dirname(path))
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)


def why_not(folder: str) -> str:
    """Why nothing can be written in the folder, made where it is not there yet; "" when it can. Changes nothing."""
    if not os.path.isabs(folder):
        return f"{folder} is not an absolute path"
    place = folder
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        return f"{place} is not a folder"
    mode = os.stat(place).st_mode
    if place == folder and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return f"{place} can be changed by every user of the host"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"this user may not write in {place}"
    return ""


def create(path: str) -> int:
    """A new file, mode 0600, open for writing. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _no_follow(), 0o600)
    os.fchmod(fd, 0o600)  # whatever the umask
    return fd


def open_again(path: str) -> int:
    """A file that is there, open for writing; never what a symbolic link points to. Raises OSError."""
    return os.open(path, os.O_RDWR | _no_follow())


def open_to_read(path: str) -> int:
    """Never what a symbolic link points to, and nothing that one would wait for (a named pipe). Raises OSError."""
    return os.open(path, READING)


def _no_follow() -> int:
    return getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """A write may take less than it was given: a signal, a full disk. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def sync_folder(folder: str) -> None:
    """What was created, renamed and removed in the folder outlives a power cut. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # some network file systems have no such thing
            raise
    finally:
        os.close(fd)


def replace(path: str, data: bytes) -> None:
    """The file holds either what it held or all of `data`, mode 0600, and on the disk. Raises OSError.

    fsync is never tried twice: after it has failed once, the kernel may have dropped what it could not write, and
    says so no more (https://wiki.postgresql.org/wiki/Fsync_Errors).
    """
    temporary = path + TEMPORARY
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        fd = create(temporary)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(path))


def unlink(path: str) -> None:
    """It is gone, whoever removed it. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def locked(fd: int) -> bool:
    """Locks the file for as long as this descriptor is open; False: another process has it.

    The kernel lets go of it when the process dies. Where a file system has no locks, nobody is kept out. Whoever only
    looks whether a file is locked has it for an instant: so it is tried a few times.
    """
    try:
        import fcntl
    except ImportError:
        return True
    for patience in (0.01, 0.05, 0.0):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(patience)
        except OSError:
            return True
        else:
            return True
    return False


def safe_name(text: str, longest: int) -> str:
    """A part of a file name, percent-encoded: no separator, no dot, nothing that looks like an option."""
    name = quote(text, safe="", errors="backslashreplace").replace(".", "%2E").replace("~", "%7E")
    name = "%2D" + name[1:] if name.startswith("-") else name
    if len(name) <= longest:
        return name
    mark = hashlib.sha256(name.encode("ascii")).hexdigest()[:8]
    return f"{name[: longest - 9]}~{mark}"


def digest(path: str) -> str:
    """The SHA-256 of a file, read in slices. Raises OSError."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for slice_ in iter(lambda: file.read(READ_BYTES), b""):
            found.update(slice_)
    return found.hexdigest()
