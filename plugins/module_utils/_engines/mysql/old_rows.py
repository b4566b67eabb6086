# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conditions on old rows as SQL: cutoffs, ranges of keys, lists of keys, literals. Pure: no query runs here."""

from __future__ import annotations

import re
import typing as t
from datetime import datetime, timedelta, timezone

from ..._errors import BadInput
from ..._retention import Expiry
from .names import quoted

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
EARLIEST = datetime(1, 1, 1, tzinfo=timezone.utc)
INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
DATES = ("date", "datetime", "timestamp")
UNITS = {"seconds": 1_000_000, "milliseconds": 1000, "microseconds": 1}  # in microseconds
# What sorts exactly as its text compares: no FLOAT or DOUBLE (inexact), no ENUM or SET (sorted by number, compared as
# text), no BIT, no JSON.
NUMBER, TEXT, BINARY = "number", "text", "binary"
KINDS = {
    **dict.fromkeys((*INTEGERS, "decimal", "year"), NUMBER),
    **dict.fromkeys(("char", "varchar", *DATES, "time", "uuid", "inet4", "inet6"), TEXT),
    **dict.fromkeys(("binary", "varbinary"), BINARY),
}
# The server's zero dates say that there is no date: such rows stay, as those with NULL do. They sort before these.
FIRST = {"date": "'0001-01-01'", "datetime": "'0001-01-01'", "timestamp": "'1970-01-01 00:00:01'"}
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
# What may differ between two statements of one transaction: functions, the clock, other tables, sequences, variables.
_CALL = re.compile(r"(\w+|`)\s*\(")
_NOT_CALLED = frozenset(["IN", "AND", "OR", "NOT", "XOR", "BETWEEN", "LIKE", "IS", "THEN", "WHEN", "ELSE", "CASE"])
_MOVES = re.compile(
    r"[@?]|/\*|--|#|\b(SELECT|TABLE|VALUES|NEXT|NEXTVAL|PREVIOUS|LASTVAL|CURRENT_\w+|LOCALTIME\w*|UTC_\w+)\b",
    re.IGNORECASE,
)


def literal(value: str, kind: str) -> str:
    """A value as SQL; bytes come as hexadecimal digits. The session's sql_mode lets backslashes escape."""
    if kind == NUMBER:
        if not _NUMBER.fullmatch(value):
            raise ValueError(f"{value!r} is no number")
        return value
    if kind == BINARY:
        return f"x'{bytes.fromhex(value).hex()}'"
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\0", "\\0") + "'"


def cutoff(data_type: str, moment: datetime, expiry: Expiry) -> str:
    """The smallest value of a column of this type that is not before a moment. Raises BadInput for an unknown zone."""
    if data_type in INTEGERS:
        unit = timedelta(microseconds=UNITS[expiry.unit])
        return str(-((EPOCH - moment) // unit))
    local = moment.astimezone(zone_of(expiry.zone) if data_type != "timestamp" else timezone.utc)
    if data_type == "date":
        return f"'{local.date().isoformat()}'"
    return f"'{local.replace(tzinfo=None).isoformat(sep=' ')}'"


def zone_of(name: str) -> t.Any:
    """Raises BadInput."""
    if name == "UTC":
        return timezone.utc
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as fault:
        cure = "Use a name such as Europe/Vienna; the host where the module runs needs the time zone data (tzdata)"
        raise BadInput(f"the time zone {name!r} is not known", cure=cure) from fault


def dates(data_type: str, expiry: Expiry, of: str = "") -> str:
    """The condition on the date; never true of NULL. `of`: the alias of the table."""
    column, first = f"{quoted(of)}." * bool(of) + quoted(expiry.column), FIRST.get(data_type, "")
    if expiry.since is not None:
        first = cutoff(data_type, expiry.since, expiry)
    parts = [f"{column} >= {first}"] if first else []
    return " AND ".join([*parts, f"{column} < {cutoff(data_type, expiry.before, expiry)}"])


def wrapped(where: str) -> str:
    """The user's condition; the newline ends a comment that it may end with."""
    return f"({where}\n)"


def steady(where: str) -> bool:
    """Whether the user's condition is surely of the row alone, so that it says the same a moment later."""
    called = {word.upper() for word in _CALL.findall(where)}
    return not _MOVES.search(where) and not called - _NOT_CALLED


# ---- ranges ----------------------------------------------------------------------------------------------------------


def between(columns: t.Sequence[str], after: t.Sequence[str] | None, upto: t.Sequence[str] | None) -> str:
    """Keys in (after, upto]; literals, in the order of the columns; "" without any bound.

    Row constructors are not read as ranges: `(a, b) > (x, y)` scans the whole index. What is said here is.
    """
    names = [quoted(c) for c in columns]
    if after is None or upto is None:
        if after is None and upto is None:
            return ""
        return (
            _side(names, after, ">") if upto is None and after is not None else _side(names, upto or (), "<", last="<=")
        )
    same = next((i for i, pair in enumerate(zip(after, upto)) if pair[0] != pair[1]), len(names))
    if same == len(names):
        return "FALSE"
    head = [f"{name} = {value}" for name, value in zip(names[:same], after)]
    name, rest = names[same], names[same + 1 :]
    if not rest:
        return " AND ".join([*head, f"{name} > {after[same]}", f"{name} <= {upto[same]}"])
    ways = [
        f"({name} = {after[same]} AND {_side(rest, after[same + 1 :], '>')})",
        f"({name} > {after[same]} AND {name} < {upto[same]})",
        f"({name} = {upto[same]} AND {_side(rest, upto[same + 1 :], '<', last='<=')})",
    ]
    # Of a range that ends before it begins nothing may be found.
    return " AND ".join([*head, f"{name} >= {after[same]} AND {name} <= {upto[same]}", f"({' OR '.join(ways)})"])


def _side(names: t.Sequence[str], values: t.Sequence[str], sign: str, *, last: str = "") -> str:
    """`a > x`, or `(a > x OR (a = x AND b > y))`; the last column may be compared otherwise."""
    if len(names) == 1:
        return f"{names[0]} {last or sign} {values[0]}"
    rest = _side(names[1:], values[1:], sign, last=last)
    return f"({names[0]} {sign} {values[0]} OR ({names[0]} = {values[0]} AND {rest}))"


def among(columns: t.Sequence[str], keys: t.Sequence[t.Sequence[str]], of: str = "") -> str:
    """Exactly these keys, literals; `of`: the alias of the table. A list of row constructors is read as points."""
    before = f"{quoted(of)}." if of else ""
    names = [before + quoted(c) for c in columns]
    if not keys:
        return "FALSE"
    if len(names) == 1:
        return f"{names[0]} IN ({', '.join(key[0] for key in keys)})"
    return f"({', '.join(names)}) IN ({', '.join('(' + ', '.join(key) + ')' for key in keys)})"


# ---- moments ---------------------------------------------------------------------------------------------------------


def span(values: t.Iterable[str], data_type: str, expiry: Expiry) -> tuple[str, str]:
    """The smallest and the largest of a column's values as the server writes them, as ISO 8601 in UTC."""
    known = list(values)
    if not known:
        return "", ""
    if data_type in INTEGERS:
        numbers = [int(v) for v in known]
        unit = timedelta(microseconds=UNITS[expiry.unit])
        return _iso(lambda: EPOCH + unit * min(numbers)), _iso(lambda: EPOCH + unit * max(numbers))
    zone = timezone.utc if data_type == "timestamp" else zone_of(expiry.zone)
    first, last = (_moment(v).replace(tzinfo=zone) for v in (min(known), max(known)))
    return _iso(lambda: first.astimezone(timezone.utc)), _iso(lambda: last.astimezone(timezone.utc))


def _iso(moment: t.Callable[[], datetime]) -> str:
    """What lies before the year 1 as its first day: applications write the least that a type can hold for "never"."""
    try:
        return moment().isoformat()
    except OverflowError:
        return EARLIEST.isoformat()


def _moment(text: str) -> datetime:
    """Zeros in a month or a day are let through by old servers: the first is as near as can be said."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    except ValueError:
        year, month = (max(1, int(part)) for part in text.split("-")[:2])
        return datetime(year, month, 1, tzinfo=timezone.utc)
