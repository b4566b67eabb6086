# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the SQLite engine measures: tables, statistics, and bloat against what VACUUM frees."""

from __future__ import annotations

import random
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import bloat as bloat_room
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    Refused,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Ref,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    Analyze,
    Rebuild,
)
from tests.integration.lite import carried_out, closing, engine_of, fill, make, measured, named, rate

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
    started = time.process_time()
    found = measured(path, Wants(tables=True, bloat=True, leftovers=True), engine)
    assert len(found.tables) == 3001
    assert time.process_time() - started < 6


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
