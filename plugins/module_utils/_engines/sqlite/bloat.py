# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a file and of its tables a rebuild would give back: pure numbers from dbstat or the freelist.

VACUUM writes every b-tree anew, in order, page after page full. What it frees is therefore not what is free now: a page
keeps a rest into which the next cell does not fit. Cells whose sizes have the mean m and the variance s² leave a mean
rest of (m² + s²) / 2m bytes (renewal theory: the age at a fixed point), equal cells leave the page modulo m. Between
the two lies the sum over n of P(n cells fit), with a normal distribution for the length of n cells; for few and unequal
cells a page the filling is played through. Rows of 2,500 bytes on 4,096-byte pages are thereby no bloat, though dbstat
calls 38 % of their pages unused.

dbstat does not tell the sizes of single cells. Their variance follows from how the means of neighbouring pages differ
(Wald: the sum of n cells strays by n s²), and from how those means drift along the tree.
"""

from __future__ import annotations

import math
import sqlite3
import typing as t

from ..._records import Bloat
from ..._tuples import NamedTuple
from .catalog import Header

_PLAYED = 4000  # cells; repeated with the same dice
# One pass in the order in which dbstat walks, so nothing is sorted. `used`: cells with headers and pointers;
# `stray`: how far a page's cells are from the mean of this page and the one before it.
_TREES = """
SELECT name, sum(pgsize),
       count(*) FILTER (WHERE leaf), count(*) FILTER (WHERE inner), count(*) FILTER (WHERE NOT leaf AND NOT inner),
       total(ncell) FILTER (WHERE leaf), total(ncell) FILTER (WHERE inner),
       total(used) FILTER (WHERE leaf), total(1.0 * used * used / ncell) FILTER (WHERE leaf AND ncell > 0),
       total(2.0 * stray * stray) FILTER (WHERE leaf), max(mx_payload),
       total(used) FILTER (WHERE inner), total(payload) FILTER (WHERE inner) > 0
  FROM (
    SELECT *, used - ncell * 1.0 * (used + lag(used, 1, 0) OVER before) / max(ncell + lag(ncell, 1, 0) OVER before, 1)
                AS stray
      FROM (
        SELECT name, path, pgsize, ncell, payload, mx_payload,
               pagetype = 'leaf' AS leaf, pagetype = 'internal' AS inner,
               pgsize - unused - CASE pagetype WHEN 'leaf' THEN 8 ELSE 12 END AS used
          FROM main.dbstat {where}
      )
    WINDOW before AS (PARTITION BY name, leaf ORDER BY path)
  )
 GROUP BY name
"""


class Tree(NamedTuple):
    """One b-tree: a table's or an index's."""

    name: str
    bytes: int
    leaves: int
    inner: int
    overflow: int
    cells: float  # on leaves
    inner_cells: float
    used: float  # bytes of cells on leaves
    squares: float  # sum over leaves of used² / cells
    stray: float  # sum over leaves of what neighbouring pages differ by, see above
    largest: int  # payload of the largest cell
    inner_used: float
    keyed: bool  # inner pages hold entries, too: an index, or a table WITHOUT ROWID

    @property
    def entries(self) -> int:
        return int(self.cells + (self.inner_cells if self.keyed else 0))

    @property
    def pages(self) -> int:
        return self.leaves + self.inner + self.overflow


def has_dbstat(db: sqlite3.Connection) -> bool:
    """Whether this SQLite was built with SQLITE_ENABLE_DBSTAT_VTAB, and no table hides it."""
    if db.execute("SELECT 1 FROM main.sqlite_schema WHERE lower(name) = 'dbstat'").fetchone():
        return False
    try:
        db.execute("SELECT 1 FROM main.dbstat LIMIT 0")
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return False
    return True


def trees(db: sqlite3.Connection, names: t.Sequence[str] | None = None) -> dict[str, Tree]:
    """Reads every page of the file, or of these trees alone."""
    if names is None:
        return {row[0]: Tree(*row) for row in db.execute(_TREES.format(where=""))}
    one = _TREES.format(where="WHERE name = ?")
    return {row[0]: Tree(*row) for name in names for row in db.execute(one, (name,))}


class Rebuilt(NamedTuple):
    """Pages after a rebuild: expected, at least, at most."""

    pages: float
    least: float
    most: float


def rebuilt(tree: Tree, page_size: int, *, play: bool = False) -> Rebuilt:
    """`play`: play few and unequal cells through, a matter of milliseconds."""
    if not tree.cells or not tree.leaves:
        return Rebuilt(tree.pages, tree.pages, tree.pages)
    room, mean = page_size - 8.0, tree.used / tree.cells
    spread = _spread(tree, mean)
    if play and room < 8 * mean and spread > 0.01 * mean:
        fits = played(room, mean, spread, min(room, tree.largest + 7.0))
        doubt = 0.06 * fits  # measured against VACUUM: off by 4 % at most
    else:
        fits = capacity(room, mean, spread)
        doubt = min(0.5, spread / mean) + 0.005 * fits  # the mean rest is certain for equal cells
    counts = [_pages(tree, room, mean, f) for f in (fits, fits + doubt, max(1.0, fits - doubt))]
    return Rebuilt(*(tree.overflow + c for c in counts))


def _spread(tree: Tree, mean: float) -> float:
    """The standard deviation of the cells' sizes: from cell to cell, and along the tree."""
    near = tree.stray / tree.cells
    drift = tree.squares / tree.cells - mean * mean - near * tree.leaves / tree.cells
    return math.sqrt(max(0.0, near) + max(0.0, drift)) if tree.leaves > 1 else 0.0


def played(room: float, mean: float, spread: float, largest: float) -> float:
    """Cells a page, by filling pages with sizes of this mean and deviation, up to the largest.

    The sizes lie as far below the mean as above it, where so narrow a range has room for the deviation.
    """
    import random

    least = max(0.0, 2 * mean - largest)
    if spread > 0.8 * (largest - mean):
        least = 0.0
    extent = max(largest - least, 1.0)
    part = min(0.999, (mean - least) / extent)
    weight = max(0.05, part * (1 - part) / (spread / extent) ** 2 - 1)
    dice, pages, filled = random.Random(1), 1, 0.0
    for _cell in range(_PLAYED):
        size = least + extent * dice.betavariate(part * weight, (1 - part) * weight)
        filled += size
        if filled > room:
            pages, filled = pages + 1, size
    return max(1.0, _PLAYED / pages)


def capacity(room: float, mean: float, spread: float) -> float:
    """Cells of this size that a page takes on average when pages are filled one after the other."""
    if spread < 1e-9 * mean:
        return max(1.0, math.floor(room / mean + 1e-9))
    total, n = 0.0, 1
    while True:
        fits = 0.5 * math.erfc((n * mean - room) / (spread * math.sqrt(2.0 * n)))
        total += fits
        if n * mean > room and fits < 1e-6:
            break
        n += 1
    # A cell that did not fit opens the next page, and large cells do that more often than small ones.
    return max(1.0, total - (spread / mean) ** 2)


def _pages(tree: Tree, room: float, mean: float, fits: float) -> float:
    """Leaves, and the levels above them."""
    leaves = (tree.entries + 1) / (fits + 1) if tree.keyed else tree.cells / fits
    pages = level = max(1.0, math.ceil(leaves))
    inner = tree.inner_used / tree.inner_cells if tree.inner_cells else (mean + 4 if tree.keyed else 9.0)
    fan = max(1.0, math.floor((room - 4) / inner)) + 1
    while level > 1:
        level = math.ceil(level / fan)
        pages += level
    return pages


def of_tree(tree: Tree, page_size: int) -> Bloat:
    """Of one table or index: what its part of a rebuilt file would take less."""
    return _bloat(tree.pages, rebuilt(tree, page_size), page_size)


def of_file(found: t.Iterable[Tree], head: Header) -> Bloat:
    """Of the whole file, the pages on the freelist included. Only trees that weigh are worth playing through."""
    parts = [rebuilt(tree, head.page_size, play=50 * tree.pages > head.pages) for tree in found]
    sums = [sum(column) for column in zip(*parts)] or [0.0] * 3
    if head.auto_vacuum:  # a map of pointers for each so many pages
        sums = [s + math.ceil(s / (head.page_size // 5 + 1)) for s in sums]
    return _bloat(head.pages, Rebuilt(*sums), head.page_size)


def _bloat(pages: int, after: Rebuilt, page_size: int) -> Bloat:
    percents = [max(0.0, min(100.0, 100.0 * (1 - x / max(pages, 1)))) for x in after]
    size = max(0, int((pages - after.pages) * page_size))
    return Bloat(size, percents[0], percents[2], percents[1], "dbstat")


def by_freelist(head: Header) -> Bloat:
    """Where dbstat is not there, or too much would be read: free pages are certain, the rest is an honest doubt.

    SQLite merges neighbours when a page is more than two thirds empty (balance() in btree.c): that bounds the rest.
    """
    share = 100.0 * head.free / max(head.pages, 1)
    return Bloat(head.free * head.page_size, share, share, share + (100.0 - share) * 2 / 3, "freelist")
