# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rows are due, in SQL: the dates and the user's own condition. What is done with them stands elsewhere."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta, timezone

from ..._retention import Expiry
from .names import literal, quoted
from .subject import Column

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
UNITS = {"seconds": 1_000_000, "milliseconds": 1000, "microseconds": 1}  # of a microsecond
NUMBERS = ("smallint", "integer", "bigint", "numeric")
DATES = ("date", "timestamp without time zone", "timestamp with time zone")
LEAST = "-1e18"  # of a number that still says when
EARLY = "'4000-01-01 BC'::pg_catalog.timestamp"
ZONE = "SELECT pg_catalog.timezone(%s, pg_catalog.now())"  # an error where the server does not know it


def why_no_date(column: Column, expiry: Expiry) -> tuple[str, str]:
    """Why this column cannot be compared with a moment as the rule says, and what to do; ("", "") where it can."""
    if column.base in DATES:
        if expiry.unit:
            return f"{column.name} is a {column.type}: date_unit is for whole numbers", "Leave date_unit out"
        return "", ""
    if column.base in NUMBERS:
        if not expiry.unit:
            why = f"{column.name} is a {column.type}: nothing says what it counts"
            return why, "Set date_unit: seconds, milliseconds or microseconds"
        return "", ""
    return f"{column.name} is a {column.type}, not a date", "Name a column of dates, of times, or of seconds since 1970"


def bound(moment: datetime, column: Column, expiry: Expiry) -> str:
    """The first value of this column that does not lie before the moment; a constant of the column's type.

    Of a `date` it is the moment's calendar day where the rule says that its days begin.
    """
    said = f"{literal(moment.astimezone(timezone.utc).strftime('%Y-%m-%d %H:%M:%S.%f+00'))}::pg_catalog.timestamptz"
    if column.base == "timestamp with time zone":
        return said
    if column.base in NUMBERS:
        since = (moment - EPOCH) // timedelta(microseconds=1)
        whole = -(-since // UNITS[expiry.unit])
        kind = "numeric" if column.base == "numeric" else "int8"
        return f"{literal(str(whole))}::pg_catalog.{kind}"
    local = f"pg_catalog.timezone({literal(expiry.zone)}, {said})"
    return f"{local}::pg_catalog.date" if column.base == "date" else local


def seconds_of(value: str, column: Column, expiry: Expiry) -> str:
    """A value of this column in seconds since 1970, in SQL.

    None is too early for it: applications write the least that a type can hold for "never", and neither to_timestamp
    nor another time zone takes that.
    """
    if column.base == "timestamp with time zone":
        return f"extract(epoch FROM {value})::pg_catalog.float8"
    if column.base in NUMBERS:
        number = f"greatest({value}::pg_catalog.numeric, {LEAST}::pg_catalog.numeric)::pg_catalog.float8"
        return f"({number} OPERATOR(pg_catalog./) {1_000_000 // UNITS[expiry.unit]}::pg_catalog.float8)"
    local = f"{value}::pg_catalog.timestamp"
    there = f"pg_catalog.timezone({literal(expiry.zone)}, {local})"
    return (
        f"CASE WHEN {local} OPERATOR(pg_catalog.<) {EARLY} THEN extract(epoch FROM {local})"
        f" ELSE extract(epoch FROM {there}) END::pg_catalog.float8"
    )


def in_time(column: Column, expiry: Expiry, alias: str) -> list[str]:
    """The conditions on the date. Rows without one never leave, nor do those of `infinity`; those of -infinity do."""
    name = f"{quoted(alias)}.{quoted(column.name)}"
    said = [f"{name} OPERATOR(pg_catalog.<) {bound(expiry.before, column, expiry)}"]
    if expiry.since is not None:
        said.append(f"{name} OPERATOR(pg_catalog.>=) {bound(expiry.since, column, expiry)}")
    return said


def due(column: Column, expiry: Expiry, alias: str) -> list[str]:
    """All conditions, the user's own among them: a comment at its end ends with the line."""
    return [*in_time(column, expiry, alias), *([f"(\n{expiry.where}\n)"] if expiry.where else [])]


def both(conditions: t.Iterable[str]) -> str:
    return " AND ".join(conditions) or "true"


def alone(table: str, where: str) -> str:
    """A statement that the server takes only where the condition can stand by itself.

    It is there twice: what would end the parenthesis around it breaks the CASE, and what would end the CASE breaks the
    parenthesis. The server parses all of a statement before it does anything.
    """
    return f"SELECT FROM {table} WHERE false AND CASE WHEN {where}\nTHEN (\n{where}\n) END"
