# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How old rows are taken out of a table, bite by bite. The order of a bite is nibble.py's, what is due retention.py's.

Rows that may be removed by their range are: one DELETE that repeats the whole condition. Where something else has to be
the same rows (an archive, rows that hang from them, a condition that may say otherwise a moment later), their keys are
read and locked first, and just these are removed.
"""

from __future__ import annotations

import json
import typing as t
import zlib

from ..._errors import Busy, CannotConnect, Gone, Refused
from ..._retention import Frame, Pending, Taken
from ..._tasks import Purge
from . import old_rows
from .connection import Link
from .crew import LEAST, Crew, Pair
from .faults import number_of
from .names import quoted
from .offspring import Family
from .purge_session import frozen
from .stores import Store, Way, names_sql
from .targets import Target, fingerprint, merged, plain, written

LOCK_WAIT = 1205
GALERA_ROWS = 2000  # a write set is certified, and replayed, as a whole
KEYS_AT_ONCE = 2000


class Bites:
    """The rows of one table that a task is about; fulfils nibble.Bites."""

    def __init__(
        self,
        link: Link,
        task: Purge,
        store: Store,
        way: Way,
        *,
        goes: Target | None,
        family: Family,
        now: float,
        galera: bool = False,
        crew: Crew | None = None,
    ) -> None:
        self.link, self.task, self.store, self.way, self.goes, self.family = link, task, store, way, goes, family
        self.most = GALERA_ROWS if galera else task.most
        expiry, field = task.expiry, store.field(task.expiry.column)
        if field is None:
            raise Refused(f"there is no column {expiry.column}", database=task.ref.database, obj=str(task.ref))
        self.field, self.obj = field, str(task.ref)
        self.key = (store.key or way).columns
        self.by_date = way.columns[0] == field.name
        self.dates = old_rows.dates(field.data_type, expiry)
        self.parents = old_rows.dates(field.data_type, expiry, of="d0")
        self.where = f"{self.dates} AND {old_rows.wrapped(expiry.where)}" if expiry.where else self.dates
        self.steady = not expiry.where or old_rows.steady(expiry.where)
        # The moment from which the cutoff was counted is the user's NOW().
        self.now = None if self.steady else now
        part = f" PARTITION ({quoted(task.ref.partition)})" if task.ref.partition else ""
        self.table = f"{store.sql}{part}"
        self.source = f"{self.table} FORCE INDEX ({quoted(way.via)})"
        self.keyed = f"{self.table} FORCE INDEX ({quoted((store.key or way).via)})"
        self.quick = self.steady and not family.members and not family.silent
        self.waits = 0
        self.last: str | None = None  # cursor; "": there is nothing
        # Rows that go nowhere, and that nothing hangs from, can be removed by two sessions at once.
        alone = goes is not None or galera or not self.quick or not store.transactional
        self.crew = None if alone else crew
        self.middle: tuple[str, list[list[str]]] | None = None  # of the bite that ends there: two neighbours
        self.pair: Pair | None = None

    # ---- where a bite ends -------------------------------------------------------------------------------------------

    def _print(self) -> str:
        kinds = [self.store.kinds([c])[0] for c in self.way.columns]
        return f"{zlib.crc32(repr((self.task.rule, self.obj, self.way, kinds)).encode()):08x}"

    def _cursor(self, values: t.Sequence[str | bytes]) -> str:
        texts = [v.hex() if isinstance(v, bytes) else v for v in values]
        return json.dumps({"walk": self._print(), "at": texts})

    def _literals(self, cursor: str | None) -> list[str] | None:
        """None for one that was not made on this walk: it begins anew."""
        try:
            found = json.loads(cursor or "null")
            if not found or found["walk"] != self._print() or len(found["at"]) != len(self.way.columns):
                return None
            return [old_rows.literal(str(v), k) for v, k in zip(found["at"], self.store.kinds(self.way.columns))]
        except (ValueError, KeyError, TypeError):
            return None

    def _range(self, after: list[str] | None, upto: list[str] | None) -> list[str]:
        found = old_rows.between(self.way.columns, after, upto)
        return [found] if found else []

    def end(self, cursor: str | None, rows: int, until: str | None) -> str | None:
        """Where a bite of so many rows ends: of due ones by the dates where the walk begins with them, else of any.

        It never lies beyond the last row that was due when this began: what the application adds is not run after, and
        what comes behind that row, on a key in the order of the dates all that stays, is neither walked nor locked.
        """
        rows = max(1, min(rows, self.most))
        if self.last is None:
            self.last = self._edge([self.dates]) or ""
        if not self.last:
            return None
        scope = self._range(self._literals(cursor), self._literals(until or self.last))
        if scope == ["FALSE"]:
            return None
        found = self._edge(scope, rows - 1) or self._edge(scope)
        self.middle = None
        if found and self.crew and rows >= 2 * LEAST:
            pair = self._keys(self._edges(scope, rows // 2 - 1, 2), self.way.columns)
            self.middle = (found, pair) if len(pair) == 2 else None
        return found

    def _edge(self, scope: list[str], skip: int | None = None) -> str | None:
        """The key after so many others; the last one of the range without."""
        found = self._edges(scope, skip)
        return self._cursor(found[0]) if found else None

    def _edges(self, scope: list[str], skip: int | None, count: int = 1) -> list[tuple[t.Any, ...]]:
        names = [quoted(c) for c in self.way.columns]
        where = " AND ".join(dict.fromkeys([*scope, *([self.dates] if self.by_date else [])])) or "TRUE"
        order = ", ".join(f"{name} DESC" if skip is None else name for name in names)
        some = f"LIMIT {count} OFFSET {skip or 0}"
        query = f"SELECT {', '.join(names)} FROM {self.source} WHERE {where} ORDER BY {order} {some}"
        return self.link.texts(query, obj=self.obj)

    # ---- taking ------------------------------------------------------------------------------------------------------

    def take(self, cursor: str | None, end: str) -> Taken:
        """Raises Busy where rows are locked, or changed while they were taken."""
        scope = " AND ".join([*self._range(self._literals(cursor), self._literals(end)), self.where])
        halved = self._by_halves(cursor, end)
        if halved is not None:
            return halved
        try:
            if self.quick and self.waits < 3:
                return self._by_range(scope)
        except Busy as busy:
            if number_of(busy.__cause__ or busy) != LOCK_WAIT or self.by_date:
                raise
            # Along the key rows are looked at that stay: somebody may hold such a row for long.
            self.rollback()
            self.waits += 1
        return self._by_keys(scope)

    def _by_halves(self, cursor: str | None, end: str) -> Taken | None:
        """Two sessions at once. None where that cannot be, and nothing was removed: then one does it, as ever."""
        other = self.crew.lend() if self.crew and self.middle and self.middle[0] == end else None
        if other is None or self.crew is None or self.middle is None:
            return None
        one, two = self.middle[1]
        ranges = (self._range(self._literals(cursor), one), self._range(two, self._literals(end)))
        lower, upper = (self._delete(" AND ".join([*scope, self.where])) for scope in ranges)
        between = self._delete(f"{old_rows.among(self.way.columns, [two])} AND {self.where}")
        self.pair = Pair(self.crew, self.link, other, self.obj)
        try:
            return self._taken(self.pair.delete(lower, upper, between), 0, 0, [])
        except (Busy, Gone, Refused, CannotConnect):
            self.rollback()
            self.crew = None
            return None

    def _delete(self, scope: str) -> str:
        return f"DELETE {self.store.sql} FROM {self.source} WHERE {scope}"

    def _begin(self) -> None:
        self.link.run("START TRANSACTION", obj=self.obj)

    def _by_range(self, scope: str) -> Taken:
        """What is archived is locked, so it leaves; what came between leaves too, and then the numbers differ."""
        self._begin()
        kept, frames = self._archive(self.source, scope)
        gone = self.link.change(self._delete(scope), obj=self.obj)
        return self._taken(gone, kept, 0, frames)

    def _by_keys(self, scope: str) -> Taken:
        key = [quoted(c) for c in self.key]
        asked = f"SELECT {', '.join(key)} FROM "
        with frozen(self.link, self.now):
            seen = self._keys(self.link.texts(f"{asked}{self.source} WHERE {scope}", obj=self.obj), self.key)
            self._begin()
            held: list[list[str]] = []
            for start in range(0, len(seen), KEYS_AT_ONCE):
                some = old_rows.among(self.key, seen[start : start + KEYS_AT_ONCE])
                locked = f"{asked}{self.keyed} WHERE {some} AND {self.where} FOR UPDATE"
                held += self._keys(self.link.texts(locked, obj=self.obj), self.key)
        gone = kept = children = 0
        frames: list[Frame] = []
        for start in range(0, len(held), KEYS_AT_ONCE):
            keys = held[start : start + KEYS_AT_ONCE]
            # With the date's condition no optimizer takes a scan of the table, and its locks, for cheaper.
            some = f"{old_rows.among(self.key, keys)} AND {self.dates}"
            whose = f"{old_rows.among(self.key, keys, of='d0')} AND {self.parents}"
            removed, more = self.family.take(self.link, whose)
            children, frames = children + removed, frames + more
            archived, more = self._archive(self.keyed, some)
            kept, frames = kept + archived, frames + more
            # Where nothing can be locked the condition has to be repeated.
            again = "" if self.store.transactional else f" AND {self.where}"
            gone += self.link.change(f"DELETE {self.store.sql} FROM {self.keyed} WHERE {some}{again}", obj=self.obj)
        if gone != len(held) and self.store.transactional:
            raise self._changed(len(held), gone)
        return self._taken(gone, kept, children, merged(frames))

    def _keys(self, rows: t.Iterable[t.Sequence[str | bytes]], columns: t.Sequence[str]) -> list[list[str]]:
        kinds = self.store.kinds(columns)
        return [
            [old_rows.literal(v.hex() if isinstance(v, bytes) else str(v), k) for v, k in zip(row, kinds)]
            for row in rows
        ]

    def _archive(self, source: str, scope: str) -> tuple[int, list[Frame]]:
        """Puts the rows where they go, and locks them; how many there were."""
        if self.goes is None:
            return 0, []
        if self.goes.to is not None:
            names = names_sql(self.goes.fields)
            into = f"INSERT INTO {self.goes.to.sql} ({names})"
            return self.link.change(f"{into} SELECT {names} FROM {source} WHERE {scope} FOR UPDATE", obj=self.obj), []
        asked = ", ".join(written(f) for f in self.goes.fields)
        rows = self.link.texts(f"SELECT {asked} FROM {source} WHERE {scope} FOR UPDATE", obj=self.obj)
        return len(rows), [self._frame(rows)] if rows else []

    def _frame(self, rows: list[tuple[t.Any, ...]]) -> Frame:
        goes = t.cast(Target, self.goes)
        names = [f.name for f in goes.fields]
        places = [names.index(c) for c in self.key]
        date = names.index(self.field.name)
        first, last = old_rows.span((row[date] for row in rows), self.field.data_type, self.task.expiry)
        keys = [json.dumps([[plain(row[i]) for i in places], fingerprint(row)]) for row in rows]
        return Frame(self.task.table, goes.columns, rows, keys, first, last)

    def _taken(self, gone: int, kept: int, children: int, frames: list[Frame]) -> Taken:
        if self.goes is not None and gone != kept:
            raise self._changed(kept, gone)
        return Taken(gone, gone * self.store.row_bytes, children, tuple(frames))

    def _changed(self, expected: int, gone: int) -> Busy:
        return Busy(f"rows changed while they were taken ({expected} read, {gone} removed): nothing was", obj=self.obj)

    # ---- how it ends -------------------------------------------------------------------------------------------------

    def mark(self) -> str:
        """There is none on these servers: whether a transaction was committed is told by its rows."""
        return ""

    def commit(self) -> None:
        pair, self.pair = self.pair, None
        if pair:
            pair.commit()
        else:
            self.link.run("COMMIT", obj=self.obj)

    def rollback(self) -> None:
        pair, self.pair = self.pair, None
        if pair:
            pair.undo()
        else:
            self.link.rollback()

    def committed(self, pending: Pending) -> bool:
        """Whether none of the rows is there any more as it was. Raises Busy while their transaction is still open.

        A row of the same key that the application wrote since is another one. What cannot be told counts as committed:
        then the file keeps rows that may be in the table as well, and none is lost.
        """
        names = [written(f) for f in self.goes.fields] if self.goes else []
        for start in range(0, len(pending.keys) if names else 0, KEYS_AT_ONCE):
            keys, prints = self._known(pending.keys[start : start + KEYS_AT_ONCE])
            where = f"{old_rows.among(self.key, keys)} AND {self.dates}"
            query = f"SELECT {', '.join(names)} FROM {self.keyed} WHERE {where} FOR UPDATE"
            self._begin()
            try:
                rows = self.link.texts(query, obj=self.obj)
            finally:
                self.rollback()
            if any(fingerprint(row) in prints for row in rows):
                return False
        return True

    def _known(self, keys: t.Iterable[str]) -> tuple[list[list[str]], set[int]]:
        kinds, found, prints = self.store.kinds(self.key), [], set()
        for text in keys:
            try:
                values, content = json.loads(text)
                found.append([old_rows.literal(str(v), k) for v, k in zip(values, kinds)])
                prints.add(int(content))
            except (ValueError, TypeError):
                continue
        return found, prints
