# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much smaller a secondary index of InnoDB would be after a rebuild: its pages against its entries. No query.

The table's rows were looked at for the table's own bloat: its entries are as many, and as long as was seen.
"""

from __future__ import annotations

import math
import typing as t

from ..._records import Bloat, Ref, Server, Wants
from ..._structure import Index
from .bloat import MODEL_ERROR, Look
from .catalog import Contents, Stored
from .natural import index_pages

# Sizes come from InnoDB's statistics: where this share of the rows has changed since, they are of another time.
CHANGED = 0.1
# Entries that come in no order split pages in half: those are two thirds full on average; a rebuild fills 15 of 16.
# Measured with the free pages that segments keep: 28 to 36 percent less after a rebuild, and back after some weeks.
SETTLES = 40.0
GROWN = 0.75  # or where less than this share of the files was there then


def tables(indexes: t.Sequence[Index], wants: Wants) -> frozenset[Ref]:
    """Whose rows are to be looked at for their indexes' sake."""
    if not wants.index_bloat:
        return frozenset()
    return frozenset(i.table for i in indexes if _told(i) and i.bytes >= max(1, wants.index_bloat_min_bytes))


def added(
    indexes: t.Sequence[Index], looks: t.Mapping[Ref, Look], contents: Contents, server: Server
) -> tuple[Index, ...]:
    """The indexes with their bloat, where it can be told. That of the primary key is the table's own."""
    stored = {one.ref: one for one in contents.tables}
    default = server.settings.get("innodb_stats_auto_recalc")
    return tuple(
        index._replace(settles=SETTLES, bloat=_bloat(index, looks[index.table], stored[index.table], default))
        if _told(index) and index.table in looks and index.table in stored
        else index
        for index in indexes
    )


def _told(index: Index) -> bool:
    return index.method == "btree" and not index.primary and index.bytes > 0


def _bloat(index: Index, look: Look, stored: Stored, default: t.Any) -> Bloat | None:
    entry = look.entry(index.ref.path[-1])
    page = min((p.page_bytes for p in stored.pieces), default=0)
    if entry is None or page != look.shape.layout.page:
        return None  # nobody knows how far the pages of a compressed table compress
    pieces = max(1, len(stored.pieces))
    error = math.hypot(MODEL_ERROR, 2 * look.error)

    def share(rows: float, factor: float) -> float:
        natural = pieces * index_pages(rows / pieces, entry * factor, look.shape.layout) * page
        return 100 * min(1.0, max(0.0, 1 - natural / index.bytes))

    percent, method = share(look.rows.likely, 1.0), f"sample of {look.seen:,} rows"
    low, high = share(look.rows.high, 1 + error), share(look.rows.low, 1 - error)
    if _outdated(stored, stored.base.recalculated(default)):
        # Bytes that a delete has freed since are gone from the index already, and those of inserts are not yet seen.
        low, method = 0.0, f"{method}, against a size of before the last changes"
    return Bloat(int(index.bytes * percent / 100), percent, low, max(percent, high), method)


def _outdated(stored: Stored, recalculated: bool) -> bool:
    """Whether the statistics are of another time.

    Changes since are counted of a table that is open, and MySQL shows no counts of partitions. Else the server makes
    new statistics by itself after changes of a tenth, or the file's size tells.
    """
    rows = max(stored.rows, sum(s.rows for s in stored.statistics))
    pages = sum(s.clustered_pages + s.other_pages for s in stored.statistics)
    told = pages * min((p.page_bytes for p in stored.pieces), default=0)
    if not stored.statistics or told > stored.total_bytes:
        return True
    if all(p.known for p in stored.pieces):
        return sum(p.modified for p in stored.pieces) > CHANGED * rows
    return not recalculated and told < GROWN * stored.total_bytes
