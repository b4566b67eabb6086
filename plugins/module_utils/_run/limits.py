# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a limit holds, and in which words it is said that it does not. No waiting: that is the worker's."""

from __future__ import annotations

import typing as t

from .._records import Engine, Limit, Session, Step
from .._units import say_bytes, say_seconds


def breach(engine: Engine, session: Session, step: Step, *, otherwise: str) -> str:
    """Why a limit of the kind `otherwise` stops this step now, in words; empty when none does."""
    for limit in step.limits:
        if limit.otherwise == otherwise:
            reading = engine.gauge(session, limit.gauge, step)
            if reading is None or reading > limit.worst:
                return say(limit, reading)
    return ""


def say(limit: Limit, reading: float | None) -> str:
    """The gauge, its reading and the limit; unknown is too much."""
    unit: t.Callable[[float], str] = say_bytes if limit.gauge.endswith("_missing") else say_seconds
    name = limit.gauge.replace("_", " ")
    if reading is None:
        return f"{name} is unknown, and unknown is too much (limit {unit(limit.worst)})"
    return f"{name} is {unit(reading)}, over the limit of {unit(limit.worst)}"
