#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_backup_rotate
short_description: Removes backups that no rule keeps, and never the last good one
version_added: 0.1.0
description:
  - Decides by the manifests of M(dbfleet.maintenance.db_backup) alone which backups are kept. The backups of each
    server, database and method are counted on their own.
  - Only what a manifest names is removed. Other files are left alone, and mentioned. Broken and unfinished backups
    neither count nor protect, pinned ones stay, and a chain of incremental ones stays or goes as a whole.
  - What pgBackRest keeps is left alone, since it expires its backups itself.
  - It looks at the backup folder and logs in nowhere. Of the connection only O(engine) matters, whose backups are
    rotated; O(databases) picks some of its databases.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.action
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution
  - dbfleet.maintenance.execution.reading
  - dbfleet.maintenance.rotation
notes:
  - It is refused unless at least one of the options that begin with C(keep_) is given.
  - A backup that seems to come from the future, because a clock jumped, is kept, and takes the place of no other.
seealso:
  - module: dbfleet.maintenance.db_backup
"""

EXAMPLES = r"""
- name: A fortnight of days, two months of weeks, a year of months
  dbfleet.maintenance.db_backup_rotate:
    engine: postgresql
    backup_dir: /srv/backups
    keep_daily: 14
    keep_weekly: 8
    keep_monthly: 12

- name: Three each, in the folder and among the copies, of one server only
  dbfleet.maintenance.db_backup_rotate:
    engine: mysql
    backup_dir: /srv/backups
    copy_to: /mnt/share/backups
    keep_last: 3
    min_verified: 2
    servers: ["db1.example.com:*"]
"""

RETURN = r"""
ansible_facts:
  description: What was found and done.
  returned: always
  type: dict
  contains:
    db_backup_rotate:
      description: The result of this module.
      type: dict
      contains:
        engine:
          description: The engine whose backups are rotated.
          type: str
        server:
          description: The folder and the host, as C(address).
          type: dict
        steps:
          description: The backups to be removed in check mode, and removed otherwise; the same list.
          type: list
          elements: dict
          contains:
            database:
              description: The database; for SQLite the path of the file; empty for what belongs to no database.
              type: str
            object:
              description: The id of the backup.
              type: str
            kind:
              description: Always V(remove_backup).
              type: str
            reason:
              description: Why no rule keeps it.
              type: str
            statements:
              description: The files that are removed.
              type: list
              elements: str
            status:
              description: One of V(planned), V(done), V(skipped), V(deferred) and V(failed).
              type: str
            measured:
              description: When it began, its size, how far it was verified, and its copies.
              type: dict
            expected:
              description: Bytes to be freed and seconds, as predicted.
              type: dict
            actual:
              description: Bytes freed and seconds; empty when nothing ran.
              type: dict
            proven:
              description: Whether it was gone when the folder was looked at again; null when that was not done.
              type: bool
            error:
              description: Why it was skipped, deferred or failed.
              type: str
        kept:
          description:
            - The backups that stay. Each has id, server, database, method, began, bytes, level and the reasons.
          type: list
          elements: dict
        findings:
          description:
            - What no step can cure. Each has priority (1 is urgent), code, database, object, message and fix.
          type: list
          elements: dict
        summary:
          description: Counts of steps by status and of the backups kept, bytes freed, seconds.
          type: dict
summary:
  description: The same summary, for playbooks that look at the result alone.
  returned: always
  type: dict
  sample: {planned: 2, done: 2, skipped: 0, deferred: 0, failed: 0, rows: 0, bytes_freed: 104857600, bytes_written: 0,
           seconds: 0.4, findings: 0, kept: 14}
"""

from ansible_collections.dbfleet.maintenance.plugins.module_utils._action import action_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import rotation


def main() -> None:
    action_module("db_backup_rotate", rotation)


if __name__ == "__main__":
    main()
