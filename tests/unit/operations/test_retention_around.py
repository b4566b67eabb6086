# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of cleanup, case by case: what is told, what leaves along, what comes first and what afterwards."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Database,
    Dead,
    Leftover,
    Measured,
    Note,
    Step,
    Table,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import (
    Child,
    Depot,
    Files,
    Part,
    Piece,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    AddKey,
    Analyze,
    CreateIndex,
    DropLeftover,
    DropPartition,
    Purge,
    Settle,
    Vacuum,
)

from ..samples import MB, NOW, server
from .retention_world import BOTH, RULE, child, finding, made, policy, ref, seen

DAY = timedelta(days=1)


# ---- worth knowing ---------------------------------------------------------------------------------------------------


def test_a_walk_without_an_index_on_the_date_is_told_with_the_index() -> None:
    bare = Piece(ref("events"), 10, 900, ("id",), False)
    assert finding(made(pieces=(bare,)), "no_date_index").cure == CreateIndex(ref("events"), ("at",))
    leaf = bare._replace(ref=ref("events_1"))
    assert finding(made(pieces=(leaf,)), "no_date_index").cure == CreateIndex(ref("events"), ("at",), True)


def test_triggers_and_bare_foreign_keys_are_named() -> None:
    plan = made(RULE, triggers=("audit_events",))
    told = finding(plan, "triggers_fire")
    assert ("audit_events" in told.message, "dropped" in told.message, told.fix) == (True, False, "")
    plan = made(RULE, triggers=("audit_events",), parts=(Part(ref("events_1"), 10, 900, True),))
    assert "partitions: never" in finding(plan, "triggers_fire").fix
    plan = made({**RULE, "on_children": "delete"}, triggers=("audit_events",), children=(child(indexed=False),))
    assert finding(plan, "no_child_index").cure == CreateIndex(ref("items"), ("event_id",))
    assert plan.steps[0].measured["triggers"] == ["audit_events"]


def test_columns_that_the_archive_lacks_are_told() -> None:
    depot = Depot(ref("events_archive"), True, (("colour", "text"),))
    plan = made({"archive_after": "90d"}, depot=depot)
    assert "colour text" in finding(plan, "archive_differs").message
    assert plan.steps[0].measured["archive_columns_added"] == ["colour"]


def test_a_table_without_a_key_is_told_how_to_get_one() -> None:
    keyless = Piece(ref("events"), 10, 900, (), False, "two rows may be the same")
    assert finding(made(pieces=(keyless,)), "no_key").cure == AddKey(ref("events"))


def grown(due: int, note: dict[str, Any], days: float = 2.0) -> list[str]:
    asked = policy({**RULE, "rows_per_run": 100})
    notes = {("delete old", ref("events")): Note(NOW - days * DAY, json.dumps(note))}
    plan = retention.plan(asked, seen(asked, rows=due, of_rows=10**6, more={"notes": notes}))
    return [f.message for f in plan.findings if f.code == "backlog_grows"]


def test_a_backlog_that_grows_faster_than_it_shrinks_is_told_with_both_rates() -> None:
    (told,) = grown(1400, {"due": 1000, "removed": 200})
    assert "300 rows a day become due and 100 a day are removed" in told
    assert not grown(1000, {"due": 1000, "removed": 200})
    assert not grown(1400, {"due": 1000, "removed": 0})
    assert not grown(1400, {"due": 1000, "removed": 1000})
    assert not grown(1400, {"due": None, "removed": 5})
    assert not grown(1400, {"due": 1000, "removed": 200}, days=0)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '{"due": 3}', '{"due": 1, "removed": "many"}'])
def test_a_note_of_nobodys_is_no_note(text: str) -> None:
    asked = policy(RULE)
    notes = {("delete old", ref("events")): Note(NOW - DAY, text)}
    assert retention.plan(asked, seen(asked, more={"notes": notes})) == made()


# ---- unknown numbers, in the assessment ------------------------------------------------------------------------------


def test_what_could_not_be_counted_in_time_is_due_all_the_same() -> None:
    unknown = {"rows": None, "of_rows": None, "children": (child(None),)}
    plan = made(RULE, {"count_timeout": "30s"}, **unknown)
    (step,) = plan.steps
    assert step.reason.startswith("an unknown number of rows older than 90 d")
    assert step.measured["rows"] is None
    assert step.expected.rows == 0
    assert finding(plan, "counting_timed_out").priority == 3
    assert retention.wants(policy(RULE, count_timeout="30s"), server()).expired[0].timeout == 30


# ---- children --------------------------------------------------------------------------------------------------------


def children_in(rule: dict[str, Any], **found: Any) -> dict[str, tuple[Child, ...]]:
    leaf = child(4, table=ref("parts"), parent=ref("items"))
    plan = made(rule, children=(leaf, child(3)), **found)
    return {step.key[0]: step.task.children for step in plan.steps if isinstance(step.task, Purge)}


def test_children_leave_leaf_first_and_where_the_rule_says() -> None:
    deleted = children_in({**RULE, "on_children": "delete"})["delete old"]
    assert [c.table.path[-1] for c in deleted] == ["parts", "items"]
    assert not any(c.archived or c.to for c in deleted)
    both = children_in({**BOTH, "archive_table": "attic", "on_children": "archive"})
    assert [c.to for c in both["archive old"]] == [ref("parts_archive"), ref("items_archive")]
    assert not any(c.archived or c.to for c in both["delete old"])
    in_files = children_in({"archive_after": "9d", "archive_dir": "/a", "on_children": "archive"})["archive old"]
    assert all(c.archived and c.to is None for c in in_files)
    only_deleted = children_in({"archive_after": "9d", "archive_dir": "/a", "on_children": "delete"})["archive old"]
    assert not any(c.archived for c in only_deleted)


def test_children_are_counted() -> None:
    (step,) = made({**RULE, "on_children": "delete"}, children=(child(4, table=ref("parts")), child(3))).steps
    assert step.expected.children == 7
    assert step.measured["children"] == {"public.parts": 4, "public.items": 3}


# ---- what comes first, what comes after ------------------------------------------------------------------------------


def test_unsettled_files_come_first_even_when_no_row_is_due() -> None:
    found = Files(unsettled=("/a/x.partial",))
    rule = {"archive_after": "90d", "archive_dir": "/a"}
    (settle,) = made(rule, rows=0, pieces=(), files=found).steps
    assert isinstance(settle.task, Settle)
    assert settle.rank[0] == 8
    first, purge = made(rule, files=found).steps
    assert isinstance(first.task, Settle)
    assert purge.after == (first.key,)


def test_an_interrupted_detach_is_finished() -> None:
    dead = Leftover(ref("events_1"), "detach", ("events_1",), 100)
    (drop,) = made(rows=0, pieces=(), detaching=(dead,)).steps
    assert drop.task == DropLeftover(ref("events_1"), "detach", ("events_1",), ref("events"))
    assert drop.rank[0] == 8
    alive = dead._replace(dead=False, why_not="pid 7 is at work on it")
    plan = made(rows=0, pieces=(), detaching=(alive,))
    assert not plan.steps
    assert "pid 7" in finding(plan, "leftover_in_use").message


def test_partitions_of_which_not_all_rows_may_leave_are_kept() -> None:
    part = Part(ref("events_1"), 10, 900, True)
    piece = Piece(ref("events_1"), 10, 900, ("id",), True)
    rule = {"archive_after": "90d", "refuse_over_percent": 100.0}
    purge, drop = made(rule, pieces=(piece,), parts=(part,)).steps
    assert drop.after == (purge.key,)
    assert isinstance(drop.task, DropPartition)
    assert (drop.task.ref, drop.task.concurrently, drop.task.empty) == (part.ref, True, True)
    (limited,) = made({**rule, "rows_per_run": 9}, pieces=(piece,), parts=(part,)).steps
    assert limited.key == purge.key
    assert not made(rule, pieces=(), parts=(part,)).steps


def busy(**fields: Any) -> Table:
    whole = {"bytes": 100 * MB, "rows": 100_000, "dead": Dead(0, 0.0), "changed": 0, "analyzed": NOW, **fields}
    return Table(ref("events"), **whole)


def followed(tables: Any, rule: dict[str, Any] | None = None, **found: Any) -> list[Step]:
    plan = made(rule, tables=tables, **{"rows": 20_000, "of_rows": 100_000, **found})
    return [step for step in plan.steps if step.projected]


def test_the_vacuum_that_a_purge_makes_due_comes_after_it() -> None:
    (step,) = followed([busy()])
    assert step.task == Vacuum(ref("events"), analyze=True)
    assert step.after == (("delete old", ref("events")),)
    assert not followed([busy()], rows=100)
    assert not followed([])


def test_between_rests_the_vacuum_pauses_too_where_it_can() -> None:
    def delays(**lacks: str) -> list[Any]:
        asked = policy(RULE, duty_percent=20)
        here = server(lacks=lacks)
        before = seen(asked, rows=20_000, of_rows=100_000, tables=[busy()], more={"server": here})
        after = Measured(here, (Database("shop", tables=(busy(dead=Dead(20_000, 20.0)),)),))
        steps = [step for found in (before, after) for step in retention.plan(asked, found).steps]
        return [step.task.cost_delay for step in steps if isinstance(step.task, Vacuum)]

    assert delays() == [2.0, 2.0]
    assert delays(**{"cost delay": "not here"}) == [None, None]


def test_the_analyze_that_an_archive_needs_comes_after_it() -> None:
    archive = Table(ref("events_archive"), bytes=MB, rows=50_000, dead=Dead(0, 0.0), changed=0, analyzed=NOW)
    rule = {"archive_after": "90d"}
    found = followed([busy(), archive], rule, depot=Depot(ref("events_archive"), True))
    assert {type(step.task) for step in found} == {Vacuum, Analyze}
    assert {step.after for step in found} == {(("archive old", ref("events")),)}


def test_an_archive_that_is_made_is_analyzed() -> None:
    found = followed([busy()], {"archive_after": "90d"}, depot=Depot(ref("events_archive"), False))
    assert Analyze(ref("events_archive")) in [step.task for step in found]
    limited = followed([busy(insert_limit=1000.0)], {"archive_after": "90d"}, depot=Depot(ref("events_archive"), False))
    assert Vacuum(ref("events_archive"), analyze=True) in [step.task for step in limited]
    assert not followed([], {"archive_after": "90d"}, depot=Depot(ref("events_archive"), False))


def test_children_are_vacuumed_too() -> None:
    items = Table(ref("items"), bytes=MB, rows=50_000, dead=Dead(0, 0.0), changed=0, analyzed=NOW)
    found = followed([busy(), items], {**RULE, "on_children": "delete"}, children=(child(20_000),))
    assert {step.task.ref for step in found} == {ref("events"), ref("items")}


def test_an_engine_that_counts_nothing_is_asked_for_nothing_afterwards() -> None:
    asked = policy(RULE)
    lacks = {"vacuum": "no dead rows", "analyze": "none"}
    bare = server(lacks=lacks)
    assert not retention.wants(asked, bare).tables
    plan = retention.plan(asked, seen(asked, tables=[busy()], more={"server": bare}))
    assert [type(step.task) for step in plan.steps] == [Purge]


def test_the_second_look_asks_for_what_the_table_needs_then() -> None:
    asked = policy(RULE)
    dirty = busy(dead=Dead(20_000, 20.0), changed=20_000)
    (step,) = retention.plan(asked, Measured(server(), (Database("shop", tables=(dirty,)),))).steps
    assert step.key == ("vacuum", ref("events"))
    assert not retention.plan(asked, Measured(server(), (Database("shop", tables=(busy(),)),))).steps
