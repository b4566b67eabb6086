# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SQLite engine: files as databases. Thin: each room beside this file knows its own matter. No threshold."""

from __future__ import annotations

import sqlite3
import typing as t
from contextlib import contextmanager
from datetime import datetime

from ..._errors import DbFault, MissingMeans, Refused
from ..._records import Database, DatabaseInfo, Execution, Server, Step, Wants, Work
from ..._tasks import (
    AddKey,
    ConvertEngine,
    CopyBackup,
    CreateIndex,
    Cure,
    DropIndex,
    DropLeftover,
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
from ..addresses import of_sqlite
from . import guard, maintenance
from .activity import is_hot
from .catalog import Header, header
from .connection import Kept, Session
from .files import Selection, device_of, on_disk
from .measure import measure

if t.TYPE_CHECKING:
    from ..._health import Health
    from .retiring import Known
    from .structure import Catalog

_LACKS = {
    "vacuum": "SQLite keeps no dead rows: a deleted row's space is reused at once",
    "freeze": "SQLite has no transaction ids",
    "cost delay": "SQLite cannot be slowed down",
    "refresh": "there are no materialized views",
    "physical": "a dump is the file itself, page for page",
    "pgbackrest": "that is for PostgreSQL",
    "incremental": "that is for PostgreSQL",
    "drill elsewhere": "a drill needs no server: name a folder",
    "globals": "nothing belongs to no file",
    "exclude": "a file is backed up as a whole",
}


class SQLite:
    """Every file that the option `databases` asks for. Raises BadInput, MissingMeans."""

    selects = True
    one_writer = True

    def __init__(self, params: t.Mapping[str, t.Any], execution: Execution) -> None:
        if sqlite3.sqlite_version_info < (3, 34):
            cure = "Use a Python that is built with SQLite 3.34 or newer (ansible_python_interpreter)"
            raise MissingMeans(f"SQLite {sqlite3.sqlite_version} is too old", cure=cure)
        # A restore looks at no file but the one that it makes.
        named = (params.get(name) for name in ("target", "database", "path"))
        self._made = str(next(filter(None, named), "")) if "which" in params else ""
        self.selection = Selection([self._made] if self._made else params.get("databases") or [])
        self.execution = execution
        self._sessions: set[Session] = set()
        self._stopped = False
        self._kept = Kept()
        self._found: Known | None = None
        self._catalogs: dict[str, Catalog] = {}  # by file: what the words of some cures repeat

    def greet(self) -> Server:
        """Finds the files and looks into each. Raises BadInput for a named file that is not there."""
        import socket

        found = self.selection.find_any() if self._made else self.selection.find()
        heads: dict[str, Header] = {}
        infos = [self._info(path, heads) for path in found.paths]
        return Server(
            engine="sqlite",
            version=sqlite3.sqlite_version,
            number=sqlite3.sqlite_version_info,
            address=of_sqlite(),
            role="primary",
            now=datetime.now().astimezone(),
            databases=(DatabaseInfo(""), *(i._replace(system=True) for i in infos)) if self._made else tuple(infos),
            lacks=_LACKS,
            settings={
                "files": heads,
                "identity": {path: f"sqlite:{socket.gethostname()}:{path}" for path in ("", *found.paths)},
                "device": {path: device_of(path) for path in found.paths},
                # A copy of the file stands in the backup folder while it is checked.
                "backup_scratch": {path: on_disk(path) for path in found.paths},
            },
            findings=found.findings,
        )

    def _info(self, path: str, heads: dict[str, Header]) -> DatabaseInfo:
        """A file that cannot be read keeps nobody from the others."""
        try:
            with self.session(path) as session:
                heads[path] = session.read(header)
        except Refused as fault:
            if not is_hot(path, fault.cause):
                return DatabaseInfo(path, on_disk(path), why_not=_why(fault))
        except DbFault as fault:
            return DatabaseInfo(path, on_disk(path), why_not=_why(fault))
        return DatabaseInfo(path, on_disk(path))

    @contextmanager
    def session(self, database: str) -> t.Iterator[Session]:
        session = Session(database, self.execution.lock_timeout, self._kept)
        self._sessions.add(session)
        if self._stopped:
            session.cancel()
        try:
            yield session
        finally:
            self._sessions.discard(session)
            session.close()

    def home(self, task: Task) -> str:
        """The file that is to be restored need not be there."""
        return "" if isinstance(task, Restore) else task.ref.database

    def measure(self, session: Session, wants: Wants, server: Server) -> Database:
        if not session.database:
            return Database("")  # no file: where there is none yet
        found = measure(session, wants, server)
        if wants.expired:
            from . import retention

            found = retention.measured(session, wants, found, self._known(), may_write=self._kept.on)
        if not wants.structure:
            return found
        from . import structure

        found, self._catalogs[session.database] = structure.measured(session, found)
        return found

    def _known(self) -> Known:
        """What rules found, for the words of their steps."""
        if self._found is None:
            from .retiring import Known

            self._found = Known()
        return self._found

    def health(self, session: Session, server: Server) -> Health:
        """Reads what concerns all of the engine, once. Only reads."""
        from . import health

        return health.read(session, server)

    def gauge(self, session: Session, name: str, step: Step) -> float | None:
        return maintenance.gauge(session, name, step)

    def spell(self, task: Cure, server: Server) -> t.Sequence[str]:
        if isinstance(task, (DropIndex, CreateIndex, EndSession, EndPrepared, DropSlot, Widen, AddKey, ConvertEngine)):
            from . import cures

            return cures.spell(task, server, self._catalogs.get(task.ref.database))
        if isinstance(task, (Purge, Settle, RemoveFiles)):
            from . import retiring

            return retiring.spell(task, self._known())
        if _of_backups(task):
            from . import backup

            return backup.spell(task)
        return maintenance.spell(task, server)

    def carry_out(self, session: Session, task: Task, server: Server, cursor: str | None) -> Work:
        if isinstance(task, (Purge, Settle, RemoveFiles)):
            from . import retiring

            return retiring.carry_out(session, task, server, cursor)
        if _of_backups(task):
            from . import backup

            return backup.carry_out(session, task, server)
        return maintenance.carry_out(session, task, server, cursor)

    @contextmanager
    def guard(self, databases: t.Sequence[str], wait: float) -> t.Iterator[None]:
        with guard.guard(databases, wait):
            self._kept.on = True
            try:
                yield
            finally:
                self._kept.close()

    def silence(self) -> float:
        return 0.0

    def answers(self) -> bool:
        return True

    def cancel(self) -> None:
        self._stopped = True
        for session in list(self._sessions):
            session.cancel()

    def close(self) -> None:
        for session in list(self._sessions):
            session.close()


def _of_backups(task: Cure) -> bool:
    backups = (Dump, Verify, CopyBackup, RemoveBackup, Restore)
    return isinstance(task, backups) or (isinstance(task, DropLeftover) and bool(task.folder))


def _why(fault: DbFault) -> str:
    return fault.cause + (f". {fault.cure}" if fault.cure else "")
