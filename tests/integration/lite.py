# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SQLite engine as its tests use it: real files, other processes, what was said to SQLite. No test lives here."""

from __future__ import annotations

import functools
import hashlib
import random
import sqlite3
import subprocess
import sys
import textwrap
import typing as t
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import SQLite, connection
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Bloat,
    Database,
    Execution,
    Table,
    Tick,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    Task,
)
from tests.integration import conftest

ALL = Wants(tables=True, bloat=True, indexes=True, leftovers=True, activity=True)
# Small file systems and other users: `root` of conftest.py tells what happens without it.
needs_root = pytest.mark.usefixtures("root")


@functools.cache
def _tell_version() -> None:
    conftest.tested(f"sqlite {sqlite3.sqlite_version}")


def engine_of(*paths: Path | str, lock_timeout: float = 0.3) -> SQLite:
    _tell_version()
    return SQLite({"databases": [str(p) for p in paths]}, Execution(lock_timeout=lock_timeout))


def make(path: Path, *statements: str, wal: bool = False, rows: int = 0) -> Path:
    """A database; with `rows` a table t(id, k, v) with an index."""
    with closing(path) as db:
        if wal:
            db.execute("PRAGMA journal_mode = WAL")
        if rows:
            db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, k, v)")
            db.execute("CREATE INDEX ti ON t (k)")
            fill(db, rows)
        for sql in statements:
            db.execute(sql)
    return path


def fill(db: sqlite3.Connection, rows: int, size: t.Callable[[], int] = lambda: 100) -> None:
    dice = random.Random(7)
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO t (k, v) VALUES (?, ?)", ((dice.randint(0, 10**9), "x" * size()) for _row in range(rows))
    )
    db.execute("COMMIT")


@contextmanager
def closing(path: Path) -> t.Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        yield db
    finally:
        db.close()


def measured(path: Path, wants: Wants = ALL, engine: SQLite | None = None) -> Database:
    engine = engine or engine_of(path)
    server = engine.greet()
    with engine.session(str(path)) as session:
        return engine.measure(session, wants, server)


def named(database: Database, name: str = "") -> Table:
    """The table of this name; without one, the file."""
    path = (name,) if name else ()
    return next(x for x in database.tables if x.ref.path == path)


def rate(table: Table) -> Bloat:
    if table.bloat is None:
        pytest.fail(f"no bloat of {table}")
    return table.bloat


def carried_out(path: Path, task: Task, engine: SQLite | None = None, cursor: str | None = None) -> list[Tick]:
    engine = engine or engine_of(path)
    server = engine.greet()
    with engine.session(str(path)) as session:
        return list(engine.carry_out(session, task, server, cursor))


def fingerprint(folder: Path) -> dict[str, tuple[str, int, int, int, int]]:
    """Every file: content, times, mode, owner."""
    out = {}
    for path in sorted(folder.rglob("*")):
        own = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        out[str(path)] = (content, own.st_mtime_ns, own.st_mode, own.st_uid, own.st_gid)
    out["."] = ("", folder.stat().st_mtime_ns, 0, 0, 0)
    return out


@contextmanager
def other_process(code: str, *arguments: object) -> t.Iterator[subprocess.Popen[str]]:
    """Runs until it is told to end by its input; has said `ready`."""
    words = [sys.executable, "-c", "import sqlite3, sys\n" + textwrap.dedent(code), *(str(a) for a in arguments)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if not process.stdout or process.stdout.readline() != "ready\n":
                pytest.fail("the other process did not get ready")
            yield process
        finally:
            if process.poll() is None:
                process.kill()


HOLD = """
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    for sql in sys.argv[2:]:
        db.execute(sql).fetchall()
    print("ready", flush=True)
    sys.stdin.read()
"""


def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """SQLite's own log of every statement of the engine."""
    lines: list[str] = []
    real = connection.connect

    def connect(path: str, query: str, timeout: float = 0.0) -> sqlite3.Connection:
        db = real(path, query, timeout)
        db.set_trace_callback(lines.append)
        return db

    monkeypatch.setattr(connection, "connect", connect)
    return lines


READS = ("SELECT", "--", "PRAGMA MAIN.QUICK_CHECK", "PRAGMA SCHEMA_VERSION", "PRAGMA MAIN.JOURNAL_MODE")
COUNTS = ("page_size", "page_count", "freelist_count", "auto_vacuum")


def writes(log: t.Iterable[str], spelled: t.Sequence[str] = ()) -> set[str]:
    """What of a log is no read. BEGIN and ROLLBACK without a write between them are the frame of a read; lines that
    begin as comments are what SQLite asks itself for its own virtual tables."""
    pragmas = {f"PRAGMA main.{name}" for name in COUNTS}
    kept = {sql.strip() for sql in log if not sql.strip().upper().startswith(READS)} - pragmas
    return {sql for sql in kept if sql in spelled or sql not in ("BEGIN", "ROLLBACK")}


SPILL = """
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("PRAGMA cache_size = 10")
    db.execute("BEGIN")
    db.execute("UPDATE t SET v = v || 'y', k = k + 1")
    print("ready", flush=True)
    sys.stdin.read()
"""


def leave_hot_journal(path: Path) -> None:
    with other_process(SPILL, path) as other:
        other.kill()
        other.wait()
    assert Path(f"{path}-journal").stat().st_size > 0
