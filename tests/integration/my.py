# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MySQL engine as its tests use it: opened on a server, measured, told what to do. No test lives here."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import pymysql

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import MySQL
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Database,
    Execution,
    Ref,
    Step,
    Table,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Task
from tests.fleet import Server
from tests.fleet.processes import give_away

ALL = Wants(tables=True, bloat=True, leftovers=True, activity=True)
READ = re.compile(r"\s*(SELECT|SHOW|SET\s+SESSION|COMMIT|SET\s+NAMES|SET\s+AUTOCOMMIT|SET\s+ROLE)\b", re.IGNORECASE)


class Used:
    """An engine that has greeted its server."""

    def __init__(self, server: Server, execution: Execution, **params: Any) -> None:
        self.engine = MySQL({**server.login(), **params}, execution)
        self.server = self.engine.greet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *what: object) -> None:
        self.engine.close()

    def measure(self, database: str, wants: Wants = ALL) -> Database:
        with self.engine.session(database) as session:
            return self.engine.measure(session, wants, self.server)

    def table(self, database: str, name: str, wants: Wants = ALL, *, partition: str = "") -> Table:
        """One table, read anew as a proof reads it."""
        ref = Ref(database, (name,), partition)
        (found,) = [x for x in self.measure(database, wants._replace(only=(ref,))).tables if x.ref == ref]
        return found

    def carry_out(self, task: Task) -> list[str]:
        """Returns the words that were announced."""
        words = list(self.engine.spell(task, self.server))
        with self.engine.session(task.ref.database) as session:
            for _tick in self.engine.carry_out(session, task, self.server, None):
                pass
        return words

    def gauge(self, name: str, task: Task, size: int = 0) -> float | None:
        with self.engine.session(task.ref.database) as session:
            return self.engine.gauge(session, name, Step(task, "", size=size))


def use(server: Server, execution: Execution | None = None, **params: Any) -> Used:
    return Used(server, execution or Execution(), **params)


@contextmanager
def client(server: Server, database: str, **more: Any) -> Iterator[Any]:
    """A connection of an application, in autocommit; gives a function that runs one statement and returns its rows."""
    login: dict[str, Any] = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    connection = pymysql.connect(**{**login, "database": database, "autocommit": True, **more})

    def say(statement: str) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    try:
        yield say
    finally:
        connection.close()


def fill(
    server: Server, database: str, table: str, columns: str, values: str, *more: int | str, logged: bool = False
) -> None:
    """Makes a table and its rows: its columns, the values of a row as SQL in which `i` is its number; rows, options.

    Kept out of the binary log, which would cost as much as the table, unless a replica is to have it, too.
    """
    rows, options = [*more, ""][:2]
    names = ", ".join(
        f"`{name}`" for name in re.findall(r"(?:^|, )`?(\w+)`? (?=[a-z])", columns) if name not in ("key", "primary")
    )
    if server.engine == "mariadb":
        source = f"(SELECT seq AS i FROM seq_1_to_{rows}) s"
    else:
        source = f"(WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {rows}) SELECT i FROM s) s"
    with client(server, database) as say:
        if server.engine == "mysql":
            say("SET SESSION cte_max_recursion_depth = 100000000")
        say(f"SET SESSION sql_log_bin = {int(logged)}")
        say(f"CREATE TABLE `{table}` ({columns}) {options}")
        say(f"INSERT INTO `{table}` ({names}) SELECT {values} FROM {source}")


@contextmanager
def mould(server: Server, database: str, table: str) -> Iterator[Callable[[], None]]:
    """Keeps the files of a filled table; gives a function that makes the table anew from them, which filling costs."""
    kept, folder = server.home / f"mould-{secrets.token_hex(4)}", server.data_dir / database
    kept.mkdir()
    with client(server, database) as say:
        say("SET SESSION sql_log_bin = 0")
        say(f"FLUSH TABLES `{table}` FOR EXPORT")
        for kind in ("ibd", "cfg"):
            shutil.copyfile(folder / f"{table}.{kind}", kept / kind)
        say("UNLOCK TABLES")
        made = say(f"SHOW CREATE TABLE `{table}`")[0][1]
        ((rows,),) = say(f"SELECT count(*) FROM `{table}`")

        def again() -> None:
            say(f"DROP TABLE `{table}`")
            say(made)
            say(f"ALTER TABLE `{table}` DISCARD TABLESPACE")
            for kind in ("ibd", "cfg"):
                shutil.copyfile(kept / kind, folder / f"{table}.{kind}")
                give_away(folder / f"{table}.{kind}")
            say(f"ALTER TABLE `{table}` IMPORT TABLESPACE")
            # An import counts some pages only; who has filled a table has counted each row.
            mine = f"database_name = '{database}' AND table_name = '{table}'"
            say(f"UPDATE mysql.innodb_table_stats SET n_rows = {rows} WHERE {mine}")
            say(f"FLUSH TABLES `{table}`")

        yield again
    shutil.rmtree(kept)


def background(work: Callable[[], Any]) -> threading.Thread:
    """Runs something beside the test; what it raises is the caller's to record."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def wait_until(met: Callable[[], Any], *, seconds: float = 20) -> Any:
    """Gives what `met` gives once that is true."""
    until = time.monotonic() + seconds
    while True:
        found = met()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError("what was waited for did not come")
        time.sleep(0.05)


def running(server: Server, words: str) -> list[list[str]]:
    """Statements under way that begin with these words."""
    query = f"SELECT ID, TIME, STATE, INFO FROM information_schema.PROCESSLIST WHERE INFO LIKE '{words}%'"
    return server.sql(query)


def fingerprint(server: Server, database: str) -> list[list[str]]:
    """Structure and content of every table, and the server's statistics of them."""
    names = server.sql(f"SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{database}' ORDER BY 1")
    quoted = ["`" + name.replace("`", "``") + "`" for (name,) in names]
    found = [row for name in quoted for row in server.sql(f"CHECKSUM TABLE {name}", database=database)]
    found += [row for name in quoted for row in server.sql(f"SHOW CREATE TABLE {name}", database=database)]
    return found + server.sql(f"SELECT * FROM mysql.innodb_table_stats WHERE database_name = '{database}' ORDER BY 2")


def small(server: Server, *grants: str) -> dict[str, Any]:
    """An account that may do nothing but what it is granted."""
    server.sql("DROP USER IF EXISTS small@'%'")
    server.sql("CREATE USER small@'%' IDENTIFIED BY 'small-secret'")
    for grant in grants:
        server.sql(f"GRANT {grant} TO small@'%'")
    return {"login_user": "small", "login_password": "small-secret"}
