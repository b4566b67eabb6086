# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which step runs when: lanes, `after`, workers, the budget, order; and that every step gets exactly one outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Gone, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Attempt,
    Execution,
    Finding,
    Key,
    Outcome,
    Plan,
    Proof,
    Ref,
    Step,
    Tick,
    Work,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.control import Control
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.forecast import forecast, in_order
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import Journal
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.runner import Runner
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Vacuum

from .engines import SERVER, Clockwork, carry_out, once, step, table

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def key(name: str) -> Key:
    return ("vacuum", table(name))


def takes(seconds: float) -> Callable[[Any], Work]:
    def act(session: Any) -> Work:
        session.cancelled.wait(seconds)
        yield Tick(Amount(rows=1))

    return act


def refused(session: Any) -> Work:
    yield Tick()
    raise Refused("permission denied")


def lost(session: Any) -> Work:
    yield Tick()
    raise Gone("server closed the connection")


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


# ---- laws ------------------------------------------------------------------------------------------------------------

NAMES = "abcdefgh"
ACTS = {"once": once, "takes": takes(0.002), "refused": refused, "lost": lost}


@st.composite
def plans(draw: st.DrawFn) -> tuple[tuple[Step, ...], dict[str, Any]]:
    """Steps on few tables, so that lanes meet; with causes, circles, causes that are not there, and steps to skip."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=10))
    steps = tuple(
        step(
            name,
            draw(st.sampled_from(["shop", "jobs"])),
            after=tuple(draw(st.lists(st.sampled_from([key(n) for n in NAMES]), max_size=2))),
            skip=draw(st.sampled_from(["", "", "", "a standby"])),
            rank=(draw(st.integers(0, 2)), draw(st.floats(0, 1e9))),
        )
        for name in names
    )
    return steps, {name: ACTS[draw(st.sampled_from(sorted(ACTS)))] for name in NAMES}


@settings(deadline=None, max_examples=150)
@given(plans(), st.integers(1, 4), st.booleans())
def test_every_step_gets_one_outcome_and_no_lane_holds_two(
    drawn: tuple[tuple[Step, ...], dict[str, Any]], jobs: int, one_writer: bool
) -> None:
    steps, acts = drawn
    engine = Clockwork(acts, one_writer=one_writer)
    outcomes = carry_out(engine, *steps, jobs=jobs, retries=0)
    assert [outcome.step for outcome in outcomes] == list(steps)
    assert engine.collisions == []
    assert engine.running == []
    assert engine.most <= jobs
    statuses_of: dict[Key, set[str]] = {}
    for outcome in outcomes:
        statuses_of.setdefault(outcome.step.key, set()).add(outcome.status)
    for outcome in outcomes:
        act = acts[outcome.step.task.ref.path[-1]]
        if outcome.status == "done":
            assert act in (once, ACTS["takes"])
            assert all(statuses_of.get(cause, {"done"}) == {"done"} for cause in outcome.step.after)
        else:
            assert outcome.error
            assert not outcome.changed
            assert outcome.status == ("skipped" if outcome.step.skip else outcome.status)


@settings(deadline=None, max_examples=60)
@given(plans(), st.integers(1, 3))
def test_a_step_never_begins_before_its_causes_are_done(
    drawn: tuple[tuple[Step, ...], dict[str, Any]], jobs: int
) -> None:
    steps = tuple({s.key: s._replace(skip="") for s in drawn[0] if s.task.ref.database == "shop"}.values())
    engine = Clockwork(dict.fromkeys(NAMES, once))
    outcomes = carry_out(engine, *steps, jobs=jobs)
    last = {name: place for place, name in enumerate(engine.order)}
    first = {name: engine.order.index(name) for name in engine.order}
    for outcome in outcomes:
        if outcome.status == "done":
            name = outcome.step.task.ref.path[-1]
            causes = {ref.path[-1] for _kind, ref in outcome.step.after} & {s.task.ref.path[-1] for s in steps}
            assert all(last[cause] < first[name] for cause in causes)


@given(plans(), st.randoms())
def test_the_forecast_keeps_every_step_and_does_not_depend_on_the_order_given(
    drawn: tuple[tuple[Step, ...], dict[str, Any]], random: Any
) -> None:
    steps = tuple({s.key: s for s in drawn[0]}.values())  # with one step a key, as planners make them
    overdue = frozenset(s.key for s in steps[::3])
    plan = forecast(Plan(steps), {}, {}, overdue, NOW)
    assert sorted(s.key for s in plan.steps) == sorted(s.key for s in steps)
    assert all(s.expected.seconds > 0 for s in plan.steps)
    shuffled = list(steps)
    random.shuffle(shuffled)
    assert forecast(Plan(tuple(shuffled)), {}, {}, overdue, NOW).steps == plan.steps
    assert forecast(plan, {}, {}, overdue, NOW) == plan


def test_a_chain_longer_than_the_stack_and_a_circle_are_ordered() -> None:
    chain = [step(str(n), after=(key(str(n + 1)),)) for n in range(3000)]
    assert [s.task.ref.path[-1] for s in in_order(chain, frozenset())] == [str(n) for n in reversed(range(3000))]
    circle = [step("a", after=(key("b"),)), step("b", after=(key("a"),))]
    assert len(in_order(circle, frozenset())) == 2


# ---- order -----------------------------------------------------------------------------------------------------------


def test_safety_first_then_overdue_then_gain_per_second() -> None:
    slow = step("slow", rank=(0, 1e9), expected=Amount(seconds=1000))
    quick = step("quick", rank=(0, 1e8), expected=Amount(seconds=1))
    late = step("late", rank=(0, 1.0), expected=Amount(seconds=1))
    frozen = step("frozen", rank=(1, 0.0), expected=Amount(seconds=1))
    plan = forecast(Plan((slow, quick, late, frozen)), {}, {}, frozenset({late.key}), NOW)
    assert plan.steps == (frozen, late, quick, slow)


def test_a_cause_comes_as_early_as_what_waits_for_it() -> None:
    effect = step("effect", rank=(1, 0.0), after=(key("cause"),))
    assert [s.task.ref.path[-1] for s in in_order([step("big", rank=(0, 1e9)), effect, step("cause")], set())] == [
        "cause",
        "effect",
        "big",
    ]


@pytest.mark.parametrize(
    ("last", "rates", "seconds"),
    [
        (None, {}, 10.05),  # the default rate of a vacuum is 100 MB/s
        (None, {"vacuum": 500e6}, 2.05),
        (Attempt(NOW - timedelta(days=1), 30.0, 500_000_000, 0, 0, True), {"vacuum": 500e6}, 60.0),
        (Attempt(NOW - timedelta(days=1), 30.0, 0, 0, 0, True), {}, 30.0),
        (Attempt(NOW - timedelta(days=1), 30.0, 500_000_000, 0, 0, False), {}, 60.0),  # cut off: it needs longer
        (Attempt(NOW - timedelta(days=1), 0.1, 500_000_000, 0, 0, False), {}, 10.05),
        (Attempt(NOW - timedelta(days=999), 30.0, 500_000_000, 0, 0, True), {}, 10.05),
        (Attempt(NOW + timedelta(days=1), 30.0, 500_000_000, 0, 0, True), {}, 10.05),  # somebody set the clock
    ],
)
def test_seconds_are_predicted_from_what_was_learned(
    last: Attempt | None, rates: dict[str, float], seconds: float
) -> None:
    planned = step("a", size=1_000_000_000)
    plan = forecast(Plan((planned,)), {planned.key: last} if last else {}, rates, frozenset(), NOW)
    assert plan.steps[0].expected.seconds == pytest.approx(seconds)


def test_a_planner_that_knows_the_seconds_is_believed() -> None:
    assert forecast(Plan((step("a", expected=Amount(seconds=7)),)), {}, {}, set(), NOW).steps[0].expected.seconds == 7


# ---- lanes and workers -----------------------------------------------------------------------------------------------


def test_workers_run_beside_each_other() -> None:
    engine = Clockwork({name: takes(1) for name in "abcd"})
    began = time.monotonic()
    assert statuses(carry_out(engine, *(step(n) for n in "abcd"), jobs=4)) == ["done"] * 4
    assert time.monotonic() - began < 3
    assert engine.most == 4


def test_a_later_step_in_another_lane_does_not_wait_for_the_first_lane() -> None:
    engine = Clockwork({"a": takes(0.1)})
    carry_out(engine, step("a"), step("a")._replace(task=Vacuum(table("a"), freeze=True)), step("b"), jobs=2)
    assert engine.order == ["a", "b", "a"]


def test_a_step_after_one_that_failed_says_which_and_why() -> None:
    engine = Clockwork({"a": refused})
    first, second, third = carry_out(engine, step("a"), step("b", after=(key("a"),)), step("c", after=(key("b"),)))
    assert (first.status, second.status, third.status) == ("failed", "skipped", "skipped")
    assert second.error == "it comes after vacuum of public.a, which failed: permission denied"
    assert "vacuum of public.b, which was skipped" in third.error


def test_a_cause_that_is_not_in_the_plan_counts_as_done() -> None:
    assert statuses(carry_out(Clockwork(), step("a", after=(key("elsewhere"),)))) == ["done"]


def test_a_circle_is_cut() -> None:
    outcomes = carry_out(Clockwork(), step("a", after=(key("b"),)), step("b", after=(key("a"),)), step("c"))
    assert statuses(outcomes) == ["skipped", "skipped", "done"]
    assert "vacuum of public.b" in outcomes[0].error


def test_findings_of_proofs_are_kept() -> None:
    finding = Finding(2, "not_proven", Ref("shop"), "still due")
    how = Execution()
    runner = Runner(
        Clockwork(),
        SERVER,
        Journal(),
        execution=how,
        control=Control(how),
        prove=lambda session, step, note: Proof(False, None, (finding,)),
    )
    runner.run(Plan((step("a"),)))
    assert runner.findings == [finding]


# ---- budget ----------------------------------------------------------------------------------------------------------


def test_a_step_that_does_not_fit_is_deferred_and_a_smaller_one_runs() -> None:
    long, short = step("long", expected=Amount(seconds=100)), step("short", expected=Amount(seconds=0.1))
    first, second = carry_out(Clockwork(), long, short, time_budget=10)
    assert (first.status, second.status) == ("deferred", "done")
    assert "expected to take 1 min 40 s" in first.error


def test_work_that_goes_on_from_a_cursor_needs_no_more_than_something_left() -> None:
    class Remembering(Journal):
        def cursor(self, step: Step) -> str | None:
            return "17"

    long = step("long", expected=Amount(seconds=100))
    assert statuses(carry_out(Clockwork(), long, journal=Remembering(), time_budget=10)) == ["done"]


def test_the_budget_counts_from_the_start_of_the_module() -> None:
    how = Execution(time_budget=60)
    control = Control(how, started=time.monotonic() - 61)
    outcomes = carry_out(Clockwork(), step("a"), control=control, time_budget=60)
    assert statuses(outcomes) == ["deferred"]
    assert outcomes[0].error == "the time budget ended before it could start"


def test_without_a_hard_stop_what_runs_may_end() -> None:
    engine = Clockwork({"a": takes(0.4)})
    outcomes = carry_out(engine, step("a"), step("b"), jobs=1, time_budget=0.2, hard_stop=False)
    assert statuses(outcomes) == ["done", "deferred"]


def test_a_stop_leaves_nothing_waiting_and_nothing_running() -> None:
    how = Execution(jobs=2)
    control = Control(how)

    def stopping(session: Any) -> Work:
        control.stop("stopped by SIGTERM")
        yield Tick()

    engine = Clockwork({"a": stopping, "b": takes(30)})
    began = time.monotonic()
    outcomes = carry_out(engine, step("a"), step("b"), *(step(str(n)) for n in range(500)), control=control, jobs=2)
    assert time.monotonic() - began < 15
    assert set(statuses(outcomes)) == {"deferred"}
    assert {o.error for o in outcomes} == {"stopped by SIGTERM"}
    assert engine.running == []
