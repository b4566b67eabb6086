# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A few rows from everywhere in a table, in bounded time: short ranges of the primary key, evenly spread. Only reads.

The places are computed, not drawn, so that check mode and the run that follows see the same rows.
"""

from __future__ import annotations

import math
import typing as t

from ..._tuples import NamedTuple
from .keyspace import Keys
from .names import quoted

GOLDEN = 0.6180339887498949  # its multiples fall evenly and follow no period of the data
AT_ONCE = 16  # ranges in one query
PAGE = 16384  # bytes of most servers' pages
MOST_ROWS = 1000  # of one range: where many keys lie close together it is cut off


class Bite(NamedTuple):
    """Sums over the rows of one range of keys."""

    rows: int
    sums: tuple[float, ...]


class Sample(NamedTuple):
    """Averages a row, and, where the ranges' share of all keys is known, how many rows there are."""

    seen: int
    averages: tuple[float, ...]
    rows: float | None = None
    error: float = 0.0  # standard error of what all `rows` take, as a share of it
    spread: float = 0.0  # standard error of the averages, as a share


def keyed(
    link: t.Any, table: str, keys: Keys, expressions: t.Sequence[str], *, ranges: int, rows_each: int, rows: int
) -> Sample | None:
    """Ranges of the primary key's first column, about `rows_each` rows long if there are about `rows`.

    Where rows lie closer than that the ranges are made shorter. None when no row was met.
    """
    span = keys.span
    if ranges * rows_each >= rows or ranges >= span:
        ranges, width = min(ranges, span), span  # few rows, or few keys: all of them
    else:
        width = max(1, rows_each * span // max(rows, 1))
        ranges = max(1, min(ranges, span // width))
    for _attempt in range(6):
        cells = _cells(span, ranges, width)
        sources = [f"{table} WHERE {keys.within(keys.first + start, size)}" for start, size in cells]
        bites = _bites(link, sources, expressions, MOST_ROWS)
        if max(size for _start, size in cells) == 1 or all(bite.rows < MOST_ROWS for bite in bites):
            break
        width = max(1, min(width, span // ranges) // 8)
    seen = sum(bite.rows for bite in bites)
    if not seen:
        return None
    share = span / sum(size for _start, size in cells)
    counted = None if any(bite.rows >= MOST_ROWS for bite in bites) else seen * share
    unseen = math.sqrt(1 - 1 / share)  # what was read is known: nothing is left to chance where all was
    averages = _averages(bites, len(expressions))
    return Sample(seen, averages, counted, _error(bites) * unseen, _spread(bites) * unseen)


def _cells(span: int, ranges: int, width: int) -> list[tuple[int, int]]:
    """Where each range begins, and how long it is: somewhere in its own part of the line, or all of that."""
    found = []
    for i in range(ranges):
        begin, end = i * span // ranges, (i + 1) * span // ranges
        size = min(width, end - begin)
        found.append((begin + int((i * GOLDEN) % 1 * 2**20) * (end - begin - size) // 2**20, size))
    return found


def dives(
    link: t.Any, table: str, keys: Keys, expressions: t.Sequence[str], *, places: int, rows_each: int
) -> Sample | None:
    """The next rows from evenly spread places."""
    name = quoted(keys.name)
    starts = [keys.literal(keys.first + keys.span * i // places) for i in range(places)]
    sources = [f"{table} WHERE {name} >= {start} ORDER BY {name}" for start in starts]
    bites = _bites(link, sources, expressions, rows_each)
    seen = sum(bite.rows for bite in bites)
    return Sample(seen, _averages(bites, len(expressions)), spread=_spread(bites)) if seen else None


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


def _size(bite: Bite) -> float:
    """Bytes of its rows, with the pages that some of their values have of their own."""
    return bite.sums[0] + PAGE * bite.sums[1]


def _error(bites: t.Sequence[Bite]) -> float:
    """Neighbouring ranges differ by chance, distant ones also by the table's history: only the former is error."""
    weights = [_size(bite) for bite in bites]
    total = sum(weights)
    if len(weights) < 2 or not total:
        return 1.0
    squares = sum((b - a) ** 2 for a, b in zip(weights, weights[1:])) / (2 * (len(weights) - 1))
    return math.sqrt(squares * len(weights)) / total


def _spread(bites: t.Sequence[Bite]) -> float:
    """Of what a row takes, on its page and on others, by how the ranges differ."""
    sizes = [_size(bite) for bite in bites]
    rows, total = sum(bite.rows for bite in bites), sum(sizes)
    if not total:
        return 0.0
    return math.sqrt(sum((size - total * bite.rows / rows) ** 2 for size, bite in zip(sizes, bites))) / total
