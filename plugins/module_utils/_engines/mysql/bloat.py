# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a table's files a rebuild would give back: live rows by sample, packed as a rebuild packs them.

No threshold. DATA_FREE, which knows wholly free extents only, does not see rows deleted here and there.
"""

from __future__ import annotations

import math
import re
import typing as t

from ..._errors import Busy, DbFault, Refused
from ..._records import Bloat, Finding, Ref, Server, Wants
from . import sampling
from .capabilities import Flavour
from .catalog import Contents, Stored
from .names import quoted, table_of
from .rows import Column, Layout, column, row_sql

COLUMNS = """
    SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION,
           CHARACTER_OCTET_LENGTH, CHARACTER_MAXIMUM_LENGTH, IS_NULLABLE, EXTRA,
           TABLE_NAME
      FROM information_schema.COLUMNS
     WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN ({})
     ORDER BY ORDINAL_POSITION"""
KEYS = """
    SELECT INDEX_NAME, COLUMN_NAME, SUB_PART, INDEX_TYPE, TABLE_NAME
      FROM information_schema.STATISTICS
     WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN ({})
     ORDER BY INDEX_NAME, SEQ_IN_INDEX"""
PURGE = re.compile(r"undo n:o < (\d+) state: .*?\nHistory list length (\d+)", re.DOTALL)

LEAST_BYTES = 1 << 20  # a smaller file grows by single pages: there is nothing to give back
RANGES, CLOSER_RANGES = 64, 512
FEW_ROWS = 50  # fewer say nothing: the keys lie in a small part of their range
BYTES_EACH = 64 << 10  # of rows in one range, so a first look reads about 4 MB of a table, a closer one 32 MB
COUNT_BUDGET = 256 << 20  # bytes of an index that a closer look may count through where nobody said a budget

# Of a natural size: how far rebuilt tables of many shapes lay from this model (tests/integration holds them to it).
MODEL_ERROR = 0.03
# Standard error of the rows in InnoDB's own statistics, which come from 20 pages an index.
STATISTICS_ERROR = 0.07
KEYLESS_ERROR = 0.05  # of a row's average where only the table's beginning could be looked at
COUNTED_ERROR = 0.01
# Purge is behind when it is in the middle of a huge transaction, or this many transactions wait for it.
PURGE_ROWS, PURGE_TRANSACTIONS = 1000, 100_000
MOST_SECONDS = 3.0  # of one query: where purge is behind, even the smallest key is a long search
EXTENT = 64  # pages


class Key(t.NamedTuple):
    """An index: columns with the length of their prefix, if any."""

    name: str
    kind: str
    columns: tuple[tuple[str, int | None], ...]


class Shape(t.NamedTuple):
    """A table's columns and indexes, and the pages they lie in."""

    columns: tuple[Column, ...]
    primary: Key | None
    others: tuple[Key, ...]
    layout: Layout
    key_type: str  # of the only column of the primary key, else of its first: integer, text, or empty

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)


def estimates(link: t.Any, wants: Wants, contents: Contents, server: Server) -> tuple[dict[Ref, Bloat], list[Finding]]:
    """Bloat of the tables and partitions that are large enough, and what keeps the estimates from being true."""
    found: dict[Ref, Bloat] = {}
    if not wants.bloat and not wants.exact:
        return found, []
    least = max(LEAST_BYTES, wants.bloat_min_bytes)
    large = [s for s in (*contents.tables, *contents.partitions) if s.total_bytes >= least]
    if not large:
        return found, []
    behind = purge_pending(link)
    findings = [Finding(3, "purge_pending", Ref(link.database), behind)] if behind else []
    shapes = read_shapes(link, large, server)
    with link.at_most(MOST_SECONDS):
        for stored in large:
            try:
                estimate = _one(link, stored, shapes.get(stored.ref.path[0]), wants)
            except (Busy, Refused) as fault:
                # Locked, gone meanwhile, over the time, or not for this login to read: the others are measured still.
                message = f"its bloat is not known, its rows could not be sampled: {fault.cause}"
                findings.append(Finding(3, "bloat_unknown", stored.ref, message))
                continue
            if estimate:
                found[stored.ref] = estimate
    return found, findings


def purge_pending(link: t.Any) -> str:
    """Why deleted rows still lie in the pages, in words; empty when purge keeps up, or nobody may know."""
    try:
        text = str(link.rows("SHOW ENGINE INNODB STATUS")[0][2])
    except (DbFault, IndexError):
        return ""
    numbers = PURGE.search(text)
    undo, history = (int(n) for n in numbers.groups()) if numbers else (0, 0)
    if undo < PURGE_ROWS and history < PURGE_TRANSACTIONS:
        return ""
    what = f"{history:,} transactions wait" if history >= PURGE_TRANSACTIONS else "it is within a large transaction"
    return f"InnoDB has not yet purged what was deleted ({what}): space is not yet what it will be"


def _one(link: t.Any, stored: Stored, shape: Shape | None, wants: Wants) -> Bloat | None:
    if stored.base.engine in ("MyISAM", "Aria"):
        return _from_free(stored)
    if shape is None or stored.base.engine != "InnoDB" or not stored.counted:
        return None
    if not all(p.own_file and not p.sparse for p in stored.pieces):
        return None  # a shared file gives nothing back; holes in a file are no bloat
    return _from_sample(link, stored, shape, wants)


def _from_free(stored: Stored) -> Bloat | None:
    """These engines know every free byte between their rows."""
    sizes = stored.sizes
    total = sizes.data + sizes.indexed if sizes else 0
    if not sizes or not total:
        return None
    percent = 100 * min(1.0, sizes.free / total)
    return Bloat(sizes.free, percent, percent, percent, "free space of the file")


def _from_sample(link: t.Any, stored: Stored, shape: Shape, wants: Wants) -> Bloat | None:
    entries = [_entry_sql(key, shape) for key in shape.others if key.kind == "BTREE"]
    expressions = [*row_sql(shape.columns, shape.layout), *entries]
    sample = _sample(link, stored, shape, expressions, stored.ref in wants.exact)
    if sample is None:
        return _verdict(stored, 0.0, 0.0, "no rows")
    rows, error = _rows(link, stored, shape, sample, wants)
    natural = natural_bytes(rows, sample.averages, shape, files=max(1, len(stored.pieces)))
    method = f"sample of {sample.seen:,} rows"
    smallest = min((p.page_bytes for p in stored.pieces), default=shape.layout.page)
    if smallest < shape.layout.page:
        # How far pages compress is not known: between not at all and to the size of the compressed page.
        share = smallest / shape.layout.page
        return _verdict(stored, natural * (1 + share) / 2, natural * (1 - share) / 2, f"{method}, compressed")
    slack = len(expressions) * EXTENT * shape.layout.page / 2 + _step(natural, shape.layout.page) / 2
    return _verdict(stored, natural, natural * math.hypot(MODEL_ERROR, 2 * error) + slack, method)


def _verdict(stored: Stored, natural: float, margin: float, method: str) -> Bloat:
    size = stored.total_bytes

    def share(bytes_left: float) -> float:
        return 100 * min(1.0, max(0.0, 1 - bytes_left / size))

    percent = share(natural)
    return Bloat(int(size * percent / 100), percent, share(natural + margin), share(natural - margin), method)


def read_shapes(link: t.Any, large: t.Sequence[Stored], server: Server) -> dict[str, Shape]:
    """Columns and indexes of all large tables, by two queries for a few hundred of them."""
    names = sorted({s.ref.path[0] for s in large if s.base.engine == "InnoDB"})
    columns: dict[str, list[t.Any]] = {name: [] for name in names}
    keys: dict[str, list[t.Any]] = {name: [] for name in names}
    for start in range(0, len(names), 200):
        some = names[start : start + 200]
        for query, into in ((COLUMNS, columns), (KEYS, keys)):
            for row in link.rows(query.format(", ".join(["%s"] * len(some))), [link.database, *some]):
                into[str(row[-1])].append(row)
    return {name: _shape(columns[name], keys[name], server) for name in names}


def _shape(columns: t.Sequence[t.Any], keys: t.Sequence[t.Any], server: Server) -> Shape:
    json_size = Flavour(server.engine, server.version, server.number).has("json storage size")
    kinds = {str(row[0]): str(row[1]).lower() for row in columns}
    grouped: dict[str, list[t.Any]] = {}
    for row in keys:
        grouped.setdefault(str(row[0]), []).append(row)
    indexes = [
        Key(name, str(rows[0][3]), tuple((str(r[1] or ""), int(r[2]) if r[2] else None) for r in rows))
        for name, rows in grouped.items()
    ]
    primary = next((k for k in indexes if k.name == "PRIMARY"), None)
    page = int(server.settings.get("innodb_page_size") or 16384)
    factor = server.settings.get("innodb_segment_reserve_factor")
    # MySQL 8 begins a long value with a page that holds its index.
    layout = Layout(page, 0, page - (700 if json_size else 54), None if factor is None else float(factor) / 100)
    kind = kinds.get(primary.columns[0][0], "") if primary else ""
    key_type = "integer" if kind.endswith("int") else "text" if kind in ("char", "varchar") else ""
    return Shape(
        tuple(column(row, json_size=json_size) for row in columns),
        primary,
        tuple(k for k in indexes if k is not primary),
        layout,
        key_type,
    )


def _entry_sql(key: Key, shape: Shape) -> str:
    """Bytes of an entry of a secondary index: its columns, then those of the primary key that are not among them."""
    own = list(key.columns)
    names = {name for name, prefix in own if prefix is None}
    if shape.primary:
        own += [(name, prefix) for name, prefix in shape.primary.columns if name not in names]
    fixed, variable = 5.5 + (0 if shape.primary else 6), []
    nullable = 0
    for name, prefix in own:
        found = shape.column(name)
        if found is None:
            fixed += 8  # a functional index: its hidden column is not shown
            continue
        nullable += found.nullable
        fixed += found.bytes + found.length_bytes
        if found.sql:
            limit = f"LEAST({found.sql}, {4 * prefix})" if prefix else found.sql
            variable.append(limit)
    return " + ".join([f"{fixed + (nullable + 7) // 8:.1f}", *variable])


def _sample(
    link: t.Any, stored: Stored, shape: Shape, expressions: t.Sequence[str], closer: bool
) -> sampling.Sample | None:
    """Rows from all over the table; None when it is empty."""
    table = _from(stored)
    ranges = CLOSER_RANGES if closer else max(8, min(RANGES, stored.total_bytes // (2 << 20)))
    each = max(4, min(200, BYTES_EACH * max(stored.rows, 1) // max(stored.total_bytes, 1)))
    found = None
    if shape.primary and shape.key_type:
        key = shape.primary.columns[0][0]
        first, last = link.rows(f"SELECT MIN({quoted(key)}), MAX({quoted(key)}) FROM {table}")[0]
        if first is None:
            return None
        table += " FORCE INDEX (PRIMARY)"
        if shape.key_type == "integer" and len(shape.primary.columns) == 1:
            keys = sampling.Keys(key, int(first), int(last))
            found = sampling.keyed(link, table, keys, expressions, ranges=ranges, rows_each=each, rows=stored.rows)
        if found is None or found.seen < FEW_ROWS:
            places = _places(shape.key_type, first, last, ranges)
            found = sampling.dives(link, table, key, places, expressions, rows_each=max(4, each // 4))
    return found or sampling.beginning(link, _from(stored), expressions, ranges * each // 4)


def _from(stored: Stored) -> str:
    part = f" PARTITION ({quoted(stored.ref.partition)})" if stored.ref.partition else ""
    return table_of(stored.ref) + part


def _places(key_type: str, first: t.Any, last: t.Any, count: int) -> list[str]:
    """Evenly spread values of the first column of a primary key."""
    if key_type == "integer":
        return [str(int(first) + (int(last) - int(first)) * i // count) for i in range(count)]
    return [_literal(text) for text in sampling.texts_between(str(first), str(last), count)]


def _literal(text: str) -> str:
    return "_utf8mb4 X'" + text.encode("utf-8").hex() + "'"


def _rows(link: t.Any, stored: Stored, shape: Shape, sample: sampling.Sample, wants: Wants) -> tuple[float, float]:
    """How many live rows there are, and the standard error of their bytes as a share."""
    if sample.rows is not None and sample.error < STATISTICS_ERROR:
        return sample.rows, sample.error
    unknown = 0.0 if shape.key_type else KEYLESS_ERROR
    if stored.ref in wants.exact and stored.total_bytes <= (wants.scan_budget or COUNT_BUDGET):
        counted = link.rows(f"SELECT COUNT(*) FROM {_from(stored)}")[0][0]
        return float(counted), math.hypot(COUNTED_ERROR, unknown)
    if all(p.known for p in stored.pieces):
        return float(max(stored.rows, sample.seen)), math.hypot(STATISTICS_ERROR, unknown)
    # Statistics that know another size are of another time.
    pages = sum(s.clustered_pages + s.other_pages for s in stored.statistics)
    age = abs(1 - pages * shape.layout.page / stored.total_bytes) / 2 if pages else 0.0
    return float(max(stored.rows, sample.seen)), math.hypot(STATISTICS_ERROR, unknown, max(0.0, age - 0.1))


def natural_bytes(rows: float, averages: t.Sequence[float], shape: Shape, *, files: int) -> float:
    """Size of the files after a rebuild.

    It leaves a sixteenth of each clustered page free and packs the others full (innodb_fill_factor 100), and the file
    grows in steps.
    """
    layout = shape.layout
    row, away, entries = averages[0], averages[1], averages[2:]
    # Of rows that are long for a page, hardly any page is packed to its last byte.
    per_page = max(1.0, layout.usable * 15 / 16 / row - (0.5 if row > layout.usable / 20 else 0.0)) if row else 1.0
    leaves = rows / per_page
    trees = [_segment((leaves + rows * away) / files, layout)]
    trees += [_segment(rows * entry / layout.usable / files, layout) for entry in entries]
    # Measured: what else a new file of MySQL's own DDL has over its segments.
    pages = sum(trees) + (10 if layout.reserve is None else 360)
    step = _step(pages * layout.page, layout.page) / layout.page
    return files * math.ceil(pages / step) * step * layout.page


def _step(size: float, page: int) -> float:
    """Bytes by which a file of this size grows: four extents from 32 extents on."""
    extent = EXTENT * page
    return 4 * extent if size > 32 * extent else extent


def _segment(pages: float, layout: Layout) -> float:
    """Pages of a tree: its leaves, inner nodes, and the extents that are reserved for its growth.

    The reserve is an eighth of the segment, without the setting at most four extents; the last extent is half full.
    """
    if pages < EXTENT / 2:
        return pages + 1
    reserve = pages / 7 if layout.reserve is None else pages * layout.reserve / (1 - layout.reserve)
    if layout.reserve is None and pages > 40 * EXTENT:
        reserve = min(reserve, 4.0 * EXTENT)
    return pages * (1 + 1 / 300) + reserve + EXTENT / 2
