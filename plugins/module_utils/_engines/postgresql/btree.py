# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many pages a b-tree needs when it is built anew: pure arithmetic of its format. No SQL, no threshold.

Equal values share entries ("posting lists") where the index allows it, so it matters how often values repeat.
Source: _bt_buildadd(), _bt_load() and _bt_dedup_save_htid() in nbtsort.c and nbtdedup.c, index_form_tuple().
"""

from __future__ import annotations

import functools
import math
import typing as t

from ..._tuples import NamedTuple
from . import layout
from .layout import ITEM, WORD, Column, aligned

HEADER = 8
NULLS = 8  # the bitmap of nulls and its padding
TID = 6  # of a row in a posting list
SPECIAL = 16  # at the end of a page
INNER_FILL = 70.0  # percent
MOST_COUNTED = 24  # repetitions up to which their distribution matters
LEAST_SHARE = 1e-4  # of the values: repetitions that are rarer do not count
# The share of an index's bytes from which on entries of one size decide how many fit on a page.
ALIKE = 0.97


class Values(NamedTuple):
    """Values that repeat alike: how many there are, how often each occurs, and how large one entry is."""

    number: float
    times: float
    size: float  # bytes of an entry of one row, without its line pointer
    fixed: bool  # all entries are of this size


class _Entries(NamedTuple):
    """Entries of one size as they lie on leaf pages."""

    number: float
    bytes: float  # with the line pointer
    key: float  # bytes without posting list and line pointer


class Tree(NamedTuple):
    block: int
    fillfactor: float
    shares: bool  # equal values share entries
    pivot: float  # bytes of an entry of an inner page, without its line pointer


def entry(columns: t.Sequence[Column]) -> tuple[float, bool]:
    """The bytes of an entry of one row on average, and whether all are of this size."""
    return _entry(tuple(columns))


@functools.lru_cache(maxsize=8192)  # indexes are often alike
def _entry(columns: tuple[Column, ...]) -> tuple[float, bool]:
    size, place = layout.walk(columns)
    size += layout.padding(place) + HEADER + NULLS * layout.some_null(columns)
    return size, layout.of_one_size(columns)


def pages(tree: Tree, values: t.Sequence[Values], *, scattered: bool) -> float:
    """Of the whole file. `scattered` values repeat by chance, others evenly: nobody knows which."""
    entries = [e for v in values for e in (_shared(tree, v, scattered) if tree.shares else _plain(v))]
    return _whole(tree, _leaves(tree, entries, all(v.fixed for v in values)))


def pages_apart(tree: Tree, rows: float, size: float, fixed: bool) -> float:
    """Of the whole file where every row has an entry of its own, of `size` bytes without its line pointer."""
    if rows <= 0:
        return 1.0
    return _whole(tree, math.ceil(rows * (size + ITEM) / _kept_apart(tree.block, tree.fillfactor, size, fixed)))


@functools.lru_cache(maxsize=8192)  # indexes are often alike
def _kept_apart(block: int, fillfactor: float, size: float, fixed: bool) -> float:
    return _kept(block, fillfactor, [_Entries(1.0, size + ITEM, size)], fixed)


def _whole(tree: Tree, leaves: float) -> float:
    """With the pages above the leaves, and the one that says where they begin."""
    total, level = 1.0 + leaves, leaves
    if level > 1:
        children = _children(tree.block, tree.pivot)
        while level > 1:
            level = math.ceil(level / children)
            total += level
    return total


def _plain(values: Values) -> list[_Entries]:
    return [_Entries(values.number * values.times, values.size + ITEM, values.size)]


def _shared(tree: Tree, values: Values, scattered: bool) -> t.Iterator[_Entries]:
    """Entries of values that repeat: full posting lists, and the rest of each value."""
    most = int((_longest(tree) - values.size) // TID)
    if most < 2 or values.times <= 1:
        yield from _plain(values)
        return
    for times, number in _repetitions(values, scattered):
        full, rest = divmod(times, most)
        if full:
            yield _posting(number * full, values.size, most)
        if rest:
            yield _posting(number, values.size, rest)


def _longest(tree: Tree) -> int:
    """The bytes of the largest entry with a posting list: a tenth of a page with its line pointer."""
    return (tree.block // 10 // WORD * WORD - ITEM) // WORD * WORD


def _posting(number: float, size: float, rows: int) -> _Entries:
    return _Entries(number, size + (aligned(TID * rows) if rows > 1 else 0) + ITEM, size)


def _repetitions(values: Values, scattered: bool) -> t.Iterator[tuple[int, float]]:
    """(how often a value occurs, number of such values)."""
    if scattered and values.times <= MOST_COUNTED:
        mean = _untruncated(values.times)
        share = mean / math.expm1(mean)
        times, left = 1, 1.0
        while left > LEAST_SHARE:
            yield times, values.number * share
            times, left = times + 1, left - share
            share *= mean / times
        return
    below = math.floor(values.times)
    above = values.times - below
    yield below, values.number * (1 - above)
    if above:
        yield below + 1, values.number * above


def _untruncated(times: float) -> float:
    """The mean of a Poisson distribution whose mean is `times` where it is not zero: by Newton, from above."""
    mean = max(1e-6, 2.0 * (times - 1.0))
    for _step in range(8):
        some = -math.expm1(-mean)  # the share of what is not zero
        mean = max(1e-6, mean - (mean / some - times) * some * some / (some - mean * math.exp(-mean)))
    return mean


def _leaves(tree: Tree, entries: t.Sequence[_Entries], fixed: bool) -> float:
    if sum(e.number for e in entries) <= 0:
        return 0.0
    size = sum(e.number * e.bytes for e in entries)
    return math.ceil(size / _kept(tree.block, tree.fillfactor, entries, fixed))


def _kept(block: int, fillfactor: float, entries: t.Sequence[_Entries], fixed: bool) -> float:
    """Bytes of entries on a leaf page.

    A page is full when what is over its fillfactor, posting list of its last entry left out, has been placed. Its last
    entry then moves on to the next page.
    """
    number = sum(e.number for e in entries)
    size = sum(e.number * e.bytes for e in entries)
    space = block - layout.PAGE_HEADER - SPECIAL - 2 * ITEM
    wanted = space - int(block * (100.0 - fillfactor) / 100.0)
    main = max(entries, key=lambda e: e.number * e.bytes)
    if fixed and main.number * main.bytes >= ALIKE * size:
        by_fill = math.floor((wanted - ITEM - main.key) / main.bytes) + 1
        by_space = math.floor((space - ITEM) / main.bytes) - 1
        return max(1, min(by_fill, by_space)) * main.bytes
    mean, square = size / number, sum(e.number * e.bytes * e.bytes for e in entries) / number
    over = square / mean / 2
    key = sum(e.number * e.key for e in entries) / number
    return max(mean, min(wanted - ITEM - key + over, space - ITEM - over - mean))


@functools.lru_cache(maxsize=8192)
def _children(block: int, pivot: float) -> float:
    space = block - layout.PAGE_HEADER - SPECIAL - 2 * ITEM
    wanted = space - int(block * (100.0 - INNER_FILL) / 100.0)
    one = pivot + ITEM
    return max(2.0, (wanted - one / 2) / one)
