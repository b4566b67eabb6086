# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's health as measured: who is at work, who waits for whom, replication, logs, statements. No SQL, no I/O.

Beside _records.py on the bottom shelf. None in a field: the server does not know or count it, or the login may not see
it; then `unknown` of Health says why, and nobody may take it for "none".
"""

from __future__ import annotations

import typing as t
from datetime import datetime

from ._records import Ref
from ._tuples import NamedTuple

# Readings of the server that are kept beside sizes, as samples: microseconds and calls of all statements, connections
# and their limit, blocks found in the cache and blocks asked for. (DISK, its name): free and total bytes.
STATEMENTS, CONNECTIONS, CACHE_HITS = Ref("", ("statements",)), Ref("", ("connections",)), Ref("", ("cache hits",))
DISK = "disk"


class Connections(NamedTuple):
    used: int
    most: int  # those that this login's kind of user may take
    active: int | None = None
    idle: int | None = None
    idle_in_transaction: int | None = None


class Backend(NamedTuple):
    """One session of somebody else's that has a transaction or statement open, waits, or is waited for."""

    id: int  # pid, or connection id
    user: str = ""
    database: str = ""
    application: str = ""
    client: str = ""
    state: str = ""  # active, idle in transaction, …
    statement_seconds: float | None = None  # of the statement that runs
    transaction_seconds: float | None = None
    waits_for: str = ""  # the object or kind of lock
    wait_seconds: float | None = None
    blocked_by: tuple[int, ...] = ()
    statement: str = ""  # its beginning; values of secrets are blotted out
    keep: str = ""  # why nobody is told to end it: "autovacuum", "a backup", "replication" …


class Prepared(NamedTuple):
    """A prepared (two-phase) transaction that waits for its end."""

    name: str
    database: str
    user: str = ""
    seconds: float | None = None


class Statement(NamedTuple):
    """A kind of statement, as pg_stat_statements or performance_schema sum it up."""

    text: str
    database: str
    calls: int
    mean_seconds: float
    total_seconds: float
    rows: int = 0


class Replica(NamedTuple):
    """A standby or replica as seen from here, or what this server follows."""

    name: str
    state: str
    lag_seconds: float | None = None
    lag_bytes: int | None = None
    upstream: bool = False  # True: this server follows it
    error: str = ""


class Slot(NamedTuple):
    name: str
    kind: str  # physical, logical
    active: bool
    retained_bytes: int | None = None
    status: str = ""  # reserved, extended, unreserved, lost
    database: str = ""
    inactive_seconds: float | None = None


class Archiver(NamedTuple):
    """Archiving of write-ahead logs."""

    mode: str  # off, on, always
    archived: int = 0
    failed: int = 0
    failing: bool = False  # its last attempt failed
    last_failed: str = ""
    seconds_since_archived: float | None = None
    waiting: int | None = None  # files that are ready and not archived


class Logs(NamedTuple):
    """Write-ahead or binary logs on disk."""

    enabled: bool
    files: int | None = None
    bytes: int | None = None
    expire_seconds: float | None = None  # 0: never
    written: int | None = None  # bytes since `written_since`
    written_since: datetime | None = None
    why: str = ""


class Health(NamedTuple):
    connections: Connections | None = None
    backends: tuple[Backend, ...] | None = None
    prepared: tuple[Prepared, ...] | None = None
    statements: tuple[Statement, ...] | None = None  # slowest mean first
    statement_calls: int | None = None  # of all statements together
    statement_seconds: float | None = None
    replicas: tuple[Replica, ...] | None = None
    slots: tuple[Slot, ...] | None = None
    archiver: Archiver | None = None
    logs: Logs | None = None
    cache_hit_percent: float | None = None
    cache_hits: int | None = None  # of `cache_asked`, both counted since `counted_since`
    cache_asked: int | None = None
    deadlocks: int | None = None
    temporary_bytes: int | None = None
    uptime_seconds: float | None = None
    counted_since: datetime | None = None  # of the server-wide counters
    purge_pending: int | None = None  # history list length (MySQL, MariaDB)
    unknown: t.Mapping[str, str] = {}  # field -> why it is None
