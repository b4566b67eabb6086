# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a b-tree a REINDEX would give back, by the catalogs alone. Its format stands in btree.py. No threshold.

Other access methods have no estimate: how full a fresh one is depends on its data, and a wrong figure is worse.
"""

from __future__ import annotations

import math
import typing as t

from ..._errors import Busy, Vanished
from ..._records import Bloat, Ref, Server, Wants
from ..._tuples import NamedTuple
from . import bloat as heap
from . import btree, columns, layout, repeated
from .columns import Known
from .indexes import Row
from .names import quoted, table_name
from .session import Session

# Points of percent by which the model may be off where all is known: entries of one size, entries of many sizes, and on
# top where values share entries, where statistics are old, and where only a part of the rows is in the index.
FIXED_ERROR, VARYING_ERROR, SHARED_ERROR, STALE_ERROR, PARTIAL_ERROR = 2.0, 4.0, 1.5, 15.0, 2.0
SMALL = 32  # pages: below, a page more or less is a large share
# Rows of the sample that ANALYZE takes (300 for each of default_statistics_target). Of what it did not meet there are,
# 19 times of 20, fewer than three in that many rows: the "rule of three" of statistics.
SAMPLE, UNSEEN = 30000, 3.0
WIDEST = 3  # entries of a b-tree fit on a page at least

SEEN_ERROR = 3.0  # of pgstatindex: fresh pages of wide entries are not full
PGSTATINDEX = """
SELECT leaf_pages, internal_pages, avg_leaf_density FROM {schema}.pgstatindex(%s::pg_catalog.regclass)
"""


class Seen(NamedTuple):
    """What pgstatindex counts of one index: pages that are neither deleted nor empty, and how full leaf pages are."""

    leaves: int
    inner: int
    density: float  # percent


def estimates(session: Session, wants: Wants, server: Server, rows: t.Sequence[Row]) -> dict[int, Bloat]:
    """By oid, for b-trees of `index_bloat_min_bytes` and more whose columns have statistics."""
    chosen = [r for r in rows if r.method == "btree" and r.relkind == "i" and r.valid]
    chosen = [r for r in chosen if r.bytes >= max(1, wants.index_bloat_min_bytes)]
    if not chosen:
        return {}
    known = columns.of_indexes(session, [r.oid for r in chosen], server.number)
    several = {r.table_oid for r in chosen if r.keys > 1 and not r.unique}
    counted = columns.combinations(session, server.number[0], sorted(several)) if several else {}
    block = int(server.settings["block_size"])
    unique: dict[int, list[frozenset[int]]] = {}
    repeating = {r.table_oid for r in chosen if not r.unique}
    for row in rows:
        if row.unique and row.table_oid in repeating and not row.where and 0 not in row.columns:
            unique.setdefault(row.table_oid, []).append(frozenset(row.columns[: row.keys]))
    found = {}
    for r in chosen:
        together = counted[r.table_oid].get(frozenset(r.columns)) if r.table_oid in counted else None
        bloat = estimate(r, known.get(r.oid, ()), unique.get(r.table_oid, ()), block, together)
        if bloat:
            found[r.oid] = bloat
    return found


def estimate(
    row: Row, known: t.Sequence[Known], unique: t.Sequence[frozenset[int]], block: int, together: float | None = None
) -> Bloat | None:
    """Percentages are of the whole file. None where a column has no statistics.

    `together` is how many combinations of its columns the server has counted; without that columns are taken for
    independent of each other, and the interval holds what follows when they are not.
    """
    if row.bytes and row.table_reltuples == 0 and not row.live:  # no statistics are kept of an empty table
        return _bloat(row, block, (1.0,), (), error=0.0)
    if row.where and row.reltuples == 0 and row.table_reltuples > 0:  # nor of expressions without a row
        entered = UNSEEN * row.table_reltuples / SAMPLE + row.changed
        return _bloat(row, block, (1.0,), (1.0 + math.ceil(entered / WIDEST),), error=PARTIAL_ERROR)
    laid = [k.column for k in known]
    whole = [c for c in laid if c]
    if not whole or len(whole) < len(laid) or not row.bytes:
        return None
    rows, one = entries(row), btree.entry(whole)
    shares = shares_entries(row, known) and not any(key <= set(row.columns) for key in unique)
    tree = btree.Tree(block, row.option("fillfactor") or 90.0, shares, _pivot(row, whole, known, shares))
    if shares and rows:
        values = repeated.values(row, known, whole, rows, together)
        few, many = repeated.doubt(row, known, rows, values, together)
        middle = [btree.pages(tree, values, scattered=scattered) for scattered in (False, True)]
        ends = [btree.pages(tree, other, scattered=True) for other in (few, many) if other is not values]
        ends += [btree.pages_apart(tree, rows, *one)] if any(k.unsure for k in known) else []
    else:
        middle, ends = [btree.pages_apart(tree, rows, *one)], []
    error = _error(row, *one, block) + (SHARED_ERROR if shares else 0.0)
    return _bloat(row, block, middle, ends, error=error)


def _bloat(row: Row, block: int, middle: t.Sequence[float], ends: t.Sequence[float], *, error: float) -> Bloat:
    """Of the pages that are likely, on average, and that may be at most; the error is in points of percent."""
    percent = _given_back(row.bytes, block, sum(middle) / len(middle), 0.0)
    low = _given_back(row.bytes, block, max((*middle, *ends)), -error)
    high = _given_back(row.bytes, block, min((*middle, *ends)), error)
    return Bloat(int(row.bytes * percent / 100), percent, low, high, "estimate")


def _given_back(size: int, block: int, pages: float, off: float) -> float:
    percent = 100.0 * (1.0 - pages * block / size) + off
    return 100.0 if percent > 100.0 else max(0.0, percent)


def entries(row: Row) -> float:
    """Rows in the index: those of the table, of a partial index as many as it had when it was last looked at."""
    if row.where:
        return max(0.0, row.reltuples)
    # Counters of a session that loads and analyzes at once count twice; those lost in a crash, or reset, too little.
    live = float(row.live)
    if row.table_reltuples < 0:
        return live
    if 2 * (row.live + row.dead) < row.table_reltuples:
        return max(row.table_reltuples, live)
    return live


def shares_entries(row: Row, known: t.Sequence[Known]) -> bool:
    """Whether equal values share entries when it is built anew."""
    off = any(o.replace(" ", "") in ("deduplicate_items=off", "deduplicate_items=false") for o in row.options or ())
    return not row.unique and not off and row.keys == len(known) and all(k.same_image for k in known)


def _pivot(row: Row, laid: t.Sequence[layout.Column], known: t.Sequence[Known], shares: bool) -> float:
    """An inner page's entry keeps as many columns of the key as tell two pages apart, else a row's place, too."""
    pages, combinations = max(1, row.relpages), 1.0
    for number in range(1, row.keys + 1):
        combinations *= repeated.number(known[number - 1], max(1.0, row.table_reltuples))
        if combinations > 20 * pages:
            return btree.entry(laid[:number])[0]
    return btree.entry(laid[: row.keys])[0] + (0.0 if row.unique else float(layout.WORD))


def _error(row: Row, size: float, fixed: bool, block: int) -> float:
    error = FIXED_ERROR if fixed else VARYING_ERROR + 25.0 * size / block
    error += PARTIAL_ERROR if row.where else 0.0
    error += STALE_ERROR * min(1.0, row.changed / max(row.table_reltuples, 1.0))
    return error + (200.0 * block / row.bytes if row.bytes < SMALL * block else 0.0)


# ---- the second look -------------------------------------------------------------------------------------------------


def exact(
    session: Session, wants: Wants, rows: t.Sequence[Row], estimated: t.Mapping[int, Bloat], block: int
) -> dict[int, Bloat]:
    """What pgstatindex reads of the b-trees in doubt, as long as the scan budget lasts; nothing without it."""
    asked = {ref.path for ref in wants.exact}
    doubtful = [r for r in rows if (r.schema, r.name) in asked and r.method == "btree" and r.relkind == "i"]
    doubtful = [r for r in doubtful if r.bytes and r.valid and not r.closed and r.persistence != "t"]
    schema = heap.extension(session, "pgstatindex") if doubtful else None
    left, found = wants.scan_budget, {}
    for row in sorted(doubtful, key=lambda r: r.bytes) if schema else ():
        if left is not None:
            left -= row.bytes
            if left < 0:
                break
        ref = Ref(session.database, (row.schema, row.name))
        try:
            (seen,) = session.rows(PGSTATINDEX.format(schema=quoted(schema or "")), (table_name(ref),))
        except (Busy, Vanished):
            continue  # somebody has locked or dropped it since: the estimate stands
        found[row.oid] = _agreed(_seen(row, Seen(*seen), block), estimated.get(row.oid), row)
    return found


def _seen(row: Row, seen: Seen, block: int) -> Bloat:
    """Pages that are deleted or empty come back whole; of the others what is free over a fresh page's free space."""
    density = 0.0 if math.isnan(seen.density) else seen.density
    fill = row.option("fillfactor") or 90.0
    leaves = math.ceil(seen.leaves * density / fill)
    needed = 1 + leaves + math.ceil(seen.inner * leaves / max(seen.leaves, 1)) if leaves else 1
    percent = max(0.0, 100.0 * (1.0 - needed * block / row.bytes))
    low, high = max(0.0, percent - SEEN_ERROR), min(100.0, percent + SEEN_ERROR)
    return Bloat(int(row.bytes * percent / 100), percent, low, high, "pgstatindex")


def _agreed(seen: Bloat, estimated: Bloat | None, row: Row) -> Bloat:
    """Where both intervals meet the truth is.

    No page shows which equal values would come to share entries: where they may, it can be more than is seen.
    """
    if estimated and not row.unique:
        seen = seen._replace(high=max(seen.high, estimated.high))
    return heap.agreed(seen, estimated)
