# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `merged_by_name`: lists of rules of several inventory levels become one."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: merged_by_name
short_description: Merges lists of rules or presets by their names
version_added: 0.1.0
author:
  - The dbfleet.maintenance contributors (@dbfleet)
description:
  - Rules of one name become one rule. Fields of later lists win, field by field; a field that is null there is taken
    away. Rules stay in the order in which their names came first.
  - The role P(dbfleet.maintenance.cleanup#role) merges rules and presets of several inventory levels with it.
positional: needs
options:
  _input:
    description:
      - Lists of dictionaries with a C(name). Of presets, a text is the name alone, and C(preset) stands for a missing
        C(name).
    type: list
    elements: list
    required: true
  needs:
    description: Fields that each rule has to have in the end. A misspelt name is told by their absence.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Keep the audit log of this host longer
  ansible.builtin.debug:
    msg: "{{ [site, host] | dbfleet.maintenance.merged_by_name }}"
  vars:
    site:
      - {name: audit, table: audit_log, date_column: at, delete_after: 90d}
    host:
      - {name: audit, delete_after: 365d}
"""

RETURN = r"""
_value:
  description: One list.
  type: list
  elements: dict
"""


def merged_by_name(levels: t.Sequence[t.Any], needs: t.Sequence[str] = ()) -> list[t.Any]:
    """Each name once. What has none stays as it is: the module says what is wrong with it."""
    found: dict[str, t.Any] = {}
    for level in levels:
        if not isinstance(level, (list, tuple)):
            raise AnsibleFilterError(f"merged_by_name: each level has to be a list of rules, and {level!r} is none")
        for entry in level:
            name = _name(entry)
            known = found.get(name)
            if isinstance(known, t.Mapping) and isinstance(entry, t.Mapping):
                found[name] = {**known, **entry}
            elif known is None or isinstance(entry, t.Mapping):
                found[name] = entry
    for entry in found.values():
        missing = [field for field in needs if isinstance(entry, t.Mapping) and entry.get(field) is None]
        if missing:
            named = entry.get("name") or entry
            message = f"merged_by_name: {named} has no {', '.join(missing)}, and no other level has more of that name"
            raise AnsibleFilterError(message)
    return list(found.values())


def _name(entry: t.Any) -> str:
    named = (entry.get("name") or entry.get("preset")) if isinstance(entry, t.Mapping) else entry
    return f"name {named}" if named and isinstance(named, str) else f"none {id(entry)}"


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"merged_by_name": merged_by_name}
