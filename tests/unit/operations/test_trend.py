# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slope by Theil and Sen: right on a line, unmoved by outliers, refused where there is too little."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import trend
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Sample

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def days(*sizes: int, rows: int | None = None) -> list[Sample]:
    """One sample a day, the last one now."""
    return [Sample(NOW - timedelta(days=len(sizes) - 1 - place), size, rows) for place, size in enumerate(sizes)]


@given(st.integers(0, 10**15), st.integers(-(10**9), 10**9), st.integers(7, 200))
def test_a_line_has_its_own_slope(start: int, step: int, points: int) -> None:
    found = trend.of_bytes(days(*(start + step * place for place in range(points))))
    assert found is not None
    assert found.per_day == pytest.approx(step, abs=1)
    assert found.last - found.first == pytest.approx(step * (points - 1))
    assert found.seconds == (points - 1) * trend.DAY
    assert found.points == min(points, trend.MOST)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 10**12)), max_size=4))
def test_a_few_outliers_do_not_bend_it(outliers: list[tuple[int, int]]) -> None:
    sizes = [1000 * place for place in range(20)]
    for place, size in outliers:
        sizes[place] = size
    found = trend.of_bytes(days(*sizes))
    assert found is not None
    assert 0 <= found.per_day <= 3000


@given(st.integers(0, 6))
def test_under_seven_points_there_is_none(points: int) -> None:
    assert trend.of_bytes(days(*range(points))) is None
    assert trend.of_rows(days(*range(20))) is None  # it is not known how many rows


def test_two_samples_of_one_moment_are_one_point() -> None:
    same = [Sample(NOW, size, None) for size in range(50)]
    assert trend.of_bytes(same) is None
    assert trend.of_bytes([*days(*range(6)), *same]) is None


def test_the_mean_of_each_span_and_not_of_all_time() -> None:
    """A server that has counted for a year: a mean since then would hide that everything is ten times slower now."""
    calls, micros, samples = 10**9, 10**12, []
    for place in range(10):
        calls, micros = calls + 1000, micros + 1000 * (100 if place < 5 else 1000)
        samples.append(Sample(NOW + timedelta(days=place), micros, calls))
    found = trend.of_ratio(samples)
    assert found is not None
    assert (found.first, found.last) == (100, 1000)
    assert found.per_day > 0
    reset = [*samples, Sample(NOW + timedelta(days=10), 5, 1)]
    assert trend.of_ratio(reset) == found


def test_room_lasts_as_long_as_the_slope_says() -> None:
    growing = trend.of_bytes(days(*(100 * place for place in range(8))))
    assert trend.days_until(growing, 1000) == pytest.approx(10)
    assert trend.days_until(growing, None) is None
    assert trend.days_until(None, 1000) is None
    assert trend.days_until(trend.of_bytes(days(*[5] * 8)), 1000) is None


def test_what_is_long_ago_is_left_out() -> None:
    assert trend.fit(days(*range(100)), NOW, 30.0) == tuple(days(*range(100))[-31:])
