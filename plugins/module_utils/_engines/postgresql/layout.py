# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large a table's rows lie on its pages: pure arithmetic of the heap format. No SQL.

Source: the manual, 73.6 "Database Page Layout"; heap_compute_data_size() and RelationGetTargetPageFreeSpace().
"""

from __future__ import annotations

import math
import typing as t

ITEM = 4  # the line pointer of a row
PAGE_HEADER = 24
ROW_HEADER = 23
SHORT = 127  # bytes up to which a value of variable length needs no alignment
WORD = 8


class Column(t.NamedTuple):
    """A column as pg_attribute and pg_statistic describe it."""

    length: int  # bytes; -1 is variable
    align: int
    width: float  # bytes of a value as stored, on average
    null_share: float


class Shape(t.NamedTuple):
    """A row on average, its line pointer included, and whether all rows are of this size."""

    bytes: float
    fixed: bool


class _Place(t.NamedTuple):
    """Where a row's next value begins, as far as it is known: `rest` modulo `modulus`."""

    rest: float
    modulus: int

    def padding(self, align: int) -> float:
        """Bytes to the next multiple of `align`, on average over the places that are possible."""
        step = min(self.modulus, align)
        places = range(0, align, step)
        return sum((-(self.rest + place)) % align for place in places) / len(places)

    def after(self, align: int, length: int | None) -> _Place:
        """The next place, after padding to `align` and a value; of unknown length when None."""
        if length is None:
            return _Place(0, 1)
        if align >= self.modulus:
            return _Place(length % align, align)
        rest = self.rest + self.padding(align) + length
        return _Place(rest % self.modulus, self.modulus)


def shape(columns: t.Sequence[Column]) -> Shape:
    """The size of an average row, its columns walked in order, each padded to its alignment."""
    place, size, fixed = _Place(0, WORD), 0.0, True
    for column in columns:
        there = 1.0 - column.null_share
        if column.length > 0:
            size += there * (place.padding(column.align) + column.length)
            place = place.after(column.align, column.length)
        else:
            align = 1 if column.width <= SHORT else column.align
            size += there * (place.padding(align) + column.width)
            place = place.after(align, None)
            fixed = False
        if column.null_share > 0:
            fixed = False
            place = _Place(0, 1)
    return Shape(_header(columns) + size + place.padding(WORD) + ITEM, fixed)


def _header(columns: t.Sequence[Column]) -> float:
    """The row's header, with the bitmap of nulls in as many rows as have one."""
    plain = _aligned(ROW_HEADER)
    with_bitmap = _aligned(ROW_HEADER + math.ceil(len(columns) / 8))
    nulls = max((column.null_share for column in columns), default=0.0)
    return plain + nulls * (with_bitmap - plain)


def _aligned(size: int) -> int:
    return -(-size // WORD) * WORD


def pages(rows: float, row: Shape, *, block: int, fillfactor: float) -> float:
    """Pages that these rows fill when written anew."""
    usable = block - PAGE_HEADER - block * (100.0 - fillfactor) / 100.0
    if row.bytes > usable:
        return math.ceil(rows)
    # The last row of a page seldom fits exactly: rows of different size leave half a row free, on average.
    each = usable // row.bytes if row.fixed else max(1.0, (usable - row.bytes / 2) / row.bytes)
    return math.ceil(rows / each)
