# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A few rows from everywhere in a table, in bounded time: short ranges of the primary key, evenly spread. Only reads.

The places are computed, not drawn, so that check mode and the run that follows see the same rows.
"""

from __future__ import annotations

import math
import typing as t

from .names import quoted

GOLDEN = 0.6180339887498949  # its multiples fall evenly and follow no period of the data
AT_ONCE = 16  # ranges in one query
MOST_ROWS = 1000  # of one range: where many keys lie close together it is cut off


class Bite(t.NamedTuple):
    """Sums over the rows of one range of keys."""

    rows: int
    sums: tuple[float, ...]


class Sample(t.NamedTuple):
    """Averages a row, and, where the ranges' share of all keys is known, how many rows there are."""

    seen: int
    averages: tuple[float, ...]
    rows: float | None = None
    error: float = 0.0  # standard error of `rows` times the first average, as a share of it


class Keys(t.NamedTuple):
    """An integer primary key: where it begins and ends."""

    name: str
    first: int
    last: int


def keyed(
    link: t.Any, table: str, keys: Keys, expressions: t.Sequence[str], *, ranges: int, rows_each: int, rows: int
) -> Sample | None:
    """Ranges of an integer that is the whole primary key, about `rows_each` rows long if there are about `rows`.

    Where rows lie closer than that the ranges are made shorter. None when no row was met.
    """
    span = keys.last - keys.first + 1
    ranges = max(1, min(ranges, span // max(1, rows_each)))
    stratum = span / ranges
    width = min(max(1, math.ceil(rows_each * span / max(rows, 1))), max(1, math.floor(stratum)))
    name = quoted(keys.name)
    for _attempt in range(6):
        starts = [keys.first + math.floor(i * stratum + (i * GOLDEN) % 1 * (stratum - width)) for i in range(ranges)]
        sources = [f"{table} WHERE {name} >= {start} AND {name} < {start + width}" for start in starts]
        bites = _bites(link, sources, expressions, MOST_ROWS)
        if width == 1 or all(bite.rows < MOST_ROWS for bite in bites):
            break
        width = max(1, width // 8)
    seen = sum(bite.rows for bite in bites)
    if not seen:
        return None
    counted = None if any(bite.rows >= MOST_ROWS for bite in bites) else seen * span / (width * ranges)
    error = 0.0 if width * ranges >= span else _error(bites)
    return Sample(seen, _averages(bites, len(expressions)), counted, error)


def dives(
    link: t.Any, table: str, key: str, places: t.Sequence[str], expressions: t.Sequence[str], *, rows_each: int
) -> Sample | None:
    """The next rows from each of these places of a key of any type."""
    sources = [f"{table} WHERE {quoted(key)} >= {place} ORDER BY {quoted(key)}" for place in places]
    bites = _bites(link, sources, expressions, rows_each)
    seen = sum(bite.rows for bite in bites)
    return Sample(seen, _averages(bites, len(expressions))) if seen else None


def beginning(link: t.Any, table: str, expressions: t.Sequence[str], rows: int) -> Sample | None:
    """The first rows of a table without a key to dive by."""
    bites = _bites(link, [table], expressions, rows)
    return Sample(bites[0].rows, _averages(bites, len(expressions))) if bites[0].rows else None


def _bites(link: t.Any, sources: t.Sequence[str], expressions: t.Sequence[str], most: int) -> list[Bite]:
    """Each source is what follows FROM; a few of them go to the server at a time."""
    named = ", ".join(f"{expression} AS x{i}" for i, expression in enumerate(expressions))
    sums = ", ".join(f"COALESCE(SUM(x{i}), 0)" for i in range(len(expressions)))
    found: dict[int, Bite] = {}
    for start in range(0, len(sources), AT_ONCE):
        parts = [
            f"SELECT {start + i}, COUNT(*), {sums} FROM (SELECT {named} FROM {source} LIMIT {most}) some"
            for i, source in enumerate(sources[start : start + AT_ONCE])
        ]
        for row in link.rows(" UNION ALL ".join(parts)):
            found[int(row[0])] = Bite(int(row[1]), tuple(float(n) for n in row[2:]))
    return [found[i] for i in sorted(found)]


def _averages(bites: t.Sequence[Bite], count: int) -> tuple[float, ...]:
    seen = sum(bite.rows for bite in bites)
    return tuple(sum(bite.sums[i] for bite in bites) / seen for i in range(count))


def _error(bites: t.Sequence[Bite]) -> float:
    """Neighbouring ranges differ by chance, distant ones also by the table's history: only the former is error."""
    weights = [bite.sums[0] for bite in bites]
    total = sum(weights)
    if len(weights) < 2 or not total:
        return 1.0
    squares = sum((b - a) ** 2 for a, b in zip(weights, weights[1:])) / (2 * (len(weights) - 1))
    return math.sqrt(squares * len(weights)) / total


def texts_between(first: str, last: str, count: int) -> list[str]:
    """Evenly spread texts between two keys: the character after what they have in common, then letters and digits."""
    common = 0
    while common < min(len(first), len(last)) and first[common] == last[common]:
        common += 1
    low = ord(first[common]) if common < len(first) else 32
    high = ord(last[common]) if common < len(last) else 126
    found = []
    for i in range(count):
        share = (i + 0.5) / count * (high - low + 1)
        sign = chr(min(low + int(share), high))
        found.append(first[:common] + sign + _letters(share % 1))
    return found


def _letters(share: float) -> str:
    signs = "0123456789abcdefghijklmnopqrstuvwxyz"
    return signs[int(share * 36)] + signs[int(share * 1296) % 36]
