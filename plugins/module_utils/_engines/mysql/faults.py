# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server's error numbers mean for us. Nothing is raised here on its own."""

from __future__ import annotations

import re
import typing as t

from ..._errors import Busy, DbFault, Gone, Refused, Stopped, Vanished

# https://dev.mysql.com/doc/mysql-errors/en/server-error-reference.html and https://mariadb.com/kb/en/mariadb-error-codes/
BUSY = {
    1040: "too many connections",
    1203: "the login has too many connections",
    1205: "lock wait timeout",
    1213: "deadlock",
    1226: "the login's resources are used up",
    1412: "the table's definition has changed",
    1637: "too many transactions at once",
    3572: "the lock is taken",
}
UNKNOWN_DATABASE = 1049
VANISHED = (UNKNOWN_DATABASE, 1051, 1109, 1146)  # and unknown tables
GONE = (1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 2014, 2055, 4031)
LOST, TLS = 2013, 2026
DENIED = (1044, 1045, 1142, 1143, 1227, 1370, 1698)
KILLED = (1317, 1028)  # query interrupted; the sort of an index build aborted
TIMEOUT = (1969, 3024)
FULL = (1021, 1114, 1026, 1030)
ENOSPC = re.compile(r"\b(?:Errcode|errno):? 28\b")  # of a file that is no table: errors below 1000
NOT_ONLINE = (1845, 1846)
LOG_TOO_BIG = 1799
OPTION = 1290
READ_ONLY = (OPTION, 1792, 1836, 3501)

CURES = {
    **dict.fromkeys((1040, 1203, 1226), "Raise the limit, or run with fewer jobs"),
    1205: "Somebody holds a lock on it, or on all tables (a backup does)",
    **dict.fromkeys(DENIED, "Grant the login what it lacks (the README lists it for each operation)"),
    **dict.fromkeys(FULL, "Make room where the server keeps its data and its temporary files"),
    **dict.fromkeys(NOT_ONLINE, "This table can only be rebuilt while its writers wait: reclaim_method: exclusive"),
    **dict.fromkeys(READ_ONLY, "The server is read-only for this login: maintain the primary"),
    **dict.fromkeys(TIMEOUT, "Something limits the time of this login's statements: raise its limit"),
    LOG_TOO_BIG: "More was written to the table during the rebuild than innodb_online_alter_log_max_size holds:"
    " raise it (SET GLOBAL, no restart), or rebuild at a quieter time",
}


def number_of(fault: BaseException) -> int:
    """The server's (or the driver's) error number, 0 where there is none."""
    first = fault.args[0] if fault.args else 0
    return first if isinstance(first, int) else 0


def number_said(number: int, said: str) -> int:
    """What a client program's number means: MariaDB's call a connection that ends without a word a fault of TLS."""
    return LOST if number == TLS and "unexpected eof" in said.lower() else number


def text_of(fault: BaseException) -> str:
    return " ".join(str(a) for a in fault.args[1:]) or str(fault)


def translated(fault: BaseException, *, database: str = "", obj: str = "", stopping: bool = False) -> DbFault:
    """The fault that the runner understands: worth another try, lost, refused, or our own stop."""
    number, text = number_of(fault), text_of(fault)
    where: dict[str, t.Any] = {"database": database, "obj": obj}
    # An error of the driver itself, such as "Packet sequence number wrong", leaves the session unusable.
    lost = number in GONE or (number == 0 and type(fault).__name__ in ("InterfaceError", "InternalError"))
    if stopping and (number in KILLED or lost):
        return Stopped("stopped while it ran", **where)
    if number in VANISHED:
        return Vanished(text, **where)
    if number in KILLED:
        return Refused(f"somebody ended it: {text}", cure="Ask who did; it is due again next time", **where)
    if number in BUSY:
        return Busy(f"{BUSY[number]}: {text}", cure=CURES.get(number, ""), **where)
    if lost or isinstance(fault, OSError):
        return Gone(f"the connection was lost: {text}", **where)
    cure = CURES.get(number) or (CURES[FULL[0]] if ENOSPC.search(text) else "")
    if number == OPTION and "read" not in text.lower():  # "running with the … option": the text says which
        cure = ""
    return Refused(text, cure=cure, **where)
