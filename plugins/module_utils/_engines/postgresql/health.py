# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health of the whole server: counters, replication, slots, archiving, logs. Who is at work: sessions.py."""

from __future__ import annotations

from datetime import datetime

from ..._errors import Refused
from ..._health import Archiver, Connections, Health, Logs, Prepared, Replica, Slot
from ..._records import Server
from ..._tuples import NamedTuple
from . import sessions
from .session import Session
from .versions import has, major_of

# One row. Where the login may not see who others are, the kind of a process is hidden; that it has a user is not.
SERVER = """
SELECT a.used, a.active, a.idle, a.waiting,
       pg_catalog.current_setting('max_connections')::pg_catalog.int4
       - pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4
       - coalesce(pg_catalog.current_setting('reserved_connections', true)::pg_catalog.int4, 0),
       d.hits, d.reads, d.deadlocks, d.temporary, d.since,
       extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_postmaster_start_time())::pg_catalog.float8,
       pg_catalog.current_setting('track_activities')::pg_catalog.bool,
       pg_catalog.has_function_privilege('pg_catalog.pg_ls_waldir()', 'EXECUTE'),
       pg_catalog.has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'EXECUTE'),
       r.archived_count, r.failed_count, coalesce(r.last_failed_wal, ''),
       coalesce(r.last_failed_time > coalesce(r.last_archived_time, '-infinity'), false),
       extract(epoch FROM pg_catalog.clock_timestamp() - r.last_archived_time)::pg_catalog.float8,
       {written}
  FROM (SELECT pg_catalog.count(*) FILTER (WHERE b.who) AS used,
               pg_catalog.count(*) FILTER (WHERE b.who AND b.state = 'active') AS active,
               pg_catalog.count(*) FILTER (WHERE b.who AND b.state = 'idle') AS idle,
               pg_catalog.count(*) FILTER (WHERE b.who AND b.state LIKE 'idle in transaction%%') AS waiting
          FROM (SELECT coalesce(s.backend_type = 'client backend', s.usesysid IS NOT NULL) AS who, s.state
                  FROM pg_catalog.pg_stat_activity s) b) a,
       (SELECT pg_catalog.sum(s.blks_hit)::pg_catalog.int8 AS hits,
               pg_catalog.sum(s.blks_read)::pg_catalog.int8 AS reads,
               pg_catalog.sum(s.deadlocks)::pg_catalog.int8 AS deadlocks,
               pg_catalog.sum(s.temp_bytes)::pg_catalog.int8 AS temporary, pg_catalog.min(s.stats_reset) AS since
          FROM pg_catalog.pg_stat_database s) d,
       pg_catalog.pg_stat_archiver r
"""
WRITTEN = {
    True: "(SELECT w.wal_bytes::pg_catalog.int8 FROM pg_catalog.pg_stat_wal w),"
    " (SELECT w.stats_reset FROM pg_catalog.pg_stat_wal w)",
    False: "NULL::pg_catalog.int8, NULL::pg_catalog.timestamptz",
}
# On a standby: what has arrived there.
POSITION = """CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
            ELSE pg_catalog.pg_current_wal_lsn() END"""
# A connection that copies the whole server (pg_basebackup) is no replica. No lag in time: caught up, or idle.
REPLICAS = """
SELECT coalesce(nullif(r.application_name, ''), 'replica') || ' at '
       || coalesce(pg_catalog.host(r.client_addr), r.client_hostname, 'local'),
       r.state, extract(epoch FROM r.replay_lag)::pg_catalog.float8,
       pg_catalog.pg_wal_lsn_diff({position}, r.replay_lsn)::pg_catalog.int8
  FROM pg_catalog.pg_stat_replication r
 WHERE r.state IS DISTINCT FROM 'backup'
 ORDER BY 1
"""
UPSTREAM = """
SELECT coalesce(w.sender_host || ':' || w.sender_port, 'primary'), w.status,
       CASE WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() AND w.pid IS NOT NULL THEN 0
            ELSE extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())
       END::pg_catalog.float8,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
                 ::pg_catalog.int8,
       w.pid IS NOT NULL
  FROM (SELECT) one LEFT JOIN pg_catalog.pg_stat_wal_receiver w ON true
"""
SLOTS = """
SELECT s.slot_name::pg_catalog.text, s.slot_type, s.active,
       pg_catalog.pg_wal_lsn_diff({position}, s.restart_lsn)::pg_catalog.int8, coalesce(s.wal_status, ''),
       coalesce(s.database::pg_catalog.text, ''),
       extract(epoch FROM pg_catalog.clock_timestamp() - {inactive_since})::pg_catalog.float8
  FROM pg_catalog.pg_replication_slots s
 WHERE NOT s.temporary{own}
 ORDER BY 1
"""
WAITING = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_ls_archive_statusdir() f WHERE f.name LIKE '%%.ready'"
FILES = "SELECT pg_catalog.count(*), pg_catalog.sum(f.size)::pg_catalog.int8 FROM pg_catalog.pg_ls_waldir() f"
PREPARED = """
SELECT p.gid, p.database::pg_catalog.text, p.owner::pg_catalog.text,
       extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared)::pg_catalog.float8
  FROM pg_catalog.pg_prepared_xacts p
 ORDER BY p.prepared
"""


class Row(NamedTuple):
    """The row of SERVER."""

    used: int
    active: int
    idle: int
    idle_in_transaction: int
    most: int
    hits: int | None
    reads: int | None
    deadlocks: int | None
    temporary: int | None
    since: datetime | None
    uptime: float
    tracked: bool
    may_list_logs: bool
    may_list_archive: bool
    archived: int
    failed: int
    last_failed: str
    failing: bool
    archived_seconds: float | None
    written: int | None
    written_since: datetime | None


def sees(server: Server) -> bool:
    """Whether the login sees what others do."""
    return bool(server.settings["superuser"] or "pg_read_all_stats" in server.settings["roles"])


def read(session: Session, server: Server, statements: sessions.Statements | None) -> Health:
    """`statements`: where pg_stat_statements stands, and a session there."""
    gate = has("log statistics", major_of(server))
    row = Row(*session.rows(SERVER.format(written=WRITTEN[gate]))[0])
    unknown: dict[str, str] = {}
    hidden = f"{server.settings['user']} may not see what others do: GRANT pg_monitor"
    seen = sees(server)
    if not seen:
        unknown.update(dict.fromkeys(("backends", "replicas"), hidden))
    elif not row.tracked:
        unknown["backends"] = "track_activities is off: who works how long stays unknown"
    text, why = sessions.statements(statements, seen)
    if why:
        unknown["statements"] = why
    accesses = (row.hits or 0) + (row.reads or 0)
    return Health(
        connections=_connections(row, seen),
        backends=sessions.backends(session, server) if seen else None,
        prepared=tuple(Prepared(*found) for found in session.rows(PREPARED)),
        statements=text.slowest if text else None,
        statement_calls=text.calls if text else None,
        statement_seconds=text.seconds if text else None,
        replicas=_replicas(session, server) if seen else None,
        slots=_slots(session, server),
        archiver=_archiver(session, server, row, unknown),
        logs=_logs(session, row, unknown),
        cache_hit_percent=100.0 * (row.hits or 0) / accesses if accesses else None,
        cache_hits=row.hits,
        cache_asked=accesses if row.hits is not None else None,
        deadlocks=row.deadlocks,
        temporary_bytes=row.temporary,
        uptime_seconds=row.uptime,
        counted_since=row.since,
        unknown=unknown,
    )


def _connections(row: Row, seen: bool) -> Connections:
    """What the sessions of others are at is hidden like the rest: a count of our own ones would mislead."""
    if not (seen and row.tracked):
        return Connections(row.used, row.most)
    return Connections(row.used, row.most, row.active, row.idle, row.idle_in_transaction)


def _replicas(session: Session, server: Server) -> tuple[Replica, ...]:
    found = [
        Replica(name, state or "unknown", seconds if seconds is not None else 0.0 if not size else None, size)
        for name, state, seconds, size in session.rows(REPLICAS.format(position=POSITION))
    ]
    if server.role == "standby":
        for name, state, seconds, size, running in session.rows(UPSTREAM):
            error = "" if running else "no WAL receiver is running"
            found.append(Replica(name, state or "not connected", seconds, size, upstream=True, error=error))
    return tuple(found)


def _slots(session: Session, server: Server) -> tuple[Slot, ...]:
    gate = has("inactive since", major_of(server))
    since = "s.inactive_since" if gate else "NULL::pg_catalog.timestamptz"
    # On a standby: copies of the primary's slots, which wait there for nobody.
    own = " AND NOT s.synced" if gate else ""
    return tuple(Slot(*row) for row in session.rows(SLOTS.format(position=POSITION, inactive_since=since, own=own)))


def _archiver(session: Session, server: Server, row: Row, unknown: dict[str, str]) -> Archiver:
    """A standby archives only where the mode is `always`."""
    mode = str(server.settings.get("archive_mode") or "off")
    if mode == "off" or (mode == "on" and server.role == "standby"):
        return Archiver("off")
    waiting = None
    if row.may_list_archive:
        try:
            ((waiting,),) = session.rows(WAITING)
        except Refused as refused:
            unknown["archiver.waiting"] = refused.cause
    else:
        unknown["archiver.waiting"] = f"{server.settings['user']} may not list archive files: GRANT pg_monitor"
    return Archiver(
        mode=mode,
        archived=row.archived,
        failed=row.failed,
        failing=row.failing,
        last_failed=row.last_failed,
        seconds_since_archived=row.archived_seconds,
        waiting=waiting,
    )


def _logs(session: Session, row: Row, unknown: dict[str, str]) -> Logs:
    found = Logs(True, written=row.written, written_since=row.written_since)
    if not row.may_list_logs:
        why = "the login may not list the write-ahead log: GRANT pg_monitor"
        unknown["logs.bytes"] = why
        return found._replace(why=why)
    try:
        ((files, size),) = session.rows(FILES)
    except Refused as refused:
        unknown["logs.bytes"] = refused.cause
        return found._replace(why=refused.cause)
    return found._replace(files=files, bytes=size)
