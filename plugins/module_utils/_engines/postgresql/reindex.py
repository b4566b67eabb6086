# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How indexes are built anew, and what a dead build left behind is dropped. Finding that is halfbuilt.py's part."""

from __future__ import annotations

import time
import typing as t

from ..._errors import Busy, DbFault, Gone, Refused, Stopped
from ..._records import Ref, Server, Tick, Work
from ..._tasks import DropLeftover, RefreshCollation, Reindex
from ..._units import say_seconds
from . import activity, halfbuilt
from .connection import Connection
from .halfbuilt import About, Half
from .names import quoted, table_name
from .session import Session
from .underway import Underway

BEAT = 1.0  # seconds between ticks
GLANCE = 0.02  # seconds between looks for the new index, which is there a moment after the start
CLEANING = 5.0  # seconds that dropping our own wreckage waits for a lock at a time
PATIENCE = 20.0  # seconds in which that must come about: a run that is told to stop has to end
# Who would be waited for, with a helper index in place: transactions that see older rows, or have touched the table.
# Those that the server itself does not wait for are left out: GetCurrentVirtualXIDs() and WaitForLockers().
ELDERS = f"""
SELECT a.pid::pg_catalog.text, a.usename::pg_catalog.text, a.application_name, a.state,
       extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::pg_catalog.float8
  FROM pg_catalog.pg_stat_activity a
 WHERE a.datname = pg_catalog.current_database() AND NOT a.pid = ANY (%(own)s) AND a.xact_start < %(since)s
   AND a.backend_type IN ('client backend', 'background worker')
   AND (a.backend_xmin IS NOT NULL OR a.pid IN (
        SELECT l.pid FROM pg_catalog.pg_locks l
         WHERE l.locktype = 'relation' AND l.relation = %(table)s AND l.database = {halfbuilt.HERE}))
   AND NOT (a.state = 'active' AND a.query ~* '^\\s*(vacuum(?!.*\\mfull\\M)|.*\\mconcurrently\\M)')
 UNION ALL
SELECT 'of the prepared transaction ' || p.gid, p.owner::pg_catalog.text, '', 'prepared',
       extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared)::pg_catalog.float8
  FROM pg_catalog.pg_prepared_xacts p
  JOIN pg_catalog.pg_locks x ON x.locktype = 'transactionid' AND x.transactionid = p.transaction AND x.pid IS NULL
  JOIN pg_catalog.pg_locks l ON l.virtualtransaction = x.virtualtransaction AND l.pid IS NULL
 WHERE l.locktype = 'relation' AND l.relation = %(table)s AND l.database = {halfbuilt.HERE} AND p.prepared < %(since)s
 ORDER BY 5 DESC
"""


# ---- the words -------------------------------------------------------------------------------------------------------


def spell(task: Reindex | RefreshCollation | DropLeftover, server: Server) -> list[str]:
    """One statement each; for wreckage one an index."""
    if isinstance(task, DropLeftover):
        schema = quoted(task.ref.path[0])
        return [f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{quoted(name)}" for name in task.names]
    if isinstance(task, RefreshCollation):
        if task.ref.path:
            return [f"ALTER COLLATION {table_name(task.ref)} REFRESH VERSION"]
        return [f"ALTER DATABASE {quoted(task.ref.database)} REFRESH COLLATION VERSION"]
    return [f"REINDEX INDEX {'CONCURRENTLY ' if task.online else ''}{table_name(task.ref)}"]


# ---- the work --------------------------------------------------------------------------------------------------------


def carry_out(
    session: Session,
    task: Reindex | RefreshCollation | DropLeftover,
    server: Server,
    statements: t.Sequence[str],
    concurrent_wait: float,
) -> Work:
    """Raises Busy, Gone, Refused, Stopped, Vanished."""
    if isinstance(task, DropLeftover):
        return _drop(session, task, statements, concurrent_wait)
    if isinstance(task, RefreshCollation):
        return _run(session.worker(lock_timeout=session.lock_timeout), statements[0])
    if task.online:
        return _Rebuild(session, task, server, statements[0], concurrent_wait).work()
    return _exclusively(session, task, server, statements[0])


def _run(connection: Connection, statement: str) -> Work:
    """One statement, with ticks meanwhile; closing ends it."""
    yield Tick()
    running = Underway(connection, statement)
    try:
        while not running.wait(BEAT):
            yield Tick()
    finally:
        running.end()


def _exclusively(session: Session, task: Reindex, server: Server, statement: str) -> Work:
    """Writers wait, and most readers: it waits no longer than lock_timeout to begin, and leaves nothing behind."""
    before = halfbuilt.about(session, task.ref)
    yield from _run(session.worker(lock_timeout=session.lock_timeout), statement)
    now = halfbuilt.about(session, task.ref)
    if now.file == before.file:
        raise Refused("the server left the index as it was", database=task.ref.database, obj=str(task.ref))
    yield Tick(note=_state(session, now, server))


def _drop(session: Session, task: DropLeftover, statements: t.Sequence[str], concurrent_wait: float) -> Work:
    """What is dead and invalid now, under the names that were found. Raises Refused when somebody is at work on it."""
    there = {half.name: half for half in halfbuilt.halves(session) if half.schema == task.ref.path[0]}
    for name, statement in zip(task.names, statements):
        half = there.get(name)
        if half is not None:
            _assure_dead(half, task.ref)
            yield from _run(session.worker(lock_timeout=concurrent_wait), statement)


def _assure_dead(half: Half, ref: Ref) -> None:
    if half.pid is not None:
        raise Refused(
            f"server process {half.pid} is at work on {half.name}",
            database=ref.database,
            obj=str(ref),
            cure="Wait until it has ended",
        )


def _state(session: Session, index: About, server: Server) -> str:
    """For the next run: under which collations it was built, where one of them has another version on record."""
    from . import collations

    stale = collations.read(session, server)[1].get(index.oid)
    return stale.state if stale else ""


class _Rebuild:
    """REINDEX CONCURRENTLY of one index, and its end, whatever that is.

    No phase of it holds or awaits a lock that readers or writers would queue behind: lock_timeout may be long. Cut off,
    it leaves a helper index behind; so who would be waited for is waited for before anything is made.
    """

    def __init__(self, session: Session, task: Reindex, server: Server, statement: str, wait: float) -> None:
        self.session, self.task, self.server = session, task, server
        self.statement, self.wait = statement, wait
        self.ref = task.ref
        self.old = About(0, 0, False, 0, "")
        self.made: list[int] = []

    def work(self) -> Work:
        self._refuse_what_damages()
        yield from self._clear()
        self.old = halfbuilt.about(self.session, self.ref)
        if self.old.valid and (self.ref.database, self.old.oid) in self.session.made:
            yield Tick(note=_state(self.session, self.old, self.server))  # an earlier attempt came as far as this
            return
        yield from self._wait_for_elders()
        # The old index is what may be left over, too; and until the new one is seen, it is known by its name.
        yield Tick(owns=halfbuilt.mark(self.old.oid))
        yield Tick(owns=self.old.new_name)
        worker = self.session.worker(lock_timeout=self.wait)
        running = Underway(worker, self.statement)
        try:
            yield from self._watch(running, worker)
        except DbFault:
            if self._sweep(running) and not self.made:
                yield Tick(disowns=self.old.new_name)
            halfbuilt.about(self.session, self.ref)  # raises Vanished where that is the reason
            raise
        except BaseException:
            self._sweep(running)
            raise
        yield from self._settle(running)

    def _refuse_what_damages(self) -> None:
        """BUG #17485: the new index may lack rows."""
        number = self.server.number
        if number[:1] == (14,) and number < (14, 4):
            raise Refused(
                f"REINDEX CONCURRENTLY of PostgreSQL {self.server.version} can damage indexes",
                database=self.ref.database,
                obj=str(self.ref),
                cure="Update the server to 14.4 or later, or use method: exclusive",
            )

    def _clear(self) -> Work:
        """What earlier attempts of this run could not remove: with it in place nothing more is made."""
        mine = self.session.made | self.session.replaced
        for half in halfbuilt.halves(self.session):
            if half.helper and (self.ref.database, half.oid) in mine and _of(half, self.task.table):
                if half.pid is not None:
                    raise Busy(f"server process {half.pid} is still at work on {half.name}")
                yield from _run(self.session.worker(lock_timeout=self.wait), _drop_of(half))
        yield Tick()

    def _wait_for_elders(self) -> Work:
        """Raises Busy when a transaction that was there before does not end in time: nothing is made yet then."""
        since = activity.clock(self.session)
        until, pause = time.monotonic() + self.wait, 0.05
        while True:
            values = {"own": self.session.pids, "since": since, "table": self.old.table}
            elders = self.session.rows(ELDERS, values)
            if not elders:
                return
            if self.session.stopped.is_set():
                raise Stopped("stopped", database=self.ref.database, obj=str(self.ref))
            if time.monotonic() > until:
                raise self._outwaited(*elders[0])
            yield Tick()
            time.sleep(pause)
            pause = min(BEAT, 2 * pause)

    def _outwaited(self, pid: str, user: str, application: str, state: str, seconds: float) -> Busy:
        who = f"process {pid} ({user}, {application or 'no application name'}, {state})"
        return Busy(
            f"a transaction of {who}, open for {say_seconds(seconds or 0)}, would keep the new index waiting",
            database=self.ref.database,
            obj=str(self.ref),
            cure="End it, or raise concurrent_wait",
        )

    def _watch(self, running: Underway, worker: Connection) -> Work:
        """Ticks; and journals the new index as soon as it is there, instead of its name, which anybody may use."""
        while not running.wait(BEAT if self.made else GLANCE):
            if self.made:
                yield Tick()
                continue
            self.made = halfbuilt.new_indexes(self.session, self.old, worker.pid)
            for oid in self.made:
                yield Tick(owns=halfbuilt.mark(oid))
            if self.made:
                yield Tick(disowns=self.old.new_name)

    def _sweep(self, running: Underway) -> bool:
        """Drops what was made; whether nothing is left. The next attempt, or the next run, begins with what resists."""
        self.session.replaced.add((self.ref.database, self.old.oid))
        self.session.made.update((self.ref.database, oid) for oid in self.made)
        # Never on the connection that was ended.
        patience = CLEANING + (self.wait if self.wait <= CLEANING else 0.0)
        until = time.monotonic() + PATIENCE
        while running.end() and time.monotonic() < until:
            try:
                mine = [half for half in halfbuilt.halves(self.session) if self._is_mine(half)]
                if not mine:
                    return True
                if all(half.pid is None for half in mine):
                    cleaner = self.session.worker(lock_timeout=patience)
                    for half in mine:
                        cleaner.run(_drop_of(half))
            except (Gone, Refused):
                return False  # the server does not answer this session, or forbids it to drop
            except DbFault:
                pass  # locked; or a late cancel of our own has hit the cleaning
            time.sleep(0.1)
        return False

    def _is_mine(self, half: Half) -> bool:
        """Its table may have been renamed or moved meanwhile."""
        unseen = not self.made and half.name == self.old.new_name and _of(half, self.task.table)
        return half.helper and (unseen or half.oid in (*self.made, self.old.oid))

    def _settle(self, running: Underway) -> Work:
        now = halfbuilt.about(self.session, self.ref)
        if now.oid == self.old.oid:
            said = " ".join(running.said)
            raise Refused(f"the server left the index as it was. {said}", database=self.ref.database, obj=str(self.ref))
        yield Tick(note=_state(self.session, now, self.server))


def _of(half: Half, table: Ref) -> bool:
    return (half.table_schema, half.table) == table.path


def _drop_of(half: Half) -> str:
    return f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(half.schema)}.{quoted(half.name)}"
