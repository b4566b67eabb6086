# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rule is applied to, resolved in a file: the table, its dates, its walk, what hangs from it; and the words.

What runs and what check mode shows are made here, from the same. Nothing is written.
"""

from __future__ import annotations

import sqlite3
import typing as t

from ..._retention import Expiry
from ..._tasks import Purge
from ..._tuples import NamedTuple
from . import shapes
from .catalog import quoted
from .children import Family, Hanging
from .dates import Dates, Range
from .indexes import TOKEN
from .shapes import Shape, Walk

_SAMPLE = 200  # rows
# Parameters, the end of a statement, and quotes that are not closed.
_NOT_THERE = (";", "?", ":", "@", "$", "'", '"', "`", "[")
_SEEN = 1000  # values of the date column that tell what kind of dates it has


class Source(NamedTuple):
    """A table from which a rule takes rows."""

    shape: Shape
    family: Family
    dates: Dates
    walk: Walk | None  # None: its rows cannot be told apart

    @property
    def due(self) -> str:
        return self.dates.due()


class Unfit(NamedTuple):
    """Why a rule cannot be applied to a table."""

    code: str
    why: str
    cure: str = ""


def read(db: sqlite3.Connection, database: str, expiry: Expiry) -> Source | Unfit | None:
    """None: there is no such table. Raises Refused."""
    shape = shapes.find(db, expiry.table)
    if shape is None:
        return None
    if isinstance(shape, str):
        return Unfit("not_applicable", shape, "Name a table with rows of its own")
    column = shape.column(expiry.column)
    if column is None:
        names = ", ".join(c.name for c in shape.columns)
        return Unfit("no_such_column", f"{shape.name} has no column {expiry.column}", f"There are: {names}")
    unfit = _kind_of_dates(db, shape, column.name, expiry) or _condition(db, shape, expiry.where)
    dates = Dates(expiry, column.name)
    return unfit or Source(shape, Family(db, database, shape), dates, shape.walk(column.name))


def _kind_of_dates(db: sqlite3.Connection, shape: Shape, column: str, expiry: Expiry) -> Unfit | None:
    """SQLite's columns have no type that would tell: the values do."""
    name = quoted(column)
    valid = Dates(expiry, column).valid()
    seen = (
        f"SELECT typeof({name}), count(*), coalesce(sum({valid}), 0)"
        f" FROM (SELECT {name} FROM {shape.words} WHERE {name} IS NOT NULL LIMIT {_SEEN}) GROUP BY 1"
    )
    found = {kind: (count, right) for kind, count, right in db.execute(seen)}
    if not found or any(right for count, right in found.values()):
        return None
    what = " and ".join(sorted(found))
    if expiry.unit:
        message, cure = f"its values are {what}: date_unit is for numbers", "Leave date_unit away"
    elif "integer" in found or "real" in found:
        message = f"its values are {what}, and only date_unit could tell what numbers count"
        cure = "Set date_unit to seconds, milliseconds or microseconds"
    else:
        message, cure = f"its values ({what}) are no dates in ISO 8601", "Name a column whose values begin YYYY-MM-DD"
    return Unfit("not_a_date", f"column {column} holds no dates: {message}", cure)


def _condition(db: sqlite3.Connection, shape: Shape, where: str) -> Unfit | None:
    """Whether the user's words can stand alone between parentheses, and mean something here."""
    if not where.strip():
        return None
    cure = "Mend `where` of the rule: a condition as it stands behind WHERE"
    depth, last = 0, ""
    for found in TOKEN.finditer(where):
        token = found.group()
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0 or token in _NOT_THERE or last + token == "/*":
            return Unfit("bad_condition", f"where: {token} cannot stand there: {where}", cure)
        last = token
    if depth:
        return Unfit("bad_condition", f"where: a parenthesis is not closed: {where}", cure)
    try:
        # Compiled, not executed; `0 AND …` would be left out before its functions are looked for.
        db.execute(f"EXPLAIN SELECT 1 FROM {shape.words} WHERE (\n{where}\n)").fetchall()
    except (sqlite3.Error, sqlite3.Warning) as error:
        if "interrupted" in str(error):
            raise
        return Unfit("bad_condition", f"where: {error}: {where}", cure)
    return None


def range_of(db: sqlite3.Connection, source: Source) -> Range:
    """Which part of an index that begins with the date can hold what is due; all of it without one."""
    column = source.shape.column(source.dates.expiry.column)
    textual = column is not None and column.affinity == "TEXT"
    if source.walk is None or not source.walk.by_date or source.dates.expiry.unit:
        return source.dates.range(text=True, numbers=True, textual=textual)
    first = source.walk.words[0]
    ask = f"SELECT 1 FROM {source.shape.words} WHERE {first}"
    text = db.execute(f"{ask} >= '' LIMIT 1").fetchone() is not None
    numbers = db.execute(f"{ask} < '' LIMIT 1").fetchone() is not None
    return source.dates.range(text=text, numbers=numbers, textual=textual)


def row_bytes(db: sqlite3.Connection, shape: Shape) -> int:
    """Of a row on average, estimated from the first ones: lengths in characters, and a byte a column for its header."""
    lengths = ", ".join(f"length({quoted(c.name)})" for c in shape.columns)
    rows = db.execute(f"SELECT {lengths} FROM {shape.words} LIMIT {_SAMPLE}").fetchall()
    total = sum(sum(length or 0 for length in row) + len(row) + 6 for row in rows)
    return total // len(rows) if rows else 0


# ---- words -----------------------------------------------------------------------------------------------------------


def in_range(source: Source) -> list[str]:
    """Binds :low and :high."""
    if source.walk is None or not source.walk.by_date:
        return []
    first = source.walk.words[0]
    return [f"{first} >= :low", f"{first} < :high"]


def beyond(words: t.Sequence[str], sign: str, name: str, first: int = 0) -> str:
    """Binds :name_0, :name_1, … from `first` on."""
    values = (f":{name}_{i}" for i in range(first, first + len(words)))
    return f"({', '.join(words)}) {sign} ({', '.join(values)})"


def scope(source: Source, walk: Walk, after: bool, end: bool, *, tie: bool = False) -> str:
    """The rows that a bite looks at. `tie`: all of them have the date at which the bite before ended.

    An index serves the first column of a row comparison alone, so that column also stands for itself; among rows of one
    date, those that were passed would be read again with each bite.
    """
    words = walk.words
    if tie:
        parts = [f"{words[0]} = :after_0", beyond(words[1:], ">", "after", 1)]
        return " AND ".join([*parts, beyond(words[1:], "<=", "end", 1)] if end else parts)
    parts = in_range(source)
    if after:
        parts += [*([f"{words[0]} >= :after_0"] if words[1:] else []), beyond(words, ">", "after")]
    if end:
        parts += [*([f"{words[0]} <= :end_0"] if words[1:] else []), beyond(words, "<=", "end")]
    return " AND ".join(parts) or "1"


def plain(task: Purge, source: Source) -> bool:
    """Whether rows only go: nothing can hang from them, nobody keeps them."""
    return not task.archive and not source.family.hanging


def delete_due(source: Source, walk: Walk, *, after: bool = True, tie: bool = False) -> str:
    """In the order of the table, not of the index: half the time where dates lie scattered over the table."""
    shape, key = source.shape, source.shape.key()
    chosen = f"{scope(source, walk, after, True, tie=tie)} AND {source.due}"
    if key is None or shape.clustered or key.names == walk.names:
        return f"DELETE FROM {shape.words} WHERE {chosen}"
    return (
        f"DELETE FROM {shape.words} WHERE {key.words[0]} IN (SELECT {key.words[0]} FROM {shape.words} WHERE {chosen})"
    )


def set_name(number: int) -> str:
    """The keys of a bite's rows of one table of a family, in memory."""
    return f'temp."dbfleet_bite_{number}"'


def in_set(shape: Shape, number: int) -> str:
    key = shape.key()
    words = ", ".join(key.words) if key else ""
    return f"({words}) IN (SELECT * FROM {set_name(number)})"


def take_due(source: Source, walk: Walk, number: int, *, after: bool = True, tie: bool = False) -> str:
    """The root's keys."""
    key = source.shape.key()
    words = ", ".join(key.words) if key else ""
    chosen = f"SELECT {words} FROM {source.shape.words} WHERE {scope(source, walk, after, True, tie=tie)}"
    return f"INSERT INTO {set_name(number)} {chosen} AND {source.due}"


def take_hanging(tables: t.Sequence[Shape], one: Hanging) -> str:
    """The keys of what hangs by one foreign key from the rows whose keys are taken already."""
    numbers = {shape.name: number for number, shape in enumerate(tables)}
    key = one.shape.key()
    words = ", ".join(key.words) if key else ""
    hangs = one.hangs(in_set(one.parent, numbers[one.parent.name]))
    chosen = f"SELECT {words} FROM {one.shape.words} WHERE {hangs}"
    return f"INSERT OR IGNORE INTO {set_name(numbers[one.shape.name])} {chosen}"


def copy(shape: Shape, number: int, to: str) -> str:
    """OR ABORT outranks what a constraint of the archive says: ON CONFLICT REPLACE would remove rows of it."""
    columns = ", ".join(quoted(c.name) for c in shape.columns)
    rows = f"SELECT {columns} FROM {shape.words} WHERE {in_set(shape, number)}"
    return f"INSERT OR ABORT INTO main.{quoted(to)} ({columns}) {rows}"


def delete_set(shape: Shape, number: int) -> str:
    return f"DELETE FROM {shape.words} WHERE {in_set(shape, number)}"
