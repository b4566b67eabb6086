#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_reindex
short_description: Builds anew the indexes that are bloated, invalid or sorted by an outdated collation
version_added: 0.1.0
description:
  - Measures every selected index, plans what is due by the thresholds given here, carries it out worst first, and
    measures again to prove it.
  - PostgreSQL's indexes are rebuilt by REINDEX CONCURRENTLY. It does not begin while an old transaction would keep it
    waiting, and what an interrupted rebuild leaves behind is dropped, by the run itself or by the next one.
  - MySQL and MariaDB rebuild an index with its table, so one online rebuild of the table serves all of its bloated
    indexes. SQLite rebuilds an index while writers wait, so it needs O(method=exclusive).
  - What is not due is left alone. A second run changes nothing.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.action
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution
  - dbfleet.maintenance.job
  - dbfleet.maintenance.execution.reading
  - dbfleet.maintenance.reindex
seealso:
  - module: dbfleet.maintenance.db_assess_facts
  - module: dbfleet.maintenance.db_bloat_facts
  - module: dbfleet.maintenance.db_vacuum
"""

EXAMPLES = r"""
- name: Rebuild what is due on a PostgreSQL server, for at most an hour
  dbfleet.maintenance.db_reindex:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    time_budget: 1h

- name: After an upgrade of the operating system, only what its collations sort
  dbfleet.maintenance.db_reindex:
    engine: postgresql
    login_host: db1.example.com
    login_user: maintenance
    login_password: "{{ vault_maintenance_password }}"
    reasons: [collation]
    jobs: 4

- name: Two indexes now, due or not
  dbfleet.maintenance.db_reindex:
    engine: postgresql
    databases: [shop]
    indexes: [public.orders_customer_idx, orders_pkey]
    force: true

- name: Rebuild SQLite's indexes at night, while nobody writes
  dbfleet.maintenance.db_reindex:
    engine: sqlite
    databases: ["/srv/app/*.sqlite3"]
    method: exclusive
    window: 01:00-05:00
    window_timezone: Europe/Berlin
"""

RETURN = r"""
ansible_facts:
  description: What was found and done.
  returned: always
  type: dict
  contains:
    db_reindex:
      description: The result of this module.
      type: dict
      contains:
        engine:
          description: What the server says that it is.
          type: str
        server:
          description: Version, address and role of the server.
          type: dict
        steps:
          description: What is planned in check mode and carried out otherwise; the same list.
          type: list
          elements: dict
          contains:
            database:
              description: The database; for SQLite the path of the file.
              type: str
            object:
              description: The index, the table that is rebuilt with its indexes, or the collation.
              type: str
            kind:
              description: What is done, one of V(reindex), V(refresh_collation) and V(drop_leftover).
              type: str
            reason:
              description: Why it is due.
              type: str
            statements:
              description: The statements as they run.
              type: list
              elements: str
            status:
              description: One of V(planned), V(done), V(skipped), V(deferred) and V(failed).
              type: str
            measured:
              description: The numbers that made it due.
              type: dict
            expected:
              description: Bytes to be freed, rows and seconds, as predicted.
              type: dict
            actual:
              description: Bytes before and after, bytes freed, rows and seconds; empty when nothing ran.
              type: dict
            proven:
              description: Whether the need was gone when the object was measured again; null when that was not done.
              type: bool
            error:
              description: Why it was skipped, deferred or failed.
              type: str
        findings:
          description:
            - What no step can cure. Each has priority (1 is urgent), code, database, object, message and fix.
          type: list
          elements: dict
        summary:
          description: Counts of steps by status, rows, bytes freed and written, seconds.
          type: dict
summary:
  description: The same summary, for playbooks that look at the result alone.
  returned: always
  type: dict
  sample: {planned: 3, done: 3, skipped: 0, deferred: 0, failed: 0, rows: 0, bytes_freed: 104857600, bytes_written: 0,
           seconds: 2.4, findings: 0}
"""

from ansible_collections.dbfleet.maintenance.plugins.module_utils._action import action_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import reindex


def main() -> None:
    action_module("db_reindex", reindex)


if __name__ == "__main__":
    main()
