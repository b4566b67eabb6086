# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The natural size of InnoDB's trees and files: how many pages they take after a rebuild. Pure.

The rules of extents are InnoDB's own (storage/innobase/fsp/fsp0fsp.cc). Given their leaves, rebuilt tables of 100 to
400,000 rows with none to four secondary indexes take as many pages as this says, on MySQL 9.7 and MariaDB 10.11.
"""

from __future__ import annotations

import math
import typing as t

from .rows import Layout

FEW_EXTENTS = 40  # a segment from this size on keeps four extents in reserve, on a server without a setting for that
SMALL_FILE = 32  # extents: a larger file grows by four of them at a time
RESERVE = 1 / 8
FANOUT = 900  # leaves below an inner node
FEW_PAGES = 4
HEADERS = 4  # pages of a file that belong to no tree
# MySQL's sorted index builds reserve extents before they use them, and the file keeps them.
BULK_HEADERS, BULK_EXTENTS = 6, 5
# A rebuild leaves a sixteenth of each clustered page free and packs the others full (innodb_fill_factor 100).
CLUSTERED_FILL, SECONDARY_FILL = 15 / 16, 1.0


def extent(layout: Layout) -> int:
    """Pages: a megabyte of them, and never fewer than 64."""
    return max(64, (1 << 20) // layout.page)


def rebuilt_bytes(rows: float, averages: t.Sequence[float], layout: Layout, *, files: int = 1, slack: int = 0) -> float:
    """Size of the files that these rows take after a rebuild: bytes of a row, pages beside it, bytes of each entry.

    `slack`: extents more, or fewer, in each file.
    """
    share = rows / files
    row, away, entries = averages[0], averages[1], averages[2:]
    leaves = share / per_page(row, layout, CLUSTERED_FILL)
    # Values on pages of their own may come without a reserve.
    least = slack < 0
    trees = [tree(leaves, layout) + math.ceil(share * away) if least else tree(leaves + share * away, layout)]
    trees += [index_pages(share, entry, layout) for entry in entries]
    return float(files * file_pages(trees, layout, slack) * layout.page)


def index_pages(rows: float, entry: float, layout: Layout) -> int:
    """Pages of a secondary index."""
    return tree(rows / per_page(entry, layout, SECONDARY_FILL), layout)


def per_page(entry: float, layout: Layout, fill: float) -> float:
    """Entries on a leaf. Of those that are long for a page, hardly any page is packed to its last byte."""
    if entry <= 0:
        return float(layout.usable)
    return max(1.0, layout.usable * fill / entry - (0.5 if entry > layout.usable / 20 else 0.0))


def tree(leaves: float, layout: Layout) -> int:
    """Pages of an index: its leaves with the extents in reserve for their growth, and its inner nodes."""
    if leaves <= 1:
        return 1
    nodes = 1 if leaves <= FANOUT else 1 + segment(leaves / FANOUT, layout)
    return segment(leaves, layout) + nodes


def segment(pages: float, layout: Layout) -> int:
    """The first half extent comes page by page; then an extent is added while less than the reserve is free."""
    used, whole = math.ceil(pages), extent(layout)
    single = whole // 2
    if used <= single:
        return used
    extents = math.ceil((used - single) / whole)
    share = RESERVE if layout.reserve is None else layout.reserve
    needed = math.ceil(((used - 1) / (1 - share) - single) / whole)
    if layout.reserve is None and extents + 4 >= FEW_EXTENTS:
        needed = min(needed, extents + 4)
    return single + whole * max(extents, needed)


def file_pages(trees: t.Sequence[int], layout: Layout, slack: int = 0) -> int:
    """Pages of a file that holds these trees: page by page up to an extent, then by one extent, then by four.

    Of a file that grows by pages, `slack` means a few of those.
    """
    bulk, whole = layout.reserve is not None, extent(layout)
    pages = sum(trees) + (BULK_HEADERS if bulk else HEADERS)
    if pages <= whole:
        return max(len(trees), pages + slack * FEW_PAGES)
    extents = max(1, math.ceil(pages / whole) + slack) + (BULK_EXTENTS if bulk else 0)
    if extents > SMALL_FILE:
        extents = 4 * math.ceil(extents / 4)
    return whole * extents
