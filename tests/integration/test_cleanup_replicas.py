# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_cleanup beside real replicas: it waits for those that lag, and leaves standbys alone."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.fleet import Fleet, Missing, MySQL, Server

from .conftest import POSTGRESQL, missing
from .module_runner import Running, run, start, until

ROWS = 5000
DUE = 4000
EACH = 0.001  # seconds that the deletion of a row takes: a trigger sees to it
SETTLED = 1.5  # seconds: longer than a reading of the lag is kept, and than the pause between two


class Pair(NamedTuple):
    """A primary with a table of old rows, and its replica."""

    primary: Server
    replica: Server
    stop: str  # what the replica is told, so that it applies no more
    go: str
    settle: Callable[[], None]
    fill: str

    def options(self, **more: Any) -> dict[str, Any]:
        rule = {"name": "old", "table": "t", "date_column": "at", "delete_after": "90d", "refuse_over_percent": 100}
        replicas = {"replicas": [f"{self.replica.host}:{self.replica.port}"], "max_replica_lag": "1s"}
        given = {"databases": ["shop"], "rules": [rule], "journal": "none", "batch_seconds": 0.1}
        return {**self.primary.login(), **replicas, **given, **more}

    def rows(self, where: Server | None = None) -> int:
        ((count,),) = (where or self.primary).sql("SELECT count(*) FROM t", database="shop")
        return int(count)

    def stands_still(self) -> bool:
        """No row leaves for longer than anything takes but a wait."""
        before = self.rows()
        time.sleep(SETTLED)
        return self.rows() == before


def _mysql(fleet: Fleet, name: str) -> Pair:
    if name == "mysql":
        primary: MySQL = fleet.mysql()
        replica = fleet.mysql_replica(primary)
    else:
        maria = primary = fleet.mariadb()
        replica = fleet.mariadb_replica(maria)
    primary.sql("CREATE DATABASE shop")
    numbers = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 1000) SELECT i FROM s"
    days = f"IF(n <= {DUE}, 100, 10)"
    primary.sql("CREATE TABLE t (id int PRIMARY KEY, at datetime, note varchar(50), KEY (at))", database="shop")
    primary.sql(f"CREATE TRIGGER slow BEFORE DELETE ON t FOR EACH ROW DO SLEEP({EACH})", database="shop")
    fill = (
        f"TRUNCATE t; INSERT INTO t SELECT n, utc_timestamp() - INTERVAL {days} DAY, 'x' FROM"
        f" (SELECT a.i + 1000 * (b.i - 1) AS n FROM ({numbers}) a, ({numbers} LIMIT {ROWS // 1000}) b) q;"
    )
    words = ("STOP REPLICA SQL_THREAD", "START REPLICA SQL_THREAD")
    return Pair(primary, replica, *words, lambda: replica.catch_up(primary), fill)


def _postgresql(fleet: Fleet) -> Pair:
    primary = fleet.postgresql(POSTGRESQL[-1])
    primary.sql("CREATE DATABASE shop")
    primary.script(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, note text); CREATE INDEX ON t (at);"
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN PERFORM pg_catalog.pg_sleep({EACH}); RETURN old; END$$;"
        "CREATE TRIGGER slow BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION slow();",
        database="shop",
    )
    replica = fleet.postgresql_standby(primary)
    fill = (
        f"TRUNCATE t; INSERT INTO t SELECT n, now() - (CASE WHEN n <= {DUE} THEN 100 ELSE 10 END) * interval '1 day',"
        f" 'x' FROM generate_series(1, {ROWS}) n;"
    )
    words = ("SELECT pg_wal_replay_pause()", "SELECT pg_wal_replay_resume()")
    return Pair(primary, replica, *words, replica.catch_up, fill)


@pytest.fixture(scope="module", params=["mariadb", "mysql", "postgresql"])
def servers(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Pair]:
    try:
        found = _postgresql(fleet) if request.param == "postgresql" else _mysql(fleet, request.param)
    except Missing as why:
        missing(why)
    yield found
    found.replica.stop()
    found.primary.stop()


@pytest.fixture
def pair(servers: Pair) -> Iterator[Pair]:
    """All rows are there, and the replica has them, too."""
    servers.primary.script(servers.fill, database="shop")
    servers.settle()
    yield servers
    servers.replica.sql(servers.go)


def under_way(pair: Pair, **more: Any) -> Running:
    """A run that has taken some rows, has some left, and takes none: its replica has stopped applying."""
    running = start("db_cleanup", pair.options(**more))
    until(lambda: pair.rows() < ROWS, what="a first bite")
    pair.replica.sql(pair.stop)
    until(pair.stands_still, what="that it waits")
    assert running.poll() is None
    assert ROWS - DUE < pair.rows() < ROWS
    return running


def test_a_lag_that_grows_in_the_middle_is_waited_for(pair: Pair) -> None:
    running = under_way(pair)
    pair.replica.sql(pair.go)
    ran = running.wait()
    assert ran.code == 0 and ran.changed, ran.text
    assert pair.rows() == ROWS - DUE
    pair.settle()
    assert pair.rows(pair.replica) == ROWS - DUE
    (step,) = [s for s in ran.fact()["steps"] if s["kind"] == "delete"]
    assert step["status"] == "done" and step["proven"] and step["actual"]["rows"] == DUE


def test_a_lag_that_outlasts_the_budget_defers(pair: Pair) -> None:
    running = under_way(pair, time_budget="10s")
    left = pair.rows()
    ran = running.wait()
    (step,) = [s for s in ran.fact()["steps"] if s["kind"] == "delete"]
    assert step["status"] == "deferred" and "lag of the replicas" in step["error"], step
    assert step["actual"]["rows"] == ROWS - left == ROWS - pair.rows()
    pair.replica.sql(pair.go)
    pair.settle()
    # What was put off is done, and once.
    assert run("db_cleanup", pair.options()).changed
    assert pair.rows() == ROWS - DUE
    assert not run("db_cleanup", pair.options()).changed


def test_an_unknown_lag_is_too_much(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    ran = run("db_cleanup", pair.options(time_budget="2s", replicas=[f"127.0.0.1:{port}"]))
    (step,) = [s for s in ran.fact()["steps"] if s["kind"] == "delete"]
    assert step["status"] == "deferred" and "unknown" in step["error"], step
    assert not ran.changed and pair.rows() == ROWS


def test_a_standby_is_left_alone(pair: Pair) -> None:
    """Its rows leave with those of the primary, also where the login could write in spite of read_only."""
    options = {**pair.options(replicas=[], max_replica_lag=None), **pair.replica.login()}
    for ran in (run("db_cleanup", options, check=True), run("db_cleanup", options)):
        steps = ran.fact()["steps"]
        assert steps and {s["status"] for s in steps} == {"skipped"}, ran.fact()
        words = "standby" if pair.replica.engine == "postgresql" else "read_only|is a replica"
        assert all(any(word in s["error"] for word in words.split("|")) for s in steps), steps
        assert not ran.changed
    assert pair.rows(pair.replica) == pair.rows() == ROWS
