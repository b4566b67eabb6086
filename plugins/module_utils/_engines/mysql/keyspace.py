# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first column of a primary key as a line of numbers, on which places can be spread evenly. Pure: no query.

Texts and bytes become numbers by their first characters after what all keys have in common. Whatever the keys look
like, the places cut the line into cells, and each key lies in one of them.
"""

from __future__ import annotations

import string
import typing as t
from datetime import date, datetime, time, timedelta, timezone

from ..._tuples import NamedTuple
from .names import quoted

BYTES = 8  # of a binary key
DIGITS = 10  # of a text
MOMENT = "1970-01-01 00:00:00"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# In this order in every collation; the smallest that holds the keys is taken.
ALPHABETS = (
    string.digits,
    string.digits + "abcdef",
    string.digits + "ABCDEF",
    string.digits + string.ascii_lowercase,
    string.digits + string.ascii_uppercase,
)
INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
TEXTS, BINARIES, TIMES = ("char", "varchar"), ("binary", "varbinary"), ("date", "datetime", "timestamp")


class Keys(NamedTuple):
    """A column from its first to its last value; `literal` gives the SQL of a number."""

    name: str
    first: int
    last: int
    literal: t.Callable[[int], str]

    @property
    def span(self) -> int:
        return self.last - self.first + 1

    def within(self, start: int, width: int) -> str:
        """The condition of the keys from one number to another."""
        name = quoted(self.name)
        return f"{name} >= {self.literal(start)} AND {name} < {self.literal(start + width)}"


def kind_of(data_type: str) -> str:
    """Which of the lines below this type of column lies on; empty for none."""
    if data_type in INTEGERS:
        return "integer"
    for kind, types in (("text", TEXTS), ("binary", BINARIES), ("time", TIMES)):
        if data_type in types:
            return kind
    return ""


def keys_of(kind: str, name: str, first: t.Any, last: t.Any) -> Keys | None:
    """From the smallest and the largest value. None where they tell of no line."""
    if kind == "integer":
        return Keys(name, int(first), int(last), str)
    if kind == "time":
        return _times(name, first, last)
    if kind == "binary" and isinstance(first, bytes) and isinstance(last, bytes):
        return _bytes(name, first, last)
    return _texts(name, str(first), str(last)) if kind == "text" else None


def _times(name: str, first: t.Any, last: t.Any) -> Keys | None:
    if not isinstance(first, date) or not isinstance(last, date):
        return None  # a zero date
    unit, word = (timedelta(microseconds=1), "MICROSECOND") if isinstance(first, datetime) else (timedelta(1), "DAY")

    def number(value: date) -> int:
        clock = value.time() if isinstance(value, datetime) else time()
        return (datetime.combine(value, clock, tzinfo=timezone.utc) - EPOCH) // unit

    return Keys(name, number(first), number(last), lambda n: f"TIMESTAMP'{MOMENT}' + INTERVAL {n} {word}")


def _bytes(name: str, first: bytes, last: bytes) -> Keys:
    start = _common(first, last)
    head = first[:start]

    def number(value: bytes) -> int:
        return int.from_bytes(value[start : start + BYTES].ljust(BYTES, b"\0"), "big")

    def literal(n: int) -> str:
        if n >= 1 << 8 * BYTES:
            return f"X'{(head + bytes([255]) * (BYTES + 1)).hex()}'"
        return f"X'{(head + n.to_bytes(BYTES, 'big')).hex()}'"

    return Keys(name, number(first), number(last), literal)


def _texts(name: str, first: str, last: str) -> Keys:
    start = _common(first, last)
    tails = first[start:] + last[start:]
    signs = next((a for a in ALPHABETS if not set(tails) - set(a) - {"-"}), ALPHABETS[-2])
    # Dashes stand where they stand in the first key.
    dashes = [i for i, sign in enumerate(first[start : start + DIGITS]) if sign == "-"]
    places = [i for i in range(DIGITS) if i not in dashes]

    def number(value: str) -> int:
        tail, found = value[start:], 0
        for i in places:
            sign = tail[i] if i < len(tail) else signs[0]
            found = found * len(signs) + max(0, signs.find(sign))
        return found

    def literal(n: int) -> str:
        if n >= len(signs) ** len(places):
            return _text(first[:start] + signs[-1] * (DIGITS + 1))
        written = ["-"] * DIGITS
        for i in reversed(places):
            n, digit = divmod(n, len(signs))
            written[i] = signs[digit]
        return _text(first[:start] + "".join(written))

    return Keys(name, number(first), max(number(first), number(last)), literal)


def _text(text: str) -> str:
    return "_utf8mb4 X'" + text.encode("utf-8").hex() + "'"


def _common(first: t.Sequence[t.Any], last: t.Sequence[t.Any]) -> int:
    count = 0
    while count < min(len(first), len(last)) and first[count] == last[count]:
        count += 1
    return count
