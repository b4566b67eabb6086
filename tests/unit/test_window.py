# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The maintenance window: nights that skip or repeat an hour, midnight, other zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._window import Window, window

BERLIN = "Europe/Berlin"
ZONES = st.sampled_from([None, "UTC", BERLIN, "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"])
TIMES = st.tuples(st.integers(0, 24 * 60), st.integers(0, 24 * 60)).filter(lambda m: m[0] != m[1] and m != (24 * 60, 0))
FIRST, LAST = datetime.fromisoformat("2026-01-02"), datetime.fromisoformat("2027-12-30")
MOMENTS = st.datetimes(FIRST, LAST, timezones=st.just(UTC))


def text(opens: int, closes: int) -> str:
    return f"{opens // 60:02}:{opens % 60:02}-{closes // 60:02}:{closes % 60:02}"


def utc(when: str) -> datetime:
    return datetime.fromisoformat(when).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("given_text", "now", "left"),
    [
        ("22:00-06:00", "2026-06-10T21:59:59", 0),
        ("22:00-06:00", "2026-06-10T22:00:00", 8 * 3600),
        ("22:00-06:00", "2026-06-11T00:00:00", 6 * 3600),
        ("22:00-06:00", "2026-06-11T05:59:59", 1),
        ("22:00-06:00", "2026-06-11T06:00:00", 0),
        ("01:00-05:00", "2026-06-11T04:00:00", 3600),
        ("01:00-05:00", "2026-06-11T00:59:00", 0),
        ("20:00-24:00", "2026-06-11T23:00:00", 3600),
        ("20:00-24:00", "2026-06-11T00:00:00", 0),
        ("20:00-00:00", "2026-06-11T23:00:00", 3600),
        ("24:00-06:00", "2026-06-11T01:00:00", 5 * 3600),
        ("00:00-24:00", "2026-06-11T00:00:00", 24 * 3600),
        (" 1:30 - 2:00 ", "2026-06-11T01:45:00", 900),
    ],
)
def test_what_is_left(given_text: str, now: str, left: float) -> None:
    assert window(given_text, None).left(utc(now)) == left


@pytest.mark.parametrize(
    ("given_text", "now", "left"),
    [
        # 2026-03-29: from 02:00 to 03:00 there is nothing. 01:00 UTC is 03:00 there.
        ("22:00-06:00", "2026-03-28T21:00:00", 7 * 3600),
        ("01:30-03:30", "2026-03-29T00:30:00", 3600),
        ("02:30-04:00", "2026-03-29T00:59:59", 0),
        ("02:30-04:00", "2026-03-29T01:00:00", 3600),
        ("02:30-03:15", "2026-03-29T01:00:00", 900),
        ("22:00-02:30", "2026-03-29T00:59:00", 60),
        ("22:00-02:30", "2026-03-29T01:00:00", 0),
        ("02:15-02:45", "2026-03-29T01:20:00", 0),
        # 2026-10-25: from 02:00 to 03:00 twice. 01:00 UTC is 02:00 for the second time.
        ("22:00-06:00", "2026-10-24T20:00:00", 9 * 3600),
        ("22:00-02:30", "2026-10-25T00:29:00", 60),
        ("22:00-02:30", "2026-10-25T01:15:00", 0),
        ("02:30-05:00", "2026-10-25T00:30:00", 3.5 * 3600),
        ("02:30-05:00", "2026-10-25T01:00:00", 3 * 3600),
    ],
)
def test_nights_that_skip_or_repeat_an_hour(given_text: str, now: str, left: float) -> None:
    assert window(given_text, BERLIN).left(utc(now)) == left


@given(TIMES, ZONES, MOMENTS)
@example((150, 195), BERLIN, utc("2026-03-29T01:00:00"))
@example((135, 165), BERLIN, utc("2026-03-29T01:20:00"))
def test_never_negative_and_open_only_when_the_wall_clock_agrees(
    times: tuple[int, int], zone: str | None, now: datetime
) -> None:
    opening = window(text(*times), zone)
    left = opening.left(now)
    assert 0 <= left <= 26 * 3600
    if left and not repeated(opening, now):
        here = now.astimezone(opening.zone or UTC)
        minute, (opens, closes) = here.hour * 60 + here.minute, times
        assert opens <= minute < closes or (closes <= opens and (minute >= opens % 1440 or minute < closes))


def repeated(opening: Window, now: datetime) -> bool:
    """Whether the wall clock was put back within the last day: then some times of it are there twice."""
    zone = opening.zone or UTC
    return now.astimezone(zone).utcoffset() != (now - timedelta(days=1)).astimezone(zone).utcoffset()


@given(TIMES, ZONES, MOMENTS, st.floats(0, 26 * 3600))
def test_what_is_left_runs_down_with_the_clock_and_the_window_closes(
    times: tuple[int, int], zone: str | None, now: datetime, later: float
) -> None:
    opening = window(text(*times), zone)
    left = opening.left(now)
    if left > later + 1e-3:
        assert opening.left(now + timedelta(seconds=later)) == pytest.approx(left - later, abs=1e-3)
    elif left and (times[1] - times[0]) % 1440:
        assert opening.left(now + timedelta(seconds=left)) == 0


@given(TIMES, ZONES, MOMENTS, st.integers(-12 * 60, 14 * 60))
def test_the_zone_in_which_now_is_told_does_not_matter(
    times: tuple[int, int], zone: str | None, now: datetime, offset: int
) -> None:
    opening = window(text(*times), zone)
    assert opening.left(now) == opening.left(now.astimezone(timezone(timedelta(minutes=offset))))


@given(TIMES, ZONES, st.dates(FIRST.date(), LAST.date()))
def test_every_window_opens_every_day_but_where_a_night_skips_it(
    times: tuple[int, int], zone: str | None, day: object
) -> None:
    opening = window(text(*times), zone)
    began = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=opening.zone or UTC) + timedelta(minutes=times[0])
    there = began.astimezone(UTC).astimezone(opening.zone or UTC)
    if there.replace(tzinfo=None) == began.replace(tzinfo=None):  # a time that this night has
        assert opening.left(began) > 0 or repeated(opening, began + timedelta(days=1))


@pytest.mark.parametrize(
    "wrong",
    ["", "22", "22-6", "22:00", "22:00-", "22:00-06:60", "25:00-26:00", "24:30-06:00", "22:00-24:01", "-1:00-02:00",
     "22:00-22:00", "24:00-00:00", "24:00-24:00", "22:00–06:00", "22.00-06.00", "10pm-6am", "22:00-06:00 UTC"],
)  # fmt: skip
def test_nonsense_is_no_window(wrong: str) -> None:
    with pytest.raises(BadInput, match="window") as raised:
        window(wrong, None)
    assert "22:00-06:00" in raised.value.cure


@pytest.mark.parametrize(
    "zone", ["Berlin", "Europe/Nowhere", "../../etc/passwd", "CEST+", " Europe/Berlin", "Europe", "a\0b"]
)
def test_nonsense_is_no_zone(zone: str) -> None:
    with pytest.raises(BadInput, match="window_timezone"):
        window("22:00-06:00", zone)


def test_a_window_names_its_zone_in_messages() -> None:
    assert window(" 22:00-06:00 ", BERLIN).text == "22:00-06:00 Europe/Berlin"
    assert window("22:00-06:00", None).text == window("22:00-06:00", "utc").text == "22:00-06:00 UTC"


def test_zones_are_those_of_the_standard_library() -> None:
    assert window("22:00-06:00", BERLIN).zone == ZoneInfo(BERLIN)
