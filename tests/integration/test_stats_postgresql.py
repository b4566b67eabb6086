# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statistics of real PostgreSQL servers: what is read, what is unknown and why, how quickly, and what is kept."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.sessions import beginning
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import open_journal
from tests.fleet import Fleet, Missing, Server

from . import pg
from .conftest import POSTGRESQL, missing
from .module_runner import run, until

GENERATE = """
DO $do$
BEGIN
    FOR number IN {first}..{last} LOOP
        EXECUTE pg_catalog.format(
            'CREATE TABLE t%s (id serial PRIMARY KEY, a int, b text, parent int REFERENCES root)', number);
        EXECUTE pg_catalog.format('CREATE INDEX ON t%s (a)', number);
        EXECUTE pg_catalog.format('CREATE INDEX ON t%s (parent)', number);
    END LOOP;
END $do$
"""


def stats(server: Server, name: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
    ran = run("db_stats_facts", {**server.login(), "databases": [name], "journal": "none", **options}, check=check)
    assert ran.changed is False
    return ran.fact("db_stats")


def codes(facts: dict[str, Any]) -> set[str]:
    return {r["code"] for r in facts["recommendations"]}


def a_server(fleet: Fleet, major: int, **settings: str) -> Any:
    try:
        return fleet.postgresql(major, settings=settings)
    except Missing as why:
        missing(why)


def children_spent() -> float:
    """Processor seconds of the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_three_thousand_tables_and_nine_thousand_indexes(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a few times what an empty database takes, and a handful of queries: none for a table, none for an index."""
    monkeypatch.setenv("DBFLEET_FORK", "0")  # processes of our own: their time is counted
    server = a_server(fleet, 16)
    server.sql("CREATE DATABASE big")
    server.sql("CREATE TABLE root (id int PRIMARY KEY)", database="big")
    for first in range(1, 3000, 600):
        server.sql(GENERATE.format(first=first, last=first + 599), database="big")
    server.sql("ANALYZE", database="big")
    spent = []
    for _round in range(3):
        server.mark_log()
        before = children_spent()
        facts = stats(server, "big")
        spent.append(children_spent() - before)
        said = [s for s in server.logged() if s.application == "dbfleet" or "dbfleet" in s.application]
    assert facts["summary"]["tables"] == 3001
    assert facts["summary"]["indexes"] == 9001  # none of the catalogs
    assert facts["sizes"]["databases"]["big"]["tables"] == 3001
    statements = [s.statement for s in said]
    assert 10 < len(statements) < 40, "\n".join(x[:100] for x in statements)
    small = a_server(fleet, 16)
    small.mark_log()
    before = children_spent()
    stats(small, "postgres")
    alone = children_spent() - before
    assert 0 < min(spent) < 6 * alone, (spent, alone)  # most of it is the start; the queries take about as long
    assert len(statements) <= len(small.logged()) + 5  # a handful more: sequences are asked a thousand at once
    server.stop()
    small.stop()


def test_it_only_reads(postgresql: Server, database: Callable[[Server], str]) -> None:
    name = database(postgresql)
    with pg.client(postgresql, name) as cursor:
        cursor.execute("CREATE TABLE t (id serial PRIMARY KEY)")
    postgresql.mark_log()
    stats(postgresql, name)
    assert pg.writes(postgresql) == []


def test_what_is_read_is_true(postgresql: Server, database: Callable[[Server], str]) -> None:
    name = database(postgresql)
    with pg.client(postgresql, name) as cursor:
        cursor.execute("CREATE TABLE t (id serial PRIMARY KEY, w text)")
        cursor.execute("INSERT INTO t (w) SELECT repeat('x', 100) FROM generate_series(1, 5000)")
        cursor.execute("CREATE TABLE p (id int, at date) PARTITION BY RANGE (at)")
        cursor.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')")
        cursor.execute("INSERT INTO p SELECT g, '2026-03-03' FROM generate_series(1, 1000) g")
        cursor.execute("ANALYZE")
        cursor.execute("SELECT pg_total_relation_size('t'), pg_database_size(current_database())")
        table, whole = cursor.fetchone()
        facts = stats(postgresql, name)
        cursor.execute("SELECT setting::int FROM pg_settings WHERE name = 'max_connections'")
        most = cursor.fetchone()[0]
    sizes = facts["sizes"]
    assert sizes["tables"][0] == {
        "database": name,
        "object": "public.t",
        "bytes": sizes["tables"][0]["bytes"],
        "total_bytes": table,
        "rows": 5000,
        "dead_rows": 0,
    }
    assert facts["rows"] == {name: 6000}
    assert sizes["databases"][name]["bytes"] == pytest.approx(whole, rel=0.1)
    assert facts["server"]["role"] == "primary"
    assert facts["server"]["uptime_seconds"] > 0
    assert 2 <= facts["connections"]["used"] < facts["connections"]["most"] < most
    assert name in facts["transaction_ids"]["databases"]
    assert facts["counters"][0]["object"] == "public.t_id_seq"
    assert (facts["counters"][0]["used"], facts["counters"][0]["most"]) == (5000, 2**31 - 1)
    assert (facts["replication"]["replicas"], facts["slots"], facts["blocking"]) == ([], [], [])
    assert facts["archiving"]["mode"] == "off"
    assert facts["logs"]["bytes"] >= 16 << 20
    assert 0 < facts["performance"]["cache_hit_percent"] <= 100
    assert facts["maintenance"]["operations"].keys() >= {"vacuum", "reindex"}


def test_slow_statements_where_the_server_keeps_them(fleet: Fleet) -> None:
    """Debian's 15 has the extension; it may stand in any database that is looked at."""
    server = a_server(fleet, 15, shared_preload_libraries="pg_stat_statements")
    without = stats(server, "postgres")
    assert without["slow_statements"] is None
    assert "CREATE EXTENSION" in without["unknown"]["statements"]
    server.sql("CREATE DATABASE other")
    server.sql("CREATE SCHEMA monitor", database="other")
    server.sql("CREATE EXTENSION pg_stat_statements SCHEMA monitor", database="other")
    server.sql("SELECT pg_sleep(0.3) /* slow one */")
    server.sql("SELECT pg_sleep(0.01), 2")
    server.sql("CREATE TABLE slow AS SELECT 1 AS a FROM pg_sleep(0.5)")  # what changes the schema takes its time
    options = {
        "slow_statement_warning": "200ms",
        "slow_statement_critical": "250ms",
        "databases": ["postgres", "other"],
    }
    facts = run("db_stats_facts", {**server.login(), "journal": "none", **options}).fact("db_stats")
    slow = [r for r in facts["recommendations"] if r["code"] == "slow_statement"]
    assert [(r["priority"], r["database"]) for r in slow] == [(2, "postgres")]
    assert "pg_sleep($1)" in slow[0]["message"]
    assert facts["slow_statements"][0]["mean_seconds"] == pytest.approx(0.3, abs=0.2)
    assert "statements" not in facts["unknown"]
    server.sql("CREATE DATABASE third")
    server.sql("CREATE EXTENSION pg_stat_statements", database="third")
    with pg.role(server, "watcher", "GRANT CONNECT ON DATABASE third TO watcher") as login:
        blind = stats(server, "third", **login)
    assert blind["slow_statements"] is None
    assert "GRANT pg_monitor" in blind["unknown"]["statements"]
    server.stop()


def test_an_extension_that_is_not_loaded_is_unknown(fleet: Fleet) -> None:
    server = a_server(fleet, 15)
    server.sql("CREATE EXTENSION pg_stat_statements")
    facts = stats(server, "postgres")
    assert facts["slow_statements"] is None
    assert "shared_preload_libraries" in facts["unknown"]["statements"]
    server.stop()


def test_few_privileges_mean_unknown_and_never_none(postgresql: Server, database: Callable[[Server], str]) -> None:
    name = database(postgresql)
    with pg.client(postgresql, name) as cursor:
        cursor.execute("CREATE TABLE t (id serial PRIMARY KEY)")
        cursor.execute("INSERT INTO t DEFAULT VALUES")
    with pg.role(postgresql, "nobody_much", database=name) as login, pg.transaction(postgresql, name, "SELECT 1"):
        facts = stats(postgresql, name, long_transaction="0s", **login)
        for part in ("long_queries", "blocking", "slow_statements"):
            assert facts[part] is None, part
        assert facts["replication"]["replicas"] is None
        assert "GRANT pg_monitor" in facts["unknown"]["backends"]
        assert facts["connections"]["used"] >= 2
        assert facts["connections"]["idle"] is None
        assert facts["logs"]["bytes"] is None
        assert "sequences" in facts["unknown"][f"counters in {name}"]
        assert facts["counters"] == []
    with pg.role(postgresql, "monitor_one", "GRANT pg_monitor TO monitor_one", database=name) as login:
        facts = stats(postgresql, name, **login)
        assert facts["blocking"] == []
        assert facts["long_queries"] == []
        assert facts["logs"]["bytes"] is not None


def test_a_server_that_counts_nothing_is_not_believed(fleet: Fleet) -> None:
    for major in (15, 18):
        server = a_server(fleet, major, track_counts="off", track_activities="off")
        server.sql("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE INDEX seldom ON t (a)")
        with pg.transaction(server, "postgres", "LOCK TABLE t"):
            facts = stats(server, "postgres", unused_index_age="0s", long_transaction="0s")
        assert facts["indexes"]["unused"] is None
        assert "does not count" in facts["unknown"]["unused_indexes in postgres"]
        assert facts["long_queries"] is None
        assert "track_activities" in facts["unknown"]["backends"]
        assert "unused_index" not in codes(facts)
        server.stop()


@pytest.mark.parametrize("major", POSTGRESQL)
def test_a_standby_and_its_primary(fleet: Fleet, major: int) -> None:
    primary = a_server(fleet, major)
    primary.sql("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE INDEX seldom ON t (a)")
    standby = fleet.postgresql_standby(primary)
    standby.catch_up()
    above = stats(primary, "postgres", unused_index_age="0s")
    (replica,) = above["replication"]["replicas"]
    assert replica["state"] == "streaming"
    assert replica["upstream"] is False
    (unused,) = [r for r in above["recommendations"] if r["code"] == "unused_index"]
    assert "the replica attached counts its own" in unused["message"]
    # Until something was replayed, and while anything waits to be, nobody knows how old it is.
    until(
        lambda: stats(standby, "postgres")["replication"]["replicas"][0]["lag_seconds"] == 0, what="a standby at rest"
    )
    below = stats(standby, "postgres", unused_index_age="0s")
    assert below["server"]["role"] == "standby"
    (upstream,) = below["replication"]["replicas"]
    assert (upstream["upstream"], upstream["state"]) == (True, "streaming")
    assert upstream["lag_seconds"] == pytest.approx(0, abs=60)
    assert "unused_index" not in codes(below)
    assert "standby" in below["unknown"]["unused_indexes"]
    primary.stop()
    until(lambda: "replication_broken" in codes(stats(standby, "postgres")), what="the loss of the primary")
    standby.stop()


def test_an_archiver_that_fails(fleet: Fleet) -> None:
    for major in (15, 18):
        server = a_server(fleet, major, archive_mode="on", archive_command="false")
        server.sql("CREATE TABLE t AS SELECT 1 AS a")
        server.sql("SELECT pg_switch_wal()")
        until(lambda server=server: server.sql("SELECT failed_count FROM pg_stat_archiver")[0][0] != "0")
        facts = stats(server, "postgres")
        assert "archiver_failing" in codes(facts)
        assert facts["archiving"]["waiting"] >= 1
        assert facts["summary"]["urgent"] >= 1
        server.sql("ALTER SYSTEM SET archive_command = 'true'")
        server.sql("SELECT pg_reload_conf()")
        # It tries again after a minute, or when there is something new.
        server.sql("CREATE TABLE u AS SELECT 1 AS a")
        server.sql("SELECT pg_switch_wal()")
        until(lambda server=server: "archiver_failing" not in codes(stats(server, "postgres")), 90, "the cure")
        server.stop()


def test_sizes_become_trends(postgresql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name, path = database(postgresql), tmp_path / "journal.sqlite"
    with pg.client(postgresql, name) as cursor:
        cursor.execute("CREATE TABLE t AS SELECT g AS id, repeat('x', 200) AS w FROM generate_series(1, 9000) g")
        cursor.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
        cursor.execute("ANALYZE")
    stats(postgresql, name, check=True, journal=str(path))
    assert not path.exists()
    first = stats(postgresql, name, journal=str(path))
    again = stats(postgresql, name, journal=str(path))
    assert again["growth"]["databases"] == first["growth"]["databases"] == {}
    db = sqlite3.connect(path)
    address = db.execute("SELECT DISTINCT address FROM objects").fetchone()[0]
    kept = {row[0] for row in db.execute("SELECT o.ref FROM sizes s JOIN objects o ON o.id = s.object")}
    assert db.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM sizes GROUP BY object)").fetchone() == (1,)
    db.close()
    assert any('"t"' in ref for ref in kept)
    path.unlink()
    with open_journal(str(path), address, readonly=False) as journal:
        for day in range(10, 0, -1):
            size = (20 - day) << 30
            sizes = [(Ref(name), size, 5), (Ref(name, ("public", "t")), size // 2, 5)]
            statements = (Ref("", ("statements",)), (20 - day) * 10**6, (20 - day) * 1000)
            journal.sample_all([*sizes, statements], datetime.now(UTC) - timedelta(days=day))
    facts = stats(postgresql, name, journal=str(path))
    assert facts["growth"]["databases"][name]["bytes_per_day"] == pytest.approx(1 << 30, rel=0.01)
    growing = {r["object"] for r in facts["recommendations"] if r["code"] == "growth"}
    assert growing == {name, "public.t"}
    assert facts["performance"]["statements"]["points"] >= 7


def test_lists_are_capped_and_counts_are_true(postgresql: Server, database: Callable[[Server], str]) -> None:
    name = database(postgresql)
    with pg.client(postgresql, name) as cursor:
        for number in range(30):
            cursor.execute(f"CREATE TABLE t{number} (id int)")
    facts = stats(postgresql, name, max_results=7)
    assert len(facts["recommendations"]) == 7
    assert facts["summary"]["recommendations"] == 30


def test_the_assessment_brings_them_along(postgresql: Server, database: Callable[[Server], str]) -> None:
    name = database(postgresql)
    with pg.client(postgresql, name) as cursor:
        cursor.execute("CREATE TABLE t AS SELECT 1 AS id")
    options = {**postgresql.login(), "databases": [name], "journal": "none"}
    ran = run("db_assess_facts", {**options, "vacuum": {}})
    assert ran.fact("db_stats")["recommendations"] == stats(postgresql, name)["recommendations"]
    assert "no_primary_key" in ran.codes()
    assert ran.fact("db_stats")["maintenance"]["operations"].keys() == {"vacuum"}
    plain = run("db_assess_facts", {**options, "statistics": False})
    assert plain.result["ansible_facts"].keys() == {"db_due"}
    assert "no_primary_key" not in plain.codes()
    strict = run("db_assess_facts", {**options, "statistics_options": {"unused_index_age": "1s", "large_table": "1B"}})
    assert "large_table" in {r["code"] for r in strict.fact("db_stats")["recommendations"]}


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("ALTER ROLE app PASSWORD 'hidden'", "ALTER ROLE app PASSWORD ***"),
        ("create user app password E'no\\'hidden' valid until 'x'", "create user app password ***"),
        ("UPDATE users SET password_hash = 'hidden', a = 1", "UPDATE users SET password_hash = ***"),
        ("CREATE SUBSCRIPTION s CONNECTION 'host=a password=hidden dbname=b'", "CONNECTION ***"),
        ("SELECT 1 WHERE secret => $q$hidden$q$", "SELECT 1 WHERE secret => ***"),
        ("ALTER ROLE app PASSWORD 'hidden and cut o", "ALTER ROLE app PASSWORD ***"),
        ("SELECT   password\n  FROM t", "SELECT password FROM t"),
    ],
)
def test_secrets_in_statements_are_blotted_out(statement: str, shown: str) -> None:
    found = beginning(statement)
    assert shown in found
    assert "hidden" not in found
    assert len(beginning("SELECT " + "x" * 5000)) == 200
