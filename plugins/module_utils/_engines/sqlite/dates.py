# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dates as SQLite files have them, and which of them are due: the words of that. No row is read here.

SQLite has no type for dates (https://sqlite.org/datatype3.html#date_and_time_datatype): they are text in ISO 8601,
Julian day numbers (REAL), or numbers since 1970 (INTEGER; REAL where Python's time.time() was stored), of which the
rule's `date_unit` tells what they count. Whatever else stands in the column is no date, and never leaves.

- Text without an offset is in the rule's time zone; with one, or with Z, it is a moment. `YYYY-MM-DD` alone is a day.
- SQLite itself reads the text (julianday), down to milliseconds; but what does not begin with a date is not given to
  it, since it takes 'now', '12:00' and '2451545' for moments, too.
- An index knows text by its characters: the range that is read ends two days after the cutoff, as offsets and time
  zones move a moment by at most 15 hours, and what is due in it is told exactly.
"""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta, timezone, tzinfo

from ..._errors import Refused
from ..._retention import Expiry
from ..._tuples import NamedTuple
from .catalog import quoted

_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_FACTOR = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000}  # by `Expiry.unit`
_1970 = datetime(1970, 1, 1, tzinfo=timezone.utc)
_1970_JULIAN = 2440587.5
_JULIAN = (1721059.5, 5373484.5)  # of the years 0 and 10000: what a number must lie between to be a Julian day
LEAST, MOST = float("-inf"), float("inf")

# What a moment was computed from.
MOMENT, WALL, DAY = 0, 1, 2


class Range(NamedTuple):
    """Where an index has what is due: from `low` on, below `high`."""

    low: t.Any
    high: t.Any


class Dates:
    """The dates of one rule. Raises Refused where this host does not know the time zone."""

    def __init__(self, expiry: Expiry, column: str) -> None:
        self.expiry, self.name, self.column = expiry, column, quoted(column)
        self.zone = _zone(expiry.zone)

    # ---- words -------------------------------------------------------------------------------------------------------

    def due(self) -> str:
        """The whole predicate: dates and the user's condition."""
        since, before = self.expiry.since, self.expiry.before
        exact = self._compared("<", before) if since is None else self._both(since, before)
        # A comment at the end of the user's words ends before the parenthesis.
        return f"{exact} AND (\n{self.expiry.where}\n)" if self.expiry.where.strip() else exact

    def _both(self, since: datetime, before: datetime) -> str:
        return f"{self._compared('<', before)} AND {self._compared('>=', since)}"

    def _compared(self, sign: str, at: datetime) -> str:
        if self.expiry.unit:
            return f"typeof({self.column}) IN ('integer', 'real') AND {self.column} {sign} {self._units(at)}"
        moment = f"julianday('{_text(at, timezone.utc)}')"
        local = f"julianday('{_text(at, self.zone)}')"
        day = f"{self.column} COLLATE BINARY {sign} '{_text(at, self.zone)[:10]}'"
        text = f"CASE {self._class()} WHEN {DAY} THEN {day} WHEN {WALL} THEN julianday({self.column}) {sign} {local}"
        if local == moment:
            text = f"CASE WHEN length({self.column}) = 10 THEN {day}"
        return (
            f"CASE typeof({self.column}) WHEN 'text' THEN {self._is_iso()}"
            f" AND {text} ELSE julianday({self.column}) {sign} {moment} END"
            f" WHEN 'real' THEN {self._is_julian()} AND {self.column} {sign} {moment} END"
        )

    def valid(self) -> str:
        """What is a date at all; never NULL."""
        if self.expiry.unit:
            return f"typeof({self.column}) IN ('integer', 'real')"
        text, real = self._is_iso(), self._is_julian()
        return f"CASE typeof({self.column}) WHEN 'text' THEN {text} WHEN 'real' THEN {real} ELSE 0 END"

    def no_date(self) -> str:
        """Values that are no date, as far as an index finds them without reading what is not due: binds :high."""
        if self.expiry.unit:
            return f"{self.column} >= ''"
        column = f"{self.column} COLLATE BINARY"
        ranges = (
            f"{column} < ''",
            f"{column} >= '' AND {column} < '0'",
            f"{column} >= ':'",
            f"{column} >= '0' AND {column} < :high",
        )
        return f"({' OR '.join(ranges)}) AND NOT ({self.valid()})"

    def _is_iso(self) -> str:
        return f"{self.column} GLOB '{_DAY}*' AND julianday({self.column}) IS NOT NULL"

    def _is_julian(self) -> str:
        return f"{self.column} >= {_JULIAN[0]} AND {self.column} < {_JULIAN[1]}"

    def _class(self) -> str:
        """Of text that is a date: a day, a moment, or what the clock on the wall showed."""
        bare = f"rtrim({self.column})"
        offset = f"{bare} GLOB '*[Zz]' OR {bare} GLOB '*[0-9][+-][0-9][0-9]:[0-9][0-9]'"
        spaced = f"{bare} GLOB '*[0-9] [+-][0-9][0-9]:[0-9][0-9]'"
        return (
            f"CASE WHEN length({self.column}) = 10 THEN {DAY} WHEN {offset} OR {spaced} THEN {MOMENT} ELSE {WALL} END"
        )

    def moments(self) -> str:
        """Two columns: what `moment` makes of them."""
        if self.expiry.unit:
            return f"{MOMENT}, {self.column}"
        return (
            f"CASE typeof({self.column}) WHEN 'text' THEN {self._class()} ELSE {MOMENT} END,"
            f" CASE typeof({self.column}) WHEN 'text' THEN julianday({self.column}) ELSE {self.column} END"
        )

    # ---- values ------------------------------------------------------------------------------------------------------

    def range(self, *, text: bool, numbers: bool, textual: bool) -> Range:
        """`text`, `numbers`: the column has such values; `textual`: it turns numbers into text (TEXT affinity)."""
        since, before = self.expiry.since, self.expiry.before
        least: t.Any = "" if textual else LEAST
        if self.expiry.unit:
            return Range(LEAST if since is None else self._number(since), self._number(before))
        if text or textual:
            low = least if since is None or numbers else _shifted(since, -2)
            return Range(low, _shifted(before, 2))
        return Range(LEAST if since is None else julian(since) - 1, julian(before) + 1)

    def moment(self, kind: int, value: float, *, last: bool) -> str:
        """ISO 8601 in UTC of what `moments` gave; of a day its first or last moment."""
        try:
            if self.expiry.unit:
                found = _1970 + timedelta(microseconds=round(value * 1_000_000 / _FACTOR[self.expiry.unit]))
            else:
                found = _1970 + timedelta(milliseconds=round((value - _1970_JULIAN) * 86_400_000))
            if kind == DAY and last:
                found += timedelta(days=1, milliseconds=-1)
            if kind != MOMENT:
                found = found.replace(tzinfo=self.zone).astimezone(timezone.utc)
            return found.isoformat()
        except (OverflowError, ValueError):
            return ""  # before year 1

    def _number(self, at: datetime) -> int | float:
        """A moment in the rule's unit; whole where it is."""
        microseconds = (at - _1970) // timedelta(microseconds=1)
        whole, rest = divmod(microseconds * _FACTOR[self.expiry.unit], 1_000_000)
        return whole + rest / 1_000_000 if rest else whole

    def _units(self, at: datetime) -> str:
        return repr(self._number(at))


def julian(at: datetime) -> float:
    return (at - _1970) / timedelta(days=1) + _1970_JULIAN


def _text(at: datetime, zone: tzinfo) -> str:
    """In words that SQLite reads; the year 10000 is as good as never."""
    try:
        return at.astimezone(zone).replace(tzinfo=None).isoformat(" ", "milliseconds")
    except OverflowError:
        return "9999-12-31 23:59:59.999" if at > _1970 else "0001-01-01 00:00:00.000"


def _shifted(at: datetime, days: int) -> str:
    try:
        return (at.astimezone(timezone.utc) + timedelta(days=days)).date().isoformat()
    except OverflowError:
        return ":" if at > _1970 else "0"


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return timezone.utc
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (OSError, ValueError) as error:
        raise Refused(f"the time zone {name} is not known here: {error}", cure="Install the package tzdata") from error
