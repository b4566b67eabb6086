# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each flavour and version has and lacks: the one table of differences. No SQL runs here."""

from __future__ import annotations

import re

from ..._tuples import NamedTuple

MYSQL, MARIADB = "mysql", "mariadb"
Number = tuple[int, ...]
NEVER: Number = (9999,)

# The first version that has it. MySQL 8.0 is the oldest that is supported, MariaDB 10.6.
SINCE: dict[str, dict[str, Number]] = {
    # information_schema.tables shows day-old numbers unless the session says otherwise (MySQL 8.0).
    "statistics expiry": {MYSQL: (8, 0), MARIADB: NEVER},
    "max_execution_time": {MYSQL: (5, 7, 8), MARIADB: NEVER},
    "max_statement_time": {MYSQL: NEVER, MARIADB: (10, 1, 1)},
    "idle_transaction_timeout": {MYSQL: NEVER, MARIADB: (10, 3)},
    # SHOW REPLICA STATUS; SHOW SLAVE STATUS is gone in MySQL 8.4.
    "replica words": {MYSQL: (8, 0, 22), MARIADB: (10, 5, 1)},
    "all replicas status": {MYSQL: NEVER, MARIADB: (10, 0)},
    # INNODB_TABLES instead of INNODB_SYS_TABLES, and so on.
    "short innodb names": {MYSQL: (8, 0), MARIADB: NEVER},
    # innodb_sys_tables and its sisters show names as they stand in file names, @0040 for @.
    "file names": {MYSQL: NEVER, MARIADB: (5, 5)},
    "metadata locks": {MYSQL: (5, 7), MARIADB: NEVER},
    # performance_schema.processlist, which stops nobody while it is read.
    "processlist": {MYSQL: (8, 0, 22), MARIADB: NEVER},
    "thread os id": {MYSQL: (5, 7), MARIADB: NEVER},
    "group replication": {MYSQL: (8, 0), MARIADB: NEVER},
    "galera": {MYSQL: (5, 7), MARIADB: (10, 1)},
    # Before, ANALYZE during a long query stalled every later query of the table.
    "analyze beside queries": {MYSQL: (8, 0, 24), MARIADB: (10, 0)},
    # An indexed virtual column keeps a rebuild from LOCK=NONE.
    "online with virtual indexes": {MYSQL: (8, 0), MARIADB: NEVER},
    "json storage size": {MYSQL: (8, 0), MARIADB: NEVER},
    # How much of a segment a server keeps reserved for its growth is a setting, and holds for segments of any size.
    "segment reserve factor": {MYSQL: (8, 0, 26), MARIADB: NEVER},
    # Its older name, tx_read_only, is gone in MySQL 8.0.
    "transaction_read_only": {MYSQL: (5, 7, 20), MARIADB: (11, 1)},
    "super_read_only": {MYSQL: (5, 7, 8), MARIADB: NEVER},
    # STATISTICS.EXPRESSION, of functional indexes.
    "index expressions": {MYSQL: (8, 0, 13), MARIADB: NEVER},
    # Indexes that the optimizer leaves aside: INVISIBLE, and IGNORED.
    "invisible indexes": {MYSQL: (8, 0), MARIADB: NEVER},
    "ignored indexes": {MYSQL: NEVER, MARIADB: (10, 6)},
}
OLDEST_SUPPORTED: dict[str, Number] = {MYSQL: (8, 0), MARIADB: (10, 6)}
NEWEST_TESTED = {MYSQL: 9, MARIADB: 11}

# What no version has: the planner never asks for it.
ALWAYS_LACKING = {
    "vacuum": "InnoDB purges dead rows by itself",
    "freeze": "there are no transaction ids that must be frozen",
    "cost delay": "there is no vacuum to slow down",
    "single rebuild": "InnoDB packs an index anew only together with its table",
    "refresh": "there are no materialized views",
    "pgbackrest": "pgBackRest knows PostgreSQL only",
    "incremental": "incremental backups are made of PostgreSQL only",
}
# And what one flavour lacks in all of its versions.
FLAVOUR_LACKS: dict[str, dict[str, str]] = {
    MYSQL: {"physical": "mariadb-backup copies MariaDB's files only, and nothing here drives xtrabackup"},
    MARIADB: {},
}
SYSTEM_DATABASES = ("mysql", "information_schema", "performance_schema", "sys", "ndbinfo")


class Flavour(NamedTuple):
    """What the server says it is."""

    name: str
    version: str
    number: Number

    def has(self, capability: str) -> bool:
        """Whether this server has one of the capabilities of SINCE."""
        return self.number >= SINCE[capability][self.name]

    def view(self, name: str) -> str:
        """A view of InnoDB's dictionary in information_schema, such as `tables`, by the name it has here."""
        return f"INNODB_{name}" if self.has("short innodb names") else f"INNODB_SYS_{name}"

    def lacks(self) -> dict[str, str]:
        """What this version lacks, with the reason in words."""
        found = {**ALWAYS_LACKING, **FLAVOUR_LACKS[self.name]}
        newest = NEWEST_TESTED[self.name]
        if self.number[0] > newest:
            found["rewrite"] = f"{self.name} {self.number[0]} is newer than {newest}, the newest that was tested"
        if self.number < OLDEST_SUPPORTED[self.name]:
            oldest = ".".join(str(n) for n in OLDEST_SUPPORTED[self.name])
            found["write"] = f"{self.name} {self.version} is older than {oldest}, the oldest that is supported"
        return found


def flavour_of(version: str, comment: str = "") -> Flavour:
    """From `10.11.19-MariaDB-log`, `9.7.4-2`, or what a replication hack makes of it, `5.5.5-10.11.19-MariaDB`."""
    maria = MARIADB in version.lower() or MARIADB in comment.lower()
    text = version[len("5.5.5-") :] if maria and version.startswith("5.5.5-") else version
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    number = tuple(int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    return Flavour(MARIADB if maria else MYSQL, ".".join(str(n) for n in number), number)
