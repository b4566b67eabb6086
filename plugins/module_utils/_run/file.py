# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal's file: its tables, their versions, and how it is opened for writing and for nothing but reading.

What is written there, and when, stands in journal.py.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
import typing as t
from contextlib import closing, contextmanager
from pathlib import Path

APPLICATION = 0x6462666C  # "dbfl": PRAGMA application_id tells our file from everybody else's
BUSY_SECONDS = 3.0  # other modules' transactions on this file last milliseconds
MAGIC = b"SQLite format 3\0"

# An object is what a step's key is, on one server. Refs are JSON: file names need not be valid UTF-8, SQLite's text is.
VERSION_1 = """
CREATE TABLE objects (
    id INTEGER PRIMARY KEY, address TEXT NOT NULL, kind TEXT NOT NULL, ref TEXT NOT NULL, UNIQUE (address, kind, ref));
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, address TEXT NOT NULL, module TEXT NOT NULL, began REAL NOT NULL, ended REAL,
    status TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, born TEXT NOT NULL);
CREATE INDEX runs_status ON runs (status);
CREATE INDEX runs_began ON runs (began);
CREATE TABLE steps (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, object INTEGER NOT NULL, began REAL, status TEXT NOT NULL,
    reason TEXT NOT NULL, statements TEXT NOT NULL, size INTEGER NOT NULL,
    expected_bytes INTEGER NOT NULL, expected_rows INTEGER NOT NULL, expected_seconds REAL NOT NULL,
    bytes INTEGER, rows INTEGER, written INTEGER, seconds REAL, bytes_before INTEGER, bytes_after INTEGER,
    changed INTEGER, proven INTEGER, attempts INTEGER, error TEXT);
CREATE INDEX steps_run ON steps (run);
CREATE INDEX steps_object ON steps (object);
CREATE TABLE attempts (
    object INTEGER PRIMARY KEY, at REAL NOT NULL, seconds REAL NOT NULL, bytes_before INTEGER NOT NULL,
    bytes_after INTEGER NOT NULL, expected_bytes INTEGER NOT NULL, ok INTEGER NOT NULL);
CREATE TABLE rates (
    address TEXT NOT NULL, kind TEXT NOT NULL, bytes REAL NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (address, kind));
CREATE TABLE cursors (object INTEGER PRIMARY KEY, cursor TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE owned (object INTEGER NOT NULL, owns TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (object, owns));
CREATE TABLE deferred (object INTEGER PRIMARY KEY, why TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE sizes (
    object INTEGER NOT NULL, hour INTEGER NOT NULL, at REAL NOT NULL, bytes INTEGER NOT NULL, rows INTEGER,
    PRIMARY KEY (object, hour));
"""
# What a step left for the next one of its kind on its object.
VERSION_2 = """
CREATE TABLE notes (object INTEGER PRIMARY KEY, note TEXT NOT NULL, at REAL NOT NULL);
"""
# One entry a version, applied in turn in one transaction; PRAGMA user_version counts them. Entries are never edited.
MIGRATIONS: tuple[str, ...] = (VERSION_1, VERSION_2)


class NotAJournal(Exception):
    """A file that is somebody else's: it is neither written nor moved."""


def is_corrupt(error: sqlite3.Error) -> bool:
    """Python gives SQLITE_CORRUPT and SQLITE_NOTADB, and nothing else, the bare DatabaseError."""
    kinds = (sqlite3.OperationalError, sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)
    others = (*kinds, sqlite3.InternalError, sqlite3.DataError, sqlite3.NotSupportedError)
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, others)


@contextmanager
def transaction(db: sqlite3.Connection) -> t.Iterator[None]:
    """Takes the write lock at once: a transaction that starts by reading cannot wait for it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back on a full disk
            db.execute("ROLLBACK")
        raise


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The journal, made and migrated where need be. Raises OSError, sqlite3.Error, NotAJournal."""
    _refuse_strangers(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
    db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        _write_ahead(db)
        db.execute("PRAGMA synchronous = NORMAL")  # with WAL: a power cut may lose the last steps, never the file
        _migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def move_aside(path: Path) -> Path:
    """Renames a corrupt journal, with its companions, to a name that nothing has. Raises OSError."""
    stem = f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    target, number = path.with_name(stem), 1
    while target.exists():
        target, number = path.with_name(f"{stem}-{number}"), number + 1
    path.rename(target)
    for tail in ("-wal", "-shm"):
        companion = Path(f"{path}{tail}")
        if companion.exists():
            companion.rename(f"{target}{tail}")
    return target


@contextmanager
def reading(path: Path) -> t.Iterator[sqlite3.Connection | None]:
    """The journal as it is, or None where there is none; neither it nor its directory is changed by a byte.

    Even a read-only connection to a file in WAL mode makes -wal and -shm. `immutable` does not, and is blind to what
    stands in the -wal: where that has something, a copy of both is read. Raises sqlite3.Error, OSError, NotAJournal.
    """
    if not path.exists():
        yield None
        return
    _refuse_strangers(path)
    if not _pending(path):
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            yield db if _version(db) else None
        return
    with tempfile.TemporaryDirectory(prefix="dbfleet-") as directory:
        copy = Path(directory) / "journal.sqlite"
        _copy(path, copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as db:
            yield db if _version(db) else None


def _refuse_strangers(path: Path) -> None:
    """A path that was mistyped must not cost anybody their file, or put our tables into their database."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return
    blank = not head.strip(b"\0")
    if not blank and not head.startswith(MAGIC) and path.suffix not in (".sqlite", ".sqlite3", ".db"):
        raise NotAJournal(f"{path} is a file of another kind")
    if head.startswith(MAGIC) and len(head) == 100:
        # Bytes 68-71 are the application_id, 0 where nothing set one. Our first transaction writes it with the tables.
        owner, pages = int.from_bytes(head[68:72], "big"), int.from_bytes(head[28:32], "big")
        if owner not in (APPLICATION, 0) or (owner == 0 and pages > 1 and not _pending(path)):
            raise NotAJournal(f"{path} is the database of another program")


def _pending(path: Path) -> bool:
    """Whether there is more to the database than its main file."""
    companions = [Path(f"{path}{tail}") for tail in ("-wal", "-journal")]
    return any(companion.exists() and companion.stat().st_size for companion in companions)


def _copy(path: Path, copy: Path) -> None:
    """Copies file and WAL until no checkpoint fell in between: it changes the file, and the head of the next WAL."""
    for attempt in range(5):
        before = _state(path)
        for tail in ("", "-wal", "-journal"):
            source = Path(f"{path}{tail}")
            Path(f"{copy}{tail}").unlink(missing_ok=True)
            if source.exists():
                shutil.copyfile(source, f"{copy}{tail}")
        if _state(path) == before:
            return
        time.sleep(0.02 * 2**attempt)
    raise sqlite3.OperationalError("it is being written all the time")


def _state(path: Path) -> tuple[t.Any, ...]:
    status = path.stat()
    try:
        with Path(f"{path}-wal").open("rb") as file:
            head = file.read(32)
    except FileNotFoundError:
        head = b""
    return (status.st_ino, status.st_size, status.st_mtime_ns, head)


def _write_ahead(db: sqlite3.Connection) -> None:
    """Changing the mode does not wait for others, whatever the timeout says; some file systems refuse it for good."""
    until = time.monotonic() + BUSY_SECONDS
    while not _accepts(db, "PRAGMA journal_mode = WAL") and time.monotonic() < until:
        time.sleep(0.05)


def _accepts(db: sqlite3.Connection, statement: str) -> bool:
    try:
        db.execute(statement).fetchone()
    except sqlite3.OperationalError:
        return False
    return True


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _migrate(db: sqlite3.Connection) -> None:
    if _version(db) == len(MIGRATIONS):
        return
    with transaction(db):
        found = _version(db)  # again, under the lock: another process may have been faster
        if found > len(MIGRATIONS):
            raise NotAJournal("the journal is of a newer version of this collection")
        for script in MIGRATIONS[found:]:
            for statement in script.split(";\n"):
                if statement.strip():
                    db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
