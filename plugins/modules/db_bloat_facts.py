#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_bloat_facts
short_description: Measures how much space of tables, indexes and files a rebuild would give back
version_added: 0.1.0
description:
  - Estimates the bloat of every selected table and its indexes, with the interval in which the truth is expected and
    the method used. What cannot be estimated (on PostgreSQL indexes that are not b-trees, and columns without
    statistics) is C(unknown), never none. Where the interval straddles O(bloat_percent) it looks closer, as far as the
    server has the means and O(scan_budget) allows.
  - PostgreSQL is estimated from the catalogs, a few queries a database, and looked at closer by pgstattuple where that
    is installed and the login may use it; InnoDB from file size and sampled rows, SQLite exactly from its pages
    where the dbstat table is compiled in, else from its list of free pages.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.facts
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution.reading
options:
  method:
    description:
      - V(auto) estimates, and looks closer where the threshold lies inside the interval. V(estimate) never looks
        closer, V(exact) always does.
    type: str
    choices: [auto, estimate, exact]
    default: auto
  scan_budget:
    description:
      - How many bytes the closer look may read.
    type: str
    default: 1GB
  min_size:
    description:
      - Smaller objects are left out.
    type: str
    default: 1MB
  bloat_percent:
    description:
      - An object is called bloated when its bloat is at least this, the doubt taken off.
    type: float
    default: 10.0
"""

EXAMPLES = r"""
- name: Which tables would shrink?
  dbfleet.maintenance.db_bloat_facts:
    engine: postgresql
    login_host: db1.example.com
    login_user: monitor
    login_password: "{{ vault_monitor_password }}"

- name: Show the worst
  ansible.builtin.debug:
    msg: "{{ ansible_facts.db_bloat.objects[:5] }}"
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  returned: success
  type: dict
  contains:
    db_bloat:
      description: Sizes and bloat, the worst first.
      type: dict
      contains:
        engine:
          description: What the server says that it is.
          type: str
        server:
          description: Version, address and role of the server.
          type: dict
        objects:
          description:
            - Tables, indexes and files with bytes, bloat_bytes, bloat_percent, low, high, method and bloated; C(table)
              is the table of an index. Percentages of a table are of its own storage, values stored out of line
              included; C(outside_bytes) is the part of C(bloat_bytes) that is in those (TOAST of PostgreSQL).
          type: list
          elements: dict
        databases:
          description:
            - Totals of each database; C(unknown) and C(indexes_unknown) count what could not be estimated. The bloat of
              indexes is counted apart, since the rebuild of a table gives back both.
          type: dict
        findings:
          description:
            - What no step can cure. Each has priority (1 is urgent), code, database, object, message and fix.
          type: list
          elements: dict
        summary:
          description: Counts, and bytes of bloat.
          type: dict
"""

from ansible_collections.dbfleet.maintenance.plugins.module_utils._facts import bloat_module


def main() -> None:
    bloat_module()


if __name__ == "__main__":
    main()
