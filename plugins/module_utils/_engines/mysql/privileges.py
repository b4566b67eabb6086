# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the login may do, read from its grants, and which GRANT it lacks. Pure, but for one function that asks."""

from __future__ import annotations

import re
import typing as t

from ..._errors import Refused
from ..._tuples import NamedTuple

GLOBAL = ("*", "*")
_GRANT = re.compile(
    r"(GRANT|REVOKE) (.+?) ON (?:TABLE )?(\*|`(?:[^`]|``)+`)\.(\*|`(?:[^`]|``)+`) (?:TO|FROM) ", re.IGNORECASE
)
_COLUMNS = re.compile(r"\([^)]*\)")

ANALYZE = ("SELECT", "INSERT")
REBUILD = ("ALTER", "CREATE", "INSERT")
# Any one of them is enough.
KEEP_LOCAL = {
    "mysql": ("SYSTEM_VARIABLES_ADMIN", "SESSION_VARIABLES_ADMIN", "SUPER"),
    "mariadb": ("BINLOG ADMIN", "SUPER"),
}
READ_REPLICATION = {
    "mysql": ("REPLICATION CLIENT", "SUPER"),
    "mariadb": ("SLAVE MONITOR", "REPLICA MONITOR", "SUPER"),
}
PAST_READ_ONLY = {
    "mysql": ("CONNECTION_ADMIN", "SUPER"),
    "mariadb": ("READ_ONLY ADMIN", "READ ONLY ADMIN", "SUPER"),
}


class Grant(NamedTuple):
    names: frozenset[str]
    database: str  # a pattern of LIKE; * is all
    table: str
    given: bool = True


class Grants(NamedTuple):
    """The login's grants; `known` is false when they could not be read, and then nothing is said to be missing."""

    account: str
    grants: tuple[Grant, ...] = ()
    known: bool = True

    def allow(self, name: str, database: str = "*", table: str = "*") -> bool:
        """Whether a privilege is granted globally, on the database or on the table."""
        if not self.known:
            return True
        allowed = False
        for grant in self.grants:
            if not grant.names & {name, "ALL PRIVILEGES", "ALL"} or not _covers(grant, database, table):
                continue
            allowed = grant.given
        return allowed

    def any_of(self, names: t.Iterable[str]) -> bool:
        """Whether at least one of some global privileges is there."""
        return any(self.allow(name) for name in names)

    def missing(self, names: t.Iterable[str], database: str, table: str = "*") -> list[str]:
        return [name for name in names if not self.allow(name, database, table)]

    def statement(self, names: t.Iterable[str], database: str = "*", table: str = "*") -> str:
        """The GRANT that cures it."""
        where = ".".join(part if part == "*" else "`" + part.replace("`", "``") + "`" for part in (database, table))
        return f"GRANT {', '.join(names)} ON {where} TO {self.account}"


def _covers(grant: Grant, database: str, table: str) -> bool:
    if grant.database == "*":
        return True
    if database == "*" or not _like(grant.database, database):
        return False
    return grant.table in ("*", table)


def _like(pattern: str, name: str) -> bool:
    """A database in a GRANT is a pattern: `%`, `_`, and a backslash before what is meant as it stands."""
    out, escaped = "", False
    for sign in pattern:
        if escaped or sign not in "\\%_":
            out, escaped = out + re.escape(sign), False
        elif sign == "\\":
            escaped = True
        else:
            out += ".*" if sign == "%" else "."
    return re.fullmatch(out, name, re.DOTALL) is not None


def parsed(lines: t.Iterable[str]) -> tuple[Grant, ...]:
    """The rows of SHOW GRANTS; roles, procedures and proxies are left out."""
    found = []
    for line in lines:
        words = _GRANT.match(line)
        if words:
            names = frozenset(n.strip().upper() for n in _COLUMNS.sub("", words.group(2)).split(","))
            found.append(Grant(names, _bare(words.group(3)), _bare(words.group(4)), words.group(1).upper() == "GRANT"))
    # A partial revoke takes away from what was granted before it.
    return tuple(sorted(found, key=lambda g: not g.given))


def _bare(word: str) -> str:
    return word if word == "*" else word[1:-1].replace("``", "`")


def read_grants(link: t.Any) -> Grants:
    """The grants of this session, those of its active roles with them. Only reads."""
    account = "CURRENT_USER()"
    try:
        user, host = str(link.rows("SELECT CURRENT_USER()")[0][0]).rpartition("@")[::2]
        account = f"{_literal(user)}@{_literal(host)}"
        roles = str(link.rows("SELECT CURRENT_ROLE()")[0][0] or "NONE")
        using = f" FOR CURRENT_USER() USING {roles}" if link.flavour.name == "mysql" and roles != "NONE" else ""
        return Grants(account, parsed(str(row[0]) for row in link.rows(f"SHOW GRANTS{using}")))
    except Refused:
        return Grants(account, known=False)


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
