# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bites of PostgreSQL: where one ends, and taking it. Their order is nibble.py's, what hangs from rows hanging.py's."""

from __future__ import annotations

import time
import typing as t

from ..._errors import DbFault, Refused, Vanished
from ..._retention import Frame, Pending, Taken
from ..._tasks import Purge, Settle
from ..._tuples import NamedTuple
from . import archives, foreign_keys, hanging, walks, witness
from .connection import Connection
from .due import both, due, in_time
from .hanging import Hanging, Held, gone
from .names import literal, quoted
from .removal import Removal
from .session import Session
from .subject import Column, Subject, called, delete_refused, from_only, subjects
from .walks import Rung, Values, Walk

XID = "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text"
BLOCKS = """
SELECT pg_catalog.pg_relation_size(%s::pg_catalog.oid) / pg_catalog.current_setting('block_size')::pg_catalog.int4
"""
# A commit that is not on disk yet may be lost with the server: the rows would be in the file and in the table.
DURABLE = """
SELECT pg_catalog.set_config('synchronous_commit', 'on', false)
 WHERE pg_catalog.current_setting('synchronous_commit') = 'off'
"""
# Whoever has no number has written nothing, and locked no row; without counters nobody knows.
TOUCHED = """
SELECT CASE WHEN pg_catalog.txid_current_if_assigned() IS NULL THEN false
            WHEN NOT pg_catalog.current_setting('track_counts')::pg_catalog.bool THEN true
            ELSE (SELECT coalesce(pg_catalog.sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0) > 0
                    FROM pg_catalog.pg_stat_xact_all_tables s) END
"""
FEW = 20.0  # rows of a page where nobody has counted them
MARK = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.xid::pg_catalog.text"
# Our own steps on other tables: their bites and counts began before the rows left. VACUUM itself keeps no rows.
OLDER = """
SELECT a.pid FROM pg_catalog.pg_stat_activity a
 WHERE a.pid = ANY (%s) AND a.datname = pg_catalog.current_database() AND a.query !~* '^(VACUUM|ANALYZE)'
   AND NOT a.pid = pg_catalog.pg_backend_pid()
   AND greatest(pg_catalog.age(a.backend_xmin), pg_catalog.age(a.backend_xid)) > pg_catalog.age(%s::pg_catalog.xid)
"""
PASSING, AGAIN = 5.0, 0.05  # seconds


class Ground(NamedTuple):
    """The table that a task takes rows from, as it is now."""

    subject: Subject
    column: Column
    walk: Walk


def ground(session: Session, task: Purge | Settle, user: str) -> Ground:
    """Raises Vanished, Refused: it may have changed since it was measured."""
    about = {"database": task.ref.database, "obj": str(task.ref)}
    oids = [oid for oid, ref in called(session, task.ref.path[-1]) if ref.path == task.ref.path]
    subject = subjects(session, oids).get(oids[0]) if oids else None
    if subject is None:
        raise Vanished("it is not there any more", **about)
    why, cure = delete_refused(subject, user)
    if why:
        raise Refused(why, cure=cure, **about)
    column = subject.column(task.expiry.column)
    if column is None:
        raise Refused(f"it has no column {task.expiry.column}", **about)
    return Ground(subject, column, walks.choose(subject, column))


def let_pass(session: Session) -> None:
    """Waits a little for what this run does beside it, in the same database.

    A vacuum that comes at once would find that the rows which have just left may still be seen, and leave them there.
    """
    mark = session.rows(MARK)[0][0]
    end = time.monotonic() + PASSING
    while session.rows(OLDER, (session.pids, mark)) and time.monotonic() < end:
        if session.stopped.wait(AGAIN):
            return


class Bites:
    """The verbs of a bite; nibble.py says in which order. One transaction at a time, on the session's worker."""

    def __init__(self, session: Session, task: Purge, found: Ground, user: str) -> None:
        self.session, self.task = session, task
        self.subject, self.column, self.walk = found
        self.alias = task.table.path[-1]
        self.table = from_only(task.ref, self.alias)
        self.mine = walks.fingerprint(task.expiry, str(task.ref), self.walk)
        self.connection: Connection = session.worker(lock_timeout=session.lock_timeout, natural=True)
        self.connection.rows(DURABLE)
        self.removal = Removal(
            self.subject,
            task.table,
            self.table,
            self.alias,
            to=task.to,
            in_memory=bool(task.archive and task.archive.folder),
            dated=(self.column, task.expiry),
        )
        self.row_bytes = int(self.subject.bytes / max(1.0, self.subject.rows or 1.0))
        root = _root(session, task, self.subject)
        self.hanging = Hanging(session, root, foreign_keys.edges(session, root), told=task.children, user=user)
        self.hanging.assure_lockable(self.subject, user)
        self.user = user
        self.open = False

    def prepare(self) -> None:
        """Makes archive tables, or gives them the columns that they lack. Raises Refused, Busy."""
        wanted = [(self.task.to, self.subject, self.column.name)] if self.task.to else []
        wanted += [(ref, subject, "") for ref, subject in hanging.depots(self.hanging).items()]
        for ref, source, date in wanted:
            found = archives.existing(self.session, source, ref, self.user)
            if found.why_not:
                raise Refused(f"rows cannot go there: {found.why_not}", database=ref.database, obj=str(ref))
            self._together(archives.statements(source, ref, found, date))

    def _together(self, words: t.Sequence[str]) -> None:
        """All of these or none: an archive table without its key would never get one."""
        try:
            for statement in ("BEGIN", *words, "COMMIT") if words else ():
                self.open = True
                self.connection.rows(statement)
            self.open = False
        finally:
            self.rollback()

    # ---- where it ends ----

    def end(self, cursor: str | None, rows: int, until: str | None) -> str | None:
        """The cursor at which a bite of `rows` rows ends, looked at in the walk's order; None: nothing is left."""
        low, high = self._at(cursor), self._at(until)
        if self.walk.by_place:
            found = self._end_by_place(low, rows, high)
        elif self.walk.date is None:
            found = self._end_by_key(low, rows, high)
        else:
            found = self._end_by_date(self.walk.date, low, rows, high)
        return walks.written(self.mine, found) if found else None

    def _at(self, cursor: str | None) -> Values:
        return walks.read(self.mine, cursor, self.walk)

    def _end_by_key(self, low: Values, rows: int, high: Values) -> Values:
        conditions = walks.between(self.walk, low, high, self.alias)
        return self._nth(self.walk.key, conditions, rows) or self._last(self.walk.key, conditions)

    def _end_by_date(self, date: Rung, low: Values, rows: int, high: Values) -> Values:
        """A bite ends with a moment, all of whose rows it takes; or lies within one that has too many of them."""
        if len(low) > 1:
            moment = low[:1]
            top = high if moment == high[:1] else moment
            conditions = walks.between(self.walk, low, top, self.alias)
            within = self._nth(self.walk.key, conditions, rows)
            if within:
                return moment + within
            if self._nth(self.walk.key, conditions, 1):
                return top
            low = moment
        conditions = walks.between(self.walk, low, high, self.alias)
        conditions += in_time(self.column, self.task.expiry, self.alias)
        two = self._some((date,), conditions, rows - 1, 2)
        if len(two) < 2:
            last = two[0] if two else self._last((date,), conditions)
            return high if last and last == high[:1] else last
        if two[0] != two[1]:
            return two[0]
        before = [*conditions, walks.compare((date,), "<", two[0], self.alias)]
        same = [walks.compare((date,), "=", two[0], self.alias)]
        return self._last((date,), before) or two[0] + self._nth(self.walk.key, same, rows)

    def _end_by_place(self, low: Values, rows: int, high: Values) -> Values:
        """Some pages further on; within them where they hold more rows than that."""
        ((blocks,),) = self.connection.rows(BLOCKS, (self.subject.oid,))
        begin = _place(low[0]) if low else (0, 0)
        density = (self.subject.rows or FEW) / max(1, blocks)
        ahead = begin[0] + 1 + int(rows / max(1.0, density))
        limit = min((min(ahead, blocks), 0), _place(high[0]) if high else (blocks, 0))
        if begin >= limit:
            return ()
        top = ("({},{})".format(*limit),)
        conditions = walks.between(self.walk, low, top, self.alias)
        return self._nth(self.walk.key, conditions, rows) or top

    def _nth(self, rungs: t.Sequence[Rung], conditions: t.Sequence[str], n: int) -> Values:
        found = self._some(rungs, conditions, n - 1, 1)
        return found[0] if found else ()

    def _some(self, rungs: t.Sequence[Rung], conditions: t.Sequence[str], skip: int, most: int) -> list[Values]:
        order = ", ".join(rung.order(self.alias) for rung in rungs)
        return self._asked(rungs, conditions, f"{order} OFFSET {skip:d} LIMIT {most:d}")

    def _last(self, rungs: t.Sequence[Rung], conditions: t.Sequence[str]) -> Values:
        order = ", ".join(rung.backwards(self.alias) for rung in rungs)
        found = self._asked(rungs, conditions, f"{order} LIMIT 1")
        return found[0] if found else ()

    def _asked(self, rungs: t.Sequence[Rung], conditions: t.Sequence[str], order: str) -> list[Values]:
        # As text outside: the server would write out each row that it skips.
        inner = ", ".join(f"{quoted(self.alias)}.{quoted(rung.name)} AS e{n}" for n, rung in enumerate(rungs))
        outer = ", ".join(f"ends.e{n}::pg_catalog.text" for n in range(len(rungs)))
        words = f"SELECT {inner} FROM {self.table} WHERE {both(conditions)} ORDER BY {order}"
        return [tuple(row) for row in self.connection.rows(f"SELECT {outer} FROM ({words}) AS ends")]

    # ---- taking it ----

    def take(self, cursor: str | None, end: str) -> Taken:
        """Removes the rows that are due in (cursor, end]. Not committed."""
        conditions = walks.between(self.walk, self._at(cursor), self._at(end), self.alias)
        conditions += due(self.column, self.task.expiry, self.alias)
        self.connection.rows("BEGIN")
        self.open = True
        count = 0
        frames: list[Frame] = []
        if self.hanging.matters:
            held = self._lock(conditions)
            self.hanging.assure_alone(self.connection, held)
            if self.task.children:
                in_memory = self.removal.in_memory
                count, frames = self.hanging.take(self.connection, held, in_memory=in_memory)
            conditions = [*due(self.column, self.task.expiry, self.alias), self._locked(held)]
        rows, frame = self.removal.run(self.connection, both(conditions))
        frames = [*([frame] if frame else []), *frames]
        touched = not rows and not count and bool(self.connection.rows(TOUCHED)[0][0])
        return Taken(rows, rows * self.row_bytes, count, tuple(frames), touched)

    def _lock(self, conditions: t.Sequence[str]) -> Held:
        """The rows of the bite, so that nothing new can hang from them, and what they are known by."""
        by = [rung.name for rung in self.walk.key]
        columns = tuple(dict.fromkeys((*by, *self.hanging.needed(self.hanging.root))))
        what = ", ".join(f"{quoted(self.alias)}.{quoted(column)}::pg_catalog.text" for column in columns)
        words = f"SELECT {what} FROM {self.table} WHERE {both(conditions)} FOR UPDATE"
        return Held(columns, self.connection.rows(words))

    def _locked(self, held: Held) -> str:
        """Those rows and no others: more may have become due meanwhile."""
        key = self.walk.key
        if not held.rows:
            return "false"
        keys = [tuple(row[: len(key)]) for row in held.rows]
        if len(key) == 1:
            values = ", ".join(literal(k[0]) for k in keys)
            equal = f"{quoted(self.alias)}.{quoted(key[0].name)} OPERATOR({quoted(key[0].schema)}.=)"
            return f"{equal} ANY (ARRAY[{values}]::{key[0].type}[])"
        these = gone([rung.name for rung in key], [rung.type for rung in key], keys)
        same = [
            f"gone.{quoted(rung.name)} OPERATOR({quoted(rung.schema)}.=) {quoted(self.alias)}.{quoted(rung.name)}"
            for rung in key
        ]
        return f"EXISTS (SELECT FROM {these} WHERE {both(same)})"

    def mark(self) -> str:
        """The transaction's own number, which the server can be asked about later."""
        ((xid,),) = self.connection.rows(XID)
        return str(xid)

    def commit(self) -> None:
        """Raises Gone where nobody knows whether it was committed."""
        self.connection.rows("COMMIT")
        self.open = False

    def rollback(self) -> None:
        if self.open:
            self.open = False
            try:
                self.connection.rows("ROLLBACK")
            except DbFault:
                self.connection.spoilt = True

    def committed(self, pending: Pending) -> bool:
        return witness.committed(self.session, pending)


def _root(session: Session, task: Purge, subject: Subject) -> int:
    """Foreign keys lead to the rule's table, whichever of its partitions is purged."""
    if task.ref == task.table:
        return subject.oid
    return next((oid for oid, ref in called(session, task.table.path[-1]) if ref == task.table), subject.oid)


def _place(text: str) -> tuple[int, int]:
    """`(page,row)`."""
    page, row = text.strip("()").split(",")
    return int(page), int(row)
