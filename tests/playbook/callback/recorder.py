# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes down what the collection's modules return, one JSON line a call. Only for demo, tests and benchmarks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: recorder
type: notification
short_description: Writes down what the modules of dbfleet.maintenance return
description: One JSON line a call, into the file that the environment variable DBFLEET_RECORD names.
"""

OURS = "dbfleet.maintenance."


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "recorder"
    CALLBACK_NEEDS_ENABLED = True

    def _write(self, result: Any, status: str) -> None:
        if not result.task.action.startswith(OURS):
            return
        call = {
            "host": result.host.get_name(),
            "module": result.task.action.removeprefix(OURS),
            "status": status,
            "result": result.result,
        }
        with Path(os.environ["DBFLEET_RECORD"]).open("a", encoding="utf-8") as out:
            out.write(json.dumps(call, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write(result, "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write(result, "unreachable")
