# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes where nothing but their bloat is asked for: the large ones alone, without words of their definitions.

In a database of ten thousand indexes those words are most of what the full description costs. That is in indexes.py.
"""

from __future__ import annotations

import typing as t

from ..._records import Server, Wants
from . import catalog
from .indexes import Row, Sizes
from .session import Session

# What is known of their tables is not asked again. Of a size that the file system cannot tell see indexes.py.
LARGE = """
WITH held AS MATERIALIZED (
    SELECT DISTINCT l.relation AS oid
      FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
       AND l.database IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                               WHERE d.datname = pg_catalog.current_database()))
), chosen AS MATERIALIZED (
    SELECT i.*, i.indrelid IN (SELECT oid FROM held) OR i.indexrelid IN (SELECT oid FROM held) AS closed
      FROM pg_catalog.pg_index i
     WHERE i.indexrelid = ANY (%(oids)s::pg_catalog.oid[])
        OR i.indrelid = ANY (%(tables)s::pg_catalog.oid[]) AND i.indisunique AND i.indpred IS NULL
)
SELECT i.indexrelid, i.indrelid, k.relname::pg_catalog.text, m.amname::pg_catalog.text,
       k.relpersistence::pg_catalog.text, i.closed,
       CASE WHEN i.closed THEN k.relpages::pg_catalog.int8 * %(block)s
            WHEN k.oid = ANY (%(unknown)s::pg_catalog.oid[]) THEN pg_catalog.pg_relation_size(k.oid) END,
       k.reltuples::pg_catalog.float8, k.relpages, k.reloptions,
       i.indnkeyatts::pg_catalog.int4, i.indkey::pg_catalog.text, i.indpred IS NOT NULL,
       i.indisunique, i.indisprimary, i.indisexclusion, i.indisvalid
  FROM chosen i
  JOIN pg_catalog.pg_class k ON k.oid = i.indexrelid AND k.relkind = 'i'
  JOIN pg_catalog.pg_am m ON m.oid = k.relam
 ORDER BY i.indexrelid
"""


def read(session: Session, wants: Wants, server: Server, tables: t.Sequence[catalog.Row], sizes: Sizes) -> list[Row]:
    """Of `index_bloat_min_bytes` and more, and the unique ones beside them. For sizes see catalog.index_sizes().

    Those say which columns make a row the only one, of tables with large indexes that do not.
    """
    block, least = int(server.settings["block_size"]), wants.index_bloat_min_bytes
    of = {row.oid: row for row in tables}
    known = {oid: size for its in sizes.values() for oid, size in its.items()}
    large = {oid for oid, size in known.items() if size >= least or size < 0}
    values = {
        "oids": sorted(large),
        "tables": [table for table, its in sizes.items() if not large.isdisjoint(its)],
        "block": block,
        "unknown": [oid for oid, size in known.items() if size < 0],
    }
    found = _rows(session, of, known, values)
    shared = {row.table_oid for row in found if not row.unique}
    return [row for row in found if row.oid in large or row.table_oid in shared]


def _rows(
    session: Session, of: t.Mapping[int, catalog.Row], sizes: t.Mapping[int, int], values: t.Mapping[str, t.Any]
) -> list[Row]:
    made = []
    for oid, table_oid, name, method, persistence, closed, measured, *rest in session.rows(LARGE, values):
        table, size = of.get(table_oid), sizes.get(oid, -1) if measured is None else measured
        if table is None or size < 0:  # dropped meanwhile, or not known when the tables were read
            continue
        reltuples, relpages, options, keys, attnums, partial, unique, primary, exclusion, valid = rest
        made.append(
            Row(
                oid,
                table_oid,
                table.schema,  # an index is always in the schema of its table
                name,
                table.schema,
                table.name,
                method,
                "i",
                persistence,
                table.catalog,
                closed,
                size,
                reltuples,
                relpages,
                options,
                table.reltuples,
                table.live,
                table.dead,
                table.changed,
                keys,
                attnums,
                [],
                [],
                "some" if partial else "",
                unique,
                primary,
                exclusion,
                valid,
                False,
                False,
                "",
                None,
                None,
                None,
                None,
                table.may_maintain,
                table.may_name,
            )
        )
    return made
