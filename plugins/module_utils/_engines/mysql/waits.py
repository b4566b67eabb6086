# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is at work on the server, and who waits for whom: rows and definitions of tables. Only reads.

Rows: InnoDB tells it. Definitions (metadata locks): performance_schema does where it watches them; MariaDB without it
tells only who waits, and its plugin METADATA_LOCK_INFO who holds what.
"""

from __future__ import annotations

import re
import typing as t
from collections import defaultdict

from ..._errors import Busy, Refused
from ..._health import Backend
from ..._tuples import NamedTuple
from .connection import Link

PROCESSES = """
    SELECT ID, USER, HOST, DB, COMMAND, TIME, STATE, LEFT(INFO, 4000)
      FROM {processlist}
     WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon'"""
OWN_LIST = "performance_schema.processlist"  # it stops nobody while it is read
TRANSACTIONS = """
    SELECT trx_mysql_thread_id, trx_id, TIMESTAMPDIFF(MICROSECOND, trx_started, NOW(6)) / 1e6,
           TIMESTAMPDIFF(MICROSECOND, trx_wait_started, NOW(6)) / 1e6
      FROM information_schema.INNODB_TRX
     WHERE trx_mysql_thread_id <> CONNECTION_ID()"""
# Each wait by the numbers of the two transactions, and the table that the lock is on.
ROW_WAITS = {
    "mysql": """
    SELECT w.REQUESTING_ENGINE_TRANSACTION_ID, w.BLOCKING_ENGINE_TRANSACTION_ID,
           CONCAT(l.OBJECT_SCHEMA, '.', l.OBJECT_NAME)
      FROM performance_schema.data_lock_waits w
      LEFT JOIN performance_schema.data_locks l
        ON l.ENGINE_LOCK_ID = w.REQUESTING_ENGINE_LOCK_ID AND l.ENGINE = w.ENGINE""",
    "mariadb": """
    SELECT w.requesting_trx_id, w.blocking_trx_id, REPLACE(l.lock_table, '`', '')
      FROM information_schema.INNODB_LOCK_WAITS w
      LEFT JOIN information_schema.INNODB_LOCKS l ON l.lock_id = w.requested_lock_id""",
}
DEFINITION_LOCKS = """
    SELECT DISTINCT l.OBJECT_TYPE, l.OBJECT_SCHEMA, l.OBJECT_NAME, l.LOCK_TYPE, l.LOCK_STATUS, th.PROCESSLIST_ID
      FROM performance_schema.metadata_locks p
      JOIN performance_schema.metadata_locks l
        ON l.OBJECT_TYPE = p.OBJECT_TYPE AND l.OBJECT_SCHEMA <=> p.OBJECT_SCHEMA AND l.OBJECT_NAME <=> p.OBJECT_NAME
      JOIN performance_schema.threads th ON th.THREAD_ID = l.OWNER_THREAD_ID
     WHERE p.LOCK_STATUS = 'PENDING' AND l.LOCK_STATUS IN ('PENDING', 'GRANTED')
       AND th.PROCESSLIST_ID IS NOT NULL"""
SEES_DEFINITIONS = """
    SELECT COUNT(*) FROM performance_schema.setup_instruments
     WHERE NAME = 'wait/lock/metadata/sql/mdl' AND ENABLED = 'YES'"""
PLUGIN = (
    "SELECT 1 FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'METADATA_LOCK_INFO' AND PLUGIN_STATUS = 'ACTIVE'"
)
PLUGIN_LOCKS = """
    SELECT DISTINCT THREAD_ID, LOCK_MODE, TABLE_SCHEMA, TABLE_NAME
      FROM information_schema.METADATA_LOCK_INFO
     WHERE LOCK_TYPE = 'Table metadata lock'"""

ACTIVE, IDLE, IDLE_IN_TRANSACTION, REPLICATION = "active", "idle", "idle in transaction", "replication"
DETACHED = 0  # in `blocked_by`: a prepared transaction, which no session holds any more
LENGTH = 200  # characters of a statement

# Which granted locks on an object's definition keep a wished one waiting, and which of those that wait go before it:
# the matrices in sql/mdl.cc, where the names are explained.
GRANTED = {
    "INTENTION_EXCLUSIVE": {"SHARED", "EXCLUSIVE"},
    "SHARED": {"EXCLUSIVE", "INTENTION_EXCLUSIVE"},
    "SHARED_HIGH_PRIO": {"EXCLUSIVE"},
    "SHARED_READ": {"SHARED_NO_READ_WRITE", "EXCLUSIVE"},
    "SHARED_WRITE": {"SHARED_READ_ONLY", "SHARED_NO_WRITE", "SHARED_NO_READ_WRITE", "EXCLUSIVE"},
    "SHARED_UPGRADABLE": {"SHARED_UPGRADABLE", "SHARED_NO_WRITE", "SHARED_NO_READ_WRITE", "EXCLUSIVE"},
    "SHARED_READ_ONLY": {"SHARED_WRITE", "SHARED_WRITE_LOW_PRIO", "SHARED_NO_READ_WRITE", "EXCLUSIVE"},
}
HARMLESS = {
    "SHARED_NO_WRITE": {"SHARED", "SHARED_HIGH_PRIO", "SHARED_READ", "SHARED_READ_ONLY"},
    "SHARED_NO_READ_WRITE": {"SHARED", "SHARED_HIGH_PRIO"},
}
GOES_FIRST = ("EXCLUSIVE", "SHARED_HIGH_PRIO", "SHARED_NO_READ_WRITE")
GOES_BEFORE = {"EXCLUSIVE", "SHARED_NO_READ_WRITE", "SHARED_NO_WRITE", "SHARED"}

# After one of these words a statement may hold a secret: then it ends where its first value begins, whatever comes
# before. A value cannot be told from the text around it where the session's sql_mode is not known.
_SECRET = re.compile(
    r"passw|\bpwd?\b|identified|secret|token|credential|_key|crypt|encode\s*\(|decode\s*\(|\bmd5\s*\(|\bsha\d?\s*\("
    r"|\bconnection\b|://[^/\s]*@",
    re.IGNORECASE,
)
_VALUE = re.compile(r"""['"]|\b0x""", re.IGNORECASE)


class Process(NamedTuple):
    """A row of the processlist."""

    id: int
    user: str
    client: str
    database: str
    command: str
    seconds: float
    says: str  # what the server calls its state
    statement: str
    state: str

    @property
    def internal(self) -> bool:
        """A thread of the server's own, or a replica that reads the binary log."""
        return self.user in ("system user", "event_scheduler") or self.command.startswith("Binlog Dump")


class Transaction(NamedTuple):
    thread: int
    seconds: float
    waits: float | None


class Wait(NamedTuple):
    what: str
    blockers: set[int]


class Sessions(NamedTuple):
    processes: tuple[Process, ...]
    backends: tuple[Backend, ...]
    detached: tuple[float, ...]  # ages of transactions without a session
    unseen: str = ""  # why it is not known for whom somebody waits


def sessions(link: Link, no_table: t.Callable[[str], str]) -> Sessions:
    """Everybody but this session. `no_table`: why a table of performance_schema tells nothing. Raises Refused."""
    own = link.flavour.has("processlist") and not no_table("processlist")
    rows = link.rows(PROCESSES.format(processlist=OWN_LIST if own else "information_schema.PROCESSLIST"))
    transactions: dict[str, Transaction] = {}
    for thread, number, seconds, waiting in link.rows(TRANSACTIONS):
        waited = None if waiting is None else max(0.0, float(waiting))
        transactions[str(number)] = Transaction(int(thread), max(0.0, float(seconds or 0)), waited)
    opened = {x.thread for x in transactions.values()}
    processes = tuple(_process(row, opened) for row in rows)
    waits, unseen = (
        _rows(link, transactions, no_table) if any(x.waits is not None for x in transactions.values()) else ({}, "")
    )
    waiting = [p for p in processes if _waits(p) and p.id not in waits]
    if waiting:
        found, why = _definitions(link, waiting, no_table)
        waits.update({p.id: found.get(p.id, Wait(_lock(p), set())) for p in waiting})
        unseen = unseen or why
    ages = tuple(x.seconds for x in transactions.values() if x.thread == DETACHED)
    return Sessions(processes, tuple(_backends(processes, transactions, waits)), ages, unseen)


def _process(row: t.Sequence[t.Any], opened: t.Container[int]) -> Process:
    thread, user, host, database, command, seconds, says, statement = row
    idle = str(command) == "Sleep"
    state = (IDLE_IN_TRANSACTION if int(thread) in opened else IDLE) if idle else ACTIVE
    if str(user or "") == "system user":
        state = REPLICATION
    name = str(host or "")
    client = name.rpartition(":")[0] or name
    words = (str(user or ""), client, str(database or ""), str(command))
    return Process(int(thread), *words, float(seconds or 0), str(says or ""), blotted(str(statement or "")), state)


def blotted(statement: str) -> str:
    """The beginning of a statement, on one line and without secrets."""
    value = _VALUE.search(statement) if _SECRET.search(statement) else None
    text = " ".join((f"{statement[: value.start()]}***" if value else statement).split())
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 2]} …"


def _waits(process: Process) -> bool:
    return process.says == "User lock" or (process.says.startswith("Waiting for") and "lock" in process.says)


def _lock(process: Process) -> str:
    return process.says.replace("Waiting for ", "").replace("table metadata lock", "a metadata lock")


def _backends(
    processes: t.Sequence[Process], transactions: t.Mapping[str, Transaction], waits: t.Mapping[int, Wait]
) -> t.Iterator[Backend]:
    """Whoever works, has a transaction open, waits, or is waited for."""
    blockers = {blocker for wait in waits.values() for blocker in wait.blockers}
    by_thread = {x.thread: x for x in transactions.values()}
    for process in processes:
        own, wait = by_thread.get(process.id), waits.get(process.id)
        working = process.state == ACTIVE and not process.internal and process.command != "Connect"
        if not (working or own or wait or process.id in blockers):
            continue
        waited = own.waits if own and own.waits is not None else process.seconds
        yield Backend(
            id=process.id,
            user=process.user,
            database=process.database,
            client=process.client,
            state=process.state,
            statement_seconds=process.seconds if working else None,
            # Ending an applier would end replication.
            transaction_seconds=own.seconds if own and not process.internal else None,
            waits_for=wait.what if wait else "",
            wait_seconds=waited if wait else None,
            blocked_by=tuple(sorted(wait.blockers)) if wait else (),
            statement=process.statement,
            keep=_keep(process),
        )


def _keep(process: Process) -> str:
    """Why nobody is told to end it."""
    if process.internal or process.command == "Connect":
        return "replication, or an event of the server's"
    # What mysqldump and mariadb-dump write into each of their queries.
    return "a dump" if "SQL_NO_CACHE */ * FROM" in process.statement else ""


# ---- rows ------------------------------------------------------------------------------------------------------------


def _rows(
    link: Link, transactions: t.Mapping[str, Transaction], no_table: t.Callable[[str], str]
) -> tuple[dict[int, Wait], str]:
    """Who waits for a row lock, by connection; or why that cannot be told."""
    found = {x.thread: Wait("a row lock", set()) for x in transactions.values() if x.waits is not None}
    if link.flavour.name == "mysql":
        why = no_table("data_lock_waits") or no_table("data_locks")
        if why:
            return found, why
    try:
        rows = link.rows(ROW_WAITS[link.flavour.name])
    except (Refused, Busy) as fault:
        return found, fault.cause
    for waiting, blocking, table in rows:
        own, other = transactions.get(str(waiting)), transactions.get(str(blocking))
        if own is None or other is None:
            continue  # it has ended between the two queries
        blockers = found[own.thread].blockers if own.thread in found else set()
        found[own.thread] = Wait(f"a row lock on {table}" if table else "a row lock", blockers | {other.thread})
    return found, ""


# ---- definitions -----------------------------------------------------------------------------------------------------


def _definitions(
    link: Link, waiting: t.Sequence[Process], no_table: t.Callable[[str], str]
) -> tuple[dict[int, Wait], str]:
    """Who waits for the definition of a table, a database or everything; or why that cannot be told."""
    why = no_table("metadata_locks") or no_table("threads") or no_table("setup_instruments")
    try:
        if not why and not link.rows(SEES_DEFINITIONS)[0][0]:
            why = (
                "metadata locks are not watched: UPDATE performance_schema.setup_instruments SET ENABLED = 'YES'"
                " WHERE NAME = 'wait/lock/metadata/sql/mdl'"
            )
        if not why:
            return definition_waits(link.rows(DEFINITION_LOCKS)), ""
        if link.flavour.name != "mariadb":
            return {}, why
        if not link.rows(PLUGIN):
            return {}, "nothing shows who holds metadata locks: INSTALL SONAME 'metadata_lock_info'"
        return _by_plugin(link, waiting), ""
    except (Refused, Busy) as fault:
        return {}, fault.cause


def definition_waits(rows: t.Iterable[t.Sequence[t.Any]]) -> dict[int, Wait]:
    """From rows of DEFINITION_LOCKS: who holds what the waiting one cannot share, or waits before it."""
    objects: defaultdict[tuple[str, str, str], list[tuple[str, str, int]]] = defaultdict(list)
    for kind, schema, name, lock, status, thread in rows:
        objects[str(kind), str(schema or ""), str(name or "")].append((str(lock), str(status), int(thread)))
    found: dict[int, Wait] = {}
    for (kind, schema, name), locks in objects.items():
        for wished, _status, thread in [lock for lock in locks if lock[1] == "PENDING"]:
            blockers = {other for lock, status, other in locks if other != thread and _hinders(lock, status, wished)}
            what = ".".join(part for part in (schema, name) if part)
            words = f"a metadata lock on {what}" if what else f"a lock on everything ({kind.lower()})"
            if kind == "USER LEVEL LOCK":
                words = f"the lock {name} that applications agreed on"
            found[thread] = Wait(words, blockers | (found[thread].blockers if thread in found else set()))
    return found


def _hinders(lock: str, status: str, wished: str) -> bool:
    if status == "PENDING" and (lock not in GOES_BEFORE or wished in GOES_FIRST):
        return lock == "EXCLUSIVE" and wished == "SHARED_NO_READ_WRITE"
    if wished in HARMLESS:
        return lock not in HARMLESS[wished]
    return lock in GRANTED.get(wished, {lock})


def _by_plugin(link: Link, waiting: t.Sequence[Process]) -> dict[int, Wait]:
    """MariaDB's plugin shows who holds what, and nobody's wishes.

    A change of a definition that waits holds the table already, in a way that lets others read: it waits for all others
    on that table. Everybody else who waits and names the table waits for the change.
    """
    holds: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for thread, mode, schema, name in link.rows(PLUGIN_LOCKS):
        holds[str(schema), str(name)][int(thread)] = str(mode)
    ids = {process.id for process in waiting}
    changing = ("MDL_SHARED_UPGRADABLE", "MDL_SHARED_NO_WRITE", "MDL_SHARED_NO_READ_WRITE")
    found: dict[int, Wait] = {}
    for (schema, name), holders in holds.items():
        first = [thread for thread, mode in holders.items() if thread in ids and mode in changing]
        what = f"a metadata lock on {schema}.{name}"
        for thread in first:
            found[thread] = Wait(what, set(holders) - {thread} - ids or set(holders) - {thread})
        if not first:
            continue
        for process in waiting:
            if process.id not in holders and process.id not in found and name.lower() in process.statement.lower():
                found[process.id] = Wait(what, set(first))
    return found
