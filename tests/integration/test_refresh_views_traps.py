# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_refresh_views in bad company: views that fail, lock holders, kills, stops, poor logins, a standby."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fleet import Fleet, Server

from .module_runner import run, start, until
from .pg import role, transaction
from .views import CHAIN, SETTING, SHOP, asked, assessed, make_shop, names, reason

Make = Callable[[Server], str]


@pytest.fixture
def shop(postgresql: Server, database: Make) -> tuple[Server, str]:
    return make_shop(postgresql, database(postgresql))


def test_a_failing_view_stops_only_what_reads_it(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    server.script(
        """
        CREATE MATERIALIZED VIEW ratio AS SELECT 10 / id AS n FROM other;
        CREATE MATERIALIZED VIEW over_ratio AS SELECT sum(n) AS n FROM ratio;
        CREATE MATERIALIZED VIEW twin AS SELECT id FROM other;
        CREATE UNIQUE INDEX ON twin (id);
        CREATE FUNCTION hidden() RETURNS int IMMUTABLE LANGUAGE plpgsql
            AS 'BEGIN RETURN (SELECT count(*) FROM other); END';
        CREATE MATERIALIZED VIEW lost AS SELECT hidden() AS n FROM other WITH NO DATA;
        """,
        database=name,
    )
    options = asked(server, name, tmp_path, retries=0)
    run("db_refresh_views", options, fails=True)
    server.sql("INSERT INTO other VALUES (0), (0)", database=name)
    ran = run("db_refresh_views", options, fails=True)
    status = {s["object"].removeprefix("public."): (s["status"], s["error"] or "") for s in ran.fact()["steps"]}
    assert {n for n, (s, _e) in status.items() if s == "failed"} == {"ratio", "twin", "lost"}
    assert "division by zero" in status["ratio"][1]
    assert "duplicate" in status["twin"][1] or "unique" in status["twin"][1]
    assert "pg_catalog only" in status["lost"][1], "a name that is not found is not a view that has vanished"
    assert status["over_ratio"][0] == "skipped"
    assert "ratio" in status["over_ratio"][1]
    assert status["elsewhere"][0] == "done"
    assert ran.changed
    server.sql("DELETE FROM other WHERE id = 0", database=name)
    healed = run("db_refresh_views", {**options, "views": ["*", "-lost"]})
    assert names(healed, "done") == {"ratio", "over_ratio", "twin", "elsewhere"}
    assert not run("db_refresh_views", {**options, "views": ["*", "-lost"]}).changed


def test_readers_go_on_beside_a_concurrent_refresh(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    options = asked(server, name, tmp_path, lock_timeout="300ms", retries=0)
    run("db_refresh_views", options)
    server.sql("INSERT INTO orders VALUES (9001, 1, 1); INSERT INTO events VALUES ('2026-05-05', 1)", database=name)
    with transaction(server, name, "SELECT count(*) FROM e_totals", "SELECT count(*) FROM by_day") as reader:
        ran = run("db_refresh_views", {**options, "views": ["e_totals", "by_day"]}, fails=True)
        assert names(ran, "done") == {"e_totals"}
        assert names(ran, "failed") == {"by_day"}, "a plain one waits no longer than lock_timeout"
        reader.execute("SELECT count(*) FROM by_day")
    assert names(run("db_refresh_views", options), "done") == {"by_day", *CHAIN[1:]}


def test_a_writer_of_the_view_is_waited_for_by_a_concurrent_refresh(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    options = asked(server, name, tmp_path, lock_timeout="200ms", retries=0, views=["e_totals"])
    with transaction(server, name, SETTING) as holder:
        running = start("db_refresh_views", options)
        waits = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'REFRESH%' AND wait_event_type = 'Lock'"
        until(lambda: server.sql(waits) != [], what="the wait")
        assert server.sql("SELECT count(*) FROM e_totals", database=name) == [["97"]], "nobody queues behind it"
        time.sleep(0.5)
        assert running.poll() is None
        holder.execute("COMMIT")
        assert names(running.wait(), "done") == {"e_totals"}
    with transaction(server, name, SETTING):
        server.sql("INSERT INTO orders VALUES (9001, 1, 1)", database=name)
        ran = run("db_refresh_views", {**options, "concurrent_wait": "300ms"}, fails=True)
        assert names(ran, "failed") == {"e_totals"}


def test_the_hard_stop_ends_a_refresh_and_leaves_nothing(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    server.script(
        """
        CREATE FUNCTION wait() RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(30); RETURN 0; END';
        CREATE MATERIALIZED VIEW slow AS SELECT count(*) + wait() AS n FROM other WITH NO DATA;
        CREATE MATERIALIZED VIEW after_slow AS SELECT n FROM slow WITH NO DATA;
        """,
        database=name,
    )
    began = time.monotonic()
    ran = run("db_refresh_views", asked(server, name, tmp_path, views=["*slow"], time_budget="2s"))
    assert time.monotonic() - began < 15
    assert names(ran, "deferred") == {"slow"}
    assert names(ran, "skipped") == {"after_slow"}
    assert not ran.changed
    assert server.sql("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'REFRESH%' AND state = 'active'") == []
    assert server.sql("SELECT relispopulated FROM pg_class WHERE relname = 'slow'", database=name) == [["f"]]


def test_a_killed_refresh_is_on_no_record(shop: tuple[Server, str], tmp_path: Path) -> None:
    """The server may end what the dead run began, or not: the next run cannot know, and refreshes."""
    server, name = shop
    slow = "pg_sleep(CASE current_setting('application_name') WHEN 'fleet' THEN 0 ELSE 2 END)"
    server.sql(f"CREATE MATERIALIZED VIEW slow AS SELECT {slow}::text AS nothing, * FROM other LIMIT 1", database=name)
    options = asked(server, name, tmp_path, views=["slow"])
    child = start("db_refresh_views", options)
    under_way = "SELECT 1 FROM pg_stat_activity WHERE query ~ '^REFRESH' AND state = 'active'"
    until(lambda: server.sql(under_way), 30, "the refresh")
    child.send(signal.SIGKILL)
    assert child.wait().code < 0
    ran = run("db_refresh_views", options)
    assert reason(ran, "slow") == "no refresh is on record"
    assert names(ran, "done") == {"slow"}
    assert run("db_refresh_views", options).steps() == []


def test_a_poor_login_is_told_what_it_lacks(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    newer = int(server.version.split(".")[0]) >= 17
    keeper = f"keeper_{name}"
    with role(server, keeper, database=name) as login:
        options = {**asked(server, name, tmp_path, views=["elsewhere"]), **login}
        ran = run("db_refresh_views", options)
        assert ran.steps() == []
        (found,) = [f for f in ran.fact()["findings"] if f["code"] == "may_not_refresh"]
        assert "elsewhere" in found["message"]
        assert found["fix"].startswith("GRANT MAINTAIN" if newer else "ALTER MATERIALIZED VIEW")
        if not newer:
            server.sql(f"GRANT CREATE ON SCHEMA public TO {keeper}", database=name)
            server.sql(f"GRANT SELECT ON other TO {keeper}", database=name)
        server.sql(found["fix"], database=name)
        assert names(run("db_refresh_views", options), "done") == {"elsewhere"}
        assert not run("db_refresh_views", options).changed
        server.sql(f"ALTER MATERIALIZED VIEW elsewhere OWNER TO {server.user}", database=name)


def test_a_standby_is_left_alone(fleet: Fleet, tmp_path: Path) -> None:
    primary = fleet.postgresql(18, name="views")
    primary.sql("CREATE DATABASE shop")
    primary.script(SHOP, database="shop")
    standby = fleet.postgresql_standby(primary)
    standby.catch_up()
    ran = run("db_refresh_views", asked(standby, "shop", tmp_path))
    assert not ran.changed
    assert names(ran, "skipped") == {*CHAIN, "by_day", "elsewhere"}
    assert all("standby" in s["error"] for s in ran.fact()["steps"])
    due = assessed({**asked(standby, "shop", tmp_path), "refresh_views": {}})["refresh_views"]
    assert (due["due"], due["skipped"]) == (False, 7)
    primary.stop()
