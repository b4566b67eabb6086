#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_assess_facts
short_description: Measures a server once and says which maintenance is due
version_added: 0.1.0
description:
  - One measurement, and the planner of every operation that is asked for. Operations that are not asked for are not
    assessed, and not due.
  - It only reads. The playbooks start with it and run no other module on a host where nothing is due.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.facts
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution.reading
  - dbfleet.maintenance.vacuum.nested
  - dbfleet.maintenance.advice.nested
  - dbfleet.maintenance.refresh_views.nested
  - dbfleet.maintenance.reindex.nested
  - dbfleet.maintenance.cleanup.nested
  - dbfleet.maintenance.backup.nested
  - dbfleet.maintenance.rotation.nested
options:
  count_timeout:
    description:
      - How long counting the rows of one rule of O(cleanup) may take in one database, as V(30s). Where that is too
        short their number is unknown, and cleanup is due; it counts for itself.
    type: str
    default: 30s
  preflight:
    description:
      - Judge whether maintenance may start here and now.
    type: dict
    suboptions:
      window:
        description:
          - The maintenance window as V(22:00-06:00), on the server's clock. Outside of it maintenance must not start.
        type: str
      window_timezone:
        description:
          - Time zone of O(preflight.window), for example V(Europe/Berlin). The default is UTC.
        type: str
      max_transaction_age:
        description:
          - A transaction that is open for longer than this is reported.
        type: str
        default: 1h
      min_free_percent:
        description:
          - Maintenance must not start when less than this share of a file system of the server is free. What cannot
            be read from where the module runs is not judged.
        type: float
        default: 10.0
      max_connections_percent:
        description:
          - Maintenance must not start when so many of the server's connections are taken.
        type: float
        default: 95.0
      role:
        description:
          - V(primary) leaves standbys and replicas alone.
        type: str
        choices: [any, primary]
        default: any
"""

EXAMPLES = r"""
- name: What is due?
  dbfleet.maintenance.db_assess_facts:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    vacuum:
      reclaim_min_size: 1GB
    preflight:
      window: 22:00-06:00
      window_timezone: Europe/Berlin
  register: assessed

- name: Do it
  dbfleet.maintenance.db_vacuum:
    engine: postgresql
    login_unix_socket: /var/run/postgresql
    reclaim_min_size: 1GB
  when: assessed.ansible_facts.db_due.vacuum.due
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  returned: success
  type: dict
  contains:
    db_due:
      description: What is due.
      type: dict
      contains:
        engine:
          description: What the server says that it is.
          type: str
        server:
          description: Version, address and role of the server.
          type: dict
        databases:
          description: The databases that were looked at.
          type: list
          elements: str
        due:
          description: Whether anything is.
          type: bool
        idle:
          description:
            - Whether there is nothing to do and nothing to complain about now. Nothing is due, or it is outside of the
              window, or the server does not have the wanted role.
          type: bool
        preflight:
          description:
            - Whether maintenance may start (C(ok)), what stops it (C(stopped_by)), and whether that was judged
              (C(assessed)).
          type: dict
        vacuum:
          description:
            - C(due), the number of C(steps), expected C(bytes), C(rows) and C(seconds), and about ten of the steps
              (C(sample)); C(skipped) counts steps that cannot be taken now, C(assessed) says whether it was asked for.
          type: dict
        reindex:
          description: As for vacuum.
          type: dict
        refresh_views:
          description: As for vacuum.
          type: dict
        cleanup:
          description: As for vacuum. C(rows) is null where they could not be counted in O(count_timeout).
          type: dict
        backup:
          description: As for vacuum.
          type: dict
        rotate:
          description: As for vacuum.
          type: dict
        findings:
          description:
            - What no step can cure. Each has priority (1 is urgent), code, database, object, message and fix.
          type: list
          elements: dict
        bloat:
          description:
            - C(bytes), C(bloat_bytes) of tables and C(index_bloat_bytes), in all, and of the ten C(databases) that have
              the most. What is smaller than the options make due is not estimated. Null where neither O(vacuum) nor
              O(reindex) was asked for.
          type: dict
        backups:
          description:
            - Of each database, when its newest backup began (C(at)), C(age_seconds), C(bytes) and C(level) of
              verification, and the age of the newest that was read to its end (C(verified_age_seconds)). The oldest
              come first. Null where neither O(backup) nor O(rotate) was asked for.
          type: list
          elements: dict
        seconds:
          description: What the assessment took.
          type: float
    db_stats:
      description: With O(statistics), what M(dbfleet.maintenance.db_stats_facts) returns by this name.
      type: dict
"""

from ansible_collections.dbfleet.maintenance.plugins.module_utils._facts import assess_module


def main() -> None:
    assess_module()


if __name__ == "__main__":
    main()
