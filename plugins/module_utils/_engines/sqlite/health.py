# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health of SQLite: there is no server, so little is known, and it is said why. Only reads; no threshold."""

from __future__ import annotations

from ..._health import Health, Logs
from ..._records import Server
from .activity import holders
from .connection import Session
from .files import size_of

NO_SERVER = "SQLite runs inside of its applications: there is no server that would count"
UNKNOWN = {
    "connections": NO_SERVER,
    "backends": "SQLite does not tell who works on a file, nor who waits for whom",
    **dict.fromkeys(
        (
            *("statements", "statement_calls", "statement_seconds", "cache_hit_percent", "deadlocks"),
            *("temporary_bytes", "uptime_seconds"),
        ),
        NO_SERVER,
    ),
}
FILES = 100  # whose locks are looked for


def read(session: Session, server: Server) -> Health:
    """Of all files together: their write-ahead logs, and who holds locks as far as the kernel tells."""
    heads = server.settings.get("files") or {}
    sizes = [size_of(path + "-wal") for path, head in heads.items() if head.wal]
    held = [f"{who} on {path}" for path in sorted(heads)[:FILES] if (who := holders(path))]
    unknown = dict(UNKNOWN)
    if held:
        unknown["backends"] += f". The kernel says who holds locks now: {'; '.join(held)}"
    return Health(
        prepared=(),
        replicas=(),
        slots=(),
        logs=Logs(enabled=bool(sizes), files=sum(size > 0 for size in sizes), bytes=sum(sizes)),
        unknown=unknown,
    )
