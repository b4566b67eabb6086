# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The read-only modules: they say what a run would do, write nothing, and never fail over what is only a finding."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given, settings

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import CannotConnect
from ansible_collections.dbfleet.maintenance.plugins.module_utils._facts import (
    OPERATIONS,
    SAMPLE,
    assess_module,
    bloat_module,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Activity,
    Database,
    DatabaseInfo,
    Dead,
    Measured,
    Server,
    Space,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Expired, Piece

from .modules import Ran, db_vacuum, run
from .samples import GB, MB, bloat, fleets, server, table
from .world import World

DEAD = Dead(500_000, 33.0)
RULE = {"name": "old", "table": "orders", "date_column": "at", "delete_after": "90d"}


def assess(world: World, **options: Any) -> Ran:
    return run(assess_module, world, {"statistics": False, **options})


def db_bloat(world: World, **options: Any) -> Ran:
    return run(bloat_module, world, options)


def test_garbage_is_collected_again_afterwards() -> None:
    assert gc.isenabled()
    assert assess(World(), vacuum={}).code == 0
    assert gc.isenabled()


def peopled(measured: Measured) -> World:
    world = World()
    world.databases = {d.name: d for d in measured.databases}
    world.server = world.server._replace(databases=tuple(DatabaseInfo(name) for name in world.databases))
    return world


@settings(max_examples=40, deadline=None)
@given(fleets())
def test_due_is_what_a_run_would_do(measured: Measured) -> None:
    world = peopled(measured)
    check = db_vacuum(world, check=True)
    found = assess(world, vacuum={})
    assert world.ran == []
    assert found.result["changed"] is False
    due, summary = found.fact["vacuum"], check.fact["summary"]
    assert due["due"] is found.fact["due"] is check.result["changed"]
    assert (due["steps"], due["skipped"]) == (summary["planned"], summary["skipped"])
    planned = [s for s in check.fact["steps"] if s["status"] == "planned"]
    assert due["sample"] == [{k: s[k] for k in due["sample"][0]} for s in planned[:SAMPLE]]
    assert due["bytes"] == sum(s["expected"]["bytes_freed"] for s in planned)
    assert found.codes == check.codes


def test_what_is_not_asked_for_is_not_assessed_and_not_due() -> None:
    found = assess(World(table(dead=DEAD)))
    assert found.fact["due"] is False
    for name in OPERATIONS:
        assert (found.fact[name]["assessed"], found.fact[name]["due"]) == (False, False)
    assert found.fact["preflight"] == {"assessed": False, "ok": True, "stopped_by": []}


def test_the_preflight_comes_with_the_same_measurement() -> None:
    full = {"activity": Activity(9e4, "pid 1 of app", 99, 100), "spaces": (Space("data", GB, 100 * GB),)}
    world = World(table(dead=DEAD), server=server(role="standby"), database=full)
    found = assess(world, vacuum={}, preflight={"role": "primary", "window": "01:00-02:00"})
    assert len(world.looks) == 1
    assert found.fact["preflight"]["ok"] is False
    assert found.fact["preflight"]["stopped_by"] == [
        "it is 12:00 there, outside the maintenance window 01:00-02:00 UTC",
        "the server is a standby",
        "99 of 100 connections are taken, over 95 %",
        "1.0 GB of 100.0 GB are free for data, under 10 %",
    ]
    assert found.codes == ["connections", "free_space", "not_primary", "outside_window", "long_transaction"]
    assert found.fact["vacuum"]["due"] is True


@pytest.mark.parametrize(
    ("rows", "preflight", "idle"),
    [
        (None, {}, True),
        (DEAD, {}, False),
        (DEAD, {"window": "01:00-02:00"}, True),
        (DEAD, {"role": "primary"}, True),
        (None, {"max_connections_percent": 90.0}, False),  # nothing due, and somebody has to hear of it
        (DEAD, {"max_connections_percent": 90.0}, False),
        (DEAD, {"role": "primary", "max_connections_percent": 90.0}, True),
    ],
)
def test_idle_is_where_a_playbook_leaves_the_host(rows: Dead | None, preflight: dict[str, Any], idle: bool) -> None:
    world = World(table(dead=rows), server=server(role="standby"), database={"activity": Activity(0.0, "", 94, 100)})
    found = assess(world, vacuum={}, preflight=preflight)
    assert found.fact["idle"] is idle


def test_an_urgent_finding_of_another_kind_does_not_stop_maintenance() -> None:
    world = World(table(dead=DEAD))
    lost = DatabaseInfo("old", why_not="the login has no CONNECT", freeze_percent=120.0)
    world.server = world.server._replace(databases=(*world.server.databases, lost))
    found = assess(world, vacuum={}, preflight={})
    assert [(f["priority"], f["code"]) for f in found.fact["findings"]] == [(1, "database_unreadable")]
    assert found.fact["preflight"]["ok"] is True


def test_a_long_list_is_a_sample_and_its_counts_are_true() -> None:
    found = assess(World(*[table(f"t{n}", dead=DEAD) for n in range(30)]), vacuum={})
    assert (found.fact["vacuum"]["steps"], len(found.fact["vacuum"]["sample"])) == (30, SAMPLE)


@pytest.mark.parametrize("module", [assess, db_bloat])
def test_a_server_that_cannot_be_read_is_a_failure_that_names_it(module: Any) -> None:
    world = World(table())
    world.locked["shop"] = CannotConnect("too many connections", database="shop")
    found = module(world)
    assert found.code == 1
    assert "db1:5432" in found.result["msg"]
    assert "too many connections" in found.result["msg"]
    assert world.closed == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"vacuum": {"dead_percent": 101}}, "dead_percent"),
        ({"vacuum": {"force": True}}, "force"),
        ({"vacuum": {"sorcery": True}}, "sorcery"),
        ({"preflight": {"window": "never"}}, "window"),
        ({"cleanup": {"rules": [{"name": "old", "table": "orders", "date_column": "at"}]}}, "no row would ever leave"),
        ({"cleanup": {"only": ["odl"], "rules": [RULE]}}, "there is no rule odl"),
        ({"cleanup": {}, "count_timeout": "soon"}, "count_timeout"),
        ({"tables": ["a|b"], "vacuum": {}}, "tables"),
        ({"databases": ["shpo"], "vacuum": {}}, "there is no database shpo"),
    ],
)
def test_bad_input_is_named(options: dict[str, Any], word: str) -> None:
    found = assess(World(table()), **options)
    assert found.code == 1
    assert word in found.result["msg"]


class Aged(World):
    """A world in which every rule finds so many rows; None: they could not be counted."""

    def __init__(self, rows: int | None) -> None:
        super().__init__(table())
        self.rows = rows

    def measure(self, session: Any, wants: Wants, server: Server) -> Database:
        found = super().measure(session, wants, server)
        ref = table().ref
        pieces = (Piece(ref, self.rows, MB, ("at", "id"), True),)
        old = tuple(Expired(sought, ref, self.rows, 90, pieces) for sought in wants.expired)
        return found._replace(expired=old)


@pytest.mark.parametrize(("rows", "due"), [(40, True), (None, True), (0, False)])
def test_rows_that_cleanup_would_take_are_counted_for_a_while(rows: int | None, due: bool) -> None:
    world = Aged(rows)
    found = assess(world, cleanup={"rules": [RULE]}, count_timeout="7s")
    cleanup = found.fact["cleanup"]
    assert (cleanup["due"], cleanup["rows"], cleanup["steps"]) == (due, rows, int(due))
    assert [sought.timeout for _database, wants in world.looks for sought in wants.expired] == [7.0]
    assert found.fact["due"] is due


def test_a_rule_that_is_refused_is_told_and_not_due() -> None:
    found = assess(Aged(80), cleanup={"rules": [RULE]})
    assert (found.fact["due"], found.codes) == (False, ["too_many_rows"])


# ---- db_bloat_facts --------------------------------------------------------------------------------------------------


def test_bloat_is_told_the_worst_first_with_what_is_unknown() -> None:
    world = World(
        table("a", bloat=bloat(5)),
        table("b", bloat=bloat(40)),
        table("c"),
        table("tiny", total_bytes=MB - 1, bloat=bloat(90)),
        table("cat", kind="catalog", bloat=bloat(90)),
    )
    found = db_bloat(world, max_results=2).fact
    assert [o["object"] for o in found["objects"]] == ["public.b", "public.a"]
    assert found["summary"]["objects"] == 3
    assert (found["summary"]["bloated"], found["summary"]["unknown"]) == (1, 1)
    assert found["databases"]["shop"]["objects"] == 5
    assert world.ran == []


def test_a_doubt_is_looked_into_within_the_budget() -> None:
    doubtful = table("a", bloat=bloat(10, doubt=5))
    world = World(doubtful)
    world.exact[doubtful.ref] = doubtful._replace(bloat=bloat(12)._replace(method="pgstattuple"))
    (seen,) = db_bloat(world).fact["objects"]
    assert (seen["method"], seen["bloated"]) == ("pgstattuple", True)
    for options in ({"scan_budget": "1MB"}, {"method": "estimate"}):
        (seen,) = db_bloat(world, **options).fact["objects"]
        assert (seen["method"], seen["bloated"]) == ("estimate", False)
