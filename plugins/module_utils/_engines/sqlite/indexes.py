# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes as the schema of a file defines them. Their sizes come from bloat.py; rebuilding them is maintenance.py's.

SQLite counts no scans, so nobody can say that an index is unused. Nor has it invalid indexes: one is there whole, or
not at all. A primary key of a table WITHOUT ROWID, and an INTEGER PRIMARY KEY, are the table itself and no index.
"""

from __future__ import annotations

import re
import sqlite3
import typing as t

from ..._records import Ref
from ..._structure import Index
from ..._tuples import NamedTuple
from .catalog import FEW, UNKNOWN, TableInfo, quoted

_DEFINITIONS = """
SELECT i.name, i."unique", i.origin, i.partial, x.cid, x.name, x."desc", x.coll,
       i.partial OR x.cid = -2 OR m.sql LIKE '%AS%(%'
  FROM main.sqlite_schema AS m, pragma_index_list(m.name, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x
 WHERE m.type = 'table' AND m.rootpage > 0 AND x.key{scope}
 ORDER BY m.name, i.seq, x.seqno
"""
_TEXTS = "SELECT m.name, m.sql FROM main.sqlite_schema AS m WHERE m.type = 'index' AND m.sql IS NOT NULL"
_BUILT_IN = ("BINARY", "NOCASE", "RTRIM")
_EXPRESSION = -2  # in the place of a column's number
TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/|\s+|.""", re.DOTALL)
_WRITERS_WAIT = "SQLite builds an index in one transaction, and writers wait for it. Use method: exclusive"
_FROM_WITHIN = "it needs {} that only the application has: run REINDEX from there"


class Column(NamedTuple):
    """A row of _DEFINITIONS: one column of an index's key."""

    of: str  # the index
    unique: int
    origin: str  # c: CREATE INDEX, u: a UNIQUE constraint, pk: the primary key
    partial: int
    number: int
    name: str | None
    descending: int
    collation: str
    computed: int  # perhaps: by the predicate, an expression, or a generated column of the table


class Words(NamedTuple):
    """What only the text of CREATE INDEX tells."""

    parts: tuple[str, ...] = ()
    where: str = ""


def read(db: sqlite3.Connection, path: str, infos: t.Sequence[TableInfo]) -> list[Index]:
    """The indexes of these tables, without sizes."""
    owner = {i.name: info.name for info in infos if not info.virtual for i in info.indexes if i.name}
    if not owner:
        return []
    columns: dict[str, list[Column]] = {}
    for row in _definitions(db, sorted(set(owner.values()))):
        column = Column(*row)
        if column.of in owner:
            columns.setdefault(column.of, []).append(column)
    typed = {n for n, key in columns.items() if key[0].partial or any(c.number == _EXPRESSION for c in key)}
    texts = {name: words_of(sql) for name, sql in db.execute(_TEXTS) if name in typed} if typed else {}
    return [_index(db, path, owner[name], key, texts.get(name)) for name, key in columns.items()]


def _definitions(db: sqlite3.Connection, tables: t.Sequence[str]) -> t.Iterable[tuple[t.Any, ...]]:
    if len(tables) > FEW:
        return db.execute(_DEFINITIONS.format(scope=""))
    return db.execute(_DEFINITIONS.format(scope=f" AND m.name IN ({', '.join('?' * len(tables))})"), tables)


def _index(db: sqlite3.Connection, path: str, table: str, key: t.Sequence[Column], words: Words | None) -> Index:
    first = key[0]
    own = first.origin == "c"
    return Index(
        Ref(path, (first.of,)),
        Ref(path, (table,)),
        columns=tuple(c.name or "" for c in key),
        parts=tuple(_part(c, words, place) for place, c in enumerate(key)),
        where=words.where if words else "",
        unique=bool(first.unique),
        primary=first.origin == "pk",
        constraint="" if own else first.of,
        keep="" if own and not first.unique else "primary key" if first.origin == "pk" else "unique",
        lacks=_lacks(db, key),
    )


def _part(column: Column, words: Words | None, place: int) -> str:
    """All that makes it differ from another: names and collations are the same in any case."""
    if column.number == _EXPRESSION and words and place < len(words.parts):
        return words.parts[place]
    collation = "" if column.collation.upper() == "BINARY" else f" COLLATE {column.collation.upper()}"
    return quoted((column.name or "rowid").lower()) + collation + (" DESC" if column.descending else "")


def _lacks(db: sqlite3.Connection, key: t.Sequence[Column]) -> dict[str, str]:
    """Online there is none; and none at all for what only the application can compare or compute."""
    foreign = sorted({c.collation for c in key if c.collation.upper() not in _BUILT_IN})
    why = _FROM_WITHIN.format(f"the collation {', '.join(foreign)}") if foreign else ""
    if not why and any(c.computed for c in key):
        why = _uncomputable(db, key[0].of)
    return dict.fromkeys(("online rebuild", "exclusive rebuild"), why) if why else {"online rebuild": _WRITERS_WAIT}


def _uncomputable(db: sqlite3.Connection, index: str) -> str:
    """Compiles the REINDEX, and does not run it: that tells which functions are not known here."""
    try:
        db.execute(f"EXPLAIN REINDEX main.{quoted(index)}")
    except sqlite3.OperationalError as error:
        found = UNKNOWN.findall(str(error))
        if not found:
            raise
        return _FROM_WITHIN.format(f"the function {found[0]}")
    return ""


def words_of(sql: str) -> Words:
    """The key's parts and the predicate of a CREATE INDEX, without comments. SQLite keeps the text as it was typed."""
    tokens = _tokens(sql)
    for token in tokens:
        if token == "(":
            break
    parts, depth = [""], 1
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if not depth:
            break
        if token == "," and depth == 1:
            parts.append("")
        else:
            parts[-1] += token
    rest = "".join(tokens).strip()
    return Words(tuple(p.strip() for p in parts), rest[len("WHERE") :].strip())


def _tokens(sql: str) -> t.Iterator[str]:
    """Signs, quoted names and strings; a run of blanks and comments is one blank."""
    blank = False
    for found in TOKEN.finditer(sql):
        token = found.group()
        if token.isspace() or token.startswith(("--", "/*")):
            if not blank:
                yield " "
            blank = True
        else:
            blank = False
            yield token
