# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading servers' own statement logs, as pure functions of their text. No file is opened here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# Unit separators around the names: no database or application name holds one (PostgreSQL replaces control characters).
POSTGRESQL_PREFIX = r"%m [%p] \037%d\037%u\037%a\037 "
# A client of MySQL or MariaDB that sends this first is known as that application in what follows.
MYSQL_APPLICATION = "DO 'application {}'"


class Logged(NamedTuple):
    """One statement that a server was asked to execute; `pid` is the connection's id on MySQL and MariaDB."""

    database: str
    application: str
    pid: int
    statement: str
    user: str = ""


_PG_HEAD = re.compile(
    r"[-0-9]{10} [:0-9]{8}\.\d+ \S+ \[(\d+)\] \x1f([^\x1f]*)\x1f([^\x1f]*)\x1f([^\x1f]*)\x1f ([A-Z]+[0-9]?):  "
)
# "statement: …", "execute <unnamed>: …", "execute name/portal: …"; with log_duration both stand behind a duration.
_PG_STATEMENT = re.compile(r"(?:duration: [0-9.]+ ms  )?(?:statement|execute (?:fetch from )?.+?): (.*)", re.DOTALL)


def postgresql_log(text: str) -> Iterator[Logged]:
    """Give the statements in a log that was written with POSTGRESQL_PREFIX, those of many lines whole."""
    message: list[str] = []
    for line in (*text.split("\n"), "\0"):
        if line.startswith("\t"):
            # The server puts one tab before each further line of a message.
            message.append(line[1:])
            continue
        yield from _postgresql_message("\n".join(message))
        message = [line]


def _postgresql_message(message: str) -> Iterator[Logged]:
    head = _PG_HEAD.match(message)
    if head is None or head[5] != "LOG":
        return
    statement = _PG_STATEMENT.fullmatch(message, head.end())
    if statement:
        yield Logged(head[2], head[4], int(head[1]), statement[1], head[3])


# MariaDB writes the time once a second ("261121 20:44:00", else tabs), MySQL on each line; then id, command, argument.
_MYSQL_HEAD = re.compile(
    r"(?:\d{6} [ \d]\d:\d\d:\d\d\t|\t\t|\d{4}-\d\d-\d\dT[:.0-9]+(?:Z|[-+]\d\d:\d\d)\t)"
    r" *(\d+) (Connect|Query|Execute|Init DB|Change user|Quit|Prepare|[A-Z][a-z]+(?: [A-Za-z]+){0,2})(?:\t(.*))?",
    re.DOTALL,
)
_MYSQL_CONNECT = re.compile(r"(.*)@\S* on (.*?)(?: using \S+)?", re.DOTALL)
_MYSQL_USE = re.compile(r"use\s+(?:`((?:[^`]|``)+)`|(\S+?))\s*;?\s*", re.IGNORECASE)
_MYSQL_APPLICATION = re.compile(re.escape(MYSQL_APPLICATION).replace(r"\{\}", "(.*)").replace("{}", "(.*)"))

# Three lines that the server writes each time it opens its log.
_MYSQL_BANNER = re.compile(r".*, Version: .* started with:|Tcp port: \d+  Unix socket: .*|Time\s+Id Command\s+Argument")


class Sessions:
    """What is known of the connections to MySQL or MariaDB, whose log names a database only where it changes."""

    def __init__(self) -> None:
        self._known: dict[int, Logged] = {}

    def read(self, text: str) -> list[Logged]:
        """Give the statements of the next part of the log (whole lines)."""
        found: list[Logged] = []
        entry: list[str] = []
        for line in text.split("\n"):
            if _MYSQL_HEAD.fullmatch(line):
                found += self._entry("\n".join(entry))
                entry = [line]
            elif entry and not _MYSQL_BANNER.fullmatch(line):
                entry.append(line)
        # The text's last line break ends the last entry and is no part of it.
        return found + self._entry("\n".join(entry).removesuffix("\n"))

    def _entry(self, entry: str) -> list[Logged]:
        head = _MYSQL_HEAD.fullmatch(entry)
        if head is None:
            return []
        pid, command, argument = int(head[1]), head[2], head[3] or ""
        session = self._known.get(pid, Logged("", "", pid, ""))
        if command in ("Connect", "Change user"):
            who = _MYSQL_CONNECT.fullmatch(argument)
            session = Logged(who[2] if who else "", "", pid, "", who[1] if who else "")
        elif command == "Init DB":
            session = session._replace(database=argument)
        elif command in ("Query", "Execute") and pid:
            # Connection 0 is the server itself, creating its own tables at its start.
            name = _MYSQL_APPLICATION.fullmatch(argument)
            if name:
                self._known[pid] = session._replace(application=name[1])
                return []
            use = _MYSQL_USE.fullmatch(argument)
            if use:
                session = session._replace(database=(use[1] or use[2]).replace("``", "`"))
            self._known[pid] = session
            return [session._replace(statement=argument)]
        self._known[pid] = session
        return []
