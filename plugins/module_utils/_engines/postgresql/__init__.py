# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine for PostgreSQL: who is asked for what. SQL stands in the files beside this one."""

from __future__ import annotations

import contextlib
import typing as t

from ..._records import (
    Analyze,
    CannotConnect,
    Database,
    DropLeftover,
    Execution,
    Gone,
    Rebuild,
    Refused,
    Server,
    Step,
    Task,
    Vacuum,
    Wants,
    Work,
)
from . import driver, greeting, maintenance, measure, options
from .connection import Connection, Connector, Kind, Pool, Session, reachable
from .guard import Guard
from .versions import has


class PostgreSQL:
    """PostgreSQL behind the Engine protocol."""

    one_writer = False
    selects = False

    def __init__(self, params: t.Mapping[str, t.Any], execution: Execution) -> None:
        driver.load()
        self.execution = execution
        self._allow_untested = bool(params.get("allow_untested"))
        self._connector = Connector(options.login(params))
        self._pool = Pool(self._connector)
        self._server: Server | None = None
        self._guard: Guard | None = None

    @property
    def _home(self) -> list[str]:
        """Databases for what concerns the whole server, in order of preference: the same ones for every run."""
        return [options.DEFAULT_DATABASE, self._connector.login.database, "template1"]

    def greet(self) -> Server:
        """Reads version, role, clock, databases and what the server lacks. Raises CannotConnect, Refused."""
        try:
            self._server = self._greet()
        except Gone:
            # The first connection knows no version yet: a transaction_timeout of a millisecond can cut it off.
            self._server = self._greet()
        return self._server

    def _greet(self) -> Server:
        connection = self._pool.take(self._connector.login.database, self._reading)
        try:
            return greeting.greet(
                connection, address=self._connector.login.address, allow_untested=self._allow_untested
            )
        finally:
            self._pool.give_back(connection)

    @property
    def _reading(self) -> Kind:
        return Kind(True, self.execution.lock_timeout)

    @contextlib.contextmanager
    def session(self, database: str) -> t.Iterator[Session]:
        """A session that no default of the login or the database cuts off. Raises CannotConnect."""
        session = Session(self._pool, database, self.execution.lock_timeout)
        try:
            yield session
        finally:
            session.end()

    def measure(self, session: Session, wants: Wants, server: Server) -> Database:
        """Reads what `wants` asks for of the session's database, and no more. Only reads."""
        return measure.database(session, wants, server)

    def gauge(self, session: Session, name: str, step: Step) -> float | None:
        """A reading for a Limit, or None when it cannot be known."""
        return None

    def spell(self, task: Task, server: Server) -> t.Sequence[str]:
        """The words of a task: what check mode shows."""
        if isinstance(task, Vacuum):
            return maintenance.spell_vacuum(task, server)
        if isinstance(task, Analyze):
            return maintenance.spell_analyze(task, server)
        if isinstance(task, Rebuild) and not task.online:
            return maintenance.spell_full(task, server)
        raise Refused(f"PostgreSQL knows no way to carry out {task.kind}")

    def carry_out(self, session: Session, task: Task, server: Server, cursor: str | None) -> Work:
        """And what runs, by the same words. Raises Busy, Gone, Refused, Stopped."""
        if self._guard:
            self._guard.assure()
        words = self.spell(task, server)
        if isinstance(task, (Vacuum, Analyze)):
            return maintenance.plain(session, task, server, words)
        return maintenance.full(session, task, server, words)

    @contextlib.contextmanager
    def guard(self, databases: t.Sequence[str], wait: float) -> t.Iterator[None]:
        """Holds the lock of the one writing run for these databases. Raises Held after `wait` seconds."""
        held = Guard(self._guard_connection, databases)
        try:
            held.take(wait)
            self._guard = held
            yield
        finally:
            self._guard = None
            held.release()

    def _guard_connection(self) -> Connection:
        return reachable(self._pool, self._home, self._reading)

    def close(self) -> None:
        """Ends every session that is still open."""
        self._pool.close()
