# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A partition leaves whole: detached, then dropped; and what a run that died in between has left. Not which is due."""

from __future__ import annotations

import time
import typing as t

from ..._errors import Busy, DbFault, Refused, Stopped, Vanished
from ..._records import Amount, Ref, Server, Tick, Work
from ..._tasks import DropLeftover, DropPartition
from ..._tuples import NamedTuple
from ..._units import say_seconds
from . import partitions
from .names import literal, table_name
from .partitions import DETACHING, Mark, Range, marked
from .session import Session
from .underway import Underway
from .versions import major_of

BEAT = 1.0  # seconds between ticks
OID = """
SELECT c.oid::pg_catalog.int8, c.relispartition, pg_catalog.obj_description(c.oid, 'pg_class'),
       pg_catalog.pg_total_relation_size(c.oid)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s
"""
PARENT = """
SELECT i.inhparent::pg_catalog.int8 FROM pg_catalog.pg_inherits i WHERE i.inhrelid = %s::pg_catalog.oid
"""
# Detaching waits for every transaction that has touched the partitioned table, whatever it does.
USERS = """
SELECT coalesce(a.pid::pg_catalog.text, 'of a prepared transaction'), coalesce(a.usename::pg_catalog.text, ''),
       coalesce(a.state, 'prepared'),
       extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::pg_catalog.float8
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.relation = %(table)s::pg_catalog.oid
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   AND (l.pid IS NULL OR NOT l.pid = ANY (%(own)s))
   AND (a.xact_start IS NULL OR a.xact_start < %(since)s)
 ORDER BY 4 DESC NULLS FIRST
"""
CLOCK = "SELECT pg_catalog.clock_timestamp()"


class Words(NamedTuple):
    """One statement each."""

    mark: str
    detach: str
    finalize: str
    drop: str

    @classmethod
    def of(cls, part: Ref, table: Ref, comment: str, *, concurrently: bool) -> Words:
        name, parent = table_name(part), table_name(table)
        detach = f"ALTER TABLE {parent} DETACH PARTITION {name}"
        return cls(
            f"COMMENT ON TABLE {name} IS {comment}",
            f"{detach} CONCURRENTLY" if concurrently else detach,
            f"{detach} FINALIZE",
            f"DROP TABLE {name}",
        )


def spell(task: DropPartition | DropLeftover, server: Server) -> list[str]:
    """What check mode shows; of wreckage all that may be needed."""
    if isinstance(task, DropLeftover):
        words = Words.of(task.ref, task.table or task.ref, "NULL", concurrently=True)
        return [words.finalize, words.drop]
    words = Words.of(task.ref, task.table, literal(f"{partitions.MARK}…"), concurrently=task.concurrently)
    if task.concurrently:
        return [words.mark, words.detach, words.drop]
    return [f"LOCK TABLE ONLY {table_name(task.table)} IN ACCESS EXCLUSIVE MODE", words.detach, words.drop]


def drop(session: Session, task: DropPartition, server: Server, wait: float) -> Work:
    """Raises Busy, Refused, Vanished."""
    return _Drop(session, task.ref, task.table, major_of(server), wait).drop(task)


def mend(session: Session, task: DropLeftover, server: Server, wait: float) -> Work:
    """What a run that died has left: finalized, and dropped where it was ours and is to go."""
    return _Drop(session, task.ref, task.table or task.ref, major_of(server), wait).mend()


class _Drop:
    def __init__(self, session: Session, part: Ref, table: Ref, major: int, wait: float) -> None:
        self.session, self.part, self.table, self.major, self.wait = session, part, table, major, wait
        self.about = {"database": part.database, "obj": str(part)}

    def _look(self) -> tuple[int, bool, str | None, int]:
        found = self.session.rows(OID, self.part.path)
        if not found:
            raise Vanished("it is not there any more", **self.about)
        return t.cast("tuple[int, bool, str | None, int]", tuple(found[0]))

    def _attached(self) -> Range:
        parent = self.session.rows(OID, self.table.path)
        direct = partitions.ranges(self.session, parent[0][0], self.major) if parent else []
        for one in direct:
            if (one.schema, one.name) == self.part.path:
                return one
        raise Vanished(f"it is no partition of {self.table} any more", **self.about)

    # ---- the act ----

    def drop(self, task: DropPartition) -> Work:
        one = self._attached()
        if one.needed:
            raise Refused("something else needs it by now: a view, or a foreign key", **self.about)
        before = marked(one.comment)
        comment = before.comment if before else one.comment
        mark = Mark(one.oid, self.table.path, one.bounds, task.empty, comment)
        if task.empty:
            self._assure_empty()
        if task.concurrently:
            yield from self._quietly(mark)
        else:
            self._at_once(mark)
        yield Tick(Amount(bytes=one.bytes, rows=task.rows or 0))

    def _assure_empty(self) -> None:
        if self.session.rows(f"SELECT EXISTS (SELECT FROM {table_name(self.part)})")[0][0]:
            raise Busy("rows have come since it was archived", cure="The next run archives them", **self.about)

    def _at_once(self, mark: Mark) -> None:
        """Everybody else waits, for lock_timeout at most; whole or not at all. The parent is locked first."""
        worker = self.session.worker(lock_timeout=self.session.lock_timeout)
        words = Words.of(self.part, self.table, "NULL", concurrently=False)
        worker.rows("BEGIN")
        try:
            worker.rows(f"LOCK TABLE ONLY {table_name(self.table)} IN ACCESS EXCLUSIVE MODE")
            worker.rows(words.detach)
            if mark.empty and worker.rows(f"SELECT EXISTS (SELECT FROM {table_name(self.part)})")[0][0]:
                raise Busy("rows have come since it was archived", cure="The next run archives them", **self.about)
            worker.rows(words.drop)
            worker.rows("COMMIT")
        except BaseException:
            self._rollback()
            raise

    def _rollback(self) -> None:
        worker = self.session.worker(lock_timeout=self.session.lock_timeout)
        try:
            worker.rows("ROLLBACK")
        except DbFault:
            worker.spoilt = True

    def _quietly(self, mark: Mark) -> Work:
        """Nobody waits for it. What it waits for is waited for before anything is done."""
        yield from self._wait_for_users()
        worker = self.session.worker(lock_timeout=self.session.lock_timeout)
        words = Words.of(self.part, self.table, literal(mark.words()), concurrently=True)
        worker.rows(words.mark)
        yield from self._run(words.detach)
        self._drop_detached(mark)

    def _wait_for_users(self) -> Work:
        """Raises Busy when a transaction that was there before does not end in time: nothing is done yet then."""
        parent = self.session.rows(OID, self.table.path)
        ((since,),) = self.session.rows(CLOCK)
        until, pause = time.monotonic() + self.wait, 0.05
        while parent:
            values = {"table": parent[0][0], "own": self.session.pids, "since": since}
            users = self.session.rows(USERS, values)
            if not users:
                return
            if self.session.stopped.is_set():
                raise Stopped("stopped", **self.about)
            if time.monotonic() > until:
                pid, user, state, seconds = users[0]
                who = f"process {pid} ({user}, {state})"
                raise Busy(
                    f"a transaction of {who}, open for {say_seconds(seconds or 0)}, uses the partitioned table",
                    cure="End it, or raise concurrent_wait",
                    **self.about,
                )
            yield Tick()
            time.sleep(pause)
            pause = min(BEAT, 2 * pause)

    def _run(self, statement: str) -> Work:
        running = Underway(self.session.worker(lock_timeout=self.wait), statement)
        yield Tick()
        try:
            while not running.wait(BEAT):
                yield Tick()
        finally:
            running.end()

    def _drop_detached(self, mark: Mark) -> None:
        """With rows in it that nobody archived, it becomes a partition again."""
        worker = self.session.worker(lock_timeout=self.session.lock_timeout)
        name = table_name(self.part)
        worker.rows("BEGIN")
        try:
            worker.rows(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
            if mark.empty and worker.rows(f"SELECT EXISTS (SELECT FROM {name})")[0][0]:
                worker.rows(f"ALTER TABLE {table_name(self.table)} ATTACH PARTITION {name} {mark.bounds}")
                worker.rows(f"COMMENT ON TABLE {name} IS {partitions.description(mark.comment)}")
            else:
                worker.rows(f"DROP TABLE {name}")
            worker.rows("COMMIT")
        except BaseException:
            self._rollback()
            raise

    # ---- wreckage ----

    def mend(self) -> Work:
        oid, partition, comment, size = self._look()
        mark = marked(comment)
        mine = mark is not None and mark.oid == oid and mark.parent == self.table.path
        if partition:
            one = self._attached()
            if one.pending:
                busy = self.session.rows(DETACHING, (self.session.pids,))
                if busy:
                    raise Refused(f"server process {busy[0][0]} may be detaching it just now", **self.about)
                yield from self._run(Words.of(self.part, self.table, "NULL", concurrently=True).finalize)
            elif mine and mark is not None:
                worker = self.session.worker(lock_timeout=self.session.lock_timeout)
                worker.rows(f"COMMENT ON TABLE {table_name(self.part)} IS {partitions.description(mark.comment)}")
                yield Tick()
                return
        if mine and mark is not None:
            self._drop_detached(mark)
            yield Tick(Amount(bytes=size))
        yield Tick()
