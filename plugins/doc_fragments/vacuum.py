# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_vacuum's options, once for the module and once inside db_assess_facts."""

from __future__ import annotations

import re

OPTIONS = r"""
actions:
  description:
    - What may be done. What an engine does not know is left out, unless it was asked for by name.
  type: list
  elements: str
  choices: [vacuum, analyze, freeze, reclaim]
  default: [vacuum, analyze, freeze, reclaim]
dead_percent:
  description:
    - A table is vacuumed from this share of dead rows on, if there are at least O(min_dead_rows). The table's own
      storage parameters for autovacuum win.
  type: float
  default: 10.0
min_dead_rows:
  description:
    - Fewer dead rows than this are not worth a vacuum.
  type: int
  default: 1000
max_dead_rows:
  description:
    - From so many dead rows on a vacuum is due whatever their share.
  type: int
  default: 10000000
changed_percent:
  description:
    - A table is analyzed when this share of its rows changed since the last time. The table's own storage parameters
      win.
  type: float
  default: 10.0
min_changed_rows:
  description:
    - Fewer changed rows than this are not worth an analyze, unless O(analyze_max_age) makes it due. The table's own
      storage parameters win.
  type: int
  default: 50
analyze_max_age:
  description:
    - A table is analyzed when anything changed and the last time is so long ago, as V(7d).
  type: str
  default: 7d
freeze_age_percent:
  description:
    - A table is frozen from this share of the server's C(autovacuum_freeze_max_age) on, multixacts and TOAST
      included. Every database that can be connected to is looked at, templates and catalogs too, unless O(databases)
      or O(tables) say otherwise.
  type: float
  default: 50.0
vacuum_cost_delay:
  description:
    - Milliseconds of pause whenever the cost limit is reached (PostgreSQL). The default is the server's setting.
  type: float
reclaim_percent:
  description:
    - Space is given back to the file system when at least this share of a table, or of a SQLite file, is bloat.
  type: float
  default: 30.0
reclaim_min_size:
  description:
    - Smaller tables are not rebuilt.
  type: str
  default: 100MB
reclaim_max_size:
  description:
    - Larger tables are not rebuilt but reported.
  type: str
  default: 50GB
reclaim_replicated_max_size:
  description:
    - Larger tables are not rebuilt but reported where replicas or a cluster would replay the rebuild (MySQL,
      MariaDB).
  type: str
  default: 1GB
reclaim_max_snapshot_age:
  description:
    - No rebuild while another transaction of the database is open for longer than this.
  type: str
  default: 10m
reclaim_method:
  description:
    - V(online) uses what lets writers go on (InnoDB's online rebuild, pg_repack, SQLite's incremental vacuum) and
      reports a finding where there is no such means.
    - V(exclusive) rebuilds while writers wait (VACUUM FULL, SQLite's VACUUM).
  type: str
  choices: [online, exclusive]
  default: online
force:
  description:
    - Do what O(actions) says now, to the tables named in O(tables), due or not. Refused where O(tables) names none.
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
    "  vacuum:\n"
    "    description:\n"
    "      - Assess what M(dbfleet.maintenance.db_vacuum) would do with these of its options.\n"
    "      - Without it vacuum is not assessed, and is not due.\n"
    "    type: dict\n"
    "    suboptions:\n" + _indented(_nested(OPTIONS.lstrip("\n"), "vacuum"), 6)
)
