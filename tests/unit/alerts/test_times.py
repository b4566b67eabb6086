# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Once a day and once a week by the clock on the wall: across midnight, and where clocks are set."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_times import DAYS, Hours, due, hours, period

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns")
BERLIN = ZoneInfo("Europe/Berlin")


def moment(text: str) -> datetime:
    """On a wall in Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-11-22T05:59:59", "2026-11-21"),
        ("2026-11-22T06:00:00", "2026-11-22"),
        ("2026-11-22T23:59:59", "2026-11-22"),
        ("2026-11-23T00:00:00", "2026-11-22"),
        ("2027-01-01T05:00:00", "2026-12-31"),
    ],
)
def test_a_day_begins_when_its_summary_is_due(now: str, day: str) -> None:
    assert period("daily", moment(now), hours("Europe/Berlin", "06:00", "monday")).isoformat() == day


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-11-22T12:00:00", "2026-11-16"),  # a Sunday
        ("2026-11-23T05:59:59", "2026-11-16"),
        ("2026-11-23T06:00:00", "2026-11-23"),
        ("2026-11-29T23:00:00", "2026-11-23"),
    ],
)
def test_a_week_begins_on_its_day(now: str, day: str) -> None:
    assert period("weekly", moment(now), hours("Europe/Berlin", "06:00", "monday")).isoformat() == day


def test_an_hour_that_comes_twice_brings_nothing_twice() -> None:
    how = hours("Europe/Berlin", "02:30", "sunday")
    began = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)  # 02:00 in summer; at 01:00 UTC it is 02:00 again
    told: str | None = "2026-10-24"
    sent = []
    for minutes in range(0, 150, 5):
        found = due("daily", told, began + timedelta(minutes=minutes), how)
        if found:
            told = found.isoformat()
            sent.append(minutes)
    assert sent == [30]


def test_an_hour_that_does_not_come_leaves_no_day_out() -> None:
    how = hours("Europe/Berlin", "02:30", "sunday")
    before = datetime(2026, 3, 29, 0, 59, tzinfo=UTC)  # 01:59; a minute later it is 03:00
    assert due("daily", "2026-03-28", before, how) is None
    assert due("daily", "2026-03-28", before + timedelta(minutes=1), how) == date(2026, 3, 29)


@pytest.mark.parametrize("last", [None, "", "yesterday", "9999-12-31", "2030-01-01"])
def test_a_clock_that_was_wrong_silences_nobody(last: str | None) -> None:
    how = hours("UTC", "06:00", "monday")
    assert due("daily", last, datetime(2026, 11, 22, 12, tzinfo=UTC), how) == date(2026, 11, 22)


HOURS = st.builds(
    lambda zone, at, weekday: hours(zone, f"{at:%H:%M}", weekday),
    st.sampled_from(ZONES),
    st.times(),
    st.sampled_from(DAYS),
)


@given(
    st.sampled_from(["daily", "weekly"]),
    HOURS,
    st.integers(1_767_225_600, 1_830_211_200).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.lists(st.integers(0, 60 * 30), min_size=1, max_size=60),
)
def test_each_day_and_each_week_has_one(summary: str, how: Hours, start: datetime, minutes: list[int]) -> None:
    told, sent, now = None, [], start
    for step in minutes:
        now += timedelta(minutes=step)
        found = due(summary, told, now, how)
        if found:
            told = found.isoformat()
            sent.append(found)
        assert due(summary, told, now, how) is None
    assert sent == sorted(set(sent))
    # Where somebody looks at least every thirty hours no week is left out; nor a day by whoever looks twice a day.
    if summary == "weekly":
        assert all(later - earlier == timedelta(days=7) for earlier, later in pairwise(sent))
    elif max(minutes) <= 12 * 60:
        assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(sent))


@pytest.mark.parametrize(
    ("zone", "at", "weekday"),
    [("Mars/Olympus", "06:00", "monday"), ("../etc/passwd", "06:00", "monday"), ("UTC", "24:00", "monday")]
    + [("UTC", at, "monday") for at in ("6", "06:60", "six", "")]
    + [("UTC", "06:00", "someday")],
)
def test_what_is_no_time_is_refused(zone: str, at: str, weekday: str) -> None:
    with pytest.raises(BadInput):
        hours(zone, at, weekday)
