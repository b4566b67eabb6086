# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who pins the horizon: old transactions, prepared ones, slots, standbys; and what a standby and its lag look like."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import activity
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Vacuum
from tests.fleet import Fleet, Missing, PostgreSQL, Server

from . import conftest
from .conftest import POSTGRESQL, missing
from .pg import transaction, use

Make = Callable[[Server], str]
CHURN = "DELETE FROM t WHERE id % 2 = 0"


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short transactions are left out; the tests do not want to wait for long ones."""
    monkeypatch.setattr(activity, "BRIEF", 0.0)


@pytest.fixture
def shop(postgresql: Server, database: Make) -> str:
    name = database(postgresql)
    postgresql.script("CREATE TABLE t AS SELECT generate_series(1, 4000) AS id", database=name)
    postgresql.sql("VACUUM ANALYZE t", database=name)
    return name


def test_an_old_snapshot_pins(postgresql: Server, shop: str) -> None:
    with (
        use(postgresql) as pg,
        transaction(postgresql, shop, "SELECT 1 FROM t LIMIT 1", isolation="REPEATABLE READ") as old,
    ):
        postgresql.sql(CHURN, database=shop)
        found = pg.table(shop, "t")
        assert found.dead is not None
        assert found.dead.rows == 2000
        # The holder began after the last vacuum, and all the rows have died since: some may have died before it.
        assert found.dead.removable is not None
        assert found.dead.removable < 2000
        pid = old.connection.info.backend_pid
        for word in (f"process {pid}", "shop", "postgres", f"pg_terminate_backend({pid})"):
            assert word in found.pinned_by
        assert found.freeze_floor > 0
        pg.carry_out(Vacuum(found.ref))
        found = pg.table(shop, "t")
        assert found.dead is not None
        assert (found.dead.rows, found.dead.removable) == (2000, 0)
        assert (pg.gauge("oldest_snapshot", Vacuum(found.ref)) or 0) > 0
        old.execute("COMMIT")
        found = pg.table(shop, "t")
        assert found.dead is not None
        assert (found.dead.removable, found.pinned_by, found.freeze_floor) == (None, "", 0.0)
        pg.carry_out(Vacuum(found.ref))
        found = pg.table(shop, "t")
        assert found.dead is not None
        assert found.dead.rows == 0


def test_a_transaction_that_wrote_and_sleeps_pins(postgresql: Server, shop: str) -> None:
    """READ COMMITTED: no snapshot between statements, but its own id is running."""
    with use(postgresql) as pg, transaction(postgresql, shop, "SELECT txid_current()"):
        postgresql.sql(CHURN, database=shop)
        assert "idle in transaction" in pg.table(shop, "t").pinned_by


def test_one_of_another_database_does_not(postgresql: Server, shop: str, database: Make) -> None:
    other = database(postgresql)
    with use(postgresql) as pg, transaction(postgresql, other, "SELECT txid_current()"):
        postgresql.sql(CHURN, database=shop)
        assert pg.table(shop, "t").pinned_by == ""


def test_short_transactions_come_and_go(postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with use(postgresql) as pg, transaction(postgresql, shop, "SELECT txid_current()"):
        postgresql.sql(CHURN, database=shop)
        assert pg.table(shop, "t").pinned_by == ""


def test_prepared_transactions_pin(postgresql: Server, shop: str) -> None:
    postgresql.script("BEGIN; CREATE TABLE half (id int); PREPARE TRANSACTION 'it''s half'", database=shop)
    try:
        postgresql.sql(CHURN, database=shop)
        with use(postgresql) as pg:
            found = pg.table(shop, "t")
            assert "ROLLBACK PREPARED 'it''s half'" in found.pinned_by
            assert (pg.gauge("oldest_snapshot", Vacuum(found.ref)) or 0) > 0
    finally:
        postgresql.sql("ROLLBACK PREPARED 'it''s half'", database=shop)


@pytest.fixture(params=POSTGRESQL)
def primary(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[PostgreSQL]:
    try:
        server = fleet.postgresql(
            request.param, settings={"hot_standby_feedback": "on", "wal_receiver_status_interval": "1"}
        )
    except Missing as why:
        missing(why)
    conftest.tested(f"postgresql {server.version}")
    server.script("CREATE TABLE t AS SELECT generate_series(1, 4000) AS id")
    server.sql("VACUUM ANALYZE t")
    yield server
    server.stop()


def test_a_standby_and_what_it_pins(primary: PostgreSQL, fleet: Fleet) -> None:
    standby = fleet.postgresql_standby(primary)
    ref = Ref("postgres", ("public", "t"))
    address = f"127.0.0.1:{standby.port}"
    with use(standby) as away:
        assert away.server.role == "standby"
        assert "primary" in away.server.lacks["write"]
        assert [f.code for f in away.server.findings] == ["standby"]
        assert away.table("postgres", "t").rows == 4000
        with pytest.raises(Refused, match="standby"):
            away.carry_out(Vacuum(ref))
    with (
        use(primary, Execution(replicas=(address,))) as pg,
        use(primary, Execution(replicas=(address, "127.0.0.1:1"))) as lame,
    ):
        assert "standbys" in pg.server.lacks["truncate"]
        primary.sql(CHURN)
        standby.catch_up()
        lag = pg.gauge("replica_lag", Vacuum(ref))
        assert lag is not None
        assert lag < 1
        assert lame.gauge("replica_lag", Vacuum(ref)) is None, "one that cannot be asked lags too much"
        standby.sql("SELECT pg_wal_replay_pause()")
        primary.sql("INSERT INTO t SELECT generate_series(1, 100)")
        time.sleep(1.5)
        lag = pg.gauge("replica_lag", Vacuum(ref))
        assert lag is not None
        assert lag > 1
        standby.sql("SELECT pg_wal_replay_resume()")
        standby.catch_up()
        time.sleep(1)
        assert (pg.gauge("replica_lag", Vacuum(ref)) or 0.0) < 1
        with transaction(standby, "postgres", "SELECT 1 FROM t LIMIT 1", isolation="REPEATABLE READ"):
            deadline = time.monotonic() + 15
            while "standby" not in pg.table("postgres", "t").pinned_by:
                assert time.monotonic() < deadline, "the standby's feedback never arrived"
                primary.sql("UPDATE t SET id = id WHERE id < 10")
                time.sleep(0.3)
    standby.stop()


def test_slots(primary: PostgreSQL, fleet: Fleet) -> None:
    standby = fleet.postgresql_standby(primary, name=f"{primary.name}-slotted")
    primary.sql("SELECT pg_create_physical_replication_slot('left_alone')")
    standby.sql("ALTER SYSTEM SET primary_slot_name = 'left_alone'")
    standby.restart()
    primary.sql(CHURN)
    standby.catch_up()
    deadline = time.monotonic() + 15
    while primary.sql("SELECT count(*) FROM pg_replication_slots WHERE xmin IS NOT NULL") != [["1"]]:
        assert time.monotonic() < deadline
        primary.sql("UPDATE t SET id = id WHERE id < 10")
        time.sleep(0.2)
    standby.stop()
    primary.sql("UPDATE t SET id = id WHERE id < 100")
    with use(primary) as pg:
        found = pg.table("postgres", "t")
        assert "pg_drop_replication_slot('left_alone')" in found.pinned_by
        assert found.dead is not None
        assert found.dead.removable is not None
        assert found.dead.removable < found.dead.rows
        primary.sql("SELECT pg_drop_replication_slot('left_alone')")
        assert pg.table("postgres", "t").pinned_by == ""


def test_the_activity_of_the_server(postgresql: Server, shop: str) -> None:
    with use(postgresql) as pg, transaction(postgresql, shop, "SELECT txid_current()"):
        time.sleep(0.1)
        found = pg.measure(shop)
        assert found.activity is not None
        assert found.activity.oldest_seconds is not None
        assert found.activity.oldest_seconds >= 0.1
        assert "shop" in found.activity.oldest_who
        assert found.activity.max_connections == 60
        assert (found.activity.connections or 0) >= 2
        assert {"data", "wal"} <= {s.name for s in found.spaces}
        assert all(s.free and s.total and s.free <= s.total for s in found.spaces)
