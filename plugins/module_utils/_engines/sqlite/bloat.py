# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a file and of its tables a rebuild would give back: pure numbers from dbstat or the freelist.

VACUUM writes every b-tree anew, in order, page after page full. What it frees is therefore not what is free now: a page
keeps a rest into which the next cell does not fit. Cells whose sizes have the mean m and the variance s² leave a mean
rest of (m² + s²) / 2m bytes (renewal theory: the age at a fixed point), equal cells leave the page modulo m. Between
the two lies the sum over n of P(n cells fit), with a normal distribution for the length of n cells. Rows of 2,500 bytes
on 4,096-byte pages are thereby no bloat, though dbstat calls 38 % of their pages unused.
"""

from __future__ import annotations

import math
import sqlite3
import typing as t

from ..._records import Bloat
from .catalog import Header

# One pass in the order in which dbstat walks: no sorter. Used bytes: cells with their headers and pointers.
_TREES = """
SELECT name,
       sum(pgsize),
       count(*) FILTER (WHERE pagetype = 'leaf'),
       count(*) FILTER (WHERE pagetype = 'internal'),
       count(*) FILTER (WHERE pagetype = 'overflow'),
       total(ncell) FILTER (WHERE pagetype = 'leaf'),
       total(ncell) FILTER (WHERE pagetype = 'internal'),
       total(pgsize - unused - 8) FILTER (WHERE pagetype = 'leaf'),
       total((pgsize - unused - 8.0) * (pgsize - unused - 8) / ncell) FILTER (WHERE pagetype = 'leaf' AND ncell > 0),
       total(pgsize - unused - 12) FILTER (WHERE pagetype = 'internal'),
       total(payload) FILTER (WHERE pagetype = 'internal') > 0
  FROM main.dbstat {where} GROUP BY name
"""


class Tree(t.NamedTuple):
    """One b-tree: a table's or an index's."""

    name: str
    bytes: int
    leaves: int
    inner: int
    overflow: int
    cells: float  # on leaves
    inner_cells: float
    used: float  # bytes of cells on leaves
    squares: float  # sum over leaves of used² / cells: the spread of the cells' sizes
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


class Rebuilt(t.NamedTuple):
    """Pages after a rebuild: expected, at least, at most."""

    pages: float
    least: float
    most: float


def rebuilt(tree: Tree, page_size: int) -> Rebuilt:
    if not tree.cells or not tree.leaves:
        return Rebuilt(tree.pages, tree.pages, tree.pages)
    room, mean = page_size - 8.0, tree.used / tree.cells
    spread = 0.0
    if tree.leaves > 1:
        spread = math.sqrt(max(0.0, tree.squares - tree.cells * mean * mean) / (tree.leaves - 1))
    fits = capacity(room, mean, spread)
    # How far off the mean rest may be: nothing for equal cells, up to half a cell a page.
    doubt = min(0.5, spread / mean) + 0.01
    counts = [_pages(tree, room, mean, f) for f in (fits, fits + doubt, max(1.0, fits - doubt))]
    return Rebuilt(*(tree.overflow + c for c in counts))


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
    """Of the whole file, the pages on the freelist included."""
    parts = [rebuilt(tree, head.page_size) for tree in found]
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
