# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rests between bites: as long as the share of the time says, where nothing is open, and predicted as they were."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Execution,
    Outcome,
    Pace,
    Plan,
    Ref,
    Step,
    Tick,
    Work,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.control import Control
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.forecast import forecast
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import open_journal

from .engines import Clockwork, anything, carry_out, table

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MB = 1 << 20


class Some(NamedTuple):
    ref: Ref
    pace: Pace
    rows: int | None = None
    most: int = 50_000

    @property
    def kind(self) -> str:
        return "delete"


class Sleepless(Control):
    """Keeps what was to be slept."""

    def __init__(self, **how: Any) -> None:
        super().__init__(Execution(**how))
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def some(duty: float, size: int = 0) -> Step:
    return Step(anything(Some(table("orders"), Pace(100, 0.2, duty))), "old", size=size)


def bites(session: Any) -> Work:
    yield Tick()
    yield Tick(Amount(rows=5, seconds=0.01), "1")
    yield Tick(Amount(rows=5, seconds=0.03), "2")
    yield Tick(Amount(rows=0, seconds=0.5))  # nothing is committed there


@pytest.mark.parametrize(("duty", "rests"), [(1.0, []), (0.5, [0.01, 0.03]), (0.2, [0.04, 0.12])])
def test_after_each_bite_it_rests_in_proportion(duty: float, rests: list[float]) -> None:
    control = Sleepless()
    carry_out(Clockwork({"orders": bites}), some(duty), control=control)
    assert control.slept == pytest.approx(rests)


def test_a_stop_ends_a_rest_and_then_the_step() -> None:
    class Stopping(Sleepless):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            self.stop("asked to stop")

    control = Stopping()
    (outcome,) = carry_out(Clockwork({"orders": bites}), some(0.1), control=control)
    assert (outcome.status, outcome.error, outcome.actual.rows) == ("deferred", "asked to stop", 5)
    assert len(control.slept) == 1


def expected(step: Step, rates: dict[str, float]) -> float:
    (planned,) = forecast(Plan((step,)), {}, rates, frozenset(), NOW).steps
    return planned.expected.seconds


def test_rests_are_predicted() -> None:
    fast = expected(some(1.0, 100 * MB), {"delete": 10.0 * MB})
    assert fast > 10
    assert expected(some(0.2, 100 * MB), {"delete": 10.0 * MB}) == pytest.approx(5 * fast)


def test_what_was_learned_with_rests_serves_a_run_with_fewer(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.sqlite")
    with open_journal(path, "db1:5432", readonly=False) as journal:
        journal.begin_run("db_cleanup")
        step = some(0.2, 100 * MB)
        journal.start(step)
        journal.close(Outcome(step, "done", Amount(rows=1, seconds=50.0), bytes_before=step.size))
    with open_journal(path, "db1:5432", readonly=True) as journal:
        assert journal.past()[step.key].seconds == pytest.approx(10.0)
        assert journal.rates()["delete"] == pytest.approx(10 * MB)


def committing(size: int, waited: float, paces: list[Pace]) -> Callable[[Any], Work]:
    """Bites of which each row costs a millisecond, and each commit the same whatever it commits."""

    def act(session: Any) -> Work:
        pace = yield Tick(amount(size, waited), "0", waited=waited)
        for number in range(1, 12):
            paces.append(pace)
            pace = yield Tick(amount(pace.rows, waited), str(number), waited=waited)

    def amount(rows: int, waited: float) -> Amount:
        return Amount(rows=rows, seconds=rows / 1000 + waited)

    return act


@pytest.mark.parametrize("waited", [0.0, 0.05, 3.0])
def test_a_slow_commit_does_not_make_bites_smaller_and_smaller(waited: float) -> None:
    paces: list[Pace] = []
    step = Step(anything(Some(table("orders"), Pace(100, 0.02))), "old")
    (outcome,) = carry_out(Clockwork({"orders": committing(100, waited, paces)}), step)
    assert outcome.status == "done"
    assert 18 <= paces[-1].rows <= 20  # rounded down from what is not quite a number


def costing(fixed: float, row: float, paces: list[Pace]) -> Callable[[Any], Work]:
    """Bites that take a time of their own, and more for each row."""

    def act(session: Any) -> Work:
        rows = 1000
        for number in range(60):
            pace = yield Tick(Amount(rows=rows, seconds=fixed + row * rows), str(number))
            paces.append(pace)
            rows = pace.rows

    return act


@pytest.mark.parametrize(
    ("fixed", "row", "least", "most"),
    [
        (0.0, 0.001, 18, 22),  # proportional: as many rows as fit
        (0.0, 1.0, 1, 1),  # each row reads a table without an index: one at a time
        (0.3, 0.00001, 500, 2000),  # nothing that smaller ones would help
        (0.021, 0.00001, 500, 2000),
        (0.01, 0.001, 9, 11),
    ],
)
def test_bites_shrink_as_far_as_that_helps(fixed: float, row: float, least: int, most: int) -> None:
    paces: list[Pace] = []
    step = Step(anything(Some(table("orders"), Pace(1000, 0.02))), "old")
    carry_out(Clockwork({"orders": costing(fixed, row, paces)}), step)
    assert all(least <= pace.rows <= most for pace in paces[30:]), paces


def test_what_was_fast_at_its_largest_becomes_smaller_at_once_where_it_is_slow() -> None:
    paces: list[Pace] = []

    def act(session: Any) -> Work:
        rows = 1000
        for number in range(60):
            pace = yield Tick(Amount(rows=rows, seconds=rows * (1e-8 if number < 30 else 1e-4)), str(number))
            paces.append(pace)
            rows = pace.rows

    carry_out(Clockwork({"orders": act}), Step(anything(Some(table("orders"), Pace(1000, 0.02))), "old"))
    assert paces[29].rows == 50_000
    assert paces[31].rows <= 12_500
    assert 150 <= paces[-1].rows <= 200
