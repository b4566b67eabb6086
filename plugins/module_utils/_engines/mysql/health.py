# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health of the whole server: connections, sessions, statements, replication, logs, InnoDB's counters. Only reads.

Who waits for whom is found in waits.py. What cannot be seen is None, and `unknown` says why.
"""

from __future__ import annotations

import re
import typing as t
from datetime import timedelta

from ..._errors import Busy, Refused
from ..._health import Connections, Health, Logs, Prepared, Replica, Statement
from ..._records import Server
from ..._tuples import NamedTuple
from . import waits
from .connection import Link
from .greeting import group_members, replica_status
from .privileges import READ_REPLICATION, Grants, read_grants

T = t.TypeVar("T")

STATUS = """
    SHOW GLOBAL STATUS WHERE Variable_name IN ('Threads_connected', 'Uptime', 'Innodb_buffer_pool_reads',
    'Innodb_buffer_pool_read_requests', 'Innodb_history_list_length', 'Innodb_deadlocks')"""
# MySQL's own way to the last two of them.
METRICS = """
    SELECT NAME, COUNT FROM information_schema.INNODB_METRICS
     WHERE NAME IN ('trx_rseg_history_len', 'lock_deadlocks') AND STATUS = 'enabled'"""
# Of queries and changes: how long a change of a table's definition took is no news about the application.
DIGESTS = """
      FROM performance_schema.events_statements_summary_by_digest
     WHERE COUNT_STAR > 0 AND DIGEST_TEXT REGEXP '^[( ]*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|CALL|TABLE)'
       AND COALESCE(SCHEMA_NAME, '') NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
       AND DIGEST_TEXT NOT REGEXP '(information|performance)_schema|`mysql` [.]'"""
SLOWEST = f"""
    SELECT LEFT(DIGEST_TEXT, 200), COALESCE(SCHEMA_NAME, ''), COUNT_STAR, AVG_TIMER_WAIT / 1e12,
           SUM_TIMER_WAIT / 1e12, SUM_ROWS_SENT + SUM_ROWS_AFFECTED
    {DIGESTS}
     ORDER BY AVG_TIMER_WAIT DESC LIMIT 100"""
TOTALS = f"SELECT COALESCE(SUM(COUNT_STAR), 0), COALESCE(SUM(SUM_TIMER_WAIT), 0) / 1e12 {DIGESTS}"
DIGESTING = """
    SELECT COUNT(*) FROM performance_schema.setup_consumers
     WHERE NAME IN ('statements_digest', 'global_instrumentation') AND ENABLED = 'YES'"""
COORDINATOR = "Coordinator stopped"
WORKERS = """
    SELECT LAST_ERROR_MESSAGE FROM performance_schema.replication_applier_status_by_worker
     WHERE LAST_ERROR_NUMBER <> 0 ORDER BY LAST_ERROR_TIMESTAMP LIMIT 1"""
NO_SCHEMA = "performance_schema is off: set performance_schema = ON in the server's settings, and restart it"
COUNTING_USES = "table_io_waits_summary_by_index_usage"  # beside tables that say what is counted
NOT_COUNTED = {
    "temporary_bytes": "the server counts temporary tables, not their bytes",
}


class Counters(NamedTuple):
    """Of the server since it started."""

    connected: int
    uptime: float
    hit_percent: float | None
    hits: int
    asked: int
    history: int | None
    deadlocks: int | None


class Look:
    """One reading: what is refused is None, with the reason."""

    def __init__(self, link: Link, server: Server, grants: Grants) -> None:
        self.link, self.server, self.grants = link, server, grants
        self.unknown: dict[str, str] = dict(NOT_COUNTED)

    def ask(self, fields: t.Sequence[str], read: t.Callable[[], T], why_not: str = "") -> T | None:
        """`why_not`: known before, so that nothing is asked. Raises Gone and Stopped."""
        why = why_not
        if not why:
            try:
                return read()
            except (Refused, Busy) as fault:
                why = f"{fault.cause}. {fault.cure}" if fault.cure else fault.cause
        self.unknown.update(dict.fromkeys(fields, why))
        return None

    def lacking(self, words: str, names: t.Sequence[str], database: str = "*", table: str = "*") -> str:
        """Why the login may not, with the GRANT; nothing where one of the privileges is there."""
        if any(self.grants.allow(name, database, table) for name in names):
            return ""
        return f"the login may not see {words}: {self.grants.statement(names[:1], database, table)}"

    def no_table(self, name: str) -> str:
        """Why a table of performance_schema tells nothing."""
        if self.server.settings.get("performance_schema") in (0, "OFF", None):
            return NO_SCHEMA
        return self.lacking(f"performance_schema.{name}", ["SELECT"], "performance_schema", name)


def read(link: Link, server: Server) -> Health:
    """About a dozen queries, however large the server is."""
    look = Look(link, server, read_grants(link))
    counters = look.ask(("connections", "uptime_seconds", "cache_hit_percent"), lambda: _counters(link))
    sessions = look.ask(
        ("backends",), lambda: waits.sessions(link, look.no_table), look.lacking("other sessions", ["PROCESS"])
    )
    statements, calls, seconds = _statements(look)
    health = Health(
        statements=statements,
        statement_calls=calls,
        statement_seconds=seconds,
        prepared=look.ask(("prepared",), lambda: _prepared(link, sessions), _no_recovery(look)),
        replicas=look.ask(("replicas",), lambda: _replicas(link, sessions), _no_replication(look)),
        slots=(),  # there are none
        logs=look.ask(("logs",), lambda: _logs(link, server), _no_logs(look)),
    )
    if counters:
        health = health._replace(
            connections=_connections(counters, sessions, server),
            cache_hit_percent=counters.hit_percent,
            cache_hits=counters.hits,
            cache_asked=counters.asked,
            uptime_seconds=counters.uptime,
            counted_since=server.now - timedelta(seconds=counters.uptime),
            deadlocks=counters.deadlocks,
            purge_pending=counters.history,
        )
        for name, value in (("deadlocks", counters.deadlocks), ("purge_pending", counters.history)):
            if value is None:
                told = look.lacking("InnoDB's counters", ["PROCESS"]) or "the server's InnoDB does not count them"
                look.unknown[name] = told
    why = look.no_table(COUNTING_USES)
    if why:
        words = look.lacking("how often indexes are used", ["SELECT"], "performance_schema")
        look.unknown["index uses"] = why if why == NO_SCHEMA else words
    if sessions:
        health = health._replace(backends=sessions.backends)
        if sessions.unseen:
            look.unknown["blocking sessions"] = sessions.unseen
    return health._replace(unknown=look.unknown)


# ---- counters and connections ----------------------------------------------------------------------------------------


def _counters(link: Link) -> Counters:
    status = {str(row[0]).lower(): float(row[1] or 0) for row in link.rows(STATUS)}
    asked = status.get("innodb_buffer_pool_read_requests", 0.0)
    missed = status.get("innodb_buffer_pool_reads", 0.0)
    history, deadlocks = status.get("innodb_history_list_length"), status.get("innodb_deadlocks")
    if history is None:
        try:
            metrics = {str(row[0]): float(row[1] or 0) for row in link.rows(METRICS)}
        except Refused:
            metrics = {}
        history, deadlocks = metrics.get("trx_rseg_history_len"), metrics.get("lock_deadlocks")
    return Counters(
        connected=int(status.get("threads_connected", 1)),
        uptime=status.get("uptime", 0.0),
        # What MariaDB 11 reads while it starts counts as read, and not as requested.
        hit_percent=100 * (1 - missed / asked) if asked and missed <= asked else None,
        hits=max(0, int(asked - missed)),
        asked=int(asked),
        history=None if history is None else int(history),
        deadlocks=None if deadlocks is None else int(deadlocks),
    )


def _connections(counters: Counters, sessions: waits.Sessions | None, server: Server) -> Connections | None:
    """Threads_connected is what the server holds against max_connections: those of extra ports are not among them."""
    most = int(server.settings.get("max_connections") or 0)
    if not most:
        return None
    if sessions is None:
        return Connections(counters.connected, most)
    states = [process.state for process in sessions.processes if not process.internal]
    return Connections(
        counters.connected,
        most,
        active=states.count(waits.ACTIVE) + 1,  # this one
        idle=states.count(waits.IDLE),
        idle_in_transaction=states.count(waits.IDLE_IN_TRANSACTION),
    )


# ---- statements ------------------------------------------------------------------------------------------------------


def _statements(look: Look) -> tuple[tuple[Statement, ...] | None, int | None, float | None]:
    fields = ("statements", "statement_calls", "statement_seconds")
    found = look.ask(fields, lambda: _summary(look), look.no_table("events_statements_summary_by_digest"))
    return found or (None, None, None)


def _summary(look: Look) -> tuple[tuple[Statement, ...], int, float]:
    """Raises Refused where nobody sums statements up."""
    told = not look.lacking("", ["SELECT"], "performance_schema", "setup_consumers")
    if told and look.link.rows(DIGESTING)[0][0] < 2:
        fix = "UPDATE performance_schema.setup_consumers SET ENABLED = 'YES' WHERE NAME = 'statements_digest'"
        raise Refused("statements are not summed up", cure=fix)
    rows = look.link.rows(SLOWEST)
    calls, seconds = look.link.rows(TOTALS)[0]
    statements = [Statement(str(r[0]), str(r[1]), int(r[2]), float(r[3]), float(r[4]), int(r[5])) for r in rows]
    return tuple(statements), int(calls), float(seconds)


# ---- prepared transactions -------------------------------------------------------------------------------------------


def _no_recovery(look: Look) -> str:
    return look.lacking("prepared transactions", ["XA_RECOVER_ADMIN"]) if look.link.flavour.name == "mysql" else ""


def _prepared(link: Link, sessions: waits.Sessions | None) -> tuple[Prepared, ...]:
    """Those that no session holds any more: another session may end only them.

    XA RECOVER tells no age; InnoDB tells that of all of them, without a name: the youngest is what each has at least.
    """
    # MySQL would show the bytes as text of the session's character set.
    rows = link.rows("XA RECOVER CONVERT XID" if link.flavour.name == "mysql" else "XA RECOVER")
    ages = sessions.detached if sessions else ()
    if sessions and not ages:
        return ()
    seconds = min(ages, default=None)
    return tuple(Prepared(_xid(row), "", seconds=seconds) for row in rows)


def _xid(row: t.Sequence[t.Any]) -> str:
    """As XA ROLLBACK takes it: two strings and a number."""
    text = row[3]
    data = text if isinstance(text, bytes) else bytes.fromhex(str(text).partition("x")[2])
    parts = (data[: int(row[1])], data[int(row[1]) : int(row[1]) + int(row[2])])
    plain = all(32 <= sign < 127 and sign not in b"'\\" for sign in data)
    words = [f"'{part.decode()}'" if plain else f"X'{part.hex()}'" for part in parts]
    return f"{words[0]},{words[1]},{int(row[0])}"


# ---- replication and binary logs -------------------------------------------------------------------------------------


def _no_replication(look: Look) -> str:
    return look.lacking("whether this server is a replica", READ_REPLICATION[look.link.flavour.name])


def _replicas(link: Link, sessions: waits.Sessions | None) -> tuple[Replica, ...]:
    """What this server follows, who reads its binary log, and the others of its group."""
    found = [_upstream({str(k).lower(): v for k, v in row.items()}) for row in replica_status(link)]
    if any(COORDINATOR in replica.error for replica in found):
        said = _of_workers(link)
        found = [r._replace(error=said) if said and COORDINATOR in r.error else r for r in found]
    found += [
        Replica(process.client, "streaming")
        for process in (sessions.processes if sessions else ())
        if process.command.startswith("Binlog Dump")
    ]
    for host, port, state, role, own in group_members(link):
        if not own:
            ill = "" if state in ("ONLINE", "RECOVERING") else f"the group's member is {state}"
            found.append(Replica(f"{host}:{port}", f"{role} {state}".lower(), error=ill))
    return tuple(found)


def _of_workers(link: Link) -> str:
    """What the coordinator of several appliers refers to."""
    try:
        return next((str(row[0])[:500] for row in link.rows(WORKERS)), "")
    except Refused:
        return ""


def _upstream(row: t.Mapping[str, t.Any]) -> Replica:
    def value(name: str) -> str:
        """By the words of both ages."""
        older = name.replace("source", "master").replace("replica", "slave")
        return str(row.get(name, row.get(older)) or "")

    reads, applies = value("replica_io_running"), value("replica_sql_running")
    channel = value("channel_name") or value("connection_name")
    behind = row.get("seconds_behind_source", row.get("seconds_behind_master"))
    # A statement that failed is told whole, with all that is secret in it.
    said = re.sub(r"(\bQuery: )['\"].*", r"\1***", value("last_sql_error") or value("last_io_error"), flags=re.DOTALL)
    stopped = [what for what, runs in (("receiver", reads), ("applier", applies)) if runs == "No"]
    return Replica(
        name=f"{value('source_host')}:{value('source_port')}" + (f" ({channel})" if channel else ""),
        state=f"{' and '.join(stopped)} stopped" if stopped else "streaming" if reads == "Yes" else reads.lower(),
        lag_seconds=None if behind is None else float(behind),
        upstream=True,
        error=(said or (f"its {' and its '.join(stopped)} does not run" if stopped else ""))[:500],
    )


def _no_logs(look: Look) -> str:
    if look.server.settings.get("log_bin") in (0, "OFF", None):
        return ""
    names = ["REPLICATION CLIENT"] if look.link.flavour.name == "mysql" else ["BINLOG MONITOR"]
    return look.lacking("binary logs", [*names, "SUPER"])


def _logs(link: Link, server: Server) -> Logs:
    if server.settings.get("log_bin") in (0, "OFF", None):
        return Logs(enabled=False)
    rows = link.rows("SHOW BINARY LOGS")
    variables = "'binlog_expire_logs_seconds', 'expire_logs_days', 'binlog_expire_logs_auto_purge'"
    settings = {
        str(row[0]).lower(): str(row[1])
        for row in link.rows(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({variables})")
    }
    seconds = float(settings.get("binlog_expire_logs_seconds") or 0)
    seconds = seconds or 86400 * float(settings.get("expire_logs_days") or 0)
    if settings.get("binlog_expire_logs_auto_purge", "ON").upper() in ("OFF", "0"):
        seconds = 0.0
    return Logs(enabled=True, files=len(rows), bytes=sum(int(row[1]) for row in rows), expire_seconds=seconds)
