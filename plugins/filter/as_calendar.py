# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `as_calendar`: when cron would run something, in the words of systemd's timers."""

from __future__ import annotations

import re
import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: as_calendar
short_description: Turns the five fields of a crontab into a calendar event of systemd
version_added: 0.1.0
author:
  - The dbfleet.maintenance contributors (@dbfleet)
description:
  - The role P(dbfleet.maintenance.schedule#role) takes one notation for both, and judges it with this filter.
  - Understands numbers, names of months and days of the week, lists, ranges and steps.
  - Refuses a day of the month together with a day of the week. Cron runs on either of them, which one calendar event
    cannot say.
options:
  _input:
    description: Minute, hour, day of the month, month and day of the week, with spaces between them.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Sundays at half past three
  ansible.builtin.debug:
    msg: "{{ '30 3 * * sun' | dbfleet.maintenance.as_calendar }}"  # Sun *-*-* 03:30:00
"""

RETURN = r"""
_value:
  description: What C(OnCalendar=) takes.
  type: str
"""

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
PART = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")


class Field(t.NamedTuple):
    """One of the five: what it may hold."""

    name: str
    least: int
    most: int
    names: dict[str, int]


# 7 is Sunday, too.
FIELDS = (
    Field("minute", 0, 59, {}),
    Field("hour", 0, 23, {}),
    Field("day of the month", 1, 31, {}),
    Field("month", 1, 12, {name: number for number, name in enumerate(MONTHS, 1)}),
    Field("day of the week", 0, 7, {name.lower(): number for number, name in enumerate(DAYS)}),
)


def as_calendar(value: str) -> str:
    """Raises AnsibleFilterError for what cron would not take, or systemd cannot say."""
    words = str(value).split()
    if len(words) != len(FIELDS):
        raise AnsibleFilterError(
            f"as_calendar: {value!r} has not five fields: minute, hour, day of the month, month, day of the week"
        )
    minute, hour, day, month, weekday = (_numbers(field, word) for field, word in zip(FIELDS, words))
    if weekday is not None:
        weekday = sorted({number % len(DAYS) for number in weekday})
    if weekday is not None and len(weekday) == len(DAYS):
        weekday = None
    if day is not None and weekday is not None:
        raise AnsibleFilterError(
            f"as_calendar: {value!r} names days of the month and of the week, of which cron takes either: make two jobs"
        )
    date = f"*-{_written(month)}-{_written(day)}"
    days = "" if weekday is None else ",".join(DAYS[number] for number in weekday) + " "
    return f"{days}{date} {_written(hour)}:{_written(minute)}:00"


def _numbers(field: Field, text: str) -> list[int] | None:
    """In order, each once; None for all of them."""
    if text == "*":
        return None
    found: set[int] = set()
    for part in text.lower().split(","):
        read = PART.fullmatch(part)
        if not read:
            raise _wrong(field, text)
        every, first, last, step = read.groups()
        low = field.least if every else _number(field, first, text)
        # `5/10` is Vixie cron's `5-59/10`.
        high = field.most if every or (step and not last) else _number(field, last or first, text)
        if low > high or step == "0":
            raise _wrong(field, text)
        found.update(range(low, high + 1, int(step or 1)))
    return sorted(found)


def _number(field: Field, text: str, whole: str) -> int:
    number = field.names.get(text, int(text) if text.isdecimal() else -1)
    if not field.least <= number <= field.most:
        raise _wrong(field, whole)
    return number


def _wrong(field: Field, text: str) -> AnsibleFilterError:
    return AnsibleFilterError(f"as_calendar: {text!r} is no {field.name} ({field.least} to {field.most})")


def _written(numbers: t.Sequence[int] | None) -> str:
    return "*" if numbers is None else ",".join(f"{number:02}" for number in numbers)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"as_calendar": as_calendar}
