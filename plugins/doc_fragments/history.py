# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_history_facts's options."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  since:
    description:
      - How far back to look, as V(30d), by the clock of the host where the module runs. Trends are made of the same
        time. The journal itself forgets what is older than O(journal_keep) of the modules that write into it.
    type: str
    default: 30d
  servers:
    description:
      - Which servers and backup folders of the journal to tell of, as patterns of the names that C(servers) in the
        fact lists, for example V(["*"]) for all of them or V(["/srv/backups on *"]) for rotation.
      - By default the one that the connection options name. Nobody connects to it.
    type: list
    elements: str
    default: []
  until_database_size:
    description:
      - Tell in how many days each database is as large as this, as V(500GB).
    type: str
  until_table_size:
    description:
      - Tell in how many days each table that grows is as large as this, its indexes included.
    type: str
"""
