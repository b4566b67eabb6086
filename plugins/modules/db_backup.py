#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_backup
short_description: Backs databases up, and proves that the backups can be read
version_added: 0.1.0
description:
  - Backs up every selected database that has no verified backup younger than O(min_interval), verifies each backup, and
    copies it where O(copy_to) says.
  - A backup is written under another name, hashed on its way, brought to the disk and renamed; its manifest comes last.
    Whatever fails meanwhile, earlier backups are never touched, and nothing half-written is ever called a backup.
  - Age is the need here. A second run changes nothing until O(min_interval) has passed.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.action
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution
  - dbfleet.maintenance.job
  - dbfleet.maintenance.execution.reading
  - dbfleet.maintenance.backup
notes:
  - Room is reckoned from the last backup. Where it will not do, or O(backup_dir) cannot be used, that backup is not
    begun and its step fails, in check mode as well; a finding of priority 1 says so. The other databases are backed up.
  - C(pg_dump) is one process, and so is the server's that writes its rows out. Where one PostgreSQL database outweighs
    all others, O(jobs) is larger than 1 and its large tables have more than 128 MB, several C(pg_dump) of one snapshot
    divide them, and their rows stand in files of their own. Without this collection, restore the first file's sections
    C(pre-data) and C(data) by C(pg_restore), then the others, then its section C(post-data).
  - Amounts of the type C(money) mean what they mean under the C(lc_monetary) that the manifest tells. db_restore
    sets it; who restores without this collection has to.
  - MySQL and MariaDB write six digits of a C(FLOAT) number into a dump (16777216 as 1.67772e7), whichever program asks
    for it. The finding C(floats_rounded) names such columns; C(DOUBLE), C(FLOAT) with digits after the point and
    O(method=physical) keep all of a number.
  - No dump is begun on MySQL and MariaDB servers whose C(sql_select_limit) or C(system_versioning_asof) would keep rows
    from it, since the dump programs say nothing of that. The step fails, in check mode as well, and the finding
    C(rows_hidden) tells the statement that helps; O(method=physical) has all rows.
  - SQLite files are copied page for page by SQLite's backup interface, free pages included, while the application goes
    on. Where there is no write-ahead log its writers wait for a few milliseconds again and again.
seealso:
  - module: dbfleet.maintenance.db_backup_rotate
  - module: dbfleet.maintenance.db_assess_facts
"""

EXAMPLES = r"""
- name: Back up every database of a PostgreSQL server once a day
  dbfleet.maintenance.db_backup:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    backup_dir: /srv/backups

- name: Encrypted, and copied to a bucket
  dbfleet.maintenance.db_backup:
    engine: mariadb
    login_host: 127.0.0.1
    login_user: backup
    login_password: "{{ vault_backup_password }}"
    backup_dir: /srv/backups
    encrypt:
      age_recipient: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]
    copy_to: s3://fleet-backups/shop
    s3:
      endpoint_url: https://minio.example.com:9000
      access_key: backup
      secret_key: "{{ vault_minio_secret }}"

- name: SQLite files, each verified by restoring it
  dbfleet.maintenance.db_backup:
    engine: sqlite
    databases: ["/srv/app/*.sqlite3"]
    backup_dir: /srv/backups
    verify: restore

- name: One backup that rotation leaves alone, before the upgrade
  dbfleet.maintenance.db_backup:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    backup_dir: /srv/backups
    min_interval: 0s
    pin: true
"""

RETURN = r"""
ansible_facts:
  description: What was found and done.
  returned: always
  type: dict
  contains:
    db_backup:
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
              description: The database; for SQLite the path of the file; empty for what belongs to no database.
              type: str
            object:
              description: The database, or C(server).
              type: str
            kind:
              description:
                - What is done, one of V(dump), V(verify), V(copy), V(drop_leftover), and V(remove_backup) for the
                  manifest of what pgBackRest has expired.
              type: str
            reason:
              description: Why it is due.
              type: str
            statements:
              description: The command lines, as they run.
              type: list
              elements: str
            status:
              description: One of V(planned), V(done), V(skipped), V(deferred) and V(failed).
              type: str
            measured:
              description: The numbers that made it due.
              type: dict
            expected:
              description: Rows and seconds, as predicted.
              type: dict
            actual:
              description: Bytes, rows and seconds; empty when nothing ran.
              type: dict
            proven:
              description: Whether the need was gone when the backup folder was looked at again; null when that was not
                done.
              type: bool
            error:
              description: Why it was skipped, deferred or failed.
              type: str
        findings:
          description:
            - What no step can cure. Each has priority (1 is urgent), code, database, object, message and fix.
          type: list
          elements: dict
        repository:
          description:
            - What C(pgbackrest info) says of the backups of this server, the newest first, as it was before the run;
              with the level to which each is verified, and when. With O(method=pgbackrest) only.
          type: list
          elements: dict
        summary:
          description: Counts of steps by status, bytes written, seconds.
          type: dict
summary:
  description: The same summary, for playbooks that look at the result alone.
  returned: always
  type: dict
  sample: {planned: 2, done: 2, skipped: 0, deferred: 0, failed: 0, rows: 0, bytes_freed: 0, bytes_written: 104857600,
           seconds: 2.4, findings: 0}
"""

from ansible_collections.dbfleet.maintenance.plugins.module_utils._action import action_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import backup


def main() -> None:
    action_module("db_backup", backup)


if __name__ == "__main__":
    main()
