# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long steps will take and in which order they are carried out. Pure; nothing about statements or thresholds."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta

from .._records import Attempt, Key, Plan, Step

# Bytes per second where nothing was learned yet: slow on purpose, for a step that is started and does not fit is cut
# off at the hard stop and its work is lost. After one run the server's own rates take over.
DEFAULT_RATES: t.Mapping[str, float] = {
    "vacuum": 100e6,
    "freeze": 50e6,
    "analyze": 200e6,
    "reclaim": 20e6,
    "drop_leftover": 1e9,
}
DEFAULT_RATE = 20e6
OVERHEAD = 0.05  # seconds: a session, a statement, the proof
STALE = timedelta(days=180)  # an older attempt says little about the server of today
CUT_OFF = 2.0  # a step that was cut off needs longer than it got: it is next expected to take twice that


def predicted(step: Step, past: t.Mapping[Key, Attempt], rates: t.Mapping[str, float], now: datetime) -> float:
    """Seconds, from this object's last attempt scaled by size, else from the rate of its kind on this server."""
    seconds, pace = _at_work(step, past, rates, now), getattr(step.task, "pace", None)
    return seconds / pace.duty if pace else seconds


def _at_work(step: Step, past: t.Mapping[Key, Attempt], rates: t.Mapping[str, float], now: datetime) -> float:
    """Without the rests between bites: what was learned is kept without them, too."""
    kind = step.task.kind
    rate = rates.get(kind) or DEFAULT_RATES.get(kind, DEFAULT_RATE)
    estimate = OVERHEAD + step.size / rate
    last = past.get(step.key)
    if last is None or not timedelta(0) <= now - last.at <= STALE:
        return estimate
    if not last.ok:
        return max(estimate, last.seconds * CUT_OFF)
    return last.seconds * (step.size / last.bytes_before if step.size and last.bytes_before else 1.0)


def order_of(step: Step, overdue: t.AbstractSet[Key]) -> tuple[t.Any, ...]:
    """Sort key: safety first, then what an earlier run left over, then gain per predicted second, then the name."""
    safety, gain = step.rank
    ref = step.task.ref
    worth = gain / max(step.expected.seconds, OVERHEAD)
    return (-safety, step.key not in overdue, -worth, ref.database, ref.path, ref.partition, step.task.kind)


def in_order(steps: t.Sequence[Step], overdue: t.AbstractSet[Key]) -> tuple[Step, ...]:
    """Every step once, by rank; a step that others stand `after` comes before the first of them."""
    ranked = sorted(steps, key=lambda step: order_of(step, overdue))
    causes: dict[Key, list[int]] = {}
    for place, step in enumerate(ranked):
        causes.setdefault(step.key, []).append(place)
    emitted: dict[int, Step] = {}
    for first in range(len(ranked)):
        # Depth first without recursion: a chain may be longer than Python's stack. A circle is cut where it closes,
        # and the runner says so.
        path, seen = [first], {first}
        while path:
            place = path[-1]
            waits = [
                c for key in ranked[place].after for c in causes.get(key, ()) if c not in emitted and c not in seen
            ]
            if waits:
                seen.add(waits[0])
                path.append(waits[0])
            else:
                emitted.setdefault(place, ranked[place])
                path.pop()
    return tuple(emitted.values())


def forecast(
    plan: Plan,
    past: t.Mapping[Key, Attempt],
    rates: t.Mapping[str, float],
    overdue: t.AbstractSet[Key],
    now: datetime,
) -> Plan:
    """The plan with the seconds that each step is expected to take, in the order in which it will be carried out.

    A planner that knows the seconds better (`expected.seconds` above 0) is believed.
    """
    steps = [
        step
        if step.expected.seconds > 0
        else step._replace(expected=step.expected._replace(seconds=predicted(step, past, rates, now)))
        for step in plan.steps
    ]
    return plan._replace(steps=in_order(steps, overdue))
