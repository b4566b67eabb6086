# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the past means: predictions, growth, disks, readings; and the slope against the plain way to reckon it."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._health import (
    CACHE_HITS,
    CONNECTIONS,
    DISK,
    STATEMENTS,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import history, trend
from ansible_collections.dbfleet.maintenance.plugins.module_utils._past import Past, PastRun, PastStep, Series, Thing
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Sample

from ..samples import GB, MB, defaults

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SHOP, ORDERS = Ref("shop"), Ref("shop", ("public", "orders"))
DB1, DB2 = "db1:5432", "db2:5432"
POINTS = st.dictionaries(st.integers(0, 400 * 24), st.integers(0, 10**13), min_size=7, max_size=trend.MOST)


def policy(**given_options: Any) -> history.Policy:
    return history.policy(defaults({**history.OPTIONS, "tables": {"default": ["*"]}}, **given_options))


def series(ref: Ref, *sizes: int, rows: int | None = None, server: str = DB1, hours: float = 24) -> Series:
    """One sample every so many hours, the last one now."""
    last = len(sizes) - 1
    samples = (Sample(NOW - timedelta(hours=hours * (last - n)), size, rows) for n, size in enumerate(sizes))
    return Series(server, ref, tuple(samples))


# ---- the slope -------------------------------------------------------------------------------------------------------


@given(POINTS, st.randoms())
def test_the_slope_is_the_median_of_all_pairs_in_whatever_order_they_come(sizes: dict[int, int], dice: Random) -> None:
    plain = statistics.median((sizes[b] - sizes[a]) / (b - a) for a in sizes for b in sizes if b > a)
    samples = [Sample(NOW + timedelta(hours=hour), size, None) for hour, size in sizes.items()]
    dice.shuffle(samples)
    found = trend.of_bytes(samples)
    assert found is not None
    assert found.per_day == pytest.approx(plain * 24, rel=1e-6, abs=1e-3)


@settings(max_examples=30)
@given(st.integers(-(10**6), 10**6), st.integers(12, 59), st.randoms())
def test_a_quarter_of_wild_samples_does_not_bend_it(step: int, points: int, dice: Random) -> None:
    """Sen's estimate breaks down at 29 % of outliers; those of a clock that jumped are outliers in time."""
    samples = [Sample(NOW + timedelta(days=n), 10**9 + step * n, None) for n in range(points)]
    for place in dice.sample(range(points), points // 4):
        at = NOW + timedelta(days=dice.randint(-3650, 3650), hours=1)
        samples[place] = Sample(at, dice.randint(0, 10**10), None)
    found = trend.of_bytes(samples)
    assert found is not None
    assert found.per_day == pytest.approx(step, abs=1e-3)


# ---- growth ----------------------------------------------------------------------------------------------------------


def test_the_fastest_first_and_what_has_no_trend_last() -> None:
    found = history.growths(
        policy(),
        [
            series(SHOP, *[GB] * 8),
            series(Ref("few"), *range(6)),
            series(Ref("shrinks"), *range(GB, 0, -(GB // 8))),
            series(Ref("grows"), *range(0, 8 * MB, MB)),
            series(CONNECTIONS, *range(8)),
        ],
    )
    assert [(g.ref.database, g.why) for g in found] == [
        ("grows", ""),
        ("shop", ""),
        ("shrinks", ""),
        ("few", "too few samples (6 of 7)"),
    ]
    assert [g.bytes and round(g.bytes.per_day) for g in found] == [MB, 0, -(GB // 8), None]


def test_tables_are_selected_and_databases_stay() -> None:
    seen = [series(SHOP, 1), series(ORDERS, 1), series(Ref("shop", ("public", "tmp_x")), 1)]
    found = history.growths(policy(tables=["*", "-tmp_*"]), seen)
    assert {g.ref for g in found} == {SHOP, ORDERS}


@pytest.mark.parametrize(
    ("sizes", "hours", "limit", "days"),
    [
        (range(0, 8 * MB, MB), 24, 17 * MB, 10.0),
        (range(0, 8 * MB, MB), 24, 7 * MB, 0.0),  # it is
        (range(0, 8 * MB, MB), 24, None, None),
        (range(0, 6 * MB, MB), 24, 17 * MB, None),  # nobody knows
        ([MB] * 8, 24, 17 * MB, None),  # never
        (range(8 * MB, 0, -MB), 24, 17 * MB, None),
        (range(0, 8 * MB, MB), 1, 17 * MB, None),  # a load at noon is no growth
    ],
)
def test_days_until_a_size(sizes: Any, hours: float, limit: int | None, days: float | None) -> None:
    (growth,) = history.growths(policy(), [series(SHOP, *sizes, hours=hours)])
    assert history.days_until(growth, limit) == (None if days is None else pytest.approx(days))


def disk(free: int, *name: str, server: str = DB1) -> Series:
    return series(Ref("", (DISK, *name)), free + 99, free, rows=GB, server=server)


def test_a_disk_is_filled_by_all_databases_on_it() -> None:
    rising = range(0, 8 * MB, MB)
    seen = [
        series(SHOP, *rising),
        series(Ref("crm"), *rising),
        series(ORDERS, *rising),  # a part of its database
        series(SHOP, *range(0, 80 * MB, 10 * MB), server=DB2),
        disk(100 * MB, "data"),
    ]
    growths = history.growths(policy(), seen)
    (found,) = history.disks(growths, seen)
    assert (found.server, found.name, found.last.bytes, found.last.rows) == (DB1, "data", 100 * MB, GB)
    assert found.per_day == pytest.approx(2 * MB)
    assert found.days == pytest.approx(50)
    days = {(g.server, g.ref): history.days_until_full(g, [found]) for g in growths}
    assert days[DB1, SHOP] == pytest.approx(50)
    assert days[DB2, SHOP] is None


def test_files_fill_the_disk_that_each_is_on() -> None:
    rising = range(0, 8 * MB, MB)
    files = ["/srv/a/x.db", "/srv/a/y.db", "/mnt/z.db"]
    seen = [
        *(series(Ref(file), *rising) for file in files),
        disk(100 * MB, "64768", files[0]),
        disk(100 * MB, "64768", files[1]),
        disk(MB, "64769", files[2]),
    ]
    growths = history.growths(policy(), seen)
    disks = history.disks(growths, seen)
    assert [(d.databases, d.days and round(d.days, 3)) for d in disks] == [
        (frozenset(files[:2]), 50),
        (frozenset(files[2:]), 1),
    ]
    assert {g.ref.database: round(history.days_until_full(g, disks) or 0, 3) for g in growths} == {
        files[0]: 50,
        files[1]: 50,
        files[2]: 1,
    }


def test_a_disk_says_why_nobody_knows_when_it_is_full() -> None:
    for seen, why in (
        ([], "no sizes were kept"),
        ([series(SHOP, 1, 2)], "too few samples (2 of 7)"),
        ([series(SHOP, *range(8), hours=1)], "the samples span less than a day"),
        ([series(SHOP, *[5] * 8)], ""),
    ):
        (found,) = history.disks(history.growths(policy(), seen), [*seen, disk(MB, "data")])
        assert (found.days, found.why) == (None, why)


# ---- readings --------------------------------------------------------------------------------------------------------


def counted(ref: Ref, *steps: tuple[int, int]) -> Series:
    """A counter: what it is by what it is of, summed up."""
    sums = [(sum(s[0] for s in steps[: n + 1]), sum(s[1] for s in steps[: n + 1])) for n in range(len(steps))]
    at = [NOW - timedelta(days=len(steps) - 1 - n) for n in range(len(steps))]
    return Series(DB1, ref, tuple(Sample(when, *both) for when, both in zip(at, sums, strict=True)))


def test_readings_are_told_in_their_own_unit() -> None:
    seen = [
        counted(CACHE_HITS, (10**9, 10**9), *((100 - n, 100) for n in range(8))),
        counted(STATEMENTS, (10**12, 10**6), *((2_000_000 + 500_000 * n, 1) for n in range(8))),
        series(CONNECTIONS, *range(10, 26, 2), rows=97),
    ]
    found: dict[str, Any] = {r.metric: (r.first, r.last, r.per_day, r.most, r.why) for r in history.performance(seen)}
    assert list(found) == ["connections", "statement_seconds", "cache_hit_percent"]
    assert found["connections"] == (10, 24, pytest.approx(2), 97, "")
    assert found["statement_seconds"] == (2.0, 5.5, pytest.approx(0.5), None, "")
    assert found["cache_hit_percent"] == (100, 93, pytest.approx(-1), None, "")


def test_a_span_in_which_nothing_was_counted_tells_nothing() -> None:
    (found,) = history.performance([counted(STATEMENTS, (5, 10), (0, 0), (3_000_000, 1), (1, 0))])
    assert (found.first, found.last, found.why) == (3.0, 3.0, "too few samples (1 of 7)")


def test_a_reading_without_a_trend_has_its_last_value() -> None:
    seen = [series(CONNECTIONS, 3, 4), counted(CACHE_HITS, (5, 10), (9, 10)), counted(STATEMENTS, (5, 10))]
    found = {r.metric: (r.last, r.per_day, r.why) for r in history.performance(seen)}
    assert found == {
        "connections": (4, None, "too few samples (2 of 7)"),
        "cache_hit_percent": (90, None, "too few samples (1 of 7)"),
        "statement_seconds": (None, None, "too few samples (0 of 7)"),
    }


# ---- predictions -----------------------------------------------------------------------------------------------------


def done(number: int, **fields: Any) -> PastStep:
    step = PastStep(
        number, 1, 1, 0.0, "done", "", 0, 0, 0.0, *[None] * 9
    )  # what was expected, and what came of it: nothing
    return step._replace(**fields)


def predicted(*steps: PastStep) -> history.Prediction:
    past = Past(
        runs=(PastRun(1, DB1, "db_vacuum", 0.0, 1.0, "done"),),
        steps=steps,
        things={1: Thing(DB1, "reclaim", "", ORDERS)},
    )
    (found,) = history.predictions(past)
    return found


def test_what_came_of_it_by_what_was_expected() -> None:
    found = predicted(
        *(
            done(n, expected_seconds=10.0, seconds=float(n), expected_bytes=100, bytes=50, expected_rows=4)
            for n in range(11)
        ),
        done(12, status="failed", expected_seconds=1.0, seconds=99.0),
        done(13, status="deferred", expected_seconds=1.0),
    )
    assert (found.operation, found.kind, found.steps) == ("db_vacuum", "reclaim", 11)
    assert found.seconds == pytest.approx(history.Ratio(11, 0.5, 0.1, 0.9))
    assert found.bytes == history.Ratio(11, 0.5, 0.5, 0.5)
    assert found.rows == history.Ratio(11, 0.0, 0.0, 0.0)


def test_bytes_are_those_that_the_object_lost() -> None:
    found = predicted(done(1, expected_bytes=100, bytes=7, bytes_before=500, bytes_after=300))
    assert found.bytes == history.Ratio(1, 2.0, 2.0, 2.0)
    found = predicted(done(1, expected_bytes=100, bytes_before=500, bytes_after=600))
    assert found.bytes == history.Ratio(1, 0.0, 0.0, 0.0)


def test_the_overhead_of_small_steps_says_nothing() -> None:
    found = predicted(done(1, expected_seconds=0.05, seconds=0.001), done(2, expected_seconds=0.09, seconds=0.9))
    assert found.seconds == history.Ratio(1, 10.0, 10.0, 10.0)
    assert predicted(done(1, expected_seconds=0.05, seconds=0.001)).seconds is None


@given(st.lists(st.floats(0, 1e9), min_size=2))
def test_quantiles_are_those_of_the_standard_library(values: list[float]) -> None:
    values.sort()
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    assert [history.quantile(values, n / 10) for n in range(1, 10)] == pytest.approx(tenths)
    assert history.quantile(values[:1], 0.9) == values[0]


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"since": "0s"},
        {"since": "a month"},
        {"until_database_size": "500"},
        {"until_table_size": "big"},
        {"servers": [""]},
        {"tables": []},
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_cure(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))) as raised:
        policy(**wrong)
    assert raised.value.cure
