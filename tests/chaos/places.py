# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the rows of a chaos test live: a server or a file, made anew for each test, and asked what is left there."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pymysql

from tests.fleet import Server
from tests.fleet.mysql import MySQL as _MySQL
from tests.integration.cleanup import Row, connection, rows_of

DATABASE = "chaos"
ROWS = 64
DUE = 40  # of them
AGAIN = 20  # transactions after a crash


class Shape(NamedTuple):
    """How the tables of one test look."""

    indexed: bool  # the walk goes by the date; else by the key
    children: bool


def age(row: int) -> int:
    """Days; rows that are due stand between others that are not."""
    return 100 + row if row * 5 % 8 < 5 else 10 + row % 50


def note(row: int) -> str:
    return f"note {row} ü 'x' \\ {'~' * (row % 7)}"


class Place:
    """A database that can be filled, read and disturbed. `sessions` are the module's, on the server."""

    means: tuple[str, ...] = ("killed", "terminated", "session ended", "server stopped")

    def __init__(self, where: Server | Path, name: str) -> None:
        self.where, self.name = where, name

    @property
    def version(self) -> str:
        return self.where.version if isinstance(self.where, Server) else sqlite3.sqlite_version

    def start(self) -> None:
        """Starts a server that was stopped hard."""
        if isinstance(self.where, Server):
            self.where.start()

    def recover(self) -> None:
        """After a failure: the next test finds a server without sessions."""
        self.start()
        self.end_sessions(open_only=False)

    def rows(self, table: str) -> list[Row]:
        """None where there is no such table."""
        return rows_of(self.where, table, database=DATABASE) if table in self.tables() else []

    def options(self) -> dict[str, Any]:
        login = self.where.login() if isinstance(self.where, Server) else {}
        return {**login, "databases": [DATABASE]}

    def fill(self, shape: Shape) -> None:
        with connection(self.where, DATABASE) as db:
            cursor = db.cursor()
            for statement in self.making(shape):
                cursor.execute(statement)

    def making(self, shape: Shape) -> Iterable[str]:
        for table in ("c", "c_archive", "t", "t_archive"):
            yield f"DROP TABLE IF EXISTS {table}"
        yield self.table()
        moments = ", ".join(
            f"({row}, {self.ago(age(row))}, '{self.text(note(row))}', {row}.25)" for row in range(1, ROWS + 1)
        )
        yield f"INSERT INTO t (id, at, note, amount) VALUES {moments}"
        if shape.indexed:
            yield "CREATE INDEX t_at ON t (at)"
        if shape.children:
            yield self.child_table()
            yield "CREATE INDEX c_t ON c (t_id)"
            rows = ", ".join(f"({row}, {1 + row % ROWS}, 'child {row}')" for row in range(1, ROWS // 2))
            yield f"INSERT INTO c (id, t_id, note) VALUES {rows}"

    def text(self, value: str) -> str:
        return value.replace("'", "''")

    def disturb(self, *statements: str) -> list[bool]:
        """What the application does meanwhile: which of the statements changed a row, and were not locked out."""
        done = []
        with connection(self.where, DATABASE) as db:
            for statement in (*self.impatient(), *statements):
                cursor = db.cursor()
                try:
                    cursor.execute(statement)
                    done.append(cursor.rowcount > 0)
                except (psycopg2.Error, pymysql.Error, sqlite3.Error):
                    done.append(False)
        return done[-len(statements) :]

    def table(self) -> str:
        raise NotImplementedError

    def child_table(self) -> str:
        return "CREATE TABLE c (id int PRIMARY KEY, t_id int NOT NULL REFERENCES t (id), note varchar(50))"

    def ago(self, days: int) -> str:
        raise NotImplementedError

    def impatient(self) -> tuple[str, ...]:
        raise NotImplementedError

    def tables(self) -> set[str]:
        raise NotImplementedError

    def end_sessions(self, *, open_only: bool) -> int:
        """Of the module; those with an open transaction, or all. How many there were."""
        return 0

    def left(self) -> list[str]:
        """What a run that is over must not leave on the server: sessions, locks, temporary tables."""
        raise NotImplementedError

    def clean(self, shape: Shape, kind: str) -> list[str]:
        """What is left after a while."""
        expected = {"t"} | ({"c"} if shape.children else set()) | ({"t_archive"} if kind == "table" else set())
        expected |= {"c_archive"} if kind == "table" and shape.children else set()
        until = time.monotonic() + 10
        while True:
            found = [*self.left(), *(f"table {name}" for name in self.tables() ^ expected)]
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.05)


class PostgreSQL(Place):
    def start(self) -> None:
        """The application goes on at once: transaction numbers that no log knows any more are given out again."""
        down = isinstance(self.where, Server) and not self.where.running
        super().start()
        if down:
            with connection(self.where, DATABASE) as db:
                for _number in range(AGAIN):
                    db.cursor().execute("SELECT pg_current_xact_id()")

    def table(self) -> str:
        return "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, note text, amount numeric)"

    def ago(self, days: int) -> str:
        return f"now() - interval '{days} days'"

    def impatient(self) -> tuple[str, ...]:
        return ("SET lock_timeout = '100ms'",)

    def tables(self) -> set[str]:
        return {
            row[0] for row in self._asked("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 2200")
        }

    def end_sessions(self, *, open_only: bool) -> int:
        scope = " AND xact_start IS NOT NULL" if open_only else ""
        return len(self._asked("SELECT pg_terminate_backend(pid)" + self._others + scope))

    _others = " FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"

    def left(self) -> list[str]:
        asked = f"SELECT 'session ' || coalesce(query, ''){self._others}"
        asked += " UNION ALL SELECT 'lock ' || mode FROM pg_locks WHERE locktype = 'advisory'"
        asked += " UNION ALL SELECT 'temporary ' || relname FROM pg_class WHERE relpersistence = 't'"
        return [str(row[0]) for row in self._asked(asked)]

    def _asked(self, query: str) -> list[Any]:
        with connection(self.where, DATABASE) as db:
            cursor = db.cursor()
            cursor.execute(query)
            return list(cursor.fetchall())


class MySQL(Place):
    def start(self) -> None:
        super().start()
        if isinstance(self.where, _MySQL):
            self.where._greet()

    def table(self) -> str:
        return "CREATE TABLE t (id int PRIMARY KEY, at datetime(3), note varchar(200), amount decimal(10,2))"

    def child_table(self) -> str:
        columns = "id int PRIMARY KEY, t_id int NOT NULL, note varchar(50)"
        return f"CREATE TABLE c ({columns}, FOREIGN KEY (t_id) REFERENCES t (id))"

    def text(self, value: str) -> str:
        return value.replace("\\", "\\\\").replace("'", "''")

    def ago(self, days: int) -> str:
        return f"utc_timestamp() - INTERVAL {days} DAY"

    def impatient(self) -> tuple[str, ...]:
        return ("SET innodb_lock_wait_timeout = 1", "SET lock_wait_timeout = 1")

    def tables(self) -> set[str]:
        asked = f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{DATABASE}'"
        return {str(row[0]) for row in self._asked(asked)}

    _others = (
        " FROM information_schema.processlist p WHERE p.id <> connection_id() AND p.user <> 'system user'"
        " AND p.command <> 'Daemon' AND p.user <> 'event_scheduler'"
    )

    def end_sessions(self, *, open_only: bool) -> int:
        scope = " AND p.id IN (SELECT trx_mysql_thread_id FROM information_schema.innodb_trx)" if open_only else ""
        found = self._asked("SELECT p.id" + self._others + scope)
        for row in found:
            with suppress(pymysql.Error):
                self._asked(f"KILL {row[0]}")
        return len(found)

    def left(self) -> list[str]:
        found = [
            f"session {row[0]}"
            for row in self._asked("SELECT concat(p.user, ' ', coalesce(p.info, ''))" + self._others)
        ]
        found += [f"transaction {row[0]}" for row in self._asked("SELECT trx_id FROM information_schema.innodb_trx")]
        return found

    def _asked(self, query: str) -> list[Any]:
        with connection(self.where, DATABASE) as db:
            cursor = db.cursor()
            cursor.execute(query)
            return list(cursor.fetchall())


class SQLite(Place):
    means: tuple[str, ...] = ("killed", "terminated")

    def options(self) -> dict[str, Any]:
        return {"engine": "sqlite", "databases": [str(self.where)]}

    def table(self) -> str:
        return "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT, note TEXT, amount REAL)"

    def ago(self, days: int) -> str:
        return f"datetime('now', '-{days} days')"

    def impatient(self) -> tuple[str, ...]:
        return ("PRAGMA busy_timeout = 100",)

    def tables(self) -> set[str]:
        with connection(self.where) as db:
            return {
                row[0]
                for row in db.execute(
                    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                )
            }

    def left(self) -> list[str]:
        try:
            with connection(self.where) as db:
                db.execute("PRAGMA busy_timeout = 100")
                db.execute("BEGIN EXCLUSIVE")
                db.execute("ROLLBACK")
        except sqlite3.Error as error:
            return [str(error)]
        return []


def place_on(where: Server | Path, name: str) -> Place:
    """With the database where it needs one."""
    kinds: Mapping[str, type[Place]] = {"postgresql": PostgreSQL, "mysql": MySQL, "mariadb": MySQL}
    if not isinstance(where, Server):
        return SQLite(where, name)
    where.sql(f"CREATE DATABASE {DATABASE}")
    return kinds[where.engine](where, name)
