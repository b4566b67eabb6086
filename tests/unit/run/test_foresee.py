# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What check mode says of a time budget is what a run with exactly those durations would do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Amount, Ref, Step
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.foresee import foresee
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Vacuum


def step(table: str, seconds: float, *, skip: str = "", vacuum: bool = False) -> Step:
    ref = Ref("shop", ("public", table))
    return Step(Vacuum(ref) if vacuum else Analyze(ref), "due", expected=Amount(seconds=seconds), skip=skip)


def statuses(*steps: Step, jobs: int = 1, budget: float | None = None, one_writer: bool = False) -> list[str]:
    return [o.status for o in foresee(steps, jobs=jobs, budget=budget, one_writer=one_writer)]


def test_without_a_budget_everything_runs() -> None:
    assert statuses(step("a", 1e6), step("b", 1, skip="no"), step("c", 1)) == ["planned", "skipped", "planned"]


def test_what_must_not_be_missing_fails_and_takes_what_comes_after_it_along() -> None:
    first = step("a", 1, skip="no room")._replace(fails=True)
    lost, other = step("b", 1)._replace(after=(first.key,)), step("c", 1)
    assert statuses(first, lost, other) == ["failed", "skipped", "planned"]


def test_what_does_not_fit_is_deferred_and_smaller_ones_still_start() -> None:
    assert statuses(step("a", 6), step("b", 6), step("c", 3), budget=10) == ["planned", "deferred", "planned"]


def test_two_workers_do_more() -> None:
    assert statuses(step("a", 6), step("b", 6), step("c", 6), jobs=2, budget=10) == ["planned", "planned", "deferred"]


def test_one_table_is_one_lane() -> None:
    assert statuses(step("a", 6), step("a", 6, vacuum=True), jobs=2, budget=10) == ["planned", "deferred"]
    assert statuses(step("a", 6), step("b", 6), jobs=2, budget=10, one_writer=True) == ["planned", "deferred"]


def test_what_comes_after_a_deferred_step_is_skipped() -> None:
    first = step("a", 20, vacuum=True)
    second = step("a", 1)._replace(after=(first.key,))
    assert statuses(first, second, budget=10) == ["deferred", "skipped"]
    assert statuses(second, first) == ["planned", "planned"]


def test_a_circle_ends() -> None:
    first, second = step("a", 1, vacuum=True), step("a", 1)
    circle = (first._replace(after=(second.key,)), second._replace(after=(first.key,)))
    assert statuses(*circle) == ["skipped", "skipped"]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 20)), max_size=12), st.integers(1, 3), st.floats(0.01, 40))
def test_every_step_has_one_outcome_and_the_budget_holds(
    shapes: list[tuple[int, float]], jobs: int, budget: float
) -> None:
    steps = [step(f"t{n}-{place}", seconds) for place, (n, seconds) in enumerate(shapes)]
    found = foresee(steps, jobs=jobs, budget=budget, one_writer=False)
    assert [o.step for o in found] == steps
    planned = [o.step.expected.seconds for o in found if o.status == "planned"]
    assert sum(planned) <= jobs * budget + 1e-3
    assert all(s <= budget for s in planned)
