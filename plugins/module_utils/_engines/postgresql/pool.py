# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that several steps use, one after the other. How one is opened: connection.py."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ..._errors import CannotConnect, DbFault, Vanished
from .connection import Connection, Connector, Kind
from .faults import Crowded

CROWDED = 5.0  # seconds that a session waits for another one of ours, where the server takes no more of them
MOST_IDLE = 8  # connections that may be of use again: a server of many databases has other clients, too


class Pool:
    """Connections that are not in use, by database and kind: a step costs no connection of its own."""

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self._idle: dict[tuple[str, Kind], list[Connection]] = {}  # what was used last comes last
        self._used: set[Connection] = set()
        self._halfway = threading.Lock()  # one session with a connection may wait for its second one: two wait for ever
        self._lock = threading.Lock()

    def take(self, database: str, kind: Kind, *, held: int = 0) -> Connection:
        """`held` is how many the session has already: those it cannot wait for."""
        with self._lock:
            idle = self._idle.get((database, kind), [])
            connection = idle.pop() if idle else None
        connection = connection or self.open(database, kind, held)
        with self._lock:
            self._used.add(connection)
        return connection

    def spare(self, database: str, kind: Kind) -> Connection | None:
        """One that its session can do without: nobody is waited for, and nobody gives way. None: not to be had."""
        with self._lock:
            idle = self._idle.get((database, kind), [])
            connection = idle.pop() if idle else None
        with contextlib.suppress(CannotConnect, Vanished):
            connection = connection or self.connector.open(database, kind)
        if connection:
            with self._lock:
                self._used.add(connection)
        return connection

    def open(self, database: str, kind: Kind, held: int = 0) -> Connection:
        """Where few connections are left, those of ours that idle give way, and those at work are waited for."""
        if not held:
            return self._open(database, kind, held, CROWDED)
        alone = self._halfway.acquire(blocking=False)
        try:
            return self._open(database, kind, held, CROWDED if alone else 0.5)
        finally:
            if alone:
                self._halfway.release()

    def _open(self, database: str, kind: Kind, held: int, patience: float) -> Connection:
        until, ended = time.monotonic() + patience, False
        while True:
            try:
                return self.connector.open(database, kind)
            except Crowded:
                with self._lock:
                    idle = [c for several in self._idle.values() for c in several]
                    self._idle.clear()
                    others = len(self._used) > held
                ended = ended or bool(idle)  # the server takes a moment to let go of them
                if not (others or ended) or time.monotonic() > until:
                    raise
                for each in idle:
                    self.connector.forget(each)
                time.sleep(0.1)

    def give_back(self, connection: Connection) -> None:
        """A connection that was lost or cancelled is not used again; nor are its idle sisters after a loss."""
        with self._lock:
            self._used.discard(connection)
            dropped = [connection] if connection.spoilt or connection.stopping or connection.brief else []
            if connection.spoilt:
                dropped += [c for idle in self._idle.values() for c in idle]
                self._idle.clear()
            elif not dropped:
                dropped = self._rest(connection)
        for each in dropped:
            self.connector.forget(each)

    def _rest(self, connection: Connection) -> list[Connection]:
        """Idles from now on; those that have for longest, and are too many now."""
        key = connection.database, connection.kind
        self._idle[key] = [*self._idle.pop(key, []), connection]  # the last one of the dictionary
        surplus = sum(map(len, self._idle.values())) - MOST_IDLE
        dropped = []
        for key in list(self._idle) if surplus > 0 else ():
            gone, kept = self._idle[key][:surplus], self._idle[key][surplus:]
            dropped += gone
            surplus -= len(gone)
            if kept:
                self._idle[key] = kept
                break
            del self._idle[key]
        return dropped

    def leave(self, database: str) -> None:
        """No connection of ours idles there: it would keep the database from being renamed or dropped."""
        with self._lock:
            idle = [self._idle.pop(key) for key in list(self._idle) if key[0] == database]
        for connection in (each for several in idle for each in several):
            self.connector.forget(connection)

    def close(self) -> None:
        with self._lock:
            everything = [*self._used, *(c for idle in self._idle.values() for c in idle)]
            self._used.clear()
            self._idle.clear()
        for connection in everything:
            self.connector.forget(connection)


def reachable(pool: Pool, databases: t.Sequence[str], kind: Kind) -> Connection:
    """A connection to the first of these databases that takes one. Raises the first CannotConnect."""
    first: DbFault | None = None
    for database in dict.fromkeys(databases):
        try:
            return pool.open(database, kind)
        except (CannotConnect, Vanished) as error:
            first = first or error
    raise first or CannotConnect("no database to connect to")
