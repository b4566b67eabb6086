# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections: their settings, opening them, talking through them. What is said there stands in the files beside."""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
import typing as t

from ..._errors import CannotConnect, DbFault, Gone, Stopped, Vanished
from ..._tuples import NamedTuple
from .driver import DriverError, Link, Rows, Values
from .faults import Crowded, connect_fault, fault
from .files import FOLDER
from .names import option_value
from .options import Login
from .versions import has

APPLICATION = "dbfleet"
MOST = 2**31 - 1  # milliseconds that a setting of the server can hold
CROWDED = 5.0  # seconds that a session waits for another one of ours, where the server takes no more of them
MOST_IDLE = 8  # connections that may be of use again: a server of many databases has other clients, too
SILENT = r"timeout expired|timed out|Connection refused|No such file"
MANY = 5000  # relations of a database from which on a second session is worth the 5 ms that it costs
READABLE = f"""
SELECT pg_catalog.has_table_privilege('pg_catalog.pg_statistic', 'SELECT'), {FOLDER},
       (SELECT c.reltuples >= %s FROM pg_catalog.pg_class c
         WHERE c.oid = 'pg_catalog.pg_class'::pg_catalog.regclass)
"""


class Kind(NamedTuple):
    """What a connection is for: connections of one kind are alike, and are used again."""

    read_only: bool = True
    lock_timeout: float = 1.0  # seconds
    cost_delay: float | None = None  # a step has set it
    natural: bool = False  # for the user's own SQL and triggers: names and times mean what they mean to the login


class Connection:
    """One connection to one database; raises DbFault. Used by one thread at a time, but for `cancel`."""

    def __init__(self, link: Link, database: str, kind: Kind) -> None:
        self.link, self.database, self.kind = link, database, kind
        self.brief = False  # opened before the version was known: its settings may let the server end it
        self.pid = link.promised_pid
        self.stopping = False
        self.spoilt = False
        self.asked = 0.0  # time.monotonic() of the question that has no answer yet

    def rows(self, statement: str, values: Values = ()) -> Rows:
        self.asked = time.monotonic()
        try:
            return self.link.rows(statement, values)
        except DriverError as error:
            raise self._fault(error) from None
        finally:
            self.asked = 0.0

    def run(self, statement: str) -> list[str]:
        """Executes one statement and returns what the server said beside the result."""
        self.link.notices()
        self.rows(statement)
        return self.link.notices()

    def affected(self, statement: str) -> int:
        """Executes one statement; how many rows it changed."""
        self.asked = time.monotonic()
        try:
            return self.link.affected(statement)
        except DriverError as error:
            raise self._fault(error) from None
        finally:
            self.asked = 0.0

    def _fault(self, error: DriverError) -> DbFault:
        found = fault(error, database=self.database, stopping=self.stopping)
        self.spoilt = self.spoilt or isinstance(found, Gone) or self.link.closed
        return found

    def cancel(self) -> None:
        self.stopping = True
        with contextlib.suppress(DriverError):
            self.link.cancel()

    def close(self) -> None:
        self.link.close()


class Connector:
    """Opens connections with settings that neither the login's nor the database's own defaults can undo.

    All settings travel in libpq's `options`: they outrank ALTER ROLE and ALTER DATABASE … SET, hold from the first
    moment, and leave nothing in the statement log.
    """

    def __init__(self, login: Login) -> None:
        self.login = login
        self.major = 0  # until the first connection: settings that older servers do not know are left out
        self.plain = False  # a pooler refused our settings: reading only
        self.login_writes = False  # a login trigger does: connections become read-only a moment later
        self.pids: set[int] = set()  # server processes of this run
        self.open_ones: set[Connection] = set()
        self.stopped = False
        self.opening = 0.0  # time.monotonic() of the first attempt to connect since one had an answer
        self.readable: dict[
            str, tuple[bool, str | None, bool]
        ] = {}  # by database: see Session.sees_statistics, .folder, .twin
        self.lately: dict[str, tuple[float, t.Any]] = {}  # by database: what proofs of the last moment have seen
        # Indexes by database and oid: built, and replaced, by steps of this run that failed and may have left them.
        self.made: set[tuple[str, int]] = set()
        self.replaced: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def open(self, database: str, kind: Kind) -> Connection:
        """Raises CannotConnect, MissingMeans."""
        if self.stopped:
            raise Stopped("stopped", database=database)
        plain, login_writes = self.plain, self.login_writes
        self.opening = self.opening or time.monotonic()
        try:
            link = self._link(database, kind)
        except DriverError as error:
            if not re.search(SILENT, error.message):
                self.opening = 0.0
            # By what this attempt had asked for: another thread may have learned the same meanwhile.
            if not plain and "unsupported startup parameter" in error.message:
                self.plain = True
            elif not login_writes and "in a read-only transaction" in error.message:
                self.login_writes = True
            else:
                listed = database != self.login.database
                raise connect_fault(error, database=database, listed=listed, password=self.login.password) from None
            return self.open(database, kind)
        self.opening = 0.0
        with self._lock:
            self.pids.add(link.promised_pid)
            if not self.major:
                self.major = link.version // 10000
                self._settle_on(link)
        connection = Connection(link, database, kind)
        self.open_ones.add(connection)
        return connection

    def silence(self) -> float:
        """Seconds for which the question that has waited longest has had no answer."""
        asked = [moment for moment in (self.opening, *(c.asked for c in list(self.open_ones))) if moment]
        return time.monotonic() - min(asked) if asked else 0.0

    def answers(self) -> bool:
        """Whether a new connection gets an answer at all."""
        try:
            self._link(self.login.database, Kind()).close()
        except DriverError as error:
            return not re.search(SILENT, error.message)
        return True

    def cancel(self) -> None:
        """For good: no further connection is opened."""
        self.stopped = True
        for connection in list(self.open_ones):
            connection.cancel()

    def _link(self, database: str, kind: Kind) -> Link:
        keywords = {
            **self.login.keywords,
            "dbname": database,
            "application_name": APPLICATION,
            "client_encoding": "UTF8",
        }
        if not self.plain:
            keywords["options"] = self.options(kind._replace(read_only=kind.read_only and not self.login_writes))
        link = Link(keywords)
        if self.login_writes and kind.read_only:
            link.rows("SET default_transaction_read_only = on")
        return link

    def _settle_on(self, link: Link) -> None:
        """Of several hosts every further session goes where the first one went."""
        if "," in str(self.login.keywords.get("host", "")):
            keywords = {k: v for k, v in self.login.keywords.items() if k != "hostaddr"}
            keywords.update(host=link.host, port=link.port)
            self.login = self.login._replace(keywords=keywords, address=f"{link.host}:{link.port}")

    def options(self, kind: Kind) -> str:
        """The settings of a session, as libpq's `options`."""
        settings = {
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": "0",
            "lock_timeout": str(min(MOST, math.ceil(kind.lock_timeout * 1000))),
            "search_path": "pg_catalog",
            "client_min_messages": "notice",
            "default_transaction_read_only": "on" if kind.read_only else "off",
            "default_transaction_isolation": "read committed",
            "default_transaction_deferrable": "off",
            "standard_conforming_strings": "on",
            "quote_all_identifiers": "off",  # names of types are compared
            "datestyle": "ISO",
            "timezone": "UTC",
            "jit": "off",  # compiling a query of catalogs takes longer than running it
        }
        if kind.natural:
            del settings["search_path"], settings["timezone"]
            # By index in bites, whatever the statistics say of rows that are gone since.
            settings.update(enable_seqscan="off", enable_bitmapscan="off", extra_float_digits="1")
        if self.major and has("idle session timeout", self.major):
            settings["idle_session_timeout"] = "0"
        if self.major and has("transaction timeout", self.major):
            settings["transaction_timeout"] = "0"
        if self.login.role:
            settings["role"] = self.login.role
        ours = " ".join(f"-c {name}={option_value(value)}" for name, value in settings.items())
        return f"{self.login.options} {ours}".strip()

    def forget(self, connection: Connection) -> None:
        with self._lock:
            self.pids.discard(connection.pid)
            self.open_ones.discard(connection)
        connection.close()


class Pool:
    """Connections that are not in use, by database and kind: a step costs no connection of its own."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self._idle: dict[tuple[str, Kind], list[Connection]] = {}  # what was used last comes last
        self._used: set[Connection] = set()
        self._halfway = threading.Lock()  # one session with a connection may wait for its second one: two wait for ever
        self._lock = threading.Lock()

    def take(self, database: str, kind: Kind, *, held: int = 0) -> Connection:
        """`held` is how many the session has already: those it cannot wait for."""
        with self._lock:
            idle = self._idle.get((database, kind), [])
            connection = idle.pop() if idle else None
        connection = connection or self.open(database, kind, held)
        with self._lock:
            self._used.add(connection)
        return connection

    def spare(self, database: str, kind: Kind) -> Connection | None:
        """One that its session can do without: nobody is waited for, and nobody gives way. None: not to be had."""
        with self._lock:
            idle = self._idle.get((database, kind), [])
            connection = idle.pop() if idle else None
        with contextlib.suppress(CannotConnect, Vanished):
            connection = connection or self.connector.open(database, kind)
        if connection:
            with self._lock:
                self._used.add(connection)
        return connection

    def open(self, database: str, kind: Kind, held: int = 0) -> Connection:
        """Where few connections are left, those of ours that idle give way, and those at work are waited for."""
        if not held:
            return self._open(database, kind, held, CROWDED)
        alone = self._halfway.acquire(blocking=False)
        try:
            return self._open(database, kind, held, CROWDED if alone else 0.5)
        finally:
            if alone:
                self._halfway.release()

    def _open(self, database: str, kind: Kind, held: int, patience: float) -> Connection:
        until, ended = time.monotonic() + patience, False
        while True:
            try:
                return self.connector.open(database, kind)
            except Crowded:
                with self._lock:
                    idle = [c for several in self._idle.values() for c in several]
                    self._idle.clear()
                    others = len(self._used) > held
                ended = ended or bool(idle)  # the server takes a moment to let go of them
                if not (others or ended) or time.monotonic() > until:
                    raise
                for each in idle:
                    self.connector.forget(each)
                time.sleep(0.1)

    def give_back(self, connection: Connection) -> None:
        """A connection that was lost or cancelled is not used again; nor are its idle sisters after a loss."""
        with self._lock:
            self._used.discard(connection)
            dropped = [connection] if connection.spoilt or connection.stopping or connection.brief else []
            if connection.spoilt:
                dropped += [c for idle in self._idle.values() for c in idle]
                self._idle.clear()
            elif not dropped:
                dropped = self._rest(connection)
        for each in dropped:
            self.connector.forget(each)

    def _rest(self, connection: Connection) -> list[Connection]:
        """Idles from now on; those that have for longest, and are too many now."""
        key = connection.database, connection.kind
        self._idle[key] = [*self._idle.pop(key, []), connection]  # the last one of the dictionary
        surplus = sum(map(len, self._idle.values())) - MOST_IDLE
        dropped = []
        for key in list(self._idle) if surplus > 0 else ():
            gone, kept = self._idle[key][:surplus], self._idle[key][surplus:]
            dropped += gone
            surplus -= len(gone)
            if kept:
                self._idle[key] = kept
                break
            del self._idle[key]
        return dropped

    def leave(self, database: str) -> None:
        """No connection of ours idles there: it would keep the database from being renamed or dropped."""
        with self._lock:
            idle = [self._idle.pop(key) for key in list(self._idle) if key[0] == database]
        for connection in (each for several in idle for each in several):
            self.connector.forget(connection)

    def close(self) -> None:
        with self._lock:
            everything = [*self._used, *(c for idle in self._idle.values() for c in idle)]
            self._used.clear()
            self._idle.clear()
        for connection in everything:
            self.connector.forget(connection)


class Session:
    """A session of one step, on one database: a connection that only reads, and one that works where needed."""

    def __init__(self, pool: Pool, database: str, lock_timeout: float, reader: Connection | None = None) -> None:
        self.database, self.lock_timeout, self._pool = database, lock_timeout, pool
        self.stopped = threading.Event()
        kind = Kind(True, lock_timeout)
        self._held: dict[Kind, Connection] = {kind: reader} if reader else {}
        self._reader = self._take(kind)
        self._twin: Session | None = None

    def _take(self, kind: Kind) -> Connection:
        if kind not in self._held:
            self._held[kind] = self._pool.take(self.database, kind, held=len(self._held))
        return self._held[kind]

    @contextlib.contextmanager
    def twin(self, *, wanted: bool) -> t.Iterator[Session | None]:
        """A second session beside this one, for a thread of its own; None where that is not worth it, or not to be had.

        Where a database has many relations the server works on one question a session, and has more than one core.
        """
        if wanted and self._readable()[2]:
            connection = self._pool.spare(self.database, self._reader.kind)
            if connection:
                self._twin = Session(self._pool, self.database, self.lock_timeout, connection)
            else:  # what was refused once is not asked for again
                self._pool.connector.readable[self.database] = (*self._readable()[:2], False)
        try:
            yield self._twin
        finally:
            if self._twin:
                self._twin.end()
            self._twin = None

    def rows(self, statement: str, values: Values = ()) -> Rows:
        """Reads. The connection could not write if it wanted to: its transactions are read-only."""
        return self._reader.rows(statement, values)

    def worker(self, *, lock_timeout: float, cost_delay: float | None = None, natural: bool = False) -> Connection:
        """The connection that carries out."""
        return self._take(Kind(False, lock_timeout, cost_delay, natural))

    @property
    def pids(self) -> list[int]:
        """The server processes of this run: their locks and snapshots are our own."""
        return sorted(self._pool.connector.pids)

    @property
    def own_pids(self) -> list[int]:
        """The server processes of this session alone; from any thread."""
        return [connection.pid for connection in list(self._held.values())]

    @property
    def made(self) -> set[tuple[str, int]]:
        """Indexes that failed attempts of this run have built."""
        return self._pool.connector.made

    @property
    def replaced(self) -> set[tuple[str, int]]:
        """Indexes that failed attempts of this run were to replace, and perhaps did."""
        return self._pool.connector.replaced

    def sees_statistics(self) -> bool:
        """Whether the login may read pg_statistic here, and not only pg_stats."""
        return self._readable()[0]

    def folder(self) -> str | None:
        """Where the files of the database are, if the login may ask for their sizes; seen from the server's own."""
        return self._readable()[1]

    def _readable(self) -> tuple[bool, str | None, bool]:
        known = self._pool.connector.readable
        if self.database not in known:
            ((statistics, folder, many),) = self.rows(READABLE, (MANY,))
            known[self.database] = bool(statistics), folder, bool(many)
        return known[self.database]

    @property
    def lately(self) -> dict[str, tuple[float, t.Any]]:
        """What sessions of this run share for a moment: by database, when it was read and what."""
        return self._pool.connector.lately

    def leave(self, database: str) -> None:
        """No connection of this run idles in that database."""
        self._pool.leave(database)

    def cancel(self) -> None:
        """Ends what the session is doing; from any thread, and harmless when it does nothing."""
        self.stopped.set()
        for connection in list(self._held.values()):
            connection.cancel()
        twin = self._twin
        if twin:
            twin.cancel()

    def end(self) -> None:
        for connection in self._held.values():
            self._pool.give_back(connection)
        self._held.clear()


def reachable(pool: Pool, databases: t.Sequence[str], kind: Kind) -> Connection:
    """A connection to the first of these databases that takes one. Raises the first CannotConnect."""
    first: DbFault | None = None
    for database in dict.fromkeys(databases):
        try:
            return pool.open(database, kind)
        except (CannotConnect, Vanished) as error:
            first = first or error
    raise first or CannotConnect("no database to connect to")
