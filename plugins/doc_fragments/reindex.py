# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_reindex's options, once for the module and once inside db_assess_facts."""

from __future__ import annotations

import re

OPTIONS = r"""
reasons:
  description:
    - For which reasons an index is built anew.
    - V(bloated) means a share of free space from O(bloat_percent) on.
    - V(invalid) means that a build broke off and no query uses the index (PostgreSQL).
    - V(collation) means that the library which sorts text has changed since, so that queries may miss rows
      (PostgreSQL). Once all that a collation sorts is rebuilt, its recorded version is refreshed, and not before.
  type: list
  elements: str
  choices: [bloated, invalid, collation]
  default: [bloated, invalid, collation]
indexes:
  description:
    - Names of indexes as C(schema.index) (PostgreSQL), C(table.index) (MySQL, MariaDB) or C(index) alone, with
      V(*), V(?) and a leading V(-) that takes away.
    - The name of a partitioned index takes those of its partitions along.
    - The default is every index of the selected tables.
  type: list
  elements: str
  default: ["*"]
bloat_percent:
  description:
    - An index is rebuilt when at least this share of it is bloat, by the low end of what it is measured to be.
    - On MySQL and MariaDB at least 40 percent have to be, since entries that come in no order make a third of it anew.
  type: float
  default: 30.0
min_size:
  description:
    - Smaller indexes are not rebuilt for their bloat.
  type: str
  default: 10MB
replicated_max_size:
  description:
    - Larger tables are not rebuilt but reported, where indexes are rebuilt with their table and replicas or a
      cluster would replay that (MySQL, MariaDB).
  type: str
  default: 1GB
max_snapshot_age:
  description:
    - No online rebuild while another transaction of the database is open for longer than this. The new index
      would have to wait for it.
  type: str
  default: 10m
method:
  description:
    - V(online) lets readers and writers go on (REINDEX CONCURRENTLY, InnoDB's online rebuild of the table) and
      reports a finding where there is no such means, as for exclusion constraints and in SQLite.
    - V(exclusive) rebuilds while writers wait (REINDEX).
  type: str
  choices: [online, exclusive]
  default: online
adopt_leftovers:
  description:
    - Invalid indexes that an interrupted REINDEX CONCURRENTLY left behind are dropped if the journal knows them
      as this collection's own. With V(true) those of others are dropped as well, when nobody is at work on them
      and the index that they were to replace is there and valid. Else they are reported.
  type: bool
  default: false
force:
  description:
    - Rebuild what is named in O(indexes) or O(tables) now, due or not. Refused where neither names any.
  type: bool
  default: false
"""


def _indented(text: str, by: int) -> str:
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(keepends=True))


def _nested(text: str, option: str) -> str:
    """The same text where the options stand inside another one: what they say of each other names that one, too."""
    names = re.findall(r"^([a-z_]+):$", text, re.MULTILINE)
    return re.sub(r"O\((" + "|".join(names) + r")\)", rf"O({option}.\1)", text)


class ModuleDocFragment:
    DOCUMENTATION: str
    NESTED: str


# Assigned here and not in the class body, where the documentation tools take literals only.
ModuleDocFragment.DOCUMENTATION = "options:\n" + _indented(OPTIONS.lstrip("\n"), 2)
ModuleDocFragment.NESTED = (
    "options:\n"
    "  reindex:\n"
    "    description:\n"
    "      - Assess what M(dbfleet.maintenance.db_reindex) would do with these of its options.\n"
    "      - Without it reindex is not assessed, and is not due.\n"
    "    type: dict\n"
    "    suboptions:\n" + _indented(_nested(OPTIONS.lstrip("\n"), "reindex"), 6)
)
