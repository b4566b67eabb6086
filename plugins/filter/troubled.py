# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `troubled`: which hosts went wrong."""

from __future__ import annotations

import typing as t

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _night

DOCUMENTATION = r"""
name: troubled
short_description: The hosts on which something went wrong in a run of the playbooks
version_added: 0.1.0
author:
  - The dbfleet.maintenance contributors (@dbfleet)
description:
  - Those for which P(dbfleet.maintenance.trouble#filter) has something to say. A play that is meant for them alone
    asks once, rather than one host after the other.
positional: hosts, operations
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts that are looked at.
    type: list
    elements: str
    required: true
  operations:
    description: The operations whose results are looked at.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Name the hosts with trouble
  hosts: "{{ hostvars | dbfleet.maintenance.troubled(ansible_play_hosts_all, ['vacuum']) or '!all' }}"
"""

RETURN = r"""
_value:
  description: Their names.
  type: list
  elements: str
"""


def troubled(
    hostvars: t.Mapping[str, t.Mapping[str, t.Any]], hosts: t.Sequence[str], operations: t.Sequence[str]
) -> list[str]:
    """Those of the hosts. A host that is not there has no trouble."""
    return [host for host in hosts if host in hostvars and _night.trouble(hostvars[host], operations)]


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"troubled": troubled}
