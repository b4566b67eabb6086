# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys, primary keys, AUTOINCREMENT: what the schema of a file says beside its indexes. Only reads.

What the cures of its findings need to know of the schema is kept beside it; their words are in cures.py.
"""

from __future__ import annotations

import sqlite3
import typing as t
from collections import defaultdict

from ..._errors import Refused
from ..._records import Database, Ref
from ..._structure import Counter, ForeignKey, Structure
from ..._tuples import NamedTuple
from . import catalog
from .connection import Session

_COLUMNS = """
SELECT m.name, x.name, x.pk, x."notnull", x.hidden, x.type
  FROM main.sqlite_schema AS m, pragma_table_xinfo(m.name, 'main') AS x
 WHERE m.type = 'table' AND m.rootpage > 0
"""
_REFERENCES = """
SELECT m.name, f.id, f."table", f."from", f."to"
  FROM main.sqlite_schema AS m, pragma_foreign_key_list(m.name, 'main') AS f
 WHERE m.type = 'table' AND m.rootpage > 0
 ORDER BY m.name, f.id, f.seq
"""
_INDEXED = """
SELECT m.name, i.name, i."unique", x.name
  FROM main.sqlite_schema AS m, pragma_index_list(m.name, 'main') AS i, pragma_index_info(i.name, 'main') AS x
 WHERE m.type = 'table' AND m.rootpage > 0 AND NOT i.partial
 ORDER BY m.name, i.seq, x.seqno
"""
_TEXTS = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
MOST = 2**63 - 1
ROW_ID = "id"


class Column(NamedTuple):
    name: str
    key: int  # its place in the primary key, from 1 on
    filled: bool  # never NULL
    generated: bool
    type: str


class Text(NamedTuple):
    """A row of the schema."""

    kind: str
    name: str
    table: str
    sql: str


class Catalog(NamedTuple):
    """What cures.py spells from."""

    columns: t.Mapping[str, tuple[Column, ...]] = {}
    texts: tuple[Text, ...] = ()


def measured(session: Session, found: Database) -> tuple[Database, Catalog]:
    """With the structure, where the file can be read. Raises Busy, CannotConnect, Stopped."""
    path = session.database
    rows = {table.ref.path[0]: table.rows for table in found.tables if table.ref.path}

    def look(db: sqlite3.Connection, _way: t.Any) -> tuple[Structure, Catalog]:
        names = set(rows) or {info.name for info in catalog.tables(db)}
        return read(db, path, names, rows)

    try:
        structure, known = session.read(look)
    except Refused:  # its measurement has said why
        return found, Catalog()
    return found._replace(structure=structure), known


def read(
    db: sqlite3.Connection, path: str, names: t.Collection[str], rows: t.Mapping[str, int]
) -> tuple[Structure, Catalog]:
    """Of the tables `names`; `rows` of each as far as they are known. No row of a table is read."""
    columns: dict[str, tuple[Column, ...]] = {}
    for table, name, key, filled, hidden, kind in db.execute(_COLUMNS):
        if table in names:
            one = Column(name, key, bool(filled), hidden in (2, 3), kind)
            columns[table] = (*columns.get(table, ()), one)
    indexes: dict[str, dict[str, tuple[bool, list[str]]]] = defaultdict(dict)
    for table, index, unique, name in db.execute(_INDEXED):
        indexes[table].setdefault(index, (bool(unique), []))[1].append(name or "")
    keyless = sorted(n for n, its in columns.items() if not _has_key(its, indexes.get(n, {}).values()))
    structure = Structure(
        foreign_keys=tuple(_references(db, path, columns, indexes, rows)),
        keyless=tuple(Ref(path, (name,)) for name in keyless),
        free_columns={Ref(path, (name,)): _free(columns[name]) for name in keyless},
        counters=tuple(_counters(db, path, columns)),
    )
    return structure, Catalog(columns, tuple(Text(*row) for row in db.execute(_TEXTS)))


def _has_key(columns: t.Sequence[Column], indexes: t.Iterable[tuple[bool, list[str]]]) -> bool:
    """A primary key, or a unique one that is never NULL."""
    filled = {column.name for column in columns if column.filled}
    return any(c.key for c in columns) or any(unique and set(names) <= filled for unique, names in indexes)


def _free(columns: t.Sequence[Column]) -> str:
    taken = {column.name.lower() for column in columns}
    return next(n for n in (ROW_ID, *(f"{ROW_ID}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _references(
    db: sqlite3.Connection,
    path: str,
    columns: t.Mapping[str, tuple[Column, ...]],
    indexes: t.Mapping[str, t.Mapping[str, tuple[bool, list[str]]]],
    rows: t.Mapping[str, int],
) -> t.Iterator[ForeignKey]:
    """SQLite gives foreign keys a number, no name; and it makes no index for them."""
    plain = {name.lower(): name for name in columns}
    grouped: dict[tuple[str, int], list[tuple[str, str, str | None]]] = {}
    for table, number, parent, column, other in db.execute(_REFERENCES):
        if table in columns:
            grouped.setdefault((table, number), []).append((parent, column, other))
    for (table, number), pairs in grouped.items():
        parent = plain.get(pairs[0][0].lower(), pairs[0][0])
        key = sorted((c for c in columns.get(parent, ()) if c.key), key=lambda c: c.key)
        named = {column.name.lower(): column.name for column in columns[table]}
        child = tuple(named.get(column.lower(), column) for _parent, column, _other in pairs)
        yield ForeignKey(
            table=Ref(path, (table,)),
            name=str(number),
            columns=child,
            parent=Ref(path, (parent,)),
            parent_columns=tuple(
                other or (key[i].name if i < len(key) else "") for i, (_p, _c, other) in enumerate(pairs)
            ),
            rows=rows.get(table, 0),
            indexed=_serves(child, columns[table], (names for _unique, names in indexes.get(table, {}).values())),
        )


def _serves(child: tuple[str, ...], columns: t.Sequence[Column], indexes: t.Iterable[list[str]]) -> bool:
    """Whether an index begins with these columns; an INTEGER PRIMARY KEY is the table's own order."""
    key = [column for column in columns if column.key]
    if len(key) == 1 and key[0].type.upper() == "INTEGER" and child == (key[0].name,):
        return True
    return any(set(names[: len(child)]) == set(child) for names in indexes)


def _counters(db: sqlite3.Connection, path: str, columns: t.Mapping[str, tuple[Column, ...]]) -> t.Iterator[Counter]:
    if not db.execute("SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'").fetchone():
        return
    for table, used in db.execute("SELECT name, seq FROM main.sqlite_sequence"):
        key = next((column for column in columns.get(table, ()) if column.key), None)
        if key is not None and isinstance(used, int):
            ref = Ref(path, (table,))
            yield Counter(ref, used, MOST, key.name, ref, "auto_increment", column_type=key.type)
