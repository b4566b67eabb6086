# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SQLite engine on real files: what it measures, what it does, and what it leaves alone."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
import typing as t
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import SQLite, connection
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import bloat as bloat_room
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    BadInput,
    Busy,
    CannotConnect,
    Held,
    Refused,
    Stopped,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Bloat,
    Database,
    Execution,
    Pace,
    Ref,
    Step,
    Table,
    Tick,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    Analyze,
    DropLeftover,
    Rebuild,
    Task,
    Vacuum,
)
from tests.integration import conftest

ALL = Wants(tables=True, bloat=True, indexes=True, leftovers=True, activity=True)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED, needs root: small file systems, other users")


# ---- helpers ---------------------------------------------------------------------------------------------------------


def engine_of(*paths: Path | str, lock_timeout: float = 0.3) -> SQLite:
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


@pytest.fixture(autouse=True, scope="module")
def _version() -> None:
    conftest.tested(f"sqlite {sqlite3.sqlite_version}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """SQLite's own log of every statement of the engine."""
    lines: list[str] = []
    real = connection.connect

    def connect(path: str, query: str, timeout: float = 0.0) -> sqlite3.Connection:
        db = real(path, query, timeout)
        db.set_trace_callback(lines.append)
        return db

    monkeypatch.setattr(connection, "connect", connect)
    return lines


READS = ("SELECT", "--", "PRAGMA MAIN.QUICK_CHECK", "PRAGMA SCHEMA_VERSION")
COUNTS = ("page_size", "page_count", "freelist_count", "auto_vacuum")


def writes(log: t.Iterable[str], spelled: t.Sequence[str] = ()) -> set[str]:
    """What of a log is no read. BEGIN and ROLLBACK without a write between them are the frame of a read; lines that
    begin as comments are what SQLite asks itself for its own virtual tables."""
    pragmas = {f"PRAGMA main.{name}" for name in COUNTS}
    kept = {sql.strip() for sql in log if not sql.strip().upper().startswith(READS)} - pragmas
    return {sql for sql in kept if sql in spelled or sql not in ("BEGIN", "ROLLBACK")}


# ---- which files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("databases", [None, [], ["*"], ["-/srv/x.db"], ["relative.db"], ["/srv/*.db", "*"]])
def test_files_must_be_named(databases: list[str] | None) -> None:
    with pytest.raises(BadInput, match="databases"):
        SQLite({"databases": databases}, Execution())


def test_globs_exclusions_links_and_what_lies_beside(tmp_path: Path) -> None:
    for name in ("a.db", "b.db", "c.db", "we[ir]d %.db"):
        make(tmp_path / name, "CREATE TABLE t (a)")
    for name in ("a.db-wal", "a.db-shm", "b.db-journal"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    server = engine_of(f"{tmp_path}/*", tmp_path / "link.db", f"-{tmp_path}/c.*", "-b.d?", f"{tmp_path}/none*").greet()
    assert [d.name for d in server.databases] == [str(tmp_path / n) for n in ("a.db", "we[ir]d %.db")]
    assert [(f.code, "none*" in f.message) for f in server.findings] == [("nothing_selected", True)]
    assert (server.engine, server.number, server.role) == ("sqlite", sqlite3.sqlite_version_info, "primary")
    assert socket.gethostname() in server.address
    assert server.now.tzinfo is not None
    assert {"vacuum", "freeze"} <= set(server.lacks)


def test_a_file_that_is_not_there_is_bad_input_and_stays_not_there(tmp_path: Path) -> None:
    make(tmp_path / "a.db", "CREATE TABLE t (a)")
    before = fingerprint(tmp_path)
    for name in ("missing.db", "."):
        with pytest.raises(BadInput, match=r"no file|no regular file"):
            engine_of(tmp_path / "a.db", tmp_path / name).greet()
    assert fingerprint(tmp_path) == before


def test_what_is_no_database_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all " * 400)
    (tmp_path / "encrypted.db").write_bytes(random.Random(1).randbytes(8192))
    (tmp_path / "empty.db").touch()
    make(tmp_path / "good.db", rows=10)
    infos = {Path(d.name).name: d for d in engine_of(f"{tmp_path}/*.db").greet().databases}
    assert "encrypted" in infos["text.db"].why_not
    assert "encrypted" in infos["encrypted.db"].why_not
    assert (infos["good.db"].why_not, infos["empty.db"].why_not) == ("", "")
    found = measured(tmp_path / "empty.db")
    assert [(x.kind, x.total_bytes, x.bloat) for x in found.tables] == [("file", 0, None)]
    assert not found.leftovers
    assert not found.findings


# ---- measuring leaves no trace ---------------------------------------------------------------------------------------


CRASH = """
    import os
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("INSERT INTO t (k) SELECT value FROM json_each('[1,2,3,4,5]')")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "state", ["rollback", "wal", "wal live", "wal crashed", "wal crashed, no shm", "empty wal", "hot"]
)
def test_measuring_leaves_no_trace(tmp_path: Path, log: list[str], state: str) -> None:
    path = make(tmp_path / "a.db", rows=2000, wal="wal" in state)
    rows = 2000
    with other_process(CRASH if state.startswith("wal ") else "print('ready', flush=True)", path) as other:
        if state.startswith("wal "):
            rows = 2005
        if "crashed" in state:
            other.kill()
            other.wait()
        if "no shm" in state:
            Path(f"{path}-shm").unlink()
            rows = 2000
        if state == "empty wal":
            Path(f"{path}-wal").touch()
        if state == "hot":
            leave_hot_journal(path)
        before = fingerprint(tmp_path)
        engine = engine_of(path)
        server = engine.greet()
        with engine.session(str(path)) as session:
            found = engine.measure(session, ALL, server)
            for task in (
                Analyze(Ref(str(path), ("t",))),
                Rebuild(Ref(str(path))),
                Rebuild(Ref(str(path)), online=False),
            ):
                engine.spell(task, server)
        assert fingerprint(tmp_path) == before
        assert writes(log) == set()
        if state == "hot":
            assert [left.what for left in found.leftovers] == ["transaction"]
        else:
            assert named(found, "t").rows == rows
        assert ("log_unread" in {f.code for f in found.findings}) == ("no shm" in state)


def test_a_reading_that_was_overtaken_is_repeated(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=100, wal=True)
    engine = engine_of(path)
    seen: list[bool] = []

    def ask(db: sqlite3.Connection, way: connection.Way) -> int:
        if not seen:
            make(path, "INSERT INTO t (k) VALUES (1)")  # comes and goes: no -wal tells of it afterwards
        seen.append(way.locked)
        return int(db.execute("SELECT count(*) FROM t").fetchone()[0])

    with engine.session(str(path)) as session:
        assert session.read(ask) == 101
    assert seen == [False, False]


# ---- tables, statistics ----------------------------------------------------------------------------------------------


HOSTILE = ['a"b', "semi;colon", "späce ünd 漢字", "per%cent", "select", "main", "it's", "temp", "a.b", "new\nline"]


def test_hostile_names_converge(tmp_path: Path) -> None:
    path = tmp_path / "host ile'%20?#&.db"
    with closing(path) as db:
        for name in HOSTILE:
            quoted = '"' + name.replace('"', '""') + '"'
            db.execute(f'CREATE TABLE {quoted} ("select", "a b")')
            db.execute(f'CREATE INDEX {quoted[:-1]} idx" ON {quoted} ("select")')
            db.execute(f"INSERT INTO {quoted} VALUES (1, 2)")
    due = [x.ref for x in measured(path).tables if x.missing_statistics]
    assert sorted(r.path[0] for r in due) == sorted(HOSTILE)
    for ref in due:
        carried_out(path, Analyze(ref))
    after = measured(path)
    assert not [x for x in after.tables if x.missing_statistics or x.changed]


def test_statistics_converge_for_every_kind_of_table(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE bare (a)",
        "CREATE TABLE empty (a UNIQUE)",
        "CREATE TABLE clustered (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID",
        "CREATE TABLE partial (a)",
        "CREATE INDEX partial_idx ON partial (a) WHERE a > 1000000",
        "CREATE TABLE generated (a, b AS (a * 2) STORED)",
        "CREATE INDEX generated_idx ON generated (b)",
        "CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE)",
        "CREATE VIRTUAL TABLE docs USING fts5(body)",
        "INSERT INTO bare VALUES (1), (2), (3)",
        "INSERT INTO clustered SELECT a, a FROM bare",
        "INSERT INTO partial SELECT a FROM bare",
        "INSERT INTO generated (a) SELECT a FROM bare",
        "INSERT INTO auto (a) SELECT a FROM bare",
        "INSERT INTO docs SELECT 'words ' || a FROM bare",
    )
    first = measured(path)
    due = {x.ref.path[0]: x.missing_statistics for x in first.tables if x.missing_statistics}
    assert due == dict.fromkeys(("clustered", "partial", "generated", "auto"), "the table")
    assert {x.ref.path[0] for x in first.tables if x.kind == "table"} == set(due) | {"bare", "empty", "docs"}
    assert {x.ref.path[0]: x.rows for x in first.tables if x.ref.path and x.kind == "table"}["clustered"] == 3
    for name in due:
        carried_out(path, Analyze(Ref(str(path), (name,))))
    second = measured(path)
    assert not [x.ref for x in second.tables if x.missing_statistics or x.changed]
    assert all(x.analyzed for x in second.tables if x.ref.path and x.ref.path[0] in due)
    with closing(path) as db:
        db.execute("DELETE FROM auto")
        db.execute("INSERT INTO partial SELECT a + 10 FROM bare")
        db.execute("CREATE INDEX late ON clustered (b)")
    third = measured(path)
    assert (named(third, "auto").changed, named(third, "partial").changed) == (3, 3)
    assert named(third, "clustered").missing_statistics == "index late"
    for name in due:
        carried_out(path, Analyze(Ref(str(path), (name,))))
    fourth = measured(path)
    assert not [x.ref for x in fourth.tables if x.missing_statistics or x.changed]


def test_a_collation_of_the_application_is_a_finding_not_a_failing_night(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(path) as db:
        db.create_collation("ours", lambda a, b: (a > b) - (a < b))
        db.execute("CREATE TABLE t (a TEXT COLLATE ours)")
        db.execute("CREATE INDEX ti ON t (a)")
        db.execute("INSERT INTO t VALUES ('x'), ('y')")
    found = measured(path)
    assert not named(found, "t").missing_statistics
    assert "ours" in named(found).lacks["exclusive rebuild"]
    assert [f.code for f in found.findings] == ["foreign_collation"]
    for task in (Analyze(Ref(str(path), ("t",))), Rebuild(Ref(str(path)), online=False)):
        with pytest.raises(Refused, match="collation"):
            carried_out(path, task)


def test_three_thousand_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(path) as db:
        db.execute("BEGIN")
        for i in range(3000):
            db.execute(f"CREATE TABLE t{i} (a, b)")
            db.execute(f"CREATE INDEX i{i} ON t{i} (a)")
            db.execute(f"INSERT INTO t{i} VALUES (1, 2)")
        db.execute("COMMIT")
    engine = engine_of(path)
    started = time.monotonic()
    found = measured(path, Wants(tables=True, bloat=True, leftovers=True), engine)
    assert len(found.tables) == 3001
    assert time.monotonic() - started < 2


def test_only_what_is_wanted_and_a_budget(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.db", "CREATE TABLE u (a)", "INSERT INTO u VALUES (1)", "DELETE FROM t WHERE id % 2", rows=5000
    )
    whole = measured(path, Wants(tables=True, bloat=True))
    one = measured(path, Wants(tables=True, bloat=True, only=(Ref(str(path), ("t",)),)))
    assert one.tables == (named(whole, "t")._replace(analyzed=None),)
    assert measured(path, Wants(tables=True, bloat=True, only=(Ref(str(path)),))).tables == (named(whole),)
    cheap = rate(named(measured(path, Wants(tables=True, bloat=True, scan_budget=8192))))
    assert cheap.method == "freelist"
    wants = Wants(bloat=True, scan_budget=8192, exact=(Ref(str(path)),), only=(Ref(str(path)),))
    exact = rate(named(measured(path, wants)))
    assert exact.method == "dbstat"
    assert cheap.low <= exact.percent <= cheap.high


# ---- bloat against the truth -----------------------------------------------------------------------------------------


def between(low: int, high: int) -> t.Callable[[], int]:
    dice = random.Random(3)
    return lambda: dice.randint(low, high)


CHURN: dict[str, tuple[t.Callable[[], int], str]] = {
    "fresh": (lambda: 100, ""),
    "every second row": (lambda: 100, "id % 2"),
    "one block": (lambda: 100, "id < 12000"),
    "a queue": (lambda: 100, "id < 19000"),
    "a few": (lambda: 100, "id % 10 = 0"),
    "one row a page": (lambda: 2500, ""),
    "two rows a page": (lambda: 1400, "id % 2"),
    "one or two rows a page": (between(1800, 2300), "id % 3 = 0"),
    "small and large": (between(1, 4000), "id % 3 = 0"),
    "mixed": (between(1, 400), "id % 3 = 0"),
    "overflowing": (between(100, 9000), "id % 2"),
}


@pytest.mark.parametrize("auto_vacuum", [0, 2])
@pytest.mark.parametrize("page_size", [1024, 4096, 16384])
@pytest.mark.parametrize("churn", CHURN)
def test_bloat_is_what_vacuum_frees(tmp_path: Path, churn: str, page_size: int, auto_vacuum: int) -> None:
    size, deleted = CHURN[churn]
    path = tmp_path / "a.db"
    with closing(path) as db:
        db.execute(f"PRAGMA page_size = {page_size}")
        db.execute(f"PRAGMA auto_vacuum = {auto_vacuum}")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, k, v)")
        db.execute("CREATE INDEX ti ON t (k)")
        fill(db, 20000 if size() == 100 else 5000, size)
        if deleted:
            db.execute(f"DELETE FROM t WHERE {deleted}")
    before, found = path.stat().st_size, rate(named(measured(path)))
    carried_out(path, Rebuild(Ref(str(path)), online=False))
    truth = 100 * (1 - path.stat().st_size / before)
    after = rate(named(measured(path)))
    assert abs(found.percent - truth) <= 3
    assert found.low - 1 <= truth <= found.high + 1
    assert after.percent <= 3  # a rebuilt file is never due again
    assert after.low <= 1


def test_without_dbstat_the_freelist_is_what_is_certain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id < 2500", "DELETE FROM t WHERE id % 3 = 0", rows=5000)
    exact = rate(named(measured(path)))
    monkeypatch.setattr(bloat_room, "has_dbstat", lambda _db: False)
    found = measured(path)
    rough = rate(named(found))
    assert rough.method == "freelist"
    assert 0 < rough.low <= exact.percent <= rough.high < 100
    assert (named(found, "t").rows, named(found, "t").missing_statistics) == (1668, "the table")


# ---- acts: check equals run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wal", [False, True])
@pytest.mark.parametrize("what", ["analyze", "exclusive", "online"])
def test_what_runs_is_what_was_spelled(tmp_path: Path, log: list[str], wal: bool, what: str) -> None:
    path = tmp_path / "a.db"
    with closing(path) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    make(path, "DELETE FROM t WHERE id > 2000", rows=100000, wal=wal)
    ref = Ref(str(path))
    table = Ref(str(path), ("t",))
    task: Task = Analyze(table) if what == "analyze" else Rebuild(ref, online=what == "online")
    engine = engine_of(path)
    server = engine.greet()
    log.clear()
    with engine.session(str(path)) as session:
        before = named(engine.measure(session, ALL, server))
        words = engine.spell(task, server)
        assert writes(log) == set()
        ticks = list(engine.carry_out(session, task, server, None))
        assert writes(log, words) == set(words)
        found = engine.measure(session, ALL, server)
        after = named(found)
    if what == "analyze":
        assert not named(found, "t").missing_statistics
        return
    assert rate(before).low > 90
    assert not before.lacks
    assert rate(after).low < 10
    assert sum(x.amount.bytes for x in ticks) == before.bytes - after.bytes
    assert after.total_bytes == path.stat().st_size < before.total_bytes / 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]
    if what == "online":
        assert len(ticks) > 2
        assert all(x.cursor for x in ticks)


def test_an_incremental_vacuum_stops_after_a_slice_and_goes_on_another_night(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(path) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    make(path, "DELETE FROM t", rows=100000)
    engine, task = engine_of(path), Rebuild(Ref(str(path)))
    before = path.stat().st_size
    server = engine.greet()
    with engine.session(str(path)) as session:
        work = engine.carry_out(session, task, server, None)
        tick = next(work)
        work.close()
    assert 0 < path.stat().st_size < before
    assert tick.amount.bytes == before - path.stat().st_size
    carried_out(path, task, cursor=tick.cursor)
    assert path.stat().st_size < before / 100


def test_why_there_is_no_online_rebuild(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain.db", "DELETE FROM t WHERE id % 2", rows=5000)
    full, inner = tmp_path / "full.db", tmp_path / "inner.db"
    for path, mode in ((full, "FULL"), (inner, "INCREMENTAL")):
        with closing(path) as db:
            db.execute(f"PRAGMA auto_vacuum = {mode}")
        make(path, "DELETE FROM t WHERE id % 2", rows=5000)
    for path, words in ((plain, "auto_vacuum is NONE"), (full, "auto_vacuum is FULL"), (inner, "inside of pages")):
        found = measured(path)
        assert words in named(found).lacks["online rebuild"]
        assert "exclusive rebuild" not in named(found).lacks
        assert "reclaim" in named(found, "t").lacks


def test_tasks_that_are_not_for_sqlite_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=10)
    for task in (Vacuum(Ref(str(path), ("t",))), Rebuild(Ref(str(path), ("t",)))):
        with pytest.raises(Refused, match="not for SQLite"):
            carried_out(path, task)


# ---- traps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wal", [False, True])
def test_a_lock_holder_makes_it_busy_within_the_lock_timeout(tmp_path: Path, wal: bool) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id % 2", rows=2000, wal=wal)
    with other_process(HOLD, path, "BEGIN IMMEDIATE") as other:
        before = fingerprint(tmp_path)
        for task in (Analyze(Ref(str(path), ("t",))), Rebuild(Ref(str(path)), online=False)):
            started = time.monotonic()
            with pytest.raises(Busy, match=f"process {other.pid}"):
                carried_out(path, task)
            assert time.monotonic() - started < 2
        after = fingerprint(tmp_path)
        assert set(after) == set(before)
        assert after[str(path)] == before[str(path)]
    carried_out(path, Rebuild(Ref(str(path)), online=False))


def test_a_live_reader_keeps_the_log_and_the_file_shrinks_when_it_is_gone(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id > 100", rows=20000, wal=True)
    before = path.stat().st_size
    task = Rebuild(Ref(str(path)), online=False)
    with other_process(HOLD, path, "BEGIN", "SELECT count(*) FROM t") as other:
        engine = engine_of(path)
        server = engine.greet()
        with engine.session(str(path)) as session:
            work = engine.carry_out(session, task, server, None)
            tick = next(work)
            with pytest.raises(Busy, match=f"process {other.pid}"):
                work.send(Pace(1, 1))
            found = engine.measure(session, ALL, server)
        assert path.stat().st_size == before
        assert named(found).total_bytes >= before  # what the disk says, not what SQLite hopes
        assert [(left.what, left.dead) for left in found.leftovers] == [("checkpoint", True)]
        assert rate(named(found)).low < 5  # VACUUM itself is not asked for again
    carried_out(path, task, cursor=tick.cursor)
    assert path.stat().st_size < before / 10
    assert not measured(path).leftovers


def test_a_pending_checkpoint_is_wreckage_of_its_own(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id > 100", rows=20000, wal=True)
    before = path.stat().st_size
    with other_process(HOLD, path, "PRAGMA wal_autocheckpoint = 0", "VACUUM"):
        left = measured(path).leftovers[0]
        assert left.bytes > before / 2
        carried_out(path, DropLeftover(left.ref, left.what, left.names))
        assert path.stat().st_size < before / 10
        assert not measured(path).leftovers


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


def test_a_dead_transaction_is_rolled_back(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id > 2000", rows=20000)
    with closing(path) as db:
        truth = db.execute("SELECT count(*), total(k) FROM t").fetchone()
    before = named(measured(path))
    leave_hot_journal(path)
    engine = engine_of(path)
    server = engine.greet()
    assert not server.databases[0].why_not
    found = measured(path)
    left = found.leftovers[0]
    assert (left.what, left.names, left.dead) == ("transaction", ("a.db-journal",), True)
    assert named(found).bloat is None  # this transaction had not come to page 1
    words = engine.spell(DropLeftover(left.ref, left.what, left.names), server)
    assert words == ["BEGIN IMMEDIATE", "ROLLBACK"]
    carried_out(path, DropLeftover(left.ref, left.what, left.names))
    again = measured(path)
    assert not again.leftovers
    assert named(again) == before
    with closing(path) as db:
        assert db.execute("SELECT count(*), total(k) FROM t").fetchone() == truth


VACUUM = """
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    print("ready", flush=True)
    db.execute("VACUUM")
"""


@pytest.mark.parametrize("wal", [False, True])
def test_sigkill_in_the_middle_of_vacuum(tmp_path: Path, wal: bool) -> None:
    path = make(tmp_path / "a.db", rows=400000, wal=wal)
    make(path, "DELETE FROM t WHERE id % 3")
    with closing(path) as db:
        truth = db.execute("SELECT count(*), total(k) FROM t").fetchone()
    before, grown = path.stat().st_size, Path(f"{path}-{'wal' if wal else 'journal'}")
    with other_process(VACUUM, path) as other:
        until = time.monotonic() + 20
        while not (grown.exists() and grown.stat().st_size > 4 << 20) and time.monotonic() < until:
            time.sleep(0.002)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert grown.stat().st_size > 0, "it was killed too late"
    found = measured(path)
    assert [left.what for left in found.leftovers] == ([] if wal else ["transaction"])
    due = rate(named(found))  # out of the journal, so that the rebuild is due in the same run
    for left in found.leftovers:
        carried_out(path, DropLeftover(left.ref, left.what, left.names))
    assert rate(named(measured(path))).low >= due.low > 30
    carried_out(path, Rebuild(Ref(str(path)), online=False))
    found = measured(path)
    assert path.stat().st_size < before / 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]
    assert not found.leftovers
    with closing(path) as db:
        assert db.execute("SELECT count(*), total(k) FROM t").fetchone() == truth
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_cancel_from_another_thread_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    import threading

    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id % 2", rows=400000)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    engine = engine_of(path)
    server = engine.greet()
    with engine.session(str(path)) as session:
        threading.Timer(0.1, session.cancel).start()
        with pytest.raises(Stopped):
            list(engine.carry_out(session, Rebuild(Ref(str(path)), online=False), server, None))
        with pytest.raises(Stopped):
            engine.measure(session, ALL, server)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]
    engine.close()


def test_a_damaged_file_is_urgent_and_never_rebuilt(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id % 2", rows=20000)
    whole = path.read_bytes()
    # A page of the table that only a full check looks into: its cells point outside of the page.
    page = bytearray(whole)
    for at in range(40 * 4096, 60 * 4096, 4096):
        page[at + 8 : at + 40] = b"\xff" * 32
    path.write_bytes(page)
    with pytest.raises(Refused, match="malformed") as caught:
        carried_out(path, Rebuild(Ref(str(path)), online=False))
    assert ".recover" in caught.value.cure
    assert path.read_bytes() == bytes(page)
    # The catalog itself is gone: measuring says so, and nothing is due.
    path.write_bytes(whole[:100] + b"\xff" * 4000 + whole[4100:])
    server = engine_of(path, make(tmp_path / "good.db", rows=10)).greet()
    assert [bool(d.why_not) for d in server.databases] in ([True, False], [False, False])
    found = measured(path)
    assert [(f.priority, f.code) for f in found.findings] == [(1, "database_damaged")]
    assert not found.tables
    assert "write" in found.lacks


@needs_root
def test_a_full_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    try:
        path = make(disk / "a.db", "DELETE FROM t WHERE id % 2", rows=60000)
        (disk / "ballast").write_bytes(b"x" * (24 * 1024 * 1024 - path.stat().st_size - (1 << 20)))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        task = Rebuild(Ref(str(path)), online=False)
        engine = engine_of(path)
        with engine.session(str(path)) as session:
            missing = engine.gauge(session, "disk_missing", Step(task, "", expected=Amount(bytes=1 << 20)))
            elsewhere = engine.gauge(session, "tmp_missing", Step(task, "", expected=Amount(bytes=1 << 20)))
        assert (missing or 0) > 1 << 20
        assert (elsewhere or 0) < 0
        with pytest.raises(Refused, match="full") as caught:
            carried_out(path, task)
        assert str(disk) in caught.value.cure
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        assert sorted(p.name for p in disk.iterdir()) == ["a.db", "ballast"]
        (disk / "ballast").unlink()
        carried_out(path, task)
        assert path.stat().st_size < 5 << 20
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@needs_root
def test_a_read_only_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    try:
        for name, wal in (("a.db", False), ("w.db", True)):
            make(disk / name, "DELETE FROM t WHERE id % 2", rows=2000, wal=wal)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for name in ("a.db", "w.db"):
            found = measured(disk / name)
            assert named(found, "t").rows == 1000
            assert found.lacks["write"] == "the file system is read-only"
            with engine_of(disk / name).guard([str(disk / name)], 0):
                pass  # keeps nobody from the other databases
            with pytest.raises(Refused, match="read-only"):
                carried_out(disk / name, Analyze(Ref(str(disk / name), ("t",))))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


AS_NOBODY = """
    import os
    os.setgid(65534)
    os.setuid(65534)
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("SELECT * FROM t LIMIT 1").fetchall()
    print("ready", flush=True)
    for line in sys.stdin:
        db.execute("INSERT INTO t (k) VALUES (1)")
        print("done", flush=True)
"""


@needs_root
@pytest.mark.parametrize("wal", [False, True])
def test_root_does_not_lock_the_application_out(tmp_path: Path, wal: bool) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    path = make(home / "a.db", "DELETE FROM t WHERE id % 2", rows=20000, wal=wal)
    path.chmod(0o640)
    for each in (home, path):
        os.chown(each, 65534, 65534)
    engine = engine_of(path)
    server = engine.greet()
    with engine.session(str(path)) as session:
        work = engine.carry_out(session, Rebuild(Ref(str(path)), online=False), server, None)
        next(work)  # vacuumed, and root still has it open
        with other_process(AS_NOBODY, path) as application:
            assert application.stdin
            assert application.stdout
            for each in home.iterdir():
                assert (each.stat().st_uid, each.stat().st_gid, each.stat().st_mode & 0o777) == (65534, 65534, 0o640)
            list(work)
            print("go", file=application.stdin, flush=True)
            assert application.stdout.readline() == "done\n"
    for each in home.iterdir():
        assert (each.stat().st_uid, each.stat().st_gid, each.stat().st_mode & 0o777) == (65534, 65534, 0o640)


FOREIGN = """
    import os
    sys.path[:0] = sys.argv[3:]
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import files
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
    print("ready", flush=True)
    print(files.why_unreadable(sys.argv[1]) or files.why_unwritable(sys.argv[1]), flush=True)
"""


@needs_root
def test_another_user_is_told_to_become_the_owner(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    path = make(home / "a.db", rows=10)
    os.chown(path, 65534, 65534)
    for mode, user, words in (
        (0o666, 1234, "another user owns"),
        (0o666, 65534, ""),
        (0o644, 1234, "may not write"),
        (0o600, 1234, "may not read"),
    ):
        path.chmod(mode)
        with other_process(FOREIGN, path, user, *sys.path) as other:
            assert other.stdout
            line = other.stdout.readline().strip()
            assert words in line if words else not line


def test_a_file_that_vanishes_is_a_fault_of_its_own(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=10)
    engine = engine_of(path)
    server = engine.greet()
    path.unlink()
    with engine.session(str(path)) as session, pytest.raises(CannotConnect, match="not there any more"):
        engine.measure(session, ALL, server)
    assert not list(tmp_path.iterdir())


# ---- the guard -------------------------------------------------------------------------------------------------------


GUARD = """
    sys.path[:0] = sys.argv[2:]
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite.guard import guard
    with guard([sys.argv[1]], 0):
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("wal", [False, True])
def test_two_runs_cannot_write_at_once_and_a_dead_one_holds_nothing(tmp_path: Path, wal: bool) -> None:
    path = make(tmp_path / "a.db", rows=10, wal=wal)
    other = make(tmp_path / "b.db", rows=10)
    engine = engine_of(path, other)
    before = fingerprint(tmp_path)
    with other_process(GUARD, path, *sys.path) as holder:
        with pytest.raises(Held, match=f"process {holder.pid} "), engine.guard([str(path), str(other)], 0.2):
            pytest.fail("the guard was given twice")
        with engine.guard([str(other)], 0):
            pass
        make(path, "INSERT INTO t (k) VALUES (1)")  # applications do not feel it
        holder.kill()
        holder.wait()
    with engine.guard([str(path), str(other)], 0):
        carried_out(path, Analyze(Ref(str(path), ("t",))), engine)
        with pytest.raises(Held), engine.guard([str(path)], 0):  # closing SQLite's descriptors has not dropped it
            pytest.fail("the guard was given twice")
    assert set(fingerprint(tmp_path)) == set(before)


def test_gauges(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=10)
    engine = engine_of(path)
    step = Step(Rebuild(Ref(str(path)), online=False), "")
    with engine.session(str(path)) as session:
        assert engine.gauge(session, "replica_lag", step) is None
        assert engine.gauge(session, "wal_missing", step) == engine.gauge(session, "oldest_snapshot", step) == 0.0
        assert (engine.gauge(session, "disk_missing", step) or 0) < 0
        assert (engine.gauge(session, "tmp_missing", step) or 0) < 0
