# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laws of the planner of cleanup: each row goes where a plain model says, and a second run does nothing."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.retention_rules import Policy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropPartition, Purge

from ..samples import NOW
from .retention_world import Row, World, policy, ref, rule

DAY = timedelta(days=1)
DAYS = st.sampled_from([0, 1, 29, 30, 31, 59, 60, 61, 89, 90, 91, 400])
EDGES = st.sampled_from([-1, 0, 0, 1]).map(lambda n: n * timedelta(microseconds=1))


@st.composite
def dates(draw: st.DrawFn) -> datetime | None:
    """Near the thresholds more often than not."""
    if draw(st.integers(0, 9)) == 0:
        return None
    return NOW - draw(DAYS) * DAY + draw(EDGES)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["delete", "archive", "both"]))
    fields: dict[str, Any] = rule()
    if kind != "archive":
        fields["delete_after"] = draw(st.sampled_from(["60d", "90d"]))
    if kind != "delete":
        fields["archive_after"] = draw(st.sampled_from(["30d", "59d"]))
        if draw(st.booleans()):
            fields["archive_dir"] = "/srv/attic"
    if draw(st.booleans()):
        fields["where"] = "picked"
    return fields


@st.composite
def worlds(draw: st.DrawFn) -> World:
    found = draw(st.lists(st.tuples(dates(), st.booleans()), max_size=12))
    rows = [Row(number, at, picked) for number, (at, picked) in enumerate(found)]
    bounds = draw(st.lists(st.sampled_from([1, 30, 60, 90, 200]), max_size=4, unique=True))
    world = World(rows, [NOW - days * DAY for days in bounds])
    kept = draw(st.lists(st.sampled_from([31, 59, 60, 61, 91, 400]), max_size=4))
    world.archived = [Row(1000 + n, NOW - days * DAY) for n, days in enumerate(kept)]
    return world


def whereabouts(world: World, asked: Policy) -> dict[int, str]:
    """The plain model: where each row belongs by its age."""
    (only,) = asked.rules
    found = {}
    for row in world.rows:
        age = (NOW - row.at).total_seconds() if row.at and (row.picked or not only.where) else -1.0
        if only.delete_after is not None and age > only.delete_after:
            found[row.id] = "deleted"
        elif only.archive_after is not None and age > only.archive_after:
            found[row.id] = "archived"
        else:
            found[row.id] = "there"
    for row in world.archived:
        cleaned = only.archive is not None and bool(only.archive.table) and row.at is not None
        age = (NOW - row.at).total_seconds() if row.at and cleaned else -1.0
        late = only.delete_after is not None and age > only.delete_after
        found[row.id] = "deleted" if late else "archived"
    return found


def places(world: World) -> dict[int, str]:
    lists = {"there": world.rows, "archived": world.archived + world.files, "deleted": world.deleted}
    every = [(row.id, place) for place, rows in lists.items() for row in rows]
    assert len({number for number, _place in every}) == len(every), "a row is in two places"
    return dict(every)


@given(worlds(), rules(), st.sampled_from(["auto", "never"]))
def test_every_row_goes_where_its_age_says_and_a_second_run_does_nothing(
    world: World, fields: dict[str, Any], partitions: str
) -> None:
    asked = policy(fields, partitions=partitions)
    wanted = whereabouts(world, asked)
    world.run(retention.plan(asked, world.measured(asked)).steps)
    assert places(world) == wanted
    assert not retention.plan(asked, world.measured(asked)).steps


@given(worlds(), rules())
def test_what_is_expected_is_what_leaves(world: World, fields: dict[str, Any]) -> None:
    asked = policy(fields)
    before = {number for number, place in places(world).items() if place == "there"}
    steps = retention.plan(asked, world.measured(asked)).steps
    world.run(steps)
    tables = {step.key: getattr(step.task, "table", None) for step in steps}
    source = [step for step in steps if tables[step.key] == ref("events")]
    left = before - {row.id for row in world.rows}
    assert sum(step.expected.rows for step in source) == len(left)


@given(worlds(), rules(), st.integers(1, 5))
def test_rows_per_run_is_kept_and_by_and_by_all_rows_leave(world: World, fields: dict[str, Any], most: int) -> None:
    asked = policy({**fields, "rows_per_run": most})
    wanted = whereabouts(world, asked)
    for _run in range(40):
        steps = retention.plan(asked, world.measured(asked)).steps
        if not steps:
            break
        assert sum(step.expected.rows for step in steps if isinstance(step.task, Purge)) <= most
        world.run(steps)
        world.notes = {}
    assert places(world) == wanted


@given(worlds(), rules(), st.integers(1, 5))
def test_what_took_its_rows_is_asked_for_no_more_in_this_run(world: World, fields: dict[str, Any], most: int) -> None:
    asked = policy({**fields, "rows_per_run": most})
    steps = retention.plan(asked, world.measured(asked)).steps
    world.run(steps)
    again = {step.key for step in retention.plan(asked, world.measured(asked)).steps}
    assert not again & {step.key for step in steps if isinstance(step.task, Purge)}


@given(worlds(), rules())
def test_every_step_says_why_with_numbers_and_has_a_key_of_its_own(world: World, fields: dict[str, Any]) -> None:
    asked = policy(fields)
    steps = retention.plan(asked, world.measured(asked)).steps
    assert len({step.key for step in steps}) == len(steps)
    for step in steps:
        assert step.reason == step.reason.strip()
        assert step.reason
        assert json.loads(json.dumps(step.measured)) == step.measured
        assert step.measured["rule"] == "old"
        assert step.expected.bytes >= 0


@given(worlds(), rules())
def test_partitions_go_after_their_rows_and_only_where_they_may(world: World, fields: dict[str, Any]) -> None:
    asked = policy(fields)
    found = world.measured(asked)
    steps = retention.plan(asked, found).steps
    may = {p.ref: e.sought.archive is not None for d in found.databases for e in d.expired for p in e.parts}
    keys = {step.key for step in steps}
    for step in steps:
        if isinstance(step.task, DropPartition):
            assert step.task.ref in may
            assert step.task.empty == may[step.task.ref]
            assert set(step.after) <= keys
    never = policy(fields, partitions="never")
    kept = retention.plan(never, world.measured(never)).steps
    assert not [step for step in kept if isinstance(step.task, DropPartition)]
