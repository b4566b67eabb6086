# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The four stages: what is looked at, how closely, what one fault does to the rest, and when a step is proven."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput, CannotConnect, Gone, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._frame import Memory, Stages, choose
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import bloat as bloat_operation
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import preflight, vacuum
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    DatabaseInfo,
    Dead,
    Execution,
    Leftover,
    Measured,
    Plan,
    Proof,
    Ref,
    Step,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._selection import Patterns
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Rebuild

from .samples import GB, bloat, cured, defaults, fleets, policy, server, table
from .world import Visit, World

DEAD = Dead(500_000, 33.0)
ALL = Patterns(["*"])


def stages(world: World, databases: Patterns = ALL, jobs: int = 2, **options: Any) -> Stages:
    return Stages(world, world.greet(), {"vacuum": (vacuum, policy(**options))}, databases, Execution(jobs=jobs))


def plan(found: Stages) -> Plan:
    return found.plans(Memory())[1]["vacuum"]


def prove(found: Stages, planned: Plan, step: Step) -> Proof:
    return found.prover("vacuum", planned)(Visit(step.task.ref.database), step, "")


# ---- which databases -------------------------------------------------------------------------------------------------

LISTED = server(
    databases=(
        DatabaseInfo("shop", freeze_percent=10.0),
        DatabaseInfo("template0", system=True, why_not="does not take connections", freeze_percent=80.0),
        DatabaseInfo("template1", system=True, freeze_percent=60.0),
        DatabaseInfo("old", why_not="the login has no CONNECT", freeze_percent=120.0),
    )
)


def chosen(*patterns: str, freeze_from: float | None = 50.0) -> tuple[dict[str, bool], list[tuple[int, str, str]]]:
    infos, findings = choose(LISTED, Patterns(list(patterns)), Wants(freeze_from=freeze_from))
    return {i.name: i.system for i in infos}, [(f.priority, f.code, f.ref.database) for f in findings]


def test_old_system_databases_are_looked_at_too() -> None:
    unreadable = [(2, "database_unreadable", "template0"), (1, "database_unreadable", "old")]
    assert chosen("*") == ({"shop": False, "template1": True}, unreadable)
    assert chosen("*", freeze_from=70.0) == ({"shop": False}, unreadable)
    assert chosen("*", freeze_from=None) == ({"shop": False}, unreadable[1:])


def test_who_selects_gets_what_was_selected() -> None:
    assert chosen("*", "-old") == ({"shop": False}, [])
    assert chosen("template1") == ({"template1": False}, [])
    assert chosen("template*", "shop*") == ({"shop": False}, [])
    assert chosen("x*") == ({}, [(3, "nothing_selected", "")])


def test_a_named_database_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadInput, match=r"there is no database shpo on db1:5432.*There are: old, shop, template0"):
        choose(LISTED, Patterns(["shop", "shpo"]), Wants())
    many = server(databases=tuple(DatabaseInfo(f"d{n:02}") for n in range(30)))
    with pytest.raises(BadInput, match="d19, …"):
        choose(many, Patterns(["x"]), Wants())


def test_nothing_but_unreadable_databases_is_a_failure() -> None:
    with pytest.raises(CannotConnect, match="database old: the login has no CONNECT"):
        chosen("old")


# ---- measured --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 4])
def test_one_unreadable_database_is_a_finding_and_the_others_go_on(jobs: int) -> None:
    world = World(table(dead=DEAD), table(database="jobs", dead=DEAD))
    world.locked["jobs"] = CannotConnect("no pg_hba.conf entry", database="jobs", cure="Add one")
    found = plan(stages(world, jobs=jobs))
    assert [s.task.ref.database for s in found.steps] == ["shop"]
    assert [(f.code, f.ref, f.message, f.fix) for f in found.findings] == [
        ("database_unreadable", Ref("jobs"), "no pg_hba.conf entry", "Add one")
    ]


def test_when_nothing_can_be_read_the_fault_is_raised() -> None:
    world = World(table(), table(database="jobs"))
    world.locked.update({name: CannotConnect("too many connections") for name in ("shop", "jobs")})
    with pytest.raises(CannotConnect, match="too many connections"):
        plan(stages(world))


def test_bad_input_that_only_an_engine_notices_is_raised() -> None:
    world = World(table(), table(database="jobs"))
    world.locked["jobs"] = BadInput("session_role: there is no role x")
    with pytest.raises(BadInput, match="session_role"):
        plan(stages(world))


def test_one_measurement_serves_all_planners_and_findings_are_everybodys() -> None:
    world = World(table(dead=DEAD))
    world.server = world.server._replace(databases=(*world.server.databases, DatabaseInfo("old", why_not="no")))
    facts = bloat_operation.policy(defaults(bloat_operation.OPTIONS))
    asked: dict[str, Any] = {
        "vacuum": (vacuum, policy()),
        "bloat": (bloat_operation, facts),
        "preflight": (preflight, preflight.policy(defaults(preflight.OPTIONS))),
    }
    _measured, plans = Stages(world, world.greet(), asked, ALL, Execution()).plans(Memory())
    assert [name for name, _wants in world.looks] == ["shop"]
    assert world.looks[0][1].activity
    assert plans.keys() == asked.keys()
    assert [f.code for p in plans.values() for f in p.findings] == ["database_unreadable"] * 3


def test_doubts_are_measured_exactly_and_nothing_else() -> None:
    doubtful, clear = table("a", bloat=bloat(32, doubt=5)), table("b", database="jobs")
    world = World(doubtful, clear)
    world.exact[doubtful.ref] = doubtful._replace(bloat=bloat(35))
    assert [s.key for s in plan(stages(world)).steps] == [("reclaim", doubtful.ref)]
    assert sorted(name for name, _wants in world.looks) == ["jobs", "shop", "shop"]
    assert world.looks[-1][1].only == world.looks[-1][1].exact == (doubtful.ref,)
    world.exact[doubtful.ref] = doubtful._replace(bloat=bloat(29))
    assert plan(stages(world)) == Plan()


def test_when_a_closer_look_fails_the_estimate_stands() -> None:
    doubtful = table("a", dead=DEAD, bloat=bloat(32, doubt=5))
    world = World(doubtful, table("b", database="jobs", dead=DEAD))
    world.exact[doubtful.ref] = Refused("permission denied for function pgstattuple", cure="GRANT pg_stat_scan_tables")
    found = plan(stages(world))
    assert [s.key for s in found.steps] == [("vacuum", doubtful.ref), ("vacuum", Ref("jobs", ("public", "b")))]
    (finding,) = found.findings
    assert (finding.code, finding.ref, finding.fix) == (
        "not_measured_exactly", Ref("shop"), "GRANT pg_stat_scan_tables",
    )  # fmt: skip
    assert "the estimates stand: permission denied" in finding.message


def test_a_table_that_is_nowhere_is_a_finding() -> None:
    world = World(table("orders"), table("jobs", database="jobs"))
    found = plan(stages(world, tables=["orders", "public.jobs", "ordres", "tmp_*", "-nothing"]))
    assert [(f.code, f.message.split(",")[0]) for f in found.findings] == [
        ("no_such_table", "tables: no selected database has a table ordres")
    ]


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [1.0, None])
def test_a_broken_limit_shows_in_the_plan_and_leaves_other_needs_alone(missing: float | None) -> None:
    world = World(table(dead=DEAD, bloat=bloat(40)), table("b", bloat=bloat(40), database="jobs"))
    world.gauges["wal_missing"] = missing
    found = {s.key[0]: s.skip for s in plan(stages(world)).steps if s.task.ref.database == "shop"}
    assert found.pop("vacuum") == ""
    assert "WAL" in found.pop("reclaim")
    assert not found


def test_limits_of_a_database_that_went_away_cannot_hold() -> None:
    world = World(table(dead=DEAD, bloat=bloat(40)))
    found = stages(world)
    measured = found.measure(Memory())
    world.locked["shop"] = Gone("the server closed the connection")
    steps = vacuum.plan(
        policy(), measured._replace(blocked=found._blocked({"x": vacuum.plan(policy(), measured)}))
    ).steps
    assert [s.skip for s in steps] == ["", "its limits cannot be read: the server closed the connection"]


# ---- proven ----------------------------------------------------------------------------------------------------------


def test_a_step_is_proven_when_its_need_is_gone() -> None:
    world = World(table(dead=DEAD, changed=10**6), table("b", dead=DEAD))
    found = stages(world)
    planned = plan(found)
    step = planned.steps[0]
    unproven = prove(found, planned, step)
    assert not unproven.proven
    assert [(f.code, f.ref) for f in unproven.findings] == [("not_proven", table().ref)]
    assert unproven.findings[0].message.startswith("measured again after the vacuum: still due, dead rows 33 %")
    list(world.carry_out(Visit("shop"), step.task, world.server, None))
    assert prove(found, planned, step) == Proof(True, 2 * GB)
    assert world.looks[-1][1].only == (step.task.ref,)


def test_a_need_that_hides_in_a_skipped_rebuild_is_not_called_gone() -> None:
    world = World(table(dead=DEAD, bloat=bloat(40)))
    world.gauges["disk_missing"] = 1.0
    found = stages(world)
    planned = plan(found)
    first = planned.steps[0]
    assert first.task.kind == "vacuum"
    assert not prove(found, planned, first).proven
    list(world.carry_out(Visit("shop"), first.task, world.server, None))
    assert prove(found, planned, first).proven


def test_what_else_is_planned_does_not_count_against_a_step() -> None:
    world = World(table(freeze_percent=60.0, bloat=bloat(40)))
    found = stages(world)
    planned = plan(found)
    freeze, rebuild = planned.steps
    list(world.carry_out(Visit("shop"), freeze.task, world.server, None))
    assert prove(found, planned, freeze).proven
    assert not prove(found, planned, rebuild).proven


def test_a_new_need_is_told_apart_from_the_old_one() -> None:
    world = World(table(dead=DEAD))
    found = stages(world)
    planned = plan(found)
    world.databases["shop"] = world.databases["shop"]._replace(tables=(table(bloat=bloat(50)),))
    proof = prove(found, planned, planned.steps[0])
    assert not proof.proven
    assert proof.findings[0].message.startswith("measured again after the vacuum: reclaim now due, bloat 50 %")


def test_the_proof_looks_as_closely_as_the_plan_did() -> None:
    world = World(table(bloat=bloat(60)))
    found = stages(world)
    planned = plan(found)
    after = cured(table(bloat=bloat(60)), Rebuild(table().ref))
    world.databases["shop"] = world.databases["shop"]._replace(tables=(after._replace(bloat=bloat(32, doubt=20)),))
    world.exact[after.ref] = after
    assert prove(found, planned, planned.steps[0]) == Proof(True, after.total_bytes)


def test_wreckage_is_proven_gone_by_its_own_bytes() -> None:
    world = World(table(), database={"leftovers": (Leftover(table().ref, "pg_repack", ("log_1",), 5 * GB),)})
    found = stages(world)
    planned = plan(found)
    (step,) = planned.steps
    assert prove(found, planned, step)[:2] == (False, 5 * GB)
    list(world.carry_out(Visit("shop"), step.task, world.server, None))
    assert world.left() == []
    assert prove(found, planned, step) == Proof(True, 0)


def test_force_is_proven_by_measurement_not_by_force() -> None:
    world = World(table())
    found = stages(world, force=True, tables=["orders"], actions=["vacuum"])
    planned = plan(found)
    assert [s.reason for s in planned.steps] == ["forced"]
    assert prove(found, planned, planned.steps[0]).proven


def test_a_projected_step_is_asked_about_again() -> None:
    world = World(table(dead=DEAD))
    found = stages(world)
    (step,) = plan(found).steps
    again = found.replanner("vacuum")(Visit("shop"), step)
    assert again is not None
    assert again.key == step.key
    list(world.carry_out(Visit("shop"), step.task, world.server, None))
    assert found.replanner("vacuum")(Visit("shop"), step) is None


@given(fleets())
def test_every_step_that_keeps_its_promise_is_proven(measured: Measured) -> None:
    """Each alone, in the order of the plan, whatever stands before or after it."""
    world = World()
    world.databases = {d.name: d for d in measured.databases}
    world.server = world.server._replace(databases=tuple(DatabaseInfo(d.name) for d in measured.databases))
    found = stages(world, jobs=1)
    planned = plan(found)
    told = {f.ref for f in planned.findings}
    for step in planned.steps:
        list(world.carry_out(Visit(step.task.ref.database), step.task, world.server, None))
        proof = prove(found, planned, step)
        assert proof.proven or step.task.ref in told or {f.code for f in proof.findings} == {"horizon_pinned"}
