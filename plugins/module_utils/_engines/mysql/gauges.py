# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What limits are read from, and for how long a reading serves. How much is too much is said elsewhere."""

from __future__ import annotations

import threading
import time
import typing as t

from ..._records import Execution, Step
from . import activity, greeting, space
from .connection import Link
from .options import Login
from .replicas import Replicas

FRESH = 0.9  # seconds for which a reading serves all workers: no bite begins on what was so more than a second ago
AGING = ("oldest_snapshot", "replica_lag", "wal_backlog")  # read at every bite


class Gauges:
    """Readings for limits; those at every bite are kept for a moment, since the first bites are short."""

    def __init__(self, login: Login, execution: Execution) -> None:
        self._replicas, self._assumed = Replicas(login, execution), execution.assume_free_space
        self._kept: dict[t.Hashable, tuple[float, float | None]] = {}
        self._lock = threading.Lock()

    def read(self, session: Link, name: str, step: Step) -> float | None:
        """None when it cannot be known."""
        if name not in AGING:
            return self._space(session, name, step)
        key = (name, step.task.ref if name == "oldest_snapshot" else None)
        with self._lock:
            moment, value = self._kept.get(key, (0.0, None))
            if not moment or time.monotonic() - moment > FRESH:
                moment = time.monotonic()  # before the question: its answer may be as old as that
                value = self._aging(session, name, step)
                self._kept[key] = (moment, value)
            return value

    def _aging(self, session: Link, name: str, step: Step) -> float | None:
        if name == "oldest_snapshot":
            return activity.oldest_snapshot(session, step.task.ref)
        return self._replicas.lag() if name == "replica_lag" else activity.log_bytes(session)

    def _space(self, session: Link, name: str, step: Step) -> float | None:
        if name == "wal_missing":
            return 0.0  # the binary log holds a rebuild's statement, not its rows
        if name not in ("disk_missing", "tmp_missing"):
            return None
        ref = step.task.ref
        settings = greeting.read_settings(session)
        needs = space.needs(session, settings, ref.database, ref.path[0], step.size)
        kind = "data" if name == "disk_missing" else "tmp"
        return space.missing(session, settings, kind, needs, self._assumed)

    def close(self) -> None:
        """Not while a reading is under way: that one ends by itself, and its session with the process."""
        if self._lock.acquire(blocking=False):
            try:
                self._replicas.close()
            finally:
                self._lock.release()
