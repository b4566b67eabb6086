# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes of SQLite files: what is read of them, their bloat against what REINDEX frees, and REINDEX itself."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import bloat as bloat_room
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite.indexes import words_of
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Refused, Stopped, Vanished
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Bloat, Database, Ref, Step, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import Index
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Rebuild, Reindex
from tests.integration.lite import (
    HOLD,
    carried_out,
    closing,
    engine_of,
    logged,
    make,
    measured,
    named,
    other_process,
    rate,
    writes,
)

INDEXES = Wants(indexes=True, index_bloat=True)


def indexed(database: Database, name: str) -> Index:
    """The index of this name."""
    return next(x for x in database.indexes if x.ref.path == (name,))


def bloat_of(index: Index) -> Bloat:
    if index.bloat is None:
        pytest.fail(f"no bloat of {index}")
    return index.bloat


def reindex(path: Path, index: str, table: str = "t", *, online: bool = False) -> Reindex:
    return Reindex(Ref(str(path), (index,)), Ref(str(path), (table,)), online=online)


# ---- definitions -----------------------------------------------------------------------------------------------------


def test_definitions(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(path) as db:
        db.create_function("app", 1, lambda x: x, deterministic=True)
        db.create_collation("ours", lambda a, b: (a > b) - (a < b))
        db.executescript("""
            CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b TEXT COLLATE nocase, c);
            CREATE INDEX plain ON t (A, b DESC, c COLLATE rtrim);
            CREATE INDEX [odd (name] ON t (b, a+1 /* x, ( */ , coalesce(c, 'x  ,)')) -- why
              WHERE c > ')  ' AND b IS NOT NULL;
            CREATE INDEX computed ON t (app(a));
            CREATE INDEX sorted ON t (b COLLATE ours);
            CREATE TABLE w (a, b, c, PRIMARY KEY (a, b)) WITHOUT ROWID;
            CREATE UNIQUE INDEX w1 ON w (c);
            CREATE TABLE p (a TEXT PRIMARY KEY);
            CREATE TABLE g (a, b AS (app(a)) VIRTUAL, c AS (a + 1) STORED);
            CREATE INDEX g1 ON g (b);
            CREATE INDEX g2 ON g (c);
            CREATE VIRTUAL TABLE docs USING fts5 (body);
        """)
    found = measured(path, INDEXES)
    assert not found.tables
    assert {x.ref.path[0]: x.table.path[0] for x in found.indexes} == {
        **dict.fromkeys(("sqlite_autoindex_t_1", "plain", "odd (name", "computed", "sorted"), "t"),
        "w1": "w",
        "sqlite_autoindex_p_1": "p",
        **dict.fromkeys(("g1", "g2"), "g"),
    }
    plain = indexed(found, "plain")
    assert (plain.columns, plain.parts) == (("a", "b", "c"), ('"a"', '"b" COLLATE NOCASE DESC', '"c" COLLATE RTRIM'))
    assert (plain.unique, plain.constraint, plain.keep, plain.where, plain.scans) == (False, "", "", "", None)
    odd = indexed(found, "odd (name")
    assert (odd.columns, odd.parts) == (("b", "", ""), ('"b" COLLATE NOCASE', "a+1", "coalesce(c, 'x  ,)')"))
    assert odd.where == "c > ')  ' AND b IS NOT NULL"
    unique, primary, own = (indexed(found, n) for n in ("sqlite_autoindex_t_1", "sqlite_autoindex_p_1", "w1"))
    assert (unique.unique, unique.primary, unique.keep) == (True, False, "unique")
    assert unique.constraint == "sqlite_autoindex_t_1"
    assert (primary.unique, primary.primary, primary.keep) == (True, True, "primary key")
    assert (own.unique, own.constraint, own.keep) == (True, "", "unique")
    exclusive = {x.ref.path[0]: x.lacks.get("exclusive rebuild", "") for x in found.indexes}
    for name, word in (("computed", "app"), ("g1", "app"), ("sorted", "ours")):
        assert word in exclusive.pop(name)
    assert not any(exclusive.values())
    assert all("method: exclusive" in x.lacks["online rebuild"] for x in found.indexes if x.ref.path[0] in exclusive)


@pytest.mark.parametrize(
    ("sql", "parts", "where"),
    [
        ("CREATE INDEX i ON t(a)", ("a",), ""),
        ("CREATE INDEX `i(` ON \"t(\" ( a , f(b, (c)) )where(a)>'(--'", ("a", "f(b, (c))"), "(a)>'(--'"),
        ("CREATE INDEX i ON t(a -- ) \n, b/*,*/)", ("a", "b"), ""),
        ("CREATE INDEX i ON t('it''s', [x]  \n  COLLATE  nocase DESC)", ("'it''s'", "[x] COLLATE nocase DESC"), ""),
    ],
)
def test_words_of_create_index(sql: str, parts: tuple[str, ...], where: str) -> None:
    assert words_of(sql) == (parts, where)


def test_a_function_of_the_application_keeps_vacuum_out(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for create in (
        "CREATE TABLE t (a); CREATE INDEX i ON t (app(a))",
        "CREATE TABLE t (a); CREATE INDEX i ON t (a) WHERE app(a) > 1",
        "CREATE TABLE t (a CHECK (app(a) > 0))",
        "CREATE TABLE t (a, b AS (app(a)) VIRTUAL)",
    ):
        path.unlink(missing_ok=True)
        with closing(path) as db:
            db.create_function("app", 1, lambda x: x, deterministic=True)
            db.executescript(create)
        found = measured(path)
        assert "app" in named(found).lacks["exclusive rebuild"], create
        assert [f.code for f in found.findings] == ["foreign_function"]
        with pytest.raises(Refused, match="function"):
            carried_out(path, Rebuild(Ref(str(path)), online=False))
    path.unlink()
    with closing(path) as db:  # and these do not
        db.create_function("app", 1, lambda x: x, deterministic=True)
        db.executescript("""
            CREATE TABLE t (a CHECK (a > 0), b DEFAULT (app(1)), c AS (a + 1));
            CREATE VIEW v AS SELECT app(a) FROM t;
            CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT app(1); END
        """)
    assert "exclusive rebuild" not in named(measured(path)).lacks
    carried_out(path, Rebuild(Ref(str(path)), online=False))


# ---- bloat against the truth -----------------------------------------------------------------------------------------


KEYS: dict[str, Callable[[random.Random, int], object]] = {
    "random numbers": lambda dice, i: dice.randint(0, 10**9),
    "ascending": lambda dice, i: i,
    "descending": lambda dice, i: -i,
    "few values": lambda dice, i: dice.randint(0, 9),
    "texts": lambda dice, i: dice.randbytes(dice.randint(1, 40)).hex(),
    "long texts": lambda dice, i: dice.randbytes(dice.randint(100, 600)).hex(),
    "mostly null": lambda dice, i: dice.randint(0, 99) if i % 10 == 0 else None,
}
DELETED = {"nothing": "0", "every second": "id % 2", "a block": "id < 3000", "most": "id % 20", "random": "k2 < 60"}


@pytest.mark.parametrize("deleted", DELETED)
@pytest.mark.parametrize("key", KEYS)
def test_bloat_is_what_reindex_frees(tmp_path: Path, key: str, deleted: str) -> None:
    path, dice = tmp_path / "a.db", random.Random(11)
    with closing(path) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, k, k2)")
        db.execute("CREATE INDEX i ON t (k)")
        db.execute("BEGIN")
        rows = ((KEYS[key](dice, i), dice.randint(0, 99)) for i in range(5000))
        db.executemany("INSERT INTO t (k, k2) VALUES (?, ?)", rows)
        db.execute(f"DELETE FROM t WHERE {DELETED[deleted]}")
        db.execute("COMMIT")
    size = path.stat().st_size
    before = indexed(measured(path, INDEXES), "i")
    carried_out(path, reindex(path, "i"))
    after = indexed(measured(path, INDEXES), "i")
    truth = 100 * (1 - after.bytes / before.bytes)
    found = bloat_of(before)
    assert abs(found.percent - truth) <= 3, f"{found} {truth}"
    assert found.low - 1 <= truth <= found.high + 1, f"{found} {truth}"
    assert bloat_of(after).percent <= 3
    assert path.stat().st_size <= size  # the pages are on the freelist now
    assert (before.rows, after.rows) == (before.rows, before.rows)


def test_what_reindex_frees_is_free_in_the_file(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id % 3", rows=20000)
    before = measured(path)
    index, size = indexed(measured(path, INDEXES), "ti"), path.stat().st_size
    carried_out(path, reindex(path, "ti"))
    after = indexed(measured(path, INDEXES), "ti")
    assert after.bytes < 0.6 * index.bytes
    with closing(path) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] * 4096 >= index.bytes - after.bytes
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert path.stat().st_size == size
    assert abs(rate(named(measured(path))).percent - rate(named(before)).percent) < 2  # still due: the file as a whole


def test_only_what_is_wanted(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE u (a UNIQUE, b)", "CREATE INDEX u1 ON u (b)", rows=5000)
    whole = measured(path, INDEXES)
    assert [x.ref.path[0] for x in whole.indexes] == ["ti", "u1", "sqlite_autoindex_u_1"]
    for ref, names in ((("u1",), ["u1"]), (("u",), ["u1", "sqlite_autoindex_u_1"]), (("ti",), ["ti"])):
        found = measured(path, INDEXES._replace(only=(Ref(str(path), ref),)))
        assert found.indexes == tuple(indexed(whole, n) for n in names)
        assert not found.tables
    least = indexed(whole, "ti").bytes
    sized = measured(path, INDEXES._replace(index_bloat_min_bytes=least)).indexes
    assert [x.ref.path[0] for x in sized if x.bloat] == ["ti"]
    assert not any(x.bloat for x in measured(path, Wants(indexes=True)).indexes)
    assert not measured(path, Wants(tables=True, bloat=True)).indexes


def test_without_dbstat_sizes_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.db", rows=5000)
    monkeypatch.setattr(bloat_room, "has_dbstat", lambda _db: False)
    found = measured(path, INDEXES)
    assert [(x.bytes, x.bloat) for x in found.indexes] == [(0, None)]
    assert [f.code for f in found.findings] == ["index_sizes_unknown"]


# ---- REINDEX ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wal", [False, True])
def test_what_runs_is_what_was_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wal: bool) -> None:
    log = logged(monkeypatch)
    path = make(
        tmp_path / "a.db", 'CREATE TABLE "a""b" ("x y" UNIQUE)', "DELETE FROM t WHERE id % 3", rows=5000, wal=wal
    )
    make(path, 'CREATE INDEX "main"" x;" ON "a""b" ("x y" DESC)')
    engine = engine_of(path)
    server = engine.greet()
    for name, table, words in (
        ("ti", "t", 'REINDEX main."ti"'),
        ('main" x;', 'a"b', 'REINDEX main."main"" x;"'),
        ('sqlite_autoindex_a"b_1', 'a"b', 'REINDEX main."sqlite_autoindex_a""b_1"'),
    ):
        task = reindex(path, name, table)
        assert list(engine.spell(task, server)) == [words]
        log.clear()
        carried_out(path, task, engine)
        assert {sql for sql in writes(log) if not sql.startswith("EXPLAIN")} == {words}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]
    with pytest.raises(Refused, match="not online"):
        carried_out(path, reindex(path, "ti", online=True))


def test_a_lock_holder_makes_it_busy(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=2000)
    with other_process(HOLD, path, "BEGIN IMMEDIATE") as other:
        started = time.monotonic()
        with pytest.raises(Busy, match=f"process {other.pid}"):
            carried_out(path, reindex(path, "ti"))
        assert time.monotonic() - started < 15
    carried_out(path, reindex(path, "ti"))


def test_an_index_that_was_dropped_meanwhile_has_vanished(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=10)
    with pytest.raises(Vanished):
        carried_out(path, reindex(path, "gone"))


def test_duplicates_that_a_unique_index_did_not_show_are_told(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.db", "CREATE TABLE u (a, b)", "CREATE UNIQUE INDEX u1 ON u (a)", "INSERT INTO u VALUES (1, 1)"
    )
    with closing(path) as db:  # as a crash of a disk may leave it: a row that its index does not know
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX u1 ON u (b)' WHERE name = 'u1'")
    with closing(path) as db:
        db.execute("INSERT INTO u VALUES (1, 2)")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX u1 ON u (a)' WHERE name = 'u1'")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(Refused, match="UNIQUE constraint failed") as caught:
        carried_out(path, reindex(path, "u1", "u"))
    assert "integrity_check" in caught.value.cure
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_cancel_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=400000)
    with closing(path) as db:
        truth = db.execute("SELECT count(*), total(k) FROM t INDEXED BY ti WHERE k >= 0").fetchone()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    engine = engine_of(path)
    server = engine.greet()
    with engine.session(str(path)) as session:
        threading.Timer(0.05, session.cancel).start()
        with pytest.raises(Stopped):
            list(engine.carry_out(session, reindex(path, "ti"), server, None))
    engine.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    with closing(path) as db:
        assert db.execute("SELECT count(*), total(k) FROM t INDEXED BY ti WHERE k >= 0").fetchone() == truth


def test_room(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=10)
    engine = engine_of(path)
    with engine.session(str(path)) as session:
        for size, missing in ((1 << 20, False), (1 << 60, True)):
            step = Step(reindex(path, "ti"), "", size=size)
            for name in ("disk_missing", "tmp_missing"):
                value = engine.gauge(session, name, step)
                assert value is not None
                assert (value > 0) == missing


def test_nine_thousand_indexes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(path) as db:
        db.execute("BEGIN")
        for i in range(3000):
            db.execute(f"CREATE TABLE t{i} (a, b, c)")
            for column in "abc":
                db.execute(f"CREATE INDEX i{column}{i} ON t{i} ({column})")
        db.execute("COMMIT")
    assert sqlite3.sqlite_version_info >= (3, 34)
    started = time.process_time()
    assert len(measured(path, INDEXES._replace(tables=True, bloat=True)).indexes) == 9000
    assert time.process_time() - started < 10
