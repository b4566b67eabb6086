# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits: whether one is broken, and the words for it. When they are read, and what then happens, is worker.py's."""

from __future__ import annotations

import typing as t

from .._protocols import Engine, Session
from .._records import Limit, Step
from .._units import say_bytes, say_seconds

NAMES = {
    "disk_missing": "disk space missing for it:",
    "wal_missing": "space missing for its WAL or binlog:",
    "tmp_missing": "temporary space missing for it:",
    "oldest_snapshot": "the oldest snapshot's age is",
    "replica_lag": "the lag of the replicas is",
    "wal_backlog": "write-ahead or binary logs that are kept:",
}
IN_BYTES = ("_missing", "_backlog")


def breach(engine: Engine, session: Session, step: Step, *, otherwise: str = "") -> str:
    """The first broken limit in words, or nothing; of one kind (`wait` or `skip`) where `otherwise` names it."""
    for limit in step.limits:
        if otherwise in ("", limit.otherwise):
            broken = reading(engine, session, step, limit)
            if broken:
                return broken
    return ""


def reading(engine: Engine, session: Session, step: Step, limit: Limit) -> str:
    """What the gauge says, in words, where it is over the limit; nothing where it is not. Unknown is too much."""
    value = engine.gauge(session, limit.gauge, step)
    if value is not None and value <= limit.worst:
        return ""
    unit: t.Callable[[float], str] = say_bytes if limit.gauge.endswith(IN_BYTES) else say_seconds
    name = NAMES.get(limit.gauge, limit.gauge.replace("_", " "))
    if value is None:
        return f"{name} unknown, and unknown is too much (limit {unit(limit.worst)})"
    return f"{name} {unit(value)}, over the limit of {unit(limit.worst)}"
