# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One DELETE, and where its rows go: nowhere, into a table, or through memory into a file. Not which rows."""

from __future__ import annotations

import math
import typing as t
from datetime import datetime, timedelta, timezone

from ..._errors import Refused
from ..._records import Ref
from ..._retention import Column as Told
from ..._retention import Expiry, Frame
from ..._tuples import NamedTuple
from .connection import Connection
from .due import EPOCH, seconds_of
from .names import quoted, table_name
from .subject import Column, Subject

EARLIEST = datetime(1, 1, 1, tzinfo=timezone.utc)
TEXT = "{}::pg_catalog.text"
WITNESSES = 500  # rows of a bite that are remembered by their place and version


class Removal(NamedTuple):
    """What is needed to take rows out of one table."""

    subject: Subject
    ref: Ref  # under which its rows are filed
    source: str  # of the DELETE: the table and its alias
    alias: str
    to: Ref | None = None
    in_memory: bool = False  # the rows are handed over, for a file
    dated: tuple[Column, Expiry] | None = None  # the rule's own table

    def statement(self, conditions: str) -> str:
        delete = f"DELETE FROM {self.source} WHERE {conditions}"
        if self.in_memory:
            return (
                f"{delete} RETURNING {', '.join(_read_as(c, self.alias) for c in self.subject.columns)}{self._moment()}"
            )
        if self.to is None:
            return delete
        columns = ", ".join(quoted(c.name) for c in self.subject.columns)
        # OVERRIDING: a column of the archive that counts by itself keeps the number that the row has.
        into = f"INSERT INTO {table_name(self.to)} ({columns}) OVERRIDING SYSTEM VALUE"
        returning = ", ".join(f"{quoted(self.alias)}.{quoted(c.name)}" for c in self.subject.columns)
        return (
            f"WITH gone AS ({delete} RETURNING {returning}),"
            f" kept AS ({into} SELECT * FROM gone RETURNING 1)"
            " SELECT (SELECT pg_catalog.count(*) FROM gone), (SELECT pg_catalog.count(*) FROM kept)"
        )

    def _moment(self) -> str:
        return self._moment_in(*self.dated) if self.dated else ""

    def _moment_in(self, column: Column, expiry: Expiry) -> str:
        alias = quoted(self.alias)
        seconds = seconds_of(f"{alias}.{quoted(column.name)}", column, expiry)
        version = ", ".join(f"{alias}.{name}::pg_catalog.text" for name in ("tableoid", "ctid", "xmin"))
        return f", {version}, {seconds}"

    def run(self, connection: Connection, conditions: str) -> tuple[int, Frame | None]:
        """Rows removed, and in memory where they are wanted there. Raises Refused where the archive kept less."""
        statement = self.statement(conditions)
        if self.in_memory:
            return self._framed(connection.rows(statement))
        if self.to is None:
            return connection.affected(statement), None
        ((gone, kept),) = connection.rows(statement)
        if gone != kept:
            raise Refused(
                f"{gone} rows were to go there, and it kept {kept}: a trigger turns rows away",
                database=self.to.database,
                obj=str(self.to),
                cure="Drop that trigger, or archive into another table",
            )
        return int(gone), None

    def _framed(self, rows: list[t.Any]) -> tuple[int, Frame | None]:
        if not rows:
            return 0, None
        first, last, keys = "", "", []
        if self.dated is not None:
            moments = [row[-1] for row in rows]
            first, last = _iso(min(moments)), _iso(max(moments))
            keys = [" ".join(row[-4:-1]) for row in rows[:WITNESSES]]
            rows = [row[:-4] for row in rows]
        binary = [place for place, c in enumerate(self.subject.columns) if c.base == "bytea"]
        if binary:
            rows = [[bytes(v) if n in binary and v is not None else v for n, v in enumerate(row)] for row in rows]
        return len(rows), Frame(self.ref, told(self.subject), rows, keys, first=first, last=last)


def told(subject: Subject) -> tuple[Told, ...]:
    """The columns as they stand in an archive file."""
    return tuple(Told(c.name, c.type, _encoding(c)) for c in subject.columns)


def _encoding(column: Column) -> str:
    if column.base == "bytea":
        return "hex"
    if column.base == "boolean":
        return "boolean"
    numbers = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
    return "number" if column.base in numbers else "text"


def _read_as(column: Column, alias: str) -> str:
    """As the server writes it: no driver's idea of a date or a number comes in between."""
    name = f"{quoted(alias)}.{quoted(column.name)}"
    if column.base == "bytea":
        return f"{name}::pg_catalog.bytea"
    return f"{name}::pg_catalog.bool" if column.base == "boolean" else TEXT.format(name)


def _iso(seconds: float) -> str:
    """What was before the year 1 as its first day: Python has no way to write it."""
    if seconds == -math.inf:
        return "-infinity"
    try:
        return (EPOCH + timedelta(microseconds=round(seconds * 1_000_000))).isoformat()
    except (OverflowError, ValueError):
        return EARLIEST.isoformat()
