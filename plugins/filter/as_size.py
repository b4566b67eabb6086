# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `as_size`: a number of bytes as people write it."""

from __future__ import annotations

import typing as t

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import say_bytes

DOCUMENTATION = r"""
name: as_size
short_description: Writes a number of bytes as people do
version_added: 0.1.0
author:
  - The dbfleet.maintenance contributors (@dbfleet)
description:
  - For reports on the facts that the modules of this collection return.
options:
  _input:
    description: The number.
    type: float
    required: true
"""

EXAMPLES = r"""
- name: Say it
  ansible.builtin.debug:
    msg: "{{ 1610612736 | dbfleet.maintenance.as_size }}"  # 1.5 GB
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"as_size": say_bytes}
