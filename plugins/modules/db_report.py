# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_report: documentation only. An action plugin of the same name does the work, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_report
short_description: Writes one report on a whole fleet, as a page, as data and as metrics
version_added: 0.1.0
description:
  - Reads what the playbooks and modules of this collection left in the variables of the hosts, and writes two files on
    the controller, a page and the same as data. One task serves the whole fleet; nothing is sent to any host.
  - The page is one file of HTML without anything from elsewhere, for a screen of any width, light or dark, and for
    paper. The worst comes first, namely hosts that failed, were out of reach, or were expected and did not report; then
    findings and recommendations by priority, each with the statement that cures it; what was done; charts of bloat,
    growth and the age of backups; all hosts.
  - C(maintenance_assessed), C(maintenance_error), C(maintenance_history) and C(<operation>_result) of each host are
    looked at, as P(dbfleet.maintenance.report#role) says. Where there is none of them, which means that the playbook is
    somebody's own, the facts C(db_due), C(db_stats), C(db_bloat), C(db_history) and those of the modules count.
  - A report that says nothing new stays as it is, with its time. Files are replaced as a whole.
  - With O(metrics_path) its numbers are also written for Prometheus. What P(dbfleet.maintenance.report#role) lists is
    there for each host of the inventory. A host that this run left out, or that could not be measured, keeps what it
    said last, with the time of that; a host that left the inventory is gone.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
requirements:
  - matplotlib 3.8 or newer on the controller, for charts
options:
  path:
    description:
      - Where the page is written on the controller. Folders above it are made. C(~) and variables of the environment
        are understood.
    type: str
    required: true
  data_path:
    description:
      - Where the data is written, as JSON. The default is O(path) that ends in C(.json).
    type: str
  mode:
    description:
      - The mode of both files, as V("0600"). They hold names of hosts, databases and tables, and texts of statements.
    type: raw
    default: "0600"
  title:
    description:
      - What stands above the page.
    type: str
    default: Database maintenance
  hosts:
    description:
      - The hosts that are expected to be in the report. One that left nothing behind, or that Ansible does not know, is
        named as one that did not report. The default is every host of the play.
    type: list
    elements: str
  operations:
    description:
      - The operations whose results are looked at, in the order in which they are shown.
    type: list
    elements: str
    default: [backup, cleanup, vacuum, reindex, refresh_views, rotate_backups]
  history:
    description:
      - How far back the journals are looked into, as V(24h), where C(maintenance_history) holds what
        M(dbfleet.maintenance.db_history_facts) returned and nothing was done on that host in this run.
    type: str
    default: 24h
  backup_max_age:
    description:
      - From which age on the last backup that was read to its end is called late, as V(26h).
    type: str
    default: 26h
  charts:
    description:
      - Whether charts are drawn. Without matplotlib on the controller there is a warning, and a report without charts.
    type: bool
    default: true
  metrics_path:
    description:
      - Where the numbers are written on the controller for Prometheus, as a file that the textfile collector of
        node_exporter reads. It has to end in C(.prom). The default is that none is written.
      - It is written by every run, also by one that changes nothing else, for its times tell when that was.
    type: str
  metrics_mode:
    description:
      - The mode of that file. node_exporter has a user of its own, which has to read it. It holds numbers, names of
        hosts and databases, and versions, but no statement, error or password.
    type: raw
    default: "0644"
  metrics_group:
    description:
      - The group of that file, where O(metrics_mode=0640) is to let only the collector read it. Who writes has to be
        a member, or root.
    type: str
  metrics_labels:
    description:
      - Labels that each sample gets, as C(fleet). Two reports on one controller need them to be told apart.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
    details:
      - Nothing is written.
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
    details:
      - Shows the line that sums the report up.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
        change.
    support: full
    details:
      - As long as the hosts' variables stay the same. A new measurement is a new report.
      - Other times in the metrics are no change.
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
  action_group:
    description: Use C(group/dbfleet.maintenance.all) in C(module_defaults) to set connection options for all modules.
    support: none
    membership: []
    details:
      - It is connected to no database.
"""

EXAMPLES = r"""
- name: Report on all hosts of this play
  dbfleet.maintenance.db_report:
    path: /srv/www/internal/databases.html
    mode: "0640"
  run_once: true

- name: Also name databases that were left out by --limit
  dbfleet.maintenance.db_report:
    path: ~/databases.html
    hosts: "{{ groups['databases'] }}"
    backup_max_age: 50h
  run_once: true

- name: Also let Prometheus know
  dbfleet.maintenance.db_report:
    path: ~/databases.html
    metrics_path: /var/lib/prometheus/node-exporter/dbfleet.prom
  run_once: true
"""

RETURN = r"""
path:
  description: The page.
  returned: success
  type: str
  sample: /srv/www/internal/databases.html
data_path:
  description: The data.
  returned: success
  type: str
  sample: /srv/www/internal/databases.json
metrics_path:
  description: The metrics.
  returned: success, where they are asked for
  type: str
  sample: /var/lib/prometheus/node-exporter/dbfleet.prom
msg:
  description: The line that sums the report up.
  returned: always
  type: str
  sample: 1 of 12 failed; 11 without errors; 1 urgent finding; 3.0 GB freed
summary:
  description:
    - Numbers of hosts by C(states), and of those where something is C(due); of urgent and all findings, of failures and
      of databases without a backup in time; bytes freed and rows removed; the same line as C(text).
  returned: success
  type: dict
"""
