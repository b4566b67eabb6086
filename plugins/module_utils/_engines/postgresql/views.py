# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Materialized views as the catalogs describe them, and how they are refreshed. What they read is sources.py's part."""

from __future__ import annotations

import contextlib
import time
import typing as t

from ..._errors import Busy, Refused, Vanished
from ..._records import Ref, Server, Tick, Wants, Work
from ..._structure import View
from ..._tasks import RefreshView, Vacuum
from ..._tuples import NamedTuple
from . import catalog, maintenance, sources
from .connection import Connection
from .names import quoted, table_name
from .session import Session
from .versions import has, major_of

# What is usable for CONCURRENTLY: is_usable_unique_index() in matview.c. A size function would wait for whoever holds a
# view exclusively (a plain refresh of somebody else): then the size is taken from the last vacuum or analyze.
VIEWS = """
WITH held AS MATERIALIZED (
    SELECT DISTINCT l.relation AS oid
      FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
), shut AS MATERIALIZED (
    SELECT h.oid FROM held h
     UNION SELECT i.indrelid FROM held h JOIN pg_catalog.pg_index i ON i.indexrelid = h.oid
     UNION SELECT m.oid FROM held h JOIN pg_catalog.pg_class m ON m.reltoastrelid = h.oid
)
SELECT c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relispopulated,
       CASE WHEN shut.oid IS NULL THEN pg_catalog.pg_total_relation_size(c.oid)
            ELSE c.relpages::pg_catalog.int8 * %(block)s END,
       (SELECT k.relname::pg_catalog.text
          FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class k ON k.oid = i.indexrelid
         WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
           AND i.indpred IS NULL AND 0 <> ALL (i.indkey)
         ORDER BY k.relname LIMIT 1),
       {may_maintain}, pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'),
       o.rolname::pg_catalog.text, o.rolsuper
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
  LEFT JOIN shut ON shut.oid = c.oid
 WHERE c.relkind = 'm' AND {only}
"""
EXISTS = """
SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s
"""
FLUSH = "SELECT pg_catalog.pg_stat_force_next_flush()"
LATE = 0.6  # seconds after which a server without FLUSH has sent, and again after which it has written, its counters
SEARCH_PATH = "Qualify the names in the functions that it calls: they are looked up in pg_catalog only, as since 17"


class Row(NamedTuple):
    """One row of VIEWS."""

    oid: int
    schema: str
    name: str
    populated: bool
    bytes: int | None
    unique: str | None
    may_maintain: bool
    may_name: bool
    owner: str
    owner_is_superuser: bool


# ---- read ------------------------------------------------------------------------------------------------------------


def read(session: Session, wants: Wants, server: Server) -> tuple[View, ...]:
    """All materialized views of the session's database: one query, and where there are any, one for what they read."""
    only, values = catalog.scope(wants)
    # Unlike VACUUM, REFRESH is not the database owner's right.
    statement = VIEWS.format(only=only, may_maintain=catalog.MAY_MAINTAIN[has("maintain", major_of(server))])
    found = session.rows(statement, {**values, "block": int(server.settings["block_size"])})
    rows = [Row(*row) for row in found]
    read_by = sources.read(session, [row.oid for row in rows])
    return tuple(_view(row, read_by.get(row.oid, sources.Sources()), session.database, server) for row in rows)


def _view(row: Row, reads: sources.Sources, database: str, server: Server) -> View:
    lacks, fix = _lacks(row, server)
    return View(
        ref=Ref(database, (row.schema, row.name)),
        bytes=row.bytes or 0,
        populated=row.populated,
        unique=row.unique or "",
        reads=tuple(Ref(database, path) for path in reads.views),
        state=reads.state,
        unknown=reads.unknown,
        sources=reads.tables,
        lacks=lacks,
        fix=fix,
    )


def _lacks(row: Row, server: Server) -> tuple[dict[str, str], str]:
    """What keeps this login from refreshing it, and the statement that lets it."""
    user = str(server.settings["user"])
    if not row.may_maintain:
        return {"refresh": f"{user} may not refresh it"}, _grant(row, user, server)
    if not row.may_name:
        why = f"{user} may refresh it, but not use the schema that it is in"
        return {"refresh": why}, f"GRANT USAGE ON SCHEMA {quoted(row.schema)} TO {quoted(user)}"
    return {}, ""


def _grant(row: Row, user: str, server: Server) -> str:
    if has("maintain", major_of(server)):
        return f"GRANT MAINTAIN ON TABLE {quoted(row.schema)}.{quoted(row.name)} TO {quoted(user)}"
    if row.owner_is_superuser:  # whose role nobody should be granted
        return f"ALTER MATERIALIZED VIEW {quoted(row.schema)}.{quoted(row.name)} OWNER TO {quoted(user)}"
    return f"GRANT {quoted(row.owner)} TO {quoted(user)}"


# ---- refresh ---------------------------------------------------------------------------------------------------------


def spell(task: RefreshView, server: Server) -> list[str]:
    """A plain refresh writes the view anew, like a table that is rebuilt: it gets its visibility map and statistics.

    One that goes on beside readers changes rows like anybody else, and leaves that to the thresholds of a vacuum.
    """
    if task.concurrently:
        return [f"REFRESH MATERIALIZED VIEW CONCURRENTLY {table_name(task.ref)}"]
    vacuum = maintenance.spell_vacuum(Vacuum(task.ref, analyze=True, truncate=False), server)
    return [f"REFRESH MATERIALIZED VIEW {table_name(task.ref)}", *vacuum]


def refresh(
    session: Session, task: RefreshView, server: Server, statements: t.Sequence[str], concurrent_wait: float
) -> Work:
    """Notes what the sources were like before. Readers queue behind a plain refresh: it waits lock_timeout at most.

    The state is read before the server takes its snapshot. Counters are published after their transaction is, so what
    the state counts is in the snapshot; what comes later, or is counted later, differs from the note and is due again.
    """
    before = sources.state(session, task.ref)
    wait = concurrent_wait if task.concurrently else session.lock_timeout
    connection = session.worker(lock_timeout=wait)
    yield Tick()
    try:
        connection.run(statements[0])
    except Vanished as fault:
        if session.rows(EXISTS, task.ref.path):  # not the view, but something that it needs
            raise Refused(fault.cause, database=fault.database, obj=str(task.ref), cure=SEARCH_PATH) from None
        raise
    except (Busy, Refused) as fault:
        fault.obj = fault.obj or str(task.ref)
        raise
    publish(connection, server)
    yield Tick(note=before)
    with contextlib.suppress(Busy):  # a vacuum of somebody else: the view is refreshed, and the rest can wait
        maintenance.run_all(connection, statements[1:], task.ref)
    yield Tick()


def publish(connection: Connection, server: Server) -> None:
    """Makes the server count what this session did: views that read this one must see that it has changed.

    By itself a session tells at most once a second, and when it is idle as late as ten seconds after.
    """
    if has("statistics at once", major_of(server)):
        connection.rows(FLUSH)
        return
    time.sleep(LATE)
    connection.rows("SELECT")
    time.sleep(LATE)
