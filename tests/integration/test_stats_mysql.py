# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health of MySQL and MariaDB servers: counters, statements, replication, logs, privileges. Waits: elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pymysql
import pytest

from tests.fleet import Fleet, Missing, Server

from .conftest import Pool, missing
from .my import client, fill, small, wait_until
from .sessions import People, advice, chained, gathering, health

Make = Callable[[Server], str]


@pytest.fixture
def people() -> Iterator[Callable[[Server, str], People]]:
    yield from gathering()


# ---- counters --------------------------------------------------------------------------------------------------------


def test_connections_and_counters(each: Server, database: Make, people: Callable[[Server, str], People]) -> None:
    name = database(each)
    fill(each, name, "t", "id int primary key, v int", "i, i", 1000)
    some = people(each, name)
    wait_until(lambda: health(each).uptime_seconds)
    before = health(each).connections
    assert before
    for _person in range(5):
        some.join("SELECT 1")
    found = health(each)
    assert found.connections
    assert found.connections.used - before.used == 5
    assert found.connections.most == 60
    assert (found.connections.idle or 0) - (before.idle or 0) == 5
    assert found.uptime_seconds
    assert found.counted_since
    assert 0 < (found.cache_hit_percent or 0) <= 100
    assert found.deadlocks is not None
    assert found.purge_pending is not None
    assert found.slots == ()
    assert found.prepared == ()
    assert found.archiver is None
    shares = {"connection_warning": 100 * 5 / 60, "connection_critical": 99.0}
    assert "connections" in advice(each, some.database, **shares).codes()


def test_deadlocks_are_counted(each: Server, database: Make, people: Callable[[Server, str], People]) -> None:
    name = database(each)
    fill(each, name, "t", "id int primary key, v int", "i, i", 2)
    before = health(each).deadlocks or 0
    some = people(each, name)
    some.join("UPDATE t SET v = 5 WHERE id = 1")
    some.join("UPDATE t SET v = 6 WHERE id = 2", "UPDATE t SET v = 6 WHERE id = 1", waits=True)
    with some.open[0].cursor() as cursor, contextlib.suppress(pymysql.Error):
        cursor.execute("UPDATE t SET v = 5 WHERE id = 2")
    wait_until(lambda: (health(each).deadlocks or 0) == before + 1)


def test_slow_statements(seeing: Server, database: Make) -> None:
    """By their mean time; no value of theirs is shown, and no change of a definition is among them."""
    name = database(seeing)
    with client(seeing, name) as say:
        say("CREATE TABLE slow (id int primary key)")
        say("SELECT SLEEP(0.4), 'value' FROM (SELECT 1) AS one")
        say("SELECT SLEEP(0.4), 'value' FROM (SELECT 1) AS one")
    found = health(seeing)
    assert found.statements
    assert found.statement_calls
    (slow,) = [s for s in found.statements if s.database == name and "SLEEP" in s.text]
    assert slow.calls == 2
    assert 0.4 <= slow.mean_seconds < 10
    assert slow.total_seconds == pytest.approx(2 * slow.mean_seconds, rel=0.01)
    assert "value" not in slow.text
    assert not [s for s in found.statements if s.text.startswith("CREATE")]
    limits = {"slow_statement_warning": "300ms", "slow_statement_critical": "10s"}
    said = [r for r in advice(seeing, name, **limits).recommended if r["code"] == "slow_statement"]
    assert any(r["database"] == name for r in said)


def test_performance_schema_off_is_unknown(pool: Pool) -> None:
    found = health(pool.get("mariadb"))
    assert found.statements is None
    assert found.statement_calls is None
    assert found.unknown["statements"].startswith("performance_schema is off")


def test_binary_logs(each: Server, database: Make) -> None:
    logs = health(each).logs
    assert logs
    assert logs.enabled
    assert (logs.files or 0) >= 1
    assert logs.bytes
    name = "binlog_expire_logs_seconds"
    before = each.sql(f"SELECT @@GLOBAL.{name}")[0][0]
    try:
        each.sql(f"SET GLOBAL {name} = 86400")
        again = health(each).logs
        assert again
        assert again.expire_seconds == 86400
        each.sql(f"SET GLOBAL {name} = 0")
        assert "logs_never_expire" in advice(each, database(each)).codes()
    finally:
        each.sql(f"SET GLOBAL {name} = {before}")


def test_prepared_transactions(each: Server, database: Make) -> None:
    """Whoever prepared it is gone: only then may another session end it. Its name may hold any byte."""
    name = database(each)
    fill(each, name, "t", "id int primary key, v int", "i, i", 2)
    for xid in ("'order','7',3", "X'27FF00',X'',1"):
        prepare(each, name, xid)
        try:
            found = wait_until(lambda: health(each).prepared)
            assert len(found) == 1
            assert found[0].seconds is not None
            all_told = advice(each, name, long_transaction="0s").recommended
            told = [r for r in all_told if r["code"] == "prepared_transaction"]
            assert len(told) == 1
            each.sql(told[0]["fix"])
            assert health(each).prepared == ()
        finally:
            forget(each, xid)


def prepare(server: Server, database: str, xid: str) -> None:
    with client(server, database) as say:
        for word in ("START", "END", "PREPARE"):
            say(f"XA {word} {xid}")
            if word == "START":
                say("UPDATE t SET v = 9 WHERE id = 1")


def forget(server: Server, xid: str) -> None:
    """Whatever came of the test: it would keep its database from being dropped."""
    with contextlib.suppress(Exception):
        server.sql(f"XA ROLLBACK {xid}")


def test_waiting_for_a_prepared_transaction(
    each: Server, database: Make, people: Callable[[Server, str], People]
) -> None:
    name = database(each)
    fill(each, name, "t", "id int primary key, v int", "i, i", 2)
    prepare(each, name, "'lost'")
    try:
        waiting = people(each, name).join("UPDATE t SET v = 8 WHERE id = 1", waits=True)
        found = wait_until(lambda: chained(each, waiting))
        assert found[waiting].blocked_by == (0,)
        blocked = [r for r in advice(each, name, lock_wait="0s").recommended if r["code"] == "blocked"]
        assert "prepared transaction" in blocked[0]["message"]
    finally:
        forget(each, "'lost'")


# ---- replication -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["mysql", "mariadb"])
def test_replication(fleet: Fleet, product: str) -> None:
    """Both ends are seen, a stopped applier and a conflict are told, and facts are read on a replica as well."""
    try:
        if product == "mysql":
            primary = fleet.mysql()
            replica = fleet.mysql_replica(primary)
        else:
            maria = primary = fleet.mariadb()
            replica = fleet.mariadb_replica(maria)
    except Missing as why:
        missing(why)
    try:
        primary.sql("CREATE DATABASE d")
        primary.sql("CREATE TABLE d.t (id int primary key)")
        replica.catch_up(primary)
        (down,) = health(primary).replicas or ()
        assert (down.upstream, down.state, down.error) == (False, "streaming", "")
        (up,) = health(replica).replicas or ()
        assert (up.upstream, up.state, up.error) == (True, "streaming", "")
        assert up.lag_seconds == 0
        assert str(primary.port) in up.name
        assert "replication_broken" not in advice(replica, "d").codes()
        word = "SLAVE" if product == "mariadb" else "REPLICA"
        replica.sql(f"STOP {word}")
        stopped = [r for r in advice(replica, "d").recommended if r["code"] == "replication_broken"]
        assert "does not run" in stopped[0]["message"]
        replica.sql("INSERT INTO d.t VALUES (1)")
        replica.sql(f"START {word}")
        primary.sql("INSERT INTO d.t VALUES (1)")
        wait_until(lambda: (health(replica).replicas or ())[0].error)
        (broken,) = [r for r in advice(replica, "d").recommended if r["code"] == "replication_broken"]
        assert "uplicate" in broken["message"]
        assert broken["priority"] == 1
    finally:
        replica.stop()
        primary.stop()


# ---- privileges ------------------------------------------------------------------------------------------------------


def test_low_privilege(each: Server, database: Make) -> None:
    """Nothing is taken for none; with the GRANTs that are named it is seen."""
    name = database(each)
    login = small(each, f"SELECT ON `{name}`.*")
    found = health(each, **login)
    assert (found.backends, found.replicas, found.logs) == (None, None, None)
    assert found.connections
    assert found.connections.idle is None
    if each.engine == "mysql":
        assert (found.statements, found.prepared, found.purge_pending) == (None, None, None)
    grants = {why.partition(": ")[2] for why in found.unknown.values() if ": GRANT " in why}
    assert grants
    for grant in grants:
        each.sql(grant)
    again = health(each, **login)
    uncounted = {"temporary_bytes", "statements", "statement_calls", "statement_seconds", "index uses"}
    assert set(again.unknown) <= uncounted
    assert not any("GRANT" in why for why in again.unknown.values())
    if each.engine == "mysql":
        assert again.statements is not None
    assert again.backends is not None
    assert again.logs
    assert again.replicas == ()
