# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archive tables: made like the source, and compared with it. Only words; purge.py says them.

A key that counts (INTEGER PRIMARY KEY without AUTOINCREMENT) is not unique in the archive: SQLite gives the number of
the last row again once that row is gone, so two rows of the archive may rightly have the same.
"""

from __future__ import annotations

import re
import sqlite3
import typing as t

from ..._records import Ref
from ..._retention import Depot
from ..._tuples import NamedTuple
from . import shapes
from .catalog import quoted
from .shapes import Column, Shape

_PLAIN_TYPE = re.compile(
    r"(?:(?:BIG|SMALL|TINY|MEDIUM|VAR|N|NVAR|UNSIGNED BIG |UNSIGNED )?(?:INT|INTEGER|CHAR|TEXT|BLOB)|CLOB|REAL|FLOAT"
    r"|DOUBLE|DOUBLE PRECISION|NUMERIC|DECIMAL|BOOLEAN|BOOL|DATE|DATETIME|TIME|TIMESTAMP|UUID|JSON|ANY)"
    r"(?: ?\([0-9 ,]+\))?\Z",
    re.IGNORECASE,
)


class Found(NamedTuple):
    """An archive table as it is, and what is to be said before rows can go there."""

    depot: Depot
    statements: tuple[str, ...] = ()


def look(db: sqlite3.Connection, database: str, source: Shape, asked: str, dated: str = "") -> Found:
    """`asked`: as the user wrote it; `dated`: the column by which rows leave the archive in turn. Only reads."""
    found = shapes.find(db, asked)
    if isinstance(found, str):
        return Found(Depot(Ref(database, (asked,)), exists=True, why_not=found))
    if found is None:
        name = asked[5:] if asked.lower().startswith("main.") else asked
        depot = Depot(Ref(database, (name,)), exists=False, why_not=_why_not_made(name))
        return Found(depot, () if depot.why_not else tuple(_made(db, source, name, dated)))
    missing = tuple((c.name, _type(c)) for c in source.columns if found.column(c.name) is None)
    depot = Depot(Ref(database, (found.name,)), exists=True, missing=missing, why_not=_why_not(source, found))
    depot = depot._replace(triggers=shapes.triggers(db, found.name, "INSERT"))
    added = (f"ALTER TABLE {found.words} ADD COLUMN {quoted(name)} {kind}".rstrip() for name, kind in missing)
    return Found(depot, () if depot.why_not else tuple(added))


def _why_not_made(name: str) -> str:
    return f"{name} is a name that SQLite keeps for itself" if name.lower().startswith("sqlite_") else ""


def _why_not(source: Shape, archive: Shape) -> str:
    if source.name == archive.name:
        return f"{archive.name} is the table itself"
    for column in source.columns:
        there = archive.column(column.name)
        why = _why_no_value(source, column, archive, there) if there else ""
        if why:
            return why
    needed = [c.name for c in archive.columns if c.filled and not c.has_default and source.column(c.name) is None]
    needed = [name for name in needed if name.lower() != archive.number_column.lower()]
    return f"its column {needed[0]} must be filled, and {source.name} has no such column" if needed else ""


def _why_no_value(source: Shape, column: Column, archive: Shape, there: Column) -> str:
    """Values must stay as they are: another affinity would turn 007 into 7, or 1.0 into 1."""
    if there.generated:
        return f"its column {there.name} is generated: no value can be put there"
    free = (archive.strict and there.type.upper() == "ANY") or (not archive.strict and there.affinity == "BLOB")
    same = _affinity(source, column) == _affinity(archive, there) and (source.strict or not archive.strict)
    if free or same:
        return ""
    return f"its column {there.name} is {there.type or 'of no type'}, in {source.name} it is {column.type or 'of none'}"


def _affinity(shape: Shape, column: Column) -> str:
    return "BLOB" if shape.strict and column.type.upper() == "ANY" else column.affinity


def _type(column: Column) -> str:
    """Any words may be declared, keywords too: those that are not plain are quoted, which SQLite takes for the same."""
    declared = column.type
    return declared if not declared or _PLAIN_TYPE.match(declared) else quoted(declared)


def _made(db: sqlite3.Connection, source: Shape, name: str, dated: str) -> t.Iterator[str]:
    """No foreign keys, checks, defaults, triggers; and of the unique keys only one that cannot come again."""
    reused = bool(source.number_column) and not source.counts
    keyed = [c for c in sorted(source.columns, key=lambda c: c.key) if c.key and not reused]
    lines = [
        " ".join(x for x in (quoted(c.name), _type(c), "NOT NULL" if c.filled and not (reused and c.key) else "") if x)
        for c in source.columns
    ]
    if keyed:
        key = source.key() if source.clustered else None
        words = key.words if key else tuple(quoted(c.name) for c in keyed)
        lines.append(f"PRIMARY KEY ({', '.join(words)})")
    options = [o for o, has in (("STRICT", source.strict), ("WITHOUT ROWID", source.clustered and bool(keyed))) if has]
    yield f"CREATE TABLE main.{quoted(name)} ({', '.join(lines)}) {', '.join(options)}".rstrip()
    taken = {row[0].lower() for row in db.execute("SELECT name FROM main.sqlite_schema")} | {name.lower()}
    for column in (source.number_column if reused else "", dated):
        if column and (source.column(column) or Column("", "", False, 0, False, False)).name:
            index = _free(f"{name}_{column}", taken)
            yield f"CREATE INDEX main.{quoted(index)} ON {quoted(name)} ({quoted(column)})"


def _free(name: str, taken: set[str]) -> str:
    found = next(x for x in (name, *(f"{name}_{n}" for n in range(2, len(taken) + 3))) if x.lower() not in taken)
    taken.add(found.lower())
    return found
