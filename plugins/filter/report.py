# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `report`: the lines at the end of a playbook."""

from __future__ import annotations

import typing as t

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _night

DOCUMENTATION = r"""
name: report
short_description: What a run of the playbooks did on each host, in words
version_added: 0.1.0
author:
  - The dbfleet.maintenance contributors (@dbfleet)
description:
  - Reads what the playbooks of this collection left in C(maintenance_assessed), C(maintenance_error) and
    C(<operation>_result) of each host, and says it in a few lines.
positional: hosts, operations
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts, in the order in which they are shown.
    type: list
    elements: str
    required: true
  operations:
    description: The operations, in the order in which they are shown.
    type: list
    elements: str
    required: true
  planned:
    description: Whether it was a run in check mode.
    type: bool
    default: false
  full:
    description: Whether to name what is due, and every finding.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show each host
  ansible.builtin.debug:
    msg: "{{ hostvars | dbfleet.maintenance.report(ansible_play_hosts_all, ['vacuum'], planned=ansible_check_mode) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""


def report(
    hostvars: t.Mapping[str, t.Mapping[str, t.Any]],
    hosts: t.Sequence[str],
    operations: t.Sequence[str],
    planned: bool = False,
    full: bool = False,
) -> list[str]:
    """The lines of these hosts."""
    return _night.report({host: hostvars[host] for host in hosts}, operations, planned=planned, full=full)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"report": report}
