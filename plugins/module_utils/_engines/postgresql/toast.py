# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a TOAST table a rebuild would give back, by its chunks or by pgstattuple. The table's rows: bloat.py.

A value is cut into chunks that fill a quarter of a page, but for its last one. A rebuild writes the chunks one after
the other and looks for no room on earlier pages, so a page of it never holds fewer than four.
Source: TOAST_MAX_CHUNK_SIZE in heaptoast.h, raw_heap_insert() in rewriteheap.c.
"""

from __future__ import annotations

import typing as t

from ..._errors import Busy
from ..._records import Bloat
from ..._tuples import NamedTuple
from . import layout
from .catalog import Row
from .columns import Known
from .names import quoted
from .session import Session

# A size function would wait for whoever holds the table exclusively: there it is taken from the last vacuum.
TABLES = """
SELECT c.oid, t.oid,
       CASE WHEN c.oid = ANY (%(closed)s::pg_catalog.oid[]) THEN t.relpages::pg_catalog.int8 * %(block)s
            ELSE pg_catalog.pg_relation_size(t.oid) END,
       t.reltuples::pg_catalog.float8, t.relpages,
       pg_catalog.pg_stat_get_live_tuples(t.oid), pg_catalog.pg_stat_get_dead_tuples(t.oid),
       pg_catalog.pg_stat_get_ins_since_vacuum(t.oid)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
 WHERE c.oid = ANY (%(oids)s::pg_catalog.oid[])
"""
MEASURED = """
SELECT table_len, approx_tuple_count, dead_tuple_len + dead_tuple_count * 4, approx_free_space
  FROM {schema}.pgstattuple_approx(%s::pg_catalog.oid::pg_catalog.regclass)
"""
PAGES = 10  # of maps, and of an index without entries: where there are no more, nothing is stored out of line
CHUNKS = 4  # a page
POINTER = 18  # bytes that a value stored out of line leaves in its row
# Of a page, what the shorter last chunk of a value saves: measured from 0 (5 kB, 100 kB) to a sixth (2.1 kB).
SAVED = 1 / 24
# Where between the bytes alone and four chunks a page a rebuild ends up: measured from 0.63 to 1.0.
PACKED = 0.85
MEASURED_ERROR = 1.0  # points: free space is known in steps of 1/256 page


class Toast(NamedTuple):
    """One row of TABLES."""

    table: int  # the oid of the table whose values these are
    oid: int
    bytes: int
    reltuples: float
    relpages: int
    live: int  # chunks, by the counters
    dead: int
    added: int  # chunks, since the last vacuum

    @property
    def chunks(self) -> float | None:
        """Live ones by the counters, unless a crash, a reset or what came just before the vacuum made them wrong.

        A session reports its changes up to a second later: what a vacuum has removed meanwhile counts as deleted again,
        and more is dead then than there can be. ANALYZE never looks here. None: nobody has counted, nor has it ever
        been vacuumed.
        """
        if self.live + self.dead == 0 and self.relpages == 0:
            return None
        if 2 * (self.live + self.dead) < self.reltuples:
            return max(self.reltuples, float(self.live))
        most = max(self.reltuples, 0.0) + self.added
        if self.dead > most:
            return most if self.reltuples >= 0 else None
        return float(self.live)


def read(session: Session, rows: t.Iterable[Row], block: int) -> dict[int, Toast]:
    """By oid of the table; where there is any."""
    chosen = [row for row in rows if row.table_bytes - row.heap_bytes > PAGES * block]
    if not chosen:
        return {}
    values = {"oids": [row.oid for row in chosen], "closed": [row.oid for row in chosen if row.closed], "block": block}
    try:
        found = session.rows(TABLES, values)
    except Busy:  # locked since the tables were looked at
        found = session.rows(TABLES, {**values, "closed": values["oids"]})
    return {row[0]: Toast(*row) for row in found if row[2]}


def estimate(toast: Toast, rows: float, columns: t.Sequence[Known], block: int) -> Bloat:
    """From the number of chunks; the interval holds all that the lengths of the values can make of it.

    `rows` are those of the table. Where nobody has counted chunks the interval is everything.
    """
    chunks, pages = toast.chunks, toast.bytes / block
    if chunks is None:
        return Bloat(0, 0.0, 0.0, 100.0, "estimate")
    # More chunks than fit by fours: many are short. Inserts fill gaps on earlier pages with those, a rebuild does not.
    close = max(1.0 * CHUNKS, (toast.live + toast.dead) / pages * (CHUNKS - 1) / CHUNKS)
    values = min(chunks, rows * sum(outside(column) for column in columns))
    most = min(pages, chunks / close)
    least = (chunks - values) / CHUNKS
    likely = min(most, max(least, chunks / CHUNKS - SAVED * values))
    if any(c.dropped and c.length == -1 for c in columns):
        least = 0.0  # a rebuild leaves the values of dropped columns out
    percent, low, high = (_share(needed, pages) for needed in (likely, most + 1, least))
    return Bloat(int(toast.bytes * percent / 100), percent, low, high, "estimate")


def outside(column: Known) -> float:
    """The share of rows in which it may be stored out of line, at most: those wide values are in no sample."""
    if column.dropped or column.length != -1 or column.width is None:
        return 0.0
    nulls = float(column.nulls or 0.0)
    sizes = column.sizes(nulls)
    if not sizes:
        return 1.0 - nulls
    mean = sum(size * weight for size, weight in sizes) / sum(weight for _size, weight in sizes)
    # The mean width is one of pointers and of such values as were sampled; it is cut down to a whole number.
    share = (abs(mean - column.width) + 1.0) / max(1.0, abs(mean - POINTER))
    return (1.0 - nulls) * min(1.0, share)


def measured(session: Session, schema: str, toast: Toast, block: int) -> Bloat:
    """What pgstattuple_approx reads. By oid: the login need not be allowed to name what is in pg_toast."""
    ((length, count, dead, free),) = session.rows(MEASURED.format(schema=quoted(schema)), (toast.oid,))
    pages, chunks = float(length) / block, float(count)
    if not pages:
        return Bloat(0, 0.0, 0.0, 0.0, "pgstattuple_approx")
    usable = block - layout.PAGE_HEADER
    kept = max(0.0, float(length) - float(dead) - float(free) - layout.PAGE_HEADER * pages)
    # A page is left when the next chunk does not fit: less than a chunk stays free.
    least, most = kept / usable, min(chunks / CHUNKS, kept / (usable - block / CHUNKS))
    likely = least + PACKED * max(0.0, most - least)
    percent, low, high = (_share(needed, pages) for needed in (likely, max(least, most) + 1, least))
    low, high = max(0.0, low - MEASURED_ERROR), min(100.0, high + MEASURED_ERROR)
    return Bloat(int(float(length) * percent / 100), percent, low, high, "pgstattuple_approx")


def _share(needed: float, pages: float) -> float:
    """Of the pages those that are not needed, in percent."""
    return 100.0 * min(1.0, max(0.0, 1.0 - needed / pages))
