# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps packed modules for the next playbook of the tests. Demo and benchmarks show what users pay, without this."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: packed
type: aggregate
short_description: Keeps packed modules from one playbook to the next
description:
  - Ansible packs a module and all it imports anew in each run, which takes more computing than most modules themselves.
  - The folder that the environment variable DBFLEET_PACKED names has to be another one as soon as a plugin changes.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "packed"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        kept = Path(os.environ["DBFLEET_PACKED"])
        kept.mkdir(parents=True, exist_ok=True)
        # Ansible removes its own folder at the end, and of this only the link.
        (Path(vars(constants)["DEFAULT_LOCAL_TMP"]) / "ansiballz_cache").symlink_to(kept)
