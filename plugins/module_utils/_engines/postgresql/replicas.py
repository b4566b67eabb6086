# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the standbys that the user named lag behind, asked of themselves."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ..._errors import DbFault
from .connection import Connection, Connector, Kind
from .options import Login
from .session import Session

WRITTEN = "SELECT pg_catalog.pg_current_wal_lsn()::pg_catalog.text"
# Caught up with what the primary had written a moment ago: no lag. Replayed all that has arrived, on a stream that is
# up and at most one segment behind: no lag, where nothing else happens. Else the age of the last commit replayed.
LAG = """
SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN NULL
            WHEN pg_catalog.pg_last_wal_replay_lsn() >= %(written)s::pg_catalog.pg_lsn THEN 0
            WHEN pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn()
                 AND EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver w WHERE w.pid IS NOT NULL)
                 AND pg_catalog.pg_wal_lsn_diff(%(written)s::pg_catalog.pg_lsn, pg_catalog.pg_last_wal_replay_lsn())
                     < %(segment)s THEN 0
            ELSE extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())
       END::pg_catalog.float8
"""
FRESH = 0.9  # seconds for which a reading serves all workers


class Replicas:
    """Connections to the standbys, kept open for the run; one reading at a time."""

    def __init__(self, login: Login, addresses: t.Sequence[str]) -> None:
        self._connectors = {address: Connector(login.at(address)) for address in addresses}
        self._open: dict[str, Connection] = {}
        self._database = login.database
        self._read: tuple[float, float | None] | None = None
        self._lock = threading.Lock()

    def lag(self, session: Session, segment: int) -> float | None:
        """Seconds of the one that lags most; None when one of them cannot be asked, or is no standby."""
        with self._lock:
            if self._read is None or time.monotonic() - self._read[0] > FRESH:
                ((written,),) = session.rows(WRITTEN)
                lags = [self._one(address, written, segment) for address in self._connectors]
                known = [lag for lag in lags if lag is not None]
                worst = max(known, default=0.0) if len(known) == len(lags) else None
                self._read = (time.monotonic(), worst)
            return self._read[1]

    def _one(self, address: str, written: str, segment: int) -> float | None:
        try:
            if address not in self._open:
                self._open[address] = self._connectors[address].open(self._database, Kind(True, 1.0))
            ((lag,),) = self._open[address].rows(LAG, {"written": written, "segment": segment})
        except DbFault:
            lost = self._open.pop(address, None)
            if lost:
                lost.close()
            return None
        return None if lag is None else max(0.0, float(lag))

    def close(self) -> None:
        for connection in self._open.values():
            with contextlib.suppress(DbFault):
                connection.close()
        self._open.clear()
