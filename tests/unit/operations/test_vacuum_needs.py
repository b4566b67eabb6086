# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thresholds of the vacuum planner by example, the words that it uses, and options that cannot be meant."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import vacuum
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Attempt, Dead, Leftover, Plan, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Rebuild, Vacuum

from ..samples import GB, MB, NOW, bloat, defaults, measured, policy, server, table


def planned(options: dict[str, Any] | None = None, **fields: Any) -> Plan:
    return vacuum.plan(policy(**(options or {})), measured(table(**fields)))


def reasons(plan: Plan) -> dict[str, str]:
    return {s.task.kind: s.reason for s in plan.steps}


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({"dead": Dead(820113, 41.0)}, "vacuum", "dead rows 41 % (820,113) over 10 %"),
        ({"dead": Dead(10**7, 0.1)}, "vacuum", "dead rows 10,000,000 over 10,000,000"),
        ({"inserted": 2001, "insert_limit": 2000.0}, "vacuum",
         "2,001 rows inserted since the last vacuum, over the server's 2,000"),
        ({"changed": 150_000}, "analyze", "15 % of the rows changed since the last analyze, over 10 %"),
        ({"changed": 1}, "analyze", "1 row changed, and no analyze is on record"),
        ({"changed": 9, "analyzed": NOW - timedelta(days=8)}, "analyze",
         "9 rows changed since the last analyze 8 d ago, over 7 d"),
        ({"missing_statistics": "column total"}, "analyze", "no statistics for column total"),
        ({"freeze_percent": 50.0}, "freeze", "transaction ids at 50 % of the age of a forced freeze, over 50 %"),
        ({"bloat": bloat(41)}, "reclaim", "bloat 41 % (419.8 MB) over 30 %, by estimate"),
    ],
)  # fmt: skip
def test_what_is_due_and_the_words_for_it(fields: dict[str, Any], kind: str, reason: str) -> None:
    assert reasons(planned(**fields)) == {kind: reason}


@pytest.mark.parametrize(
    "fields",
    [
        {"dead": Dead(999, 50.0)},
        {"dead": Dead(5000, 9.9)},
        {"dead": Dead(0, 0.0)},
        {"inserted": 10**9},
        {"inserted": 0, "insert_limit": -1.0},
        {"inserted": 2000, "insert_limit": 2000.0},
        {"changed": 0, "analyzed": NOW - timedelta(days=900)},
        {"changed": 9, "analyzed": NOW - timedelta(days=6)},
        {"changed": 9, "analyzed": NOW + timedelta(days=1)},
        {"freeze_percent": 49.9},
        {"bloat": bloat(29)},
        {"bloat": bloat(33, doubt=5)},
        {"bloat": bloat(90), "total_bytes": 99 * MB},
    ],
)
def test_what_is_not_due(fields: dict[str, Any]) -> None:
    assert planned(**fields) == Plan()


def test_a_threshold_of_no_rows_is_not_met_by_no_rows() -> None:
    assert planned({"max_dead_rows": 0, "min_dead_rows": 0, "dead_percent": 0}, dead=Dead(0, 0.0)) == Plan()
    assert reasons(planned({"max_dead_rows": 0}, dead=Dead(1, 0.1))) == {"vacuum": "dead rows 1 over 0"}


def test_the_object_s_own_settings_win() -> None:
    busy: dict[str, Any] = {"dead": Dead(5000, 15.0), "changed": 120_000, "analyzed": NOW}
    assert set(reasons(planned(**busy))) == {"vacuum"}
    assert planned(**busy, own={"dead_percent": 20.0, "changed_percent": 20.0}) == Plan()
    assert planned(**busy, own={"min_dead_rows": 6000.0, "min_changed_rows": 130_000.0}) == Plan()
    strict = planned({"dead_percent": 90, "changed_percent": 90}, **busy, own={"dead_percent": 1, "changed_percent": 1})
    assert strict.steps[0].task == Vacuum(table().ref, analyze=True)
    assert "over 1 %" in strict.steps[0].reason


def test_one_step_meets_all_needs_of_a_table() -> None:
    needs: dict[str, Any] = {"dead": Dead(500_000, 33.0), "changed": 10**6, "freeze_percent": 60.0}
    (step,) = planned(**needs).steps
    assert step.task == Vacuum(table().ref, freeze=True, analyze=True)
    assert step.reason.count("; ") == 2
    assert step.rank[0] == 9
    assert step.measured == {"bytes": 2 * GB, "rows": 10**6, "freeze_percent": 60.0, "dead_rows": 500_000,
                             "dead_percent": 33.0, "changed_rows": 10**6}  # fmt: skip
    (rebuild,) = planned(dead=Dead(500_000, 33.0), changed=10**6, bloat=bloat(40)).steps
    assert rebuild.task == Rebuild(table().ref, online=True)
    assert "dead rows" in rebuild.reason
    assert "changed" in rebuild.reason
    assert {x.gauge for x in rebuild.limits} == {"disk_missing", "wal_missing", "tmp_missing", "oldest_snapshot"}


def test_a_lag_limit_waits_and_the_others_skip() -> None:
    (step,) = planned({"max_replica_lag": "10s", "reclaim_max_snapshot_age": "5m"}, bloat=bloat(40)).steps
    limits = {x.gauge: x for x in step.limits}
    assert (limits["replica_lag"].worst, limits["replica_lag"].otherwise) == (10, "wait")
    assert {x.otherwise for name, x in limits.items() if name != "replica_lag"} == {"skip"}
    assert limits["oldest_snapshot"].worst == 300


def test_truncating_is_left_out_where_the_server_or_the_table_says_so() -> None:
    dead = Dead(500_000, 33.0)
    found = vacuum.plan(policy(), measured(table(dead=dead), server=server(lacks={"truncate": "a standby"})))
    for plan in (found, planned(dead=dead, lacks={"truncate": "its own setting"})):
        assert plan.steps[0].task == Vacuum(table().ref, truncate=False)


# ---- in vain ---------------------------------------------------------------------------------------------------------


def test_rows_that_a_transaction_pins_are_a_finding() -> None:
    pinned: dict[str, Any] = {"dead": Dead(500_000, 33.0, 20_000), "pinned_by": "session 12 of app, open for 3 h"}
    plan = planned(**pinned)
    assert plan.steps == ()
    (finding,) = plan.findings
    assert finding.message == (
        "dead rows 33 % (500,000) over 10 %, but vacuum cannot remove them: session 12 of app, open for 3 h"
    )
    assert reasons(planned(dead=Dead(500_000, 33.0, 400_000), pinned_by="session 12")).keys() == {"vacuum"}
    assert reasons(planned(**pinned, inserted=9, insert_limit=1.0)) == {
        "vacuum": "9 rows inserted since the last vacuum, over the server's 1"
    }


@pytest.mark.parametrize(
    ("age", "floor", "steps"),
    [(60.0, 59.0, 0), (95.0, 60.0, 1), (60.0, 10.0, 1), (51.0, 49.0, 1), (51.0, 51.0, 0), (120.0, 116.0, 0)],
)
def test_a_freeze_is_given_up_only_where_it_gains_nothing(age: float, floor: float, steps: int) -> None:
    plan = planned(freeze_percent=age, freeze_floor=floor)
    assert [s.task.kind for s in plan.steps] == ["freeze"] * steps
    assert [(f.priority, f.code) for f in plan.findings] == [(1, "horizon_pinned")] * (1 - steps)
    assert all(f.message.endswith("something as old keeps them from being frozen") for f in plan.findings)


@pytest.mark.parametrize(
    ("options", "fields", "code", "cure", "words"),
    [
        ({}, {"lacks": {"online rebuild": "no client"}}, "no_online_rebuild", False, "lock writers out: no client"),
        ({}, {"lacks": {"online rebuild": "no key", "exclusive rebuild": "no"}}, "no_online_rebuild", None, ": no key"),
        ({"reclaim_method": "exclusive"}, {"lacks": {"exclusive rebuild": "no right"}}, "no_exclusive_rebuild", None,
         "it cannot be rebuilt: no right"),
        ({"reclaim_max_size": "1GB"}, {}, "too_large_to_reclaim", True, "2.0 GB are over reclaim_max_size 1.0 GB"),
        ({}, {"lacks": {"local rebuild": "2 replicas replay it"}}, "replicated_rebuild", True, "2 replicas replay it"),
    ],
)  # fmt: skip
def test_a_rebuild_without_means_is_a_finding_with_its_cure(
    options: dict[str, Any], fields: dict[str, Any], code: str, cure: bool | None, words: str
) -> None:
    plan = planned(options, bloat=bloat(40), **fields)
    assert plan.steps == ()
    (finding,) = plan.findings
    assert finding.code == code
    assert words in finding.message
    assert finding.cure == (None if cure is None else Rebuild(table().ref, cure))


@pytest.mark.parametrize(
    ("freed", "grown", "ok", "due"),
    [(49, 1.0, True, False), (50, 1.0, True, True), (49, 1.2, True, False), (49, 1.21, True, True),
     (0, 1.0, False, True), (-5, 1.0, True, False)],
)  # fmt: skip
def test_a_natural_size_is_left_alone_until_it_has_grown(freed: int, grown: float, ok: bool, due: bool) -> None:
    before = 1000 * MB
    last = Attempt(NOW, 9.0, before, before - freed * MB, 100 * MB, ok)
    size = round(last.bytes_after * grown)
    found = measured(table(bytes=size, total_bytes=size, bloat=bloat(40, size)), past={("reclaim", table().ref): last})
    plan = vacuum.plan(policy(), found)
    assert bool(plan.steps) is due
    assert [f.code for f in plan.findings] == ([] if due else ["natural_size"])
    forced = vacuum.plan(policy(force=True, tables=["orders"], actions=["reclaim"]), found)
    assert reasons(forced) == {"reclaim": "forced"}


def test_wreckage_is_removed_before_its_table_is_rebuilt() -> None:
    wreck = Leftover(table().ref, "pg_repack", ("log_1",), 5)
    found = measured(
        table(bloat=bloat(40)), database={"leftovers": (wreck, wreck._replace(names=("table_1", "log_1"), bytes=7))}
    )
    drop, rebuild = vacuum.plan(policy(), found).steps
    assert drop.reason == "left behind by an interrupted pg_repack: log_1, table_1"
    assert (drop.expected.bytes, drop.key) == (12, rebuild.after[0])
    used = vacuum.plan(policy(), measured(database={"leftovers": (wreck._replace(dead=False, why_not="pid 7 runs"),)}))
    assert used.steps == ()
    assert used.findings[0].message == "log_1 of pg_repack look left behind, but pid 7 runs"
    assert vacuum.plan(policy(actions=["vacuum"]), found).steps == ()


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("actions", []),
        ("dead_percent", -1.0), ("dead_percent", 100.1), ("dead_percent", float("nan")),
        ("min_dead_rows", -1),
        ("max_dead_rows", -1),
        ("changed_percent", -0.5),
        ("analyze_max_age", "7"), ("analyze_max_age", "a week"), ("analyze_max_age", "-7d"), ("analyze_max_age", ""),
        ("freeze_age_percent", 0.0), ("freeze_age_percent", -5.0), ("freeze_age_percent", 1001.0),
        ("vacuum_cost_delay", -1.0), ("vacuum_cost_delay", 101.0), ("vacuum_cost_delay", float("nan")),
        ("reclaim_percent", 0.0), ("reclaim_percent", 101.0), ("reclaim_percent", float("inf")),
        ("reclaim_min_size", "100"), ("reclaim_min_size", "100 megabytes"), ("reclaim_min_size", "60GB"),
        ("reclaim_max_size", "50G"), ("reclaim_max_size", "1MB"),
        ("reclaim_replicated_max_size", "much"),
        ("reclaim_max_snapshot_age", "10"),
        ("tables", []), ("tables", ["a|b"]),
        ("max_replica_lag", "five"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_meant_is_named(option: str, value: object) -> None:
    with pytest.raises(BadInput, match=option) as raised:
        policy(**{option: value})
    assert raised.value.cure


@pytest.mark.parametrize("tables", [None, ["*"], ["*", "-orders"], ["-orders"], ["*.*"], ["?*"], ["**", "-a"]])
def test_force_needs_the_tables_by_name(tables: object) -> None:
    with pytest.raises(BadInput, match="force"):
        policy(force=True, tables=tables)
    assert policy(force=True, tables=["public.*"]).force


def test_sizes_that_contradict_each_other_matter_only_to_reclaim() -> None:
    assert policy(reclaim_min_size="60GB", actions=["vacuum"]).actions == {"vacuum"}


@pytest.mark.parametrize(
    ("options", "word"), [({"actions": ["freeze"]}, "freeze"), ({"vacuum_cost_delay": 2.0}, "vacuum_cost_delay")]
)
def test_what_the_engine_does_not_have_is_refused_only_when_asked_for(options: dict[str, Any], word: str) -> None:
    mysql = server(engine="mysql", lacks=dict.fromkeys(["vacuum", "freeze", "cost delay"], "that is InnoDB's business"))
    with pytest.raises(BadInput, match=f"{word} is not for mysql: that is InnoDB's business"):
        vacuum.wants(policy(**options), mysql)
    assert vacuum.wants(policy(), mysql).tables


def test_no_more_is_measured_than_is_asked_for() -> None:
    assert vacuum.wants(policy(actions=["analyze"]), server()) == Wants(tables=True, bloat_min_bytes=100 * MB)
    everything = vacuum.wants(policy(), server())
    assert (everything.bloat, everything.leftovers, everything.freeze_from) == (True, True, 50.0)
    assert vacuum.wants(policy(tables=["orders"]), server()).freeze_from is None


def test_defaults_are_complete() -> None:
    assert vacuum.policy(defaults(vacuum.OPTIONS)).tables.everything


def test_a_small_bloated_heap_beside_large_values_is_not_worth_a_rebuild() -> None:
    """A rebuild writes the out-of-line values anew, too: 60 % of a tenth of the table are not 60 % of the table."""
    heap = bloat(60, GB)
    assert reasons(planned(bytes=GB, bloat=heap)).keys() == {"reclaim"}
    assert reasons(planned(bytes=10 * GB, total_bytes=11 * GB, bloat=heap)) == {}


def test_dead_rows_are_bloat_to_come_where_no_statistics_tell_it() -> None:
    """Else the vacuum of this run would make the rebuild due in the next one."""
    fields: dict[str, Any] = {"missing_statistics": "the table", "dead": Dead(500_000, 50.0)}
    assert reasons(planned(**fields)).keys() == {"reclaim"}
    assert reasons(planned(**{**fields, "dead": Dead(200_000, 20.0)})).keys() == {"vacuum"}
    assert reasons(planned(dead=Dead(500_000, 50.0), bloat=bloat(10))).keys() == {"vacuum"}
