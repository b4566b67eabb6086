#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_restore
short_description: Restores a backup of a database, or proves in a drill that it can be restored
version_added: 0.1.0
description:
  - Restores a backup of M(dbfleet.maintenance.db_backup) into a new database, or, with O(replace), in place of one. The
    backup is compared with its hashes while it is read, and the restored database with what the manifest counts, before
    it gets its name.
  - With O(target_dir) the backup of a whole server becomes a new data directory; no server is needed for that.
  - With O(drill) the restored database is thrown away, and the manifest says that the backup is proven.
  - Refused are backups of another engine, of a newer major version, and whatever is not what its manifest says.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.action
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution
  - dbfleet.maintenance.job
  - dbfleet.maintenance.execution.reading
  - dbfleet.maintenance.restore
notes:
  - A restore is due because it was asked for. Run again with O(replace) it restores again; a drill does not.
  - A SQLite file is not replaced while any process has it open.
seealso:
  - module: dbfleet.maintenance.db_backup
"""

EXAMPLES = r"""
- name: Yesterday's orders, beside today's
  dbfleet.maintenance.db_restore:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    backup_dir: /srv/backups
    database: shop
    which: "2026-11-21T23:00:00Z"
    target: shop_yesterday

- name: Prove the newest backup
  dbfleet.maintenance.db_restore:
    engine: mariadb
    login_unix_socket: /run/mysqld/mysqld.sock
    backup_dir: /srv/backups
    database: shop
    drill: true

- name: Restore on a new host what only the bucket has
  dbfleet.maintenance.db_restore:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    backup_dir: /srv/backups
    database: shop
    copy_from: s3://fleet-backups/shop
    server: db1.example.com:5432

- name: A whole server, its tablespaces on another disk
  dbfleet.maintenance.db_restore:
    engine: postgresql
    backup_dir: /srv/backups
    target_dir: /var/lib/postgresql/18/restored
    tablespace_dir: /mnt/fast/restored

- name: Put a SQLite file back
  dbfleet.maintenance.db_restore:
    engine: sqlite
    backup_dir: /srv/backups
    database: /srv/app/app.sqlite3
    replace: true
"""

RETURN = r"""
ansible_facts:
  description: What was found and done.
  returned: always
  type: dict
  contains:
    db_restore:
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
              description: The database that comes to be; for SQLite the path of the file.
              type: str
            object:
              description: The same.
              type: str
            kind:
              description: Either V(restore), or V(fetch) where the backup comes from O(copy_from).
              type: str
            reason:
              description: Which backup, and how old it is.
              type: str
            statements:
              description: The command lines, as they run.
              type: list
              elements: str
            status:
              description: One of V(planned), V(done), V(skipped), V(deferred) and V(failed).
              type: str
            measured:
              description: Id, beginning, size and verification of the backup.
              type: dict
            expected:
              description: Seconds, as predicted.
              type: dict
            actual:
              description: Bytes, rows and seconds; empty when nothing ran.
              type: dict
            proven:
              description: Whether nothing more is due.
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
          description: Counts of steps by status, bytes written, seconds.
          type: dict
summary:
  description: The same summary, for playbooks that look at the result alone.
  returned: always
  type: dict
  sample: {planned: 1, done: 1, skipped: 0, deferred: 0, failed: 0, rows: 0, bytes_freed: 0, bytes_written: 104857600,
           seconds: 8.1, findings: 0}
"""

from ansible_collections.dbfleet.maintenance.plugins.module_utils._action import action_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import restore


def main() -> None:
    action_module("db_restore", restore)


if __name__ == "__main__":
    main()
