# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The history of real runs: what modules did and measured is what the journal tells afterwards, without a server."""

from __future__ import annotations

import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._facts import READING
from ansible_collections.dbfleet.maintenance.plugins.module_utils._options import CONNECTION, SELECTION
from tests.fleet import Server

from .churn import churn, churn_file
from .conftest import Pool
from .module_runner import Ran, run, start, until
from .test_check_equals_run import options
from .test_runs import connected, hold

OUTCOME = ("database", "object", "kind", "status", "reason", "proven", "error")


@pytest.fixture(params=["sqlite", "postgresql-18", "mariadb"])
def asked(
    request: pytest.FixtureRequest,
    pool: Pool,
    database: Callable[[Server], str],
    lite: Callable[..., Path],
    tmp_path: Path,
) -> dict[str, Any]:
    """Options of a database that is in need of maintenance."""
    if request.param == "sqlite":
        path = lite()
        churn_file(path)
        return {"engine": "sqlite", "databases": [str(path)], "journal": str(tmp_path / "journal.sqlite")}
    server = pool.get(request.param)
    name = database(server)
    churn(server, name, small=True)
    return options(server, name, tmp_path)


def general(asked: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Without the options of one operation."""
    known = {**CONNECTION, **SELECTION, **READING}
    return {name: value for name, value in asked.items() if name in known} | more


def told(asked: dict[str, Any], *, bare: bool = False) -> dict[str, Any]:
    """The history; nobody could connect with the options that are given."""
    wrong = {} if asked["engine"] == "sqlite" else {"login_password": "wrong"}
    return run("db_history_facts", general(asked, **wrong), bare=bare).fact()


def outcomes(ran: Ran) -> set[tuple[Any, ...]]:
    steps = (
        (s, s["expected"]["seconds"], s["actual"]["bytes_freed"], s["actual"]["seconds"]) for s in ran.fact()["steps"]
    )
    return {(*(s[name] for name in OUTCOME), *amounts) for s, *amounts in steps}


def test_what_was_done_and_measured_is_told(asked: dict[str, Any]) -> None:
    stats = run("db_stats_facts", general(asked)).fact()
    real = run("db_vacuum", asked)
    assert real.changed
    # A host on which nobody installed a driver may tell the history, too.
    fact = told(asked, bare=asked["engine"] == "mariadb")
    (last,) = fact["runs"]
    done = real.fact()["summary"]
    assert (last["operation"], last["status"], last["changed"]) == ("db_vacuum", "done", True)
    counts = ("done", "failed", "deferred", "skipped", "rows", "bytes_freed", "bytes_written")
    assert [last[name] for name in counts] == [done[name] for name in counts]
    steps = {
        (*(s[name] for name in OUTCOME), s["expected_seconds"], s["bytes_freed"], s["seconds"]) for s in fact["steps"]
    }
    assert steps == outcomes(real)
    assert sum(p["steps"] for p in fact["predictions"]) == done["done"]
    (database,) = fact["databases"]
    assert (database["database"], database["samples"]) == (asked["databases"][0], 1)
    assert database["bytes"] == stats["sizes"]["databases"][asked["databases"][0]]["bytes"]
    assert database["why"] == "too few samples (1 of 7)"
    assert [(d["free"] > 0, d["total"] >= d["free"]) for d in fact["disks"]] == [(True, True)]
    read = {} if asked["engine"] == "sqlite" else {"connections", "cache_hit_percent"}
    assert {r["metric"] for r in fact["performance"]} >= set(read)
    assert fact["failures"] == []


def test_failures_in_a_row_end_with_a_good_run(pool: Pool, database: Callable[[Server], str], tmp_path: Path) -> None:
    server = pool.get("postgresql-18")
    name = database(server)
    churn(server, name, small=True)
    asked = options(server, name, tmp_path, actions=["reclaim"], lock_timeout="50ms", retries=0, tables=["jobs"])
    with connected(server, name) as other:
        hold(other, server)
        for _night in range(2):
            run("db_vacuum", asked, fails=True)
    (failure,) = told(asked)["failures"]
    assert (failure["object"], failure["kind"], failure["times"]) == ("public.jobs", "reclaim", 2)
    assert "lock" in failure["error"]
    run("db_vacuum", asked)
    fact = told(asked)
    assert fact["failures"] == []
    assert [r["status"] for r in fact["runs"]] == ["done", "failed", "failed"]


def test_a_run_that_died_is_told_by_the_next_assessment(
    pool: Pool, database: Callable[[Server], str], tmp_path: Path
) -> None:
    server = pool.get("postgresql-18")
    name = database(server)
    churn(server, name, small=True)
    asked = options(server, name, tmp_path, actions=["reclaim"], lock_timeout="1m", tables=["jobs"])
    journal, assess = Path(asked["journal"]), general(asked, statistics=False)

    def at_work() -> bool:
        if not journal.exists():
            return False
        with closing(sqlite3.connect(journal)) as db:
            return bool(db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'steps'").fetchone()[0]) and bool(
                db.execute("SELECT count(*) FROM steps WHERE status = 'running'").fetchone()[0]
            )

    def died() -> list[str]:
        found = run("db_assess_facts", assess).fact("db_due")["findings"]
        return [one["message"] for one in found if one["code"] == "run_died"]

    with connected(server, name) as other:
        hold(other, server)
        night = start("db_vacuum", asked)
        until(at_work, what="the first step")
        assert died() == []  # it is alive
        night.send(signal.SIGKILL)
        night.wait()
        (said,) = died()
    assert re.fullmatch(
        rf"db_vacuum began at [\d-]+ [\d:]+ UTC and died: process {night.pid} is gone; it was at reclaim of"
        rf" public.jobs in {name}",
        said,
    )
    run("db_vacuum", asked)
    assert died() == []
    # A run that finds nothing left to do has come to its end, too; one in check mode says nothing of it.
    with closing(sqlite3.connect(journal)) as db, db:
        db.execute("UPDATE runs SET status = 'interrupted'")
    run("db_vacuum", asked, check=True)
    assert len(died()) == 1
    run("db_vacuum", asked)
    assert died() == []


def test_modules_forget_what_is_older_than_they_are_told(lite: Callable[..., Path], tmp_path: Path) -> None:
    """Runs of three weeks, each a week after the other; check mode forgets nothing."""
    path, journal = lite(), tmp_path / "journal.sqlite"
    churn_file(path)
    asked = {"engine": "sqlite", "databases": [str(path)], "journal": str(journal), "journal_keep": "10d"}
    forced = {"force": True, "tables": ["jobs"]}
    runs, sizes = [], []
    for _week in range(4):
        if journal.exists():
            with closing(sqlite3.connect(journal)) as db, db:
                db.execute("UPDATE runs SET began = began - 7 * 86400")
                db.execute("UPDATE sizes SET at = at - 7 * 86400, hour = hour - 7 * 24")
        run("db_vacuum", asked | forced, check=True)
        run("db_stats_facts", general(asked))
        assert run("db_vacuum", asked | forced).changed
        with closing(sqlite3.connect(journal)) as db:
            runs.append(db.execute("SELECT count(*) FROM runs").fetchone()[0])
            sizes.append(db.execute("SELECT count(DISTINCT hour) FROM sizes").fetchone()[0])
    # By the run before: two weeks old, then, are those before the last but one.
    assert (runs, sizes[-1]) == ([1, 2, 3, 3], 3)
