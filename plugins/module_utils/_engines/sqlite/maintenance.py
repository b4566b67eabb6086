# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a task is spelled and carried out, and what it needs of room. No threshold.

Why ANALYZE and not `PRAGMA optimize`: before 3.46 that looks only at tables which its own connection has queried, and a
limit on the analysis (analysis_limit) records estimated row counts, against which nobody could tell that the statistics
are fresh. ANALYZE reads one table's indexes once; other writers wait, readers do not.
"""

from __future__ import annotations

import os
import sqlite3
import typing as t

from ..._errors import Busy, Refused
from ..._records import Amount, Server, Step, Tick, Work
from ..._tasks import Analyze, DropLeftover, Rebuild, Reindex, Task
from . import files
from .activity import holders
from .catalog import Header, quoted
from .connection import DAMAGED, Session

_SLICE = 4 << 20  # bytes that one slice of an incremental vacuum frees: milliseconds for other writers
_CHECKPOINT = "PRAGMA main.wal_checkpoint(TRUNCATE)"


def header_in(server: Server, database: str) -> Header:
    """What greet() found: the words of a task must not depend on what has happened since."""
    found = server.settings.get("files", {}).get(database)
    return found if isinstance(found, Header) else Header()


def _slice_pages(head: Header) -> int:
    return max(16, _SLICE // head.page_size)


# ---- the words -------------------------------------------------------------------------------------------------------


def spell(task: Task, server: Server) -> list[str]:
    """Every statement that writes, each as often as there is need. Raises Refused for what SQLite does not know."""
    head = header_in(server, task.ref.database)
    after = [_CHECKPOINT] if head.wal else []  # in WAL mode the file shrinks at a checkpoint
    if isinstance(task, Analyze):
        return [f"ANALYZE main.{quoted(task.ref.path[-1])}"]  # unqualified, a table named main would mean all
    if isinstance(task, Reindex):
        return [f"REINDEX main.{quoted(task.ref.path[-1])}"]  # unqualified, it could be the name of a collation
    if isinstance(task, Rebuild) and not task.ref.path:
        return [f"PRAGMA main.incremental_vacuum({_slice_pages(head)})" if task.online else "VACUUM main", *after]
    if isinstance(task, DropLeftover) and task.what == "transaction":
        return ["BEGIN IMMEDIATE", "ROLLBACK"]  # the first lock for writing rolls the dead transaction back
    if isinstance(task, DropLeftover) and task.what == "checkpoint":
        return [_CHECKPOINT]
    raise Refused(f"{task.kind} of {task.ref} is not for SQLite", database=task.ref.database)


# ---- the acts --------------------------------------------------------------------------------------------------------


def carry_out(session: Session, task: Task, server: Server, cursor: str | None) -> Work:
    """The same words, executed. Raises Busy, Refused, Stopped."""
    words = spell(task, server)
    if isinstance(task, Rebuild):
        return _slices(session, words) if task.online else _vacuum(session, words, cursor)
    if isinstance(task, Reindex) and task.online:
        raise Refused("REINDEX is not online in SQLite", database=task.ref.database, obj=str(task.ref))
    return _plainly(session, words)


def _plainly(session: Session, words: t.Sequence[str]) -> Work:
    with session.write() as db:
        for sql in words:
            session.check()
            if sql == _CHECKPOINT:
                _checkpoint(session, db)
            else:
                db.execute(sql).fetchall()
    yield Tick(cursor="done")


def _slices(session: Session, words: t.Sequence[str]) -> Work:
    """Slice after slice of free pages, each a transaction of its own: may be stopped after each."""
    with session.write() as db:
        size, pages, left = (_number(db, name) for name in ("page_size", "page_count", "freelist_count"))
        while left:
            session.check()
            db.execute(words[0]).fetchall()  # one page a row: a cursor that is not read to its end frees one
            now = _number(db, "freelist_count")
            if now >= left:
                break  # writers free pages as fast, or the file is not in this mode any more: the proof will tell
            left, before, pages = now, pages, _number(db, "page_count")  # pages of the pointer map go along
            freed = max(0, before - pages) * size
            yield Tick(Amount(bytes=freed, written=2 * freed), cursor=str(left))
        if words[1:]:
            _checkpoint(session, db)
    yield Tick(cursor="0")


def _vacuum(session: Session, words: t.Sequence[str], cursor: str | None) -> Work:
    """The whole file anew. With a cursor that still holds, only the checkpoint is missing."""
    with session.write() as db:
        if cursor is None or cursor != _state(db):
            _refuse_damaged(session.database, db)
            session.check()
            before = _number(db, "page_count")
            db.execute(words[0]).fetchall()
            size, after = _number(db, "page_size"), _number(db, "page_count")
            yield Tick(Amount(bytes=max(0, before - after) * size, written=2 * after * size), cursor=_state(db))
        if words[1:]:
            _checkpoint(session, db)
    yield Tick(cursor="done")


def _state(db: sqlite3.Connection) -> str:
    """Of a vacuumed file that nobody has written to: no page is free, and there are as many as there were."""
    return f"vacuumed {_number(db, 'page_count')} {_number(db, 'freelist_count')}"


def _checkpoint(session: Session, db: sqlite3.Connection) -> None:
    """Brings the log into the file, and the file to its size. A reader can hold that up: Busy, and tried again."""
    session.check()
    if db.execute(_CHECKPOINT).fetchone()[0]:
        who = holders(session.database)
        raise Busy(
            "the work is done, but the write-ahead log is in use" + (f" by {who}" if who else ""),
            database=session.database,
            cure="The file shrinks at the next checkpoint that no reader holds up",
        )


def _refuse_damaged(database: str, db: sqlite3.Connection) -> None:
    """A damaged file is evidence: rebuilding it would throw away what .recover could still save.

    Violated constraints, which quick_check reports too, are content and no damage.
    """
    lines = [str(row[0]) for row in db.execute("PRAGMA main.quick_check(20)")]
    bad = [line for line in lines if line.startswith(("***", "Tree ", "Page ", "Freelist")) or "malformed" in line]
    if bad:
        raise sqlite3.DatabaseError(f"{DAMAGED}: {bad[0]}")


def _number(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA main.{name}").fetchone()[0])


# ---- room ------------------------------------------------------------------------------------------------------------


def gauge(session: Session, name: str, step: Step) -> float | None:
    """Bytes missing, needed minus free. Snapshots of others hold nothing up but locks; there are no replicas."""
    if name in ("wal_missing", "oldest_snapshot", "replica_lag"):
        return 0.0  # the log lies beside the file: part of disk_missing
    if name == "wal_backlog":
        return float(files.size_of(f"{session.database}-wal"))  # grows while a reader keeps it from being checkpointed
    if name not in ("disk_missing", "tmp_missing"):
        return None
    try:
        return float(_missing(session.database, name, step))
    except OSError:
        return None


def _missing(database: str, name: str, step: Step) -> int:
    """VACUUM writes a copy of what is used to the temporary directory, and up to the whole file to the journal or log

    beside it (https://sqlite.org/lang_vacuum.html: "as much as twice the size of the original database file").
    """
    folder, scratch = os.path.dirname(database), files.temporary_directory()
    whole = files.on_disk(database)
    if isinstance(step.task, Reindex):  # its rows are sorted, and both the old and the new pages are written
        beside, copy = 2 * step.size, step.size
    elif isinstance(step.task, Rebuild) and not step.task.online:
        beside, copy = whole, max(0, whole - step.expected.bytes)
    else:
        beside, copy = min(whole, 4 * _SLICE), 0
    if files.same_file_system(folder, scratch):
        beside, copy = beside + copy, beside + copy
    if name == "disk_missing":
        return beside - files.free_bytes(folder)[0]
    return copy - files.free_bytes(scratch)[0]
