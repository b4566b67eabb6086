# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RANGE partitions all of whose rows are old: which, and dropping them. Large ones: exchange.py; rows: purge.py."""

from __future__ import annotations

import re
import typing as t
from datetime import datetime, timedelta, timezone

from ..._errors import Refused, Vanished
from ..._records import Amount, Server, Tick, Work
from ..._retention import Expiry
from ..._tasks import DropPartition
from ..._tuples import NamedTuple
from . import old_rows, stores
from .connection import Link
from .faults import number_of
from .names import quoted, table_of
from .old_rows import EPOCH, INTEGERS
from .stores import Field, Store

# One row a subpartition.
PARTITIONS = """
    SELECT PARTITION_NAME, PARTITION_METHOD, PARTITION_EXPRESSION, PARTITION_DESCRIPTION,
           SUM(DATA_LENGTH + INDEX_LENGTH), SUM(TABLE_ROWS)
      FROM information_schema.PARTITIONS
     WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND PARTITION_NAME IS NOT NULL
     GROUP BY PARTITION_NAME, PARTITION_METHOD, PARTITION_EXPRESSION, PARTITION_DESCRIPTION,
              PARTITION_ORDINAL_POSITION
     ORDER BY PARTITION_ORDINAL_POSITION"""
_BY = re.compile(r"(?:(to_days|to_seconds|year|unix_timestamp)\()?`((?:[^`]|``)+)`\)?|(\w+)", re.IGNORECASE)
# The names alone: MariaDB reads a table's file for its comment.
BESIDE = """
    SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME LIKE %s"""
PREFIX = "dbfleet_"  # of the tables by way of which large ones leave
NO_SUCH_PARTITION = 1507
LARGE = 64 << 20  # bytes: removing the files of less takes no longer than what it takes to avoid waiting for that
FIRST_DAY = datetime(1, 1, 1, tzinfo=timezone.utc)  # moments stand for what the column's own clock says
YEAR_ZERO_DAYS = 366  # TO_DAYS of the first day that Python knows


class Range(NamedTuple):
    """A partition: what its column is below, as the column's own SQL text or number."""

    name: str
    below: int | datetime | None  # None: MAXVALUE, or not understood
    bytes: int
    rows: int  # estimated


def read(link: Link, store: Store, field: Field) -> list[Range]:
    """In order; none where the table is not partitioned by ranges of just this column."""
    if not store.partitioned:
        return []
    found = []
    for name, method, by, below, size, rows in link.rows(PARTITIONS, (store.ref.database, store.ref.path[0])):
        function = _function(str(method), str(by or ""), field)
        if function is None:
            return []
        found.append(Range(str(name), _bound(function, str(below), field), int(size or 0), int(rows or 0)))
    return found


def _function(method: str, by: str, field: Field) -> str | None:
    """What is made of the column; "" the column itself; None: something else."""
    words = _BY.fullmatch(by.strip())
    if method not in ("RANGE", "RANGE COLUMNS") or not words:
        return None
    name = (words.group(2) or words.group(3) or "").replace("``", "`")
    return (words.group(1) or "").lower() if name.casefold() == field.name.casefold() else None


def _bound(function: str, text: str, field: Field) -> int | datetime | None:
    """A moment on the column's own clock, or the column's own number."""
    if "MAXVALUE" in text.upper():
        return None
    try:
        if function == "to_days":
            return FIRST_DAY + timedelta(days=int(text) - YEAR_ZERO_DAYS)
        if function == "to_seconds":
            return FIRST_DAY + timedelta(seconds=int(text) - YEAR_ZERO_DAYS * 86400)
        if function == "year":
            return datetime(int(text), 1, 1, tzinfo=timezone.utc)
        if function == "unix_timestamp":
            return EPOCH + timedelta(seconds=float(text))
        if field.data_type in INTEGERS:
            return int(text)
        return _moment(text)
    except (ValueError, OverflowError):
        return None


def limit(field: Field, moment: datetime, expiry: Expiry) -> int | datetime:
    """A cutoff on the column's own clock."""
    text = old_rows.cutoff(field.data_type, moment, expiry)
    return int(text) if field.data_type in INTEGERS else _moment(text)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.strip("'")).replace(tzinfo=timezone.utc)


def due(ranges: t.Sequence[Range], field: Field, expiry: Expiry) -> list[tuple[Range, bool]]:
    """Those that hold nothing but what is due; and whether it is the lowest, where rows without a date lie.

    Never the last one: a table needs a partition, and new rows a place. The user's own condition cannot be told of a
    whole partition.
    """
    if expiry.where:
        return []
    before = limit(field, expiry.before, expiry)
    since = limit(field, expiry.since, expiry) if expiry.since is not None else None
    found, low = [], t.cast("int | datetime | None", None)
    for place, part in enumerate(ranges[:-1]):
        if part.below is None:
            break
        young = since is None or (low is not None and not _less(low, since))
        if young and not _less(before, part.below):
            found.append((part, place == 0))
        low = part.below
    return found


def _less(one: int | datetime, other: int | datetime) -> bool:
    if isinstance(one, datetime) and isinstance(other, datetime):
        return one < other
    return isinstance(one, int) and isinstance(other, int) and one < other


def undated(link: Link, store: Store, field: Field, name: str) -> bool:
    """Whether rows without a date, or with a zero one, lie in the lowest partition."""
    column, first = quoted(field.name), old_rows.FIRST.get(field.data_type)
    conditions = ([f"{column} IS NULL"] if field.nullable else []) + ([f"{column} < {first}"] if first else [])
    if not conditions:
        return False
    query = f"SELECT 1 FROM {store.sql} PARTITION ({quoted(name)}) WHERE {' OR '.join(conditions)} LIMIT 1"
    return bool(link.rows(query, obj=str(store.ref)))


def touched(ranges: t.Sequence[Range], field: Field, expiry: Expiry) -> list[Range]:
    """Those that may hold rows that are due."""
    before = limit(field, expiry.before, expiry)
    found: list[Range] = []
    for place, part in enumerate(ranges):
        low = ranges[place - 1].below if place else None
        if low is not None and not _less(low, before):
            break
        found.append(part)
    return found


def beside(link: Link, database: str) -> list[str]:
    """Tables that may be what dead runs left of partitions; whether they are is told by their comments."""
    return [str(row[0]) for row in link.rows(BESIDE, (database, PREFIX.replace("_", "\\_") + "%"))]


# ---- dropping --------------------------------------------------------------------------------------------------------


def spell_drop(task: DropPartition, server: Server) -> list[str]:
    table = table_of(task.table)
    words = [f"ALTER TABLE {table} DROP PARTITION {quoted(task.ref.partition)}"]
    return [f"LOCK TABLES {table} WRITE", *words, "UNLOCK TABLES"] if judged(task) else words


def judged(task: DropPartition) -> bool:
    """Whether rows may have come into it, since it was planned, that must not go with it."""
    return task.empty or bool(task.undated)


def drop(link: Link, task: DropPartition, server: Server, cursor: str | None) -> Work:
    """Of an archived one nothing is dropped that came since: with the lock nobody writes any more. Raises Busy."""
    words, obj = spell_drop(task, server), str(task.ref)
    try:
        if judged(task):
            # What was deleted a moment ago is still being removed: that is waited for before anybody else has to wait.
            assure(link, task)
            link.run(words[0], obj=obj)
            assure(link, task)
        drop_now(link, words[1] if judged(task) else words[0], task)
    finally:
        if judged(task) and not link.stopping:
            link.release_tables()
    yield Tick(Amount(rows=task.rows or 0))


def drop_now(link: Link, statement: str, task: DropPartition) -> None:
    """Raises Vanished where there is no such partition any more."""
    obj = str(task.ref)
    try:
        link.run(statement, obj=obj)
    except Refused as fault:
        if number_of(fault.__cause__ or fault) == NO_SUCH_PARTITION:
            raise Vanished(fault.cause, database=task.ref.database, obj=obj) from fault
        raise


def assure(link: Link, task: DropPartition) -> None:
    """Raises Refused where rows have come into it that must not go with it."""
    if task.empty:
        _assure_empty(link, task)
    store = stores.read(link, task.ref.database, [task.table.path[0]]).get(task.table.path[0]) if task.undated else None
    field = store.field(task.undated) if store else None
    if store and field and undated(link, store, field, task.ref.partition):
        raise Refused(
            "rows without a date are in it by now, and those never leave: it stays",
            database=task.ref.database,
            obj=str(task.ref),
            cure="The next run takes its other rows one by one",
        )


def _assure_empty(link: Link, task: DropPartition) -> None:
    query = f"SELECT 1 FROM {table_of(task.table)} PARTITION ({quoted(task.ref.partition)}) LIMIT 1"
    if link.rows(query, obj=str(task.ref)):
        raise Refused(
            "rows are in it that nobody has archived: it stays",
            database=task.ref.database,
            obj=str(task.ref),
            cure="The next run archives them, if they are due",
        )
