# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hangs from the rows of a table by foreign keys, over all levels: found and counted. Not removed."""

from __future__ import annotations

import typing as t

from ..._records import Ref
from ..._retention import Child
from ..._tuples import NamedTuple
from .connection import Connection
from .names import quoted
from .session import Session

# Foreign keys to these tables: to what they are partitions of, and to each of their partitions, too. Copies that the
# server keeps for partitions are left out; their tables are named by the key that was declared.
KEYS = """
WITH family AS MATERIALIZED (
    SELECT o.oid AS root, o.oid FROM pg_catalog.unnest(%(oids)s::pg_catalog.oid[]) AS o (oid)
     UNION
    SELECT o.oid, a.relid FROM pg_catalog.unnest(%(oids)s::pg_catalog.oid[]) AS o (oid),
           pg_catalog.pg_partition_ancestors(o.oid) AS a
     UNION
    SELECT o.oid, e.relid FROM pg_catalog.unnest(%(oids)s::pg_catalog.oid[]) AS o (oid),
           pg_catalog.pg_partition_tree(o.oid) AS e
)
SELECT family.root::pg_catalog.int8, f.oid::pg_catalog.int8, f.conname::pg_catalog.text,
       c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text,
       ARRAY(SELECT a.attname::pg_catalog.text
               FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS k (attnum, place)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum
              ORDER BY k.place),
       ARRAY(SELECT a.attname::pg_catalog.text
               FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY AS k (attnum, place)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum
              ORDER BY k.place),
       ARRAY(SELECT pg_catalog.format_type(a.atttypid, a.atttypmod)
               FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY AS k (attnum, place)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum
              ORDER BY k.place),
       ARRAY(SELECT on_.nspname::pg_catalog.text
               FROM pg_catalog.unnest(f.conpfeqop) WITH ORDINALITY AS k (op, place)
               JOIN pg_catalog.pg_operator o ON o.oid = k.op
               JOIN pg_catalog.pg_namespace on_ ON on_.oid = o.oprnamespace
              ORDER BY k.place),
       f.confdeltype::pg_catalog.text,
       EXISTS (SELECT FROM pg_catalog.pg_index i
                 JOIN pg_catalog.pg_class k ON k.oid = i.indexrelid
                 JOIN pg_catalog.pg_am m ON m.oid = k.relam
                WHERE i.indrelid = f.conrelid AND i.indisvalid AND i.indpred IS NULL
                  AND m.amname IN ('btree', 'hash', 'gist', 'spgist')
                  AND i.indnkeyatts >= pg_catalog.cardinality(f.conkey)
                  AND (i.indkey::pg_catalog.int2[])[0 : pg_catalog.cardinality(f.conkey) - 1]
                      OPERATOR(pg_catalog.@>) f.conkey),
       family.oid <> family.root
  FROM pg_catalog.pg_constraint f
  JOIN family ON family.oid = f.confrelid
  JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE f.contype = 'f' AND f.conparentid = 0
 ORDER BY 5, 6, 3
"""
ACTIONS = {"a": "no action", "r": "restrict", "c": "cascade", "n": "set null", "d": "set default"}
SILENT = ("cascade", "set null", "set default")  # what the server would do without a word


class Edge(NamedTuple):
    """One foreign key: `table` hangs from `parent`."""

    parent: int
    oid: int
    name: str
    table: int
    schema: str
    relation: str
    kind: str
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    types: tuple[str, ...]  # of the parent's columns
    schemas: tuple[str, ...]  # of the operators that the key compares with
    action: str
    indexed: bool
    other: bool  # it is a key to a partition of the parent, or to what that is a partition of
    circular: bool = False

    @property
    def source(self) -> str:
        """The child in a FROM clause: partitions have their rows, children by inheritance keep their own."""
        name = f"{quoted(self.schema)}.{quoted(self.relation)}"
        return name if self.kind == "p" else f"ONLY {name}"

    def ref(self, database: str) -> Ref:
        return Ref(database, (self.schema, self.relation))

    def matches(self, child: str, parent: str) -> str:
        """Whether a row of `child` hangs from one of `parent`; both are aliases."""
        return " AND ".join(
            f"{quoted(parent)}.{quoted(theirs)} OPERATOR({quoted(schema)}.=) {quoted(child)}.{quoted(mine)}"
            for mine, theirs, schema in zip(self.columns, self.parent_columns, self.schemas)
        )


def edges(session: Session, oid: int) -> list[Edge]:
    """All that hangs from the table, leaf first. What closes a circle is marked, and not followed."""
    known: dict[int, list[Edge]] = {}
    asked = [oid]
    while asked:
        found = _keys(session, asked)
        for parent in asked:
            known[parent] = [edge for edge in found if edge.parent == parent]
        asked = sorted({edge.table for edge in found} - known.keys())
    return _leaf_first(known, oid)


def _keys(session: Session, oids: t.Sequence[int]) -> list[Edge]:
    found: dict[tuple[int, int], Edge] = {}
    for row in session.rows(KEYS, {"oids": list(oids)}):
        edge = Edge(*row)
        edge = edge._replace(
            columns=tuple(edge.columns),
            parent_columns=tuple(edge.parent_columns),
            types=tuple(edge.types),
            schemas=tuple(edge.schemas),
            action=ACTIONS[edge.action],
        )
        found.setdefault((edge.parent, edge.oid), edge)
    return list(found.values())


def _leaf_first(known: t.Mapping[int, list[Edge]], root: int) -> list[Edge]:
    order: list[Edge] = []
    done: set[int] = set()

    def visit(table: int, above: tuple[int, ...]) -> None:
        """A table's keys follow those of all tables that hang from it."""
        for edge in known[table]:
            if edge.table not in (*above, table) and edge.table not in done:
                visit(edge.table, (*above, table))
        done.add(table)
        order.extend(edge._replace(circular=edge.table in (*above, table)) for edge in known[table])

    visit(root, ())
    return order


def children(session: Session, found: t.Sequence[Edge], names: t.Mapping[int, Ref]) -> list[Child]:
    """As records; not counted."""
    database = session.database
    return [
        Child(
            table=edge.ref(database),
            columns=edge.columns,
            parent=names[edge.parent],
            parent_columns=edge.parent_columns,
            action=edge.action,
            indexed=edge.indexed,
            name=edge.name,
            circular=edge.circular,
        )
        for edge in found
    ]


# ---- counting --------------------------------------------------------------------------------------------------------


def hanging(
    connection: Connection, found: t.Sequence[Edge], root: int, *, source: str, alias: str, due: str
) -> list[int]:
    """Rows that hang by each of these keys from the rows of `source` that are due, over all levels; each row once.

    `found` is leaf first: the condition on a table is made of those on its parents, which stand behind it.
    """
    conditions: dict[int, list[str]] = {}
    counts: dict[int, int] = {}
    for place in reversed(range(len(found))):
        edge = found[place]
        child, parent = f"dbfleet_{place}", alias if edge.parent == root else f"dbfleet_of_{place}"
        own = edge.table == edge.parent
        up = f"{source} WHERE {due}" if edge.parent == root else _parent(found, edge, parent, conditions)
        apart = f" AND {quoted(child)}.ctid OPERATOR(pg_catalog.<>) {quoted(parent)}.ctid" if own else ""
        hangs = f"EXISTS (SELECT FROM {up} AND {edge.matches(child, parent)}{apart})"
        before = conditions.get(edge.table, []) if not edge.circular else []
        others = "".join(f" AND NOT ({other.format(alias=quoted(child))})" for other in before)
        ((counts[place],),) = connection.rows(
            f"SELECT pg_catalog.count(*) FROM {edge.source} AS {quoted(child)} WHERE {hangs}{others}"
        )
        if not edge.circular:
            plain = hangs.replace("{", "{{").replace("}", "}}").replace(quoted(child), "{alias}")
            conditions.setdefault(edge.table, []).append(plain)
    return [counts[place] for place in range(len(found))]


def _parent(found: t.Sequence[Edge], edge: Edge, alias: str, conditions: t.Mapping[int, list[str]]) -> str:
    table = next(e for e in found if e.table == edge.parent)
    hangs = " OR ".join(f"({c.format(alias=quoted(alias))})" for c in conditions.get(edge.parent, ["false"]))
    return f"{table.source} AS {quoted(alias)} WHERE ({hangs})"
