#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_cleanup
short_description: Deletes or archives rows whose time has come, in small bites
version_added: 0.1.0
description:
  - Counts the rows that each rule makes due, refuses what cannot be meant before the first of them leaves, takes them
    in small transactions, and counts again to prove it.
  - A row is deleted, or moves into an archive table in the same transaction, or into compressed files that are on disk
    before the transaction is committed. Whatever dies in the middle, each row is in exactly one place after the next
    run, which settles what was left open even when nothing else is due.
  - The moment that rows are compared with is taken from the server's clock once. Bites follow a key, never an offset,
    and take about O(batch_seconds) each. Between two of them the run stops when its time is spent or a stop is asked
    for, and waits while replicas lag. What is left is deferred, and goes on there the next time.
  - Whole partitions are dropped rather than deleted row by row where all of their rows are due. On PostgreSQL they are
    detached first, and on MySQL and MariaDB large ones are exchanged with an empty table, so that nobody waits until
    their files are removed.
  - Vacuum and analyze that this makes due are carried out afterwards, by the default thresholds of
    M(dbfleet.maintenance.db_vacuum).
  - A rule that must take nothing (too many rows, rows of other tables that hang from them, no such column) is a
    finding, and does not keep the others from running. A second run changes nothing.
notes:
  - Archive files are written on the host where the module runs; the server needs no access to them. Each
    C(<name>.jsonl.gz), C(.jsonl.zst), C(.csv.gz) or C(.csv.zst) has a C(<name>.manifest.json) beside it with the
    columns and their types, the number of rows, the oldest and newest date, and a SHA-256.
  - Check mode counts exactly what the run would take, with the same statements.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.action
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution
  - dbfleet.maintenance.job
  - dbfleet.maintenance.execution.reading
  - dbfleet.maintenance.cleanup
seealso:
  - module: dbfleet.maintenance.db_assess_facts
  - module: dbfleet.maintenance.db_vacuum
"""

EXAMPLES = r"""
- name: Delete sessions of Django that expired a month ago
  dbfleet.maintenance.db_cleanup:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    presets: [django_sessions]

- name: Move the audit log of more than 90 days into compressed files, at most 10 minutes a night
  dbfleet.maintenance.db_cleanup:
    engine: mariadb
    login_host: 127.0.0.1
    login_user: maintenance
    login_password: "{{ vault_maintenance_password }}"
    databases: [shop]
    rules:
      - name: audit log
        table: audit_log
        date_column: created_at
        archive_after: 90d
        archive_dir: /srv/archive/shop
    time_budget: 10m
    max_wal_backlog: 20GB

- name: Archive orders a year after they were soft-deleted, with their lines, and delete them after another year
  dbfleet.maintenance.db_cleanup:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    databases: [shop]
    rules:
      - name: deleted orders
        table: public.orders
        date_column: deleted_at
        archive_after: 365d
        delete_after: 730d
        archive_table: archive.orders
        on_children: archive
    require_backup: 26h

- name: Run one rule now, with other values than every night
  dbfleet.maintenance.db_cleanup:
    engine: sqlite
    databases: ["/srv/app/*.sqlite3"]
    presets:
      - django_sessions
      - preset: soft_deleted
        name: deleted notes
        table: notes
        delete_after: 90d
        archive_after: null
    only: [deleted notes]
    override:
      delete_after: 7d
      rows_per_run: 10000
"""

RETURN = r"""
ansible_facts:
  description: What was found and done.
  returned: always
  type: dict
  contains:
    db_cleanup:
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
              description: The table or partition.
              type: str
            kind:
              description:
                - What is done, one of V(delete), V(archive), V(drop_partition), V(remove_archive) (archive files whose
                  rows have reached their end), V(settle) and V(drop_leftover) (what an interrupted run left behind),
                  V(vacuum), V(freeze) and V(analyze).
              type: str
            reason:
              description: Why it is due.
              type: str
            statements:
              description: The statements, as they run for each bite.
              type: list
              elements: str
            status:
              description: One of V(planned), V(done), V(skipped), V(deferred) and V(failed).
              type: str
            measured:
              description:
                - The numbers that made it due, with the name of the C(rule), the moment C(before) which the rows lie,
                  and the rows of other tables that hang from them (C(children)).
              type: dict
            expected:
              description:
                - Bytes to be freed inside the table, C(rows), C(children) and seconds, as predicted. C(rows) is null
                  where they could not be counted.
              type: dict
            actual:
              description:
                - Empty when nothing ran. Otherwise bytes, C(rows) that left, and seconds; of rows that were deleted or
                  archived also the rows of C(children) that left with them, C(batches) committed, C(rows_remaining)
                  that are still due, and C(rows_held_back), those of them that stay on purpose until the next run
                  (C(rows_per_run)). Null is unknown.
              type: dict
            proven:
              description: Whether nothing was due any more when it was counted again; null when that was not done.
              type: bool
            error:
              description: Why it was skipped, deferred or failed.
              type: str
        findings:
          description:
            - Rules that were refused, and what no step can cure. Each has priority (1 is urgent), code, database,
              object, message and fix.
          type: list
          elements: dict
        summary:
          description: Counts of steps by status, rows that left, bytes freed and written, seconds.
          type: dict
summary:
  description: The same summary, for playbooks that look at the result alone.
  returned: always
  type: dict
  sample: {planned: 2, done: 2, skipped: 0, deferred: 0, failed: 0, rows: 481203, bytes_freed: 62914560,
           bytes_written: 4194304, seconds: 41.7, findings: 0}
"""

from ansible_collections.dbfleet.maintenance.plugins.module_utils._action import action_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention


def main() -> None:
    action_module("db_cleanup", retention)


if __name__ == "__main__":
    main()
