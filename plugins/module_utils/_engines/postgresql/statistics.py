# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the optimizer has no statistics for. How old statistics are stands in catalog.py."""

from __future__ import annotations

import typing as t

from ..._records import Server, Wants
from .catalog import Row, scope
from .session import Session
from .versions import has, major_of

# The same objects as vacuumdb --missing-stats-only of version 18 looks for: columns, index expressions, extended
# statistics, and each of them over the children of a table. Statistics that ANALYZE would not collect are left out: of
# columns with a target of 0, of virtual columns, of extended statistics on such a column, and of partial indexes, whose
# rows it may not meet (the step would never end).
TABLES = """
WITH tables AS MATERIALIZED (
    SELECT c.oid, c.relkind = 'p' AS parted,
           c.relkind = 'r' AND c.relhassubclass
               AND EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid) AS inherited
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
       AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema') AND {only}
), wanted AS MATERIALIZED (
    SELECT oid, parted AS inherit FROM tables
     UNION ALL SELECT oid, true FROM tables WHERE inherited
)"""
COLUMNS = """
SELECT w.oid, 1 AS place, w.inherit AND NOT c.relkind = 'p' AS children, a.attname::pg_catalog.text AS what,
       s.starelid IS NULL AS missing
  FROM wanted w
  JOIN pg_catalog.pg_class c ON c.oid = w.oid
  JOIN pg_catalog.pg_attribute a ON a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped
       AND coalesce(a.attstattarget, -1) <> 0 AND a.attgenerated <> 'v'
  LEFT JOIN pg_catalog.pg_statistic s ON s.starelid = w.oid AND s.staattnum = a.attnum AND s.stainherit = w.inherit"""
EXPRESSIONS = """
SELECT w.oid, 2, false, k.relname::pg_catalog.text, true
  FROM wanted w
  JOIN pg_catalog.pg_index i ON i.indrelid = w.oid AND i.indexprs IS NOT NULL AND i.indisvalid AND i.indpred IS NULL
  JOIN pg_catalog.pg_class k ON k.oid = i.indexrelid AND k.relkind = 'i'
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indexrelid AND i.indkey[a.attnum - 1] = 0
       AND a.attnum BETWEEN 1 AND i.indnkeyatts AND coalesce(a.attstattarget, -1) <> 0
 WHERE NOT w.inherit
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_statistic s
                    WHERE s.starelid = a.attrelid AND s.staattnum = a.attnum AND NOT s.stainherit)"""
EXTENDED = """
SELECT w.oid, 3, w.inherit AND NOT c.relkind = 'p', e.stxname::pg_catalog.text, true
  FROM wanted w
  JOIN pg_catalog.pg_class c ON c.oid = w.oid
  JOIN pg_catalog.pg_statistic_ext e ON e.stxrelid = w.oid AND coalesce(e.stxstattarget, -1) <> 0
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_statistic_ext_data d WHERE d.stxoid = e.oid {collected})
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = w.oid AND a.attnum = ANY (e.stxkeys)
                      AND (a.attstattarget = 0 OR a.attgenerated = 'v'))"""
COLLECTED = {
    True: "AND d.stxdinherit = w.inherit",
    # CREATE STATISTICS itself made that row, in the same transaction; ANALYZE, though it may find nothing, a new one.
    False: """AND (d.xmin <> e.xmin OR d.stxdndistinct IS NOT NULL OR d.stxddependencies IS NOT NULL
                   OR d.stxdmcv IS NOT NULL)""",
}
# Without the right to read pg_statistic: what pg_stats shows, of tables that the login may read (others stay unknown).
VISIBLE = """
SELECT w.oid, 1, w.inherit AND NOT c.relkind = 'p', a.attname::pg_catalog.text, s.attname IS NULL
  FROM wanted w
  JOIN pg_catalog.pg_class c ON c.oid = w.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped
       AND coalesce(a.attstattarget, -1) <> 0 AND a.attgenerated <> 'v'
  LEFT JOIN pg_catalog.pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
       AND s.attname = a.attname AND s.inherited = w.inherit
 WHERE pg_catalog.has_table_privilege(w.oid, 'SELECT') AND NOT pg_catalog.row_security_active(w.oid)"""
# One row a table: how many there should be, how many are missing, and three of those by name.
SUMMED = """{tables}
SELECT f.oid, f.place, f.children, pg_catalog.count(*),
       pg_catalog.count(*) FILTER (WHERE f.missing),
       (pg_catalog.array_agg(f.what ORDER BY f.what) FILTER (WHERE f.missing))[1:3]
  FROM ({found}) f (oid, place, children, what, missing)
 GROUP BY f.oid, f.place, f.children
HAVING pg_catalog.bool_or(f.missing)
 ORDER BY f.oid, f.place, f.children
"""
WORDS = {1: ("column", "columns"), 2: ("expressions of index", "expressions of indexes")}


def missing(session: Session, wants: Wants, server: Server, rows: t.Sequence[Row]) -> dict[int, str]:
    """For each table (by oid) that has rows and lacks statistics: what for, in words."""
    only, values = scope(wants)
    collected = COLLECTED[has("statistics of parents", major_of(server))]
    parts = (COLUMNS, EXPRESSIONS, EXTENDED.format(collected=collected)) if session.sees_statistics() else (VISIBLE,)
    statement = SUMMED.format(tables=TABLES.format(only=only), found="\nUNION ALL".join(parts))
    filled = {row.oid for row in rows if row.rows > 0 or (row.reltuples < 0 and row.heap_bytes > 0)}
    found: dict[int, list[str]] = {}
    for oid, place, children, all_of_them, number, names in session.rows(statement, values):
        if oid in filled:
            whole = place == 1 and number == all_of_them
            what = "the table" if whole else _words(place, number, names)
            found.setdefault(oid, []).append(f"{what} with its children" if children else what)
    return {oid: "; ".join(whats) for oid, whats in found.items()}


def _words(place: int, number: int, names: t.Sequence[str]) -> str:
    one, several = WORDS.get(place, ("extended statistics", "extended statistics"))
    listed = ", ".join(names) + (" …" if number > len(names) else "")
    return f"{one} {listed}" if number == 1 else f"{number} {several} ({listed})"
