# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MySQL engine on servers that are not to be written to, or not alone: replicas, their primaries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.gauges import FRESH
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.replicas import Replicas
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Rebuild, Task
from tests.fleet import Fleet, Missing, MySQL, Server

from .conftest import missing
from .module_runner import until
from .my import fill, small, use, wait_until

Make = Callable[[Server], str]


def refuses_to_write(server: Server, name: str) -> Callable[[Task], None]:
    def check(task: Task) -> None:
        with pytest.raises(Refused) as fault:
            use(server, **small_writer).carry_out(task)
        assert fault.value.cure

    small_writer = small(server, "PROCESS ON *.*", f"SELECT, INSERT, ALTER, CREATE ON `{name}`.*")
    return check


def test_read_only(mysql: Server, database: Make) -> None:
    """What greeting says is what the server does: it lets neither ALTER nor ANALYZE through."""
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key", "i", 10)
    check = refuses_to_write(mysql, name)
    login: dict[str, Any] = {"login_user": "small", "login_password": "small-secret"}
    assert "write" not in use(mysql, **login).server.lacks
    mysql.sql("SET GLOBAL read_only = 1")
    try:
        assert "read_only" in use(mysql, **login).server.lacks["write"]
        check(Analyze(Ref(name, ("t",))))
        check(Rebuild(Ref(name, ("t",))))
        assert "write" not in use(mysql).server.lacks
        use(mysql).carry_out(Rebuild(Ref(name, ("t",))))
        if mysql.engine == "mysql":
            mysql.sql("SET GLOBAL super_read_only = 1")
            assert "super_read_only" in use(mysql).server.lacks["write"]
    finally:
        if mysql.engine == "mysql":
            mysql.sql("SET GLOBAL super_read_only = 0")
        mysql.sql("SET GLOBAL read_only = 0")


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def pair(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[tuple[MySQL, MySQL]]:
    """A primary and its replica, which logs what it replicates."""
    try:
        if request.param == "mysql":
            primary = fleet.mysql()
            replica = fleet.mysql_replica(primary, settings={"log_replica_updates": "ON"})
        else:
            maria = primary = fleet.mariadb()
            replica = fleet.mariadb_replica(maria, settings={"log_slave_updates": "ON"})
    except Missing as why:
        missing(why)
    yield primary, replica
    replica.stop()
    primary.stop()


def test_a_replica_is_asked_over_one_session(pair: tuple[MySQL, MySQL]) -> None:
    """It is opened anew where it was lost; nobody knows the lag of a replica that is not there."""
    primary, replica = pair
    replica.catch_up(primary)
    execution = Execution(replicas=(f"127.0.0.1:{replica.port}",))
    asking = Replicas(use(primary).engine.login, execution)

    def connections() -> int:
        """Since the server began; the one that asks is among them."""
        return int(replica.sql("SHOW GLOBAL STATUS LIKE 'Connections'")[0][1])

    before = connections()
    assert [asking.lag() for _again in range(5)] == [0.0] * 5
    assert connections() - before == 2
    mine = "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Sleep' AND USER = '{}'"
    # Those that have counted may still be on their way out.
    ((number,),) = wait_until(lambda: each if len(each := replica.sql(mine.format(primary.user))) == 1 else None)
    replica.sql(f"KILL {number}")
    assert asking.lag() == 0
    replica.stop()
    assert asking.lag() is None
    replica.start()
    replica.catch_up(primary)
    # What it had is applied before it has found its primary again.
    until(lambda: asking.lag() == 0)
    asking.close()
    assert replica.sql(mine.format(primary.user)) == []


def test_a_reading_serves_for_a_moment(pair: tuple[MySQL, MySQL]) -> None:
    """The first bites of a purge are shorter than the question whether there may be another."""
    primary, replica = pair
    replica.catch_up(primary)
    used, task = use(primary, Execution(replicas=(f"127.0.0.1:{replica.port}",))), Analyze(Ref("mysql", ("user",)))
    began = time.monotonic()
    assert used.gauge("replica_lag", task) == 0
    replica.sql("STOP REPLICA SQL_THREAD")
    try:
        kept, took = used.gauge("replica_lag", task), time.monotonic() - began
        assert kept == 0 or took > FRESH
        time.sleep(FRESH)
        assert used.gauge("replica_lag", task) is None
    finally:
        replica.sql("START REPLICA SQL_THREAD")
        used.engine.close()


def test_replica(pair: tuple[MySQL, MySQL]) -> None:
    """Maintenance of a replica stays on it; a rebuild of the primary would be repeated, and greeting says by whom."""
    primary, replica = pair
    primary.sql("CREATE DATABASE shop")
    fill(primary, "shop", "t", "id int primary key, v varchar(200)", "i, repeat('x', 150)", 50000, logged=True)
    replica.catch_up(primary)
    replica.script("SET GLOBAL read_only = 0;")
    head, tail = use(primary), use(replica)
    assert (head.server.role, tail.server.role) == ("primary", "replica")
    assert "127.0.0.1" in head.server.lacks["local rebuild"]
    assert "local rebuild" not in tail.server.lacks
    before = [replica.binlog_position(), primary.binlog_position()]
    for used in (head, tail):
        used.carry_out(Analyze(Ref("shop", ("t",))))
    tail.carry_out(Rebuild(Ref("shop", ("t",))))
    assert [replica.binlog_position(), primary.binlog_position()] == before
    head.carry_out(Rebuild(Ref("shop", ("t",))))
    assert primary.binlog_position() != before[1]
    # Lag: of those that are named, by the same login; unknown when one cannot be asked.
    replica.catch_up(primary)
    task = Rebuild(Ref("shop", ("t",)))

    def lag(*names: str) -> float | None:
        return use(primary, Execution(replicas=names)).gauge("replica_lag", task)

    assert lag(f"127.0.0.1:{replica.port}") == 0
    assert lag(f"127.0.0.1:{replica.port}", "127.0.0.1:1") is None
    assert lag(f"127.0.0.1:{primary.port}") is None
    replica.sql("STOP REPLICA SQL_THREAD")
    assert lag(f"127.0.0.1:{replica.port}") is None
    # Without the privilege to keep it local a replica's rebuild is not offered.
    replica.sql("START REPLICA SQL_THREAD")
    replica.sql("SET sql_log_bin = 0; CREATE USER few@'%' IDENTIFIED BY 'few'; GRANT ALL ON shop.* TO few@'%'")
    login: dict[str, Any] = {"login_user": "few", "login_password": "few"}
    assert "GRANT" in use(replica, **login).server.lacks.get("online rebuild", "GRANT")
    replica.sql("SET sql_log_bin = 0; GRANT REPLICATION CLIENT ON *.* TO few@'%'")
    if replica.engine == "mariadb":
        replica.sql("SET sql_log_bin = 0; GRANT SLAVE MONITOR ON *.* TO few@'%'")
    assert "GRANT" in use(replica, **login).server.lacks["online rebuild"]
