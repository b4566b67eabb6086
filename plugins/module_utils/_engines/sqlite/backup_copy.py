# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a database file as it is at one moment: in a file without a name, or in memory. What for: backup.py."""

from __future__ import annotations

import os
import sqlite3
import typing as t
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial

from ..._errors import MissingMeans, Refused
from ..._tuples import NamedTuple
from .connection import Session, Way, connect
from .files import on_disk

BLOCK = 1 << 20  # bytes
PAGES = 256  # that a writer of a file without a write-ahead log waits for at most
RESTARTS = 3  # times that such a writer may make the copy begin anew; then it waits for the whole copy


class Copy(t.Protocol):
    """A copy of the database that nobody writes to."""

    db: sqlite3.Connection

    def take(self, session: Session) -> None: ...

    def blocks(self) -> t.Iterator[bytes]: ...


class _Nameless:
    """In a file that has no name any more."""

    def __init__(self, file: Nameless) -> None:
        self.db, self._file = file.reader, file
        self._head = b""

    def take(self, session: Session) -> None:
        for writer, hold in zip(self._file.writers, (False, True)):
            with closing(writer), suppress(_Overtaken):
                session.read(partial(_copied, session, writer, hold))
                break
            os.ftruncate(self._file.descriptor, 0)  # a copy that was given up is rolled back by nobody
        self._head = without_log(self._file.descriptor)

    def blocks(self) -> t.Iterator[bytes]:
        place = 0
        while True:
            block = os.pread(self._file.descriptor, BLOCK, place)
            if not block:
                return
            if not place:
                block = block[:18] + self._head + block[20:]
            place += len(block)
            yield block


class Nameless(NamedTuple):
    """A file that is open and has no name any more: whoever dies leaves nothing behind."""

    reader: sqlite3.Connection  # sees what was written by then
    writers: tuple[sqlite3.Connection, sqlite3.Connection]  # each of them for one copy
    descriptor: int


def without_log(descriptor: int) -> bytes:
    """Lets SQLite read the file without a write-ahead log beside it, which a file without a name cannot have.

    The two bytes that said whether there is one: https://sqlite.org/fileformat.html#file_format_version_numbers
    """
    found = os.pread(descriptor, 2, 18)
    if found == b"\2\2":
        os.pwrite(descriptor, b"\1\1", 18)
    return found


class _Memory:
    """In memory."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", check_same_thread=False)
        self._image = bytearray()

    def take(self, session: Session) -> None:
        self._image = session.read(lambda db, way: _image(db))
        head = self._image[18:20]
        if head == b"\2\2":  # there is no write-ahead log in memory either, see without_log()
            self._image[18:20] = b"\1\1"
        self.db.deserialize(self._image)
        self._image[18:20] = head

    def blocks(self) -> t.Iterator[bytes]:
        for place in range(0, len(self._image), BLOCK):
            yield bytes(self._image[place : place + BLOCK])


class _Overtaken(Exception):
    """A writer made the copy begin anew once too often."""


@contextmanager
def on_file(folder: str) -> t.Iterator[Copy]:
    with nameless(folder) as file:
        yield _Nameless(file)


@contextmanager
def nameless(folder: str) -> t.Iterator[Nameless]:
    """A new file in this folder. Raises Refused."""
    from ..._files import durable, private

    private.sweep(folder)
    with durable.refusing(f"a temporary file in {folder}"):
        path, descriptor = private.file(folder)
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        try:
            # Opened by its name now, or never: what would stand beside it stays in memory.
            reader, *writers = (stack.enter_context(closing(connect(path, "mode=rw"))) for _each in range(3))
            for writer in writers:
                writer.execute("PRAGMA journal_mode = OFF").fetchall()
        finally:
            os.unlink(path)
        yield Nameless(reader, (writers[0], writers[1]), descriptor)


@contextmanager
def in_memory(session: Session) -> t.Iterator[Copy]:
    """Raises MissingMeans, Refused where it does not fit."""
    if not hasattr(sqlite3.Connection, "serialize"):
        raise MissingMeans(
            "an encrypted backup must not lie in plain text on the disk, and this Python cannot keep it in memory",
            database=session.database,
            cure="Use Python 3.11 or newer there (ansible_python_interpreter), or leave encrypt out",
        )
    need, free = 3 * on_disk(session.database), _free_memory()
    if free is not None and need > free:
        from ..._units import say_bytes

        raise Refused(
            f"an encrypted backup goes through memory: {say_bytes(need)} are needed, and {say_bytes(free)} free",
            database=session.database,
            cure="Leave encrypt out, and use an encrypted file system for the backups",
        )
    copy = _Memory()
    try:
        yield copy
    finally:
        copy.db.close()


def _free_memory() -> int | None:
    """Bytes that Linux says could be had; elsewhere nobody knows."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        return None
    return int(found[0][1]) * 1024 if found else None


def _image(db: sqlite3.Connection) -> bytearray:
    """Of a state that does not change meanwhile: the transaction has begun, and holds it from the first read on."""
    db.execute("SELECT count(*) FROM main.sqlite_master").fetchone()
    return bytearray(db.serialize())


def _copied(session: Session, into: sqlite3.Connection, hold: bool, db: sqlite3.Connection, way: Way) -> None:
    """Page by page. With a write-ahead log nobody waits for whoever reads one state for long; else writers would."""
    held = hold or way.wal
    if held:
        db.execute("SELECT count(*) FROM main.sqlite_master").fetchone()
    left: list[int] = []
    restarts = 0

    def progress(status: int, remaining: int, total: int) -> None:
        nonlocal restarts
        session.check()
        if left and remaining >= left[0]:
            restarts += 1
            if restarts > RESTARTS:
                raise _Overtaken
        left[:] = [remaining]

    if not held:
        db.execute("ROLLBACK")  # each step then takes its lock, and lets go of it
    try:
        db.backup(into, pages=PAGES, progress=progress, sleep=0.01)
    finally:
        if not held:
            db.execute("BEGIN")
