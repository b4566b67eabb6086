# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rules find in a file: rows that are due, what hangs from them, where they would go. Only reads; no threshold."""

from __future__ import annotations

import os
import sqlite3
import time
import typing as t
from contextlib import contextmanager

from ..._errors import Refused
from ..._records import Database, Finding, Leftover, Ref, Wants
from ..._retention import Child, Expired, Files, Missing, Piece, Sought
from . import activity, depots, shapes, sources
from .connection import DAMAGED, Session
from .retiring import Known, identity
from .sources import Source, Unfit

_OPCODES = 10_000  # of SQLite's machine between two looks at the clock: some tenths of a millisecond
_INTERRUPTED = "the transaction of a dead process must be rolled back before anything can be counted"


class _TooLong(Exception):
    """Counting took longer than it may."""


def measured(session: Session, wants: Wants, found: Database, known: Known, *, may_write: bool) -> Database:
    """With what `wants.expired` finds. Raises Busy, CannotConnect, Stopped, Refused.

    A rollback journal of a dead process lets nobody read: with `may_write` (under the guard) it is rolled back here,
    and still told, as it is one of the steps that were announced.
    """
    wreck: tuple[Leftover, ...] = ()
    if found.leftovers and any(left.what == "transaction" for left in found.leftovers):
        wreck = tuple(left for left in found.leftovers if left.what == "transaction")
    try:
        expired, missing, findings = session.read(lambda db, way: _Look(db, session.database, wants, known).all())
    except Refused as fault:
        if fault.cause.startswith(DAMAGED):
            return found
        if not activity.is_hot(session.database, fault.cause):
            raise
        wreck = (activity.hot_journal(session.database),)
        if not may_write:
            return found._replace(expired=tuple(_unread(session.database, wants, wreck)))
        _roll_back(session)
        expired, missing, findings = session.read(lambda db, way: _Look(db, session.database, wants, known).all())
    told = tuple(one._replace(detaching=wreck) for one in expired)
    return found._replace(expired=told, without=missing, findings=(*found.findings, *findings))


def _roll_back(session: Session) -> None:
    with session.write() as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("ROLLBACK")


def _unread(database: str, wants: Wants, wreck: tuple[Leftover, ...]) -> t.Iterator[Expired]:
    """Nothing is known to be due before that transaction is rolled back; files that nobody finished are."""
    for sought in _asked(database, wants):
        ref = Ref(database, (sought.expiry.table,))
        yield Expired(sought, ref, rows=0, files=_files(sought, ref), detaching=wreck)


def _asked(database: str, wants: Wants) -> t.Iterator[Sought]:
    """The rules that this file is asked for: by its path, or by its name."""
    for sought in wants.expired:
        name = sought.expiry.database
        if name in ("", database, os.path.basename(database)) or os.path.realpath(name) == database:
            yield sought


def _files(sought: Sought, ref: Ref) -> Files | None:
    if not sought.archive or not sought.archive.folder:
        return None
    from ..._files.shelf import look

    return look(sought.archive.folder, identity(ref), sought.expiry.rule, sought.files_before)


class _Look:
    """One consistent state of a file."""

    def __init__(self, db: sqlite3.Connection, database: str, wants: Wants, known: Known) -> None:
        self.db, self.database, self.wants, self.known = db, database, wants, known
        self.findings: list[Finding] = []

    def all(self) -> tuple[tuple[Expired, ...], tuple[Missing, ...], tuple[Finding, ...]]:
        expired, missing = [], []
        for sought in _asked(self.database, self.wants):
            source = sources.read(self.db, self.database, sought.expiry)
            if source is None:
                missing.append(Missing(sought, self.database))
                continue
            found = self._unfit(sought, source) if isinstance(source, Unfit) else self._expired(sought, source)
            if not self.wants.only or found.ref in self.wants.only:
                expired.append(found)
        return tuple(expired), tuple(missing), tuple(dict.fromkeys(self.findings))

    def _unfit(self, sought: Sought, unfit: Unfit) -> Expired:
        ref = Ref(self.database, (sought.expiry.table,))
        files = _files(sought, ref)
        return Expired(sought, ref, rows=0, files=files, why_not=unfit.why, cure=unfit.cure, code=unfit.code)

    def _expired(self, sought: Sought, source: Source) -> Expired:
        ref = Ref(self.database, (source.shape.name,))
        self.known.learn(ref, source)
        rows, of_rows, children = self._counted(sought, source, ref)
        walk, each = source.walk, sources.row_bytes(self.db, source.shape)
        piece = Piece(
            ref,
            rows,
            (rows or 0) * each,
            walk=walk.names if walk else (),
            indexed=walk is not None and walk.by_date,
            why_not=""
            if walk
            else "its row number cannot be named, and its key is sorted as only the application knows",
            row_bytes=each,
        )
        expired = Expired(sought, ref, rows, of_rows, (piece,), children=children, files=_files(sought, ref))
        expired = expired._replace(triggers=tuple(self._triggers(source)))
        if not sought.archive or not sought.archive.table:
            return expired
        depot = depots.look(self.db, self.database, source.shape, sought.archive.table, sought.expiry.column)
        self.known.learn_depot(ref, depot.depot.ref.path[-1], depot.statements)
        return expired._replace(depot=depot.depot)

    def _triggers(self, source: Source) -> t.Iterator[str]:
        for shape in reversed(source.family.tables):
            for name in shapes.triggers(self.db, shape.name):
                yield name if shape is source.shape else f"{name} of {shape.name}"

    # ---- counting ----------------------------------------------------------------------------------------------------

    def _counted(self, sought: Sought, source: Source, ref: Ref) -> tuple[int | None, int | None, tuple[Child, ...]]:
        """Rows that are due, of how many, and what hangs from them; None for what took too long."""
        rows = of_rows = None
        children = [one.child for one in source.family.hanging]
        try:
            with self._within(sought.timeout):
                span = sources.range_of(self.db, source)
                bound = {"low": span.low, "high": span.high}
                due = " AND ".join([*sources.in_range(source), f"({source.due})"])
                if self._glimpsed(source.shape.words, due, bound):
                    return None, None, tuple(children)
                rows = self._number(source.shape.words, due, bound)
                of_rows = self._number(source.shape.words, "1", {}) if rows or not self.wants.only else None
                self._find_no_dates(source, ref, span.high)
                for place, one in enumerate(source.family.hanging):
                    # Nothing hangs from nothing.
                    condition = dict(source.family.due(due))[one] if rows else "0"
                    count = self._number(one.shape.words, condition, bound)
                    children[place] = one.child._replace(rows=count)
        except _TooLong:
            pass
        return rows, of_rows, tuple(children)

    def _glimpsed(self, words: str, condition: str, bound: t.Mapping[str, t.Any]) -> bool:
        """Whether there are rows, and nobody wants to know how many: what runs counts under the guard."""
        if self.wants.counting != "any":
            return False
        return self.db.execute(f"SELECT 1 FROM {words} WHERE {condition} LIMIT 1", bound).fetchone() is not None

    def _number(self, words: str, condition: str, bound: t.Mapping[str, t.Any]) -> int:
        return int(self.db.execute(f"SELECT count(*) FROM {words} WHERE {condition}", bound).fetchone()[0])

    def _find_no_dates(self, source: Source, ref: Ref, high: t.Any) -> None:
        if self.wants.only:
            return
        count = self._number(source.shape.words, source.dates.no_date(), {"high": high})
        if count:
            rule = source.dates.expiry.rule
            message = f"rule {rule}: {count:,} values of column {source.dates.name} are no date: such rows never leave"
            fix = "Mend the values, or remove those rows by hand"
            self.findings.append(Finding(3, "values_without_date", ref, message, fix=fix))

    @contextmanager
    def _within(self, seconds: float | None) -> t.Iterator[None]:
        if seconds is None:
            yield
            return
        until = time.monotonic() + seconds
        self.db.set_progress_handler(lambda: int(time.monotonic() > until), _OPCODES)
        try:
            yield
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error) and time.monotonic() > until:
                raise _TooLong from error
            raise
        finally:
            self.db.set_progress_handler(None, 0)
