# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Durations, sizes, percentages: what is said can be read again, and nonsense is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import (
    duration,
    percentage,
    say_bytes,
    say_count,
    say_seconds,
    size,
)

NONSENSE = [
    "1 day",
    "",
    " ",
    "-5s",
    "+5s",
    "1e3s",
    "ten",
    None,
    True,
    5,
    0,
    "5",
    "s",
    "5 s s",
    "1,5h",
    ".5h",
    "1.h",
    "1h30m",
    "5S",
    "nan",
    "inf",
    "٣s",
    "5s\n5s",
    ["5s"],
]


@pytest.mark.parametrize("value", NONSENSE)
def test_nonsense_is_no_duration(value: object) -> None:
    with pytest.raises(BadInput, match="analyze_max_age") as raised:
        duration(value, "analyze_max_age")
    assert "12h" in raised.value.cure


@pytest.mark.parametrize("value", [*NONSENSE, "5s", "5m", "5K", "5kb", "5KB", "5MiB", "5 mb", "-1MB"])
def test_nonsense_is_no_size(value: object) -> None:
    with pytest.raises(BadInput, match="reclaim_min_size") as raised:
        size(value, "reclaim_min_size")
    assert "100MB" in raised.value.cure


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("12h", 43200), ("90d", 7776000), ("4w", 2419200)]
)
def test_the_durations_of_the_contract(text: str, seconds: int) -> None:
    assert duration(text) == duration(f" {text[:-1]} {text[-1]} ") == seconds


def test_fractions_and_milliseconds() -> None:
    assert duration("1.5h") == 5400
    assert duration("200ms") == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("text", "count"), [("0B", 0), ("8kB", 8192), ("100MB", 104857600), ("2GB", 1 << 31), ("1TB", 1 << 40)]
)
def test_the_sizes_of_the_contract(text: str, count: int) -> None:
    assert size(text) == count


@given(st.integers(0, 10**400))
def test_however_large_a_number_is_it_is_read_or_refused(number: int) -> None:
    for read, unit in ((duration, "w"), (size, "PB")):
        try:
            found = read(f"{number}{unit}")
        except BadInput:
            found = 0
        assert 0 <= found < 1 << 63


@given(st.integers(0, 1 << 59))
def test_sizes_survive_being_said(number: int) -> None:
    said = say_bytes(number)
    assert abs(size(said) - number) <= 0.05 * number  # one decimal of at least 1.0
    assert float(said.split()[0]) < 1024


@given(st.integers(0, 1 << 60))
def test_a_negative_size_is_the_same_with_a_sign(number: int) -> None:
    assert say_bytes(-number - 1) == "-" + say_bytes(number + 1)


@given(st.integers(0, 1 << 55), st.integers(0, 1 << 55))
def test_more_never_reads_as_less(one: int, other: int) -> None:
    less, more = sorted((one, other))
    assert size(say_bytes(less)) <= size(say_bytes(more))


def test_no_size_is_said_as_1024_of_a_smaller_unit() -> None:
    assert [say_bytes(n) for n in (0, 1023, 1024, (1 << 20) - 1, 1 << 20, (1 << 30) - 1)] == [
        "0 B", "1023 B", "1.0 kB", "1.0 MB", "1.0 MB", "1.0 GB",
    ]  # fmt: skip


@given(st.floats(0, 1e9))
def test_seconds_are_said_to_two_places(number: float) -> None:
    words = say_seconds(number).split()
    factors = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    back = sum(float(n) * factors[unit] for n, unit in zip(words[::2], words[1::2], strict=True))
    smallest = factors[words[-1]] if number >= 10 else 0.01
    coarse = {"d": 3600, "h": 60, "min": 1, "s": 1}[words[1]] if number >= 10 else 0.01
    assert abs(back - number) <= max(smallest if len(words) == 4 else coarse, 0.51)
    assert len(words) in (2, 4)


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0.00 s"), (0.25, "0.25 s"), (-3, "0.00 s"), (10, "10 s"), (59.6, "1 min"), (5400, "1 h 30 min"),
     (3600, "1 h"), (864000, "10 d"), (90000, "1 d 1 h")],
)  # fmt: skip
def test_seconds_as_a_reader_expects_them(number: float, said: str) -> None:
    assert say_seconds(number) == said


@pytest.mark.parametrize("value", [-1, 100.5, "ten", "", None, True, "nan", float("nan"), float("inf"), "10%", [10]])
def test_nonsense_is_no_percentage(value: object) -> None:
    with pytest.raises(BadInput, match="dead_percent"):
        percentage(value, "dead_percent")


@given(st.floats(0, 100))
def test_a_percentage_is_its_number(number: float) -> None:
    assert percentage(number) == percentage(str(number)) == number


def test_a_threshold_of_zero_is_refused_where_it_is_none() -> None:
    assert percentage(0) == 0
    with pytest.raises(BadInput, match="reclaim_percent"):
        percentage(0, "reclaim_percent", zero=False)


def test_the_largest_percentage_is_written_out() -> None:
    with pytest.raises(BadInput, match="from 0 to 1000000"):
        percentage(2e6, most=1e6)


def test_counts_are_said_with_their_noun() -> None:
    assert [say_count(n, "row") for n in (0, 1, 1204)] == ["0 rows", "1 row", "1,204 rows"]
    assert say_count(2, "index", "indexes") == "2 indexes"
