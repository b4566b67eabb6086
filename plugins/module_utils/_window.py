# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maintenance window: whether a moment lies in it, and for how long. Pure; the clock comes from the server."""

from __future__ import annotations

import re
import typing as t
from datetime import datetime, timedelta, timezone, tzinfo

from ._errors import BadInput
from ._tuples import NamedTuple

_TIMES = re.compile(r"\s*([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})\s*\Z")


class Window(NamedTuple):
    text: str  # with the zone, for messages
    opens: int  # minutes after midnight
    closes: int
    zone: tzinfo | None

    def left(self, now: datetime) -> float:
        """Seconds until the window closes, 0 when it is not open; right in a night that skips or repeats an hour.

        A time that a night skips is the moment of the change; of a time that it repeats, the first counts.
        """
        here = now.astimezone(self.zone or timezone.utc)
        for day in (here.date() - timedelta(days=1), here.date()):
            start, end = (self._moment(day, minutes) for minutes in (self.opens, self.closes))
            if self.closes <= self.opens:
                end = self._moment(day + timedelta(days=1), self.closes)
            if start <= now < end:
                return (end - now).total_seconds()
        return 0.0

    def _moment(self, day: t.Any, minutes: int) -> datetime:
        zone, minute = self.zone or timezone.utc, timedelta(minutes=1)
        wall = datetime(day.year, day.month, day.day, minutes // 60 % 24, minutes % 60, tzinfo=zone)
        if minutes == 24 * 60:
            wall += timedelta(days=1)
        moment = wall.astimezone(timezone.utc)
        # Of a skipped time Python makes one that is later by the whole change.
        while (moment - minute).astimezone(zone).replace(tzinfo=None) > wall.replace(tzinfo=None):
            moment -= minute
        return moment


def window(text: str, zone: str | None) -> Window:
    """`22:00-06:00`, in the named time zone (`Europe/Berlin`) or in UTC. Raises BadInput."""
    found = _TIMES.match(text)
    hours = [int(n) for n in found.groups()] if found else []
    if not found or any(h > 24 for h in hours[::2]) or any(m > 59 for m in hours[1::2]):
        raise BadInput(f"window: {text!r} is not understood", cure="Write it as 22:00-06:00")
    opens, closes = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if max(opens, closes) > 24 * 60 or opens == closes or (opens, closes) == (24 * 60, 0):
        raise BadInput(
            f"window: {text!r} is empty, or past 24:00", cure="Write it as 22:00-06:00; the whole day is 00:00-24:00"
        )
    found_zone = _zone(zone)
    return Window(f"{text.strip()} {zone if found_zone else 'UTC'}", opens, closes, found_zone)


def _zone(name: str | None) -> tzinfo | None:
    if not name or name.upper() == "UTC":
        return None
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise BadInput(
            f"window_timezone: {name!r} is not known here", cure="Use a name such as Europe/Berlin; install tzdata"
        ) from None
