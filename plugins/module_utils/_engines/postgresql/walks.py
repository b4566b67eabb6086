# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order the rows of a table are walked, and what a bite's two ends are in SQL. Nothing is asked here."""

from __future__ import annotations

import hashlib
import json
import typing as t

from ..._retention import Expiry
from ..._tasks import CreateIndex
from ..._tuples import NamedTuple
from .names import literal, quoted
from .subject import Column, Index, Subject

CTID = "ctid"
Values = tuple[str, ...]  # of the walk's first columns, as the server writes them


class Rung(NamedTuple):
    """One column of a walk: `ORDER BY` it as its index is ordered, so that nothing has to be sorted."""

    name: str
    type: str
    schema: str  # of its operators: those of types that extensions bring are none of the server's own
    nulls_first: bool = False

    def order(self, alias: str) -> str:
        return f"{quoted(alias)}.{quoted(self.name)}{' NULLS FIRST' if self.nulls_first else ''}"

    def backwards(self, alias: str) -> str:
        return f"{quoted(alias)}.{quoted(self.name)} DESC{' NULLS LAST' if self.nulls_first else ''}"


class Walk(NamedTuple):
    """By date, and within one moment by `key`; or by `key` alone, over all rows; or by their place in the table."""

    date: Rung | None
    key: tuple[Rung, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(rung.name for rung in self.rungs)

    @property
    def rungs(self) -> tuple[Rung, ...]:
        return (*((self.date,) if self.date else ()), *self.key)

    @property
    def by_place(self) -> bool:
        return self.date is None and self.names == (CTID,)


def choose(subject: Subject, column: Column) -> Walk:
    """By date where an index begins with it; else by the primary key, another key, or the rows' place."""
    key = _key(subject)
    for index in subject.indexes:
        if index.columns[:1] == (column.name,) and index.schemas[0] == "pg_catalog":
            return Walk(_rungs(subject, index)[0], _within(subject, index) or key or _PLACE)
    return Walk(None, key or _PLACE)


_PLACE = (Rung(CTID, "pg_catalog.tid", "pg_catalog"),)


def _key(subject: Subject) -> tuple[Rung, ...]:
    """A key whose columns one comparison orders: all of the server's own types, or a single one of any type."""
    for index in subject.indexes:
        columns = [subject.column(name) if name else None for name in index.columns]
        if not index.unique or not all(c is not None and c.not_null for c in columns):
            continue
        if len(columns) > 1 and any(schema != "pg_catalog" for schema in index.schemas):
            continue
        if _one_direction(index.options):
            return _rungs(subject, index)
    return ()


def _within(subject: Subject, index: Index) -> tuple[Rung, ...]:
    """The rest of an index on the date, where that is a key by itself: within one moment nothing is sorted then."""
    rest = index.columns[1:]
    for key in subject.indexes:
        if key.unique and rest == key.columns and _one_direction(index.options) and None not in rest:
            columns = [subject.column(name or "") for name in rest]
            if all(c is not None and c.not_null for c in columns) and (len(rest) == 1 or _builtin(index)):
                return _rungs(subject, index)[1:]
    return ()


def _builtin(index: Index) -> bool:
    return all(schema == "pg_catalog" for schema in index.schemas)


def _one_direction(options: t.Sequence[int]) -> bool:
    return len({option & 1 for option in options}) == 1


def _rungs(subject: Subject, index: Index) -> tuple[Rung, ...]:
    """An index in descending order is read from its end."""
    found = []
    for name, option, schema in zip(index.columns, index.options, index.schemas):
        column = subject.column(name or "")
        if column is None:
            break
        found.append(Rung(column.name, column.type, schema, nulls_first=option in (1, 2)))
    return tuple(found)


def suggested(subject: Subject, column: Column, ref: t.Any) -> CreateIndex:
    return CreateIndex(ref, (column.name,), partitioned=subject.kind == "p")


# ---- conditions ------------------------------------------------------------------------------------------------------


def compare(rungs: t.Sequence[Rung], operator: str, values: Values, alias: str) -> str:
    """`(a, b) > (1, 2)`. Constants of the columns' own types, as the server wrote them: nothing is to be converted.

    Not bound: in a statement with bound values each % of the user's condition, and of a name, would be one, too.
    """
    left = [f"{quoted(alias)}.{quoted(rung.name)}" for rung in rungs]
    right = [f"{literal(value)}::{rung.type}" for rung, value in zip(rungs, values)]
    if len(rungs) == 1:
        return f"{left[0]} OPERATOR({quoted(rungs[0].schema)}.{operator}) {right[0]}"
    return f"ROW({', '.join(left)}) OPERATOR(pg_catalog.{operator}) ROW({', '.join(right)})"


def between(walk: Walk, low: Values, high: Values, alias: str) -> list[str]:
    """Conditions of a bite: after `low`, up to `high`; in a walk by date both may be a moment alone."""
    if walk.date is None:
        after = [compare(walk.key, ">", low, alias)] if low else []
        return [*after, *([compare(walk.key, "<=", high, alias)] if high else [])]
    date, key = (walk.date,), walk.key
    if low[1:] and low[:1] == high[:1]:  # within a moment
        said = [compare(date, "=", low, alias), compare(key, ">", low[1:], alias)]
        return [*said, *([compare(key, "<=", high[1:], alias)] if high[1:] else [])]
    said = [compare(date, ">=" if low[1:] else ">", low, alias)] if low else []
    if low[1:]:
        said.append(f"({compare(date, '>', low, alias)} OR {compare(key, '>', low[1:], alias)})")
    if high:
        said.append(compare(date, "<=", high, alias))
    if high[1:]:
        said.append(f"({compare(date, '<', high, alias)} OR {compare(key, '<=', high[1:], alias)})")
    return said


# ---- cursors ---------------------------------------------------------------------------------------------------------


def fingerprint(expiry: Expiry, table: str, walk: Walk) -> str:
    """What a cursor is good for."""
    about = [expiry.rule, table, [[rung.name, rung.type] for rung in walk.rungs]]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def written(mark: str, values: Values) -> str:
    return json.dumps({"of": mark, "at": values})


def read(mark: str, cursor: str | None, walk: Walk) -> Values:
    """Where the cursor stands; () for none, and for one of another rule, table or walk."""
    try:
        found = json.loads(cursor or "{}")
        values = tuple(found["at"]) if found["of"] == mark else ()
    except (ValueError, KeyError, TypeError):
        return ()
    whole = len(walk.rungs)
    fits = len(values) in ((1, whole) if walk.date else (whole,)) and all(isinstance(v, str) for v in values)
    return values if fits else ()
