# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine for PostgreSQL: who is asked for what. SQL stands in the files beside this one."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from ..._errors import Gone, Refused
from ..._records import Database, Execution, Finding, Seen, Server, Step, Wants, Work
from ..._tasks import (
    Analyze,
    CopyBackup,
    Cure,
    DropLeftover,
    DropPartition,
    Dump,
    Purge,
    Rebuild,
    RefreshCollation,
    RefreshView,
    Reindex,
    RemoveBackup,
    RemoveFiles,
    Restore,
    Settle,
    Task,
    Vacuum,
    Verify,
)
from . import activity, driver, greeting, means, measure, options, space
from .connection import Connection, Connector, Kind
from .pool import Pool, reachable
from .session import Session
from .versions import has, major_of

if t.TYPE_CHECKING:
    from ..._backups import Repository
    from ..._health import Health
    from .dumping import Room
    from .guard import Guard
    from .replicas import Replicas
    from .retention import Memory


def _of_retention(task: Cure) -> bool:
    """Asked before retention.py and all that it needs is imported."""
    return isinstance(task, (Purge, DropPartition, Settle, RemoveFiles)) or (
        isinstance(task, DropLeftover) and task.what == "detach"
    )


def _of_backups(task: Cure) -> bool:
    return isinstance(task, (Dump, Verify, CopyBackup, RemoveBackup, Restore)) or (
        isinstance(task, DropLeftover) and bool(task.folder)
    )


class PostgreSQL:
    """PostgreSQL behind the Engine protocol. What only a run with something to do needs is imported then."""

    one_writer = False
    selects = False

    def __init__(self, params: t.Mapping[str, t.Any], execution: Execution) -> None:
        driver.load()
        self.execution = execution
        self._allow_untested = bool(params.get("allow_untested"))
        self._backs_up = "min_interval" in params  # only then are the sizes of databases worth a look at their files
        self._bin_dir = str(params.get("bin_dir") or "")
        self._connector = Connector(options.login(params))
        self._pool = Pool(self._connector)
        self._replicas: Replicas | None = None
        self._settings: t.Mapping[str, t.Any] = {}
        self._means: dict[str, means.Means] = {}  # by database
        self._guard: Guard | None = None
        self._seen: Memory = {}  # tables that rows leave, as they were measured: the words of their steps
        self._asking = threading.Lock()
        self._repository: tuple[Repository, tuple[Finding, ...]] | None = None  # what pgBackRest keeps
        self._statements: dict[str, tuple[str, bool]] = {}  # by database that has pg_stat_statements: where it stands

    @property
    def _reading(self) -> Kind:
        return Kind(True, self.execution.lock_timeout)

    def greet(self) -> Server:
        """Reads version, role, clock, databases and what the server lacks. Raises CannotConnect, Refused."""
        try:
            server = self._greet()
        except Gone:
            # The first connection knows no version yet: a transaction_timeout of a millisecond can cut it off.
            server = self._greet()
        self._settings = server.settings
        return server

    def _greet(self) -> Server:
        with self._lent(self._connector.login.database) as connection:
            address = self._connector.login.address
            server = greeting.greet(
                connection, address=address, allow_untested=self._allow_untested, sizes=self._backs_up
            )
            timeouts = ("idle_session_timeout", "transaction_timeout")
            connection.brief = any(server.settings.get(name, "0") != "0" for name in timeouts)
            return server

    @contextlib.contextmanager
    def _lent(self, database: str) -> t.Iterator[Connection]:
        connection = self._pool.take(database, self._reading)
        try:
            yield connection
        finally:
            self._pool.give_back(connection)

    @contextlib.contextmanager
    def session(self, database: str) -> t.Iterator[Session]:
        """A session that no default of the login or the database cuts off; "" is the server. Raises CannotConnect."""
        session = Session(self._pool, database or self._connector.login.database, self.execution.lock_timeout)
        try:
            yield session
        finally:
            session.end()

    def home(self, task: Task) -> str:
        """In which database the work of a task is done: one that is to be restored is not there, or in the way."""
        return "" if isinstance(task, Restore) else task.ref.database

    @property
    def _room(self) -> Room:
        from .dumping import Room

        return Room(self._connector, self.execution.concurrent_wait, self._bin_dir)

    def measure(self, session: Session, wants: Wants, server: Server) -> Database:
        """Reads what `wants` asks for of the session's database, and no more. Only reads."""
        rebuilding = self._means_of(session, server) if wants.bloat or wants.exact else means.Means()
        if wants.health:
            from . import sessions

            found = sessions.extension(session)
            if found:
                self._statements[session.database] = found
        measured = measure.database(session, wants, server, rebuilding)
        if wants.backups:
            measured = self._of_backups(session, wants, server, measured)
        if wants.expired:
            from . import retention

            rows, without = retention.read(session, wants, server, self._seen)
            measured = measured._replace(expired=rows, without=without)
        return measured

    def _of_backups(self, session: Session, wants: Wants, server: Server, measured: Database) -> Database:
        """What backups need, and what pgBackRest keeps: asked once, and again for a proof."""
        if wants.backups is None or wants.backups.stanza is None:
            from . import backup

            return measured._replace(findings=(*measured.findings, *backup.findings(session, server, self._room)))
        from . import pgbackrest

        with self._asking:
            if wants.only or self._repository is None:
                repository, found = pgbackrest.repository(server, wants.backups.stanza)
                self._repository = repository, (*found, *pgbackrest.archiver(session))
        repository, findings = self._repository
        return measured._replace(findings=(*measured.findings, *findings), repository=repository)

    def _means_of(self, session: Session, server: Server) -> means.Means:
        if session.database not in self._means:
            self._means[session.database] = means.of_database(session, server)
        return self._means[session.database]

    def health(self, session: Session, server: Server) -> Health:
        """Reads what concerns the whole server, once. Only reads."""
        from . import health, sessions

        for database, (schema, modern) in sorted(self._statements.items()):
            with self.session(database) as there:
                return health.read(session, server, sessions.Statements(there, schema, modern))
        return health.read(session, server, None)

    def gauge(self, session: Session, name: str, step: Step) -> float | None:
        """A reading for a Limit, or None when it cannot be known."""
        if name == "oldest_snapshot":
            return activity.oldest_snapshot(session, self._settings)
        if name == "replica_lag":
            return self._lag(session)
        if name == "wal_backlog":
            from . import backlog

            return backlog.read(session, self._settings)
        if name in ("disk_missing", "wal_missing", "tmp_missing"):
            return space.missing(session, name, step, self._settings, self.execution.assume_free_space)
        return None

    def _lag(self, session: Session) -> float | None:
        from .replicas import Replicas

        self._replicas = self._replicas or Replicas(self._connector.login, self.execution.replicas)
        return self._replicas.lag(session, int(self._settings["wal_segment_size"]))

    def spell(self, task: Cure, server: Server) -> t.Sequence[str]:
        """The words of a task: what check mode shows."""
        if _of_backups(task):
            from . import backup

            return backup.spell(task, server, self._room)
        from . import leftovers, maintenance, repack

        if isinstance(task, Vacuum):
            return maintenance.spell_vacuum(task, server)
        if isinstance(task, Analyze):
            return maintenance.spell_analyze(task, server)
        if isinstance(task, DropLeftover) and task.what == leftovers.REPACK:
            return leftovers.spell_drop(task, server)
        if isinstance(task, Rebuild):
            online = task.online
            return repack.spell(self._argv(task), task.ref, server) if online else maintenance.spell_full(task, server)
        return self._spell_more(task, server)

    def _spell_more(self, task: Cure, server: Server) -> t.Sequence[str]:
        if _of_retention(task):
            from . import retention

            return retention.spell(task, server, self._seen)
        from . import cures, reindex, views

        if isinstance(task, (Reindex, RefreshCollation, DropLeftover)):
            return reindex.spell(task, server)
        if isinstance(task, RefreshView):
            return views.spell(task, server)
        return cures.spell(task, server)

    def _argv(self, task: Rebuild) -> list[str]:
        from . import repack

        rebuilding = self._means.get(task.ref.database, means.Means())
        return repack.argv(task.ref, self._connector, rebuilding, self.execution.lock_timeout)

    def carry_out(self, session: Session, task: Task, server: Server, cursor: str | None) -> Work:
        """And what runs, by the same words. Raises Busy, Gone, Refused, Stopped."""
        from . import leftovers, maintenance

        if _of_backups(task):
            return self._back_up(session, task, server)
        self._assure(server, task, ("write", "session"))
        if _of_retention(task):
            from . import retention

            return retention.carry_out(session, task, server, cursor, self.execution.concurrent_wait)
        if isinstance(task, Rebuild) and task.online:
            return self._rebuild_online(session, task, server)
        words = self.spell(task, server)
        if isinstance(task, (Reindex, RefreshCollation, RefreshView)) or (
            isinstance(task, DropLeftover) and task.what != leftovers.REPACK
        ):
            return self._carry_out_more(session, task, server, words)
        if isinstance(task, DropLeftover):
            return leftovers.drop(session, task, server, words)
        if isinstance(task, Rebuild):
            return maintenance.full(session, task, server, words)
        if isinstance(task, (Vacuum, Analyze)):
            return maintenance.plain(session, task, server, words)
        raise Refused(f"{task.kind} is not known here", database=session.database, obj=str(task.ref))

    def _assure(self, server: Server, task: Task, capabilities: t.Sequence[str]) -> None:
        for capability in capabilities:
            if capability in server.lacks:
                raise Refused(server.lacks[capability], database=task.ref.database, obj=str(task.ref))
        if self._guard:
            self._guard.assure()

    def _back_up(self, session: Session, task: Task, server: Server) -> Work:
        from . import backup

        reads = ("session",) if isinstance(task, Dump) else ()
        self._assure(server, task, ("write", "session") if isinstance(task, Restore) else reads)
        return backup.carry_out(session, task, server, self._room)

    def _carry_out_more(
        self,
        session: Session,
        task: Reindex | RefreshCollation | RefreshView | DropLeftover,
        server: Server,
        words: t.Sequence[str],
    ) -> Work:
        from . import reindex, views

        if isinstance(task, RefreshView):
            return views.refresh(session, task, server, words, self.execution.concurrent_wait)
        return reindex.carry_out(session, task, server, words, self.execution.concurrent_wait)

    def _rebuild_online(self, session: Session, task: Rebuild, server: Server) -> Work:
        from . import repack

        rebuilding = self._means_of(session, server)
        if rebuilding.why_not:
            raise Refused(rebuilding.why_not, database=session.database, obj=str(task.ref))
        if has("repack", major_of(server)):
            return repack.by_statement(session, task, server, self.spell(task, server))
        return repack.repack(session, task, server, self._argv(task), self._connector)

    @contextlib.contextmanager
    def guard(self, databases: t.Sequence[str], wait: float) -> t.Iterator[None]:
        """Holds the lock of the one writing run for these databases. Raises Held after `wait` seconds."""
        from .guard import Guard

        # All runs must meet in one database, since the locks are that database's own.
        home = [options.DEFAULT_DATABASE, self._connector.login.database, "template1"]
        held = Guard(lambda: reachable(self._pool, home, self._reading), self._connector.forget, databases)
        try:
            held.take(wait)
            self._guard = held
            yield
        finally:
            self._guard = None
            held.release()

    def progress(self, working: t.Mapping[int, tuple[Session, Task]], server: Server) -> dict[int, Seen]:
        """How far steps are that run in these sessions. Where no connection is left for the question, nothing."""
        from . import progress
        from .dumping import APPLICATION

        connection = self._pool.spare(self._connector.login.database, self._reading)
        if connection is None:
            return {}
        try:
            pids = {pid: place for place, (session, _task) in working.items() for pid in session.own_pids}
            found = progress.seen(connection, pids, major_of(server))
            for place, (_session, task) in working.items():
                copying = isinstance(task, Dump) and task.method == "physical"
                streamed = progress.streaming(connection, APPLICATION) if copying else None
                found.update({place: streamed} if streamed else {})
            return found
        finally:
            self._pool.give_back(connection)

    def silence(self) -> float:
        return self._connector.silence()

    def answers(self) -> bool:
        return self._connector.answers()

    def cancel(self) -> None:
        self._connector.cancel()

    def close(self) -> None:
        """Ends every session that is still open."""
        self._pool.close()
        if self._replicas:
            self._replicas.close()
