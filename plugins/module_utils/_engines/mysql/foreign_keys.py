# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys with their columns, rules, and whether an index supports them. Only reads; no word of a cure."""

from __future__ import annotations

import re
import typing as t
from collections import defaultdict

from ..._errors import Refused
from ..._records import Ref, Server
from ..._structure import ForeignKey, Index
from ..._tuples import NamedTuple
from .connection import Link

REFERENCES = """
    SELECT TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME,
           REFERENCED_COLUMN_NAME
      FROM information_schema.KEY_COLUMN_USAGE
     WHERE TABLE_SCHEMA = %s AND REFERENCED_TABLE_NAME IS NOT NULL
     ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION"""
RULES = """
    SELECT TABLE_NAME, CONSTRAINT_NAME, UPDATE_RULE, DELETE_RULE
      FROM information_schema.REFERENTIAL_CONSTRAINTS
     WHERE CONSTRAINT_SCHEMA = %s"""
# MariaDB opens every table to answer the two above, and InnoDB's own tables answer at once (40 ms for what took 1.8 s).
# Names stand there as in file names: where one has an @, the other two are asked.
INNODB_KEYS = "SELECT ID, FOR_NAME, REF_NAME, TYPE FROM information_schema.INNODB_SYS_FOREIGN"
INNODB_PAIRS = """
    SELECT ID, FOR_COL_NAME, REF_COL_NAME
      FROM information_schema.INNODB_SYS_FOREIGN_COLS
     ORDER BY ID, POS"""
LEADING = """
    SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME
      FROM information_schema.STATISTICS
     WHERE TABLE_SCHEMA = %s AND INDEX_TYPE IN ('BTREE', 'HASH')
     ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"""
SIZES = """
    SELECT TABLE_NAME, TABLE_ROWS, DATA_LENGTH + INDEX_LENGTH
      FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s"""
CHANGES = """
    SELECT OBJECT_SCHEMA, OBJECT_NAME, COUNT_UPDATE + COUNT_DELETE
      FROM performance_schema.table_io_waits_summary_by_table
     WHERE OBJECT_TYPE = 'TABLE'"""


class Reference(NamedTuple):
    """A foreign key with its rules."""

    key: ForeignKey
    on_update: str
    on_delete: str


class Pair(NamedTuple):
    """One column of a foreign key, and what it refers to."""

    column: str
    parent: Ref
    other: str


Pairs = dict[tuple[str, str], list[Pair]]  # by table and name of the key
Rules = dict[tuple[str, str], tuple[str, str]]  # when the parent's is updated, and deleted


def some(link: Link, query: str, names: t.Sequence[str]) -> list[tuple[t.Any, ...]]:
    """Rows of these tables only."""
    if not names:
        return []
    marks = ", ".join(["%s"] * len(names))
    return link.rows(f"{query} AND TABLE_NAME IN ({marks})", (link.database, *names))


def read(link: Link, indexes: t.Sequence[Index]) -> list[Reference]:
    """Of the session's database. `indexes`: those of the database, where they have been read already."""
    database = link.database
    told = _by_innodb(link)
    pairs, rules = _by_schema(link) if told is None else told
    if not pairs:
        return []
    leading = _leading(link, indexes)
    found = []
    for (table, name), rows in sorted(pairs.items()):
        columns = tuple(row.column for row in rows)
        key = ForeignKey(
            table=Ref(database, (table,)),
            name=name,
            columns=columns,
            parent=rows[0].parent,
            parent_columns=tuple(row.other for row in rows),
            indexed=any(set(index[: len(columns)]) == set(columns) for index in leading.get(table, ())),
        )
        found.append(Reference(key, *rules.get((table, name), ("NO ACTION", "NO ACTION"))))
    return found


def _by_schema(link: Link) -> tuple[Pairs, Rules]:
    pairs: Pairs = defaultdict(list)
    for table, name, column, home, parent, other in link.rows(REFERENCES, (link.database,)):
        pairs[str(table), str(name)].append(Pair(str(column), Ref(str(home), (str(parent),)), str(other)))
    if not pairs:
        return pairs, {}
    return pairs, {(str(row[0]), str(row[1])): (str(row[2]), str(row[3])) for row in link.rows(RULES, (link.database,))}


def _by_innodb(link: Link) -> tuple[Pairs, Rules] | None:
    """None where it cannot be told in this way: no PROCESS, encoded names, a newer server with other names of keys."""
    if not link.flavour.has("file names") or link.flavour.number >= (12,):
        return None
    try:
        every = [(str(row[0]), str(row[1]), str(row[2]), int(row[3])) for row in link.rows(INNODB_KEYS)]
    except Refused:
        return None
    # A database's own name would be encoded as well, and then nothing would seem to be its own.
    plain = re.fullmatch(r"[A-Za-z0-9_]+", link.database)
    if not plain or any("@" in name + child + parent for name, child, parent, _kind in every):
        return None
    mine = {row[0]: row for row in every if row[1].partition("/")[0] == link.database}
    pairs: Pairs = defaultdict(list)
    rules: Rules = {}
    for number, column, other in link.rows(INNODB_PAIRS) if mine else ():
        if str(number) in mine:
            name, child, parent, kind = mine[str(number)]
            key = (child.partition("/")[2], name.partition("/")[2])
            home, _slash, table = parent.partition("/")
            pairs[key].append(Pair(str(column), Ref(home, (table,)), str(other)))
            rules[key] = (_rule(kind >> 2), _rule(kind))
    return pairs, rules


def _rule(bits: int) -> str:
    return "CASCADE" if bits & 1 else "SET NULL" if bits & 2 else "RESTRICT"


def _leading(link: Link, indexes: t.Sequence[Index]) -> dict[str, list[t.Sequence[str]]]:
    """Columns of every index, by table."""
    read: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in link.rows(LEADING, (link.database,)) if not indexes else ():
        read[str(row[0]), str(row[1])].append(str(row[2] or ""))
    found: defaultdict[str, list[t.Sequence[str]]] = defaultdict(list)
    for (table, _name), columns in read.items():
        found[table].append(columns)
    for index in indexes:
        if index.method in ("btree", "hash"):
            found[index.table.path[0]].append(index.columns)
    return found


def weighed(link: Link, server: Server, keys: t.Sequence[ForeignKey]) -> tuple[ForeignKey, ...]:
    """With sizes where an index is missing: MariaDB lets it go while foreign_key_checks is off."""
    bare = sorted({key.table.path[0] for key in keys if not key.indexed})
    if not bare:
        return tuple(keys)
    sizes = {str(row[0]): (int(row[1] or 0), int(row[2] or 0)) for row in some(link, SIZES, bare)}
    changes = _changes(link, server)
    found = []
    for key in keys:
        if not key.indexed:
            rows, size = sizes.get(key.table.path[0], (0, 0))
            changed = changes.get((key.parent.database, key.parent.path[0])) if changes is not None else None
            found.append(key._replace(rows=rows, bytes=size, parent_changes=changed))
        else:
            found.append(key)
    return tuple(found)


def _changes(link: Link, server: Server) -> dict[tuple[str, str], int] | None:
    """Updates and deletes of every table since the server started; None where nobody counts them."""
    if server.settings.get("performance_schema") in (0, "OFF", None):
        return None
    try:
        return {(str(row[0]), str(row[1])): int(row[2] or 0) for row in link.rows(CHANGES)}
    except Refused:
        return None
