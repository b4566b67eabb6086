# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules return: the shape of the contract, counts that add up, lists that hide no failure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils import _report as report
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Database,
    Finding,
    Outcome,
    Ref,
    Step,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Archive, Child, Expiry
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Purge, Rebuild, Vacuum

from .samples import GB, MB, NOW, bloat, server, table
from .world import World

WORLD = World()
STATUSES = ["done", "skipped", "deferred", "failed"]


def step(name: str = "orders", **fields: Any) -> Step:
    return Step(Vacuum(Ref("shop", ("public", name))), "dead rows 41 %", {"dead_rows": 9}, size=2 * GB, **fields)


SIZES = st.none() | st.integers(0, GB)
OUTCOMES = st.builds(
    Outcome,
    st.builds(step, st.sampled_from("abc"), skip=st.sampled_from(["", "a standby"])),
    st.sampled_from(STATUSES),
    st.builds(Amount, st.integers(0, GB), st.integers(0, 1000), st.floats(0, 1e4), st.integers(0, GB)),
    SIZES,
    SIZES,
    changed=st.booleans(),
    proven=st.sampled_from([None, True, False]),
    error=st.sampled_from(["", "lock timeout"]),
)


@given(st.lists(OUTCOMES))
def test_counts_add_up(outcomes: list[Outcome]) -> None:
    found = report.summary(outcomes, 1.23456)
    results = [report.step_result(o, WORLD, server()) for o in outcomes]
    assert sum(found[status] for status in STATUSES) == len(outcomes)
    assert found["planned"] == len([o for o in outcomes if not o.step.skip])
    assert found["rows"] == sum(o.actual.rows for o in outcomes)
    assert found["bytes_freed"] >= sum(r["actual"].get("bytes_freed", 0) for r in results) >= 0
    assert found["seconds"] == 1.235
    assert json.loads(json.dumps(results)) == results


def test_in_check_mode_planned_and_skipped_are_all() -> None:
    outcomes = [Outcome(step(), "planned", bytes_before=GB), Outcome(step("b", skip="a standby"), "skipped")]
    found = report.summary(outcomes, 0)
    assert (found["planned"], found["skipped"], found["done"], found["bytes_freed"]) == (1, 1, 0, 0)


@given(st.lists(OUTCOMES, max_size=12), st.integers(1, 12))
def test_a_capped_list_keeps_the_failures(outcomes: list[Outcome], most: int) -> None:
    ordered = report.worst_first(outcomes)
    assert sorted(map(id, ordered)) == sorted(map(id, outcomes))
    failed = [o for o in outcomes if o.status == "failed"]
    assert [o for o in ordered[:most] if o.status == "failed"] == failed[:most]
    for status in STATUSES:  # the plan's order stays
        assert [o for o in ordered if o.status == status] == [o for o in outcomes if o.status == status]


def test_a_step_has_the_shape_of_the_contract() -> None:
    planned = step(expected=Amount(MB, 9, 1.23456))
    done = Outcome(planned, "done", Amount(5, 9, 2.34567), 2 * GB, GB, True, True)
    assert report.step_result(done, WORLD, server()) == {
        "database": "shop",
        "object": "public.orders",
        "kind": "vacuum",
        "reason": "dead rows 41 %",
        "statements": ["VACUUM public.orders"],
        "status": "done",
        "measured": {"dead_rows": 9},
        "expected": {"bytes_freed": MB, "rows": 9, "seconds": 1.235},
        "actual": {"bytes_before": 2 * GB, "bytes_after": GB, "bytes_freed": GB, "rows": 9, "seconds": 2.346},
        "proven": True,
        "error": None,
    }
    check = report.step_result(Outcome(planned, "planned", bytes_before=2 * GB), WORLD, server())
    run = report.step_result(done, WORLD, server())
    same = ("database", "object", "kind", "reason", "statements", "measured", "expected")
    assert {k: check[k] for k in same} == {k: run[k] for k in same}
    assert check.keys() == run.keys()


@pytest.mark.parametrize("status", ["planned", "skipped", "deferred", "failed"])
def test_what_never_ran_has_no_actual_numbers(status: str) -> None:
    assert report.step_result(Outcome(step(), status, bytes_before=GB), WORLD, server())["actual"] == {}
    ran = report.step_result(Outcome(step(), status, Amount(seconds=1.0)), WORLD, server())["actual"]
    assert ran["seconds"] == 1


def test_bytes_freed_are_the_difference_else_what_the_act_said() -> None:
    for before, after, freed in ((10, 4, 6), (10, 12, 0), (10, None, 5), (None, None, 5)):
        outcome = Outcome(step(), "done", Amount(5), before, after, True)
        assert report.step_result(outcome, WORLD, server())["actual"]["bytes_freed"] == freed


@given(st.lists(OUTCOMES))
def test_a_diff_holds_only_what_changes(outcomes: list[Outcome]) -> None:
    found = report.diff(outcomes, WORLD, server())
    changing = [o for o in outcomes if o.changed]
    for side in ("before", "after"):
        lines = found[side].splitlines()
        assert [line.split(" (")[0].split(": ")[1] for line in lines] == [str(o.step.task.ref) for o in changing]


def test_a_diff_reads_as_a_dba_speaks() -> None:
    planned = step(expected=Amount(GB))
    check = report.diff([Outcome(planned, "planned"), Outcome(step("b", skip="x"), "skipped")], WORLD, server())
    assert check == {
        "before": "shop: public.orders (2.0 GB): dead rows 41 %\n",
        "after": "shop: public.orders: vacuum, about 1.0 GB to free: VACUUM public.orders\n",
    }
    done = Outcome(planned, "done", bytes_after=GB, changed=True, proven=False)
    assert report.diff([done], WORLD, server())["after"] == (
        "shop: public.orders (1.0 GB): vacuum done, but the need is still there\n"
    )
    file = Outcome(Step(Rebuild(Ref("/srv/a.db")), "bloat", size=MB), "planned")
    assert report.diff([file], WORLD, server())["before"] == "/srv/a.db (1.0 MB): bloat\n"


EXPIRY = Expiry("old orders", "orders", "", "at", NOW)
ORDERS = Ref("shop", ("public", "orders"))
LINES = Child(Ref("shop", ("public", "lines")), ("order_id",), ORDERS, ("id",), "cascade", 300)


def purge(due: int | None, rows: int | None = None, *children: Child) -> Step:
    taken = (due or 0) if rows is None else rows
    task = Purge(ORDERS, ORDERS, EXPIRY, ("at", "id"), children, rows=rows, due=due)
    expected = Amount(MB, taken, children=sum(child.rows or 0 for child in children))
    return Step(task, "1,200 rows older than 90 d", expected=expected, size=MB)


@pytest.mark.parametrize(
    ("due", "allowed", "taken", "left", "stay"),
    [
        (1200, None, 1200, 0, (0, 0)),
        (1200, None, 1150, 50, (50, 0)),
        (1200, 1000, 1000, 200, (200, 200)),
        (1200, 1000, 400, None, (800, 200)),  # ended early: not counted again
        (None, None, 400, None, (None, 0)),
        (None, 1000, 1000, None, (None, None)),
        (None, 1000, 1000, 70, (70, None)),
        (1200, 1000, 1200, 0, (0, 0)),
    ],
)
def test_rows_that_stay_are_told_from_those_held_back(
    due: int | None, allowed: int | None, taken: int, left: int | None, stay: tuple[int | None, int | None]
) -> None:
    amount = Amount(MB, taken, 1.0, bites=3, children=7)
    outcome = Outcome(purge(due, allowed), "done", amount, changed=True, rows_left=left)
    actual = report.step_result(outcome, WORLD, server())["actual"]
    assert (actual["rows"], actual["children"], actual["batches"]) == (taken, 7, 3)
    assert (actual["rows_remaining"], actual["rows_held_back"]) == stay


@pytest.mark.parametrize(
    ("due", "counted", "rows", "children"),
    [(1200, 300, 1200, 300), (None, 300, None, None), (1200, None, 1200, None)],
)
def test_what_nobody_counted_is_not_expected_to_be_nothing(
    due: int | None, counted: int | None, rows: int | None, children: int | None
) -> None:
    planned = Outcome(purge(due, None, LINES._replace(rows=counted)), "planned")
    expected = report.step_result(planned, WORLD, server())["expected"]
    assert (expected["rows"], expected["children"]) == (rows, children)


def test_a_diff_of_rows_speaks_of_rows() -> None:
    check = report.diff([Outcome(purge(1200), "planned")], WORLD, server())
    assert check == {
        "before": "shop: public.orders: 1,200 rows older than 90 d\n",
        "after": "shop: public.orders: delete by rule old orders, about 1.0 MB of rows: DELETE public.orders\n",
    }
    amount = Amount(MB, 1000, 1.0, bites=1, children=300)
    done = Outcome(purge(1200, 1000), "done", amount, changed=True, rows_left=200)
    assert report.diff([done], WORLD, server())["after"] == (
        "shop: public.orders: delete by rule old orders done: 1,000 rows and 300 of other tables in 1 batch;"
        " 200 rows still due, 200 of them held back by rows_per_run\n"
    )
    task = Purge(ORDERS, ORDERS, EXPIRY, ("at", "id"), archive=Archive(folder="/srv/archive"), due=9)
    filed = report.diff([Outcome(Step(task, ""), "planned")], WORLD, server())
    assert "orders: archive by rule old orders into /srv/archive: " in filed["after"]


FINDINGS = st.builds(
    Finding,
    st.integers(1, 3),
    st.sampled_from(["horizon_pinned", "natural_size"]),
    st.builds(Ref, st.sampled_from(["", "shop"]), st.sampled_from([(), ("public", "a")])),
    st.sampled_from(["one", "two"]),
)


@given(st.lists(FINDINGS))
def test_findings_are_told_once_and_the_urgent_first(findings: list[Finding]) -> None:
    ordered = report.ordered(findings)
    assert {(f.code, f.ref, f.message) for f in ordered} == {(f.code, f.ref, f.message) for f in findings}
    assert len(ordered) == len({(f.code, f.ref, f.message) for f in findings})
    assert [f.priority for f in ordered] == sorted(f.priority for f in ordered)


def test_a_finding_says_how_to_cure_it() -> None:
    pinned = Finding(2, "no_online_rebuild", table().ref, "no pg_repack", Rebuild(table().ref, False))
    assert report.finding_result(pinned, WORLD, server())["fix"] == "RECLAIM public.orders"
    found = report.finding_result(Finding(3, "x", Ref(""), "m", fix="GRANT y"), WORLD, server())
    assert (found["object"], found["database"], found["fix"]) == ("server", "", "GRANT y")
    assert report.finding_result(Finding(3, "x", Ref("shop"), "m"), WORLD, server())["fix"] is None


def test_bloat_that_is_unknown_is_not_zero() -> None:
    known, unknown = table("a", bloat=bloat(40)), table("b")
    assert report.bloat_result(unknown, 10)["bloat_bytes"] is None
    assert report.bloat_result(unknown, 0)["bloated"] is False
    assert report.bloat_result(known, 40)["bloated"] is True
    assert report.bloat_result(known._replace(bloat=bloat(40, doubt=1)), 40)["bloated"] is False
    total = report.totals(Database("shop", tables=(known, unknown, table("i", kind="index"))))
    assert (total["objects"], total["unknown"], total["bytes"]) == (3, 1, 4 * GB)
    assert total["bloat_bytes"] == bloat(40).bytes


def test_a_file_is_counted_once_though_its_tables_are_shown() -> None:
    file = table("f", kind="file", bloat=bloat(10))
    assert report.totals(Database("/a.db", tables=(file, table("a", bloat=bloat(40)))))["bytes"] == 2 * GB
