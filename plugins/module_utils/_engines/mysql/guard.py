# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One writing run at a time on a database: locks by name, held by a connection of their own. No other lock is here."""

from __future__ import annotations

import contextlib
import hashlib
import math
import threading
import time
import typing as t

from ..._errors import DbFault, Held, Refused, Stopped
from .activity import who_is

if t.TYPE_CHECKING:
    from .connection import Link

TAKE = "SELECT GET_LOCK(%s, %s)"
HOLDER = "SELECT IS_USED_LOCK(%s)"
# Whether each lock is still this connection's own: an administrator may have released it, or a proxy reconnected.
MINE = "SELECT COALESCE(IS_USED_LOCK(%s) = CONNECTION_ID(), 0)"
AGAIN = 2.0  # seconds in which the server lets go of the locks of a connection that was lost


def name_of(database: str) -> str:
    """The lock's name: the server allows 64 characters and knows no case."""
    return f"dbfleet:{hashlib.sha256(database.encode()).hexdigest()[:48]}"


class Guard:
    """Holds the locks of several databases on one connection, and takes them again should that be lost.

    They end with the connection, however that ends. On a Galera or group cluster they hold on this node.
    """

    def __init__(
        self, connect: t.Callable[[], Link], forget: t.Callable[[Link], None], databases: t.Sequence[str]
    ) -> None:
        self._connect, self._forget, self._databases = connect, forget, sorted(set(databases))
        self._link = connect()
        self._lock = threading.Lock()

    def take(self, wait: float) -> None:
        """All of them, always in the same order. Raises Held, naming the holder where it can be seen."""
        until = time.monotonic() + wait
        for database in self._databases:
            left = max(0, math.ceil(until - time.monotonic()))
            if self._link.rows(TAKE, (name_of(database), left))[0][0] != 1:
                raise Held(
                    f"another run is at work on this database{_holder(self._link, database)}",
                    database=database,
                    cure="Wait for it, or set if_running to skip or wait",
                )

    def assure(self) -> None:
        """Before each step: still held, or taken again after the connection was lost. Raises Refused, CannotConnect."""
        with self._lock:
            if self._held():
                return
            self._forget(self._link)
            self._link = self._connect()
            try:
                self.take(AGAIN)
            except Held as held:
                raise Refused(
                    f"the connection of this run's guard was lost, and {held.cause}",
                    database=held.database,
                    cure="Nothing more is done here; run again when the other one has ended",
                ) from held

    def _held(self) -> bool:
        try:
            return all(self._link.rows(MINE, (name_of(database),))[0][0] == 1 for database in self._databases)
        except Stopped:
            raise
        except DbFault:
            return False

    def release(self) -> None:
        """Ending the session releases its locks."""
        with contextlib.suppress(DbFault):
            self._forget(self._link)


def _holder(link: Link, database: str) -> str:
    with contextlib.suppress(DbFault):
        process = link.rows(HOLDER, (name_of(database),))[0][0]
        return f" ({who_is(link, int(process))})" if process else ""
    return ""
