# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a pooler stands between us and the server, where locks and settings of a session do not hold."""

from __future__ import annotations

from .connection import Connection

BACKEND = "SELECT pg_catalog.pg_backend_pid()"
SETTINGS = """
SELECT pg_catalog.current_setting('search_path'), pg_catalog.current_setting('default_transaction_read_only')
"""


def recognise(connection: Connection, pid: int) -> str:
    """Why session locks and settings may not hold, or nothing.

    In the handshake the server tells the number of its process, for requests to cancel. A pooler answers the handshake
    itself and makes a number up, since the server process behind may change. Port forwarding, NAT and TLS tunnels pass
    the handshake on: there the numbers agree.
    """
    if connection.link.promised_pid != pid:
        return _kind(connection, pid)
    ((path, read_only),) = connection.rows(SETTINGS)
    if (path, read_only) != ("pg_catalog", "on" if connection.kind.read_only else "off"):
        return "something in between drops the settings that a session is opened with"
    return ""


def _kind(connection: Connection, pid: int) -> str:
    """Two transactions in two processes prove transaction pooling; one process proves nothing."""
    others = {pid, *(connection.rows(BACKEND)[0][0] for turn in range(3))}
    if len(others) > 1:
        return "a pooler in between gives every transaction another server process"
    return "a pooler in between: the server process is not the one that the connection was promised"
