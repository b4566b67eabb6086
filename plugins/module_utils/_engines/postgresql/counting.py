# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that are due, counted: of each table that stores them, of what hangs from them, and of how many. Only reads."""

from __future__ import annotations

import contextlib
import math
import time
import typing as t

from ..._errors import Refused
from ..._retention import Child, Sought
from ..._tuples import NamedTuple
from . import foreign_keys
from .connection import MOST, Connection
from .due import both, due
from .foreign_keys import Edge
from .names import quoted
from .session import Session
from .subject import Column, Subject, from_only

SMALL = 100_000  # rows: counting them costs less than an estimate that is wrong
SHARE = 10  # one of so many rows is due: then the share must be known well
FAR = 5  # times the rows of which those that are due would be as many as may be: no estimate is wrong by as much
PREPARE = """
SELECT pg_catalog.set_config('enable_seqscan', 'on', true), pg_catalog.set_config('enable_bitmapscan', 'on', true)
"""
ALONE = "SET LOCAL max_parallel_workers_per_gather = 0"
BY_INDEX = "SELECT pg_catalog.set_config('enable_seqscan', 'off', true)"


class Found(NamedTuple):
    """A rule's table: what is the same for all its stages."""

    subject: Subject
    leaves: t.Mapping[int, Subject]  # that store its rows, by oid; itself where it has no partitions
    foreign: bool  # some of its partitions lie on other servers
    edges: tuple[Edge, ...]
    children: tuple[Child, ...]


class Counts(NamedTuple):
    """None: there was no time for it."""

    rows: t.Mapping[int, int] | None  # due, by oid of the table that stores them
    of_rows: int | None
    children: tuple[Child, ...]


@contextlib.contextmanager
def reading(session: Session) -> t.Iterator[Connection]:
    """A connection on which the user's own SQL means what it will mean to the DELETE, in one read-only transaction."""
    connection = session.worker(lock_timeout=session.lock_timeout, natural=True)
    connection.rows("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        connection.rows(PREPARE)
        yield connection
    finally:
        with contextlib.suppress(Exception):
            connection.rows("ROLLBACK")


class Counter:
    """Counts for one stage, within the time that it is given."""

    def __init__(self, connection: Connection, sought: Sought, found: Found, column: Column) -> None:
        self.connection, self.sought, self.found = connection, sought, found
        self.alias = found.subject.name
        self.due = both(due(column, sought.expiry, self.alias))
        self.until = None if sought.timeout is None else time.monotonic() + sought.timeout

    def count(self, leaves: t.Sequence[int], counting: str, *, first: bool) -> Counts:
        """`leaves`: those that matter, by oid. `first`: probably none is due, so one row is looked for first.

        `counting`: see Wants.
        """
        if self.sought.gently:
            self.connection.rows(ALONE)
        if first or counting == "any":
            found = self._within(lambda: any(self._any(source) for source in self._sources(leaves)))
            if found is False:
                return Counts(dict.fromkeys(leaves, 0), self._of_rows(0, counting), self._children(0))
            if counting == "any":
                return Counts(None, None, self.found.children)
        rows = self._within(lambda: self._rows(leaves))
        if rows is None:
            return Counts(None, None, self.found.children)
        total = sum(rows.values())
        return Counts(rows, self._of_rows(total, counting), self._children(total))

    def _within(self, count: t.Callable[[], t.Any]) -> t.Any:
        """None where the time is over. The transaction has ended then."""
        if self.until is not None:
            left = math.ceil(1000 * (self.until - time.monotonic()))
            if left <= 0:
                return None
            self.connection.rows(f"SET LOCAL statement_timeout = {min(left, MOST):d}")
        try:
            return count()
        except Refused:
            if self.until is not None and time.monotonic() >= self.until:
                self.until = 0.0
                return None
            raise

    @property
    def source(self) -> str:
        """All rows of the table, in a FROM clause; what lies on other servers is left out."""
        subject = self.found.subject
        if subject.kind != "p":
            return f"ONLY {subject.spelled} AS {quoted(self.alias)}"
        if not self.found.foreign:
            return f"{subject.spelled} AS {quoted(self.alias)}"
        columns = ", ".join(quoted(column.name) for column in subject.columns)
        parts = [f"SELECT tableoid, {columns} FROM ONLY {leaf.spelled}" for leaf in self.found.leaves.values()]
        none = f"SELECT tableoid, {columns} FROM ONLY {subject.spelled}"
        return f"({' UNION ALL '.join(parts or [none])}) AS {quoted(self.alias)}"

    def _all(self, leaves: t.Sequence[int]) -> bool:
        """Whether the parent may be asked, rather than each of its partitions."""
        return len(leaves) == len(self.found.leaves) and self.found.subject.kind == "p"

    def _sources(self, leaves: t.Sequence[int]) -> list[str]:
        if self._all(leaves):
            return [self.source]
        return [from_only(self.found.leaves[oid].ref(self.sought.expiry.database), self.alias) for oid in leaves]

    def _any(self, source: str) -> bool:
        """By an index, if any helps: where all such rows have just gone, the statistics still speak of them."""
        self.connection.rows(BY_INDEX)
        found = self.connection.rows(f"SELECT 1 FROM {source} WHERE {self.due} LIMIT 1")
        self.connection.rows(PREPARE)
        return bool(found)

    def _rows(self, leaves: t.Sequence[int]) -> dict[int, int]:
        if self._all(leaves):
            what = f"{quoted(self.alias)}.tableoid::pg_catalog.oid::pg_catalog.int8, pg_catalog.count(*)"
            return dict(self.connection.rows(f"SELECT {what} FROM {self.source} WHERE {self.due} GROUP BY 1"))
        return {oid: self._number(f"{source} WHERE {self.due}") for oid, source in zip(leaves, self._sources(leaves))}

    def _number(self, source: str) -> int:
        return int(self.connection.rows(f"SELECT pg_catalog.count(*) FROM {source}")[0][0])

    def _of_rows(self, due_rows: int, counting: str) -> int | None:
        """Of how many rows: by the statistics only where these are far from making a difference.

        Where not all is to be known, the estimate tells how many, once counting has shown that there are enough.
        """
        known, share = [leaf.rows for leaf in self.found.leaves.values()], self.sought.share
        estimate = int(sum(rows or 0.0 for rows in known))
        rough = None not in known and estimate >= SMALL
        enough = math.ceil(100 * due_rows / share) + 1 if share else 0
        if rough and estimate > (FAR * enough if share else SHARE * due_rows):
            return estimate
        source = self.source
        if rough and share and counting == "enough":
            if share >= 100:
                return max(estimate, due_rows)
            source = f"(SELECT FROM {self.source} LIMIT {enough:d}) AS enough"
        counted: int | None = self._within(lambda: self._number(source))
        if counted is None:
            return max(estimate, due_rows) if None not in known else None
        return max(estimate, counted) if source != self.source and counted >= enough else counted

    def _children(self, due_rows: int) -> tuple[Child, ...]:
        if not due_rows:
            return tuple(child._replace(rows=0) for child in self.found.children)
        counts = self._within(
            lambda: foreign_keys.hanging(
                self.connection,
                self.found.edges,
                self.found.subject.oid,
                source=self.source,
                alias=self.alias,
                due=self.due,
            )
        )
        if counts is None:
            return self.found.children
        return tuple(child._replace(rows=rows) for child, rows in zip(self.found.children, counts))
