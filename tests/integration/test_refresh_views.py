# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_refresh_views: what check mode shows is what runs, a second run does nothing, and every kind of change is due."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, Server

from .conftest import Pool
from .module_runner import run, start, until
from .pg import client, writes
from .views import CHAIN, SHOP, STATE, asked, assessed, make_shop, names, reason

Make = Callable[[Server], str]


@pytest.fixture
def shop(postgresql: Server, database: Make) -> tuple[Server, str]:
    return make_shop(postgresql, database(postgresql))


def test_check_shows_what_runs_and_a_second_run_does_nothing(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    options = asked(server, name, tmp_path)
    before = server.sql(STATE, database=name)
    server.mark_log()
    check = run("db_refresh_views", options, check=True)
    assert writes(server) == []
    assert server.sql(STATE, database=name) == before
    assert not (tmp_path / "journal").exists()
    assert check.changed
    assert names(check, "planned") == {*CHAIN, "by_day", "elsewhere"}

    server.mark_log()
    real = run("db_refresh_views", options)
    said = writes(server)
    assert sorted(said) == sorted(check.statements()) == sorted(real.statements("done"))
    assert real.steps() == check.steps()
    assert [s["reason"] for s in real.fact()["steps"]] == [s["reason"] for s in check.fact()["steps"]]
    assert {s["status"] for s in real.fact()["steps"]} == {"done"}
    assert all(s["proven"] for s in real.fact()["steps"]), real.text
    refreshed = [s for s in said if s.startswith("REFRESH")]
    order = [next(i for i, s in enumerate(refreshed) if view.replace('"', '""') in s) for view in CHAIN]
    assert order == sorted(order)
    # Only what was filled before and has a unique index can be refreshed beside readers.
    assert [s for s in said if "CONCURRENTLY" in s] == ['REFRESH MATERIALIZED VIEW CONCURRENTLY "public"."e_totals"']
    assert server.sql("SELECT n FROM a_last", database=name) == server.sql(
        "SELECT count(*) + 2 FROM per_customer WHERE amount > 100", database=name
    )

    for forget in (False, True):
        if forget:
            (tmp_path / "journal" / "journal.sqlite").unlink()
            again = run("db_refresh_views", options)
            assert {s["reason"] for s in again.fact()["steps"]} == {"no refresh is on record"}
            assert names(again, "done") == names(real)
        server.mark_log()
        second = run("db_refresh_views", options)
        assert not second.changed, second.text
        assert second.steps() == []
        assert writes(server) == []


# Each is followed by one that makes other views due, and none of those before: so nothing is due twice.
CHANGES = {
    # No row of theirs changed.
    "VACUUM FULL orders": [],
    "VACUUM ANALYZE; CREATE INDEX ON orders (amount); REINDEX TABLE orders": [],
    "INSERT INTO orders VALUES (9001, 1, 1)": CHAIN,
    "UPDATE events SET n = 0 WHERE n = 1": ["by_day"],
    "UPDATE orders SET amount = amount + 1 WHERE id = 7": CHAIN,
    "TRUNCATE events_2026": ["by_day"],
    "TRUNCATE orders": CHAIN,
    "CREATE TABLE events_2027 PARTITION OF events FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')": ["by_day"],
    "COPY orders FROM STDIN;\n9002\t1\t1\n\\.\n": CHAIN,
    "ALTER TABLE events DETACH PARTITION events_2026": ["by_day"],
    "COPY orders FROM PROGRAM 'echo 9003,1,1' (FORMAT csv)": CHAIN,
    "BEGIN; DELETE FROM other WHERE id = 1; COMMIT": ["elsewhere"],
    "CREATE OR REPLACE VIEW large AS SELECT * FROM e_totals WHERE amount > 200": CHAIN[1:],
    "DELETE FROM other WHERE id = 2": ["elsewhere"],
    "REFRESH MATERIALIZED VIEW d_large": CHAIN[2:],
    "SELECT pg_stat_reset_single_table_counters('other'::regclass)": [*CHAIN, "by_day", "elsewhere"],
    "SELECT 1": [],
    "SELECT pg_stat_reset()": [*CHAIN, "by_day", "elsewhere"],
    "SELECT 2": [],
}


def test_every_kind_of_change_is_due_once_and_nothing_else(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    server.sql("ANALYZE", database=name)
    options = asked(server, name, tmp_path)
    run("db_refresh_views", options)
    for change, due in CHANGES.items():
        server.script(change, database=name)
        assert names(run("db_refresh_views", options), "done") == set(due), change


def test_a_truncated_table_without_counters_is_seen(shop: tuple[Server, str], tmp_path: Path) -> None:
    """After a reset nothing tells an empty table from one that nobody touched, but its file."""
    server, name = shop
    server.sql("SELECT pg_stat_reset()", database=name)
    options = asked(server, name, tmp_path)
    run("db_refresh_views", options)
    server.sql("TRUNCATE other", database=name)
    assert names(run("db_refresh_views", options), "done") == {"elsewhere"}
    assert server.sql("SELECT n FROM elsewhere", database=name) == [["0"]]


def test_a_change_while_a_view_is_refreshed_is_not_lost(shop: tuple[Server, str], tmp_path: Path) -> None:
    """Counted late, or committed while the refresh was under way: due the next time, and no proof is missed for it."""
    server, name = shop
    options = asked(server, name, tmp_path, views=["slow"])
    server.script(
        """
        CREATE FUNCTION wait() RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(1); RETURN 0; END';
        CREATE MATERIALIZED VIEW slow AS SELECT count(*) + wait() AS n FROM other WITH NO DATA;
        """,
        database=name,
    )
    with client(server, name) as shopper:
        # Reported at most once a second: this one's rows are counted now, and the next one's later.
        shopper.execute("INSERT INTO other VALUES (11)")
        shopper.execute("INSERT INTO other VALUES (12)")
        running = start("db_refresh_views", options)
        active = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'REFRESH%' AND wait_event = 'PgSleep'"
        until(lambda: server.sql(active) != [], what="the refresh")
        shopper.execute("INSERT INTO other VALUES (13)")
        ran = running.wait()
        assert [s["proven"] for s in ran.fact()["steps"]] == [True], ran.text
        assert "not_proven" not in ran.codes()
    assert names(run("db_refresh_views", options), "done") == {"slow"}
    assert server.sql("SELECT n FROM slow", database=name) == server.sql("SELECT count(*) FROM other", database=name)
    assert not run("db_refresh_views", options).changed


def test_after_a_crash_everything_is_refreshed_once(fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.postgresql(18, name="crashing")
    server.sql("CREATE DATABASE shop")
    server.script(SHOP, database="shop")
    # Counters stand at nothing before and after: only the crash itself tells that something may have been lost.
    server.kill()
    server.start()
    options = asked(server, "shop", tmp_path)
    run("db_refresh_views", options)
    assert not run("db_refresh_views", options).changed
    server.stop()
    server.start()
    assert not run("db_refresh_views", options).changed, "an orderly restart keeps the counters"
    server.kill()
    server.start()
    assert names(run("db_refresh_views", options), "done") >= {*CHAIN, "by_day", "elsewhere"}
    assert not run("db_refresh_views", options).changed
    server.stop()


def test_max_age_and_what_no_counter_shows(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    server.script(
        """
        CREATE MATERIALIZED VIEW recent AS SELECT id FROM orders WHERE now() > '2020-01-01';
        CREATE MATERIALIZED VIEW today AS SELECT current_date AS d;
        CREATE MATERIALIZED VIEW tables AS SELECT relname FROM pg_class;
        CREATE FUNCTION rate() RETURNS int STABLE LANGUAGE sql AS 'SELECT count(*)::int FROM public.other';
        CREATE MATERIALIZED VIEW rated AS SELECT rate();
        CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
        CREATE MATERIALIZED VIEW doubled AS SELECT twice(id), to_char(amount, '99'), format('%s', id) FROM orders;
        CREATE MATERIALIZED VIEW one AS SELECT 1 AS n;
        """,
        database=name,
    )
    options = asked(server, name, tmp_path, views=["recent", "today", "tables", "rated", "doubled", "one"])
    first = run("db_refresh_views", options)
    assert names(first, "done") == {"recent", "doubled", "one"}
    told = {f["object"]: f["message"] for f in first.fact()["findings"] if f["code"] == "staleness_unknown"}
    assert told.keys() == {f"public.{v}" for v in ("recent", "today", "tables", "rated")}
    assert "calls now()" in told["public.recent"]
    assert "clock" in told["public.today"]
    assert "pg_class" in told["public.tables"]
    assert "rate()" in told["public.rated"]
    assert not run("db_refresh_views", options).changed
    server.sql(
        "CREATE OR REPLACE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 3'", database=name
    )
    assert names(run("db_refresh_views", options), "done") == {"doubled"}

    aged = {**options, "max_age": "1h"}
    ran = run("db_refresh_views", aged)
    assert names(ran, "done") == {"today", "tables", "rated"}, "never refreshed by us: their age is not known"
    assert "staleness_unknown" not in ran.codes()
    assert not run("db_refresh_views", aged).changed
    time.sleep(1.1)
    old = run("db_refresh_views", {**options, "max_age": "1s"})
    assert names(old, "done") == {"recent", "today", "tables", "rated", "doubled", "one"}
    assert "over 1" in reason(old, "one")
    assert "max_age" in run("db_refresh_views", {**options, "max_age": "0s"}, fails=True).result["msg"]


def test_counting_switched_off_is_unknown_and_not_unchanged(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    options = asked(server, name, tmp_path, views=["elsewhere"])
    assert "staleness_unknown" not in run("db_refresh_views", options).codes()
    server.sql(f"ALTER DATABASE {name} SET track_counts = off")
    assert "staleness_unknown" in run("db_refresh_views", options).codes()


def test_all_and_some(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    options = asked(server, name, tmp_path)
    run("db_refresh_views", options)
    everything = run("db_refresh_views", {**options, "stale_only": False})
    assert names(everything, "done") == {*CHAIN, "by_day", "elsewhere"}
    assert all(s["proven"] for s in everything.fact()["steps"])
    assert len([s for s in everything.statements() if "CONCURRENTLY" in s]) == 2
    some = run(
        "db_refresh_views", {**options, "stale_only": False, "views": ["public.*_*", "-a_last"], "concurrent": "never"}
    )
    assert names(some, "done") == {"e_totals", "d_large", "c_count", "by_day"}
    assert not [s for s in some.statements() if "CONCURRENTLY" in s]
    never = run("db_refresh_views", {**options, "stale_only": False, "concurrent": "always"})
    assert names(never, "done") == {"e_totals", 'b we"ird %s; --'}
    missing = {f["object"] for f in never.fact()["findings"] if f["code"] == "no_concurrent_refresh"}
    assert missing == {f"public.{v}" for v in ("d_large", "c_count", "a_last", "by_day", "elsewhere")}
    none = run("db_refresh_views", {**options, "stale_only": False, "tables": ["orders"]})
    assert none.steps() == []
    typo = run("db_refresh_views", {**options, "views": ["totals"]})
    assert not typo.changed
    assert "no_such_view" in typo.codes()


def test_a_refreshed_view_is_not_due_for_vacuum(shop: tuple[Server, str], tmp_path: Path) -> None:
    """A plain refresh is a rebuild; one beside readers leaves dead rows to the thresholds of a vacuum."""
    server, name = shop
    options = asked(server, name, tmp_path)
    run("db_refresh_views", options)
    views = [*CHAIN[1:], "by_day", "elsewhere"]  # but the one that was refreshed beside readers
    tables = [v.replace('"', "?").replace("%", "?") for v in views]
    ran = run("db_vacuum", {**options, "tables": tables, "actions": ["vacuum", "analyze"]}, check=True)
    assert ran.steps() == []
    run("db_vacuum", options)
    assert not run("db_refresh_views", options).changed, "a vacuum changes no row"
    assert not run("db_vacuum", options).changed


def test_the_assessment_says_what_a_run_does(shop: tuple[Server, str], tmp_path: Path) -> None:
    server, name = shop
    options = asked(server, name, tmp_path)
    assess = {**options, "refresh_views": {}}
    server.mark_log()
    due = assessed(assess)["refresh_views"]
    assert writes(server) == []
    ran = run("db_refresh_views", options)
    assert due["due"] is True
    assert due["steps"] == len(ran.steps()) == 7
    assert {s["object"] for s in due["sample"]} == {o for _d, o, _k in ran.steps()}
    again = assessed(assess)
    assert (again["refresh_views"]["due"], again["due"]) == (False, False)


@pytest.mark.parametrize("key", ["mariadb", "mysql"])
def test_engines_without_materialized_views_say_so(pool: Pool, tmp_path: Path, key: str) -> None:
    server = pool.get(key)
    journal = str(tmp_path / "journal.sqlite")
    nothing_to_do({**server.login(), "journal": journal})


def test_sqlite_says_so(lite: Callable[[str], Path], tmp_path: Path) -> None:
    path = lite("shop.sqlite3")
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    db.close()
    nothing_to_do({"engine": "sqlite", "databases": [str(path)], "journal": str(tmp_path / "journal.sqlite")})


def nothing_to_do(options: dict[str, Any]) -> None:
    ran = run("db_refresh_views", {**options, "views": ["reports.*"]})
    assert not ran.changed
    assert ran.steps() == []
    assert "not_for_this_engine" in ran.codes()
    due = assessed({**options, "refresh_views": {"views": ["reports.*"]}})
    assert due["refresh_views"]["due"] is False
    assert "not_for_this_engine" not in {f["code"] for f in due["findings"]}
