# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How old rows are taken out of a table, bite by bite. The order of a bite is nibble.py's, what is due retention.py's.

Rows that may be removed by their range are: one DELETE that repeats the whole condition. Where something else has to be
the same rows (an archive, rows that hang from them, a condition that may say otherwise a moment later), their keys are
read and locked first, and just these are removed.
"""

from __future__ import annotations

import contextlib
import json
import typing as t
import zlib

from ..._errors import Busy, DbFault, Refused
from ..._retention import Column, Frame, Pending, Taken
from ..._tasks import Purge
from . import old_rows
from .connection import Link
from .faults import number_of
from .names import quoted
from .offspring import Family
from .stores import Field, Store, Way, names_sql

LOCK_WAIT = 1205
GALERA_ROWS = 2000  # a write set is certified, and replayed, as a whole
KEYS_AT_ONCE = 2000
SETTINGS = {
    # A server may have them otherwise for everybody.
    "foreign_key_checks": "1",
    "sql_safe_updates": "0",
    "completion_type": "'NO_CHAIN'",
    # The plan is ours: looking into the index for each of thousands of keys would cost more than reading them.
    "eq_range_index_dive_limit": "1",
}
FLAVOURED = {
    "mysql": {"range_optimizer_max_mem_size": "0"},
    "mariadb": {"in_predicate_conversion_threshold": "0"},
}


def prepare(link: Link, *, strict: bool) -> None:
    """The session of a purge. `strict`: what does not fit the archive is an error, never cut off to fit.

    READ COMMITTED locks just the rows that leave. A server that logs statements refuses it, so that there the gaps
    between them are locked as well.
    """
    words = dict(SETTINGS, **FLAVOURED[link.flavour.name])
    if strict:
        words["sql_mode"] = "'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'"
    link.rows("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in words.items()))
    logs = {
        str(k): str(v).upper()
        for k, v in link.rows("SHOW VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format')")
    }
    repeatable = logs.get("log_bin") == "ON" and logs.get("binlog_format") == "STATEMENT"
    link.rows(f"SET SESSION TRANSACTION ISOLATION LEVEL {'REPEATABLE READ' if repeatable else 'READ COMMITTED'}")


@contextlib.contextmanager
def frozen(link: Link, seconds: float | None) -> t.Iterator[None]:
    """NOW() says the moment of the cutoff meanwhile.

    For what is read only: what is written would carry that moment into the binary log, and replicas would seem to lag
    by as much as the run has taken.
    """
    if seconds is None:
        yield
        return
    with contextlib.suppress(Refused):  # secure_timestamp: then it moves by the seconds of the run
        link.rows(f"SET SESSION timestamp = {seconds:.6f}")
    try:
        yield
    finally:
        with contextlib.suppress(DbFault):
            link.rows("SET SESSION timestamp = DEFAULT")


class Target(t.NamedTuple):
    """Where the rows of a table go: into which table, or through memory into a file."""

    store: Store
    fields: tuple[Field, ...]
    to: Store | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(f.name, f.type, encoding(f)) for f in self.fields)


def encoding(field: Field) -> str:
    """Of a column's values in files. See `written`."""
    if field.kind == old_rows.NUMBER or field.data_type in ("float", "double"):
        return "number"
    return "hex" if is_binary(field) else "text"


def is_binary(field: Field) -> bool:
    spatial = "geom" in field.data_type or field.data_type.endswith(("point", "string", "polygon", "vector"))
    return field.data_type == "bit" or "binary" in field.data_type or "blob" in field.data_type or spatial


def written(field: Field, of: str = "") -> str:
    """A column as it is read for a file: a FLOAT would be rounded to six digits."""
    name = f"{quoted(of)}.{quoted(field.name)}" if of else quoted(field.name)
    if field.data_type == "float":
        return f"{name} + 0e0"
    return name


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

        It never lies beyond what was the end when this began: else the walk would run after what the application adds.
        """
        rows = max(1, min(rows, self.most))
        if self.last is None:
            self.last = self._edge([]) or ""
        if not self.last:
            return None
        scope = self._range(self._literals(cursor), self._literals(until or self.last))
        return self._edge(scope, rows - 1) or self._edge(scope)

    def _edge(self, scope: list[str], skip: int | None = None) -> str | None:
        """The key after so many others; the last one of the range without."""
        names = [quoted(c) for c in self.way.columns]
        where = " AND ".join([*scope, *([self.dates] if self.by_date else [])]) or "TRUE"
        order = ", ".join(f"{name} DESC" if skip is None else name for name in names)
        query = (
            f"SELECT {', '.join(names)} FROM {self.source} WHERE {where} ORDER BY {order} LIMIT 1 OFFSET {skip or 0}"
        )
        found = self.link.texts(query, obj=self.obj)
        return self._cursor(found[0]) if found else None

    # ---- taking ------------------------------------------------------------------------------------------------------

    def take(self, cursor: str | None, end: str) -> Taken:
        """Raises Busy where rows are locked, or changed while they were taken."""
        scope = " AND ".join([*self._range(self._literals(cursor), self._literals(end)), self.where])
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

    def _begin(self) -> None:
        self.link.run("START TRANSACTION", obj=self.obj)

    def _by_range(self, scope: str) -> Taken:
        """What is archived is locked, so it leaves; what came between leaves too, and then the numbers differ."""
        self._begin()
        kept, frames = self._archive(self.source, scope)
        gone = self.link.change(f"DELETE {self.store.sql} FROM {self.source} WHERE {scope}", obj=self.obj)
        return self._taken(gone, kept, 0, frames)

    def _by_keys(self, scope: str) -> Taken:
        key = [quoted(c) for c in self.key]
        asked = f"SELECT {', '.join(key)} FROM "
        with frozen(self.link, self.now):
            seen = self._keys(self.link.texts(f"{asked}{self.source} WHERE {scope}", obj=self.obj))
            self._begin()
            held: list[list[str]] = []
            for start in range(0, len(seen), KEYS_AT_ONCE):
                some = old_rows.among(self.key, seen[start : start + KEYS_AT_ONCE])
                locked = f"{asked}{self.keyed} WHERE {some} AND {self.where} FOR UPDATE"
                held += self._keys(self.link.texts(locked, obj=self.obj))
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

    def _keys(self, rows: t.Iterable[t.Sequence[str | bytes]]) -> list[list[str]]:
        kinds = self.store.kinds(self.key)
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
        keys = [json.dumps([[_plain(row[i]) for i in places], fingerprint(row)]) for row in rows]
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
        self.link.run("COMMIT", obj=self.obj)

    def rollback(self) -> None:
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


def fingerprint(row: t.Sequence[t.Any]) -> int:
    """Of a row's content, as the server writes it."""
    return zlib.crc32(repr(tuple(row)).encode("utf-8", "surrogatepass"))


def _plain(value: t.Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def merged(frames: t.Sequence[Frame]) -> list[Frame]:
    """One frame a table."""
    found: dict[t.Any, Frame] = {}
    for frame in frames:
        known = found.get(frame.table)
        if known is None:
            found[frame.table] = frame
            continue
        ends = [e for e in (known.first, frame.first) if e], [e for e in (known.last, frame.last) if e]
        found[frame.table] = known._replace(
            rows=[*known.rows, *frame.rows],
            keys=[*known.keys, *frame.keys],
            first=min(ends[0], default=""),
            last=max(ends[1], default=""),
        )
    return list(found.values())
