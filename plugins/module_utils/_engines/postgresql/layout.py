# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large rows and values lie on pages: pure arithmetic of the storage format. No SQL. B-trees: btree.py.

Where a value begins is known as a distribution over the eight places within a word, so that padding is exact for
values of one size, exact on average for values whose sizes are known, and half of what it can be for the rest.
Source: the manual, 73.6 "Database Page Layout"; heap_compute_data_size() and RelationGetTargetPageFreeSpace().
"""

from __future__ import annotations

import functools
import math
import typing as t

from ..._tuples import NamedTuple

ITEM = 4  # the line pointer of a row
PAGE_HEADER = 24
ROW_HEADER = 23
SHORT = 127  # bytes up to which a value of variable length needs no alignment
WORD = 8

Place = tuple[float, ...]  # the share of rows in which something begins at 0, 1 … 7 bytes into a word
START: Place = (1.0,) + (0.0,) * (WORD - 1)
ANYWHERE: Place = (1.0 / WORD,) * WORD


class Column(NamedTuple):
    """A column as pg_attribute and pg_statistic describe it."""

    length: int  # bytes; -1 is variable
    align: int
    width: float  # bytes of a value as stored, on average
    null_share: float
    rests: Place = ANYWHERE  # of a variable length: its sizes, modulo a word
    short: float = 1.0  # of a variable length: the share of values that need no alignment
    constant: bool = False  # all values are of one size


class Shape(NamedTuple):
    """A row on average, its line pointer included, and whether all rows are of this size."""

    bytes: float
    fixed: bool


def variable(align: int, width: float, null_share: float) -> Column:
    """A column of variable length of which nothing but the mean width is known."""
    return Column(-1, align, width, null_share, short=1.0 if width <= SHORT else 0.0)


def sampled(align: int, width: float, null_share: float, sizes: t.Sequence[tuple[int, float]]) -> Column:
    """A column of variable length, some of whose values are known: (size as stored, weight)."""
    whole = mean = short = 0.0
    rests = [0.0] * WORD
    for size, weight in sizes:
        whole += weight
        mean += size * weight
        rests[size % WORD] += weight
        if size <= SHORT:
            short += weight
    if whole <= 0:
        return variable(align, width, null_share)
    # The server's mean counts all rows that it has seen, cut down to a whole number: the sample fills in the rest.
    width = min(max(mean / whole, width), width + 1.0)
    constant = min(sizes)[0] == max(sizes)[0]
    return Column(-1, align, width, null_share, tuple([r / whole for r in rests]), short / whole, constant)


def walk(columns: t.Iterable[Column], place: Place = START) -> tuple[float, Place]:
    """The bytes of these values on average, each padded to its alignment, and where the next one begins."""
    size = 0.0
    for column in columns:
        there = 1.0 - column.null_share
        if there <= 0:
            continue
        if column.length > 0:
            padding, begins = _padded(place, column.align)
            ends = _moved(begins, column.length)
        else:
            padding, begins = _padded(place, column.align)
            padding *= 1.0 - column.short
            begins = _mixed(place, begins, column.short)
            ends = _after(begins, column.rests)
        size += there * (padding + (column.length if column.length > 0 else column.width))
        place = _mixed(ends, place, there)
    return size, place


def padding(place: Place) -> float:
    """Bytes to the end of the word, on average."""
    return _padded(place, WORD)[0]


def _padded(place: Place, align: int) -> tuple[float, Place]:
    if align == 1:
        return 0.0, place
    total, begins = 0.0, [0.0] * WORD
    for at, share in enumerate(place):
        if not share:
            continue
        gap = -at % align
        total += share * gap
        begins[(at + gap) % WORD] += share
    return total, tuple(begins)


def _moved(place: Place, length: int) -> Place:
    back = -length % WORD
    return place[back:] + place[:back]


def _after(place: Place, rests: Place) -> Place:
    if rests is ANYWHERE:
        return ANYWHERE
    if 1.0 in place:
        return _moved(rests, place.index(1.0))
    return tuple(sum(place[(at - rest) % WORD] * share for rest, share in enumerate(rests)) for at in range(WORD))


def _mixed(one: Place, other: Place, share: float) -> Place:
    if share >= 1.0:
        return one
    return tuple(share * a + (1.0 - share) * b for a, b in zip(one, other))


def of_one_size(columns: t.Iterable[Column]) -> bool:
    return all(c.null_share in (0.0, 1.0) and (c.length > 0 or c.constant or c.null_share == 1.0) for c in columns)


def some_null(columns: t.Iterable[Column]) -> float:
    """The share of rows in which any column is null: between what follows when they are so together, and apart."""
    most, none = 0.0, 1.0
    for column in columns:
        most, none = max(most, column.null_share), none * (1.0 - column.null_share)
    return (most + 1.0 - none) / 2


def shape(columns: t.Sequence[Column]) -> Shape:
    """The size of an average row, its columns walked in order, each padded to its alignment."""
    return _shape(tuple(columns))


@functools.lru_cache(maxsize=8192)  # tables are often alike
def _shape(columns: tuple[Column, ...]) -> Shape:
    size, place = walk(columns)
    return Shape(_header(columns) + size + padding(place) + ITEM, of_one_size(columns))


def _header(columns: t.Sequence[Column]) -> float:
    """The row's header, with the bitmap of nulls in as many rows as have one."""
    plain = aligned(ROW_HEADER)
    with_bitmap = aligned(ROW_HEADER + math.ceil(len(columns) / 8))
    return plain + some_null(columns) * (with_bitmap - plain)


def aligned(size: int) -> int:
    return -(-size // WORD) * WORD


def pages(rows: float, row: Shape, *, block: int, fillfactor: float) -> float:
    """Pages that these rows fill when written anew."""
    usable = block - PAGE_HEADER - int(block * (100.0 - fillfactor) / 100.0)
    if row.bytes > usable:
        return math.ceil(rows)
    # The last row of a page seldom fits exactly: rows of different size leave half a row free, on average.
    each = usable // row.bytes if row.fixed else max(1.0, (usable - row.bytes / 2) / row.bytes)
    return math.ceil(rows / each)
