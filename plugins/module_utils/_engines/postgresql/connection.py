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

from ..._errors import DbFault, Gone, Stopped
from ..._tuples import NamedTuple
from .driver import DriverError, Link, Rows, Values
from .faults import connect_fault, fault
from .names import option_value
from .options import Login
from .versions import has

APPLICATION = "dbfleet"
MOST = 2**31 - 1  # milliseconds that a setting of the server can hold
SILENT = r"timeout expired|timed out|Connection refused|No such file"


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
