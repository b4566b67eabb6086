# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an interrupted pg_repack leaves behind: found, judged dead or alive, and dropped."""

from __future__ import annotations

import re
import typing as t
from datetime import datetime

from ..._errors import Refused
from ..._records import Leftover, Ref, Server, Tick, Wants, Work
from ..._tasks import DropLeftover
from ..._tuples import NamedTuple
from .names import quoted, table_name
from .session import Session

REPACK = "pg_repack"
SCHEMA = "repack"
# The log of changes goes before the type of its rows, and the trigger that writes it before both.
WRECKAGE = """
SELECT w.relid::pg_catalog.int8, m.nspname::pg_catalog.text, c.relname::pg_catalog.text,
       pg_catalog.array_agg(w.name ORDER BY w.place, w.name)
  FROM (
    SELECT pg_catalog.substring(r.relname::pg_catalog.text, '[0-9]+$')::pg_catalog.int8,
           CASE WHEN pg_catalog.starts_with(r.relname::pg_catalog.text, 'log') THEN 2 ELSE 3 END,
           r.relname::pg_catalog.text
      FROM pg_catalog.pg_class r
      JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace AND n.nspname = 'repack'
     WHERE r.relkind = 'r' AND r.relname ~ '^(log|table)_[0-9]+$'
     UNION ALL
    SELECT pg_catalog.substring(y.typname::pg_catalog.text, '[0-9]+$')::pg_catalog.int8, 4, y.typname::pg_catalog.text
      FROM pg_catalog.pg_type y
      JOIN pg_catalog.pg_namespace n ON n.oid = y.typnamespace AND n.nspname = 'repack'
     WHERE y.typtype = 'c' AND y.typname ~ '^pk_[0-9]+$'
     UNION ALL
    SELECT g.tgrelid::pg_catalog.int8, 1, g.tgname::pg_catalog.text
      FROM pg_catalog.pg_trigger g
      JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'repack'
     WHERE NOT g.tgisinternal AND g.tgname IN ('repack_trigger', 'z_repack_trigger')
  ) w (relid, place, name)
  LEFT JOIN pg_catalog.pg_class c ON c.oid::pg_catalog.int8 = w.relid
  LEFT JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace
 WHERE (SELECT pg_catalog.to_regnamespace('repack')) IS NOT NULL
 GROUP BY w.relid, m.nspname, c.relname
 ORDER BY w.relid
"""
# A pg_repack at work holds an advisory lock of this class on the table's oid, shifted into the range of int4; and while
# it begins or ends, it is known by its name and its locks on the table and on what it made.
AT_WORK = """
SELECT DISTINCT a.pid
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid AND a.datname = pg_catalog.current_database()
       AND a.backend_type = 'client backend' -- its parallel workers begin later than itself
       AND a.backend_start >= coalesce(%(since)s::pg_catalog.timestamptz, a.backend_start)
 WHERE (l.locktype = 'advisory' AND l.classid = 16185446
        AND l.objid::pg_catalog.int8 IN (%(relid)s, (%(relid)s + 2147483648) %% 4294967296))
    OR (l.locktype = 'relation' AND a.application_name = 'pg_repack'
        AND l.relation::pg_catalog.int8 = ANY (%(relid)s || ARRAY(
            SELECT r.oid::pg_catalog.int8 FROM pg_catalog.pg_class r
              JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace AND n.nspname = 'repack'
             WHERE r.relname::pg_catalog.text = ANY (%(names)s))))
 ORDER BY a.pid
"""
# Only of what is dead: nobody holds a lock on it.
BYTES = """
SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(r.oid))::pg_catalog.int8
  FROM pg_catalog.pg_class r
  JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace AND n.nspname = 'repack'
 WHERE r.relkind = 'r' AND r.relname::pg_catalog.text = ANY (%s)
"""


class Wreck(NamedTuple):
    relid: int  # of the table that was repacked
    ref: Ref
    names: tuple[str, ...]


def wrecks(session: Session) -> list[Wreck]:
    found = []
    for relid, schema, name, names in session.rows(WRECKAGE):
        # The table itself may have been dropped meanwhile; then the wreckage stands for itself.
        path = (schema, name) if name else (SCHEMA, next((n for n in names if not n.startswith("pk_")), names[0]))
        found.append(Wreck(relid, Ref(session.database, path), tuple(names)))
    return found


def at_work(session: Session, wreck: Wreck, since: datetime | None = None) -> list[int]:
    """Server processes of the pg_repack that is at work on this table; of one that began after `since`."""
    found = session.rows(AT_WORK, {"relid": wreck.relid, "names": list(wreck.names), "since": since})
    return [pid for (pid,) in found]


def read(session: Session, wants: Wants) -> tuple[Leftover, ...]:
    """All of the session's database, or of the tables in `wants.only`."""
    found = []
    for wreck in wrecks(session):
        if wants.only and wreck.ref not in wants.only:
            continue
        alive = at_work(session, wreck)
        if alive:
            why = f"server process {alive[0]} of a pg_repack is at work on it"
            found.append(Leftover(wreck.ref, REPACK, wreck.names, dead=False, why_not=why))
        else:
            size = session.rows(BYTES, (list(wreck.names),))[0][0] or 0
            found.append(Leftover(wreck.ref, REPACK, wreck.names, bytes=size))
    return tuple(found)


def spell_drop(task: DropLeftover, server: Server) -> list[str]:
    """One statement an object, exactly those that were found."""
    return [_drop(name, task.ref) for name in task.names]


def _drop(name: str, ref: Ref) -> str:
    kind = re.fullmatch(r"(log|table|pk)_[0-9]+", name)
    if kind is None:
        return f"DROP TRIGGER IF EXISTS {quoted(name)} ON {table_name(ref)}"
    return f"DROP {'TYPE' if kind.group(1) == 'pk' else 'TABLE'} IF EXISTS {quoted(SCHEMA)}.{quoted(name)}"


def drop(session: Session, task: DropLeftover, server: Server, statements: t.Sequence[str]) -> Work:
    """Raises Refused when somebody is at work on it after all; Busy when the table is locked."""
    for wreck in wrecks(session):
        alive = at_work(session, wreck) if wreck.ref == task.ref else []
        if alive:
            raise Refused(
                f"server process {alive[0]} of a pg_repack is at work on it",
                database=session.database,
                obj=str(task.ref),
                cure="Wait until it has ended",
            )
    connection = session.worker(lock_timeout=session.lock_timeout)
    for statement in statements:
        yield Tick()
        connection.run(statement)
    yield Tick()
