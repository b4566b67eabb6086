# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laws of the planner of materialized views: whatever reads whatever, and whatever is on record."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import refresh_views
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.refresh_views import Policy, in_order
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Database,
    Key,
    Measured,
    Note,
    Plan,
    Ref,
    Space,
    Step,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import View
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import RefreshView

from ..samples import GB, NOW, defaults, server

NAMES = "abcdef"


def policy(**given: Any) -> Policy:
    return refresh_views.policy(defaults(refresh_views.OPTIONS, **given))


def ref(name: str, database: str = "shop") -> Ref:
    return Ref(database, ("public", name))


def view(name: str = "a", *reads: str, **fields: Any) -> View:
    """A filled one, counted, unless told otherwise."""
    return View(ref(name), **{"bytes": GB, "state": "1", "sources": 2, "reads": tuple(map(ref, reads)), **fields})


def world(*views: View, notes: dict[Key, Note] | None = None, **fields: Any) -> Measured:
    database = Database("shop", views=views)._replace(**fields.pop("database", {}))
    return Measured(fields.pop("server", server()), (database,), notes=notes or {})


def noted(text: str = "1", *, days: float = 1, name: str = "a") -> dict[Key, Note]:
    return {("refresh", ref(name)): Note(NOW - timedelta(days=days), text)}


def plan(found: Measured, **given: Any) -> Plan:
    return refresh_views.plan(policy(**given), found)


def by_name(found: Plan) -> dict[str, Step]:
    return {step.task.ref.path[-1]: step for step in found.steps}


def codes(found: Plan) -> set[str]:
    return {finding.code for finding in found.findings}


# ---- drawn -----------------------------------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> Measured:
    """Up to six views that read each other in any way, circles included, in any state."""
    names = NAMES[: draw(st.integers(0, len(NAMES)))]
    views, notes = [], {}
    for name in names:
        counted = draw(st.integers(0, 4)) > 0
        views.append(
            view(
                name,
                *draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True)),
                populated=draw(st.integers(0, 4)) > 0,
                unique=draw(st.sampled_from(["", "a_key"])),
                state=draw(st.sampled_from("12")) if counted else None,
                unknown=draw(st.sampled_from(["", "calls now()"])) if counted else "reads the foreign table x",
                lacks=draw(st.sampled_from([{}, {}, {}, {"refresh": "app may not refresh it"}])),
            )
        )
        if draw(st.booleans()):
            notes.update(noted(draw(st.sampled_from("12")), days=draw(st.sampled_from([0.1, 3, 30])), name=name))
    return world(*draw(st.permutations(views)), notes=notes)


OPTIONS = st.fixed_dictionaries(
    {
        "concurrent": st.sampled_from(["auto", "always", "never"]),
        "stale_only": st.booleans(),
        "max_age": st.sampled_from([None, "1d", "7d"]),
        "views": st.sampled_from([["*"], ["a", "b"], ["-c"]]),
    }
)


def after(found: Measured, steps: tuple[Step, ...], *, ago: float = 0.001) -> Measured:
    """What the next run finds when these steps were carried out a moment ago, and nothing else happened."""
    done = {s.task.ref for s in steps if not s.skip}
    notes = dict(found.notes)
    views = []
    for known in found.databases[0].views:
        filled = known._replace(populated=True) if known.ref in done else known
        views.append(filled)
        if known.ref in done:
            notes["refresh", known.ref] = Note(NOW - timedelta(days=ago), known.state or "unknown")
    return found._replace(databases=(found.databases[0]._replace(views=tuple(views)),), notes=notes)


# ---- laws ------------------------------------------------------------------------------------------------------------


@given(worlds(), OPTIONS)
def test_every_step_has_a_reason_its_numbers_and_a_key_of_its_own(found: Measured, given: dict[str, Any]) -> None:
    steps = plan(found, **given).steps
    assert len({s.key for s in steps}) == len(steps)
    for step in steps:
        assert step.reason.strip()
        assert json.loads(json.dumps(step.measured)) == step.measured


@given(worlds(), OPTIONS)
def test_a_second_run_has_nothing_to_do_unless_all_are_asked_for(found: Measured, given: dict[str, Any]) -> None:
    given = {**given, "stale_only": True}
    # No server has views that read each other in a circle: of those a run fills one, and the next run the other.
    (only,) = found.databases
    straight = (v._replace(reads=tuple(r for r in v.reads if r.path < v.ref.path)) for v in only.views)
    found = found._replace(databases=(only._replace(views=tuple(straight)),))
    first = plan(found, **given)
    again = plan(after(found, first.steps), **given)
    # What could not be done, because of what it reads, may have become possible.
    assert not {s.key for s in again.steps if not s.skip} & {s.key for s in first.steps if not s.skip}
    third = plan(after(after(found, first.steps), again.steps), **given)
    assert [s for s in third.steps if not s.skip] == [] or any(s.skip for s in first.steps)


@given(worlds(), OPTIONS)
def test_what_a_view_reads_is_refreshed_before_it_and_circles_are_cut(found: Measured, given: dict[str, Any]) -> None:
    steps = plan(found, **given).steps
    places = {s.key: place for place, s in enumerate(steps)}
    for place, step in enumerate(steps):
        assert all(places[key] < place for key in step.after)


@given(worlds(), OPTIONS)
def test_the_order_of_views_does_not_matter(found: Measured, given: dict[str, Any]) -> None:
    turned = found._replace(databases=(found.databases[0]._replace(views=tuple(reversed(found.databases[0].views))),))
    assert by_name(plan(found, **given)) == by_name(plan(turned, **given))


@given(worlds(), OPTIONS)
def test_only_selected_views_that_the_login_may_refresh(found: Measured, given: dict[str, Any]) -> None:
    known = {v.ref: v for v in found.databases[0].views}
    for step in plan(found, **given).steps:
        task = step.task
        assert isinstance(task, RefreshView)
        assert "refresh" not in known[task.ref].lacks
        assert policy(**given).views.takes(task.ref.path[-1])
        assert not task.concurrently or (known[task.ref].populated and known[task.ref].unique)
        if given["concurrent"] == "always":
            assert task.concurrently or not known[task.ref].populated
        if given["concurrent"] == "never":
            assert not task.concurrently


@given(worlds(), OPTIONS)
def test_asking_for_all_misses_none(found: Measured, given: dict[str, Any]) -> None:
    some, everything = plan(found, **{**given, "stale_only": True}), plan(found, **{**given, "stale_only": False})
    assert by_name(some).keys() <= by_name(everything).keys()


@given(worlds(), OPTIONS, st.sampled_from(["write", "session"]))
def test_where_nothing_may_be_written_every_step_is_shown_and_skipped(
    found: Measured, given: dict[str, Any], lacking: str
) -> None:
    stopped = plan(found._replace(server=server(lacks={lacking: "a standby"})), **given)
    assert {s.skip for s in stopped.steps} <= {"a standby"}


# ---- each reason -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "given", "word"),
    [
        (world(view(populated=False)), {}, "never filled"),
        (world(view(), notes=noted()), {"stale_only": False}, "asked for"),
        (world(view()), {}, "on record"),
        (world(view(), notes=noted("0")), {}, "2 source tables changed since the last refresh 1 d ago"),
        (world(view(sources=0), notes=noted("0")), {}, "what it reads changed"),
        (world(view(), notes=noted()), {"max_age": "1d"}, "last refresh 1 d ago, over 1 d"),
        (world(view(state=None, unknown="x"), notes=noted("unknown")), {"max_age": "1d"}, "over 1 d"),
        (world(view(state=None, unknown="x")), {"max_age": "9d"}, "on record"),
    ],
)
def test_due(found: Measured, given: dict[str, Any], word: str) -> None:
    (step,) = plan(found, **given).steps
    assert word in step.reason


@pytest.mark.parametrize(
    ("found", "given"),
    [
        (world(view(), notes=noted()), {}),
        (world(view(), notes=noted(days=0.9)), {"max_age": "1d"}),
        (world(view(state=None, unknown="x")), {}),
        (world(view(state=None, unknown="x"), notes=noted("unknown")), {}),
        (world(view(), notes=noted("0", days=0)), {}),  # the proof: what changed since is the next run's
    ],
)
def test_not_due(found: Measured, given: dict[str, Any]) -> None:
    assert plan(found, **given).steps == ()


def test_what_reads_a_refreshed_view_is_refreshed_after_it() -> None:
    notes = {**noted("0", name="b"), **noted(name="a"), **noted(name="c")}
    found = by_name(plan(world(view("a", "b"), view("b"), view("c"), notes=notes)))
    assert list(found) == ["b", "a"]
    assert found["a"].after == (("refresh", ref("b")),)
    assert "reads public.b" in found["a"].reason


def test_a_view_that_reads_an_empty_one_which_is_left_alone_cannot_run() -> None:
    (step,) = plan(world(view("a", "b"), view("b", populated=False)), views=["a"]).steps
    assert "public.b" in step.skip


def test_what_no_counter_shows_is_said_until_an_age_is_given() -> None:
    found = world(view(unknown="calls now()"), notes=noted())
    (told,) = [f for f in plan(found).findings if f.code == "staleness_unknown"]
    assert "calls now()" in told.message
    assert told.priority == 3
    assert plan(found, max_age="30d").findings == ()


def test_one_finding_for_all_views_that_the_login_may_not_refresh() -> None:
    lacking = {"lacks": {"refresh": "app may not refresh it"}}
    found = plan(world(view("a", fix="GRANT a", **lacking), view("b", fix="GRANT b", **lacking)))
    (told,) = found.findings
    assert (told.code, told.fix, told.ref) == ("may_not_refresh", "GRANT a;\nGRANT b", Ref("shop"))
    assert found.steps == ()


def test_room_is_looked_for_where_it_may_be_short() -> None:
    def limits(free: int | None) -> set[str]:
        (step,) = plan(world(view(), database={"spaces": (Space("data", free),)})).steps
        return {limit.gauge for limit in step.limits}

    assert limits(2 * GB) == {"disk_missing", "wal_missing"}
    assert limits(100 * GB) == limits(None) == set()
    (lagging,) = plan(world(view()), max_replica_lag="10s").steps
    assert [(x.gauge, x.worst) for x in lagging.limits] == [("replica_lag", 10.0)]


def test_a_name_that_is_nowhere_is_a_finding() -> None:
    assert "no_such_view" in codes(plan(world(view()), views=["a", "public.b"]))
    assert "no_such_view" not in codes(plan(world(view()), views=["public.a", "b*"]))


def test_a_table_pattern_takes_views_away_too() -> None:
    assert by_name(plan(world(view("a"), view("b")), tables=["-a"])).keys() == {"b"}


def test_an_engine_without_materialized_views_is_asked_for_nothing() -> None:
    lacking = server(lacks={"refresh": "there are none"})
    assert refresh_views.wants(policy(), lacking) == Wants()
    found = plan(world(server=lacking), views=["a"])
    assert (found.steps, codes(found)) == ((), {"not_for_this_engine"})


@pytest.mark.parametrize("given", [{"max_age": "0s"}, {"max_age": "1 day"}, {"views": []}, {"views": ["!a"]}])
def test_options_that_cannot_be_meant(given: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(given))) as raised:
        policy(**given)
    assert raised.value.cure


def test_a_chain_longer_than_pythons_stack() -> None:
    count = 5000
    views = [view(f"v{n:05}", *([f"v{n + 1:05}"] if n + 1 < count else [])) for n in range(count)]
    assert [v.ref for v in in_order(views)] == [v.ref for v in reversed(views)]
