# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `trouble`: whether a host went wrong, and how."""

from __future__ import annotations

import typing as t

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _night

DOCUMENTATION = r"""
name: trouble
short_description: What went wrong on a host in a run of the playbooks
version_added: 0.1.0
author:
  - The dbfleet.maintenance contributors (@dbfleet)
description:
  - An error that was rescued, or that the host could not be reached.
positional: operations
options:
  _input:
    description: The variables of one host, as in C(hostvars).
    type: dict
    required: true
  operations:
    description: The operations whose results are looked at.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Let hosts with trouble fail
  ansible.builtin.fail:
    msg: "{{ hostvars[inventory_hostname] | dbfleet.maintenance.trouble(['vacuum']) }}"
  when: hostvars[inventory_hostname] | dbfleet.maintenance.trouble(['vacuum']) | length > 0
"""

RETURN = r"""
_value:
  description: The error, or an empty string.
  type: str
"""


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"trouble": _night.trouble}
