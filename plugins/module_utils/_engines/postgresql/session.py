# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step has of a server: a connection that only reads, and one that works where needed."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from .connection import Connection, Kind
from .driver import Rows, Values
from .files import FOLDER
from .pool import Pool

MANY = 5000  # relations of a database from which on a second session is worth the 5 ms that it costs
READABLE = f"""
SELECT pg_catalog.has_table_privilege('pg_catalog.pg_statistic', 'SELECT'), {FOLDER},
       (SELECT c.reltuples >= %s FROM pg_catalog.pg_class c
         WHERE c.oid = 'pg_catalog.pg_class'::pg_catalog.regclass)
"""


class Session:
    """A session of one step, on one database: a connection that only reads, and one that works where needed."""

    def __init__(self, pool: Pool, database: str, lock_timeout: float, reader: Connection | None = None) -> None:
        self.database, self.lock_timeout, self._pool = database, lock_timeout, pool
        self.stopped = threading.Event()
        kind = Kind(True, lock_timeout)
        self._held: dict[Kind, Connection] = {kind: reader} if reader else {}
        self._reader = self._take(kind)
        self._twin: Session | None = None

    def _take(self, kind: Kind) -> Connection:
        if kind not in self._held:
            self._held[kind] = self._pool.take(self.database, kind, held=len(self._held))
        return self._held[kind]

    @contextlib.contextmanager
    def twin(self, *, wanted: bool) -> t.Iterator[Session | None]:
        """A second session beside this one, for a thread of its own; None where that is not worth it, or not to be had.

        Where a database has many relations the server works on one question a session, and has more than one core.
        """
        if wanted and self._readable()[2]:
            connection = self._pool.spare(self.database, self._reader.kind)
            if connection:
                self._twin = Session(self._pool, self.database, self.lock_timeout, connection)
            else:  # what was refused once is not asked for again
                self._pool.connector.readable[self.database] = (*self._readable()[:2], False)
        try:
            yield self._twin
        finally:
            if self._twin:
                self._twin.end()
            self._twin = None

    def rows(self, statement: str, values: Values = ()) -> Rows:
        """Reads. The connection could not write if it wanted to: its transactions are read-only."""
        return self._reader.rows(statement, values)

    def worker(self, *, lock_timeout: float, cost_delay: float | None = None, natural: bool = False) -> Connection:
        """The connection that carries out."""
        return self._take(Kind(False, lock_timeout, cost_delay, natural))

    @property
    def pids(self) -> list[int]:
        """The server processes of this run: their locks and snapshots are our own."""
        return sorted(self._pool.connector.pids)

    @property
    def own_pids(self) -> list[int]:
        """The server processes of this session alone; from any thread."""
        return [connection.pid for connection in list(self._held.values())]

    @property
    def made(self) -> set[tuple[str, int]]:
        """Indexes that failed attempts of this run have built."""
        return self._pool.connector.made

    @property
    def replaced(self) -> set[tuple[str, int]]:
        """Indexes that failed attempts of this run were to replace, and perhaps did."""
        return self._pool.connector.replaced

    def sees_statistics(self) -> bool:
        """Whether the login may read pg_statistic here, and not only pg_stats."""
        return self._readable()[0]

    def folder(self) -> str | None:
        """Where the files of the database are, if the login may ask for their sizes; seen from the server's own."""
        return self._readable()[1]

    def _readable(self) -> tuple[bool, str | None, bool]:
        known = self._pool.connector.readable
        if self.database not in known:
            ((statistics, folder, many),) = self.rows(READABLE, (MANY,))
            known[self.database] = bool(statistics), folder, bool(many)
        return known[self.database]

    @property
    def lately(self) -> dict[str, tuple[float, t.Any]]:
        """What sessions of this run share for a moment: by database, when it was read and what."""
        return self._pool.connector.lately

    def leave(self, database: str) -> None:
        """No connection of this run idles in that database."""
        self._pool.leave(database)

    def cancel(self) -> None:
        """Ends what the session is doing; from any thread, and harmless when it does nothing."""
        self.stopped.set()
        for connection in list(self._held.values()):
            connection.cancel()
        twin = self._twin
        if twin:
            twin.cancel()

    def end(self) -> None:
        for connection in self._held.values():
            self._pool.give_back(connection)
        self._held.clear()
