# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a table a rebuild would give back: estimated, or measured by pgstattuple. No threshold."""

from __future__ import annotations

import typing as t

from ..._errors import Busy, Vanished
from ..._records import Bloat, Ref, Server, Wants
from ..._tuples import NamedTuple
from . import columns, layout, toast
from .catalog import Row
from .names import quoted, table_name
from .session import Session
from .toast import Toast

# Points of percent by which the estimate may be off, measured against VACUUM FULL: rows of one size, rows of many
# sizes, and on top as much as changed since the statistics were taken.
FIXED_ERROR, VARYING_ERROR, STALE_ERROR = 4.0, 7.0, 15.0
SMALL = 16  # pages: below, a page more or less is a large share

EXTENSION = """
SELECT n.nspname::pg_catalog.text
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
       AND d.deptype = 'e'
  JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgstattuple'
 WHERE p.proname = %s AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
"""
# A dead row also frees its line pointer and, on average, 3.5 bytes of padding.
APPROX = """
SELECT table_len, approx_tuple_count, dead_tuple_len + dead_tuple_count * 7.5, approx_free_space
  FROM {schema}.pgstattuple_approx(%s::pg_catalog.regclass)
"""
# It sees rows as they lie, line pointers of removed rows included, and free space in steps of 1/256 page.
MEASURED_ERROR = 4.0
DROPPED = """
SELECT DISTINCT a.attrelid FROM pg_catalog.pg_attribute a
 WHERE a.attisdropped AND a.attrelid = ANY (%s::pg_catalog.oid[])
"""


class Parts(NamedTuple):
    """A table's bloat: of its rows, and of their values that are stored out of line."""

    row: Row
    heap: Bloat
    toast: Toast | None = None
    outside: Bloat | None = None

    @property
    def bytes(self) -> int:
        return self.row.heap_bytes + (self.toast.bytes if self.toast else 0)

    @property
    def whole(self) -> Bloat:
        """Of both together: a rebuild rewrites both."""
        if not self.toast or not self.outside:
            return self.heap
        share = self.toast.bytes / self.bytes
        percent, low, high = (
            (1.0 - share) * mine + share * its for mine, its in zip(self.heap[1:4], self.outside[1:4])
        )
        return Bloat(
            self.heap.bytes + self.outside.bytes, percent, low, high, self.heap.method, outside=self.outside.bytes
        )


def estimates(session: Session, wants: Wants, server: Server, rows: t.Sequence[Row]) -> dict[int, Parts]:
    """By oid, for tables of `bloat_min_bytes` and more. No statistics: no estimate, rather than a guess."""
    chosen = {row.oid: row for row in rows if row.relkind in "rm" and row.total_bytes >= wants.bloat_min_bytes}
    if not chosen:
        return {}
    known = columns.of_tables(session, list(chosen))
    laid = {oid: [c.column for c in found] for oid, found in known.items()}
    block = int(server.settings["block_size"])
    whole = {oid: [c for c in found if c] for oid, found in laid.items() if None not in found}
    heaps = {oid: estimate(chosen[oid], several, block) for oid, several in whole.items() if several}
    made = {oid: Parts(chosen[oid], bloat) for oid, bloat in heaps.items() if bloat}
    for oid, row in chosen.items():
        if row.reltuples == 0 and not row.live:  # no statistics are kept of an empty table
            made.setdefault(oid, Parts(row, _bloat(row.heap_bytes, 100.0, 0.0, "estimate")))
    for oid, its in toast.read(session, [parts.row for parts in made.values()], block).items():
        row, several = chosen[oid], whole.get(oid)
        count = _rows(row, layout.shape(several)) if several else 0
        found = toast.estimate(its, count, known.get(oid, ()), block)
        made[oid] = made[oid]._replace(toast=its, outside=found)
    return {oid: parts for oid, parts in made.items() if parts.bytes}


def estimate(row: Row, of: t.Sequence[layout.Column], block: int) -> Bloat | None:
    """From the size of an average row and the number of live rows. Percentages are of the heap alone."""
    if not row.heap_bytes:
        return None
    one = layout.shape(of)
    rows = _rows(row, one)
    needed = layout.pages(rows, one, block=block, fillfactor=fillfactor(row)) * block
    percent = 100.0 * (row.heap_bytes - needed) / row.heap_bytes
    stale = min(1.0, row.changed / max(rows, 1))
    error = (FIXED_ERROR if one.fixed else VARYING_ERROR + 25.0 * one.bytes / block) + STALE_ERROR * stale
    error += 100.0 / max(row.heap_bytes / block, 1.0) if row.heap_bytes < SMALL * block else 0.0
    return _bloat(row.heap_bytes, percent, error, "estimate")


def _rows(row: Row, one: layout.Shape) -> int:
    """Live rows by the counters, unless the table could not hold so many.

    A session that loads and analyzes a table at once reports its changes a second later, and they count twice then.
    """
    fit = 1.15 * row.heap_bytes / one.bytes
    return int(row.reltuples) if row.reltuples >= 0 and row.live + row.dead > fit else row.live_rows


def fillfactor(row: Row) -> float:
    return row.option("fillfactor") or 100.0


def _bloat(heap_bytes: int, percent: float, error: float, method: str) -> Bloat:
    percent = _within(percent)
    return Bloat(int(heap_bytes * percent / 100), percent, _within(percent - error), _within(percent + error), method)


def _within(percent: float) -> float:
    return min(100.0, max(0.0, percent))


def exact(
    session: Session, wants: Wants, server: Server, rows: t.Mapping[Ref, Row], estimated: t.Mapping[int, Parts]
) -> dict[Ref, Bloat]:
    """What pgstattuple_approx reads of the tables in doubt, as long as the scan budget lasts; nothing without it."""
    doubtful = {ref: rows[ref] for ref in wants.exact if ref in rows and not rows[ref].closed}
    schema = extension(session, "pgstattuple_approx") if doubtful else None
    if not schema:
        return {}
    block = int(server.settings["block_size"])
    # A rebuild also gives back the columns that were dropped, which no page shows: there the estimate knows more.
    blind = {oid for (oid,) in session.rows(DROPPED, ([row.oid for row in doubtful.values()],))}
    unknown = toast.read(session, [row for row in doubtful.values() if row.oid not in estimated], block)
    nothing = _bloat(0, 0.0, 100.0, "")
    parts = {
        ref: estimated.get(row.oid) or Parts(row, nothing, unknown.get(row.oid), nothing)
        for ref, row in doubtful.items()
    }
    left, found = wants.scan_budget, {}
    for ref, several in sorted(parts.items(), key=lambda pair: pair[1].bytes):
        if left is not None and several.bytes > left:
            break
        if several.row.oid in blind or not several.bytes:
            continue
        left = None if left is None else left - several.bytes
        try:
            found[ref] = _seen(session, schema, ref, several, block).whole
        except (Busy, Vanished):
            continue  # somebody has locked or dropped it since: the estimate stands
    return found


def _seen(session: Session, schema: str, ref: Ref, parts: Parts, block: int) -> Parts:
    heap = _approx(session, schema, ref, parts.row, block)
    if not parts.toast or not parts.outside:
        return parts._replace(heap=agreed(heap, parts.heap))
    outside = toast.measured(session, schema, parts.toast, block)
    return parts._replace(heap=agreed(heap, parts.heap), outside=agreed(outside, parts.outside))


def extension(session: Session, function: str) -> str | None:
    """The schema of pgstattuple, where it is installed and the login may use this function of it."""
    schemas = session.rows(EXTENSION, (function,))
    return str(schemas[0][0]) if schemas else None


def _approx(session: Session, schema: str, ref: Ref, row: Row, block: int) -> Bloat:
    ((length, count, dead, free),) = session.rows(APPROX.format(schema=quoted(schema)), (table_name(ref),))
    kept = max(0.0, float(length) - float(free) - float(dead))
    needed = 0.0
    if count and kept:
        # Page headers are among what is kept: they count as part of the rows.
        row_bytes, usable = kept / float(count), block * fillfactor(row) / 100.0
        needed = block * float(count) / max(1.0, (usable - row_bytes / 2) / row_bytes)
    percent = 100.0 * (length - needed) / length if length else 0.0
    # Rows of one size leave more or less than half a row free on a page: the more, the larger they are.
    grain = 25.0 * kept / float(count) / block if count else 0.0
    return _bloat(int(length), percent, MEASURED_ERROR + grain, "pgstattuple_approx")


def agreed(seen: Bloat, estimated: Bloat | None) -> Bloat:
    """Where both intervals meet the truth is; where they do not, what was seen on the pages counts."""
    low, high = (max(seen.low, estimated.low), min(seen.high, estimated.high)) if estimated else (seen.low, seen.high)
    if low > high:
        return seen
    percent = min(max(seen.percent, low), high)
    known = seen if seen.percent or not estimated else estimated
    size = known.bytes / known.percent * percent if known.percent else 0
    return Bloat(int(size), percent, low, high, seen.method)
