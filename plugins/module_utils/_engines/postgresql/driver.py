# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One face for psycopg2 and psycopg 3: connect, execute, notices, cancel. No SQL, no meaning of an error."""

from __future__ import annotations

import importlib
import threading
import typing as t

from ..._errors import MissingMeans

Rows = list[t.Any]
Values = t.Union[t.Sequence[t.Any], t.Mapping[str, t.Any]]  # bound by place or by name


class DriverError(Exception):
    """What the driver raised: SQLSTATE ("" when the server had no say), text, and whether the connection is gone."""

    def __init__(self, message: str, sqlstate: str, lost: bool) -> None:
        super().__init__(message)
        self.message, self.sqlstate, self.lost = message, sqlstate, lost


def load() -> t.Any:
    """psycopg2, or psycopg 3 where only that is installed. Raises MissingMeans."""
    for name in ("psycopg2", "psycopg"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingMeans(
        "no Python driver for PostgreSQL on the host where the module runs",
        cure="Install psycopg2-binary (or psycopg 3) for the Python that the module runs with",
    )


class Link:
    """One connection, in autocommit. Raises DriverError and nothing else of the driver's."""

    def __init__(self, parameters: t.Mapping[str, t.Any]) -> None:
        self._driver = load()
        self._modern = self._driver.__name__ == "psycopg"
        self._said: list[str] = []
        self._closing = threading.Lock()
        try:
            if self._modern:
                # Values are bound by the client, as psycopg2 does: one dialect of parameters for both.
                self._raw = self._driver.connect(
                    **parameters, autocommit=True, prepare_threshold=None, cursor_factory=self._driver.ClientCursor
                )
                self._raw.add_notice_handler(lambda notice: self._said.append(str(notice.message_primary)))
            else:
                self._raw = self._driver.connect(**parameters)
                self._raw.autocommit = True
        except self._driver.Error as error:
            raise self._error(error, lost=True) from None
        info = self._raw.info
        self.version: int = info.server_version  # 180004
        self.promised_pid: int = info.backend_pid  # from the handshake: a pooler promises one of its own making
        self.host: str = info.host or ""
        self.port: int = int(info.port or 0)

    def rows(self, statement: str, values: Values = ()) -> Rows:
        """The rows of one statement; none where it has none."""
        try:
            with self._raw.cursor() as cursor:
                cursor.execute(statement, values or None)
                return list(cursor.fetchall()) if cursor.description else []
        except self._driver.Error as error:
            raise self._error(error, lost=bool(self._raw.closed)) from None
        except UnicodeDecodeError as error:
            raise DriverError(
                f"a name or message is not valid in the database's encoding ({error})", "", False
            ) from None

    def affected(self, statement: str) -> int:
        """How many rows one statement has changed."""
        try:
            with self._raw.cursor() as cursor:
                cursor.execute(statement)
                return int(cursor.rowcount)
        except self._driver.Error as error:
            raise self._error(error, lost=bool(self._raw.closed)) from None

    def notices(self) -> list[str]:
        """What the server said beside the results since the last call."""
        said = self._said if self._modern else list(self._raw.notices)
        self._said = []
        if not self._modern:
            del self._raw.notices[:]
        return [" ".join(text.split()) for text in said]

    def cancel(self) -> None:
        """Asks the server to end the statement that runs; from any thread.

        psycopg2 holds Python's global lock until the server has answered, and a server that has frozen never does: the
        whole process would stand still. So libpq is called past it, by ctypes, which lets go of the lock.
        """
        try:
            if self._modern:
                self._raw.cancel()
            else:
                self._cancel_by_libpq()
        except self._driver.Error as error:
            raise self._error(error, lost=False) from None

    def _cancel_by_libpq(self) -> None:
        import ctypes

        try:
            # Searches what _psycopg was linked with, too: the very libpq that made the connection.
            libpq = ctypes.CDLL(importlib.import_module("psycopg2._psycopg").__file__)
            libpq.PQgetCancel.restype = ctypes.c_void_p
        except (OSError, AttributeError):  # linked in another way: with the lock, then
            self._raw.cancel()
            return
        libpq.PQgetCancel.argtypes = libpq.PQfreeCancel.argtypes = [ctypes.c_void_p]
        libpq.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        with self._closing:
            request = libpq.PQgetCancel(self._raw.pgconn_ptr) if not self._raw.closed else None
        if request:
            said = ctypes.create_string_buffer(256)
            libpq.PQcancel(request, said, len(said))
            libpq.PQfreeCancel(request)

    def quiet(self) -> bool:
        """Whether the server has said nothing unasked: the end of a session is such a word. Asks nobody."""
        import select

        watched = select.poll() if hasattr(select, "poll") else None
        if watched is None or self.closed:
            return False
        watched.register(self._raw.fileno(), select.POLLIN)
        return not watched.poll(0)

    @property
    def closed(self) -> bool:
        return bool(self._raw.closed)

    def close(self) -> None:
        with self._closing:
            self._raw.close()

    @staticmethod
    def _error(error: t.Any, *, lost: bool) -> DriverError:
        sqlstate = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None) or ""
        diagnosis = getattr(error, "diag", None)
        message = getattr(diagnosis, "message_primary", None) or str(error)
        context = getattr(diagnosis, "context", None)  # which function it was, called by what
        message = f"{message} ({str(context)[:500]})" if context else message
        return DriverError(" ".join(str(message).split()), sqlstate, lost)
