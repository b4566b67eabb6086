# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a database file is opened for reading and for writing, and what its errors mean. No statement lives here.

Reading must leave the file system as it was. What SQLite does with files in WAL mode (measured on 3.40):

- `mode=ro` makes -wal and -shm where they are not there, leaves them behind, and writes to the -shm of others;
- `readonly_shm=1` with both files there reads the newest state and writes nothing, with a live writer and after a crash
  alike; without a -shm it fails and leaves an empty -wal;
- `immutable=1` takes no locks and does not see the -wal. Without a -wal nobody has the file open in WAL mode, so it is
  right as long as nobody comes: the file's marks are compared afterwards, and a read that was overtaken is repeated;
- `nolock=1` cannot open a file in WAL mode, and makes no file: that tells the mode.

No file is opened but by SQLite while sessions are open: closing any descriptor of a database drops the POSIX locks that
this process holds on it (https://sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import typing as t
from contextlib import contextmanager
from urllib.parse import quote

from ..._errors import Busy, CannotConnect, DbFault, Refused, Stopped, Vanished
from ..._tuples import NamedTuple
from ..._units import say_bytes
from .activity import holders
from .files import free_bytes, marks, size_of, temporary_directory, why_unreadable, why_unwritable

T = t.TypeVar("T")
_READS = 5  # tries of a read without locks before a file counts as busy

DAMAGED = "database disk image is malformed"
_NO_DATABASE = "file is not a database"
_BUSY = ("is locked", "schema has changed", "locking protocol", "unable to delete/modify")
_DROPPED = ("no such table: main.", "unable to identify the object to be reindexed")
_CURES = (
    ("disk I/O error", "Look at the disk and the kernel's log"),
    (
        "attempt to write a readonly database",
        "Run as the file's owner or as root, where the file system is not read-only",
    ),
    (DAMAGED, "It is not touched: restore a backup, or save what can be saved with the sqlite3 command .recover"),
    (_NO_DATABASE, "It is no SQLite database, or it is encrypted"),
    ("UNIQUE constraint failed", "Rows are there twice, which an intact index would have refused: integrity_check"),
    ("unknown function", "It needs a function that only the application has: run this from there"),
    ("no such function", "It needs a function that only the application has: run this from there"),
    ("no such collation sequence", "Its indexes need a collation that only the application has: run this from there"),
)


class Way(NamedTuple):
    """How a file can be read without a trace."""

    query: str
    locked: bool  # locks keep the reading consistent; otherwise the file's marks must be the same afterwards
    wal: bool  # in WAL mode
    unseen: int = 0  # bytes of a -wal that cannot be read without making a -shm


def way_to(path: str) -> Way:
    """How to read this file now."""
    log = size_of(path + "-wal")
    if os.path.exists(path + "-wal") and os.path.exists(path + "-shm"):
        return Way("mode=ro&readonly_shm=1", locked=True, wal=True)
    if log or _in_wal_mode(path):
        return Way("mode=ro&immutable=1", locked=False, wal=True, unseen=log)
    return Way("mode=ro", locked=True, wal=False)


def _in_wal_mode(path: str) -> bool:
    db = connect(path, "mode=ro&nolock=1")
    try:
        db.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        return "unable to open" in str(error)
    finally:
        db.close()
    return False


def connect(path: str, query: str, timeout: float = 0.0) -> sqlite3.Connection:
    """Opens, and never creates: the file is looked at by the first statement. `timeout` in seconds."""
    return sqlite3.connect(
        f"file://{quote(os.fsencode(path))}?{query}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,  # cancel() and close() come from other threads
    )


class Kept:
    """Connections that stay open from step to step while the guard is held: each new one parses the whole schema."""

    def __init__(self) -> None:
        self.on = False
        self._held: dict[str, tuple[sqlite3.Connection, tuple[int, int]]] = {}

    def take(self, path: str) -> sqlite3.Connection | None:
        """Whoever has it, has it alone. A file that was replaced meanwhile is another file."""
        db, file = self._held.pop(path, (None, None))
        if db is not None and file != _identity(path):
            db.close()
            return None
        return db

    def give(self, path: str, db: sqlite3.Connection) -> None:
        if not self.on or path in self._held or db.in_transaction:
            db.close()
            return
        self._held[path] = (db, _identity(path))

    def close(self) -> None:
        self.on = False
        while self._held:
            self._held.popitem()[1][0].close()


def _identity(path: str) -> tuple[int, int]:
    try:
        own = os.stat(path)
    except OSError:
        return (0, 0)
    return (own.st_dev, own.st_ino)


class Session:
    """One database, used by one step: opened anew for each reading and each act, but for what `kept` has open."""

    def __init__(self, database: str, lock_timeout: float, kept: Kept | None = None) -> None:
        self.database, self.lock_timeout = database, lock_timeout
        self._kept = kept or Kept()
        self._live: set[sqlite3.Connection] = set()
        self._cancelled = False
        self.stopped = threading.Event()  # for whatever is not a statement of SQLite

    def read(self, ask: t.Callable[[sqlite3.Connection, Way], T]) -> T:
        """The answer of `ask` from one consistent state; leaves no trace. Raises Busy, Stopped, Refused."""
        for _attempt in range(_READS):
            why_not = why_unreadable(self.database)
            if why_not:
                raise CannotConnect(why_not, database=self.database)
            db = self._kept.take(self.database)
            if db is not None:
                return self._read_along(db, ask)
            before, way = marks(self.database), way_to(self.database)
            try:
                answer = self._snapshot(ask, way)
            except DbFault:
                if way.locked or marks(self.database) == before:
                    raise
                continue
            if way.locked or marks(self.database) == before:
                return answer
        raise Busy("the file changes faster than it can be read", database=self.database)

    def _read_along(self, db: sqlite3.Connection, ask: t.Callable[[sqlite3.Connection, Way], T]) -> T:
        """By the connection that writes: nobody leaves less of a trace."""
        with self._using(db):
            wal = db.execute("PRAGMA main.journal_mode").fetchone()[0] == "wal"
            db.execute("BEGIN")
            answer = ask(db, Way("", locked=True, wal=wal))
            db.execute("ROLLBACK")
            return answer

    def _snapshot(self, ask: t.Callable[[sqlite3.Connection, Way], T], way: Way) -> T:
        with self._open(way.query) as db:
            db.execute("BEGIN")
            answer = ask(db, way)
            db.execute("ROLLBACK")
            return answer

    @contextmanager
    def write(self) -> t.Iterator[sqlite3.Connection]:
        """A connection that may write. Raises Busy, Stopped, Refused, also for what happens inside."""
        why_not = why_unwritable(self.database)
        if why_not:
            raise Refused(why_not, database=self.database)
        db = self._kept.take(self.database)
        if db is None:
            # Outside of _using() nobody else would close it.
            db = connect(self.database, "mode=rw", self.lock_timeout)
        with self._using(db):
            yield db

    @contextmanager
    def _using(self, db: sqlite3.Connection) -> t.Iterator[None]:
        """Kept for the next step when it has served well, closed when not."""
        served = False
        self._live.add(db)
        try:
            self.check()
            yield
            served = not self._cancelled
        except sqlite3.Error as error:
            raise fault(error, self.database) from error
        finally:
            self._live.discard(db)
            if served:
                self._kept.give(self.database, db)
            else:
                db.close()

    @contextmanager
    def _open(self, query: str) -> t.Iterator[sqlite3.Connection]:
        db = None
        try:
            db = connect(self.database, query, self.lock_timeout)
            self._live.add(db)
            self.check()
            yield db
        except sqlite3.Error as error:
            raise fault(error, self.database) from error
        finally:
            if db is not None:
                self._live.discard(db)
                db.close()

    def check(self) -> None:
        """Raises Stopped when the session was cancelled: an interrupt between two statements would be lost."""
        if self._cancelled:
            raise Stopped("cancelled", database=self.database)

    def cancel(self) -> None:
        self._cancelled = True
        self.stopped.set()
        for db in list(self._live):
            try:
                db.interrupt()
            except sqlite3.ProgrammingError:
                continue  # closed in this moment

    def close(self) -> None:
        self.cancel()


def fault(error: sqlite3.Error, database: str) -> DbFault:
    """What an error of SQLite means. Told by its text: the codes are in Python from 3.11 on."""
    cause = str(error)
    if "interrupted" in cause:
        return Stopped("cancelled", database=database)
    if cause.startswith(_DROPPED):
        return Vanished(cause, database=database)
    if any(words in cause for words in _BUSY):
        who = holders(database)
        return Busy(f"{cause}, by {who}" if who else cause, database=database)
    if "readonly" in cause and not size_of(database + "-journal") and not why_unwritable(database):
        return Busy("its write-ahead log is being recovered", database=database)  # SQLITE_READONLY_CANTINIT
    if "unable to open" in cause:
        return CannotConnect(why_unreadable(database) or cause, database=database)
    if "disk is full" in cause:
        return Refused(cause, database=database, cure=_room(database))
    cure = next((cure for words, cure in _CURES if words in cause), "")
    return Refused(cause, database=database, cure=cure)


def _room(database: str) -> str:
    folders = dict.fromkeys((os.path.dirname(database), temporary_directory()))
    free = " and ".join(f"{say_bytes(free_bytes(folder)[0])} in {folder}" for folder in folders)
    return (
        f"Make room: free are {free}; SQLITE_TMPDIR names another directory for temporary files. Where that is more"
        " than enough, a quota is used up, or the file is damaged"
    )
