# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recommended, asked as db_stats_facts asks: measured, planned and spelled. No test lives here."""

from __future__ import annotations

from typing import Any, NamedTuple

from ansible_collections.dbfleet.maintenance.plugins.module_utils._frame import Memory, Stages
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import advice
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Measured
from ansible_collections.dbfleet.maintenance.plugins.module_utils._report import finding_result, ordered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._selection import Patterns


class Advice(NamedTuple):
    """Recommendations and what hindered the measurement, as the module returns them."""

    recommended: list[dict[str, Any]]
    hindered: list[dict[str, Any]]
    unknown: dict[str, str]
    measured: Measured

    def codes(self) -> list[str]:
        return sorted(r["code"] for r in self.recommended)

    def found(self, code: str) -> dict[str, dict[str, Any]]:
        """By object."""
        return {r["object"]: r for r in self.recommended if r["code"] == code}


def advise(engine: Any, databases: list[str], **options: Any) -> Advice:
    """Of an engine that nobody has used yet. Server-wide recommendations are among them."""
    defaults = {name: spec.get("default") for name, spec in advice.OPTIONS.items()}
    policy = advice.policy({**defaults, **options})
    try:
        server = engine.greet()
        chosen = Patterns(["*"] if engine.selects else databases, "databases")
        stages = Stages(engine, server, {"advice": (advice, policy)}, chosen, Execution(jobs=1))
        measured, plans = stages.plans(Memory())
    finally:
        engine.close()
    findings = ordered(plans["advice"].findings)
    told = [finding_result(f, engine, server) for f in findings if f.code in advice.RECOMMENDED]
    others = [finding_result(f, engine, server) for f in findings if f.code not in advice.RECOMMENDED]
    return Advice(told, others, advice.unknown(policy, measured), measured)
