# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where rows are, on every engine and in archive files, in one form that can be compared. No test lives here.

A row is a dictionary of its columns without those that are NULL: a column that was added later is NULL in what was
archived before. Values bear their kind: `#` number, `'` text, `x` bytes, `?` boolean.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Self

import psycopg2
import pymysql

from tests.fleet import Server
from tests.integration import archive_files

Row = dict[str, str]
Content = Counter[str]


def content(*places: Iterable[Row]) -> Content:
    """How often each row is there, in all of the places together."""
    return Counter(json.dumps(row, sort_keys=True) for rows in places for row in rows)


def digest(*places: Iterable[Row]) -> str:
    """The content hash: the same for the same rows in any order and in any division over places."""
    whole = hashlib.sha256()
    for row, count in sorted(content(*places).items()):
        whole.update(f"{count} {row}\n".encode("utf-8", "surrogatepass"))
    return whole.hexdigest()


# ---- values ----------------------------------------------------------------------------------------------------------


def number(text: str) -> str:
    """1, 1.0 and 1e0 are one number; NaN and infinities are their own."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return "#" + text.lower()
    if not value.is_finite():
        return "#" + str(value).lower()
    sign, digits, exponent = value.as_tuple()  # normalize() would round
    plain = "".join(map(str, digits)).lstrip("0")
    short = plain.rstrip("0")
    return f"#{'-' * sign}{short}e{int(exponent) + len(plain) - len(short)}" if short else "#0"


def of_text(text: str | bytes | None, encoding: str) -> str | None:
    """A value as a server or a file writes it, of a column of this encoding."""
    if text is None:
        return None
    if isinstance(text, bytes):
        return "x" + text.hex()
    if encoding == "number":
        return number(text)
    if encoding == "boolean":
        return "?" + str(text.lower() in ("t", "true", "1")).lower()
    if encoding == "hex":
        return "x" + text.removeprefix("\\x").lower()
    return "'" + text


def of_value(value: Any) -> str | None:
    """A value as Python has it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "?" + str(value).lower()
    if isinstance(value, (int, float, Decimal)):
        return number(repr(value) if isinstance(value, float) else str(value))
    return "x" + value.hex() if isinstance(value, bytes) else "'" + str(value)


def _row(names: Sequence[str], values: Iterable[str | None]) -> Row:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


# ---- tables ----------------------------------------------------------------------------------------------------------

_POSTGRESQL = {**dict.fromkeys((20, 21, 23, 26, 700, 701, 1700), "number"), 16: "boolean", 17: "hex"}
_MYSQL = dict.fromkeys((0, 1, 2, 3, 4, 5, 8, 9, 13, 246), "number")
_MYSQL_FLOAT = 4


def rows_of(where: Server | Path | str, table: str, condition: str = "", *, database: str = "") -> list[Row]:
    """The rows of a table on any engine; its name as it stands in SQL."""
    if not isinstance(where, Server):
        return _sqlite_rows(where, table, condition)
    reader = _postgresql_rows if where.engine == "postgresql" else _mysql_rows
    with connection(where, database) as db:
        return reader(db, table, f" WHERE {condition}" if condition else "")


def _sqlite_rows(path: Path | str, table: str, condition: str) -> list[Row]:
    db = sqlite3.connect(path, timeout=30)
    try:
        db.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        cursor = db.execute(f"SELECT * FROM {table}" + (f" WHERE {condition}" if condition else ""))
        names = [column[0] for column in cursor.description]
        return [_row(names, map(of_value, values)) for values in cursor]
    finally:
        db.close()


def _postgresql_rows(db: Any, table: str, scope: str) -> list[Row]:
    with db.cursor() as cursor:
        cursor.execute("SET timezone = 'UTC'")
        cursor.execute(f"SELECT * FROM {table} LIMIT 0")
        names = [column.name for column in cursor.description]
        kinds = [_POSTGRESQL.get(column.type_code, "text") for column in cursor.description]
        asked = ", ".join('"' + name.replace('"', '""') + '"::text' for name in names)
        cursor.execute(f"SELECT {asked} FROM {table}{scope}")
        return [_row(names, map(of_text, values, kinds)) for values in cursor.fetchall()]


def _mysql_rows(db: Any, table: str, scope: str) -> list[Row]:
    with db.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(f"SELECT * FROM {table} LIMIT 0")
        names = [column[0] for column in cursor.description]
        types = [column[1] for column in cursor.description]
        quoted = ["`" + name.replace("`", "``") + "`" for name in names]
        # A FLOAT is written with six digits.
        asked = [name + " + 0e0" if kind == _MYSQL_FLOAT else name for name, kind in zip(quoted, types, strict=True)]
        cursor.execute(f"SELECT {', '.join(asked)} FROM {table}{scope}")
        kinds = [_MYSQL.get(kind, "text") for kind in types]
        return [_row(names, map(of_text, values, kinds)) for values in cursor.fetchall()]


@contextmanager
def connection(where: Server | Path | str, database: str = "") -> Iterator[Any]:
    """A connection of an application in autocommit; values of MySQL come as text."""
    db: Any
    if not isinstance(where, Server):
        db = sqlite3.connect(where, timeout=30, isolation_level=None)
    elif where.engine == "postgresql":
        login: dict[str, Any] = {"user": where.user, "password": where.password, "dbname": database}
        db = psycopg2.connect(host=where.host, port=where.port, application_name="shop", **login)
        db.autocommit = True
    else:
        account: dict[str, Any] = {"user": where.user, "password": where.password, "database": database}
        db = pymysql.connect(host=where.host, port=where.port, autocommit=True, conv={}, charset="utf8mb4", **account)
    try:
        yield db
    finally:
        db.close()


# ---- files -----------------------------------------------------------------------------------------------------------


def rows_in_files(folder: Path, table: str = "", *, pending: bool = False) -> list[Row]:
    """The rows of all finished files of an archive, or of those of one table.

    Every file must have its manifest with the true hash and count; unless `pending`, nothing may be left over.
    """
    found: list[Row] = []
    files = archive_files.finished(folder, pending=pending)
    for file in files:
        if table and table not in (file.table, file.table.rpartition(".")[2]):
            continue
        for values in file.read():
            kinds = [column.encoding for column in file.columns]
            cells = [_of_cell(value, kind) for value, kind in zip(values, kinds, strict=True)]
            found.append(_row([column.name for column in file.columns], cells))
    return found


def _of_cell(value: Any, encoding: str) -> str | None:
    if isinstance(value, archive_files.Number):
        return number(value)
    return of_text(value, encoding) if isinstance(value, str) else of_value(value)


# ---- the application -------------------------------------------------------------------------------------------------

# Words of errors after which an application tries again.
_TRANSIENT = ("locked", "deadlock", "Deadlock", "Lock wait timeout", "serialize", "could not obtain lock")


class Application:
    """Updates and inserts rows of a table meanwhile, and knows the last state of each that it committed.

    The table has `id` (number), `note` (text) and what `insert` fills in; `ids` are those that it updates.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Any]],
        table: str,
        ids: Sequence[int],
        insert: Callable[[int], str] | None = None,
        *,
        pause: float = 0.002,
    ) -> None:
        self._connect, self._table, self._ids, self._insert, self._pause = connect, table, ids, insert, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.notes: dict[int, str] = {}  # as last committed; a row that was gone was not updated
        self.inserted: set[int] = set()
        self.refused = 0  # updates that came too late
        self.failed: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *what: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if self.failed or self._thread.is_alive():
            raise AssertionError(f"the application failed: {self.failed or 'it hangs'}")

    def _run(self) -> None:
        try:
            with self._connect() as db:
                turn = 0
                while not self._stop.wait(self._pause):
                    turn += 1
                    self._turn(db, turn)
        except Exception as error:
            self.failed.append(repr(error))

    def _turn(self, db: Any, turn: int) -> None:
        row, note = self._ids[turn * 7919 % len(self._ids)], f"updated {turn}"
        if self._said(db, f"UPDATE {self._table} SET note = '{note}' WHERE id = {row}"):
            self.notes[row] = note
        else:
            self.refused += 1
        fresh = max(self._ids) + turn
        if self._insert and self._said(db, self._insert(fresh)):
            self.inserted.add(fresh)

    def _said(self, db: Any, statement: str) -> int:
        """Rows changed; none where it was to be tried again."""
        cursor = db.cursor()
        try:
            cursor.execute(statement)
            return int(cursor.rowcount)
        except Exception as error:
            if any(words in str(error) for words in _TRANSIENT):
                return 0
            raise
        finally:
            cursor.close()

    def check(self, places: Mapping[str, Iterable[Row]]) -> None:
        """Each of its rows is in exactly one place, as it was last."""
        found: dict[int, list[tuple[str, Row]]] = {}
        for place, rows in places.items():
            for row in rows:
                found.setdefault(int(Decimal(row["id"].lstrip("#'"))), []).append((place, row))
        twice = {row: at for row, at in found.items() if len(at) > 1}
        lost = (set(self._ids) | self.inserted) - set(found)
        stale = {r: at for r, at in found.items() if r in self.notes and at[0][1].get("note") != "'" + self.notes[r]}
        if twice or lost or stale:
            raise AssertionError(
                f"{len(twice)} twice, {len(lost)} lost, {len(stale)} stale: {_few(twice, lost, stale)}"
            )


def _few(*what: Any) -> str:
    return "; ".join(str(list(one.items() if isinstance(one, dict) else one)[:3]) for one in what)
