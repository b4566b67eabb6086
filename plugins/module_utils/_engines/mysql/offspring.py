# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hangs from rows by foreign keys: found, counted, and taken with them. The rows themselves are purge.py's."""

from __future__ import annotations

import typing as t
from collections import defaultdict

from ..._errors import Busy, Refused
from ..._records import Ref
from ..._retention import Child, Frame
from ..._tuples import NamedTuple
from . import dictionary
from .connection import Link
from .names import quoted, table_of
from .stores import Store, names_sql
from .targets import Target, written

# InnoDB knows every foreign key, also of tables that the login may not see.
INNODB_KEYS = "SELECT ID, FOR_NAME, REF_NAME, TYPE FROM information_schema.{}"
INNODB_COLUMNS = "SELECT ID, FOR_COL_NAME, REF_COL_NAME FROM information_schema.{} ORDER BY ID, POS"
VISIBLE = """
    SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_SCHEMA,
           k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE
      FROM information_schema.KEY_COLUMN_USAGE k
      JOIN information_schema.REFERENTIAL_CONSTRAINTS r
        ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME
       AND r.TABLE_NAME = k.TABLE_NAME
     WHERE k.REFERENCED_TABLE_NAME IS NOT NULL
     ORDER BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION"""
SILENT = ("cascade", "set null", "set default")  # the server does it without a word, past triggers and counts


class Edge(NamedTuple):
    """A foreign key."""

    table: Ref
    columns: tuple[str, ...]
    parent: Ref
    parent_columns: tuple[str, ...]
    action: str
    name: str


def edges(link: Link) -> list[Edge]:
    """Every foreign key of the server; without PROCESS those that the login may see."""
    try:
        return _by_innodb(link)
    except (Refused, Busy):
        return _by_schema(link)


def _by_innodb(link: Link) -> list[Edge]:
    keys = [tuple(str(v) for v in row) for row in link.rows(INNODB_KEYS.format(link.flavour.view("FOREIGN")))]
    pairs: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for number, column, other in link.rows(INNODB_COLUMNS.format(link.flavour.view("FOREIGN_COLS"))) if keys else ():
        pairs[str(number)].append((str(column), str(other)))
    odd = sorted({part for key in keys for name in key[1:3] for part in name.split("/") if "@" in part})
    # MySQL's dictionary shows these names as they are.
    plain = dictionary.decoded(link, odd) if link.flavour.has("file names") else {}
    found = []
    for number, child, parent, kind in keys:
        refs = []
        for name in (child, parent):
            database, _slash, table = name.partition("/")
            refs.append(Ref(plain.get(database, database), (plain.get(table, table),)))
        columns = pairs[number]
        action = "cascade" if int(kind) & 1 else "set null" if int(kind) & 2 else "restrict"
        own, others = tuple(c for c, _other in columns), tuple(o for _column, o in columns)
        found.append(Edge(refs[0], own, refs[1], others, action, number.partition("/")[2]))
    return found


def _by_schema(link: Link) -> list[Edge]:
    rows: defaultdict[tuple[str, str, str], list[t.Any]] = defaultdict(list)
    for row in link.rows(VISIBLE):
        rows[str(row[0]), str(row[1]), str(row[2])].append([str(v) for v in row])
    return [
        Edge(
            Ref(database, (table,)),
            tuple(p[3] for p in parts),
            Ref(parts[0][4], (parts[0][5],)),
            tuple(p[6] for p in parts),
            parts[0][7].lower(),
            name,
        )
        for (database, table, name), parts in rows.items()
    ]


def tree(root: Ref, every: t.Iterable[Edge]) -> list[Child]:
    """All foreign keys by which rows hang from those of a table, over however many levels: leaf first."""
    by_parent: defaultdict[Ref, list[Edge]] = defaultdict(list)
    for edge in every:
        by_parent[edge.parent].append(edge)
    found: dict[tuple[Ref, str], Child] = {}

    def visit(ref: Ref, above: frozenset[Ref]) -> None:
        for edge in by_parent[ref]:
            circular = edge.table in above
            if (edge.table, edge.name) in found:
                continue
            if not circular:
                visit(edge.table, above | {edge.table})
            child = Child(edge.table, edge.columns, edge.parent, edge.parent_columns, edge.action)
            found[edge.table, edge.name] = child._replace(name=edge.name, circular=circular)

    visit(root, frozenset([root]))
    return list(found.values())


# ---- counting --------------------------------------------------------------------------------------------------------


def count_sql(child: Child, children: t.Sequence[Child], root: Ref, due: str, source: str) -> str:
    """Rows of a child that hang, through whatever lies between, from the rows of `source` that are due.

    The rule's table has no other name here, so that the user's condition finds its columns.
    """
    hangs = _hangs(child, children, root, (source, due), 0)
    return f"SELECT COUNT(*) FROM {table_of(child.table)} AS `d0` WHERE {hangs}"


def _hangs(child: Child, children: t.Sequence[Child], root: Ref, rows: tuple[str, str], depth: int) -> str:
    above = child.parent == root
    name = table_of(root) if above else f"`d{depth + 1}`"
    links = _links(child, f"`d{depth}`", name)
    if above:
        return f"EXISTS (SELECT 1 FROM {rows[0]} WHERE {links} AND {rows[1]})"
    ways = [x for x in children if x.table == child.parent and not x.circular and x != child]
    rest = " OR ".join(_hangs(x, children, root, rows, depth + 1) for x in ways) or "FALSE"
    return f"EXISTS (SELECT 1 FROM {table_of(child.parent)} AS {name} WHERE {links} AND ({rest}))"


def _links(child: Child, own: str, other: str) -> str:
    pairs = zip(child.columns, child.parent_columns)
    return " AND ".join(f"{own}.{quoted(column)} = {other}.{quoted(parent)}" for column, parent in pairs)


# ---- taking ----------------------------------------------------------------------------------------------------------


def chains(child: Child, children: t.Sequence[Child], root: Ref) -> list[list[Child]]:
    """Every way from the rule's table down to this foreign key."""
    if child.parent == root:
        return [[child]]
    above = [x for x in children if x.table == child.parent and not x.circular]
    return [[*chain, child] for x in above for chain in chains(x, children, root)]


def joined(root: str, chain: t.Sequence[Child]) -> str:
    """`d0` is the rule's table, the last one the child. In this order: from few keys along the indexes."""
    words = [f"{root} AS `d0`"]
    for depth, link in enumerate(chain, 1):
        words.append(f"{table_of(link.table)} AS `d{depth}` ON {_links(link, f'`d{depth}`', f'`d{depth - 1}`')}")
    return " STRAIGHT_JOIN ".join(words)


class Member(NamedTuple):
    """A foreign key whose rows leave with those they hang from."""

    child: Child
    chains: list[list[Child]]
    inner: bool  # others hang from its rows
    goes: Target | None = None


class Family(NamedTuple):
    """All that hangs from the rule's table."""

    root: Store
    members: tuple[Member, ...] = ()  # leaf first
    silent: tuple[Child, ...] = ()  # foreign keys by which the server would remove or empty rows that nobody counted

    def take(self, link: Link, scope: str) -> tuple[int, list[Frame]]:
        """Of rows that are locked: nobody can hang another row from them. Raises Busy, Refused."""
        count = 0
        frames: list[Frame] = []
        for child in self.silent:
            self._none(link, child, scope)
        for member in reversed(self.members):
            for chain in member.chains if member.inner else ():
                asked = f"SELECT COUNT(*) FROM {joined(self.root.sql, chain)} WHERE {scope} FOR UPDATE"
                link.rows(asked, obj=str(member.child.table))
        for member in self.members:
            for chain in member.chains:
                gone, more = self._remove(link, member, chain, scope)
                count, frames = count + gone, frames + more
        return count, frames

    def _none(self, link: Link, child: Child, scope: str) -> None:
        if link.rows(f"SELECT 1 FROM {joined(self.root.sql, [child])} WHERE {scope} LIMIT 1", obj=str(child.table)):
            raise Refused(
                f"rows of {child.table} hang from rows that are due (foreign key {child.name}, ON DELETE"
                f" {child.action.upper()}), and would be changed without a word",
                database=child.parent.database,
                obj=str(child.parent),
                cure="Say with on_children whether they leave, too",
            )

    def _remove(self, link: Link, member: Member, chain: t.Sequence[Child], scope: str) -> tuple[int, list[Frame]]:
        last, kept, frames = f"`d{len(chain)}`", 0, []
        source, obj = joined(self.root.sql, chain), str(member.child.table)
        goes = member.goes
        if goes is not None and goes.to is not None:
            into = f"INSERT INTO {goes.to.sql} ({names_sql(goes.fields)})"
            asked = f"SELECT {names_sql(goes.fields, of=last[1:-1])} FROM {source} WHERE {scope} FOR UPDATE"
            kept = link.change(f"{into} {asked}", obj=obj)
        elif goes is not None:
            asked = ", ".join(written(f, of=last[1:-1]) for f in goes.fields)
            rows = link.texts(f"SELECT {asked} FROM {source} WHERE {scope} FOR UPDATE", obj=obj)
            kept, frames = len(rows), [Frame(member.child.table, goes.columns, rows)] if rows else []
        gone = link.change(f"DELETE {last} FROM {source} WHERE {scope}", obj=obj)
        if goes is not None and gone != kept:
            raise Busy(f"rows changed while they were taken ({kept} read, {gone} removed): nothing was", obj=obj)
        return gone, frames


def family(root: Store, children: t.Sequence[Child], every: t.Iterable[Edge], goes: t.Mapping[Ref, Target]) -> Family:
    """`children`: those that the task takes along, `every`: all foreign keys there are now. Raises Refused."""
    now = tree(root.ref, every)
    taken = {(child.table, child.name) for child in children}
    silent = tuple(
        c for c in now if c.parent == root.ref and (c.circular or (c.table, c.name) not in taken) and c.action in SILENT
    )
    new = [c for c in now if (c.table, c.name) not in taken and children]
    if new:
        raise Refused(
            f"the foreign key {new[0].name} of {new[0].table} is new: nobody has counted its rows",
            database=root.ref.database,
            obj=str(root.ref),
            cure="The next run counts them",
        )
    members = []
    for child in children:
        if child.circular:
            continue  # the planner has seen to it that no row hangs by it
        inner = any(x.parent == child.table and not x.circular for x in children)
        members.append(Member(child, chains(child, children, root.ref), inner, goes.get(child.table)))
    return Family(root, tuple(members), silent)
