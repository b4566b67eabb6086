# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module db_history_facts around its fact: which server, what is selected, what is capped. No server is asked."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Manner
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.addresses import addresses, databases
from ansible_collections.dbfleet.maintenance.plugins.module_utils._health import (
    CACHE_HITS,
    CONNECTIONS,
    DISK,
    STATEMENTS,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._history import history_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Amount, Outcome, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import open_journal
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Vacuum
from ansible_collections.dbfleet.maintenance.plugins.modules import db_history_facts

from .modules import Ran, run
from .run.engines import step
from .samples import GB, MB
from .world import World

SERVER, FOLDER = "db1:5432", "/srv/backups on host"


def tell(path: Path | str, **options: Any) -> dict[str, Any]:
    return dict(ran(path, **options).fact)


def ran(path: Path | str, **options: Any) -> Ran:
    world = World()
    found = run(history_module, world, {"login_host": "db1", "journal": str(path), **options})
    assert (world.looks, world.ran) == ([], [])
    return found


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten nights of two servers, of which the last but one went wrong in part; and of a folder of backups."""
    path = tmp_path_factory.mktemp("history") / "journal.sqlite"
    now = datetime.now(UTC)
    for night in range(10):
        for address, database in ((SERVER, "shop"), ("db2:5432", "crm"), (FOLDER, "")):
            with open_journal(str(path), address, readonly=False) as writing:
                writing.begin_run("db_vacuum")
                for name in ("orders", "log"):
                    planned = step(name, size=1000, expected=Amount(bytes=100, seconds=2.0))
                    planned = planned._replace(task=Vacuum(Ref(database, ("public", name))), reason="dead rows")
                    failed = name == "log" and night > 7
                    writing.start(planned, ["VACUUM (do not tell)"])
                    writing.close(
                        Outcome(planned, "failed", error="lock timeout")
                        if failed
                        else Outcome(planned, "done", Amount(bytes=50, seconds=1.0), changed=True, proven=True)
                    )
                writing.end_run("failed" if night > 7 else "done")
                sizes = [
                    (Ref(database), GB + night * 2 * MB, 100 + night),
                    (Ref(database, ("public", "orders")), night * MB, night),
                    (CONNECTIONS, 10, 97),
                    (STATEMENTS, 10**6 * night, night),
                    (CACHE_HITS, 9 * night, 10 * night),
                    (Ref("", (DISK, "data")), 10 * GB, 20 * GB),
                ]
                writing.sample_all(sizes if database else [], now - timedelta(days=10 - night))
    return path


def test_the_server_of_the_connection_and_no_other(journal: Path) -> None:
    fact = tell(journal, until_database_size="2GB", until_table_size="1GB")
    assert fact["server"] == {"address": SERVER}
    assert [s["server"] for s in fact["servers"]] == [FOLDER, SERVER, "db2:5432"]
    assert fact["summary"] == {
        "runs": 10,
        "failed_runs": 2,
        "steps": 20,
        "failed_steps": 2,
        "failures": 1,
        "databases": 1,
        "tables": 1,
        "bytes_freed": 50 * 18,
        "rows": 0,
        "seconds": pytest.approx(0, abs=60),
    }
    newest, oldest = fact["runs"][0], fact["runs"][-1]
    assert (newest["status"], newest["steps"], newest["done"], newest["failed"]) == ("failed", 2, 1, 1)
    assert newest["error"] == "public.log: lock timeout"
    assert (oldest["status"], oldest["changed"], oldest["bytes_freed"], oldest["error"]) == ("done", True, 100, None)
    assert fact["runs"] == sorted(fact["runs"], key=lambda r: r["run"], reverse=True)
    last = [(s["object"], s["status"]) for s in fact["steps"][:2]]
    assert last == [("public.log", "failed"), ("public.orders", "done")]
    (failure,) = fact["failures"]
    assert (failure["database"], failure["object"], failure["kind"]) == ("shop", "public.log", "vacuum")
    assert (failure["times"], failure["error"]) == (2, "lock timeout")
    (prediction,) = fact["predictions"]
    half = {"steps": 18, "median": 0.5, "p10": 0.5, "p90": 0.5}
    assert prediction["seconds_ratio"] == prediction["bytes_ratio"] == half
    assert prediction["rows_ratio"] is None


def test_trends_of_what_was_sampled(journal: Path) -> None:
    fact = tell(journal, until_database_size="2GB", until_table_size="19MB")
    (database,) = fact["databases"]
    assert (database["database"], database["samples"]) == ("shop", 10)
    assert (database["bytes"], database["rows"]) == (GB + 18 * MB, 109)
    assert database["bytes_per_day"] == pytest.approx(2 * MB, rel=0.01)
    assert database["rows_per_day"] == 1
    assert database["days_until_full"] == pytest.approx(5120, rel=0.01)
    assert database["days_until_size"] == pytest.approx((GB - 18 * MB) / (2 * MB), rel=0.01)
    assert [size for _at, size in database["points"]] == [GB + night * 2 * MB for night in range(10)]
    (table,) = database["tables"]
    assert (table["object"], table["why"]) == ("public.orders", None)
    assert table["days_until_size"] == pytest.approx(10, rel=0.01)
    (disk,) = fact["disks"]
    assert (disk["disk"], disk["free"], disk["total"]) == ("data", 10 * GB, 20 * GB)
    assert disk["days_until_full"] == database["days_until_full"]
    readings = {r["metric"]: (r["last"], r["per_day"], r["most"]) for r in fact["performance"]}
    assert readings == {
        "connections": (10, 0, 97),
        "statement_seconds": (1.0, 0, None),
        "cache_hit_percent": (90, 0, None),
    }


def test_the_shape_is_the_documented_one(journal: Path, tmp_path: Path) -> None:
    documented = yaml.safe_load(db_history_facts.RETURN)["ansible_facts"]["contains"]["db_history"]["contains"]
    own = tmp_path / "journal.sqlite"
    own.write_bytes(journal.read_bytes())
    with open_journal(str(own), SERVER, readonly=False) as writing:
        writing.begin_run("db_backup")
        writing.close(Outcome(step("x", size=1)._replace(task=Dump(Ref("shop"), "dump", Manner("/b"))), "done"))
    fact = tell(own)
    assert fact.keys() == documented.keys()
    for name, told in documented.items():
        found, sample = fact[name], told["sample"]
        if isinstance(sample, dict):
            assert found.keys() == sample.keys(), name
        elif isinstance(sample, list) and found:
            assert found[0].keys() == sample[0].keys(), name
    (database,) = fact["databases"]
    assert database["tables"][0].keys() == documented["databases"]["sample"][0]["tables"][0].keys()
    assert [name for name, found in fact.items() if found == []] == []


def test_other_servers_and_folders_by_their_names(journal: Path) -> None:
    assert {r["server"] for r in tell(journal, servers=["* on host"])["runs"]} == {FOLDER}
    fact = tell(journal, servers=["*"])
    assert {r["server"] for r in fact["runs"]} == {SERVER, "db2:5432", FOLDER}
    assert {(d["server"], d["database"]) for d in fact["databases"]} == {(SERVER, "shop"), ("db2:5432", "crm")}
    assert [f["times"] for f in fact["failures"]] == [2, 2, 2]


def test_databases_and_tables_are_selected(journal: Path) -> None:
    fact = tell(journal, servers=["*"], databases=["crm"])
    assert {r["server"] for r in fact["runs"]} == {"db2:5432"}
    assert [d["database"] for d in fact["databases"]] == ["crm"]
    fact = tell(journal, tables=["-orders"])
    assert {s["object"] for s in fact["steps"]} == {"public.log"}
    assert {(r["steps"], r["bytes_freed"]) for r in fact["runs"]} == {(1, 50), (1, 0)}
    assert fact["databases"][0]["tables"] == []
    assert tell(journal, databases=["gone"])["runs"] == []


def test_long_lists_are_cut_and_the_newest_stay(journal: Path) -> None:
    fact = tell(journal, max_results=3)
    assert (len(fact["runs"]), len(fact["steps"])) == (3, 3)
    assert fact["summary"]["steps"] == 20
    assert fact["steps"][0] == tell(journal)["steps"][0]


def test_only_the_time_asked_for(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    fact = tell(journal, since="1h")
    assert (fact["runs"], fact["steps"], fact["databases"], fact["failures"]) == ([], [], [], [])
    assert fact["journal"]["first_at"]


def test_how_long_a_run_took_is_unknown_where_the_clock_was_put_back(journal: Path, tmp_path: Path) -> None:
    own = tmp_path / "journal.sqlite"
    own.write_bytes(journal.read_bytes())
    with closing(sqlite3.connect(own, isolation_level=None)) as db:
        db.execute("UPDATE runs SET ended = began - 3600 WHERE id = 1")
        db.execute("UPDATE runs SET ended = began + 7 WHERE id = 4")
    seconds = {r["run"]: r["seconds"] for r in tell(own)["runs"]}
    assert (seconds[1], seconds[4]) == (None, 7)


def test_a_server_that_the_journal_does_not_know(journal: Path) -> None:
    fact = tell(journal, login_host="db9")
    assert (fact["server"]["address"], fact["runs"], fact["summary"]["steps"]) == ("db9:5432", [], 0)
    assert len(fact["servers"]) == 3
    fact = tell(journal.parent / "none.sqlite")
    assert fact["journal"]["path"] is None and fact["journal"]["why"]


def test_statements_and_secrets_stay_in_the_journal(journal: Path) -> None:
    assert "do not tell" not in json.dumps(ran(journal).result)


@pytest.mark.parametrize(
    "wrong", [{"since": "soon"}, {"journal": "relative"}, {"databases": [""]}, {"max_results": 0}, {"servers": ["a|b"]}]
)
def test_options_that_cannot_be_meant(journal: Path, wrong: dict[str, Any]) -> None:
    found = ran(journal, **wrong)
    assert found.code == 1
    assert next(iter(wrong)) in found.result["msg"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"engine": "postgresql", "login_host": "db1", "login_port": 5433}, ("db1:5433",)),
        ({"engine": "postgresql", "login_host": "a,b", "login_port": 5433}, ("a:5433", "b:5433")),
        ({"engine": "postgresql", "login_unix_socket": "/run/pg"}, ("/run/pg:5432",)),
        ({"engine": "mariadb", "login_host": "db1"}, ("db1:3306",)),
        ({"engine": "mysql", "login_unix_socket": "/run/mysqld.sock"}, ("/run/mysqld.sock",)),
    ],
)
def test_a_server_is_named_as_when_it_is_connected_to(options: dict[str, Any], wanted: tuple[str, ...]) -> None:
    assert addresses(options) == wanted


def test_files_are_selected_by_their_real_paths(tmp_path: Path) -> None:
    real, link = tmp_path / "data", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)

    def takes(*patterns: str, path: str = "a [1].db") -> bool:
        return databases({"engine": "sqlite", "databases": list(patterns)})(f"{real}/{path}")

    assert takes("*") and takes(f"{link}/*.db") and takes(f"{link}/a [1].db") and takes(f"{tmp_path}/**/a*")
    assert takes(f"{tmp_path}/data/?*") and takes(f"{tmp_path}/d*/*.db") and takes("/**/*.db", path="x/y.db")
    assert not takes(f"{link}/*.db", "-a*") and not takes(f"{link}/*.sqlite") and not takes(f"{tmp_path}/*.db")
    assert not takes(f"{link}/*.db", path="deeper/a.db") and not takes(f"{link}/a ?1.db")
