# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs modules of others in Ansible's own worker, where a Python of its own for each of fifty would take a minute.

In place of the action plugin that packs a module and sends it off, in playbooks on this host alone. Ours are never run
so: how they start is what is tested.
"""

from __future__ import annotations

import importlib
import io
import json
from contextlib import redirect_stdout, suppress
from typing import Any

from ansible.module_utils.testing import patch_module_args
from ansible.plugins.action import ActionBase

BUILTIN = ("ansible.builtin", "ansible.legacy")


class ActionModule(ActionBase):
    """One task."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the module prints when it exits is its result."""
        super().run(tmp, task_vars)
        collection, _dot, name = self._task.action.rpartition(".")
        arguments = dict(self._task.args)
        self._update_module_args(self._task.action, arguments, task_vars or {})
        place = "ansible.modules" if collection in BUILTIN else f"ansible_collections.{collection}.plugins.modules"
        module = importlib.import_module(f"{place}.{name}")
        printed = io.StringIO()
        with redirect_stdout(printed), patch_module_args(arguments), suppress(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(printed.getvalue())
        return result
