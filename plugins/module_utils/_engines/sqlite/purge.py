# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bites of SQLite: where one ends, and taking it. Their order is nibble.py's, the words are sources.py's.

A bite is a transaction that begins by locking (BEGIN IMMEDIATE): whoever else wants to write waits for its end, readers
do not wait in WAL mode. RETURNING came with 3.35, so rows are kept by their keys: in sets of the connection's own, in
memory, that hold the rows of one bite for each table that loses some.
"""

from __future__ import annotations

import json
import sqlite3
import typing as t

from ..._errors import Gone, Refused
from ..._retention import Column, Frame, Taken
from ..._tasks import Purge
from . import depots, sources
from .connection import Session, fault
from .doubts import Doubts, binding, columns_of, digest, hidden, plain, unplain
from .shapes import Shape, Walk
from .sources import Source


class Bites(Doubts):
    """The verbs of a bite. Raises Refused for a table whose rows cannot be told apart."""

    source: Source

    def __init__(self, session: Session, db: sqlite3.Connection, task: Purge, source: Source) -> None:
        super().__init__(session, db, source)
        walk = source.walk
        if walk is None:
            raise Refused("its rows cannot be told apart", database=session.database, obj=str(task.ref))
        self.task, self.walk = task, walk
        self.mark_of_cursor = _fingerprint(task, source, walk)
        self.range = sources.range_of(db, source)
        self.row_bytes = sources.row_bytes(db, source.shape)
        self.plain = sources.plain(task, source)
        self.in_files = bool(task.archive and task.archive.folder)
        self.tables = source.family.tables if task.children else [source.shape]
        self._numbers = {shape.name: number for number, shape in enumerate(self.tables)}
        if not self.plain:
            self._make_sets()

    # ---- before the first bite, and after the last -------------------------------------------------------------------

    def _make_sets(self) -> None:
        for number, shape in enumerate(self.tables):
            key = shape.key()
            if key is None:
                raise Refused("its rows cannot be told apart", database=self.session.database, obj=shape.name)
            names = ", ".join(f"k{i}" for i in range(len(key.words)))
            self.db.execute(f"DROP TABLE IF EXISTS {sources.set_name(number)}")
            self.db.execute(f"CREATE TABLE {sources.set_name(number)} ({names}, PRIMARY KEY ({names})) WITHOUT ROWID")

    def make_depots(self) -> None:
        """Archive tables, and columns that were added to the source since. Raises Refused."""
        self.db.execute("BEGIN IMMEDIATE")
        for statement in self.depot_words():
            self.db.execute(statement)
        self.db.execute("COMMIT")

    def depot_words(self) -> t.Iterator[str]:
        database = self.session.database
        for shape, to in self._moves():
            dated = self.task.expiry.column if shape is self.source.shape else ""
            found = depots.look(self.db, database, shape, to, dated)
            if found.depot.why_not:
                raise Refused(f"rows cannot go to {to}: {found.depot.why_not}", database=database)
            yield from found.statements

    def _moves(self) -> t.Iterator[tuple[Shape, str]]:
        """Which tables' rows go into which archive tables."""
        if self.task.to:
            yield self.source.shape, self.task.to.path[-1]
        archived = {
            child.table.path[-1]: child.to.path[-1] for child in self.task.children if child.archived and child.to
        }
        yield from ((shape, archived[shape.name]) for shape in self.tables if shape.name in archived)

    # ---- the verbs ---------------------------------------------------------------------------------------------------

    def end(self, cursor: str | None, rows: int, until: str | None) -> str | None:
        self.session.check()
        after, last = self._values(cursor), self._values(until)
        bound = self._bound(after, last)
        ends = last is not None
        row = None
        if after and self._tied(after, after):
            scope = sources.scope(self.source, self.walk, True, ends and self._tied(after, last), tie=True)
            row = self._nth(scope, bound, rows)
        scope = sources.scope(self.source, self.walk, after is not None, ends)
        row = row or self._nth(scope, bound, rows) or self._nth(scope, bound, 1, backwards=True)
        return None if row is None else json.dumps([self.mark_of_cursor, *map(plain, row)])

    def _nth(self, scope: str, bound: dict[str, t.Any], rows: int, *, backwards: bool = False) -> t.Any:
        """The row at which so many of the scope have been looked at; None: there are fewer."""
        words = ", ".join(self.walk.words)
        order = ", ".join(f"{word} DESC" for word in self.walk.words) if backwards else words
        ask = f"SELECT {words} FROM {self.source.shape.words} WHERE {_bindable(scope, bound)} ORDER BY {order}"
        return self.db.execute(f"{ask} LIMIT 1 OFFSET {rows - 1}", _params(bound)).fetchone()

    def _tied(self, after: list[t.Any] | None, end: list[t.Any] | None) -> bool:
        """Whether a bite lies within one date."""
        return self.walk.by_date and len(self.walk.words) > 1 and bool(after and end and after[0] == end[0])

    def take(self, cursor: str | None, end: str) -> Taken:
        self.session.check()
        after, last = self._values(cursor), self._values(end)
        bound, how = self._bound(after, last), {"after": after is not None, "tie": self._tied(after, last)}
        self.db.execute("BEGIN IMMEDIATE")
        if self.plain:
            words, before = sources.delete_due(self.source, self.walk, **how), self.db.total_changes
            rows = self.db.execute(_bindable(words, bound), _params(bound)).rowcount
            return Taken(rows, rows * self.row_bytes, touched=not rows and self.db.total_changes > before)
        return self._take_family(sources.take_due(self.source, self.walk, len(self.tables) - 1, **how), bound)

    def mark(self) -> str:
        return ""

    def commit(self) -> None:
        """What fails here is rolled back, but for a disk that fails: then nobody knows."""
        try:
            self.db.execute("COMMIT")
        except sqlite3.Error as error:
            said = fault(error, self.session.database)
            if "I/O" in said.cause:
                raise Gone(said.cause, database=self.session.database, cure=said.cure) from error
            self.rollback()
            raise said from error

    def rollback(self) -> None:
        try:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
        except sqlite3.Error:
            return  # the connection is closed after an error, which does the same

    # ---- a bite of a family ------------------------------------------------------------------------------------------

    def _take_family(self, words: str, bound: dict[str, t.Any]) -> Taken:
        root = len(self.tables) - 1
        for number in range(len(self.tables)):
            self.db.execute(f"DELETE FROM {sources.set_name(number)}")
        counts = [0] * len(self.tables)
        counts[root] = self.db.execute(_bindable(words, bound), _params(bound)).rowcount
        if not counts[root]:
            return Taken()
        for number in reversed(range(root)):
            counts[number] = self._take_children(number)
        self._refuse_hanging()
        frames = tuple(self._frames()) if self.in_files else ()
        self._copy(counts)
        for number, shape in enumerate(self.tables):
            gone = self.db.execute(sources.delete_set(shape, number)).rowcount
            self._same(shape, gone, counts[number])
        return Taken(counts[root], counts[root] * self.row_bytes, sum(counts[:root]), frames)

    def _take_children(self, number: int) -> int:
        """Parents' sets are whole before: the root is last, and each table is before those that it hangs from."""
        for one in self.source.family.hanging:
            if one.shape.name == self.tables[number].name and not one.child.circular:
                self.db.execute(sources.take_hanging(self.tables, one))
        return int(self.db.execute(f"SELECT count(*) FROM {sources.set_name(number)}").fetchone()[0])

    def _refuse_hanging(self) -> None:
        """What may not stay behind: rows of the same kind, and where children do not leave, any that came since."""
        for one in self.source.family.hanging:
            if one.parent.name not in self._numbers or (self.task.children and not one.child.circular):
                continue
            hangs = one.hangs(sources.in_set(one.parent, self._numbers[one.parent.name]))
            number = self._numbers.get(one.shape.name)
            others = "1" if number is None else f"NOT {sources.in_set(one.shape, number)}"
            if self.db.execute(f"SELECT 1 FROM {one.shape.words} WHERE {hangs} AND {others} LIMIT 1").fetchone():
                kind = "rows of their own kind" if one.child.circular else "rows that are due"
                cure = "They must go by hand, leaves first" if one.child.circular else "See on_children of the rule"
                message = f"rows of {one.shape.name} hang from {kind}"
                raise Refused(message, database=self.session.database, obj=one.parent.name, cure=cure)

    def _frames(self) -> t.Iterator[Frame]:
        archived = {child.table.path[-1] for child in self.task.children if child.archived}
        for number, shape in enumerate(self.tables):
            if shape is self.source.shape:
                yield self._root_frame(number)
            elif shape.name in archived:
                rows = self.db.execute(
                    f"SELECT {columns_of(shape)} FROM {shape.words} WHERE {sources.in_set(shape, number)}"
                )
                yield Frame(self.task.ref._replace(path=(shape.name,)), _described(shape), rows.fetchall())

    def _root_frame(self, number: int) -> Frame:
        shape, dates, key = self.source.shape, self.source.dates, self.source.shape.key()
        names = key.words if key else ()
        width = len(shape.columns)
        ask = f"SELECT {columns_of(shape)}, {', '.join(names)}, {dates.column}, {dates.moments()} FROM {shape.words}"
        found = self.db.execute(f"{ask} WHERE {sources.in_set(shape, number)}").fetchall()
        unseen = hidden(shape)
        keys = [json.dumps([*map(plain, row[width:-2]), *((digest(row[:width]),) if unseen else ())]) for row in found]
        spans: dict[int, list[float]] = {}
        for row in found:
            spans.setdefault(row[-2], []).append(row[-1])
        first = min(dates.moment(kind, min(values), last=False) for kind, values in spans.items())
        last = max(dates.moment(kind, max(values), last=True) for kind, values in spans.items())
        return Frame(self.task.table, _described(shape), [row[:width] for row in found], keys, first, last)

    def _copy(self, counts: list[int]) -> None:
        for shape, to in self._moves():
            number = self._numbers[shape.name]
            try:
                copied = self.db.execute(sources.copy(shape, number, to)).rowcount
            except sqlite3.IntegrityError as error:
                cure = f"Mend {to}: its keys must not be narrower than those of {shape.name}"
                raise Refused(
                    f"{to} does not take a row: {error}", database=self.session.database, cure=cure
                ) from error
            self._same(shape, copied, counts[number])

    def _same(self, shape: Shape, done: int, meant: int) -> None:
        """A trigger may keep rows where they are (RAISE(IGNORE))."""
        if done != meant:
            message = f"{done} of {meant} rows were moved or deleted: a trigger keeps the others"
            raise Refused(message, database=self.session.database, obj=shape.name)

    # ---- cursors -----------------------------------------------------------------------------------------------------

    def checked(self, cursor: str | None) -> str | None:
        """One of another rule, or of a table that was made anew, is none."""
        try:
            known = json.loads(cursor) if cursor else None
        except ValueError:
            return None
        fits = isinstance(known, list) and len(known) == 1 + len(self.walk.words) and known[0] == self.mark_of_cursor
        return cursor if fits else None

    def _values(self, cursor: str | None) -> list[t.Any] | None:
        return None if cursor is None else [unplain(value) for value in json.loads(cursor)[1:]]

    def _bound(self, after: list[t.Any] | None, end: list[t.Any] | None) -> dict[str, t.Any]:
        bound: dict[str, t.Any] = {"low": self.range.low, "high": self.range.high} if self.walk.by_date else {}
        bound.update({f"after_{i}": value for i, value in enumerate(after or ())})
        bound.update({f"end_{i}": value for i, value in enumerate(end or ())})
        return bound


def _bindable(words: str, bound: t.Mapping[str, t.Any]) -> str:
    for name, value in bound.items():
        asked, _value = binding(name, value)
        if asked != f":{name}":
            words = words.replace(f":{name}", asked)
    return words


def _params(bound: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {name: binding(name, value)[1] for name, value in bound.items()}


def _described(shape: Shape) -> tuple[Column, ...]:
    """Each value says what it is: a column's type does not bind it."""
    return tuple(Column(column.name, column.type, "any") for column in shape.columns)


def _fingerprint(task: Purge, source: Source, walk: Walk) -> str:
    types = [column.type for column in source.shape.columns if column.name in walk.names]
    return digest([task.rule, source.shape.name, task.expiry.where, *walk.words, *types])
