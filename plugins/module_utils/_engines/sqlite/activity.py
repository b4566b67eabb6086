# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is at work on a database file: locks, the write-ahead log, what a dead process left. No threshold.

SQLite itself cannot say who holds a lock; the kernel can, where it may (Linux: /proc/locks, /proc/PID/fdinfo).
"""

from __future__ import annotations

import os
import typing as t

from ..._records import Activity, Finding, Leftover, Ref, Space
from ..._units import say_bytes
from .files import free_bytes, size_of, temporary_directory

_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"  # of a rollback journal, https://sqlite.org/fileformat.html#the_rollback_journal


def holders(path: str) -> str:
    """Processes that hold a lock on the database, in words; nothing where that cannot be known."""
    inodes = set()
    for name in (path, path + "-shm"):
        try:
            found = os.stat(name)
            inodes.add(f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}")
        except OSError:
            continue
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as locks:
            lines = [line.split() for line in locks]
    except OSError:
        return ""
    # 1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 1073741825 1073741825; a waiting one has "->" in the second place
    pids = [w[4] for w in lines if len(w) > 5 and w[1] == "POSIX" and w[5] in inodes]
    return _named(p for p in pids if p != str(os.getpid()))


def holders_of_guard(path: str) -> str:
    """Processes that have the database open under a lock of the guard's kind, in words."""
    try:
        own = os.stat(path)
        pids = [p for p in os.listdir("/proc") if p.isdigit() and p != str(os.getpid())]
    except OSError:
        return ""
    return _named(p for p in pids if _guards(p, own))


def _guards(pid: str, own: os.stat_result) -> bool:
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            found = os.stat(f"/proc/{pid}/fd/{number}")
            if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
                with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as info:
                    if "OFDLCK" in info.read():
                        return True
    except OSError:
        return False
    return False


def _named(pids: t.Iterable[str]) -> str:
    names = []
    for pid in dict.fromkeys(pids):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                names.append(f"process {pid} ({comm.read().strip()})")
        except OSError:
            names.append(f"process {pid}")
    return ", ".join(names)


def activity(path: str) -> Activity:
    """SQLite knows neither connections nor the age of transactions; who holds locks, it lets the kernel say."""
    return Activity(oldest_who=holders(path))


def spaces(path: str) -> tuple[Space, ...]:
    """The file systems of the file and of what VACUUM copies."""
    out = []
    for name, folder in (("the file", os.path.dirname(path)), ("tmp", temporary_directory())):
        try:
            out.append(Space(name, *free_bytes(folder)))
        except OSError:
            out.append(Space(name))
    return tuple(out)


def is_hot(path: str, cause: str) -> bool:
    """Whether a reading failed on a journal that must be rolled back first (SQLITE_READONLY_ROLLBACK)."""
    return "readonly" in cause and size_of(path + "-journal") > 0


def hot_journal(path: str) -> Leftover:
    """The rollback journal of a process that died. SQLite itself has told that nobody works on it any more."""
    name = path + "-journal"
    return Leftover(Ref(path), "transaction", (os.path.basename(name),), size_of(name))


def header_before(path: str) -> bytes | None:
    """The database's first 100 bytes as they will be after the rollback: page 1 out of the journal, if it is there.

    None when it cannot be told. A journal is under no lock, so reading it is harmless.
    """
    try:
        with open(path + "-journal", "rb") as journal:
            head = journal.read(28)
            sector, page = int.from_bytes(head[20:24], "big"), int.from_bytes(head[24:28], "big")
            if not head.startswith(_MAGIC) or page < 512 or sector < 28:
                return None
            journal.seek(sector)  # records: page number, content, checksum; page 1 stands among the first
            for _record in range(64):
                number, content, tail = journal.read(4), journal.read(page), journal.read(4)
                if len(tail) < 4:
                    return None
                if int.from_bytes(number, "big") == 1:
                    return content[:100]
    except OSError:
        return None
    return None


def pending_return(path: str, pages_bytes: int, worth: int) -> tuple[Leftover, ...]:
    """Space that the write-ahead log keeps from the file system: the file shrinks when its log is checkpointed.

    `worth`: the bytes from which that is wreckage of its own.
    """
    kept, log = size_of(path) - pages_bytes, size_of(path + "-wal")
    if not log or kept < max(worth, 1):
        return ()
    return (Leftover(Ref(path), "checkpoint", (os.path.basename(path) + "-wal",), kept),)


def large_log(path: str, page_size: int) -> tuple[Finding, ...]:
    """A log larger than its database, and than four rounds of SQLite's own checkpoint at every 1,000 pages."""
    log, own = size_of(path + "-wal"), size_of(path)
    if log <= max(own, 4000 * page_size):
        return ()
    message = f"the write-ahead log has {say_bytes(log)}, the database {say_bytes(own)}: some reader never ends"
    return (Finding(3, "large_write_ahead_log", Ref(path), message, fix="Look for connections that stay in a read"),)
