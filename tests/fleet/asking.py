# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single statements through a driver, answered as the client programs print them. No script is executed here.

A client program takes several times as long to start as its statement takes, and the tests execute thousands. Drivers
are imported where they are used: what runs a module without any imports this, too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from .errors import FleetError

# What only the programs know, or answer in a way of their own.
FOR_PSQL = re.compile(r";\s*\S|^\s*\\|\bcopy\b", re.IGNORECASE)
# A session's changes are in the server's counters when it has ended, which nobody waits for.
CHANGES = re.compile(r"\s*(INSERT|UPDATE|DELETE|COPY|WITH|TRUNCATE)\b", re.IGNORECASE)
FOR_MYSQL = re.compile(r"\bdelimiter\b|\blocal\s+infile\b|^\s*\\", re.IGNORECASE)


def _as_it_comes(value: str | bytes | None, _cursor: Any) -> str | bytes | None:
    return value


@functools.cache
def _as_text() -> Any:
    from psycopg2 import extensions

    return extensions.new_type(tuple(extensions.string_types), "AS_TEXT", _as_it_comes)


def postgresql(statement: str, login: Mapping[str, str]) -> list[list[str]]:
    """Rows as psql prints them: NULL is "", and nothing but that is an empty line. FleetError when it fails."""
    import psycopg2
    import psycopg2.extensions

    settings: dict[str, Any] = {**login}
    try:
        with closing(psycopg2.connect(**settings)) as connection:
            connection.autocommit = True
            psycopg2.extensions.register_type(_as_text(), connection)
            with connection.cursor() as cursor:
                cursor.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
                if CHANGES.match(statement) and connection.server_version >= 150000:
                    cursor.execute("SELECT pg_catalog.pg_stat_force_next_flush()")
    except psycopg2.Error as error:
        raise FleetError(f"PostgreSQL said: {str(error).strip()}") from error
    found = [["" if value is None else value for value in row] for row in rows]
    return [[] if row == [""] else row for row in found]


def mysql(statement: str, login: Mapping[str, str], init_command: str) -> list[list[str]]:
    """Rows as mysql and mariadb print them: NULL is "NULL". FleetError when it fails."""
    import pymysql
    from pymysql.constants import CLIENT

    settings: dict[str, Any] = {
        **login,
        "charset": "utf8mb4",
        "autocommit": True,
        "init_command": init_command,
        "conv": {},
        "client_flag": CLIENT.MULTI_STATEMENTS,
        "ssl_disabled": True,  # reading the system's certificates takes ten times as long as all the rest
    }
    found: list[list[str]] = []
    try:
        with closing(pymysql.connect(**settings)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            while True:
                found += [[_told(value) for value in row] for row in cursor.fetchall()]
                if not cursor.nextset():
                    return found
    except pymysql.MySQLError as error:
        raise FleetError(f"the server said: ERROR {error.args[0]}: {error.args[-1]}") from error


def _told(value: str | bytes | None) -> str:
    if value is None:
        return "NULL"
    return value.decode(errors="replace") if isinstance(value, bytes) else value
