# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of the one writing run on a database: advisory locks of a session that does nothing else."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
import zlib

from ..._errors import DbFault, Gone, Held, Refused
from ..._units import say_seconds
from .connection import Connection

CLASS = 1684170342  # "dbfleet" and nobody else's, it is hoped: the first half of the lock's key
TAKE = "SELECT pg_catalog.pg_try_advisory_lock(%s, %s)"
RELEASE = "SELECT pg_catalog.pg_advisory_unlock(%s, %s)"
ALIVE = "SELECT 1"
PING = 1.0  # seconds: between two questions the connection's silence says that the server has not ended it
HOLDER = """
SELECT l.pid, coalesce(a.usename::pg_catalog.text, 'unknown'),
       coalesce(a.client_addr::pg_catalog.text, 'the server itself'),
       extract(epoch FROM pg_catalog.clock_timestamp() - a.backend_start)::pg_catalog.float8
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = %s AND l.objid = %s
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
"""


def key(database: str) -> int:
    """The second half: a signed 32-bit number of the database's name."""
    number = zlib.crc32(database.encode())
    return number - (1 << 32) if number >= 1 << 31 else number


class Guard:
    """Holds the locks of several databases on one connection, and takes them again should that be lost."""

    def __init__(
        self,
        connect: t.Callable[[], Connection],
        forget: t.Callable[[Connection], None],
        databases: t.Sequence[str],
    ) -> None:
        self._connect, self._forget, self._databases = connect, forget, sorted(set(databases))
        self._connection = connect()
        self._lock = threading.Lock()
        self._assured = 0.0

    def take(self, wait: float) -> None:
        """Raises Held, naming the holder, after `wait` seconds."""
        deadline, pause = time.monotonic() + wait, 0.1
        while True:
            taken_by_another = self._try()
            if taken_by_another is None:
                return
            if time.monotonic() + pause > deadline:
                raise self._held(taken_by_another)
            time.sleep(pause)
            pause = min(2.0, 1.5 * pause)

    def _try(self) -> str | None:
        """All or none; the name of the first database that somebody else holds."""
        mine: list[str] = []
        for database in self._databases:
            if not self._connection.rows(TAKE, (CLASS, key(database)))[0][0]:
                for name in mine:
                    self._connection.rows(RELEASE, (CLASS, key(name)))
                return database
            mine.append(database)
        return None

    def _held(self, database: str) -> Held:
        found = self._connection.rows(HOLDER, (CLASS, key(database) & 0xFFFFFFFF))
        who = "somebody who has just left"
        if found:
            pid, user, client, seconds = found[0]
            since = f" since {say_seconds(seconds)} ago" if seconds is not None else ""
            who = f"{user} from {client} (server process {pid}{since})"
        return Held(
            f"another run is at work here: {who}",
            database=database,
            cure="Wait for it, or set if_running: wait or skip",
        )

    def assure(self) -> None:
        """Before each step: still held, or taken again after the connection was lost. Raises Refused, Gone."""
        with self._lock:
            if time.monotonic() - self._assured < PING and self._connection.link.quiet():
                return
            try:
                self._connection.rows(ALIVE)
                self._assured = time.monotonic()
                return
            except Gone:
                self._forget(self._connection)
            self._connection = self._connect()
            lost_to = self._try()
        if lost_to is not None:
            raise Refused(
                "the connection of this run's guard was lost, and another run has begun here meanwhile",
                database=lost_to,
                cure="Nothing more is done here; run again when the other one has ended",
            )

    def release(self) -> None:
        """Ending the session releases its locks."""
        with contextlib.suppress(DbFault):
            self._forget(self._connection)
