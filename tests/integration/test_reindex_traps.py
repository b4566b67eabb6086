# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_reindex in bad company: old snapshots, lock holders, kills, stops. Wreckage is in test_reindex_wreckage.py."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Refused, Vanished
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Reindex
from tests.fleet import Fleet, Server

from .conftest import Pool
from .indexes import cut_off, invalid, lazy, options, reindexing, spoil
from .module_runner import run, start, until
from .pg import later, role, transaction, use
from .test_check_equals_run import writes

Database = Callable[[Server], str]
SNAPSHOT = "REPEATABLE READ"


def forced(server: Server, database: str, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return options(server, database, tmp_path, force=True, indexes=["lazy_note"], **more)


def oid(server: Server, database: str, index: str = "lazy_note") -> str:
    return server.sql(f"SELECT '{index}'::regclass::oid", database=database)[0][0]


def test_an_old_snapshot_is_refused(postgresql: Server, database: Database, tmp_path: Path) -> None:
    """An idle session that never touched the table: the new index would be built whole and then thrown away."""
    name = database(postgresql)
    lazy(postgresql, name)
    asked = forced(postgresql, name, tmp_path, max_snapshot_age="1s")
    before = oid(postgresql, name)
    with transaction(postgresql, name, "SELECT 1", isolation=SNAPSHOT):
        time.sleep(1.2)
        check = run("db_reindex", asked, check=True)
        postgresql.mark_log()
        ran = run("db_reindex", asked)
        assert writes(postgresql) == []
    for found in (check, ran):
        assert not found.changed
        (step,) = found.fact()["steps"]
        assert step["status"] == "skipped"
        assert "snapshot" in step["error"]
    assert oid(postgresql, name) == before
    assert run("db_reindex", asked).changed


@pytest.mark.parametrize("statement", ["SELECT 1", "LOCK TABLE lazy IN ROW EXCLUSIVE MODE"])
def test_a_younger_one_is_waited_out_before_anything_is_made(
    postgresql: Server, database: Database, tmp_path: Path, statement: str
) -> None:
    name = database(postgresql)
    lazy(postgresql, name)
    before = oid(postgresql, name)
    with transaction(postgresql, name, statement, isolation=SNAPSHOT) as cursor:
        postgresql.mark_log()
        impatient = run("db_reindex", forced(postgresql, name, tmp_path, concurrent_wait="1s", retries=0), fails=True)
        assert "shop" in impatient.result["msg"]
        assert "idle in transaction" in impatient.result["msg"]
        assert not impatient.changed
        assert writes(postgresql) == []
        later(3, lambda: cursor.execute("COMMIT"))
        patient = run("db_reindex", forced(postgresql, name, tmp_path, concurrent_wait="1m"))
    assert [(s["status"], s["proven"]) for s in patient.fact()["steps"]] == [("done", True)]
    assert oid(postgresql, name) != before
    assert invalid(postgresql, name) == []


def test_a_prepared_transaction_is_named(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    lazy(postgresql, name)
    with transaction(postgresql, name, "LOCK TABLE lazy IN ROW EXCLUSIVE MODE") as cursor:
        cursor.execute("PREPARE TRANSACTION 'left_behind'")
    try:
        ran = run("db_reindex", forced(postgresql, name, tmp_path, concurrent_wait="1s", retries=0), fails=True)
        assert "left_behind" in ran.result["msg"]
        assert invalid(postgresql, name) == []
    finally:
        postgresql.sql("ROLLBACK PREPARED 'left_behind'", database=name)


def test_a_snapshot_that_comes_later_leaves_nothing_behind(postgresql: Server, database: Database) -> None:
    """The trap as measured: lock_timeout cuts the wait for it off, when the new index has been built whole."""
    name = database(postgresql)
    lazy(postgresql, name)
    task = Reindex(Ref(name, ("public", "lazy_note")), Ref(name, ("public", "lazy")))
    with use(postgresql, Execution(concurrent_wait=1.0)) as used, used.engine.session(name) as session:
        work = used.engine.carry_out(session, task, used.server, None)
        tick = next(work)
        while not tick.owns:
            tick = next(work)
        claims = [tick.owns]
        with transaction(postgresql, name, "SELECT 1", isolation=SNAPSHOT), pytest.raises(Busy):
            claims.extend(tick.owns for tick in work)
        # The index that is replaced, the new one by its name, and then by its number.
        assert [claim.partition(" ")[0] for claim in claims if claim] == ["index", "lazy_note_ccnew", "index"]
    assert invalid(postgresql, name) == []


@pytest.mark.parametrize(("how", "status"), [("pg_terminate_backend", "done"), ("pg_cancel_backend", "failed")])
def test_somebody_ends_the_session(
    postgresql: Server, database: Database, tmp_path: Path, how: str, status: str
) -> None:
    """A lost connection is tried again; what somebody cancelled on purpose is not. Nothing is left behind."""
    name = database(postgresql)
    lazy(postgresql, name)
    child = start("db_reindex", forced(postgresql, name, tmp_path))
    until(lambda: invalid(postgresql, name), 30, "the new index")
    for pid in reindexing(postgresql):
        postgresql.sql(f"SELECT {how}({pid})")
    ran = child.wait()
    (step,) = ran.fact()["steps"]
    assert step["status"] == status, ran.text
    assert invalid(postgresql, name) == []
    again = run("db_reindex", options(postgresql, name, tmp_path))
    assert not again.changed
    assert again.steps() == []


@pytest.mark.parametrize("how", ["SIGTERM", "stop file", "hard stop"])
def test_a_stop_leaves_nothing_behind(postgresql: Server, database: Database, tmp_path: Path, how: str) -> None:
    name = database(postgresql)
    lazy(postgresql, name)
    stop = tmp_path / "stop"
    more = {"stop_file": str(stop)} | ({"time_budget": "8s"} if how == "hard stop" else {})
    child = start("db_reindex", forced(postgresql, name, tmp_path, **more))
    until(lambda: invalid(postgresql, name), 30, "the new index")
    with transaction(postgresql, name, "SELECT 1", isolation=SNAPSHOT):  # so that it does not come to its end
        if how == "SIGTERM":
            child.send(signal.SIGTERM)
        elif how == "stop file":
            stop.touch()
        ran = child.wait(60)
    (step,) = ran.fact()["steps"]
    assert step["status"] == "deferred", ran.text
    assert not ran.changed
    assert invalid(postgresql, name) == []
    assert run("db_reindex", options(postgresql, name, tmp_path)).steps() == []


def test_a_lock_holder_holds_up_the_exclusive_way_no_longer_than_lock_timeout(
    postgresql: Server, database: Database, tmp_path: Path
) -> None:
    name = database(postgresql)
    lazy(postgresql, name)
    asked = forced(postgresql, name, tmp_path, method="exclusive", lock_timeout="500ms", retries=0)
    with transaction(postgresql, name, "SELECT count(*) FROM lazy", "LOCK TABLE lazy IN ROW EXCLUSIVE MODE"):
        began = time.monotonic()
        ran = run("db_reindex", asked, fails=True)
        assert time.monotonic() - began < 10
        assert "lock" in ran.result["msg"]
    assert run("db_reindex", asked).changed


def test_an_index_that_is_gone_has_vanished(postgresql: Server, database: Database) -> None:
    name = database(postgresql)
    lazy(postgresql, name)
    task = Reindex(Ref(name, ("public", "gone")), Ref(name, ("public", "lazy")))
    with use(postgresql) as used:
        for each in (task, task._replace(online=False)):
            with pytest.raises(Vanished):
                used.carry_out(each)
        # Dropped in the middle of it.
        dropped = task._replace(ref=Ref(name, ("public", "lazy_note")))
        with used.engine.session(name) as session:
            work = used.engine.carry_out(session, dropped, used.server, None)
            tick = next(work)
            while not tick.owns:
                tick = next(work)
            postgresql.sql("DROP INDEX lazy_note", database=name)
            with pytest.raises(Vanished):
                list(work)
    assert invalid(postgresql, name) == []


def test_versions_that_damage_indexes_are_refused(pool: Pool, database: Database) -> None:
    server = pool.get("postgresql-15")
    name = database(server)
    lazy(server, name)
    task = Reindex(Ref(name, ("public", "lazy_note")), Ref(name, ("public", "lazy")))
    before = oid(server, name)
    with use(server) as used, used.engine.session(name) as session:
        old = used.server._replace(number=(14, 3), version="14.3")
        with pytest.raises(Refused, match=r"14\.3"):
            list(used.engine.carry_out(session, task, old, None))
    assert oid(server, name) == before


def test_two_runs_at_once_do_each_step_once(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    spoil(postgresql, name)
    asked = options(postgresql, name, tmp_path, if_running="wait")
    expected = run("db_reindex", asked, check=True).steps()
    both = [start("db_reindex", asked) for _number in range(2)]
    done = [step for child in both for step in child.wait().steps()]
    assert sorted(done) == sorted(expected)
    assert invalid(postgresql, name) == []
    assert not run("db_reindex", asked).changed


def test_a_standby_is_left_alone(fleet: Fleet, tmp_path: Path) -> None:
    primary = fleet.postgresql(18, name="first_of_indexes")
    primary.sql("CREATE DATABASE shop")
    spoil(primary, "shop")
    standby = fleet.postgresql_standby(primary)
    standby.catch_up()
    expected = run("db_reindex", options(primary, "shop", tmp_path), check=True).steps()
    ran = run("db_reindex", options(standby, "shop", tmp_path))
    assert not ran.changed
    assert sorted(ran.steps()) == sorted(expected)
    assert {s["status"] for s in ran.fact()["steps"]} == {"skipped"}
    assert all("standby" in s["error"] for s in ran.fact()["steps"])
    primary.stop()


def test_a_poor_login_gets_findings(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    spoil(postgresql, name)
    user = f"poor_{name}"
    with role(postgresql, user, f"GRANT pg_read_all_data, pg_monitor TO {user}", database=name) as login:
        ran = run("db_reindex", {**options(postgresql, name, tmp_path), **login})
        assert not ran.changed
        assert ran.steps() == []
        found = {f["object"]: f["message"] for f in ran.fact()["findings"]}
        assert "may not maintain" in found["public.double_id"]
        assert "may not maintain" in found["public.orders_pkey"]
        assert login["login_password"] not in ran.text
        # Of the owner's right nothing else is needed; without pg_monitor nobody knows how old the snapshots are.
        postgresql.sql(f"ALTER TABLE orders OWNER TO {user}", database=name)
        mine = run("db_reindex", {**options(postgresql, name, tmp_path), **login, "tables": ["orders"]})
        assert {s["status"] for s in mine.fact()["steps"]} == {"done"}
        postgresql.sql(f"ALTER TABLE orders OWNER TO {postgresql.user}", database=name)


def test_who_may_maintain_may_reindex_but_not_drop(pool: Pool, database: Database, tmp_path: Path) -> None:
    server = pool.get("postgresql-18")
    name = database(server)
    lazy(server, name)
    user = f"maintainer_{name}"
    with role(server, user, f"GRANT pg_maintain, pg_read_all_data, pg_monitor TO {user}", database=name) as login:
        assert run("db_reindex", {**forced(server, name, tmp_path), **login}).changed
        left = cut_off(server, name, "lazy_note", "ccnew")
        ran = run("db_reindex", {**options(server, name, tmp_path, adopt_leftovers=True), **login})
        assert not ran.changed
        (found,) = [f for f in ran.fact()["findings"] if f["code"] == "foreign_leftover"]
        assert "only its owner" in found["message"]
    assert invalid(server, name) == [left]
