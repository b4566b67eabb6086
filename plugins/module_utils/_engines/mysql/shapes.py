# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a table's rows and index entries are made of: its columns and keys, read for many tables at once."""

from __future__ import annotations

import typing as t

from ..._records import Server
from ..._tuples import NamedTuple
from . import keyspace
from .capabilities import Flavour
from .names import quoted
from .rows import Column, Layout, column

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


class Key(NamedTuple):
    """An index: columns with the length of their prefix, if any."""

    name: str
    kind: str
    columns: tuple[tuple[str, int | None], ...]


class Shape(NamedTuple):
    """A table's columns and indexes, and the pages they lie in."""

    columns: tuple[Column, ...]
    primary: Key | None
    others: tuple[Key, ...]
    layout: Layout
    key_type: str  # of the primary key's first column: see keyspace.kind_of

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)


def read_shapes(link: t.Any, tables: t.Iterable[str], server: Server) -> dict[str, Shape]:
    """Columns and indexes of these tables, by two queries for a few hundred of them."""
    names = sorted(set(tables))
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
    # Of a column's mere beginning (a prefix) no range can be told.
    leading = primary.columns[0] if primary else ("", None)
    key_type = keyspace.kind_of(kinds.get(leading[0], "")) if leading[1] is None else ""
    return Shape(
        tuple(column(row, json_size=json_size) for row in columns),
        primary,
        tuple(k for k in indexes if k is not primary),
        layout,
        key_type,
    )


def entry_sql(key: Key, shape: Shape) -> str:
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
            # A prefix counts characters, of bytes bytes.
            variable.append(f"COALESCE(LENGTH(LEFT({quoted(name)}, {prefix})), 0)" if prefix else found.sql)
    return " + ".join([f"{fixed + (nullable + 7) // 8:.1f}", *variable])
