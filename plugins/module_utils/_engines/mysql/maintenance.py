# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HOW tables are analyzed and rebuilt: the words, and carrying them out. No threshold, no catalog."""

from __future__ import annotations

import typing as t

from ..._errors import Busy, DbFault, Gone, Refused, Vanished
from ..._records import Ref, Server, Tick, Work
from ..._tasks import Analyze, Rebuild, Reindex, Task
from .activity import longest_query
from .capabilities import Flavour
from .names import quoted, table_of

Spell = t.Callable[[t.Any, Server], list[str]]
# The texts of ANALYZE's rows, which carry no number; the session's messages are in English.
_WORTH_ANOTHER_TRY = ("lock wait timeout", "deadlock", "try restarting transaction", "waiting for")


def spell_analyze(task: Analyze, server: Server) -> list[str]:
    """Statistics are the server's own: they are never replicated."""
    return [f"ANALYZE NO_WRITE_TO_BINLOG TABLE {table_of(task.ref)}"]


def spell_rebuild(task: Rebuild, server: Server) -> list[str]:
    """ALTER … FORCE rather than OPTIMIZE, which says OK to the client when it failed, and falls back to locking.

    REBUILD PARTITION takes neither ALGORITHM nor LOCK, and leaves statistics behind that tell of no rows. Without
    ALGORITHM the server chooses: in place where it can, which packs secondary indexes better than a copy does.
    """
    table = table_of(task.ref)
    if task.ref.partition:
        part = quoted(task.ref.partition)
        return [
            f"ALTER TABLE {table} REBUILD PARTITION {part}",
            f"ALTER TABLE {table} ANALYZE PARTITION NO_WRITE_TO_BINLOG {part}",
        ]
    if task.online:
        return [f"ALTER TABLE {table} FORCE, ALGORITHM=INPLACE, LOCK=NONE"]
    return [f"ALTER TABLE {table} FORCE, LOCK=SHARED"]


def spell_reindex(task: Reindex, server: Server) -> list[str]:
    """InnoDB has no other way to build an index anew in place than to rebuild its table."""
    return spell_rebuild(Rebuild(task.table, task.online), server)


def analyze(link: t.Any, task: Analyze, server: Server, cursor: str | None) -> Work:
    flavour = Flavour(server.engine, server.version, server.number)
    if not flavour.has("analyze beside queries") and longest_query(link) > link.execution.lock_timeout:
        # https://bugs.mysql.com/bug.php?id=87065, mended in 8.0.24
        raise Busy("a long query is running, and ANALYZE would stall those behind it", obj=str(task.ref))
    for statement in spell_analyze(task, server):
        check_rows(link.run(statement, obj=str(task.ref)), task.ref)
    yield Tick()


def check_rows(rows: t.Iterable[t.Sequence[t.Any]], ref: Ref) -> None:
    """ANALYZE reports its errors as rows: table, operation, kind of message, message. Raises Busy or Refused."""
    for row in rows:
        kind, text = str(row[2]).lower(), str(row[3])
        if kind == "error" or (kind == "status" and "failed" in text.lower()):
            fault: type[DbFault] = Busy if any(w in text.lower() for w in _WORTH_ANOTHER_TRY) else Refused
            raise (Vanished if "doesn't exist" in text else fault)(text, database=ref.database, obj=str(ref))


def rebuild(link: t.Any, task: Rebuild | Reindex, server: Server, cursor: str | None) -> Work:
    """On a replica nothing goes into its binary log: files are each server's own business."""
    if server.role == "replica" and server.settings.get("log_bin"):
        link.keep_local()
    for statement in act_of(task)[0](task, server):
        try:
            check_rows(link.run(statement, obj=str(task.ref)), task.ref)
        except Gone as gone:
            gone.cure = gone.cure or "The server ends or undoes the rebuild by itself; the next run looks again"
            raise
    yield Tick()


ACTS: dict[type, tuple[Spell, t.Callable[..., Work]]] = {
    Analyze: (spell_analyze, analyze),
    Rebuild: (spell_rebuild, rebuild),
    Reindex: (spell_reindex, rebuild),
}


def act_of(task: Task) -> tuple[Spell, t.Callable[..., Work]]:
    """The words and the act of a task. Raises Refused for what these servers have no use for."""
    found = ACTS.get(type(task))
    if found is None:
        raise Refused(f"there is no {task.kind} on MySQL and MariaDB", obj=str(task.ref))
    return found
