# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs of db_vacuum in bad company: lock holders, rivals, signals, stop files, budgets, bad input, no driver."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines import open_engine
from ansible_collections.dbfleet.maintenance.plugins.module_utils._options import CONNECTION, EXECUTION, SELECTION
from ansible_collections.dbfleet.maintenance.plugins.module_utils._protocols import Engine
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution
from tests.fleet import Fleet, Server

from .churn import churn
from .conftest import Pool
from .module_runner import run, start, until
from .test_check_equals_run import SERVERS, options


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, pool: Pool) -> Server:
    return pool.get(str(request.param))


@contextmanager
def connected(server: Server, database: str) -> Iterator[Any]:
    """A driver's connection in a transaction, as an application has it."""
    if server.engine == "postgresql":
        import psycopg2

        db: Any = psycopg2.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, dbname=database
        )
    else:
        import pymysql

        db = pymysql.connect(
            host=server.host, port=server.port, user=server.user, password=server.password, database=database
        )
    try:
        yield db.cursor()
    finally:
        db.close()


def hold(cursor: Any, server: Server) -> None:
    """A transaction that has written to jobs and sits there."""
    cursor.execute("BEGIN")
    cursor.execute("UPDATE jobs SET state = 'held' WHERE id = 5")
    if server.engine == "postgresql":
        cursor.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")


def test_a_lock_holder_fails_one_step_and_no_other(
    server: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    name = database(server)
    churn(server, name, small=True)
    with connected(server, name) as cursor:
        hold(cursor, server)
        ran = run("db_vacuum", options(server, name, tmp_path, lock_timeout="1s", retries=1), fails=True)
    status = {s["object"]: s["status"] for s in ran.fact()["steps"] if s["kind"] != "drop_leftover"}
    (held,) = [o for o in status if o.endswith("jobs")]
    assert status.pop(held) == "failed"
    assert set(status.values()) == {"done"}
    assert "jobs" in ran.result["msg"]
    assert server.password not in ran.text
    assert run("db_vacuum", options(server, name, tmp_path)).steps() != []
    assert not run("db_vacuum", options(server, name, tmp_path)).changed


def guarded(server: Server) -> Engine:
    """The engine as a module opens it: its guard is the one that modules take."""
    params = {name: spec.get("default") for name, spec in {**CONNECTION, **SELECTION, **EXECUTION}.items()}
    return open_engine({**params, **server.login()}, Execution())


def test_a_run_meets_another(server: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(server)
    churn(server, name, small=True)
    engine = guarded(server)
    engine.greet()
    with engine.guard([name], 0):
        turned_away = run("db_vacuum", options(server, name, tmp_path), fails=True)
        assert "another run" in turned_away.result["msg"]
        assert not turned_away.result["changed"]
        skipped = run("db_vacuum", options(server, name, tmp_path, if_running="skip"))
        assert not skipped.changed
        assert {s["status"] for s in skipped.fact()["steps"]} == {"skipped"}
        assert "already_running" in skipped.codes()
        assert run("db_vacuum", options(server, name, tmp_path), check=True).changed
        impatient = run("db_vacuum", options(server, name, tmp_path, if_running="wait", time_budget="2s"), fails=True)
        assert "another run" in impatient.result["msg"]
        patient = start("db_vacuum", options(server, name, tmp_path, if_running="wait"))
        time.sleep(1.5)
        assert patient.poll() is None
    engine.close()
    assert patient.wait().changed
    assert not run("db_vacuum", options(server, name, tmp_path)).changed


def test_two_runs_at_once_do_each_step_once(server: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(server)
    churn(server, name, small=True)
    expected = run("db_vacuum", options(server, name, tmp_path), check=True).steps()
    both = [start("db_vacuum", options(server, name, tmp_path, if_running="wait")) for _number in range(2)]
    done = [step for child in both for step in child.wait().steps()]
    assert sorted(done) == sorted(expected)
    assert not run("db_vacuum", options(server, name, tmp_path)).changed


@pytest.mark.parametrize("how", ["SIGTERM", "stop_file"])
def test_a_stop_leaves_nothing_behind(
    server: Server, database: Callable[[Server], str], tmp_path: Path, how: str
) -> None:
    name = database(server)
    churn(server, name, small=True)
    stop = tmp_path / "stop"
    asked = options(server, name, tmp_path, lock_timeout="60s", jobs=1, stop_file=str(stop))
    with connected(server, name) as cursor:
        hold(cursor, server)
        child = start("db_vacuum", asked)
        until((tmp_path / "journal" / "journal.sqlite").exists, what="the run's journal")
        until(lambda: waits_for_lock(server), 30, "a step that waits")
        if how == "stop_file":
            stop.touch()
        else:
            child.send(signal.SIGTERM)
        ran = child.wait(20)
        cursor.execute("ROLLBACK")
    assert "deferred" in {s["status"] for s in ran.fact()["steps"]}
    assert any("stop" in (s["error"] or "").lower() for s in ran.fact()["steps"])
    stop.unlink(missing_ok=True)
    again = run("db_vacuum", asked)
    assert {s["status"] for s in again.fact()["steps"]} == {"done"}
    assert not run("db_vacuum", asked).changed


def waits_for_lock(server: Server) -> bool:
    if server.engine == "postgresql":
        return server.sql("SELECT count(*) FROM pg_catalog.pg_locks WHERE NOT granted")[0][0] != "0"
    return any("metadata lock" in " ".join(row) for row in server.sql("SHOW FULL PROCESSLIST"))


@pytest.mark.parametrize("key", ["postgresql-16", "mariadb"])
def test_a_budget_and_a_window_defer_and_the_next_run_goes_on(
    pool: Pool, database: Callable[[Server], str], tmp_path: Path, key: str
) -> None:
    """The same for every engine: none of them is asked."""
    server = pool.get(key)
    name = database(server)
    churn(server, name, small=True)
    later = datetime.now(UTC) + timedelta(hours=3)
    window = f"{later:%H:%M}-{later + timedelta(hours=1):%H:%M}"
    for check in (True, False):
        ran = run("db_vacuum", options(server, name, tmp_path, window=window), check=check)
        assert not ran.changed
        assert {s["status"] for s in ran.fact()["steps"]} == {"deferred"}
        assert "outside_window" in ran.codes()
    nothing = run("db_vacuum", options(server, name, tmp_path, time_budget="1ms"))
    assert not nothing.changed
    assert {s["status"] for s in nothing.fact()["steps"]} == {"deferred"}
    assert run("db_vacuum", options(server, name, tmp_path)).changed
    assert not run("db_vacuum", options(server, name, tmp_path)).changed


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"databases": ["no_such_database"]}, "no_such_database"),
        ({"tables": ["[a-z]*"]}, "["),
        ({"dead_percent": 140}, "dead_percent"),
        ({"reclaim_min_size": "100GB"}, "reclaim_max_size"),
        ({"reclaim_min_size": "much"}, "reclaim_min_size"),
        ({"lock_timeout": "1 fortnight"}, "lock_timeout"),
        ({"force": True}, "force"),
        ({"jobs": 0}, "jobs"),
        ({"max_replica_lag": "5s"}, "replicas"),
        ({"window": "26:00-27:00"}, "window"),
        ({"login_password": "wrong"}, ""),
    ],
)
def test_bad_input_is_refused_before_anything_is_touched(
    pool: Pool, database: Callable[[Server], str], tmp_path: Path, bad: dict[str, Any], word: str
) -> None:
    for key in ("postgresql-16", "mariadb"):
        server = pool.get(key)
        name = database(server)
        server.mark_log()
        ran = run("db_vacuum", options(server, name, tmp_path, **bad), fails=True)
        assert word in ran.result["msg"]
        assert ran.result["changed"] is False
        assert server.password not in ran.text
        assert "Traceback" not in ran.text


def test_what_an_engine_does_not_have_is_refused(
    mysql: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    name = database(mysql)
    for bad in ({"actions": ["freeze"]}, {"vacuum_cost_delay": 2}):
        ran = run("db_vacuum", options(mysql, name, tmp_path, **bad), fails=True)
        assert next(iter(bad)) in ran.result["msg"]


def test_no_driver_names_the_package(pool: Pool, database: Callable[[Server], str], tmp_path: Path) -> None:
    for key, package in (("postgresql-16", "psycopg2-binary"), ("mariadb", "PyMySQL")):
        server = pool.get(key)
        child = start("db_vacuum", options(server, database(server), tmp_path), bare=True)
        ran = child.wait()
        assert ran.result["failed"]
        assert package in ran.result["msg"]
        assert "Traceback" not in ran.text


def test_a_server_that_is_not_there(fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.postgresql(16, name="gone")
    asked = options(server, "postgres", tmp_path, connect_timeout=5)
    server.stop()
    ran = run("db_vacuum", asked, fails=True)
    assert f"{server.host}:{server.port}" in ran.result["msg"]
    assert server.password not in ran.text


def test_an_empty_server(fleet: Fleet, tmp_path: Path, pool: Pool) -> None:
    del fleet
    for key in SERVERS:
        server = pool.get(key)
        server.sql("CREATE DATABASE empty_one")
        try:
            ran = run("db_vacuum", options(server, "empty_one", tmp_path))
            assert not ran.changed
            assert ran.steps() == []
        finally:
            server.sql("DROP DATABASE empty_one")
