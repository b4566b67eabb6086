# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a daily or a weekly summary is due: by the clock on the wall of its readers. Pure; the moment is an argument."""

from __future__ import annotations

import re
import typing as t
from datetime import date, datetime, time, timedelta, tzinfo

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput

DAILY, WEEKLY = "daily", "weekly"
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Hours(t.NamedTuple):
    """From when on a summary is due, where its readers live. No zone: that of the controller."""

    zone: tzinfo | None
    at: time
    weekday: int  # Monday is 0


def hours(zone: str, at: str, weekday: str) -> Hours:
    """The options, checked. Raises BadInput."""
    found = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", at)
    if not found:
        raise BadInput(f"summary_at: {at!r} is no time of day", cure="Write it as 06:30")
    if weekday not in DAYS:
        raise BadInput(f"weekly_on: {weekday!r} is no day of the week", cure=f"Write one of {', '.join(DAYS)}")
    return Hours(_zone(zone), time(int(found.group(1)), int(found.group(2))), DAYS.index(weekday))


def _zone(name: str) -> tzinfo | None:
    if not name:
        return None
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as fault:
        raise BadInput(
            f"timezone: {name!r} is not known on the controller", cure="Write it as Europe/Berlin"
        ) from fault


def period(summary: str, now: datetime, how: Hours) -> date:
    """The day or week that a summary sent now is that of: named by the day on which it began to be due."""
    local = now.astimezone(how.zone).replace(tzinfo=None)
    day = local.date() if local.time() >= how.at else local.date() - timedelta(days=1)
    return day if summary == DAILY else day - timedelta(days=(day.weekday() - how.weekday) % 7)


def due(summary: str, last: str | None, now: datetime, how: Hours) -> date | None:
    """The period that nobody was told of yet.

    An hour that comes twice when clocks are set back brings nothing twice. A last one that lies in the future was
    written by a clock that was wrong, or is damaged: it must not silence anybody for years.
    """
    current = period(summary, now, how)
    try:
        told = date.fromisoformat(last or "")
    except ValueError:
        return current
    ahead = timedelta(days=1 if summary == DAILY else 7)
    return current if current > told or told > current + ahead else None
