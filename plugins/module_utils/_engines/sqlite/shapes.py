# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a table is made of, as far as its rows are to leave it: columns, key, and in which order it is walked.

Only reads the catalog. Names are resolved here as SQLite does it, without regard to case.
"""

from __future__ import annotations

import re
import sqlite3
import typing as t

from ..._tuples import NamedTuple
from . import catalog
from .catalog import quoted
from .cures import ROW_NUMBERS

COLLATIONS = ("BINARY", "NOCASE", "RTRIM")  # that every SQLite has; the others are the application's
_FIND = """
SELECT type, name, rootpage, sql FROM main.sqlite_schema WHERE type IN ('table', 'view') AND lower(name) = lower(?)
"""
_COLUMNS = "SELECT name, type, \"notnull\", pk, hidden, dflt_value FROM pragma_table_xinfo(?, 'main')"
_INDEXES = """
SELECT i.name, i."unique", i.origin, i.partial, x.cid, x.coll, x.key, x.name, x.desc
  FROM pragma_index_list(?, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x
 ORDER BY i.seq, x.seqno
"""
_TRIGGERS = (
    "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?) ORDER BY name"
)
_NOT_CODE = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|$)""", re.DOTALL
)
_EVENT = re.compile(
    r"\bTRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:\S+?\s*\.\s*)?\S+\s+(?:BEFORE\s+|AFTER\s+|INSTEAD\s+OF\s+)?(\w+)",
    re.IGNORECASE,
)


class Column(NamedTuple):
    name: str
    type: str  # as it was declared
    filled: bool  # NOT NULL
    key: int  # its place in the primary key, from 1 on
    generated: bool
    has_default: bool

    @property
    def affinity(self) -> str:
        """https://sqlite.org/datatype3.html#determination_of_column_affinity; NUMERIC stores as INTEGER does."""
        declared = self.type.upper()
        if "INT" in declared:
            return "NUMERIC"
        if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
            return "TEXT"
        if "BLOB" in declared or not declared:
            return "BLOB"
        return "REAL" if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


class Index(NamedTuple):
    name: str
    unique: bool
    origin: str  # c: CREATE INDEX, u: a UNIQUE constraint, pk: the primary key
    partial: bool
    columns: tuple[str, ...]  # of its key; "" is an expression
    collations: tuple[str, ...]
    columns_desc: tuple[bool, ...]


class Walk(NamedTuple):
    """The order in which rows are looked at: no two of them are equal."""

    names: tuple[str, ...]
    words: tuple[str, ...]  # as SQL, with the collation of the index
    by_date: bool  # it begins with the date: rows that stay are not looked at


class Shape(NamedTuple):
    """A table that can be read and written."""

    name: str
    sql: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    clustered: bool  # WITHOUT ROWID
    number: str  # a name of the row number that no column takes; "" there is none, or it cannot be named
    strict: bool = False

    @property
    def words(self) -> str:
        return f"main.{quoted(self.name)}"

    @property
    def number_column(self) -> str:
        """The INTEGER PRIMARY KEY, which is the row number. `INTEGER PRIMARY KEY DESC` is not: it has an index."""
        key = [column for column in self.columns if column.key]
        if self.clustered or len(key) != 1 or key[0].type.upper() != "INTEGER":
            return ""
        return "" if any(index.origin == "pk" for index in self.indexes) else key[0].name

    @property
    def counts(self) -> bool:
        """AUTOINCREMENT: the numbers of rows that are gone are not given again."""
        return re.search(r"\bAUTOINCREMENT\b", _NOT_CODE.sub(" ", self.sql), re.IGNORECASE) is not None

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)

    def key(self) -> Walk | None:
        """What tells the rows apart, and the order of the table itself. None: nothing that could be named."""
        if not self.clustered:
            name = self.number_column or self.number
            return Walk((name,), (quoted(name) if self.number_column else name,), by_date=False) if name else None
        own = next((index for index in self.indexes if index.origin == "pk"), None)
        if own is None or not set(own.collations) <= set(COLLATIONS):
            return None
        return Walk(own.columns, _sorted_by(own.columns, own.collations), by_date=False)

    def walk(self, date: str) -> Walk | None:
        """By the date where an index begins with it; else by the key."""
        key = self.key()
        if key is None or key.names[0].lower() == date.lower():
            return key and key._replace(by_date=True)
        found = [i for i in self.indexes if not i.partial and i.columns[0].lower() == date.lower()]
        found = [i for i in found if i.collations[0] in COLLATIONS]
        if not found:
            return key
        # Of an index on more columns, SQLite sorts the rows of each date anew.
        best = min(found, key=lambda i: (len(i.columns), i.collations[0] != "BINARY", i.columns_desc[0]))
        words = _sorted_by(best.columns[:1], best.collations[:1])
        rest = [(name, word) for name, word in zip(key.names, key.words) if name.lower() != date.lower()]
        return Walk((best.columns[0], *(n for n, w in rest)), (*words, *(w for n, w in rest)), by_date=True)

    def collation(self, column: str) -> str:
        """By which foreign keys compare it: that of the unique index on it."""
        for index in self.indexes:
            if index.unique and column.lower() in (c.lower() for c in index.columns):
                return index.collations[[c.lower() for c in index.columns].index(column.lower())]
        return "BINARY"


def _sorted_by(columns: t.Sequence[str], collations: t.Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{quoted(name)} COLLATE {collation}" for name, collation in zip(columns, collations))


def find(db: sqlite3.Connection, asked: str) -> Shape | str | None:
    """The table of that name; why rows cannot be taken out of it; None where there is none."""
    row = db.execute(_FIND, (asked,)).fetchone()
    if row is None and asked.lower().startswith("main."):
        row = db.execute(_FIND, (asked[5:],)).fetchone()
    if row is None:
        return None
    kind, name, root, sql = row
    why = _why_not(db, kind, name, root)
    return why or read(db, name, sql)


def _why_not(db: sqlite3.Connection, kind: str, name: str, root: int) -> str:
    if kind == "view":
        return f"{name} is a view: name the table that holds the rows"
    if not root:
        return f"{name} is a virtual table: its module decides how rows are stored"
    if name.lower().startswith("sqlite_"):
        return f"{name} is SQLite's own"
    virtual = db.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0").fetchall()
    owner = next((v for (v,) in virtual if name.lower().startswith(v.lower() + "_")), None)
    if owner and name not in {info.name for info in catalog.tables(db)}:
        return f"{name} holds the data of the virtual table {owner}"
    return ""


def read(db: sqlite3.Connection, name: str, sql: str) -> Shape:
    """A table that is there."""
    columns = tuple(
        Column(column, kind, bool(filled), key, hidden in (2, 3), default is not None)
        for column, kind, filled, key, hidden, default in db.execute(_COLUMNS, (name,))
    )
    indexes = _indexes(db, name)
    stored = {row[0] for row in db.execute("SELECT name FROM main.sqlite_schema WHERE type = 'index'")}
    clustered = any(index.origin == "pk" and index.name not in stored for index in indexes)
    taken = {column.name.lower() for column in columns}
    number = "" if clustered else next((n for n in ROW_NUMBERS if n not in taken), "")
    strict = re.search(r"\)[^)]*\bSTRICT\b[^)]*$", _NOT_CODE.sub(" ", sql), re.IGNORECASE) is not None
    return Shape(name, sql, columns, indexes, clustered, number, strict)


def _indexes(db: sqlite3.Connection, name: str) -> tuple[Index, ...]:
    rows: dict[str, list[tuple[t.Any, ...]]] = {}
    for row in db.execute(_INDEXES, (name,)):
        rows.setdefault(row[0], []).append(row)
    found = []
    for index, parts in rows.items():
        key = [row for row in parts if row[6]]
        found.append(
            Index(
                index,
                bool(key[0][1]),
                key[0][2],
                bool(key[0][3]),
                tuple(row[7] or "" for row in key),
                tuple(row[5].upper() if row[5].upper() in COLLATIONS else row[5] for row in key),
                tuple(bool(row[8]) for row in key),
            )
        )
    return tuple(found)


def triggers(db: sqlite3.Connection, name: str, event: str = "DELETE") -> tuple[str, ...]:
    """Those that fire for each row."""
    found = []
    for trigger, sql in db.execute(_TRIGGERS, (name,)):
        said = _EVENT.search(_NOT_CODE.sub(lambda m: " " if m.group()[:2] in ("--", "/*") else "q", sql))
        if said is None or said.group(1).upper() == event:
            found.append(trigger)
    return tuple(found)
