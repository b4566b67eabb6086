# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PostgreSQL engine as its tests use it: opened on a server, measured, told what to do. No test lives here."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg2

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import PostgreSQL
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Database,
    Execution,
    Leftover,
    Ref,
    Step,
    Table,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Task
from tests.fleet import Server

from .module_runner import LATE

ALL = Wants(tables=True, bloat=True, leftovers=True, activity=True)
READ = re.compile(r"\s*(SELECT|SHOW|WITH)\b", re.IGNORECASE)


class Used:
    """An engine that has greeted its server."""

    def __init__(self, server: Server, execution: Execution, **params: Any) -> None:
        self.engine = PostgreSQL({**server.login(), **params}, execution)
        self.server = self.engine.greet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *what: object) -> None:
        self.engine.close()

    def measure(self, database: str, wants: Wants = ALL) -> Database:
        time.sleep(LATE)
        with self.engine.session(database) as session:
            return self.engine.measure(session, wants, self.server)

    def table(self, database: str, name: str, wants: Wants = ALL, *, schema: str = "public") -> Table:
        ref = Ref(database, (schema, name))
        (found,) = [x for x in self.measure(database, wants._replace(only=(ref,))).tables if x.ref == ref]
        return found

    def leftovers(self, database: str) -> tuple[Leftover, ...]:
        return self.measure(database, Wants(leftovers=True)).leftovers

    def carry_out(self, task: Task) -> list[str]:
        """Returns the words that were announced."""
        words = list(self.engine.spell(task, self.server))
        with self.engine.session(self.engine.home(task)) as session:
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
    """A connection of an application, in autocommit; says what it likes."""
    connection = psycopg2.connect(
        host=server.host,
        port=server.port,
        user=more.pop("user", server.user),
        password=more.pop("password", server.password),
        dbname=database,
        application_name=more.pop("application_name", "shop"),
        **more,
    )
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


@contextmanager
def transaction(server: Server, database: str, *statements: str, isolation: str = "READ COMMITTED") -> Iterator[Any]:
    """An open transaction of an application that has executed these."""
    with client(server, database) as cursor:
        cursor.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        for statement in statements:
            cursor.execute(statement)
        yield cursor


def writes(server: Server) -> list[str]:
    """What was said to the server since the mark, besides reads and besides what the tests said themselves."""
    return [
        said.statement
        for said in server.logged()
        if said.application not in ("fleet", "shop", "pg_repack") and not READ.match(said.statement)
    ]


@contextmanager
def role(server: Server, name: str, *grants: str, database: str = "postgres") -> Iterator[dict[str, Any]]:
    """A login of few privileges; gone at the end."""
    password = "hidden-from-all-logs"
    server.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    try:
        for grant in grants:
            server.sql(grant, database=database)
        yield {"login_user": name, "login_password": password}
    finally:
        server.sql(f"DROP OWNED BY {name}", database=database)
        server.sql(f"DROP OWNED BY {name}")
        server.sql(f"DROP ROLE {name}")


def later(seconds: float, what: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, what)
    timer.start()
    return timer
