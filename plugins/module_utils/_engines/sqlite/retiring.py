# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks of a cleanup, spelled and carried out: purge, settle, remove files. A bite itself is purge.py."""

from __future__ import annotations

import os
import sqlite3
import time
import typing as t
from contextlib import contextmanager

from ..._errors import Refused, Vanished
from ..._records import Ref, Server, Tick, Work
from ..._tasks import Purge, RemoveFiles, Settle
from .. import nibble
from . import sources
from .connection import Session
from .doubts import Doubts
from .purge import Bites
from .sources import Source

if t.TYPE_CHECKING:
    from ..._files.shelf import Shelf

# Whoever waits for the lock looks again every 100 ms at the latest (sqlite3_busy_timeout), and nobody queues: without a
# pause between two bites the application could find the file locked each time, until its patience ends.
_PAUSE = 0.1
_SYNCHRONOUS = 3  # EXTRA: a commit outlives a loss of power, also where its journal is only deleted


class Known:
    """What was read of the files' tables: the words of a task repeat it, also after it has been carried out."""

    def __init__(self) -> None:
        self._sources: dict[Ref, Source] = {}
        self._depots: dict[tuple[Ref, str], tuple[str, ...]] = {}

    def learn(self, ref: Ref, source: Source) -> None:
        self._sources[ref] = source

    def learn_depot(self, ref: Ref, to: str, statements: tuple[str, ...]) -> None:
        """The proof of a step finds its archive table made."""
        self._depots[ref, to] = statements or self._depots.get((ref, to), ())

    def words(self, task: Purge) -> list[str]:
        source = self._sources.get(task.ref)
        if source is None or source.walk is None:
            return []
        # The same table, by the dates of this task.
        source = source._replace(dates=type(source.dates)(task.expiry, source.dates.name))
        found = list(self._depots.get((task.ref, task.to.path[-1]), ())) if task.to else []
        return found + _spelled(task, source)


def _spelled(task: Purge, source: Source) -> list[str]:
    walk = source.walk
    if walk is None:
        return []
    if sources.plain(task, source):
        return [sources.delete_due(source, walk)]
    tables = source.family.tables if task.children else [source.shape]
    root = len(tables) - 1
    out = [sources.take_due(source, walk, root)]
    into = {child.table.path[-1]: child.to.path[-1] for child in task.children if child.archived and child.to}
    if task.to:
        into[source.shape.name] = task.to.path[-1]
    for number in reversed(range(root)):
        hanging = [h for h in source.family.hanging if h.shape is tables[number] and not h.child.circular]
        out += [sources.take_hanging(tables, one) for one in hanging]
    out += [sources.copy(shape, n, into[shape.name]) for n, shape in enumerate(tables) if shape.name in into]
    return out + [sources.delete_set(shape, n) for n, shape in enumerate(tables)]


def spell(task: Purge | Settle | RemoveFiles, known: Known) -> list[str]:
    """Statements, and files that are written or removed, as comments."""
    if isinstance(task, Purge):
        folder = task.archive.folder if task.archive else ""
        return [*([f"-- archive into {folder}"] if folder else []), *known.words(task)]
    if isinstance(task, Settle):
        return [f"-- finish {file}" for file in task.files]
    return [f"-- remove {file}" for file in task.files]


# ---- carried out -----------------------------------------------------------------------------------------------------


def carry_out(session: Session, task: Purge | Settle | RemoveFiles, server: Server, cursor: str | None) -> Work:
    """Raises Busy, Gone, Refused, Vanished, Stopped."""
    if isinstance(task, Purge):
        return _purge(session, task, server, cursor)
    return _settle(session, task) if isinstance(task, Settle) else _remove(task)


def _purge(session: Session, task: Purge, server: Server, cursor: str | None) -> Work:
    shelf = _shelf(task, server)
    with session.write() as db, _set_up(db, durable=shelf is not None):
        source = sources.read(db, session.database, task.expiry._replace(table=task.ref.path[-1]))
        if source is None:
            raise Vanished("it is not there any more", database=session.database, obj=str(task.ref))
        if isinstance(source, sources.Unfit):
            raise Refused(source.why, database=session.database, obj=str(task.ref), cure=source.cure)
        bites = Bites(session, db, task, source)
        if shelf and task.archive:
            from ..._files.shelf import wrecks

            # Those of an earlier attempt, too: its rows must not be taken again before it is known where they are.
            nibble.settle(bites, wrecks(task.archive.folder, identity(task.ref), task.rule))
        bites.make_depots()
        yield from _kindly(nibble.nibble(bites, task, shelf, bites.checked(cursor)))


def _settle(session: Session, task: Settle) -> Work:
    from ..._files.shelf import wrecks

    with session.write() as db, _set_up(db, durable=False):
        source = sources.read(db, session.database, task.expiry._replace(table=task.ref.path[-1], where=""))
        if isinstance(source, sources.Unfit):
            source = None  # its rows are not there
        doubts = Doubts(session, db, source)
        nibble.settle(doubts, wrecks(task.archive.folder, identity(task.ref), task.rule))
    yield Tick(cursor="done")


def _remove(task: RemoveFiles) -> Work:
    from ..._files.shelf import remove

    yield Tick(remove(task.files), cursor="done")


def _kindly(work: Work) -> Work:
    """Half as long as a bite took, the file is the application's."""
    tick = next(work, None)
    try:
        while tick is not None:
            pace = yield tick
            time.sleep(min(_PAUSE, tick.amount.seconds / 2))
            try:
                tick = work.send(pace)
            except StopIteration:
                return
    finally:
        work.close()


@contextmanager
def _set_up(db: sqlite3.Connection, *, durable: bool) -> t.Iterator[None]:
    """Nothing cascades that was not counted, sets of keys stay in memory, and text comes as it is."""
    before = db.execute("PRAGMA main.synchronous").fetchone()[0]
    text, db.text_factory = db.text_factory, _text
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("PRAGMA temp_store = MEMORY")
    if durable:
        db.execute(f"PRAGMA main.synchronous = {max(before, _SYNCHRONOUS)}")
    try:
        yield
    finally:
        db.text_factory = text
        try:
            # Changing it drops the sets of keys.
            db.execute("PRAGMA temp_store = DEFAULT")
            db.execute(f"PRAGMA main.synchronous = {before}")
        except sqlite3.Error:
            pass  # after an error the connection is not used again


def _text(data: bytes) -> str:
    """Text that is no UTF-8 comes and goes unharmed."""
    return data.decode("utf-8", "surrogateescape")


# ---- files -----------------------------------------------------------------------------------------------------------


def identity(table: Ref) -> str:
    """Of the table among all that share a folder: this machine, the file, the name."""
    return f"sqlite {_machine()} {os.path.realpath(table.database)} {table.path[-1].lower()}"


def _machine() -> str:
    """Hashed, as machine-id(5) asks for."""
    import hashlib
    import socket

    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            name = file.read().strip()
    except (OSError, ValueError):
        name = ""
    return hashlib.sha256(f"dbfleet {name or socket.gethostname()}".encode()).hexdigest()[:16]


def _shelf(task: Purge, server: Server) -> Shelf | None:
    if not task.archive or not task.archive.folder:
        return None
    from ..._files.shelf import Shelf

    about = {
        "engine": server.engine,
        "version": server.version,
        "server": server.address,
        "database": task.ref.database,
    }
    return Shelf(task.archive.folder, identity(task.ref), task.rule, task.table, task.archive, about=about)
