# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module's whole main() in this process, on a world of memory. No test."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

from ansible.module_utils.testing import patch_module_args

from ansible_collections.dbfleet.maintenance.plugins.module_utils import _engines
from ansible_collections.dbfleet.maintenance.plugins.module_utils._action import action_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import vacuum
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run import control

from .world import World


class Ran(NamedTuple):
    code: int
    result: dict[str, Any]

    @property
    def fact(self) -> dict[str, Any]:
        facts = self.result["ansible_facts"]
        (name,) = facts.keys() - {"db_stats"} or facts.keys()
        return dict(facts[name])

    @property
    def codes(self) -> list[str]:
        return [f["code"] for f in self.fact["findings"]]


def run(
    main: Callable[[], None], world: World, options: dict[str, Any], *, check: bool = False, diff: bool = False
) -> Ran:
    """What the module prints, and the code that it exits with."""
    given = {
        "engine": "postgresql",
        "login_password": "do not tell",
        "journal": "none",
        **options,
        "_ansible_check_mode": check,
        "_ansible_diff": diff,
    }
    out = io.StringIO()
    with (
        TemporaryDirectory() as state,
        mock.patch.object(_engines, "open_engine", return_value=world),
        mock.patch.object(control, "state_directories", return_value=(Path(state),)),
        patch_module_args(given),
        contextlib.redirect_stdout(out),
    ):
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert "do not tell" not in out.getvalue()
    return Ran(int(code or 0), json.loads(out.getvalue()))


def db_vacuum(world: World, *, check: bool = False, diff: bool = False, **options: Any) -> Ran:
    return run(lambda: action_module("db_vacuum", vacuum), world, options, check=check, diff=diff)
