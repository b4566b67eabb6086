# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions with the server: settings, statements, cancelling. Options are read in options.py."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ..._errors import CannotConnect, DbFault, Gone, Stopped, Vanished
from ..._records import Execution
from .capabilities import Flavour, flavour_of
from .faults import UNKNOWN_DATABASE, number_of, text_of, translated
from .names import quoted
from .options import Login, connect, driver

IDENTITY = "SELECT VERSION(), @@version_comment, CONNECTION_ID(), @@pseudo_thread_id, DATABASE()"
A_YEAR = 31536000


def settings(flavour: Flavour, execution: Execution) -> dict[str, str]:
    """What every session sets before anything else, so that no login's or server's default cuts maintenance off."""
    wait = str(max(1, round(execution.lock_timeout)))
    found = {
        # ANSI_QUOTES, NO_BACKSLASH_ESCAPES and strictness about old zero dates are all off.
        "sql_mode": "'NO_ENGINE_SUBSTITUTION'",
        "time_zone": "'+00:00'",
        # Metadata locks: everybody who comes later queues behind us.
        "lock_wait_timeout": wait,
        "innodb_lock_wait_timeout": wait,
        "wait_timeout": str(A_YEAR),
        "sql_big_selects": "1",
        "sql_select_limit": "18446744073709551615",
        # ANALYZE reports its errors in words only.
        "lc_messages": "'en_US'",
        "transaction_read_only" if flavour.has("transaction_read_only") else "tx_read_only": "0",
    }
    timeouts = ("max_execution_time", "max_statement_time", "idle_transaction_timeout")
    found.update((name, "0") for name in timeouts if flavour.has(name))
    if flavour.has("statistics expiry"):
        found["information_schema_stats_expiry"] = "0"
    return found


class Link:
    """One connection, used by one thread; only `cancel` may come from another."""

    def __init__(self, login: Login, execution: Execution, database: str = "") -> None:
        self.database, self.login, self.execution = database, login, execution
        self.stopping = False
        self.stopped = threading.Event()  # the same, for whoever waits for a client program
        self.asked = 0.0  # time.monotonic() of the question that has no answer yet
        self._closed = False
        self.local = False
        self._lock = threading.Lock()
        # Without its role the login may not be let into the database.
        self._raw = _opened(login, "" if login.role else database)
        try:
            self._begin()
            vars(self._raw)["_read_timeout"] = login.arguments.get("read_timeout")
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        version, comment, self.id, pseudo, within = self.rows(IDENTITY)[0]
        self.flavour = flavour_of(str(version), str(comment))
        self.comment = str(comment)
        # Behind a multiplexing proxy the greeting's thread id is the proxy's own, and each statement may be given
        # to another connection.
        self.direct = int(pseudo) == int(self.id) == int(self._raw.thread_id())
        if self.login.encrypted and not self.cipher():
            raise CannotConnect(
                "the server does not speak TLS, and ssl_mode asks for it", cure="Set up TLS on the server"
            )
        words = ", ".join(f"{name} = {value}" for name, value in settings(self.flavour, self.execution).items())
        self.rows(f"SET SESSION {words}")
        if self.login.role:
            self.rows("SET ROLE %s", (self.login.role,))
        if self.database and within != self.database:  # it waits for the role, or init_connect has gone elsewhere
            self.rows(f"USE {quoted(self.database)}")

    def cipher(self) -> str:
        """Of this session, "" where it is not encrypted."""
        found = self.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        return str(found[0][1]) if found else ""

    def rows(self, query: str, values: t.Sequence[t.Any] = (), *, obj: str = "") -> list[tuple[t.Any, ...]]:
        """All rows of one query; without values the text goes to the server as it is."""
        with self._cursor(obj) as cursor:
            cursor.execute(query, tuple(values) or None)
            return list(cursor.fetchall())

    def records(self, query: str) -> list[dict[str, t.Any]]:
        """Rows by column name, for SHOW statements whose columns come and go with the version."""
        with self._cursor("") as cursor:
            cursor.execute(query)
            names = [str(column[0]) for column in cursor.description or ()]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def texts(self, query: str, *, obj: str = "") -> list[tuple[t.Any, ...]]:
        """All rows, each value as the server writes it: text, or bytes where it is no text. Nothing is rounded."""
        kept, self._raw.decoders = self._raw.decoders, {}
        try:
            return self.rows(query, obj=obj)
        finally:
            self._raw.decoders = kept

    def change(self, statement: str, *, obj: str = "") -> int:
        """Executes a statement as it is; how many rows it removed, added or altered."""
        with self._cursor(obj) as cursor:
            return int(cursor.execute(statement))

    def rollback(self) -> None:
        """Ends a transaction, even of a session that was cancelled or lost; never raises."""
        with contextlib.suppress(Exception):
            self._raw.rollback()

    def release_tables(self) -> None:
        """Gives back what LOCK TABLES took; never raises."""
        with contextlib.suppress(Exception):
            self._raw.query("UNLOCK TABLES")

    def run(self, statement: str, *, obj: str = "") -> list[tuple[t.Any, ...]]:
        """A statement that changes something, in exactly the words that check mode shows."""
        return self.rows(statement, obj=obj)

    def keep_local(self) -> None:
        """Nothing of this session goes into the binary log from here on (replicas and the outside see none of it)."""
        if not self.local:
            self.rows("SET SESSION sql_log_bin = 0")
            self.local = True

    @contextlib.contextmanager
    def _cursor(self, obj: str) -> t.Iterator[t.Any]:
        if self.stopping:
            raise Stopped("stopped before it began", database=self.database, obj=obj)
        self.asked = time.monotonic()
        try:
            with self._raw.cursor() as cursor:
                yield cursor
        except DbFault:
            raise
        except (driver().Error, OSError) as fault:
            raise translated(fault, database=self.database, obj=obj, stopping=self.stopping) from fault
        finally:
            self.asked = 0.0

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> t.Iterator[None]:
        """Queries within are ended by the server after some seconds: Refused."""
        name, unit = (
            ("max_execution_time", 1000) if self.flavour.has("max_execution_time") else ("max_statement_time", 1)
        )
        self.rows(f"SET SESSION {name} = {max(1, int(seconds * unit))}")  # 0 would be without end
        try:
            yield
        finally:
            with contextlib.suppress(DbFault):
                self.rows(f"SET SESSION {name} = 0")

    def cancel(self) -> None:
        """Ends what the session is doing; from any thread, and harmless when it does nothing."""
        with self._lock:
            if self._closed or self.stopping:
                return
            self.stopping = True
            self.stopped.set()
        with contextlib.suppress(DbFault):
            other = _opened(self.login, "")
            try:
                # A statement that is sent this very moment would not be seen by one KILL alone.
                for _attempt in range(2):
                    with other.cursor() as cursor, contextlib.suppress(driver().Error):
                        cursor.execute(f"KILL QUERY {int(self.id)}")
                    time.sleep(0.05)
            finally:
                other.close()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # The server may have hung up already.
        with contextlib.suppress(Exception):
            self._raw.close()


def _opened(login: Login, database: str) -> t.Any:
    """A raw connection. Raises CannotConnect or Busy, without the password in any word."""
    pymysql = driver()
    secret = str(login.arguments.get("password") or "")
    # As bytes: the driver would write the password in Latin 1, where everybody else writes UTF-8.
    arguments = {**login.arguments, "password": secret.encode()}
    if database:
        arguments["database"] = database
    try:
        # The driver waits connect_timeout for the network alone, and for ever for a server that takes connections and
        # says nothing: until the session is there, the same time is the most that any answer may take.
        return connect(**{"read_timeout": arguments["connect_timeout"], **arguments})
    except (pymysql.Error, OSError, RuntimeError, ValueError, TypeError) as fault:
        number = number_of(fault)
        if number in (1040, 1203, 1226):
            raise translated(fault, database=database) from None
        text = text_of(fault).replace(secret, "********") if secret else text_of(fault)
        if number == UNKNOWN_DATABASE:  # the server has named it a moment ago
            raise Vanished(text, database=database) from None
        raise CannotConnect(text, database=database, cure=_connect_cure(number, text)) from None


def answers(login: Login) -> bool:
    """Whether the server answers a new connection at all, be it with a refusal."""
    try:
        _opened(login, "").close()
    except DbFault as fault:
        return not is_silence(fault)
    return True


def is_silence(fault: DbFault) -> bool:
    """Whether nobody has answered, be it with a refusal."""
    return isinstance(fault, (CannotConnect, Gone)) and number_of(fault.__context__ or fault) in SILENT


SILENT = (2002, 2003, 2013)  # nobody there, no connection, lost while it was waited for
CONNECT_CURES = {
    1045: "Check login_user, login_password and from which hosts the account may log in",
    1698: "Check login_user, login_password and from which hosts the account may log in",
    1044: "Grant the login something in that database",
    2013: "It takes connections and does not answer: look at the server, or raise connect_timeout",
    2002: "Check login_host, login_port, login_unix_socket, and that the server is running",
    2003: "Check login_host, login_port, login_unix_socket, and that the server is running",
}


def _connect_cure(number: int, text: str) -> str:
    if "cryptography" in text:
        return "Install the Python library cryptography beside PyMySQL, or connect by TLS or a socket"
    if "SSL" in text or "certificate" in text.lower():
        return "Check ssl_mode, ca_cert, ssl_cert, ssl_key and check_hostname"
    return CONNECT_CURES.get(number, "")
