# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is at work on the server: open transactions, rebuilds under way, replicas, lag. Nothing is changed here."""

from __future__ import annotations

import typing as t

from ..._errors import DbFault
from ..._records import Activity, Ref
from ..._tuples import NamedTuple
from .names import table_of

# Another session's transaction keeps its locks on table definitions as long as it is open.
TRANSACTIONS = """
    SELECT trx_mysql_thread_id, TIMESTAMPDIFF(MICROSECOND, trx_started, NOW(6)) / 1000000, trx_state
      FROM information_schema.INNODB_TRX
     WHERE trx_mysql_thread_id NOT IN (0, CONNECTION_ID())
     ORDER BY trx_started"""
# Whoever holds a lock on this table's definition, with or without a transaction in InnoDB.
TABLE_HOLDERS = """
    SELECT DISTINCT th.PROCESSLIST_ID, th.PROCESSLIST_TIME
      FROM performance_schema.metadata_locks l
      JOIN performance_schema.threads th ON th.THREAD_ID = l.OWNER_THREAD_ID
     WHERE l.OBJECT_TYPE = 'TABLE' AND l.OBJECT_SCHEMA = %s AND l.OBJECT_NAME = %s
       AND l.LOCK_STATUS = 'GRANTED' AND th.PROCESSLIST_ID <> CONNECTION_ID()"""
SEES_LOCKS = """
    SELECT COUNT(*) FROM performance_schema.setup_instruments
     WHERE NAME = 'wait/lock/metadata/sql/mdl' AND ENABLED = 'YES'"""
PROCESSES = """
    SELECT ID, USER, HOST, COMMAND, TIME, INFO
      FROM information_schema.PROCESSLIST
     WHERE ID <> CONNECTION_ID()"""
# With the words of others, which may leave tables of theirs lying about for a while.
REBUILDS = PROCESSES + " AND COMMAND = 'Query' AND INFO REGEXP '^[[:space:]]*(ALTER|OPTIMIZE|CREATE|DROP)'"
REPLICAS = """
    SELECT HOST FROM information_schema.PROCESSLIST
     WHERE COMMAND IN ('Binlog Dump', 'Binlog Dump GTID')"""
LONGEST_QUERY = """
    SELECT MAX(TIME) FROM information_schema.PROCESSLIST
     WHERE COMMAND IN ('Query', 'Execute') AND ID <> CONNECTION_ID()"""


class Running(NamedTuple):
    """A change of a table's definition, or a rebuild, that somebody runs."""

    id: int
    seconds: float
    statement: str

    def touches(self, ref: Ref) -> bool:
        """Whether it is one of ours, on this table: our words name the table in full."""
        return self.statement.startswith(f"ALTER TABLE {table_of(ref)} ")


def rebuilds(link: t.Any) -> list[Running]:
    """What the login may see: all with PROCESS, else its own sessions."""
    return [Running(int(row[0]), float(row[4] or 0), str(row[5])) for row in link.rows(REBUILDS)]


def oldest_snapshot(link: t.Any, ref: Ref) -> float | None:
    """Seconds that the oldest transaction which could make a rebuild of this table wait has been open; 0 without one.

    Where locks on table definitions can be seen only their holders count, else every transaction does. None when the
    login may not see transactions.
    """
    try:
        ages = {int(row[0]): float(row[1] or 0) for row in link.rows(TRANSACTIONS)}
        holders = _holders(link, ref)
    except DbFault:
        return None
    if holders is None:
        return max(ages.values(), default=0.0)
    return max((max(ages.get(process, 0.0), idle) for process, idle in holders.items()), default=0.0)


def _holders(link: t.Any, ref: Ref) -> dict[int, float] | None:
    if not link.flavour.has("metadata locks"):
        return None
    try:
        if not link.rows(SEES_LOCKS)[0][0]:
            return None
        rows = link.rows(TABLE_HOLDERS, (ref.database, ref.path[0]))
    except DbFault:
        return None
    return {int(row[0]): float(row[1] or 0) for row in rows if row[0] is not None}


def activity(link: t.Any, server_settings: t.Mapping[str, t.Any]) -> Activity:
    """Open transactions and connections, as far as the login may see."""
    oldest, who = None, ""
    try:
        rows = link.rows(TRANSACTIONS)
        oldest = max(0.0, float(rows[0][1])) if rows else None
        who = _who(link, int(rows[0][0])) if rows else ""
        connections = len(link.rows(PROCESSES)) + 1
    except DbFault:
        return Activity(max_connections=int(server_settings.get("max_connections") or 0) or None)
    return Activity(oldest, who, connections, int(server_settings.get("max_connections") or 0) or None)


def who_is(link: t.Any, process: int) -> str:
    """`connection 12, app@10.0.0.3, Sleep`: for messages."""
    return _who(link, process)


def _who(link: t.Any, process: int) -> str:
    for row in link.rows(PROCESSES + " AND ID = %s", (process,)):
        return f"connection {row[0]}, {row[1]}@{str(row[2]).rsplit(':', 1)[0]}, {row[3]}"
    return f"connection {process}"


def log_bytes(link: t.Any) -> float | None:
    """Bytes of all binary logs that are kept; 0 where there is none, None where the login may not see them."""
    try:
        if not link.rows("SELECT @@GLOBAL.log_bin")[0][0]:
            return 0.0
        return float(sum(int(row[1]) for row in link.rows("SHOW BINARY LOGS")))
    except DbFault:
        return None


def connected_replicas(link: t.Any) -> list[str]:
    """Hosts of the replicas that read this server's binary log now."""
    try:
        return sorted({str(row[0]).rsplit(":", 1)[0] for row in link.rows(REPLICAS)})
    except DbFault:
        return []


def longest_query(link: t.Any) -> float:
    return float(link.rows(LONGEST_QUERY)[0][0] or 0)
