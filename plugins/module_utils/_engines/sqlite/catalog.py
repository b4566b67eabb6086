# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalog says: the file's header, tables, their indexes and statistics. Only reads; no threshold."""

from __future__ import annotations

import re
import sqlite3
import typing as t
from contextlib import closing

from ..._tuples import NamedTuple
from .connection import Way

# Tables that a virtual table keeps for itself: FTS3, FTS4, FTS5, R*Tree. SQLite has ANALYZE pass over none of them,
# though nobody's queries profit. `pragma_table_list` names them only from 3.37 on.
_SHADOWS = ("content", "segments", "segdir", "docsize", "stat", "data", "idx", "config", "node", "parent", "rowid")

FEW = 500  # SQLite takes 999 values in one statement, or more
_TABLES = """
SELECT type, name, rootpage, tbl_name FROM main.sqlite_schema WHERE type IN ('table', 'index')
"""
_INDEXES = """
SELECT m.name, i.name, i.origin, i.partial
  FROM main.sqlite_schema AS m, pragma_index_list(m.name, 'main') AS i
 WHERE m.type = 'table' AND m.rootpage > 0
"""
_FOREIGN_COLLATIONS = """
SELECT DISTINCT m.tbl_name, x.coll
  FROM main.sqlite_schema AS m, pragma_index_xinfo(m.name, 'main') AS x
 WHERE m.type = 'index' AND x.coll IS NOT NULL
   AND upper(x.coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')
"""
# What may compute something: tables with a CHECK or a generated column; indexes on an expression or with a predicate,
# and their tables first.
_COMPUTING = """
SELECT m.sql FROM main.sqlite_schema AS m
 WHERE m.type = 'table' AND m.rootpage > 0 AND m.name NOT LIKE 'sqlite!_%' ESCAPE '!'
   AND (m.sql LIKE '%CHECK%' OR m.sql LIKE '%AS%(%' OR m.name IN (
        SELECT i.tbl_name FROM main.sqlite_schema AS i WHERE i.type = 'index' AND i.sql LIKE '%(%(%'))
    OR m.type = 'index' AND m.sql LIKE '%(%(%'
 ORDER BY m.type DESC
"""
UNKNOWN = re.compile(r"(?:no such|unknown) function: (\w+)")


class Header(NamedTuple):
    """What the words of a task depend on, and the file's size in pages."""

    page_size: int = 4096
    pages: int = 0
    free: int = 0  # pages on the freelist
    auto_vacuum: int = 0  # 0 none, 1 full, 2 incremental
    wal: bool = False

    @property
    def bytes(self) -> int:
        return self.pages * self.page_size


class Index(NamedTuple):
    name: str  # as dbstat names it
    known_as: str  # as sqlite_stat1 names it
    partial: bool


class TableInfo(NamedTuple):
    name: str
    indexes: tuple[Index, ...] = ()
    clustered: bool = False  # WITHOUT ROWID: the rows live in the tree of the primary key
    parts: tuple[str, ...] = ()  # trees that hold its data: its own, or a virtual table's shadow tables
    foreign: tuple[str, ...] = ()  # collations of its indexes that only the application has
    virtual: bool = False


def header(db: sqlite3.Connection, way: Way) -> Header:
    """Page counts include what the write-ahead log has."""
    size, pages, free, auto = (
        _one(db, f"PRAGMA main.{name}") for name in ("page_size", "page_count", "freelist_count", "auto_vacuum")
    )
    return Header(size, pages, free, auto, way.wal)


def header_of(first: bytes) -> Header:
    """The same out of a file's first 100 bytes: https://sqlite.org/fileformat.html#the_database_header."""
    at = {offset: int.from_bytes(first[offset : offset + 4], "big") for offset in (28, 36, 52, 64)}
    size = int.from_bytes(first[16:18], "big")
    auto = 0 if not at[52] else 2 if at[64] else 1
    return Header(65536 if size == 1 else size, at[28], at[36], auto)


def _one(db: sqlite3.Connection, sql: str) -> int:
    return int(db.execute(sql).fetchone()[0])


def tables(db: sqlite3.Connection, only: t.Collection[str] = ()) -> list[TableInfo]:
    """The user's tables by name, or those of `only` and of its indexes. Shadow tables are counted as parts of their

    virtual table.
    """
    rows = db.execute(_TABLES).fetchall()
    names = _few(rows, only)
    if names:
        rows = [row for row in rows if row[3] in names]
    of_indexes = {row[1] for row in rows if row[0] == "index"}
    stored = {n for kind, n, root, of in rows if kind == "table" and root and not n.lower().startswith("sqlite_")}
    virtual = [row[1] for row in rows if row[0] == "table" and not row[2]]
    owner = {f"{name}_{part}": name for name in virtual for part in _SHADOWS if f"{name}_{part}" in stored}
    indexes: dict[str, list[Index]] = {}
    clustered = set()
    scope = f" AND m.tbl_name IN ({', '.join('?' * len(names))})" if names else ""
    for table, index, origin, partial in db.execute(_INDEXES + scope, names):
        if origin == "pk" and index not in of_indexes:
            clustered.add(table)  # its tree and its statistics bear the table's name
            indexes.setdefault(table, []).append(Index("", table, partial=False))
        else:
            indexes.setdefault(table, []).append(Index(index, index, bool(partial)))
    foreign: dict[str, list[str]] = {}
    for table, collation in db.execute(_FOREIGN_COLLATIONS + scope, names):
        foreign.setdefault(table, []).append(collation)
    found = [
        TableInfo(name, tuple(indexes.get(name, ())), name in clustered, (name,), tuple(foreign.get(name, ())))
        for name in stored - set(owner)
    ]
    for name in virtual:
        parts = [part for part, of in owner.items() if of == name]
        trees = tuple(tree for part in parts for tree in (part, *(i.name for i in indexes.get(part, ()) if i.name)))
        found.append(TableInfo(name, parts=trees, virtual=True))
    return sorted(found)


def _few(rows: t.Sequence[tuple[t.Any, ...]], only: t.Collection[str]) -> list[str]:
    """The tables that `only` asks for, with their shadow tables; none where they are too many for one statement."""
    asked = {of for kind, name, root, of in rows if name in only}
    found = asked | {name for kind, name, root, of in rows if name.rpartition("_")[0] in asked}
    return sorted(found) if len(found) <= FEW else []


def foreign_functions(db: sqlite3.Connection) -> list[str]:
    """Functions that only the application has, and that VACUUM needs: CHECKs, generated columns and indexes call them.

    Told by making empty tables of the same words in memory: a connection that only reads forgets the CHECKs.
    """
    found = set()
    with closing(sqlite3.connect(":memory:")) as scratch:
        for (sql,) in db.execute(_COMPUTING):
            try:
                scratch.execute(sql)
            except sqlite3.Error as error:
                found.update(UNKNOWN.findall(str(error)))
    return sorted(found)


class Statistics(NamedTuple):
    """What sqlite_stat1 knows of one table."""

    rows: int | None = None  # when it was analyzed
    indexes: frozenset[str] = frozenset()


def statistics(db: sqlite3.Connection, infos: t.Sequence[TableInfo]) -> dict[str, Statistics]:
    """By table; nothing for tables that were never analyzed. Partial indexes count only their own rows."""
    if not db.execute("SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_stat1'").fetchone():
        return {}
    partial = {i.name for info in infos for i in info.indexes if i.partial}
    found: dict[str, Statistics] = {}
    for table, index, stat in db.execute("SELECT tbl, idx, stat FROM main.sqlite_stat1"):
        known = found.get(table, Statistics())
        first = str(stat).split(" ", 1)[0]
        if index not in partial and first.isdigit():
            known = known._replace(rows=max(known.rows or 0, int(first)))
        found[table] = known._replace(indexes=known.indexes | {index})
    return found


def missing_statistics(info: TableInfo, rows: int, known: Statistics | None) -> str:
    """What the optimizer has no statistics for, and ANALYZE would give: it records nothing of an empty table."""
    if not rows or not info.indexes or info.virtual:
        return ""
    if known is None:
        return "the table"
    missing = [i.known_as for i in info.indexes if not i.partial and i.known_as not in known.indexes]
    return f"index {', '.join(missing)}" if missing else ""


def pragma(db: sqlite3.Connection, name: str) -> int:
    return _one(db, f"PRAGMA main.{name}")


def count(db: sqlite3.Connection, table: str) -> int:
    """Rows, by reading the smallest tree of the table."""
    return _one(db, f"SELECT count(*) FROM main.{quoted(table)}")


def any_row(db: sqlite3.Connection, table: str) -> bool:
    return db.execute(f"SELECT 1 FROM main.{quoted(table)} LIMIT 1").fetchone() is not None


def quoted(name: str) -> str:
    """The one place where an identifier becomes SQL."""
    return '"' + name.replace('"', '""') + '"'
