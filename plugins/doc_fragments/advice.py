# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_stats_facts's options, once for the module and once inside db_assess_facts."""

from __future__ import annotations

import re

OPTIONS = r"""
long_query:
  description:
    - A statement that runs for longer than this is reported, as V(5m).
  type: str
  default: 5m
long_transaction:
  description:
    - A transaction that is open for longer than this is reported, whether it works or idles; a prepared one, too.
  type: str
  default: 15m
lock_wait:
  description:
    - Who keeps others waiting for a lock is reported when one of them has waited for longer than this.
  type: str
  default: 10s
slow_statement_warning:
  description:
    - A kind of statement that takes longer than this on average is reported, where the server keeps such statistics
      (the extension pg_stat_statements, performance_schema).
  type: str
  default: 2s
slow_statement_critical:
  description:
    - From this average time on it is reported as priority 2 instead of 3.
  type: str
  default: 5s
connection_warning:
  description:
    - Percentage of the connections that ordinary users may take, from which on a full server is reported.
  type: float
  default: 80.0
connection_critical:
  description:
    - From this percentage on it is urgent.
  type: float
  default: 95.0
large_table:
  description:
    - A table of this size or more is reported, its indexes included; V(0B) reports none.
  type: str
  default: 1GB
growth_alert:
  description:
    - A database or table that grows by this or more a day is reported, from the sizes that the journal has kept;
      V(0B) reports none.
  type: str
  default: 100MB
unused_index_age:
  description:
    - An index is called unused when the server has counted for at least so long, and has not used it for so long.
  type: str
  default: 30d
counter_percent:
  description:
    - A sequence, identity or AUTO_INCREMENT column that has used up so much of its numbers is reported; cycling
      sequences are not.
  type: float
  default: 80.0
replica_lag:
  description:
    - A replica or standby that is so far behind is reported.
  type: str
  default: 5m
slot_retained:
  description:
    - A replication slot that keeps so much of the write-ahead log is reported.
  type: str
  default: 1GB
slot_inactive:
  description:
    - A replication slot that nobody has read for so long is reported, where the server knows that (PostgreSQL 17).
  type: str
  default: 1d
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
    "  statistics:\n"
    "    description:\n"
    "      - Return the fact C(db_stats) as well, as M(dbfleet.maintenance.db_stats_facts) does, from the same\n"
    "        measurement; and its recommendations among the findings.\n"
    "    type: bool\n"
    "    default: true\n"
    "  statistics_options:\n"
    "    description:\n"
    "      - Options of M(dbfleet.maintenance.db_stats_facts), where its defaults are not what is wanted.\n"
    "    type: dict\n"
    "    suboptions:\n" + _indented(_nested(OPTIONS.lstrip("\n"), "statistics_options"), 6)
)
