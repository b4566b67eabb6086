# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partitions: which hold rows that are all due, and which a dead run was about to drop. Dropping is detach.py's."""

from __future__ import annotations

import json
import re
import typing as t

from ..._records import Leftover, Ref
from ..._retention import Part, Sought
from ..._tuples import NamedTuple
from .due import bound
from .names import literal
from .session import Session
from .subject import Column, Subject
from .versions import has

DETACH = "detach"
MARK = "dbfleet.maintenance is about to drop this partition: "
LEAVES = """
SELECT e.relid::pg_catalog.oid::pg_catalog.int8, c.relkind::pg_catalog.text
  FROM pg_catalog.pg_partition_tree(%s::pg_catalog.oid) e
  JOIN pg_catalog.pg_class c ON c.oid = e.relid
 WHERE e.isleaf
"""
# By range of one bare column, in the order of its type. What a view or another object needs cannot be dropped.
RANGES = """
SELECT c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid), {pending},
       ARRAY(SELECT e.relid::pg_catalog.oid::pg_catalog.int8 FROM pg_catalog.pg_partition_tree(c.oid) e),
       (SELECT coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(e.relid)), 0)
          FROM pg_catalog.pg_partition_tree(c.oid) e
          JOIN pg_catalog.pg_class f ON f.oid = e.relid AND f.relkind = 'r')::pg_catalog.int8,
       EXISTS (SELECT FROM pg_catalog.pg_partition_tree(c.oid) e
                 JOIN pg_catalog.pg_class f ON f.oid = e.relid
                WHERE f.relkind NOT IN ('r', 'p') OR NOT pg_catalog.pg_has_role(f.relowner, 'USAGE')
                   OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                               WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                 AND d.refobjid = f.oid AND d.deptype = 'n'
                                 AND d.classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass,
                                                   'pg_catalog.pg_proc'::pg_catalog.regclass))
                   OR EXISTS (SELECT FROM pg_catalog.pg_constraint k
                               WHERE k.confrelid = f.oid AND k.contype = 'f' AND k.conparentid = 0)),
       pg_catalog.pg_has_role(p.relowner, 'USAGE'),
       pg_catalog.obj_description(c.oid, 'pg_class')
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
 WHERE i.inhparent = %s::pg_catalog.oid
 ORDER BY 2, 3
"""
BY_RANGE = """
SELECT (SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = r.partrelid AND a.attnum = r.partattrs[0]
           AND a.attcollation = r.partcollation[0] AND o.opcdefault)
  FROM pg_catalog.pg_partitioned_table r
  JOIN pg_catalog.pg_opclass o ON o.oid = r.partclass[0]
 WHERE r.partrelid = %s::pg_catalog.oid AND r.partstrat = 'r' AND r.partnatts = 1 AND r.partattrs[0] > 0
"""
# No partition any more, and marked by us as one that was to go: by its own oid, so that no copy of it is meant.
DETACHED = """
SELECT c.oid::pg_catalog.int8, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, d.description,
       pg_catalog.pg_total_relation_size(c.oid)
  FROM pg_catalog.pg_description d
  JOIN pg_catalog.pg_class c ON c.oid = d.objoid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid = 0
   AND pg_catalog.starts_with(d.description, %s)
"""
# Who detaches just now: what is pending then is nobody's wreckage. Others' statements are hidden from some logins.
DETACHING = """
SELECT a.pid FROM pg_catalog.pg_stat_activity a
 WHERE a.datname = pg_catalog.current_database() AND a.state IS DISTINCT FROM 'idle' AND NOT a.pid = ANY (%s)
   AND a.backend_type = 'client backend'
   AND (a.query ~* '\\mdetach\\M' OR a.query = '<insufficient privilege>')
 LIMIT 1
"""
BOUND = re.compile(r"FOR VALUES FROM \((.*)\) TO \((.*)\)", re.DOTALL)
PENDING = {True: "i.inhdetachpending", False: "false"}


class Mark(NamedTuple):
    """What stands in the comment of a partition from before it is detached until it is dropped."""

    oid: int
    parent: tuple[str, ...]
    bounds: str  # so that it can be attached again
    empty: bool  # its rows were archived: with rows in it, it stays
    comment: str | None  # that it had before

    def words(self) -> str:
        return MARK + json.dumps(self._asdict())


def marked(comment: str | None) -> Mark | None:
    try:
        found = json.loads(comment[len(MARK) :]) if comment and comment.startswith(MARK) else None
        if not found:
            return None
        return Mark(int(found["oid"]), tuple(found["parent"]), found["bounds"], found["empty"], found["comment"])
    except (ValueError, KeyError, TypeError):
        return None


class Range(NamedTuple):
    """One row of RANGES: a direct partition."""

    oid: int
    schema: str
    name: str
    kind: str
    bounds: str
    pending: bool
    tree: list[int]
    bytes: int
    needed: bool  # by something that would go with it, or be in the way; or it belongs to somebody else
    owned: bool  # the parent, by the login
    comment: str | None


class Whole(NamedTuple):
    """A partition all of whose rows are due, and the tables that it is made of."""

    part: Part
    tree: frozenset[int]
    leaf: bool


def leaves(session: Session, oid: int) -> list[tuple[int, str]]:
    """Those that store the rows, and of what kind they are."""
    return list(session.rows(LEAVES, (oid,)))


def ranges(session: Session, oid: int, major: int) -> list[Range]:
    """The direct partitions."""
    statement = RANGES.format(pending=PENDING[has("detach concurrently", major)])
    return [Range(*row) for row in session.rows(statement, (oid,))]


def whole(
    session: Session, found: Subject, column: Column, sought: Sought, direct: t.Sequence[Range], *, major: int
) -> list[Whole]:
    """Partitions that may go: never the last one, the default one, or one without an upper end."""
    if not sought.partitions or sought.expiry.where:
        return []
    by = session.rows(BY_RANGE, (found.oid,))
    if not by or by[0][0] != column.name:
        return []
    bounded = {r.oid: ends for r in direct for ends in (_ends(r.bounds),) if ends}
    due = _due(session, column, sought, bounded)
    default = any(r.bounds == "DEFAULT" for r in direct)
    quietly = has("detach concurrently", major) and not default
    return [
        Whole(
            Part(Ref(session.database, (r.schema, r.name)), bytes=r.bytes, concurrently=quietly),
            frozenset(r.tree),
            r.kind == "r",
        )
        for r in direct
        if r.oid in due and not r.needed and r.owned and not r.pending
    ]


def _ends(bounds: str) -> tuple[str, str] | None:
    """Lower and upper bound as SQL; None without an upper one."""
    found = BOUND.fullmatch(bounds or "")
    return None if found is None or found.group(2) == "MAXVALUE" else (found.group(1), found.group(2))


def _due(session: Session, column: Column, sought: Sought, bounded: t.Mapping[int, tuple[str, str]]) -> set[int]:
    """Those whose upper bound has passed, but for the one with the largest bound of all."""
    if not bounded:
        return set()
    expiry, rows = sought.expiry, []
    for oid, (lower, upper) in bounded.items():
        late = "true"
        if expiry.since is not None:
            since = bound(expiry.since, column, expiry)
            late = "false" if lower == "MINVALUE" else f"{lower}::{column.base} OPERATOR(pg_catalog.>=) {since}"
        rows.append(f"({oid}, {upper}::{column.base}, {late})")
    before = bound(expiry.before, column, expiry)
    statement = f"""
SELECT v.oid FROM (SELECT w.*, pg_catalog.row_number() OVER (ORDER BY w.upper DESC) AS place
                     FROM (VALUES {", ".join(rows)}) AS w (oid, upper, late)) v
 WHERE v.place > 1 AND v.upper OPERATOR(pg_catalog.<=) {before} AND v.late"""
    return {oid for (oid,) in session.rows(statement)}


def leftovers(
    session: Session, found: Subject, direct: t.Sequence[Range], due: t.Collection[int]
) -> tuple[Leftover, ...]:
    """Partitions of this table whose detaching, or dropping afterwards, was interrupted."""
    parent = found.ref(session.database)
    wrecks = []
    for oid, schema, name, comment, size in session.rows(DETACHED, (MARK,)):
        mark = marked(comment)
        if mark and mark.oid == oid and mark.parent == parent.path:
            wrecks.append(Leftover(Ref(session.database, (schema, name)), DETACH, (name,), bytes=size, table=parent))
    for one in direct:
        mark = marked(one.comment)
        mine = mark is not None and mark.oid == one.oid
        if one.pending or (mine and one.oid not in due):
            size = one.bytes if mine and one.pending else 0
            wrecks.append(
                Leftover(Ref(session.database, (one.schema, one.name)), DETACH, (one.name,), size, table=parent)
            )
    busy = session.rows(DETACHING, (session.pids,)) if any(one.pending for one in direct) else []
    if busy:
        why = f"server process {busy[0][0]} may be detaching it just now"
        wrecks = [wreck._replace(dead=False, why_not=why) for wreck in wrecks]
    return tuple(wrecks)


def description(text: str | None) -> str:
    return "NULL" if text is None else literal(text)
