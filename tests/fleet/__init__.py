# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throwaway real servers for demo, tests and benchmarks: what others import; the work is in the files beside this."""

from __future__ import annotations

from .errors import FleetError, Missing
from .fleet import Fleet
from .installations import available
from .logs import Logged
from .mysql import MariaDB, MySQL
from .pgbouncer import PgBouncer
from .postgresql import PostgreSQL, Standby
from .server import Server

__all__ = [
    "Fleet",
    "FleetError",
    "Logged",
    "MariaDB",
    "Missing",
    "MySQL",
    "PgBouncer",
    "PostgreSQL",
    "Server",
    "Standby",
    "available",
]
