# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `summary`: a run in a few numbers. What they are: plugin_utils/_fleet.py."""

from __future__ import annotations

import typing as t
from datetime import datetime, timezone

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _fleet, _fleet_host

DOCUMENTATION = r"""
name: summary
short_description: What a run of the playbooks did on all hosts, in numbers
version_added: 0.1.0
author:
  - The dbfleet.maintenance contributors (@dbfleet)
description:
  - Reads what the playbooks of this collection left in C(maintenance_assessed), C(maintenance_error) and
    C(<operation>_result) of each host, and sums it up in less than a kilobyte, for workflows to decide by.
  - It is the C(summary) of M(dbfleet.maintenance.db_report), without a report.
positional: hosts, operations
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts.
    type: list
    elements: str
    required: true
  operations:
    description: The operations.
    type: list
    elements: str
    required: true
  planned:
    description: Whether it was a run in check mode.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Hand on how it went
  ansible.builtin.set_stats:
    data:
      dbfleet_summary: "{{ hostvars | dbfleet.maintenance.summary(ansible_play_hosts_all, ['vacuum']) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description:
    - Numbers of hosts by C(states), and of those where something is C(due); of urgent and all findings, of failures and
      of databases without a backup in time; bytes freed and rows removed; a line as C(text).
  type: dict
"""


def summary(
    hostvars: t.Mapping[str, t.Mapping[str, t.Any]],
    hosts: t.Sequence[str],
    operations: t.Sequence[str],
    planned: bool = False,
) -> dict[str, t.Any]:
    """The sums over these hosts."""
    asked = _fleet_host.Asked("", datetime.now(timezone.utc), tuple(operations), planned=planned)
    found = {host: _fleet_host.variables(hostvars[host], operations) for host in hosts}
    sums: dict[str, t.Any] = _fleet.fleet(found, asked)["summary"]
    return sums


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"summary": summary}
