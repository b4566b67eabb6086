# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collations whose library has changed since, and what was sorted by them. Looks closer only where one has changed."""

from __future__ import annotations

from ..._records import Ref, Server
from ..._structure import Collation
from ..._tuples import NamedTuple
from .session import Session
from .versions import has, major_of

# Only those that something depends on: an operating system's upgrade changes hundreds that nobody uses. Asking for the
# actual version opens the collation, so that comes last.
OWN = """
WITH used AS MATERIALIZED (
    SELECT l.oid, n.nspname, l.collname, l.collversion
      FROM pg_catalog.pg_collation l
      JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
     WHERE l.collversion IS NOT NULL
       AND (l.oid < 12000 -- nobody's dependence on what is pinned is written down
            OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                        WHERE d.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass AND d.refobjid = l.oid))
)
SELECT u.oid, ARRAY[u.nspname, u.collname]::pg_catalog.text[], u.collversion,
       pg_catalog.pg_collation_actual_version(u.oid) AS actual
  FROM used u
"""
DEFAULT = """
SELECT 100::pg_catalog.oid, ARRAY[]::pg_catalog.text[], d.datcollversion,
       pg_catalog.pg_database_collation_actual_version(d.oid)
  FROM pg_catalog.pg_database d
 WHERE d.datname = pg_catalog.current_database()
"""
CHANGED = "SELECT * FROM ({found}) f (oid, path, recorded, actual) WHERE f.recorded IS DISTINCT FROM f.actual"
# What an expression compares by: every ordering operator in it, with the collation that it uses. Source: the text of
# pg_node_tree as OpExpr is written in outfuncs.c.
ORDERED = """
SELECT e.{key}, m[2]::pg_catalog.oid
  FROM ({trees}) e ({key}, tree),
       pg_catalog.regexp_matches(e.tree, 'OPEXPR :opno (\\d+) [^{{}}]*?:inputcollid (\\d+)', 'g') AS m
 WHERE m[2]::pg_catalog.oid = ANY (%(changed)s::pg_catalog.oid[])
   AND m[1]::pg_catalog.oid IN (SELECT a.amopopr FROM pg_catalog.pg_amop a
                                 WHERE a.amopmethod = 403 AND a.amopstrategy <> 3)
"""
# An index sorts by the collation of a key column, or by that of a range type; its predicate and its expressions may
# compare by one as well. By bytes go the pattern operator classes, hash indexes of collations for which equal means
# the same bytes, and SP-GiST's tree of texts.
INDEXES = """
SELECT f.oid, f.collid, ARRAY[n.nspname, c.relname]::pg_catalog.text[]
  FROM ({found}) f (oid, collid)
  JOIN pg_catalog.pg_class c ON c.oid = f.oid AND c.relkind = 'i'
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
"""
SORTED = """
SELECT i.indexrelid, k.collid
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am m ON m.oid = c.relam,
       ROWS FROM (pg_catalog.unnest(i.indcollation), pg_catalog.unnest(i.indclass)) AS k (collid, class),
       pg_catalog.pg_opclass o, pg_catalog.pg_collation l
 WHERE k.collid = ANY (%(changed)s::pg_catalog.oid[])
   AND o.oid = k.class AND l.oid = k.collid
   AND o.opcname !~ '(text|varchar|bpchar)_pattern'
   AND (m.amname <> 'hash' OR NOT l.collisdeterministic)
   AND m.amname <> 'spgist'
 UNION
SELECT i.indexrelid, r.rngcollation
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indexrelid
  JOIN pg_catalog.pg_range r ON r.rngtypid = a.atttypid
 WHERE r.rngcollation = ANY (%(changed)s::pg_catalog.oid[])
 UNION
SELECT * FROM ({compared}) x
"""
TREES = """
SELECT i.indexrelid, t.tree::pg_catalog.text
  FROM pg_catalog.pg_index i, LATERAL (VALUES (i.indexprs), (i.indpred)) AS t (tree) WHERE t.tree IS NOT NULL
"""
# Rows were let into a range partition, or past a CHECK, by the order of that time: no index tells which.
OTHERS = """
SELECT p.collid, 'range partitions of ' || p.partrelid::pg_catalog.regclass::pg_catalog.text
  FROM (SELECT partrelid, pg_catalog.unnest(partcollation) AS collid
          FROM pg_catalog.pg_partitioned_table WHERE partstrat = 'r') p
 WHERE p.collid = ANY (%(changed)s::pg_catalog.oid[])
 UNION
SELECT x.collid, 'CHECK ' || q.conname || ' of ' || coalesce(
           CASE WHEN q.conrelid <> 0 THEN q.conrelid::pg_catalog.regclass::pg_catalog.text END,
           pg_catalog.format_type(q.contypid, NULL))
  FROM ({compared}) x (oid, collid)
  JOIN pg_catalog.pg_constraint q ON q.oid = x.oid
 ORDER BY 1, 2
"""
FILES = """
SELECT c.oid::pg_catalog.int8, c.relfilenode::pg_catalog.int8 FROM pg_catalog.pg_class c
 WHERE c.oid = ANY (%(indexes)s::pg_catalog.oid[])
"""
CHECKS = "SELECT q.oid, q.conbin::pg_catalog.text FROM pg_catalog.pg_constraint q WHERE q.contype = 'c'"


class Stale(NamedTuple):
    """Of an index: why its order may be wrong, and what differs after it is rebuilt or another version comes."""

    why: str
    state: str


def read(session: Session, server: Server) -> tuple[tuple[Collation, ...], dict[int, Stale]]:
    """The changed collations, and by oid the indexes whose order may be wrong."""
    sources = [OWN] + ([DEFAULT] if has("version of the default collation", major_of(server)) else [])
    found = session.rows(CHANGED.format(found=" UNION ALL ".join(sources)))
    # Where the library of today has no versions nothing can be said, and the server refuses to refresh.
    changed = {
        oid: Collation(Ref(session.database, tuple(path)), old, new) for oid, path, old, new in found if old and new
    }
    if not changed:
        return (), {}
    values = {"changed": list(changed)}
    dependents: dict[int, list[Ref]] = {}
    reasons: dict[int, list[str]] = {}
    statement = INDEXES.format(found=SORTED.format(compared=ORDERED.format(key="indexrelid", trees=TREES)))
    for index, collation, path in session.rows(statement, values):
        dependents.setdefault(collation, []).append(Ref(session.database, tuple(path)))
        reasons.setdefault(index, []).append(_why(changed[collation]))
    others: dict[int, list[str]] = {}
    for collation, what in session.rows(OTHERS.format(compared=ORDERED.format(key="oid", trees=CHECKS)), values):
        others.setdefault(collation, []).append(what)
    whole = (
        c._replace(dependents=tuple(sorted(dependents.get(oid, ()))), others=tuple(others.get(oid, ())))
        for oid, c in changed.items()
    )
    files = dict(session.rows(FILES, {"indexes": list(reasons)}))
    stale = {oid: Stale(min(why), " ".join([str(files.get(oid)), *sorted(why)])) for oid, why in reasons.items()}
    return tuple(sorted(whole)), stale


def _why(collation: Collation) -> str:
    name = ".".join(collation.ref.path) or "of the database"
    return f"collation {name} was version {collation.recorded}, is {collation.actual}"
