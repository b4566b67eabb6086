# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What errors of the server and of libpq mean for a run: one table by SQLSTATE, one for failed connections."""

from __future__ import annotations

import re
import typing as t

from ..._errors import Busy, CannotConnect, DbFault, Gone, Refused, Stopped, Vanished
from .driver import DriverError

BUSY: t.Mapping[str, str] = {
    "55P03": "Somebody holds a lock on it",  # lock_not_available
    "40P01": "",  # deadlock_detected
    "40001": "",  # serialization_failure
    "53300": "Raise max_connections, or run with fewer jobs",  # too_many_connections
    "57P03": "The server is starting or stopping",  # cannot_connect_now
}
GONE = (
    "08",
    "57P01",
    "57P02",
    "57P05",
    "25P03",
    "25P04",
)  # connection lost, shutdown, crash, idle and transaction timeouts
VANISHED = ("42P01", "3F000")  # undefined_table, invalid_schema_name
REFUSED: t.Mapping[str, str] = {
    "42501": "Give the login the privilege: see the README, or let the owner or a superuser run this",
    "0A000": "",
    "55000": "",
    "53100": "The server's disk is full: make room first",
    "53200": "The server is out of memory: lower maintenance_work_mem or max_connections",
    "54000": "",
    "25006": "The session is read-only: is this a standby?",
    "22021": "A name or a value in this database is not valid UTF-8: mend it there",  # character_not_in_repertoire
}
CROWDED = r"too many (clients|connections)|remaining connection slots"

# Texts of libpq and of the server; where the server speaks another language the last entry is left.
CONNECT: tuple[tuple[str, str], ...] = (
    (r"password authentication failed|no password supplied|empty password", "Check login_user and login_password"),
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects", "Add a line for this host, user and database to pg_hba.conf"),
    (r"role .* does not exist", "Check login_user and session_role"),
    (r"permission denied to set role", "GRANT the role of session_role to the login"),
    (r"database .* does not exist", "Check login_db"),
    (r"permission denied for database|does not have CONNECT", "GRANT CONNECT ON DATABASE to the login"),
    (
        r"too many connections for (role|database)",
        "Raise its CONNECTION LIMIT (a run takes one connection, and two for each of its jobs), or run with fewer jobs",
    ),
    (CROWDED, "Raise max_connections, or run with fewer jobs"),
    (r"lock timeout", "Somebody has locked a catalog of the server: end that transaction"),
    (r"(starting up|shutting down|recovery mode)", "Try again when the server is up"),
    (r"timeout expired|timed out", "Check the address, and that no firewall swallows the packets; see connect_timeout"),
    (
        r"Connection refused|No such file or directory.*\.s\.PGSQL|\.s\.PGSQL.*No such file",
        "Is the server running there?",
    ),
    (r"could not translate host name|Name or service not known", "Check login_host"),
    (r"root certificate|certificate verify failed|server certificate", "Check ca_cert, ssl_mode and the host's name"),
    (r"SSL|TLS|certificate", "Check ssl_mode, ca_cert, ssl_cert and ssl_key"),
)


class Crowded(CannotConnect):
    """The server, the database or the role takes no more connections."""


def fault(error: DriverError, *, database: str, stopping: bool = False) -> DbFault:
    """The error of a session that was open."""
    state, message = error.sqlstate, error.message
    if state == "57014":  # query_canceled: by us, by an administrator, or by a timeout
        if stopping:
            return Stopped("stopped", database=database)
        return Refused(message, database=database, cure="Somebody else, or a timeout, ended it")
    if state in BUSY:
        return Busy(message, database=database, cure=BUSY[state])
    if state.startswith(GONE) or error.lost:
        kind: type[DbFault] = Stopped if stopping else Gone
        return kind(f"the connection was lost: {message}", database=database)
    if state in VANISHED:
        return Vanished(message, database=database)
    return Refused(message, database=database, cure=REFUSED.get(state, ""))


def connect_fault(error: DriverError, *, database: str, listed: bool, password: str) -> DbFault:
    """The error of a connection that did not come about; `listed`: the server itself has named the database."""
    message = re.sub(r"^(?:connection to server.*?failed: )?(?:FATAL: +)?", "", error.message)
    message = re.sub(r"\s*Is the server running[^?]*\?\s*$", "", message)  # the cure says it
    if password:
        message = message.replace(password, "********")
    if listed and re.search(r"database .* does not exist", error.message):
        return Vanished(message, database=database)
    cure = next(
        (cure for pattern, cure in CONNECT if re.search(pattern, error.message)), "Check the connection options"
    )
    kind = Crowded if re.search(CROWDED, error.message) else CannotConnect
    return kind(f"cannot connect: {message}", database=database, cure=cure)
