#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_refresh_views
short_description: Refreshes materialized views whose tables have changed
version_added: 0.1.0
description:
  - Refreshes the materialized views of PostgreSQL in the order in which they read each other, and lets readers go on
    where a unique index allows that.
  - A view is due when a table that it reads, directly, through plain views or in a partition, has changed since its
    last refresh by this module. The server keeps no record of refreshes, so the journal does. A view whose refresh is
    not on record is refreshed once; with O(journal=none) every view is due every time.
  - A view that fails does not stop the others, except those that read it.
  - MySQL, MariaDB and SQLite have no materialized views. There the module does nothing, and a finding says so.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.action
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution
  - dbfleet.maintenance.job
  - dbfleet.maintenance.execution.reading
  - dbfleet.maintenance.refresh_views
seealso:
  - module: dbfleet.maintenance.db_assess_facts
  - module: dbfleet.maintenance.db_vacuum
"""

EXAMPLES = r"""
- name: Refresh what is stale, and every view at least once a day
  dbfleet.maintenance.db_refresh_views:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    max_age: 1d

- name: Refresh the reports of the shop now, never locking readers out
  dbfleet.maintenance.db_refresh_views:
    engine: postgresql
    login_host: 127.0.0.1
    login_user: maintenance
    login_password: "{{ vault_maintenance_password }}"
    databases: [shop]
    views: ["reports.*", "-reports.draft_*"]
    concurrent: always
    stale_only: false
"""

RETURN = r"""
ansible_facts:
  description: What was found and done.
  returned: always
  type: dict
  contains:
    db_refresh_views:
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
              description: The materialized view.
              type: str
            kind:
              description: What is done, always V(refresh).
              type: str
            reason:
              description: Why it is due.
              type: str
            statements:
              description: The statements, as they run.
              type: list
              elements: str
            status:
              description: One of V(planned), V(done), V(skipped), V(deferred) and V(failed).
              type: str
            measured:
              description: The numbers that made it due.
              type: dict
            expected:
              description: Seconds, as predicted from earlier runs. Nothing is freed.
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
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import refresh_views


def main() -> None:
    action_module("db_refresh_views", refresh_views)


if __name__ == "__main__":
    main()
