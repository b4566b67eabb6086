# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine for MySQL and MariaDB: who is asked for what. SQL stands in the files beside this one."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ..._errors import DbFault, Refused, Stopped
from ..._records import Database, Execution, Finding, Ref, Seen, Server, Step, Wants, Work
from ..._tasks import (
    AddKey,
    ConvertEngine,
    CopyBackup,
    CreateIndex,
    Cure,
    DropIndex,
    DropLeftover,
    DropPartition,
    DropSlot,
    Dump,
    EndPrepared,
    EndSession,
    Purge,
    RemoveBackup,
    RemoveFiles,
    Restore,
    Settle,
    Task,
    Verify,
    Widen,
)
from . import activity, bloat, catalog, dictionary, gauges, greeting, guard, maintenance, space
from .connection import Link, answers, is_silence
from .names import quoted
from .options import driver, login
from .privileges import Grants, read_grants

# The dictionary of the whole server serves the first look at every database; a proof reads it anew.
if t.TYPE_CHECKING:
    from ..._health import Health
    from .crew import Crew
    from .dumping import Source
    from .stores import Store
    from .structure import Catalog

FRESH_SECONDS = 30.0
RETENTION = (Purge, DropPartition, Settle, RemoveFiles)
BACKUP = (Dump, Verify, CopyBackup, RemoveBackup, Restore)


class MySQL:
    """MySQL and MariaDB behind the Engine protocol: the server says which of them it is."""

    one_writer = False
    selects = False

    def __init__(self, params: t.Mapping[str, t.Any], execution: Execution) -> None:
        driver()
        self.login, self.execution = login(params), execution
        self._bin_dir = str(params.get("bin_dir") or "")
        self._gauges = gauges.Gauges(self.login, execution)
        self._links: list[Link] = []
        self._opening = 0.0  # time.monotonic() of the first attempt to connect since one had an answer
        self._stopped = False
        self._asking: Link | None = None
        self._lock = threading.Lock()
        self._known: tuple[float, dictionary.Dictionary | None] = (0.0, None)
        self._grants: Grants | None = None
        self._guard: guard.Guard | None = None
        self._crew: Crew | None = None
        self._stores: dict[Ref, Store] = {}  # tables of retention: what the words of their steps repeat
        self._catalogs: dict[str, Catalog] = {}  # by database: what the words of some cures repeat
        self._sources: dict[str, Source] = {}  # by database: what the words of a dump repeat

    def greet(self) -> Server:
        """Reads version, role, clock, databases and what the server lacks. Raises CannotConnect."""
        with self.session("") as link:
            server, self._grants = greeting.greet(link)
        own = {"bin_dir": self._bin_dir, "session_role": self.login.role}
        return server._replace(settings={**server.settings, **own})

    @contextlib.contextmanager
    def session(self, database: str) -> t.Iterator[Link]:
        """A session that no default of the login or the server cuts off. Raises CannotConnect, Busy."""
        link = self._opened(database)
        try:
            yield link
        finally:
            self._forget(link)

    def home(self, task: Task) -> str:
        """In which database the work of a task is done: one that is to be restored is not there, or in the way."""
        return "" if isinstance(task, Restore) else task.ref.database

    def _opened(self, database: str) -> Link:
        if self._stopped:
            raise Stopped("stopped", database=database)
        self._opening = self._opening or time.monotonic()
        try:
            link = Link(self.login, self.execution, database)
        except DbFault as fault:
            self._opening = self._opening if is_silence(fault) else 0.0
            raise
        self._opening = 0.0
        with self._lock:
            self._links.append(link)
        return link

    def _forget(self, link: Link) -> None:
        link.close()
        with self._lock:
            if link in self._links:
                self._links.remove(link)

    def measure(self, session: Link, wants: Wants, server: Server) -> Database:
        """Reads what `wants` asks for of the session's database, and no more. Only reads."""
        name = session.database
        found = Database(name)
        if wants.activity:
            found = found._replace(
                activity=activity.activity(session, server.settings), spaces=space.spaces(session, server.settings)
            )
        if wants.indexes or wants.index_bloat:
            from . import indexes

            found = found._replace(indexes=indexes.read(session, wants, server))
        if wants.structure:
            from . import structure

            whole = found.indexes if not wants.only else ()
            schema, self._catalogs[name] = structure.read(session, server, whole)
            found = found._replace(structure=schema)
        if wants.expired:
            from . import retention

            expired, without, seen = retention.read(session, wants, server, self._grants or read_grants(session))
            for ref, store in seen.items():  # a proof does not read how a table is made
                made_of = store.definition or self._stores.get(ref, store).definition
                self._stores[ref] = store._replace(definition=made_of)
            found = found._replace(expired=expired, without=without)
        if wants.backups and name:
            from . import backup, dumping, restoring, streams

            self._sources[name] = dumping.source(session, name)
            grants = self._grants or read_grants(session)
            known = self._sources[name]
            found = found._replace(bytes=known.bytes, large=streams.large(known, server, grants, name))
            bare = not known.tables and restoring.bare(session, name)
            found = found._replace(wreck=restoring.MARK in known.tables, bare=bare)
            found = found._replace(findings=tuple(backup.findings(session, grants, self._sources[name], server)))
        if not (wants.tables or wants.bloat or wants.index_bloat or wants.leftovers or wants.exact):
            return found
        return self._tables(session, wants, server, found)

    def _tables(self, session: Link, wants: Wants, server: Server, found: Database) -> Database:
        """Adds tables, their bloat, and that of the indexes, which is told by the same look at some rows."""
        from . import index_bloat

        name = session.database
        grants = self._grants or read_grants(session)
        known = self._dictionary(session, server, fresh=bool(wants.only or wants.exact))
        pieces = known.pieces if known else None
        contents = catalog.read(session, wants, pieces, grants)
        running = activity.rebuilds(session)
        seen = bloat.estimates(session, wants, contents, server, index_bloat.tables(found.indexes, wants))
        tables = tuple(
            catalog.table(stored, server, grants, seen.bloat.get(stored.ref), running)
            for stored in (*contents.tables, *contents.partitions)
        )
        findings = [*contents.findings, *seen.findings, *_under_way(running, contents)]
        if known and known.incomplete:
            findings.append(Finding(3, "changes_unknown", Ref(name), known.incomplete))
        findings = [*found.findings, *findings]
        if wants.leftovers and not running:
            findings += _orphans(name, pieces or {}, {stored.base.name for stored in contents.tables})
        its = index_bloat.added(found.indexes, seen.looks, contents, server) if wants.index_bloat else found.indexes
        return found._replace(tables=tables, indexes=its, findings=tuple(findings))

    def _dictionary(self, session: Link, server: Server, *, fresh: bool) -> dictionary.Dictionary | None:
        """None where the login may not see it."""
        page_size = int(server.settings.get("innodb_page_size") or 16384)
        with self._lock:
            read_at, known = self._known
            if fresh or not read_at or time.monotonic() - read_at > FRESH_SECONDS:
                try:
                    known = dictionary.read(session, page_size)
                except Refused:
                    known = None
                self._known = (time.monotonic(), known)
        return known

    def health(self, session: Link, server: Server) -> Health:
        """Reads what concerns the whole server, once. Only reads."""
        from . import health

        return health.read(session, server)

    def gauge(self, session: Link, name: str, step: Step) -> float | None:
        """A reading for a Limit, or None when it cannot be known."""
        return self._gauges.read(session, name, step)

    def spell(self, task: Cure, server: Server) -> t.Sequence[str]:
        """The words of a task: what check mode shows."""
        if isinstance(task, (DropIndex, CreateIndex, EndSession, EndPrepared, DropSlot, Widen, AddKey, ConvertEngine)):
            from . import cures

            return cures.spell(task, server, self._catalogs.get(task.ref.database))
        if isinstance(task, RETENTION) or _is_beside(task):
            from . import retire

            return retire.spell(task, server, self._stores)
        if isinstance(task, BACKUP) or (isinstance(task, DropLeftover) and task.folder):
            from . import backup

            return backup.spell(task, server, self._grants, self._sources.get(task.ref.database))
        return maintenance.act_of(task)[0](task, server)

    def carry_out(self, session: Link, task: Task, server: Server, cursor: str | None) -> Work:
        """And what runs, by the same words. Raises Busy, Gone, Refused, Stopped."""
        if self._guard:
            self._guard.assure()
        if isinstance(task, RETENTION) or _is_beside(task):
            from . import crew, retire

            with self._lock:
                self._crew = self._crew or crew.Crew(lambda: self._opened(""), self._forget, self.execution.jobs)
            return retire.carry_out(session, task, server, cursor, self._crew)
        if isinstance(task, BACKUP) or (isinstance(task, DropLeftover) and task.folder):
            from . import backup

            return backup.carry_out(session, task, server, self._grants or read_grants(session))
        return maintenance.act_of(task)[1](session, task, server, cursor)

    @contextlib.contextmanager
    def guard(self, databases: t.Sequence[str], wait: float) -> t.Iterator[None]:
        """Holds the lock of the one writing run for these databases. Raises Held after `wait` seconds."""
        held = guard.Guard(lambda: self._opened(""), self._forget, databases)
        try:
            held.take(wait)
            with self._lock:
                self._known = (0.0, None)  # the run that held the guard until now has changed the files
            self._guard = held
            yield
        finally:
            self._guard = None
            held.release()

    def progress(self, working: t.Mapping[int, tuple[Link, Task]], server: Server) -> dict[int, Seen]:
        """How far steps are that run in these sessions. The session that asks stays open until the end."""
        from . import progress

        asking, self._asking = self._asking or self._opened(""), None
        try:
            found = progress.seen(asking, {link.id: place for place, (link, _task) in working.items()})
        except DbFault:
            self._forget(asking)
            raise
        self._asking = asking
        return found

    def silence(self) -> float:
        asked = [moment for moment in (self._opening, *(link.asked for link in list(self._links))) if moment]
        return time.monotonic() - min(asked) if asked else 0.0

    def answers(self) -> bool:
        return answers(self.login)

    def cancel(self) -> None:
        self._stopped = True
        for link in list(self._links):
            link.cancel()

    def close(self) -> None:
        """Ends every session that is still open."""
        self._gauges.close()
        with self._lock:
            open_links = list(self._links)
        for link in open_links:
            with contextlib.suppress(DbFault):
                link.close()


def _is_beside(task: Cure) -> bool:
    """Whether it is wreckage of retention, and not of backups."""
    return isinstance(task, DropLeftover) and not task.folder


def _under_way(running: t.Sequence[activity.Running], contents: catalog.Contents) -> t.Iterator[Finding]:
    for other in running:
        for stored in contents.tables:
            if other.touches(stored.ref):
                message = f"connection {other.id} has been rebuilding it for {other.seconds:.0f} s, maybe of a dead run"
                yield Finding(2, "rebuild_running", stored.ref, message, fix=f"Wait for it, or KILL {other.id}")


def _orphans(
    database: str, pieces: t.Mapping[str, t.Sequence[dictionary.Piece]], tables: t.Collection[str]
) -> t.Iterator[Finding]:
    """Half-made tables of ALTERs during which the server died.

    MySQL 8 and MariaDB 10.6 undo them when they start again; what older servers left behind only who knows that nobody
    needs it can drop. A user's own table may be called so, too.
    """
    found = [p for p in pieces.get(database, ()) if p.name.startswith("#sql") and p.name not in tables]
    if found:
        size = sum(piece.bytes for piece in found)
        message = (
            f"{len(found)} half-made tables of dead ALTERs take {size:,} bytes: {', '.join(p.name for p in found)}"
        )
        fix = f"DROP TABLE {quoted(database, '#mysql50#' + found[0].name)}"
        yield Finding(3, "orphan_table", Ref(database), message, fix=fix)
