# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions of MySQL and MariaDB that wait for each other, and what is found of them. No test lives here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pymysql

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import MySQL
from ansible_collections.dbfleet.maintenance.plugins.module_utils._health import Backend, Health
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution
from tests.fleet import Server

from .advising import Advice, advise
from .my import background, use, wait_until

Make = Callable[[Server], str]


def health(server: Server, **login: Any) -> Health:
    with use(server, **login) as used, used.engine.session("") as session:
        return used.engine.health(session, used.server)


def advice(server: Server, database: str, **options: Any) -> Advice:
    return advise(MySQL(server.login(), Execution()), [database], **options)


class People:
    """Sessions of applications that wait for each other; all are gone at the end."""

    def __init__(self, server: Server, database: str) -> None:
        self.server, self.database = server, database
        self.open: list[Any] = []

    def join(self, *statements: str, waits: bool = False) -> int:
        """Runs these in one transaction; with `waits` the last one is not waited for."""
        login: dict[str, Any] = {"user": self.server.user, "password": self.server.password}
        link = pymysql.connect(
            host=self.server.host, port=self.server.port, database=self.database, autocommit=False, **login
        )
        self.open.append(link)
        cursor: Any = link.cursor()
        cursor.execute("SELECT CONNECTION_ID()")
        thread = int(cursor.fetchone()[0])
        for statement in statements[: -1 if waits else None]:
            cursor.execute(statement)
        if waits:
            background(lambda: self._quietly(cursor, statements[-1]))
            wait_until(lambda: self._at_it(thread))
        return thread

    def _quietly(self, cursor: Any, statement: str) -> None:
        with contextlib.suppress(Exception):  # it is killed in the end
            cursor.execute(statement)

    def _at_it(self, thread: int) -> bool:
        query = f"SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {thread} AND COMMAND = 'Query'"
        return bool(self.server.sql(query))

    def leave(self) -> None:
        for link in self.open:
            with contextlib.suppress(Exception):
                self.server.sql(f"KILL {link.thread_id()}")
            with contextlib.suppress(Exception):
                link.close()


def by_id(found: Health) -> dict[int, Backend]:
    assert found.backends is not None
    return {backend.id: backend for backend in found.backends}


def chained(server: Server, *waiting: int) -> dict[int, Backend] | None:
    found = by_id(health(server))
    return found if all(found.get(x) and found[x].blocked_by for x in waiting) else None


def gathering() -> Iterator[Callable[[Server, str], People]]:
    """The body of a fixture: makes people, and sends all of them away at the end."""
    made: list[People] = []

    def make(server: Server, database: str) -> People:
        made.append(People(server, database))
        return made[-1]

    yield make
    for some in made:
        some.leave()
