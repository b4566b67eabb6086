# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is at work, who waits for whom, and which statements are slow: sessions of others and pg_stat_statements."""

from __future__ import annotations

import re
import typing as t

from ..._errors import Refused
from ..._health import Backend, Statement
from ..._records import Server
from ..._tuples import NamedTuple
from .connection import APPLICATION
from .session import Session
from .versions import has, major_of

# Who blocks a session is asked of those that wait, and once: each question stops all locking for a moment.
BACKENDS = """
WITH waiting AS MATERIALIZED (
    SELECT a.pid, pg_catalog.pg_blocking_pids(a.pid) AS blockers
      FROM pg_catalog.pg_stat_activity a
     WHERE a.wait_event_type = 'Lock' AND NOT a.pid = ANY (%(own)s)
), blocking AS MATERIALIZED (
    SELECT DISTINCT b.pid FROM waiting w, pg_catalog.unnest(w.blockers) AS b (pid)
)
SELECT a.pid, coalesce(a.usename::pg_catalog.text, a.backend_type), coalesce(a.datname::pg_catalog.text, ''),
       coalesce(a.application_name, ''), coalesce(pg_catalog.host(a.client_addr), ''), coalesce(a.state, ''),
       CASE WHEN a.state = 'active' THEN
            extract(epoch FROM pg_catalog.clock_timestamp() - a.query_start)::pg_catalog.float8 END,
       extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::pg_catalog.float8,
       coalesce(l.what, CASE WHEN w.pid IS NOT NULL THEN a.wait_event END, ''),
       CASE WHEN w.pid IS NOT NULL THEN extract(epoch FROM pg_catalog.clock_timestamp()
            - coalesce(l.since, a.query_start, a.state_change))::pg_catalog.float8 END,
       coalesce(w.blockers, '{{}}'), pg_catalog.left(coalesce(a.query, ''), 1000), a.backend_type
  FROM pg_catalog.pg_stat_activity a
  LEFT JOIN waiting w ON w.pid = a.pid
  LEFT JOIN LATERAL (
    SELECT pg_catalog.concat_ws(' ', CASE WHEN k.relation IS NULL THEN k.locktype END,
                                coalesce(n.nspname || '.' || c.relname, 'relation ' || k.relation),
                                CASE WHEN k.relation IS NOT NULL AND k.locktype <> 'relation' THEN k.locktype END,
                                k.mode) AS what, {since} AS since
      FROM pg_catalog.pg_locks k
      LEFT JOIN pg_catalog.pg_class c ON c.oid = k.relation AND k.database = (
           SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
      LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE k.pid = w.pid AND NOT k.granted
     LIMIT 1
  ) l ON true
 WHERE NOT a.pid = ANY (%(own)s)
   AND (w.pid IS NOT NULL OR a.pid IN (SELECT b.pid FROM blocking b)
        OR a.backend_type = 'client backend' AND a.application_name <> %(ours)s
           AND (a.xact_start IS NOT NULL OR a.state IN ('active', 'fastpath function call')))
 ORDER BY a.xact_start NULLS LAST, a.pid
"""
SINCE = {True: "k.waitstart", False: "NULL::pg_catalog.timestamptz"}
# Where the extension stands, and whether it is of a version that tells planning from execution (1.8, of PostgreSQL 13).
EXTENSION = """
SELECT n.nspname::pg_catalog.text,
       EXISTS (SELECT FROM pg_catalog.pg_attribute a
                 JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                WHERE c.relnamespace = n.oid AND c.relname = 'pg_stat_statements' AND a.attname = 'total_exec_time')
  FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'pg_stat_statements'
"""
# Times are in milliseconds. What changes the schema, copies or maintains takes its time by its nature.
STATEMENTS = """
WITH seen AS MATERIALIZED (
    SELECT s.dbid, s.userid, s.calls, s.rows, s.{total} / 1000 AS seconds, s.query
      FROM {view} s
     WHERE s.calls > 0
)
SELECT pg_catalog.left(s.query, 1000), coalesce(d.datname::pg_catalog.text, ''), s.calls, s.seconds / s.calls,
       s.seconds, s.rows, a.calls::pg_catalog.int8, a.seconds::pg_catalog.float8
  FROM (SELECT pg_catalog.sum(x.calls) AS calls, pg_catalog.sum(x.seconds) AS seconds FROM seen x) a
  LEFT JOIN LATERAL (
    SELECT x.* FROM seen x
     WHERE x.query !~* %(utility)s
     ORDER BY x.seconds / x.calls DESC LIMIT %(most)s
  ) s ON true
  LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
 ORDER BY s.seconds / s.calls DESC NULLS LAST
"""
UTILITY = (
    r"^\s*(/\*.*?\*/\s*)*(alter|analyze|begin|checkpoint|cluster|comment|commit|copy|create|do|drop|explain|grant|lock"
    r"|prepare|refresh|reindex|repack|reset|revoke|rollback|savepoint|security|set|start|truncate|vacuum)\M"
)
MOST = 50  # statements
LENGTH = 200  # characters of a statement that are shown
BACKUPS = re.compile(r"(pg_dump|pg_dumpall|pg_restore|pg_basebackup|pgbackrest|barman|wal-g)\b", re.IGNORECASE)
CONCURRENT = re.compile(r"\s*(create|reindex)\b.*\bconcurrently\b", re.IGNORECASE | re.DOTALL)
# After one of these words, wherever it stands, a statement ends where its first value begins: a value cannot be told
# from what is around it where a comment holds an apostrophe or the text was cut off.
SECRET = re.compile(
    r"passw|passphrase|\bpwd?\b|secret|token|api_?key|credential|identified|authoriz|bearer|crypt|hmac|digest|dblink"
    r"|\bprogram\b|connection|user\s+mapping|://[^/\s]*@",
    re.IGNORECASE,
)
VALUE = re.compile(r"(?:\b[ebnx])?'|\bu&'|\$(?:[^\W\d]\w*)?\$", re.IGNORECASE)
# And a value without quotes, in a setting or a comment.
SET_TO = re.compile(
    r"(\b\w*(?:passw|passphrase|secret|token|api_?key|credential)\w*[\"']?\s*=(?!>)\s*)[^\s,;)'\"$]+", re.IGNORECASE
)


class Statements(NamedTuple):
    """pg_stat_statements: a session in its database, its schema, and whether its version is 1.8 or newer."""

    session: Session
    schema: str
    modern: bool


class Summed(NamedTuple):
    """What pg_stat_statements counted."""

    slowest: tuple[Statement, ...]
    calls: int
    seconds: float


def extension(session: Session) -> tuple[str, bool] | None:
    """The schema of pg_stat_statements in the session's database, and whether its version is 1.8 or newer."""
    found = session.rows(EXTENSION)
    return (found[0][0], found[0][1]) if found else None


def backends(session: Session, server: Server) -> tuple[Backend, ...]:
    """Sessions of others that have something open, wait or are waited for; the oldest transaction first."""
    since = SINCE[has("wait start", major_of(server))]
    rows = session.rows(BACKENDS.format(since=since), {"own": session.pids, "ours": APPLICATION})
    return tuple(_backend(*row) for row in rows)


def _backend(pid: int, *row: t.Any) -> Backend:
    user, database, application, client, state, statement, opened, waits_for, waited, blockers, query, kind = row
    return Backend(
        id=pid,
        user=user or "",
        database=database,
        application=application,
        client=client,
        state=state,
        statement_seconds=_positive(statement),
        transaction_seconds=_positive(opened),
        waits_for=waits_for,
        wait_seconds=_positive(waited),
        blocked_by=tuple(sorted(set(blockers))),
        statement=beginning(query),
        keep=_keep(kind or "", application, query if state == "active" else ""),
    )


def _keep(kind: str, application: str, running: str) -> str:
    """Why nobody is told to end it: the server would begin anew, a backup would be lost, wreckage would stay."""
    if kind and kind != "client backend":
        return "replication" if kind == "walsender" else f"a process of the server ({kind})"
    if application == APPLICATION:
        return "a maintenance run"
    if BACKUPS.match(application):
        return f"a backup ({application})"
    return "a concurrent build, and would leave an invalid index behind" if CONCURRENT.match(running) else ""


def _positive(seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, seconds)


def beginning(statement: str) -> str:
    """The beginning of a statement on one line; what is secret in it is blotted out."""
    value = VALUE.search(statement) if SECRET.search(statement) else None
    shown = f"{statement[: value.start()]}***" if value else statement
    return " ".join(SET_TO.sub(r"\1***", shown).split())[:LENGTH]


def statements(where: Statements | None, seen: bool) -> tuple[Summed | None, str]:
    """The slowest kinds of statements, or why they are unknown."""
    if where is None:
        return None, (
            "pg_stat_statements is in none of the databases that were looked at:"
            " CREATE EXTENSION pg_stat_statements, and shared_preload_libraries"
        )
    if not seen:
        return None, "the login may not see statements of others: GRANT pg_monitor"
    from .names import quoted

    view = f"{quoted(where.schema)}.pg_stat_statements"
    query = STATEMENTS.format(view=view, total="total_exec_time" if where.modern else "total_time")
    try:
        rows = where.session.rows(query, {"utility": UTILITY, "most": MOST})
    except Refused as refused:
        return None, refused.cause
    calls, seconds = rows[0][6] or 0, rows[0][7] or 0.0
    slowest = (
        Statement(beginning(row[0]), row[1], row[2], row[3], row[4], row[5]) for row in rows if row[0] is not None
    )
    return Summed(tuple(slowest), calls, seconds), ""
