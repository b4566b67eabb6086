# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action module from its options to its exit: check equals run, faults are told, nothing is lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, CannotConnect, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Database,
    DatabaseInfo,
    Dead,
    Measured,
    Server,
    Wants,
)

from .modules import Ran, db_vacuum
from .samples import NOW, bloat, fleets, table
from .world import World

DEAD = Dead(500_000, 33.0)
SAME = ("database", "object", "kind", "reason", "statements", "measured", "expected")


def peopled(measured: Measured) -> World:
    world = World()
    world.databases = {d.name: d for d in measured.databases}
    world.server = world.server._replace(databases=tuple(DatabaseInfo(name) for name in world.databases))
    return world


def words(ran: Ran) -> list[Any]:
    return [[step[key] for key in SAME] for step in ran.fact["steps"]]


@settings(max_examples=40, deadline=None)
@given(fleets())
def test_check_equals_run_and_the_second_run_does_nothing(measured: Measured) -> None:
    world = peopled(measured)
    before = dict(world.databases)
    check = db_vacuum(world, check=True, diff=True)
    assert (world.ran, world.databases) == ([], before)
    real = db_vacuum(world)
    assert words(real) == words(check)
    assert real.result["changed"] is check.result["changed"] is bool(world.ran)
    assert sorted(world.ran) == sorted(w for s in real.fact["steps"] if s["status"] == "done" for w in s["statements"])
    assert {s["status"] for s in real.fact["steps"]} <= {"done", "skipped"}
    if "leftover_waits" not in real.codes:
        again = db_vacuum(world)
        assert again.result["changed"] is False
        assert again.fact["summary"]["planned"] == 0


def test_a_failing_step_fails_the_module_and_stops_no_other() -> None:
    world = World(*[table(n, dead=DEAD) for n in "abcdefgh"])
    world.failing = {n: Refused("no right to do that", cure="GRANT it") for n in "abcdefg"}
    ran = db_vacuum(world)
    assert ran.code == 1
    assert ran.result["msg"].startswith("db1:5432: 7 of 8 steps failed: vacuum of public.")
    assert " in shop: no right to do that. GRANT it; " in ran.result["msg"]
    assert ran.result["msg"].endswith("; and 2 more")
    assert ran.result["changed"] is True
    assert (ran.result["summary"]["done"], ran.result["summary"]["failed"]) == (1, 7)
    assert {s["error"] for s in ran.fact["steps"]} == {None, "no right to do that. GRANT it"}


def test_an_error_that_names_its_database_names_it_once() -> None:
    world = World(table(dead=DEAD))
    world.failing = {"orders": Busy("lock timeout", database="shop", obj="public.orders")}
    ran = db_vacuum(world, retries=0)
    assert ran.result["msg"].endswith("vacuum of public.orders: database shop, public.orders: lock timeout")


@pytest.mark.parametrize("check", [True, False])
def test_outside_the_window_nothing_starts(check: bool) -> None:
    world = World(table(dead=DEAD), table("b", bloat=bloat(40)))
    ran = db_vacuum(world, check=check, window="20:00-24:00", window_timezone="Europe/Berlin")
    assert ran.result["changed"] is False
    assert {(s["status"], s["error"]) for s in ran.fact["steps"]} == {("deferred", "outside the maintenance window")}
    assert ran.codes == ["outside_window"]
    (finding,) = ran.fact["findings"]
    assert finding["message"] == "outside the maintenance window 20:00-24:00 Europe/Berlin: nothing is started"
    assert world.ran == []


def test_inside_the_window_its_end_is_the_budget() -> None:
    world = World(table(dead=DEAD, bytes=1 << 50, total_bytes=1 << 50))
    assert NOW.hour == 12
    ran = db_vacuum(world, window="11:00-12:01")
    (step,) = ran.fact["steps"]
    assert step["status"] == "deferred"
    assert "of the time budget are left" in step["error"]


@pytest.mark.parametrize("if_running", ["fail", "skip"])
def test_another_run_at_work(if_running: str) -> None:
    world = World(table(dead=DEAD), table("b", bloat=bloat(40)))
    world.held, world.gauges = True, {"disk_missing": 1.0}
    ran = db_vacuum(world, if_running=if_running)
    assert world.ran == []
    assert ran.result["changed"] is False
    if if_running == "fail":
        assert (ran.code, ran.result["msg"]) == (1, "db1:5432: another run is at work: pid 7")
        return
    assert ran.codes == ["already_running"]
    errors = {s["kind"]: s["error"] for s in ran.fact["steps"]}
    assert errors["vacuum"] == "another run is at work: pid 7"
    assert "disk space" in errors["reclaim"]  # its own reason stays


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"window": "22-6"}, "window"),
        ({"window": "22:00-06:00", "window_timezone": "Nowhere"}, "window_timezone"),
        ({"databases": ["[a]*"]}, "databases"),
        ({"databases": []}, "databases"),
        ({"tables": ["a|b"]}, "tables"),
        ({"tables": []}, "tables"),
        ({"jobs": 0}, "jobs"),
        ({"dead_percent": 101}, "dead_percent"),
        ({"time_budget": "0s"}, "time_budget"),
        ({"force": True}, "force"),
        ({"reclaim_method": "offline"}, "reclaim_method"),
    ],
)
def test_bad_input_is_refused_before_the_server_is_asked(options: dict[str, Any], word: str) -> None:
    class Untouched(World):
        def greet(self) -> Server:
            raise AssertionError("the server was asked")

    ran = db_vacuum(Untouched(table(dead=DEAD)), **options)
    assert ran.code == 1
    assert word in ran.result["msg"]


def test_a_fault_names_the_server_and_the_engine_is_closed() -> None:
    world = World(table())
    world.locked["shop"] = CannotConnect("no pg_hba.conf entry", database="shop", cure="Add one")
    ran = db_vacuum(world)
    assert (ran.code, ran.result["changed"]) == (1, False)
    assert ran.result["msg"] == "db1:5432: database shop: no pg_hba.conf entry. Add one"
    assert world.closed == 1


def test_a_long_list_is_cut_and_its_counts_are_true() -> None:
    world = World(*[table(f"t{n}", dead=DEAD) for n in range(9)])
    world.failing = {"t8": Refused("disk full")}
    ran = db_vacuum(world, max_results=3, diff=True)
    assert ran.fact["summary"] == ran.result["summary"]
    assert [s["status"] for s in ran.fact["steps"]] == ["failed", "done", "done"]
    assert (ran.result["summary"]["done"], ran.result["summary"]["failed"]) == (8, 1)
    assert ran.result["diff"]["after"].count("\n") == 2


def test_a_finding_is_told_once_though_its_numbers_move_between_two_looks() -> None:
    class Busier(World):
        def measure(self, session: Any, wants: Wants, server: Server) -> Database:
            found = super().measure(session, wants, server)
            rows = 500_000 + len(self.looks)
            pinned = table("p", dead=Dead(rows, 33.0, 0), pinned_by="session 12")
            return found if wants.only else found._replace(tables=(*found.tables, pinned))

    ran = db_vacuum(Busier(table(dead=DEAD)))
    assert ran.codes == ["horizon_pinned"]
    assert [s["status"] for s in ran.fact["steps"]] == ["done"]


def test_a_step_that_does_nothing_is_told_and_not_proven() -> None:
    world = World(table(dead=DEAD, analyzed=NOW - timedelta(days=1)))
    world.lazy = {"vacuum"}
    ran = db_vacuum(world, diff=True)
    (step,) = ran.fact["steps"]
    assert (step["status"], step["proven"]) == ("done", False)
    assert ran.codes == ["not_proven"]
    assert "but the need is still there" in ran.result["diff"]["after"]


def test_nothing_due_changes_nothing() -> None:
    ran = db_vacuum(World(table()), diff=True)
    assert (ran.code, ran.result["changed"], ran.result["diff"]) == (0, False, {"before": "", "after": ""})
    assert ran.fact["steps"] == ran.fact["findings"] == []
