# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What SQLite files call a date, and what a rule refuses: dates of every kind, hostile names, views, conditions."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Refused, Vanished
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Archive
from tests.integration.cleanup import content, rows_in_files, rows_of
from tests.integration.lite import HOLD, closing, fingerprint, make, other_process
from tests.integration.lite_retention import BEFORE, NOW, Room, rule

SPRING = datetime(2026, 3, 29, 1, 30, 0, 250_000, tzinfo=UTC)  # Berlin skips from 02:00 to 03:00 at 01:00 UTC
EPOCH = int(BEFORE.timestamp())  # BEFORE has half a second more
DATES: list[tuple[str, datetime, dict[str, str], list[Any], list[Any]]] = [
    (
        "text",
        SPRING,
        {},
        ["2026-03-28", "2026-03-29 01:30:00.249", "2026-03-29T01:30Z", "2026-03-29 03:29:59+02:00", "0001-01-01"],
        ["2026-03-29", "2026-03-29 01:30:00.250", "2026-03-29T01:31Z", "2026-03-28 23:30:01-02:01", "9999-12-31"],
    ),
    (
        "text of another zone",
        SPRING,
        {"zone": "Europe/Berlin"},
        ["2026-03-28", "2026-03-29 03:30:00.249", "2026-03-29 01:30:00.249Z", "2026-03-29T13:29:59 +12:00"],
        ["2026-03-29", "2026-03-29 03:30:00.250", "2026-03-29 01:30:00.251z", "2026-03-29 01:31:00+00:00"],
    ),
    ("Julian days", SPRING, {}, [2461128.5, 2461128.5624, 1721060.25], [2461128.5626, 2461129.25]),
    ("seconds", BEFORE, {"unit": "seconds"}, [0, -5, EPOCH, EPOCH + 0.25], [EPOCH + 1, EPOCH + 0.75, 2**62]),
    ("milliseconds", BEFORE, {"unit": "milliseconds"}, [1, EPOCH * 1000 + 499], [EPOCH * 1000 + 500, 1.8e15]),
    ("microseconds", BEFORE, {"unit": "microseconds"}, [EPOCH * 10**6], [EPOCH * 10**6 + 500_000]),
]
NO_DATES = ["now", "12:00", "2451545", "", " 2020-01-01", "yesterday", "2020-13-01", "2020-01-01x", b"2020-01-01"]


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("affinity", ["", "DATETIME", "TEXT", "INTEGER", "REAL"])
@pytest.mark.parametrize("case", DATES, ids=[d[0] for d in DATES])
def test_dates_of_every_kind(tmp_path: Path, case: Any, affinity: str, indexed: bool) -> None:
    kind, before, more, due, kept = case
    if affinity == "TEXT" and not kind.startswith("text"):
        pytest.skip("numbers become text there")
    if kind == "Julian days":
        kept = [*kept, 1.7e9, 5373485.0]
    strange = ["2020-01-01", b"x"] if "unit" in more else [] if kind == "Julian days" else [2460000, *NO_DATES]
    if affinity == "REAL":
        strange = [value for value in strange if value not in (2460000, "2451545")]  # they are Julian days there
    path = make(tmp_path / "a.db", f"CREATE TABLE t (at {affinity}, due)", *(["CREATE INDEX i ON t (at)"] * indexed))
    with closing(path) as db:
        rows = [*((v, 1) for v in due), *((v, 0) for v in [*kept, *strange, None])]
        db.executemany("INSERT INTO t VALUES (?, ?)", rows)
    room = Room(path)
    sought = rule(before=before, **more)
    found = room.find(sought)
    assert not found.why_not
    assert found.rows == len(due)
    later = rule(before=before + timedelta(days=40000), since=before, **more)
    assert room.find(later).rows == len([v for v in kept if v not in (2**62, 1.8e15, 1.7e9, 5373485.0, "9999-12-31")])
    findings = room.look(Wants(expired=(sought,))).findings
    assert [f.code for f in findings] == ["values_without_date"]
    assert room.run(sought, pace=2).rows == len(due)
    assert {row.get("due") for row in rows_of(path, "t")} == {"#0"}
    assert len(rows_of(path, "t")) == len(rows) - len(due)


def test_the_range_of_an_archive_file_is_that_of_its_rows(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t (at)")
    with closing(path) as db:
        values = ["2025-07-01", "2025-07-01 23:00:00", "2025-07-01T22:30:00Z", 2460858.0]
        db.executemany("INSERT INTO t VALUES (?)", [(v,) for v in values])
    room = Room(path)
    archive = Archive(folder=str(tmp_path / "f"))
    assert room.run(rule(archive=archive, zone="Europe/Berlin")).rows == 4
    for moment, outdated in (
        (datetime(2025, 7, 1, 22, 29, tzinfo=UTC), 0),
        (datetime(2025, 7, 1, 22, 31, tzinfo=UTC), 1),
    ):
        sought = rule(archive=archive, zone="Europe/Berlin", files_before=moment)
        found = room.find(sought).files
        assert found
        assert len(found.outdated) == outdated


NAMES = ['we"ird', "select", "%s {} :end_0 ?", "ünï côdé", "a.b", "x';--", "main", "temp"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("indexed", [True, False])
def test_hostile_names(tmp_path: Path, name: str, indexed: bool) -> None:
    quoted, folder = '"' + name.replace('"', '""') + '"', tmp_path / "f"
    kept = '"' + name.replace('"', '""') + '_kept"'
    path = make(
        tmp_path / f"{name.replace('/', '')} #?.db",
        f"CREATE TABLE {quoted} ({quoted} {quoted}, [at] TEXT, `i d` INTEGER PRIMARY KEY)",
        f"CREATE TABLE [child {{}}] ({quoted} REFERENCES {quoted} ON DELETE CASCADE)",
        *([f"CREATE INDEX [i {{}}] ON {quoted} (at)"] if indexed else []),
    )
    with closing(path) as db:
        db.executemany(f"INSERT INTO {quoted} VALUES (?, ?, ?)", [(i, f"20{10 + i}-01-01", i) for i in range(40)])
        db.executemany("INSERT INTO [child {}] VALUES (?)", [(i % 40,) for i in range(80)])
    room = Room(path)
    before = rows_of(path, quoted)
    for archive in (Archive(folder=str(folder)), Archive(table=f"{name}_kept"), None):
        sought = rule(name, archive=archive, where=f"{quoted} % 3 = {0 if archive and archive.folder else 1}")
        sought = sought._replace(expiry=sought.expiry._replace(where=sought.expiry.where if archive else ""))
        done = room.run(sought, children="archive" if archive and archive.folder else "delete", pace=3)
        assert (done.rows, done.children) == ((6, 12) if archive else (5, 10))
    archived = rows_in_files(folder)
    assert len(archived) == 6 + 12
    parents = [row for row in archived if "i d" in row]
    assert content(parents, rows_of(path, kept), rows_of(path, quoted)) <= content(before)
    assert len(rows_of(path, quoted)) == 23
    assert len(rows_of(path, "[child {}]")) == 46


REFUSED = {
    "a view": (rule("v"), "not_applicable", "view"),
    "a virtual table": (rule("f"), "not_applicable", "virtual"),
    "its shadow": (rule("f_data"), "not_applicable", "virtual table f"),
    "no such column": (rule(column="nothing"), "no_such_column", "no column nothing"),
    "numbers without a unit": (rule(column="id"), "not_a_date", "date_unit"),
    "text with a unit": (rule(unit="seconds"), "not_a_date", "date_unit is for numbers"),
    "no dates": (rule(column="note"), "not_a_date", "ISO 8601"),
    "no such column in the condition": (rule(where="nothing = 1"), "bad_condition", "nothing"),
    "a condition that closes more": (rule(where="1) OR (1"), "bad_condition", "cannot stand there"),
    "a condition that opens more": (rule(where="(1"), "bad_condition", "not closed"),
    "a comment that hides the end": (rule(where="1 /* "), "bad_condition", "cannot stand there"),
    "two statements": (rule(where="1; DROP TABLE t"), "bad_condition", "; cannot"),
    "a parameter": (rule(where="id = :end_0"), "bad_condition", ": cannot"),
    "a quote": (rule(where="note = 'x"), "bad_condition", "cannot stand there"),
    "an aggregate": (rule(where="count(*) > 1"), "bad_condition", "aggregate"),
    "an unknown function": (rule(where="shop_only(id)"), "bad_condition", "shop_only"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_meant_is_told_before_anything_is_touched(tmp_path: Path, what: str) -> None:
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT, note TEXT)",
        "INSERT INTO t VALUES (5, '2020-01-01', 'x')",
        "CREATE VIEW v AS SELECT * FROM t",
        "CREATE VIRTUAL TABLE f USING fts5(at)",
    )
    before = fingerprint(tmp_path)
    sought, code, words = REFUSED[what]
    room = Room(path)
    found = room.find(sought)
    assert (found.code, found.pieces) == (code, ())
    assert words in found.why_not
    assert fingerprint(tmp_path) == before
    assert room.look(Wants(expired=(rule("nowhere"),))).without[0].database == str(path)


def test_conditions_stand_as_they_are(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT, state TEXT)",
        "CREATE TABLE held (id)",
        "INSERT INTO held VALUES (2)",
        "INSERT INTO t VALUES (1, '2020-01-01', 'done'), (2, '2020-01-01', 'done'), (3, '2020-01-01', ':)'),"
        " (4, '2026-05-31', 'done'), (5, '2020-01-01', 'it''s done; ?')",
    )
    room = Room(path)
    where = "state = 'done' AND id NOT IN (SELECT id FROM held) -- or 1"
    assert room.find(rule(where=where)).rows == 1
    assert room.run(rule(where=where)).rows == 1
    assert room.run(rule(where="state = 'x' OR state = 'it''s done; ?'")).rows == 1
    assert [row["id"] for row in rows_of(path, "t")] == ["#2e0", "#3e0", "#4e0"]


@pytest.mark.parametrize("shown", [True, False])
def test_an_archive_table_that_is_there_already(tmp_path: Path, shown: bool) -> None:
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT, code TEXT, n INT, plus INT AS (n + 1), added REAL)",
        "CREATE TABLE kept (at, id INT, N INTEGER, code TEXT, plus INT, filled DEFAULT 5)",
        "INSERT INTO t (id, at, code, n, added) VALUES (1, '2020-01-01', '007', 3, 1.0)",
    )
    room = Room(path)
    sought = rule(archive=Archive(table="Main.KEPT"))
    found = room.find(sought)
    assert found.depot
    assert found.depot.missing == (("added", "REAL"),)
    task = room.purge(found)
    if shown:
        assert 'ALTER TABLE main."kept" ADD COLUMN "added" REAL' in room.engine.spell(task, room.server)
    assert room.carry_out(task).rows == 1
    with closing(path) as db:
        row = db.execute("SELECT id, at, code, n, plus, added, typeof(added), filled FROM kept").fetchone()
    assert row == (1, "2020-01-01", "007", 3, 4, 1.0, "real", 5)


UNFIT = {
    "code INT": "its column code is INT",
    "code TEXT, x NOT NULL": "its column x must be filled",
    "code TEXT AS ('x')": "generated",
}


@pytest.mark.parametrize("columns", UNFIT)
def test_an_archive_table_that_would_change_rows_is_refused(tmp_path: Path, columns: str) -> None:
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE t (at TEXT, code TEXT)",
        "INSERT INTO t VALUES ('2020-01-01', '007')",
        f"CREATE TABLE kept (at TEXT, {columns})",
    )
    room = Room(path)
    sought = rule(archive=Archive(table="kept"))
    found = room.find(sought)
    assert found.depot
    assert UNFIT[columns] in found.depot.why_not
    with pytest.raises(Refused, match="cannot go"):
        room.carry_out(room.purge(found))
    assert len(rows_of(path, "t")) == 1
    own = room.find(rule(archive=Archive(table="T")))
    assert own.depot
    assert own.depot.why_not


def test_numbers_that_come_again_find_room_in_the_archive(tmp_path: Path) -> None:
    """SQLite gives the number of the last row again once that is gone."""
    path = make(
        tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)", "INSERT INTO t VALUES (NULL, '2020')"
    )
    room = Room(path)
    for year in (2020, 2021):
        with closing(path) as db:
            db.execute("DELETE FROM t WHERE at = '2020'")
            db.execute(f"INSERT INTO t (at) VALUES ('{year}-01-01')")
        assert room.run(rule(archive=Archive(table="kept"))).rows == 1
    assert [row["id"] for row in rows_of(path, "kept")] == ["#1e0", "#1e0"]


@pytest.mark.parametrize("otherwise", ["", " ON CONFLICT REPLACE", " ON CONFLICT IGNORE"])
def test_an_archive_whose_keys_are_narrower_says_so(tmp_path: Path, otherwise: str) -> None:
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE t (id INT, at TEXT)",
        f"CREATE TABLE kept (id INT UNIQUE{otherwise}, at TEXT)",
        "INSERT INTO t VALUES (1, '2020-01-01'), (1, '2020-01-02')",
    )
    with pytest.raises(Refused, match="kept does not take a row"):
        Room(path).run(rule(archive=Archive(table="kept")))
    assert (len(rows_of(path, "t")), len(rows_of(path, "kept"))) == (2, 0)


def test_triggers_are_named_and_one_that_keeps_rows_stops_the_archive(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)",
        "CREATE TABLE log (id)",
        "INSERT INTO t VALUES (1, '2020-01-01'), (2, '2020-01-01')",
        'CREATE TRIGGER "after delete on" AFTER DELETE ON t BEGIN INSERT INTO log VALUES (old.id); END',
        "CREATE TRIGGER /* DELETE */ other AFTER UPDATE ON t BEGIN DELETE FROM log; END",
        "CREATE TRIGGER keeps BEFORE DELETE ON T WHEN old.id = 2 BEGIN SELECT RAISE(IGNORE); END",
    )
    room = Room(path)
    assert room.find(rule()).triggers == ("after delete on", "keeps")
    with pytest.raises(Refused, match="a trigger keeps the others"):
        room.run(rule(archive=Archive(table="kept")))
    assert (len(rows_of(path, "t")), len(rows_of(path, "kept")), len(rows_of(path, "log"))) == (2, 0, 0)
    assert room.run(rule()).rows == 1
    assert (room.find(rule()).rows, len(rows_of(path, "log"))) == (1, 1)


def test_strict_tables_and_text_that_is_no_utf8(tmp_path: Path) -> None:
    if sqlite3.sqlite_version_info < (3, 37):
        pytest.skip("STRICT came with 3.37")
    path = make(tmp_path / "a.db", "CREATE TABLE t (id TEXT PRIMARY KEY, at TEXT, x ANY) STRICT, WITHOUT ROWID")
    with closing(path) as db:
        for i, x in enumerate([1, "1", 1.5, b"1", None, 2**63 - 1, float("inf")] * 3):
            db.execute("INSERT INTO t VALUES (CAST(? AS TEXT), '2020-01-01', ?)", (b"\xff%d" % i, x))
    room, folder = Room(path), tmp_path / "f"
    before = rows_of(path, "t")
    sought = rule(archive=Archive(folder=str(folder)), where="x IS NOT NULL")
    assert room.run(sought, pace=2).rows == 18
    assert content(rows_in_files(folder), rows_of(path, "t")) == content(before)
    assert room.run(rule(archive=Archive(table="kept")), pace=2).rows == 3
    assert content(rows_in_files(folder), rows_of(path, "kept")) == content(before)


# ---- locks, time, what happens meanwhile -----------------------------------------------------------------------------


@pytest.mark.parametrize("wal", [False, True])
def test_a_lock_holder_is_named_and_nothing_is_lost(tmp_path: Path, wal: bool) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t (at TEXT)", "INSERT INTO t VALUES ('2020-01-01')", wal=wal)
    room, folder = Room(path, lock_timeout=0.2), tmp_path / "f"
    task = room.purge(room.find(rule(archive=Archive(folder=str(folder)))))
    hold = other_process(HOLD, path, "BEGIN IMMEDIATE", "INSERT INTO t VALUES ('2026-01-01')")
    with hold as other, pytest.raises(Busy, match=f"process {other.pid}"):
        room.carry_out(task)
    assert not folder.exists() or not list(folder.iterdir())
    assert room.carry_out(task).rows == 1


def test_a_reader_that_holds_up_the_commit_leaves_no_row_in_two_places(tmp_path: Path) -> None:
    """Without a write-ahead log a commit waits for readers: the rows are on disk in the file by then."""
    path = make(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)")
    with closing(path) as db:
        db.executemany("INSERT INTO t (at) VALUES (?)", [("2020-01-01",)] * 50)
    room, folder = Room(path, lock_timeout=0.2), tmp_path / "f"
    before = rows_of(path, "t")
    sought = rule(archive=Archive(folder=str(folder)))
    task = room.purge(room.find(sought), pace=20)
    with other_process(HOLD, path, "BEGIN", "SELECT * FROM t"):
        with pytest.raises(Busy):
            room.carry_out(task)
        assert content(rows_of(path, "t")) == content(before)
    assert room.settle(sought) == 0
    assert room.carry_out(task).rows == 50
    assert content(rows_in_files(folder), rows_of(path, "t")) == content(before)


def test_a_count_that_takes_too_long_is_unknown(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=20000)
    room = Room(path)
    with closing(path) as db:
        db.execute("ALTER TABLE t ADD COLUMN at TEXT DEFAULT '2020-01-01'")
    slow = "(SELECT count(*) FROM t AS other WHERE other.v > t.v) >= 0"
    found = room.find(rule(where=slow, timeout=0.3))
    assert (found.rows, found.of_rows, found.pieces[0].rows) == (None, None, None)
    assert room.find(rule(timeout=60.0)).rows == 20000


def test_a_table_that_is_gone(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t (at TEXT)", "INSERT INTO t VALUES ('2020-01-01')")
    room = Room(path)
    task = room.purge(room.find(rule()))
    with closing(path) as db:
        db.execute("DROP TABLE t")
    with pytest.raises(Vanished):
        room.carry_out(task)


def test_only_what_the_proof_asks_for(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t (at TEXT)", "CREATE TABLE u (at TEXT)")
    room = Room(path)
    found = room.look(Wants(expired=(rule("t"), rule("u")), only=(room.find(rule("U")).ref,)))
    assert [e.ref.path for e in found.expired] == [("u",)]


def test_rules_for_another_file_are_not_for_this_one(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t (at TEXT)")
    room = Room(path)
    for name, here in (("a.db", 1), (str(path), 1), ("b.db", 0)):
        assert len(room.look(Wants(expired=(rule(database=name),))).expired) == here
    assert NOW > BEFORE
