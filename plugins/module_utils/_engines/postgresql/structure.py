# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys, primary keys, sequences: what the schema says beside its tables and indexes. No threshold."""

from __future__ import annotations

import typing as t

from ..._records import Ref, Server, Wants
from ..._structure import Counter, ForeignKey, Structure
from ..._tuples import NamedTuple
from .session import Session

# A foreign key of a partitioned table, or to one, has copies on each partition: those have a conparentid. An index
# supports it whose first columns are the key's, in whatever order; not a partial one, nor one that finds no equals.
FOREIGN_KEYS = """
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, f.conname::pg_catalog.text,
       ARRAY(SELECT a.attname::pg_catalog.text
               FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS k (attnum, place)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum
              ORDER BY k.place),
       pn.nspname::pg_catalog.text, p.relname::pg_catalog.text,
       ARRAY(SELECT a.attname::pg_catalog.text
               FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY AS k (attnum, place)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum
              ORDER BY k.place),
       CASE WHEN c.relkind = 'p' THEN (
                SELECT pg_catalog.sum(CASE WHEN l.reltuples > 0 THEN l.reltuples
                                           ELSE pg_catalog.pg_stat_get_live_tuples(l.oid) END)
                  FROM pg_catalog.pg_partition_tree(c.oid) e JOIN pg_catalog.pg_class l ON l.oid = e.relid
                 WHERE e.isleaf)
            WHEN c.reltuples > 0 THEN c.reltuples
            ELSE pg_catalog.pg_stat_get_live_tuples(c.oid) END::pg_catalog.int8,
       CASE WHEN c.relkind = 'p' THEN (
                SELECT pg_catalog.sum(l.relpages)
                  FROM pg_catalog.pg_partition_tree(c.oid) e JOIN pg_catalog.pg_class l ON l.oid = e.relid
                 WHERE e.isleaf)
            ELSE c.relpages END::pg_catalog.int8 * %(block)s,
       CASE WHEN NOT pg_catalog.current_setting('track_counts')::pg_catalog.bool THEN NULL
            WHEN p.relkind = 'p' THEN (
                SELECT pg_catalog.sum(pg_catalog.pg_stat_get_tuples_updated(e.relid)
                                      + pg_catalog.pg_stat_get_tuples_deleted(e.relid))
                  FROM pg_catalog.pg_partition_tree(p.oid) e
                 WHERE e.isleaf)
            ELSE pg_catalog.pg_stat_get_tuples_updated(p.oid)
                 + pg_catalog.pg_stat_get_tuples_deleted(p.oid) END::pg_catalog.int8,
       EXISTS (SELECT FROM pg_catalog.pg_index i
                 JOIN pg_catalog.pg_class k ON k.oid = i.indexrelid
                 JOIN pg_catalog.pg_am m ON m.oid = k.relam
                WHERE i.indrelid = f.conrelid AND i.indisvalid AND i.indpred IS NULL
                  AND m.amname IN ('btree', 'hash', 'gist', 'spgist')
                  AND i.indnkeyatts >= pg_catalog.cardinality(f.conkey)
                  AND (i.indkey::pg_catalog.int2[])[0 : pg_catalog.cardinality(f.conkey) - 1]
                      OPERATOR(pg_catalog.@>) f.conkey)
  FROM pg_catalog.pg_constraint f
  JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class p ON p.oid = f.confrelid
  JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 WHERE f.contype = 'f' AND f.conparentid = 0
 ORDER BY 1, 2, 3
"""
# Without a primary key, and without another key that tells every row from every other. A log has none on purpose: rows
# with a time, never changed or removed, and looked for by nothing (as pgbench's own history).
KEYLESS = """
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
       (SELECT free.name
          FROM pg_catalog.unnest(%(names)s::pg_catalog.text[]) WITH ORDINALITY AS free (name, place)
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                            WHERE a.attrelid = c.oid AND a.attname = free.name::pg_catalog.name)
         ORDER BY free.place LIMIT 1)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND {mine}
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                      AND (i.indisprimary OR 0 <> ALL (i.indkey) AND NOT EXISTS (
                          SELECT FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)))
   AND NOT (NOT c.relhasindex
            AND pg_catalog.pg_stat_get_tuples_updated(c.oid) + pg_catalog.pg_stat_get_tuples_deleted(c.oid) = 0
            AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                           AND a.atttypid IN ('pg_catalog.timestamptz'::pg_catalog.regtype,
                                              'pg_catalog.timestamp'::pg_catalog.regtype)))
 ORDER BY 1, 2
"""
# Sequences that count upwards, each column that they fill (their own, or one with nextval() as its default), and where
# the first of both ends. A domain has the length of what it is made of. What keeps a column from changing its type
# stands in RememberAllDependentForRebuilding(), tablecmds.c.
SEQUENCES = """
WITH columns AS MATERIALIZED (
    SELECT DISTINCT ON (d.seq, d.rel, d.attnum) d.seq, d.rel, d.attnum, d.how
      FROM (SELECT e.objid AS seq, e.refobjid AS rel, e.refobjsubid AS attnum, e.deptype::pg_catalog.text AS how
              FROM pg_catalog.pg_depend e
             WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.deptype IN ('a', 'i')
               AND e.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.refobjsubid > 0
               AND e.objid IN (SELECT q.seqrelid FROM pg_catalog.pg_sequence q)
             UNION ALL
            SELECT e.refobjid, f.adrelid, f.adnum, 'n'
              FROM pg_catalog.pg_depend e
              JOIN pg_catalog.pg_attrdef f ON f.oid = e.objid
              JOIN pg_catalog.pg_attribute own ON own.attrelid = f.adrelid AND own.attnum = f.adnum
                   AND own.attinhcount = 0
             WHERE e.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
               AND e.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
               AND e.refobjid IN (SELECT q.seqrelid FROM pg_catalog.pg_sequence q)) d
     ORDER BY d.seq, d.rel, d.attnum, d.how
)
SELECT s.seqrelid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
       tn.nspname::pg_catalog.text, t.relname::pg_catalog.text, a.attname::pg_catalog.text,
       coalesce(pg_catalog.format_type(a.atttypid, NULL), pg_catalog.format_type(s.seqtypid, NULL)),
       least(s.seqmax, CASE WHEN y.typcategory <> 'N' OR coalesce(nullif(y.typbasetype, 0), y.oid) IN (
                                     'pg_catalog.float4'::pg_catalog.regtype, 'pg_catalog.oid'::pg_catalog.regtype)
                                 THEN 9223372036854775807
                            WHEN a.attlen = 2 THEN 32767
                            WHEN a.attlen = 4 THEN 2147483647
                            ELSE 9223372036854775807 END),
       s.seqcycle, coalesce(k.how = 'i', false),
       pg_catalog.has_sequence_privilege(s.seqrelid, 'SELECT, USAGE'),
       coalesce(CASE WHEN y.typtype = 'd' THEN 'its type is the domain ' || pg_catalog.format_type(y.oid, NULL)
            WHEN a.attinhcount > 0 THEN 'it is inherited: the parent has to change'
            WHEN a.attnum = ANY (r.partattrs::pg_catalog.int2[]) THEN 'the table is partitioned by it' END,
            (SELECT pg_catalog.pg_describe_object(b.classid, b.objid, 0) || ' depends on it'
               FROM pg_catalog.pg_depend b
              WHERE b.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND b.refobjid = a.attrelid
                AND b.refobjsubid = a.attnum
                AND (b.classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass,
                                   'pg_catalog.pg_policy'::pg_catalog.regclass,
                                   'pg_catalog.pg_publication_rel'::pg_catalog.regclass,
                                   'pg_catalog.pg_proc'::pg_catalog.regclass)
                     OR b.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND EXISTS (
                        SELECT FROM pg_catalog.pg_trigger g WHERE g.oid = b.objid AND NOT g.tgisinternal)
                     OR b.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND EXISTS (
                        SELECT FROM pg_catalog.pg_attrdef f
                         WHERE f.oid = b.objid AND (f.adrelid, f.adnum) <> (a.attrelid, a.attnum)))
              ORDER BY 1 LIMIT 1), ''),
       s.seqmax <> CASE s.seqtypid WHEN 'pg_catalog.int2'::pg_catalog.regtype THEN 32767
                                   WHEN 'pg_catalog.int4'::pg_catalog.regtype THEN 2147483647
                                   ELSE 9223372036854775807 END
  FROM pg_catalog.pg_sequence s
  JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN columns k ON k.seq = s.seqrelid
  LEFT JOIN pg_catalog.pg_class t ON t.oid = k.rel
  LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = k.rel AND a.attnum = k.attnum
  LEFT JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_partitioned_table r ON r.partrelid = k.rel
 WHERE s.seqincrement > 0 AND c.relpersistence = ANY (%(kept)s) AND {mine}
 ORDER BY 2, 3
"""
# What no extension owns, and no server. A table's lock waits for nobody's: only catalogs are read here.
MINE = """n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x
                    WHERE x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND x.objid = c.oid
                      AND x.deptype = 'e')"""
# Asking a sequence locks it until the statement ends, and the server has room for some thousands of locks.
LAST_VALUES = """
SELECT o.oid, pg_catalog.pg_sequence_last_value(o.oid)
  FROM pg_catalog.unnest(%(oids)s::pg_catalog.oid[]) AS o (oid)
  JOIN pg_catalog.pg_sequence s ON s.seqrelid = o.oid
"""
AT_ONCE = 1000
NAMES = ["id", "row_id", "row_key", "row_number_id", "surrogate_id", "surrogate_key"]


class Sequence(NamedTuple):
    """One row of SEQUENCES."""

    oid: int
    schema: str
    name: str
    table_schema: str | None
    table: str | None
    column: str | None
    column_type: str | None
    most: int
    cycles: bool
    identity: bool
    may_read: bool
    hindered: str
    chosen: bool


def read(session: Session, wants: Wants, server: Server) -> Structure:
    """Foreign keys, tables without a key, sequences of the session's database."""
    keyless, free = _keyless(session)
    counters, unknown = _counters(session, server)
    return Structure(
        foreign_keys=tuple(_foreign_keys(session, server)),
        keyless=keyless,
        free_columns=free,
        counters=counters,
        unknown=unknown,
    )


def _foreign_keys(session: Session, server: Server) -> t.Iterator[ForeignKey]:
    block = int(server.settings["block_size"])
    for schema, name, key, columns, *parent, rows, size, changes, indexed in session.rows(
        FOREIGN_KEYS, {"block": block}
    ):
        parent_schema, parent_name, parent_columns = parent
        yield ForeignKey(
            table=Ref(session.database, (schema, name)),
            name=key,
            columns=tuple(columns),
            parent=Ref(session.database, (parent_schema, parent_name)),
            parent_columns=tuple(parent_columns),
            rows=rows or 0,
            bytes=size or 0,
            parent_changes=changes,
            indexed=indexed,
        )


def _keyless(session: Session) -> tuple[tuple[Ref, ...], dict[Ref, str]]:
    found = session.rows(KEYLESS.format(mine=MINE), {"names": NAMES})
    free = {Ref(session.database, (schema, name)): column for schema, name, column in found}
    return tuple(free), {ref: column for ref, column in free.items() if column}


def _counters(session: Session, server: Server) -> tuple[tuple[Counter, ...], dict[str, str]]:
    # An unlogged sequence has no file on a standby.
    kept = ["p"] if server.role == "standby" else ["p", "u"]
    rows = [Sequence(*row) for row in session.rows(SEQUENCES.format(mine=MINE), {"kept": kept})]
    hidden = sum(not row.may_read for row in rows)
    unknown = {}
    if hidden:
        who = server.settings["user"]
        unknown["counters"] = f"{who} may not read {hidden} of {len(rows)} sequences: GRANT SELECT on them"
    values = _last_values(session, [row.oid for row in rows if row.may_read])
    found = (_counter(row, session.database, values.get(row.oid)) for row in rows)
    return tuple(counter for counter in found if counter is not None), unknown


def _counter(row: Sequence, database: str, used: int | None) -> Counter | None:
    """None for a sequence that was never asked for a number."""
    if used is None:
        return None
    return Counter(
        ref=Ref(database, (row.schema, row.name)),
        used=used,
        most=row.most,
        column=row.column or "",
        table=Ref(database, (row.table_schema or "", row.table)) if row.table else None,
        kind="identity" if row.identity else "sequence",
        cycles=row.cycles,
        column_type=row.column_type or "",
        hindered=row.hindered,
        chosen=row.chosen,
    )


def _last_values(session: Session, oids: t.Sequence[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for start in range(0, len(oids), AT_ONCE):
        found.update(session.rows(LAST_VALUES, {"oids": list(oids[start : start + AT_ONCE])}))
    return found
