# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_vacuum where servers are not as expected: standbys, replicas, poolers, pinned horizons, poor logins, kills."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, Missing, Server

from .churn import churn, fingerprint
from .conftest import Pool, missing
from .module_runner import run, start, until
from .test_check_equals_run import options, writes
from .test_runs import connected


def test_a_standby_is_left_alone(fleet: Fleet, tmp_path: Path) -> None:
    primary = fleet.postgresql(18, name="first")
    primary.sql("CREATE DATABASE shop")
    churn(primary, "shop")
    standby = fleet.postgresql_standby(primary)
    standby.catch_up()
    ran = run("db_vacuum", options(standby, "shop", tmp_path))
    assert not ran.changed
    steps = ran.fact()["steps"]
    assert steps
    assert {s["status"] for s in steps} == {"skipped"}
    assert all("standby" in s["error"] for s in steps)
    assert ran.fact()["server"]["role"] == "standby"
    due = run("db_assess_facts", assess(standby, "shop", tmp_path)).fact()
    assert due["vacuum"]["due"] is False
    assert due["vacuum"]["skipped"] == len(steps)
    # With a standby attached the primary must not take the lock that would cancel queries there.
    vacuums = run("db_vacuum", options(primary, "shop", tmp_path), check=True).statements()
    assert any("TRUNCATE FALSE" in s for s in vacuums)
    primary.stop()


def assess(server: Server, database: str, tmp_path: Path) -> dict[str, Any]:
    asked = options(server, database, tmp_path)
    vacuum = {k: v for k, v in asked.items() if k.startswith("reclaim")}
    return {**server.login(), "databases": [database], "vacuum": vacuum, "preflight": {}, "journal": asked["journal"]}


def test_a_mariadb_replica_is_maintained_for_itself(fleet: Fleet, tmp_path: Path) -> None:
    primary = fleet.mariadb(name="source")
    primary.sql("CREATE DATABASE shop")
    churn(primary, "shop", logged=True)
    replica = fleet.mariadb_replica(primary)
    replica.catch_up(primary)
    before = fingerprint(primary, "shop")
    position = primary.sql("SHOW MASTER STATUS")
    ran = run("db_vacuum", options(replica, "shop", tmp_path))
    assert ran.fact()["server"]["role"] == "replica"
    assert "reclaim" in {s["kind"] for s in ran.fact()["steps"]}
    assert {s["status"] for s in ran.fact()["steps"]} == {"done"}
    assert primary.sql("SHOW MASTER STATUS") == position
    assert fingerprint(primary, "shop") == before
    assert not run("db_vacuum", options(replica, "shop", tmp_path)).changed
    primary.stop()


def test_a_pooler_is_recognised_and_not_written_through(fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.postgresql(16, name="pooled")
    server.sql("CREATE DATABASE shop")
    churn(server, "shop")
    try:
        pooler = fleet.pgbouncer(server, pool_mode="transaction")
    except Missing as why:
        missing(why)
    server.mark_log()
    ran = run("db_vacuum", options(pooler, "shop", tmp_path))
    assert not ran.changed
    assert {s["status"] for s in ran.fact()["steps"]} == {"skipped"}
    assert any("pool" in (f["code"] + f["message"]).lower() for f in ran.fact()["findings"])
    assert writes(server) == []
    server.stop()


@pytest.mark.parametrize("holder", ["snapshot", "prepared"])
def test_a_pinned_horizon_is_named(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path, holder: str
) -> None:
    name = database(postgresql)
    table = "CREATE TABLE t AS SELECT n AS id, repeat('x', 50) AS s FROM generate_series(1, 20000) n"
    postgresql.sql(table, database=name)
    # A session's counters may arrive after its client has left: after the vacuum they would call for another one.
    counted = "SELECT pg_catalog.pg_stat_get_tuples_inserted('t'::regclass)"
    until(lambda: postgresql.sql(counted, database=name)[0][0] == "20000", what="its counters")
    postgresql.sql("VACUUM ANALYZE t", database=name)
    asked = options(postgresql, name, tmp_path, actions=["vacuum"])
    with connected(postgresql, name) as cursor:
        if holder == "snapshot":
            cursor.execute("SET application_name = 'long_report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        else:
            cursor.execute("INSERT INTO t VALUES (0, 'p')")
            cursor.execute("PREPARE TRANSACTION 'left_behind'")
        try:
            time.sleep(2.5)
            postgresql.sql("DELETE FROM t WHERE id % 2 = 0", database=name)
            ran = run("db_vacuum", asked)
            found = [f for f in ran.fact()["findings"] if f["code"] == "horizon_pinned"]
            assert found, ran.text
            word = {"snapshot": "long_report", "prepared": "left_behind"}[holder]
            assert word in found[0]["message"]
            assert not ran.changed, ran.text
        finally:
            if holder == "prepared":
                postgresql.sql("ROLLBACK PREPARED 'left_behind'", database=name)
    assert run("db_vacuum", asked).changed
    assert not run("db_vacuum", asked).changed


def test_a_poor_login_gets_findings(postgresql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(postgresql)
    churn(postgresql, name)
    user = f"poor_{name}"
    postgresql.sql(f"CREATE ROLE {user} LOGIN PASSWORD 'only reads'")
    try:
        asked = {**options(postgresql, name, tmp_path), "login_user": user, "login_password": "only reads"}
        check = run("db_vacuum", asked, check=True)
        assert check.fact()["findings"]
        assert any("GRANT" in (f["fix"] or "") + f["message"] for f in check.fact()["findings"])
        real = start("db_vacuum", asked).wait()
        assert "Traceback" not in real.text
        assert "only reads" not in real.text
        assert not real.result["changed"]
    finally:
        postgresql.sql(f"DROP ROLE {user}")


def test_a_poor_login_on_mysql(mysql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(mysql)
    churn(mysql, name)
    mysql.sql("CREATE USER poor@'%' IDENTIFIED BY 'only reads'")
    mysql.sql(f"GRANT SELECT ON {name}.* TO poor@'%'")
    try:
        # An account that has just been made logs in by socket: over plain TCP the driver would need one package more.
        asked = {k: v for k, v in options(mysql, name, tmp_path).items() if k not in ("login_host", "login_port")}
        asked |= {"login_unix_socket": str(mysql.socket), "login_user": "poor", "login_password": "only reads"}
        check = run("db_vacuum", asked, check=True)
        assert any("GRANT" in (f["fix"] or "") + f["message"] for f in check.fact()["findings"]), check.text
        real = start("db_vacuum", asked).wait()
        assert "Traceback" not in real.text
        assert "only reads" not in real.text
    finally:
        mysql.sql("DROP USER poor@'%'")


def test_a_run_that_is_killed_is_completed_by_the_next(
    pool: Pool, database: Callable[[Server], str], tmp_path: Path
) -> None:
    """SIGKILL while the server rebuilds; the next run, with and without the journal, has the rest to do."""
    for key in ("postgresql-15", "postgresql-18", "mariadb", "mysql"):
        server = pool.get(key)
        name = database(server)
        churn(server, name)
        asked = options(server, name, tmp_path / key, lock_timeout="30s")
        with connected(server, name) as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT count(*) FROM jobs")
            child = start("db_vacuum", asked)
            until(lambda server=server: rebuilding(server), 30, "the rebuild")
            child.send(signal.SIGKILL)
            child.wait()
        shutil.rmtree(tmp_path / key / "journal")
        until(lambda server=server: not rebuilding(server), 60, "the server's end of it")
        ran = run("db_vacuum", asked)
        assert {s["status"] for s in ran.fact()["steps"]} <= {"done"}
        assert not run("db_vacuum", asked).changed


def rebuilding(server: Server) -> bool:
    if server.engine == "postgresql":
        query = (
            "SELECT count(*) FROM pg_catalog.pg_stat_activity"
            " WHERE application_name <> 'fleet' AND state = 'active' AND query ~ '^VACUUM .FULL'"
        )
        return server.sql(query)[0][0] != "0"
    return any("FORCE" in " ".join(row) for row in server.sql("SHOW FULL PROCESSLIST"))


BURN = "DO $$ BEGIN FOR i IN 1..60000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$"


def test_old_transaction_ids_are_frozen_everywhere(fleet: Fleet, tmp_path: Path) -> None:
    """Templates and catalogs too: a database is as old as its oldest table. What takes no connection is a finding."""
    server = fleet.postgresql(18, name="old", settings={"autovacuum_freeze_max_age": "100000"})
    server.sql(BURN)
    asked = {**server.login(), "journal": str(tmp_path / "journal.sqlite")}
    check = run("db_vacuum", asked, check=True)
    ran = run("db_vacuum", asked)
    assert sorted(ran.steps()) == sorted(check.steps())
    assert {(s["kind"], s["status"], s["proven"]) for s in ran.fact()["steps"]} == {("freeze", "done", True)}
    assert {s["database"] for s in ran.fact()["steps"]} == {"postgres", "template1"}
    assert any(f["database"] == "template0" for f in ran.fact()["findings"])
    ages = dict(server.sql("SELECT datname, age(datfrozenxid) FROM pg_catalog.pg_database"))
    assert int(ages["postgres"]) < 1000
    assert int(ages["template1"]) < 1000
    assert not run("db_vacuum", asked).changed
    server.stop()


# A transaction of its own each time, and another session's lock on the same row: each lock is a new multixact.
SHARE = "DO $$ BEGIN FOR i IN 1..6000 LOOP PERFORM 1 FROM kept FOR SHARE; COMMIT; END LOOP; END $$"


def test_old_multixact_ids_are_frozen_everywhere(fleet: Fleet, tmp_path: Path) -> None:
    """Ids of rows that several sessions lock at once run out by themselves; transaction ids stay young here."""
    server = fleet.postgresql(16, name="locked", settings={"autovacuum_multixact_freeze_max_age": "10000"})
    server.script("CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (1)")
    with connected(server, "postgres") as holding:
        holding.execute("SELECT 1 FROM kept FOR SHARE")
        server.sql(SHARE)
    asked = {**server.login(), "journal": str(tmp_path / "journal.sqlite"), "actions": ["freeze"]}
    check = run("db_vacuum", asked, check=True)
    ran = run("db_vacuum", asked)
    assert sorted(ran.steps()) == sorted(check.steps())
    assert {(s["kind"], s["status"], s["proven"]) for s in ran.fact()["steps"]} == {("freeze", "done", True)}
    assert {s["database"] for s in ran.fact()["steps"]} == {"postgres", "template1"}
    ages = dict(server.sql("SELECT datname, mxid_age(datminmxid) FROM pg_catalog.pg_database"))
    assert int(ages["postgres"]) < 1000
    assert int(ages["template1"]) < 1000
    assert not run("db_vacuum", asked).changed
    server.stop()
