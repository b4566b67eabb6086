# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is at work on the server, who pins the horizon of vacuum, and who still works for a run that died."""

from __future__ import annotations

import time
import typing as t
from datetime import datetime, timedelta

from ..._errors import Refused
from ..._records import Activity, Finding, Ref, Server, Table
from ..._tuples import NamedTuple
from ..._units import say_seconds
from .catalog import Row
from .connection import APPLICATION
from .session import Session
from .versions import has, major_of

REPACK = "pg_repack"  # the name that pg_repack and our own calls of it give themselves

# Of a transaction both ends count: the ids that it sees as running (backend_xmin) and its own (backend_xid). Plain
# VACUUM, building an index concurrently and autovacuum are left out by the server, too: they look at one table only.
# What other databases hold matters for their own tables, and for what all databases share (step 1 leaves that out).
# The server's clock comes with them.
HOLDERS = """
SELECT 'transaction', a.pid::pg_catalog.text, a.usename::pg_catalog.text, a.application_name, a.state, a.xact_start,
       greatest(pg_catalog.age(a.backend_xmin), pg_catalog.age(a.backend_xid))
  FROM pg_catalog.pg_stat_activity a
 WHERE a.datname = pg_catalog.current_database() AND NOT a.pid = ANY (%(own)s)
   AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
   AND a.backend_type IN ('client backend', 'background worker')
   AND NOT (a.state = 'active' AND a.query ~* '^\\s*(vacuum(?!.*\\mfull\\M)|.*\\mconcurrently\\M)')
 UNION ALL
SELECT 'prepared', p.gid, p.owner::pg_catalog.text, '', '', p.prepared, pg_catalog.age(p.transaction)
  FROM pg_catalog.pg_prepared_xacts p
 WHERE p.database = pg_catalog.current_database()
 UNION ALL
SELECT 'slot', s.slot_name::pg_catalog.text, '', '', CASE WHEN s.active THEN 'active' ELSE 'inactive' END,
       {inactive_since}, pg_catalog.age(s.xmin)
  FROM pg_catalog.pg_replication_slots s
 WHERE s.xmin IS NOT NULL
 UNION ALL
SELECT 'catalog slot', s.slot_name::pg_catalog.text, '', '', CASE WHEN s.active THEN 'active' ELSE 'inactive' END,
       {inactive_since}, pg_catalog.age(s.catalog_xmin)
  FROM pg_catalog.pg_replication_slots s
 WHERE s.catalog_xmin IS NOT NULL
 UNION ALL
SELECT 'standby', coalesce(r.client_addr::pg_catalog.text, 'local'), r.usename::pg_catalog.text, r.application_name, '',
       NULL, pg_catalog.age(r.backend_xmin)
  FROM pg_catalog.pg_stat_replication r
 WHERE r.backend_xmin IS NOT NULL
 UNION ALL
SELECT 'clock', '', '', '', '', pg_catalog.clock_timestamp(), 0
"""
# The pace of transaction ids, for holders that tell no start: since the last checkpoint.
PACE = """
SELECT c.checkpoint_time, pg_catalog.age(pg_catalog.split_part(c.next_xid, ':', 2)::pg_catalog.xid)
  FROM pg_catalog.pg_control_checkpoint() c
"""
CLOCK = "SELECT pg_catalog.clock_timestamp()"
SHARED = 1.0  # seconds
BRIEF = 2.0  # seconds: transactions of this age come and go
OPEN = """
SELECT pg_catalog.count(*) FILTER (WHERE a.backend_type = 'client backend'),
       (SELECT pg_catalog.row_to_json(o)::pg_catalog.text
          FROM (SELECT b.pid, b.usename, b.application_name, b.datname, b.state,
                       extract(epoch FROM pg_catalog.clock_timestamp() - b.xact_start)::pg_catalog.float8 AS seconds
                  FROM pg_catalog.pg_stat_activity b
                 WHERE b.backend_type = 'client backend' AND b.xact_start IS NOT NULL AND NOT b.pid = ANY (%(own)s)
                 ORDER BY b.xact_start LIMIT 1) o)
  FROM pg_catalog.pg_stat_activity a
"""
# What a rewrite would wait for, or lose to: transactions in this database, the ones that are prepared included.
OLDEST = """
SELECT pg_catalog.max(extract(epoch FROM pg_catalog.clock_timestamp() - o.began))::pg_catalog.float8
  FROM (SELECT a.xact_start
          FROM pg_catalog.pg_stat_activity a
         WHERE a.datname = pg_catalog.current_database() AND NOT a.pid = ANY (%(own)s)
           AND a.backend_type IN ('client backend', 'background worker') AND a.application_name <> %(repack)s
         UNION ALL
        SELECT p.prepared FROM pg_catalog.pg_prepared_xacts p WHERE p.database = pg_catalog.current_database()
       ) o (began)
"""
# Who works on tables in a way that keeps our work out, and the tables that they have locked for it: another run of
# ours; and vacuums, rebuilds and the like of others, autovacuum left out as long as it gives way to us.
OTHERS = """
SELECT a.pid, CASE WHEN a.application_name <> %(ours)s
                   THEN a.usename || ', ' || coalesce(nullif(a.application_name, ''), a.backend_type) END,
       a.query, extract(epoch FROM pg_catalog.clock_timestamp() - a.query_start)::pg_catalog.float8,
       ARRAY(SELECT l.relation::pg_catalog.int8 FROM pg_catalog.pg_locks l
              WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.granted
                AND l.mode IN ('ShareUpdateExclusiveLock', 'AccessExclusiveLock'))
  FROM pg_catalog.pg_stat_activity a
 WHERE a.datname = pg_catalog.current_database() AND a.state = 'active' AND NOT a.pid = ANY (%(own)s)
   AND (a.application_name = %(ours)s AND a.backend_type = 'client backend'
        OR a.pid IN (SELECT p.pid FROM pg_catalog.pg_stat_progress_vacuum p
                      UNION ALL SELECT p.pid FROM pg_catalog.pg_stat_progress_analyze p
                      UNION ALL SELECT p.pid FROM pg_catalog.pg_stat_progress_create_index p
                      UNION ALL SELECT p.pid FROM pg_catalog.pg_stat_progress_cluster p)
           AND (a.backend_type = 'client backend' OR a.query LIKE '%%(to prevent wraparound)'))
"""


class Holder(NamedTuple):
    """Somebody whom the server keeps dead rows for."""

    what: str
    name: str
    user: str
    application: str
    state: str
    since: datetime | None
    age: int  # of the oldest transaction id that it needs, in transactions

    def words(self, now: datetime) -> str:
        age = f", for {say_seconds((now - self.since).total_seconds())}" if self.since else ""
        if self.what == "transaction":
            who = f"process {self.name} ({self.user}, {self.application or 'no application name'}, {self.state}{age})"
            return f"a transaction of {who} may still see them: end it, or SELECT pg_terminate_backend({self.name})"
        if self.what == "prepared":
            gid = self.name.replace("'", "''")
            return f"the prepared transaction '{gid}' of {self.user}{age} may still see them: ROLLBACK PREPARED '{gid}'"
        if self.what == "standby":
            where = f"{self.application} at {self.name}"
            return f"a query on the standby {where} may still see them (hot_standby_feedback): end it there"
        return (
            f"the {self.state} replication slot {self.name}{age} keeps them: bring its reader back,"
            f" or SELECT pg_drop_replication_slot('{self.name}')"
        )


class Horizon(NamedTuple):
    """Who keeps vacuum from removing dead rows, and freezing from going on, in one database."""

    holders: tuple[Holder, ...]
    now: datetime
    freeze_max_age: int

    def oldest(self, *, catalog: bool) -> Holder | None:
        """The one that holds most; logical slots hold catalogs only."""
        found = [h for h in self.holders if catalog or h.what != "catalog slot"]
        return max(found, key=lambda h: h.age, default=None)

    def apply(self, found: Table, row: Row) -> Table:
        """The table, with who pins it and how many of its dead rows could go all the same."""
        holder = self.oldest(catalog=row.catalog)
        if holder is None:
            return found
        dead = found.dead
        if dead and dead.rows:
            removable = int(dead.rows * self._died_before(holder, row))
            dead = dead._replace(removable=removable)
        floor = 100.0 * holder.age / self.freeze_max_age
        return found._replace(dead=dead, pinned_by=holder.words(self.now), freeze_floor=floor)

    def _died_before(self, holder: Holder, row: Row) -> float:
        """The share of the dead rows that died before the holder began, as if rows died at an even pace.

        Counted in time since the last vacuum; in transaction ids since its creation for a table never vacuumed.
        """
        if row.vacuumed is None:
            age = row.xid_age or 0
            return max(0.0, 1.0 - holder.age / age) if age > 0 else 0.0
        if holder.since is None or holder.since <= row.vacuumed:
            return 0.0
        return 1.0 - (self.now - holder.since) / max(self.now - row.vacuumed, timedelta(seconds=1))


def clock(session: Session) -> datetime:
    """The server's."""
    ((now,),) = session.rows(CLOCK)
    return t.cast("datetime", now)


def horizon(session: Session, server: Server) -> Horizon:
    """Who holds the horizon now; short transactions are left out."""
    since = "s.inactive_since" if has("inactive since", major_of(server)) else "NULL::pg_catalog.timestamptz"
    limit = int(server.settings["autovacuum_freeze_max_age"])
    if server.role == "standby":
        return Horizon((), clock(session), limit)
    rows = session.rows(HOLDERS.format(inactive_since=since), {"own": session.pids})
    now = next(row[5] for row in rows if row[0] == "clock")
    held = [Holder(*row)._replace(state=row[4] or "", age=row[6] or 0) for row in rows]
    held = [h for h in held if h.age > 0]
    if any(h.since is None for h in held):
        checkpoint, xids = _pace(session, now)
        held = [h if h.since else h._replace(since=_guess(h, now, checkpoint, xids)) for h in held]
    long = [h for h in held if h.since is None or (now - h.since).total_seconds() > BRIEF]
    return Horizon(tuple(long), now, limit)


def _pace(session: Session, now: datetime) -> tuple[datetime, int]:
    """The time of the last checkpoint, and the transaction ids since; none where hosting keeps that to itself."""
    try:
        ((checkpoint, xids),) = session.rows(PACE)
    except Refused:
        return now, 0
    return checkpoint, xids


def _guess(holder: Holder, now: datetime, checkpoint: datetime, xids: int) -> datetime | None:
    """Since when, by the pace of transaction ids; None where it cannot be told, and then it counts as very old."""
    elapsed = max((now - checkpoint).total_seconds(), 1.0)
    if holder.state == "inactive" or xids <= 0:
        return None
    return now - timedelta(seconds=elapsed * holder.age / xids)


def activity(session: Session, server: Server) -> Activity:
    """The longest open transaction and the connections, of the whole server."""
    import json

    ((connections, oldest),) = session.rows(OPEN, {"own": session.pids})
    sees = server.settings["superuser"] or "pg_read_all_stats" in server.settings["roles"]
    who = json.loads(oldest) if oldest else {}
    words = f"process {who['pid']} ({who['usename']}, {who['application_name']}, {who['state']})" if who else ""
    return Activity(
        oldest_seconds=max(0.0, who.get("seconds") or 0.0) if sees else None,
        oldest_who=words if sees else "",
        connections=connections,
        max_connections=int(server.settings["max_connections"]),
    )


def oldest_snapshot(session: Session, server_settings: t.Mapping[str, t.Any]) -> float | None:
    """Seconds; None where the login may not see the transactions of others."""
    if not (server_settings["superuser"] or "pg_read_all_stats" in server_settings["roles"]):
        return None
    ((seconds,),) = session.rows(OLDEST, {"own": session.pids, "repack": REPACK})
    return max(0.0, seconds or 0.0)


class Other(NamedTuple):
    """A server process that works for another run of ours (perhaps that run has died), or for somebody else."""

    pid: int
    who: str  # "": for a run of ours
    query: str
    seconds: float
    tables: list[int]


def others(session: Session) -> list[Other]:
    found = session.rows(OTHERS, {"ours": APPLICATION, "own": session.pids})
    return [
        Other(pid, who or "", query, seconds or 0.0, tables) for pid, who, query, seconds, tables in found if tables
    ]


def company(session: Session, server: Server, *, fresh: bool) -> tuple[Horizon, list[Other]]:
    """Who holds the horizon and who is at work. Unless `fresh` as of a second ago at most: both leave out anyway

    whoever comes and goes within two, and thousands of small tables are proven in that second.
    """
    read_at, found = session.lately.get(session.database, (0.0, None))
    if fresh or found is None or time.monotonic() - read_at > SHARED:
        found = (horizon(session, server), others(session))
        if not fresh:
            session.lately[session.database] = (time.monotonic(), found)
    return t.cast("tuple[Horizon, list[Other]]", found)


def busy_tables(running: t.Sequence[Other]) -> dict[int, str]:
    """Tables (by oid) on which another run's process is at work, and the words for it."""
    return {oid: f"process {other.pid} {_whose(other)} works on it" for other in running for oid in other.tables}


def _whose(other: Other) -> str:
    return f"({other.who})" if other.who else "of another run, perhaps of one that died,"


def findings(running: t.Sequence[Other], names: t.Mapping[int, Ref]) -> t.Iterator[Finding]:
    for other in running:
        for oid in other.tables:
            if oid in names:
                message = (
                    f"process {other.pid} {_whose(other)} has been at work on it for {say_seconds(other.seconds)}:"
                    f" {' '.join(other.query.split())[:200]}"
                )
                fix = "Wait for it" if other.who else f"Wait for it, or SELECT pg_cancel_backend({other.pid})"
                yield Finding(2, "still_at_work", names[oid], message, fix=fix)
