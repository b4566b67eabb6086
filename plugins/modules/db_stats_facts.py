#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_stats_facts
short_description: Reads how a server and its databases are, and recommends what nobody carries out by itself
version_added: 0.1.0
description:
  - Reads connections, sessions that work long or wait for each other, slow statements, replication, slots, archiving
    and logs, ages of transaction ids, sizes, rows, indexes, foreign keys, primary keys and counters, and recommends
    what should be done about them, each with the statement that cures it.
  - Indexes that are unused, duplicate, redundant or invalid, or missing on a foreign key, are named. Those that a
    constraint, a foreign key, replication or clustering needs are not called unused, nor are those on expressions,
    which plans may need for their statistics.
  - What the server does not count, or this login may not see, is V(null) in the facts and named with its reason in
    C(unknown); it is never reported as none.
  - It only reads. Sizes go into the journal, at most once an hour and not in check mode, and become trends from seven
    of them on.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.facts
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution.reading
  - dbfleet.maintenance.advice
"""

EXAMPLES = r"""
- name: How is the server?
  dbfleet.maintenance.db_stats_facts:
    engine: postgresql
    login_host: db1.example.com
    login_user: monitor
    login_password: "{{ vault_monitor_password }}"
    unused_index_age: 90d

- name: Show what is recommended
  ansible.builtin.debug:
    msg: "{{ ansible_facts.db_stats.recommendations }}"
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  returned: success
  type: dict
  contains:
    db_stats:
      description: How the server and its databases are.
      type: dict
      contains:
        engine:
          description: What the server says that it is.
          type: str
        server:
          description: Version, address and role of the server, and for how many seconds it has run.
          type: dict
        connections:
          description: C(used) of C(most) connections, C(percent), and how many are active, idle, idle in transaction.
          type: dict
        replication:
          description: The role of the server, and each replica or upstream with its state and lag.
          type: dict
        slots:
          description: Replication slots with what they retain (PostgreSQL).
          type: list
          elements: dict
        archiving:
          description: Archiving of the write-ahead log (PostgreSQL).
          type: dict
        logs:
          description: Number and bytes of write-ahead or binary log files.
          type: dict
        long_queries:
          description: Sessions over O(long_query) or O(long_transaction), with the beginning of their statement.
          type: list
          elements: dict
        prepared_transactions:
          description: Two-phase transactions that wait for their end.
          type: list
          elements: dict
        slow_statements:
          description: Kinds of statements by their mean time, the slowest first.
          type: list
          elements: dict
        blocking:
          description: Each session that others wait for and that waits for none, with those that wait.
          type: list
          elements: dict
        transaction_ids:
          description: Percent of the age of a forced freeze, of each database and of the oldest tables (PostgreSQL).
          type: dict
        sizes:
          description: Bytes of each database, the largest tables, and free space of disks where it can be read.
          type: dict
        rows:
          description: Rows of each database, as the server estimates them.
          type: dict
        indexes:
          description:
            - Number and bytes, and which are C(unused), C(duplicate), C(redundant), C(invalid) or
              C(missing_on_foreign_key). C(unused) is V(null) where it cannot be known.
          type: dict
        counters:
          description: Sequences, identity and AUTO_INCREMENT columns, the most used up first.
          type: list
          elements: dict
        growth:
          description: Bytes a day of databases and tables, by the sizes in the journal; days until the disk is full.
          type: dict
        performance:
          description: Cache hits, deadlocks, temporary bytes, and the trends of mean statement time and connections.
          type: dict
        maintenance:
          description:
            - Number of steps that vacuum and reindex would take with their defaults, and the predicted seconds;
              C(learned) says whether they come from what the journal knows of this server.
          type: dict
        recommendations:
          description: Each has priority (1 is urgent), code, database, object, message and fix.
          type: list
          elements: dict
        findings:
          description: What hindered the measurement. Each as a recommendation.
          type: list
          elements: dict
        unknown:
          description: What could not be judged, and why.
          type: dict
        summary:
          description: True counts, where lists are capped.
          type: dict
"""

from ansible_collections.dbfleet.maintenance.plugins.module_utils._stats import stats_module


def main() -> None:
    stats_module()


if __name__ == "__main__":
    main()
