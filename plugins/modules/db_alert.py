# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_alert: documentation only. An action plugin of the same name does the work, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_alert
short_description: Says who has to be called for a fleet, and remembers who was
version_added: 0.1.0
description:
  - Looks at the same data as M(dbfleet.maintenance.db_report), and compares it with what each channel was told before.
    What is new, has become critical, or is over makes one message a channel, however many hosts it is about.
  - It sends nothing. P(dbfleet.maintenance.alert#role) does, and tells it afterwards with O(sent) what went out. What
    did not is told by the next run, together with what has come until then.
  - Only what was measured again can be over. A host that cannot be reached, that was left out by C(--limit) or whose
    statistics were not taken keeps its alarms.
  - An alarm that stands ends at nine tenths of its limit, so that a figure around the limit does not call all day.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
options:
  state_path:
    description:
      - Where it is kept what was told to whom. On the controller, or on the host that the task is delegated to;
        folders above it are made. C(~) and variables of the environment are understood on the controller.
      - One inventory, one file. It is for its owner alone, and is replaced as a whole by one run at a time. Where it
        is gone or damaged everything that stands is told again.
    type: str
    required: true
  title:
    description:
      - What messages begin with, and what pagers group them by.
    type: str
    default: Database maintenance
  hosts:
    description:
      - The hosts that are expected to have reported. One that left nothing behind, or that Ansible does not know, is
        called for. The default is every host of the play.
    type: list
    elements: str
  operations:
    description:
      - The operations whose results are looked at.
    type: list
    elements: str
    default: [backup, cleanup, vacuum, reindex, refresh_views, rotate_backups]
  ran:
    description:
      - The operations that this run has carried out, where it was more than a look. A step that failed is over when
        its operation ran again without that; and O(run_max_age) counts from here.
    type: list
    elements: str
    default: []
  history:
    description:
      - How far back the journals are looked into for summaries, as V(24h).
    type: str
    default: 24h
  calls:
    description:
      - The channels that are told of what is wrong, once when it begins, once when it becomes critical, and once when
        it is over. A V(pager) is told of critical ones alone.
    type: list
    elements: str
    choices: [mail, slack, webhook, pager]
    default: []
  daily:
    description:
      - The channels that get a summary once a day.
    type: list
    elements: str
    choices: [mail, slack, webhook]
    default: []
  weekly:
    description:
      - The channels that get a summary once a week.
    type: list
    elements: str
    choices: [mail, slack, webhook]
    default: []
  reminder:
    description:
      - After this time what still stands is told again, as V(7d). The default is never.
    type: str
  summary_at:
    description:
      - From which time of day on summaries are sent, by the first run after it.
    type: str
    default: "06:00"
  weekly_on:
    description:
      - The day of the weekly summary.
    type: str
    choices: [monday, tuesday, wednesday, thursday, friday, saturday, sunday]
    default: monday
  timezone:
    description:
      - Where the readers live, as V(Europe/Berlin). The default is the zone of the controller.
    type: str
    default: ""
  mail_format:
    description:
      - Whether mails are HTML or plain text.
    type: str
    choices: [html, plain]
    default: html
  report_url:
    description:
      - The address at which the report can be read. Messages refer to it.
    type: str
  kinds:
    description:
      - What is called for. V(unreachable), V(missing) (did not report), V(failed) (an error, or steps that failed),
        V(overdue) (no run for O(run_max_age)), V(urgent) (findings of priority 1), V(backup), V(transaction_ids),
        V(connections), V(disk), V(statements), V(growth), V(bloat), V(table).
    type: list
    elements: str
    choices:
      - unreachable
      - missing
      - failed
      - overdue
      - urgent
      - backup
      - transaction_ids
      - connections
      - disk
      - statements
      - growth
      - bloat
      - table
    default:
      - unreachable
      - missing
      - failed
      - overdue
      - urgent
      - backup
      - transaction_ids
      - connections
      - disk
      - statements
      - growth
      - bloat
      - table
  connection_warning:
    description:
      - Percentage of the connections in use from which on it is a warning; V(0) is never, here and below.
    type: float
    default: 80.0
  connection_critical:
    description:
      - Percentage of the connections in use from which on it is critical.
    type: float
    default: 95.0
  statement_warning:
    description:
      - Mean time of a kind of statement from which on it is a warning, where the server keeps such statistics.
    type: str
    default: 2s
  statement_critical:
    description:
      - Mean time of a kind of statement from which on it is critical.
    type: str
    default: 5s
  backup_warning:
    description:
      - Age of the last backup of a database that was read to its end from which on it is a warning. Where there is
        none, it counts from when that was first seen.
    type: str
    default: 26h
  backup_critical:
    description:
      - Age of that backup from which on it is critical.
    type: str
    default: 50h
  transaction_id_warning:
    description:
      - Age of a database's transaction ids, as percentage of the age at which PostgreSQL freezes by force, from which
        on it is a warning.
    type: float
    default: 100.0
  transaction_id_critical:
    description:
      - Percentage of that age from which on it is critical.
    type: float
    default: 150.0
  disk_warning:
    description:
      - Time until the disk of the data is full, by its growth, from which on it is a warning.
    type: str
    default: 30d
  disk_critical:
    description:
      - Time until the disk is full from which on it is critical.
    type: str
    default: 7d
  bloat_percent:
    description:
      - Percentage of a database that a rebuild would give back, from which on it is a warning.
    type: float
    default: 30.0
  bloat_min_size:
    description:
      - Databases that are smaller than this are not called for bloat.
    type: str
    default: 1GB
  growth:
    description:
      - A database that grows by this a day is a warning.
    type: str
    default: 100MB
  table_size:
    description:
      - A table of this size, its indexes included, is a warning.
    type: str
    default: 1GB
  run_max_age:
    description:
      - A host on which no run has come to its end for so long is critical.
    type: str
    default: 26h
  operation_max_age:
    description:
      - A host on which an operation has not come to its end for so long is a warning, where a run has carried it out
        before, and the assessment still asks for it. So nights in which nothing but statistics ran hide no backup
        that is not made any more. Operations that are not named keep their default, V(0s) is never, and none is
        looked for earlier than O(run_max_age).
      - What counts is a run that was told of by O(ran), or where the journals were read a step that was done.
    type: dict
    default:
      backup: 26h
      cleanup: 26h
      vacuum: 26h
      reindex: 8d
      refresh_views: 26h
      rotate_backups: 26h
  wait:
    description:
      - How long to wait for another run that sends by the same O(state_path).
    type: str
    default: 5m
  run:
    description:
      - With O(sent), what the first task returned as RV(run).
    type: str
  sent:
    description:
      - What became of the messages, which makes it the second task of a run. Each has C(id), C(channel), C(ok), and
        where it failed C(host) and C(error); or it is what a loop over RV(messages) registered of
        M(ansible.builtin.uri) or C(community.general.mail). Only what went out counts as told.
    type: list
    elements: dict
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
    details:
      - Nothing is kept; the messages are returned.
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
    details:
      - Shows the messages as text.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
        change.
    support: full
    details:
      - As soon as what is to be sent was sent, and as long as the fleet stays as it is.
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
seealso:
  - module: dbfleet.maintenance.db_alert_state
  - module: dbfleet.maintenance.db_report
"""

EXAMPLES = r"""
- name: See what would be told
  dbfleet.maintenance.db_alert:
    state_path: ~/.local/state/dbfleet/alerts.json
    calls: [slack]
  register: found
  run_once: true
  delegate_to: localhost

- name: Send it in a way of your own
  ansible.builtin.uri:
    url: "{{ webhook_url }}"
    method: POST
    body_format: json
    body: "{{ item.body }}"
  loop: "{{ found.messages }}"
  register: posted
  failed_when: false
  no_log: true
  run_once: true
  delegate_to: localhost
  when: not found.planned

- name: Keep what went out
  dbfleet.maintenance.db_alert:
    state_path: ~/.local/state/dbfleet/alerts.json
    run: "{{ found.run }}"
    sent:
      - id: call-slack
        channel: slack
        ok: "{{ posted.results[0].status == 200 }}"
  run_once: true
  delegate_to: localhost
  when: found.messages | length > 0 and not found.planned
"""

RETURN = r"""
messages:
  description:
    - What is to be sent. Each has C(id), C(channel), C(template) (V(call), V(daily) or V(weekly)), C(subject) and
      C(body), which is text for a mail and data for the others.
  returned: without O(sent)
  type: list
  elements: dict
alarms:
  description: How many alarms stand, by C(critical) and C(warning).
  returned: without O(sent)
  type: dict
  sample: {critical: 1, warning: 4}
run:
  description: What O(run) of the second task has to be, and is there.
  returned: always
  type: str
msg:
  description: What is to be sent, or what did not go out.
  returned: always
  type: str
  sample: "to be sent: slack: Database maintenance: 1 critical: db7 out of reach: no route to host"
planned:
  description: Whether it was asked in check mode, in which nothing is to be sent.
  returned: without O(sent)
  type: bool
mailer:
  description: Whether there are mails to be sent, and C(community.general.mail) to send them.
  returned: without O(sent)
  type: bool
state_error:
  description: Why the state can be neither read nor written. Then everything that stands is told by each run.
  returned: without O(sent)
  type: str
failed_calls:
  description: Messages that did not go out, with their channel, the host that was to take them, and the error.
  returned: with O(sent)
  type: list
  elements: str
"""
