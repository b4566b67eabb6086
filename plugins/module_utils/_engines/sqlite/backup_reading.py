# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup read again into a file, and the file judged: is it sound, has it the rows? What for: backup.py."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import typing as t

from ..._backups import Elsewhere
from ..._errors import Refused
from ..._records import Tick, Work
from ..._tasks import Restore, Verify
from . import catalog
from .backup_copy import BLOCK
from .connection import DAMAGED, Session, fault

if t.TYPE_CHECKING:
    from ..._backups import Backup

TICK = 0.5  # seconds
# Of integrity_check: rows that break what their table promises are content. The rest is damage.
_CONTENT = re.compile(r"(NULL|TEXT|NUMERIC|non-\w+) value in |CHECK constraint failed in ")
_FOREIGN = ("no such collation sequence", "no such function", "unknown function")


def checked(db: sqlite3.Connection, database: str) -> dict[str, int] | None:
    """Rows by table of a sound file; None where only its application could check it. Raises Refused."""
    try:
        db.execute("PRAGMA main.cache_size = -65536").fetchall()  # kB: half the time of most indexes
        lines = [str(row[0]) for row in db.execute("PRAGMA main.integrity_check(20)")]
        bad = [line for line in lines if line != "ok" and not _CONTENT.match(line)]
        if bad:
            raise sqlite3.DatabaseError(f"{DAMAGED}: {bad[0]}")
        return {info.name: catalog.count(db, info.name) for info in catalog.tables(db) if not info.virtual}
    except sqlite3.Error as error:
        if any(words in str(error) for words in _FOREIGN):
            return None
        raise fault(error, database) from error


def tried_in(task: Verify | Restore, backup: Backup) -> str:
    """The folder in which it becomes a file for a while."""
    return (task.on.folder if isinstance(task.on, Elsewhere) else "") or backup.folder


def poured(session: Session, backup: Backup, task: Verify | Restore, descriptor: int) -> Work:
    """The whole backup becomes the content of a file; its hash is compared on the way. Raises Refused."""
    from ..._files import durable, reader

    if len(backup.files) != 1 or backup.engine != "sqlite":
        raise Refused(f"{backup.id} is no backup of one SQLite file", database=backup.database)
    with reader.opened(backup, backup.files[0], task.decrypt) as plain, durable.refusing("the restored file"):
        _room(descriptor, backup)
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        while True:
            block = plain.read(BLOCK)
            if not block:
                return
            durable.write_all(descriptor, block)
            session.check()
            yield Tick()


def _room(descriptor: int, backup: Backup) -> None:
    """Raises Refused, before anything is written."""
    space, needed = os.fstatvfs(descriptor), backup.files[0].plain_bytes
    if space.f_bavail * space.f_frsize < needed:
        raise Refused(
            f"{needed:,} bytes are to be written where {space.f_bavail * space.f_frsize:,} are free",
            database=backup.database,
            cure="Make room there, or name another folder",
        )


def compared(session: Session, backup: Backup, db: sqlite3.Connection) -> Work:
    """The restored file is sound, and has the rows that the manifest counts. Raises Refused."""
    seen: list[dict[str, int] | None] = []
    yield from in_thread(session, lambda: seen.append(checked(db, backup.database)), db)
    found = seen[0]
    if backup.rows is not None and found is not None and dict(backup.rows) != found:
        names = sorted(n for n in {*backup.rows, *found} if backup.rows.get(n) != found.get(n))
        raise Refused(f"{backup.id} has other rows than its manifest says, in {', '.join(names[:5])}")


def in_thread(session: Session, work: t.Callable[[], t.Any], db: sqlite3.Connection | None = None) -> Work:
    """Ticks while something else works; a stop ends it. Raises what it raises."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(TICK)
            if db is not None and session.stopped.is_set():
                db.interrupt()
            if thread.is_alive():
                yield Tick()
    finally:
        while thread.is_alive():  # closed in the middle: nothing may go on behind the caller's back
            session.cancel()
            if db is not None:
                db.interrupt()
            thread.join(TICK)
    if failed:
        raise failed[0]
    session.check()
