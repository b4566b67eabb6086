# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A table that rows leave, as the catalogs describe it: columns, keys, what keeps a DELETE from working. No rows."""

from __future__ import annotations

import typing as t

from ..._records import Ref
from ..._tuples import NamedTuple
from .names import quoted, table_name
from .session import Session

# What is called so, with or without its schema; never what another session has made for itself.
CALLED = """
SELECT c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
   AND (c.relname = %(name)s::pg_catalog.text
        OR n.nspname::pg_catalog.text || '.' || c.relname::pg_catalog.text = %(name)s::pg_catalog.text)
 ORDER BY 2, 3
"""
# `rows` is the optimizer's own reckoning: rows a page as they were, times the pages that there are. A DELETE fails that
# a publication cannot describe: such a table, or what it is a partition of, is published, and has no replica identity.
TABLES = """
WITH published AS MATERIALIZED (
    SELECT y.schemaname, y.tablename, p.pubname::pg_catalog.text
      FROM pg_catalog.pg_publication p
      JOIN pg_catalog.pg_publication_tables y ON y.pubname = p.pubname
     WHERE p.pubdelete
)
SELECT c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text,
       c.relispartition, c.relpersistence = 'u', pg_catalog.current_setting('session_replication_role') = 'replica',
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.has_table_privilege(c.oid, 'DELETE'),
       pg_catalog.has_any_column_privilege(c.oid, 'UPDATE'),
       pg_catalog.row_security_active(c.oid),
       c.relreplident::pg_catalog.text,
       ARRAY(SELECT y.pubname
               FROM published y
              WHERE (y.schemaname, y.tablename) IN (
                    SELECT an.nspname, ac.relname
                      FROM pg_catalog.pg_class ac JOIN pg_catalog.pg_namespace an ON an.oid = ac.relnamespace
                     WHERE ac.oid = c.oid OR ac.oid IN (SELECT relid FROM pg_catalog.pg_partition_ancestors(c.oid)))
              ORDER BY 1),
       EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type = '4'),
       EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type = '3'),
       ARRAY(SELECT g.tgname::pg_catalog.text FROM pg_catalog.pg_trigger g
              WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND g.tgtype & 8 = 8
              ORDER BY 1),
       ARRAY(SELECT h.oid::pg_catalog.regclass::pg_catalog.text
               FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class h ON h.oid = i.inhrelid
              WHERE i.inhparent = c.oid AND c.relkind = 'r'
              ORDER BY 1),
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_catalog.pg_table_size(c.oid) ELSE 0 END,
       CASE WHEN c.reltuples < 0 OR c.relpages = 0 AND c.reltuples > 0 THEN NULL
            WHEN c.relkind <> 'r' OR c.relpages = 0 THEN c.reltuples
            ELSE c.reltuples / c.relpages * (pg_catalog.pg_relation_size(c.oid)
                 / pg_catalog.current_setting('block_size')::pg_catalog.int4) END::pg_catalog.float8,
       CASE WHEN pg_catalog.current_setting('track_counts')::pg_catalog.bool
            THEN pg_catalog.pg_stat_get_live_tuples(c.oid) END
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY (%s::pg_catalog.oid[])
 ORDER BY 2, 3
"""
# The type that a domain is made of; and of that the operators that its order is made of, and their schema.
COLUMNS = """
WITH RECURSIVE made (oid, of) AS (
    SELECT y.oid, CASE WHEN y.typtype = 'd' THEN y.typbasetype ELSE 0 END
      FROM pg_catalog.pg_type y
     WHERE y.oid IN (SELECT a.atttypid FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = ANY (%(oids)s::pg_catalog.oid[]))
     UNION ALL
    SELECT m.oid, CASE WHEN y.typtype = 'd' THEN y.typbasetype ELSE 0 END
      FROM made m JOIN pg_catalog.pg_type y ON y.oid = m.of
), base AS (
    SELECT m.oid, m.of FROM made m WHERE m.of <> 0
       AND (SELECT y.typtype <> 'd' FROM pg_catalog.pg_type y WHERE y.oid = m.of)
)
SELECT a.attrelid::pg_catalog.int8, a.attname::pg_catalog.text, a.attnum,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       pg_catalog.format_type(coalesce(base.of, a.atttypid), NULL), a.atttypid::pg_catalog.int8, a.atttypmod,
       a.attnotnull, a.attgenerated::pg_catalog.text, a.atthasdef OR a.attidentity <> '',
       (SELECT y.typcategory::pg_catalog.text FROM pg_catalog.pg_type y WHERE y.oid = coalesce(base.of, a.atttypid)),
       (SELECT o.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
          FROM pg_catalog.pg_type o WHERE o.oid = coalesce(base.of, a.atttypid))
  FROM pg_catalog.pg_attribute a
  LEFT JOIN base ON base.oid = a.atttypid
 WHERE a.attrelid = ANY (%(oids)s::pg_catalog.oid[]) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum
"""
# B-trees that are whole and in use: the columns, in which direction, and in whose order (operators' schema). A column
# that is an expression, or ordered in another way than its type and collation say, ends what can be used of an index.
INDEXES = """
SELECT i.indrelid::pg_catalog.int8, k.relname::pg_catalog.text, i.indisunique AND i.indimmediate, i.indisprimary,
       ARRAY(SELECT (SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = i.indrelid AND a.attnum = e.attnum AND e.attnum > 0
                        AND a.attcollation = e.sorting
                        AND (o.opcdefault OR o.opcname = 'varchar_ops'))
               FROM ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[]),
                               pg_catalog.unnest(i.indclass::pg_catalog.oid[]),
                               pg_catalog.unnest(i.indcollation::pg_catalog.oid[])) WITH ORDINALITY
                    AS e (attnum, class, sorting, place)
               JOIN pg_catalog.pg_opclass o ON o.oid = e.class
              ORDER BY e.place),
       (i.indoption::pg_catalog.int2[])[0 : i.indnkeyatts - 1],
       ARRAY(SELECT (SELECT pn.nspname::pg_catalog.text
                       FROM pg_catalog.pg_amop x
                       JOIN pg_catalog.pg_operator p ON p.oid = x.amopopr
                       JOIN pg_catalog.pg_namespace pn ON pn.oid = p.oprnamespace
                      WHERE x.amopfamily = o.opcfamily AND x.amopstrategy = 5
                        AND x.amoplefttype = o.opcintype AND x.amoprighttype = o.opcintype)
               FROM pg_catalog.unnest(i.indclass::pg_catalog.oid[]) WITH ORDINALITY AS e (class, place)
               JOIN pg_catalog.pg_opclass o ON o.oid = e.class
              ORDER BY e.place)
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class k ON k.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = k.relam AND m.amname = 'btree'
 WHERE i.indrelid = ANY (%s::pg_catalog.oid[]) AND i.indisvalid AND i.indisready AND i.indpred IS NULL
 ORDER BY i.indrelid, i.indisprimary DESC, i.indnkeyatts, k.relname
"""


class Column(NamedTuple):
    """One row of COLUMNS."""

    relid: int
    name: str
    number: int
    type: str  # with its length
    base: str  # without, and without the domain around it
    type_oid: int
    modifier: int
    not_null: bool
    generated: str
    defaults: bool
    category: str
    builtin: bool


class Index(NamedTuple):
    """One row of INDEXES."""

    relid: int
    name: str
    unique: bool
    primary: bool
    columns: tuple[str | None, ...]
    options: tuple[int, ...]  # of each column: 1 descending, 2 nulls first
    schemas: tuple[str, ...]  # of the operators


class Subject(NamedTuple):
    """One row of TABLES, with its columns and indexes."""

    oid: int
    schema: str
    name: str
    kind: str  # r, p, v, m, f
    partition: bool
    unlogged: bool  # empty after a crash of the server
    unchecked: bool  # this login's sessions fire no triggers, and check no foreign keys
    may_name: bool
    may_read: bool
    may_delete: bool
    may_lock: bool
    hidden: bool  # policies hide rows from this login
    identity: str  # d, n, f, i
    publications: list[str]  # of its DELETEs
    delete_rule: bool
    insert_rule: bool
    triggers: list[str]  # that a DELETE fires
    heirs: list[str]  # tables that inherit from it, as SQL writes them: rows of their own, no partitions
    bytes: int
    estimate: float | None  # rows; None: nobody has counted
    live: int | None
    columns: tuple[Column, ...] = ()
    indexes: tuple[Index, ...] = ()

    def ref(self, database: str) -> Ref:
        return Ref(database, (self.schema, self.name))

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)

    @property
    def rows(self) -> float | None:
        """About; the smaller of two reckonings, so that a share of them is never taken for smaller than it is."""
        known = [n for n in (self.estimate, self.live or None) if n is not None]
        return min(known, default=None)

    @property
    def spelled(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def called(session: Session, name: str) -> list[tuple[int, Ref]]:
    """Tables, views and the like of this name: `schema.table`, or `table`."""
    found = session.rows(CALLED, {"name": name})
    return [(oid, Ref(session.database, (schema, relation))) for oid, schema, relation in found]


def subjects(session: Session, oids: t.Sequence[int]) -> dict[int, Subject]:
    """What is still there of these, by oid."""
    if not oids:
        return {}
    columns: dict[int, list[Column]] = {}
    for row in session.rows(COLUMNS, {"oids": list(oids)}):
        columns.setdefault(row[0], []).append(Column(*row))
    indexes: dict[int, list[Index]] = {}
    for relid, name, unique, primary, of, options, schemas in session.rows(INDEXES, (list(oids),)):
        width = len(options)
        index = Index(relid, name, unique, primary, tuple(of[:width]), tuple(options), tuple(schemas))
        indexes.setdefault(relid, []).append(index)
    return {
        row[0]: Subject(*row)._replace(columns=tuple(columns.get(row[0], ())), indexes=tuple(indexes.get(row[0], ())))
        for row in session.rows(TABLES, (list(oids),))
    }


def delete_refused(subject: Subject, user: str) -> tuple[str, str]:
    """Why rows cannot be deleted there, and what to do about it; ("", "") where they can."""
    table = subject.spelled
    if subject.kind not in ("r", "p"):
        kinds = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
        return f"it is {kinds[subject.kind]}, not a table", "Name the table itself"
    if not subject.may_name:
        return f"{user} may not use its schema", f"GRANT USAGE ON SCHEMA {quoted(subject.schema)} TO {quoted(user)}"
    if not (subject.may_read and subject.may_delete):
        return f"{user} may not read and delete its rows", f"GRANT SELECT, DELETE ON {table} TO {quoted(user)}"
    if subject.hidden:
        why = f"row security hides rows of it from {user}: what it does not see it cannot judge"
        return why, f"ALTER ROLE {quoted(user)} BYPASSRLS, or let the table's owner run this"
    if subject.delete_rule:
        return "a rule (CREATE RULE … ON DELETE) turns a DELETE into something else", "Replace the rule by a trigger"
    if subject.unchecked:
        why = f"neither triggers nor foreign keys hold for {user}: session_replication_role is replica"
        return why, f"ALTER ROLE {quoted(user)} RESET session_replication_role, or ALTER DATABASE … RESET it"
    published = subject.publications and subject.kind == "r"
    keyed = any(index.primary for index in subject.indexes)
    if published and (subject.identity == "n" or (subject.identity == "d" and not keyed)):
        why = f"the publication {subject.publications[0]} publishes its deletes, and it has no replica identity"
        return why, f"Give it a primary key, or ALTER TABLE {table} REPLICA IDENTITY FULL"
    return "", ""


def from_only(ref: Ref, alias: str) -> str:
    """This table and none of its children, under the name that the user's own condition may use."""
    return f"ONLY {table_name(ref)} AS {quoted(alias)}"
