# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laws of the vacuum planner: whatever is measured, whatever is asked for."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import vacuum
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.vacuum_needs import NEEDED_BY
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Finding, Measured, Plan, Step
from ansible_collections.dbfleet.maintenance.plugins.module_utils._selection import Patterns, names_of
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Rebuild, Vacuum

from ..samples import GB, after, fleets, measured, policy, server, table, tables

METHODS = st.sampled_from(["online", "exclusive"])
RECLAIM_FINDINGS = {
    "no_online_rebuild", "no_exclusive_rebuild", "too_large_to_reclaim", "replicated_rebuild", "natural_size",
}  # fmt: skip
# Thresholds, and values of them from the strictest on: what is due at one is due at those before it.
THRESHOLDS: dict[str, tuple[str, list[Any]]] = {
    "dead_percent": ("vacuum", [0.0, 5.0, 10.0, 60.0, 100.0]),
    "min_dead_rows": ("vacuum", [0, 1000, 10**6, 10**9]),
    "max_dead_rows": ("vacuum", [0, 10, 10**6, 10**9]),
    "changed_percent": ("analyze", [0.0, 1.0, 10.0, 1e6]),
    "analyze_max_age": ("analyze", ["0s", "1d", "7d", "52w"]),
    "freeze_age_percent": ("freeze", [0.1, 50.0, 100.0, 1000.0]),
    "reclaim_percent": ("reclaim", [0.1, 10.0, 30.0, 100.0]),
    "reclaim_min_size": ("reclaim", ["0B", "100MB", "10GB", "50GB"]),
}


def by_key(plan: Plan) -> dict[Any, Step]:
    return {step.key: step for step in plan.steps}


def due(plan: Plan) -> list[Step]:
    return [step for step in plan.steps if not step.skip]


@given(fleets(), METHODS)
def test_every_step_has_a_reason_its_numbers_and_a_key_of_its_own(found: Measured, method: str) -> None:
    plan = vacuum.plan(policy(reclaim_method=method), found)
    assert len(by_key(plan)) == len(plan.steps)
    for step in plan.steps:
        assert step.reason
        assert step.reason == step.reason.strip()
        assert json.loads(json.dumps(step.measured)) == step.measured
        assert step.measured.keys() >= {"leftovers"} or step.measured.keys() > {"bytes", "rows"}
        assert step.expected.bytes >= 0


@given(fleets(), METHODS)
def test_a_second_run_has_nothing_to_do(found: Measured, method: str) -> None:
    asked = policy(reclaim_method=method)
    first = vacuum.plan(asked, found)
    waits = {f.ref for f in first.findings if f.code == "leftover_waits"}
    left = due(vacuum.plan(asked, after(found, due(first))))
    assert [s for s in left if s.task.ref not in waits or s.task.kind != "drop_leftover"] == []


@pytest.mark.parametrize("name", THRESHOLDS)
@settings(max_examples=50)
@given(data=st.data())
def test_a_looser_threshold_never_adds_a_step(name: str, data: st.DataObject) -> None:
    action, values = THRESHOLDS[name]
    found = data.draw(fleets(pins=False))
    plans = [vacuum.plan(policy(actions=[action], **{name: value}), found) for value in values]
    keys = [{s.key for s in plan.steps if s.task.kind == action} for plan in plans]
    assert all(looser <= stricter for stricter, looser in itertools.pairwise(keys))


@given(fleets(), st.randoms())
def test_the_order_of_tables_does_not_matter(found: Measured, shuffle: Any) -> None:
    databases = [d._replace(tables=tuple(shuffle.sample(d.tables, len(d.tables)))) for d in found.databases]
    shuffle.shuffle(databases)
    one, other = vacuum.plan(policy(), found), vacuum.plan(policy(), found._replace(databases=tuple(databases)))
    assert by_key(one) == by_key(other)
    assert sorted(map(str, one.findings)) == sorted(map(str, other.findings))


@given(fleets(), METHODS)
def test_a_blocked_rebuild_swallows_no_other_need(found: Measured, method: str) -> None:
    """Stopped by a limit now, or not allowed on this server: what else is due is done as if nobody had asked for it."""
    asked, without = policy(reclaim_method=method), policy(actions=["vacuum", "analyze", "freeze"])
    alone = {k: (s.task, s.reason) for k, s in by_key(vacuum.plan(without, found)).items()}
    rebuilds = [s for s in vacuum.plan(asked, found).steps if isinstance(s.task, Rebuild)]
    stopped = found._replace(blocked={s.key: "disk space missing" for s in rebuilds})
    untested = found._replace(server=server(lacks={"rewrite": "nobody tried this version"}))
    for world, why in ((stopped, "disk space missing"), (untested, "nobody tried this version")):
        plan = vacuum.plan(asked, world)
        assert {
            k: (s.task, s.reason) for k, s in by_key(plan).items() if k[0] not in ("reclaim", "drop_leftover")
        } == alone
        assert [s.skip for s in plan.steps if isinstance(s.task, Rebuild)] == [why] * len(rebuilds)


@given(fleets(), METHODS)
def test_a_freeze_is_never_left_to_a_rebuild(found: Measured, method: str) -> None:
    freezes = by_key(vacuum.plan(policy(actions=["freeze"]), found))
    both = by_key(vacuum.plan(policy(reclaim_method=method), found))
    assert freezes.keys() <= both.keys()
    for _kind, ref in freezes:
        rebuild = both.get(("reclaim", ref))
        assert rebuild is None or (("freeze", ref) in rebuild.after and both["freeze", ref].rank > rebuild.rank)


@given(fleets(), st.sampled_from(["write", "session"]))
def test_where_nothing_may_be_written_every_step_is_shown_and_skipped(found: Measured, lacking: str) -> None:
    plan = vacuum.plan(policy(), found._replace(server=server(lacks={lacking: "a standby"})))
    assert [s.skip for s in plan.steps] == ["a standby"] * len(plan.steps)
    assert by_key(plan).keys() == by_key(vacuum.plan(policy(), found)).keys()


@given(fleets(), METHODS)
def test_a_finding_stands_for_no_step_that_is_planned(found: Measured, method: str) -> None:
    plan = vacuum.plan(policy(reclaim_method=method), found)
    steps = by_key(plan)
    for finding in plan.findings:
        if finding.code in RECLAIM_FINDINGS:
            assert ("reclaim", finding.ref) not in steps
        if finding.code == "horizon_pinned":
            reason = finding.message.split(", but ")[0]
            assert not any(reason in s.reason for s in plan.steps if s.task.ref == finding.ref)
        assert finding.message.rstrip(" :;,") == finding.message
    assert len({(f.code, f.ref, f.message) for f in plan.findings}) == len(plan.findings)


@given(fleets(), st.lists(st.sampled_from(["a", "b", "public.c", "d*", "-a"]), min_size=1, max_size=3))
def test_force_covers_what_is_named_and_nothing_else(found: Measured, names: list[str]) -> None:
    if all(n.startswith("-") for n in names):
        names = [*names, "b"]
    plan = vacuum.plan(policy(force=True, tables=names), found)
    patterns = Patterns(names)
    assert all(patterns.takes(*names_of(s.task.ref)) for s in plan.steps)
    touched = {s.task.ref for s in plan.steps} | {f.ref for f in plan.findings}
    for x in (x for d in found.databases for x in d.tables):
        needs = NEEDED_BY[x.kind] - set(x.lacks)
        if patterns.takes(*names_of(x.ref)) and needs & {"vacuum", "analyze", "freeze"}:
            assert x.ref in touched


@given(fleets())
def test_system_databases_and_catalogs_are_frozen_and_nothing_else(found: Measured) -> None:
    system = found._replace(databases=tuple(d._replace(system=True) for d in found.databases))
    assert {s.task.kind for s in vacuum.plan(policy(), system).steps} <= {"freeze"}
    assert vacuum.doubts(policy(), system).exact == ()
    catalogs = [
        d._replace(leftovers=(), tables=tuple(x._replace(kind="catalog") for x in d.tables)) for d in found.databases
    ]
    assert {s.task.kind for s in vacuum.plan(policy(), found._replace(databases=tuple(catalogs))).steps} <= {"freeze"}


@given(tables(), st.sampled_from(["table", "partitioned", "something new"]))
def test_a_kind_that_stores_no_rows_gets_no_vacuum(drawn: Any, kind: str) -> None:
    plan = vacuum.plan(policy(), measured(drawn._replace(kind=kind)))
    kinds = {type(s.task) for s in plan.steps}
    allowed: dict[str, set[Any]] = {"table": {Vacuum, Analyze, Rebuild}, "partitioned": {Analyze}}
    assert kinds <= allowed.get(kind, set())
    assert all(s.task.partitioned == (kind == "partitioned") for s in plan.steps if isinstance(s.task, Analyze))


@given(fleets(), METHODS)
def test_only_doubts_that_matter_are_looked_into(found: Measured, method: str) -> None:
    asked = policy(reclaim_method=method)
    byref = {x.ref: x for d in found.databases for x in d.tables}
    for ref in vacuum.doubts(asked, found).exact:
        estimate = byref[ref].bloat
        assert estimate is not None
        assert estimate.low < asked.reclaim_percent <= estimate.high
        plans = [
            vacuum.plan(asked, measured(byref[ref]._replace(bloat=estimate._replace(low=low)))) for low in (0, 100)
        ]
        assert plans[0] != plans[1]
    assert vacuum.doubts(policy(actions=["vacuum"]), found).exact == ()


def test_what_the_engine_found_is_passed_on() -> None:
    told = Finding(2, "missing_privilege", table().ref, "the login may not")
    other = told._replace(message="nor may it that")
    found = measured(table(), database={"findings": (told, other)}, server=server(findings=(told,)))
    assert vacuum.plan(policy(), found) == Plan((), (told, other))


def test_a_healthy_table_asks_for_nothing() -> None:
    assert vacuum.plan(policy(), measured(table(bytes=100 * GB, total_bytes=200 * GB))) == Plan()
