# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a backup becomes a database file again: written beside it, checked, and renamed. No threshold.

A file that is replaced must not be open anywhere: whoever has it open would go on with one that has no name any more,
and what stands in its write-ahead log would be read into the restored one.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import typing as t
from contextlib import closing, suppress

from ..._errors import Busy, Refused
from ..._records import Tick, Work
from ..._tasks import Restore
from .backup_copy import nameless, without_log
from .backup_reading import compared, poured, tried_in
from .connection import Session, connect
from .files import BESIDE

if t.TYPE_CHECKING:
    from ..._backups import Backup


def spell(task: Restore) -> list[str]:
    """What happens, as a shell would be told."""
    name = f"{task.backup.folder}/{task.backup.id}"
    if task.drill:
        return [f"restore {name} into a file without a name", "PRAGMA main.integrity_check"]
    where = shlex.quote(task.ref.database)
    return [f"restore {name} beside {where}", "PRAGMA main.integrity_check", f"mv … {where}"]


def carry_out(session: Session, task: Restore) -> Work:
    """Raises Busy, Refused, Stopped, MissingMeans; what is half-restored is removed, and nothing else touched."""
    if task.drill:
        yield from drill(session, task)
        return
    path = task.ref.database
    _refuse(task, path)
    folder = os.path.dirname(path)
    from ..._files import durable, private

    private.sweep(folder)
    with durable.refusing(f"{path} cannot be written"):
        part, descriptor = private.file(folder)
    try:
        yield from poured(session, task.backup, task, descriptor)
        yield from _checked(session, task.backup, part)
        with durable.refusing(f"{path} cannot be written"):
            _furnish(descriptor, path)
            os.fsync(descriptor)
            _place(task, part, path)
            durable.sync_folder(folder)
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(part)
    yield Tick(note=task.backup.id)


def drill(session: Session, task: Restore) -> Work:
    """Restored, compared, thrown away; then its manifest says so."""
    from ..._files import backups

    with nameless(tried_in(task, task.backup)) as file:
        yield from poured(session, task.backup, task, file.descriptor)
        without_log(file.descriptor)
        yield from compared(session, task.backup, file.reader)
    backups.amend(task.backup, level="restore")
    yield Tick(note=task.backup.id)


def _checked(session: Session, backup: Backup, part: str) -> Work:
    """By a connection that makes nothing beside the file."""
    with closing(connect(part, "mode=ro&immutable=1")) as db:
        yield from compared(session, backup, db)


def _furnish(descriptor: int, path: str) -> None:
    """With the mode and owner of the file that it replaces; else nobody else may read it."""
    with suppress(FileNotFoundError):
        old = os.stat(path)
        os.fchmod(descriptor, old.st_mode & 0o777)
        if os.geteuid() == 0:
            os.fchown(descriptor, old.st_uid, old.st_gid)


def _refuse(task: Restore, path: str) -> None:
    """Raises Refused for what must not be written over."""
    if os.path.islink(path) or (os.path.lexists(path) and not os.path.isfile(path)):
        raise Refused("it is no regular file", database=path, cure="Name the file itself in target")
    if not os.path.lexists(path):
        left = [path + tail for tail in BESIDE if os.path.lexists(path + tail)]
        if left:
            cure = "They belong to another database of that name: move them away"
            raise Refused(f"{', '.join(left)} would be read into the restored file", database=path, cure=cure)
    elif not task.replace:
        raise Refused(
            "a database of this name is there",
            database=path,
            cure="Restore it under another name (target), or say replace: true",
        )


def _place(task: Restore, part: str, path: str) -> None:
    """At one moment the old one is there, at the next the new one. Raises Busy, OSError."""
    if not task.replace:
        os.link(part, path)  # never over another one, whoever was faster
        return
    if os.path.lexists(path):
        _end(path)
    os.replace(part, path)


def _end(path: str) -> None:
    """The old file is closed by everybody, and nothing stands beside it any more. Raises Busy."""
    users = _users(path)
    if users:
        raise Busy(f"the file is open in {users}", database=path, cure="Stop the application first")
    with suppress(sqlite3.DatabaseError), closing(connect(path, "mode=rw")) as db:
        # The last one to close a database empties its log into it: until the new file is there, the old one is whole.
        db.execute("BEGIN EXCLUSIVE")
        db.execute("ROLLBACK")
        db.execute("PRAGMA main.wal_checkpoint(TRUNCATE)").fetchall()
    for tail in BESIDE:
        with suppress(FileNotFoundError):
            os.unlink(path + tail)


def _users(path: str) -> str:
    """Other processes that have the file open, as far as this user may see."""
    own, found = os.stat(path), []
    for pid in (
        [p for p in os.listdir("/proc") if p.isdigit() and p != str(os.getpid())] if os.path.isdir("/proc") else []
    ):
        with suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    other = os.stat(f"/proc/{pid}/fd/{number}")
                    if (other.st_dev, other.st_ino) == (own.st_dev, own.st_ino):
                        found.append(f"process {pid}")
                        break
    return ", ".join(found)
