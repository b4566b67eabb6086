# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What grows, how fast, and until when there is room: from the sizes in the journal. Pure, as advice.py."""

from __future__ import annotations

import typing as t

from .._records import Finding, Measured, Ref
from .._tuples import NamedTuple
from .._units import say_bytes, say_seconds
from . import trend
from .advice_policy import Policy

RECENT = 30.0  # days that a trend is made of
SPAN = 86400.0  # seconds that it has to cover before an alarm is raised: a load at noon is no growth
SOON, LATER = 7.0, 30.0  # days until the disk is full


class Growth(NamedTuple):
    """How an object grows; `days_to_full` of what it lies on."""

    ref: Ref
    bytes: trend.Trend
    days_to_full: float | None = None


def growths(policy: Policy, measured: Measured) -> list[Growth]:
    """Everything that has a trend, the fastest first. The server's own readings have no size."""
    found = []
    for ref, samples in measured.samples.items():
        slope = trend.of_bytes(trend.fit(samples, measured.server.now, RECENT)) if ref.database else None
        if slope is not None and (not ref.path or policy.takes(ref)):
            found.append(Growth(ref, slope))
    return sorted(found, key=lambda g: (-g.bytes.per_day, g.ref))


def whole(policy: Policy, measured: Measured) -> tuple[float, float | None]:
    """Bytes a day of all databases together, and the days until the disk of their data is full."""
    per_day = sum(g.bytes.per_day for g in growths(policy, measured) if not g.ref.path)
    free = [s.free for d in measured.databases for s in d.spaces if s.name == "data" and s.free is not None]
    return per_day, min(free) / per_day if free and per_day > 0 else None


def findings(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    fast = [g for g in growths(policy, measured) if g.bytes.seconds >= SPAN and g.bytes.per_day >= policy.growth_alert]
    for growth in fast if policy.growth_alert else ():
        what = growth.bytes
        message = (
            f"grows by {say_bytes(what.per_day)} a day, over {say_bytes(policy.growth_alert)}"
            f" ({what.points} points in {say_seconds(what.seconds)}, now {say_bytes(what.last)})"
        )
        fix = "Keep only what is needed (db_cleanup), or plan for the space"
        yield Finding(2, "growth", growth.ref, message, fix=fix)
    yield from _full(policy, measured)


def _full(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    long = [g for g in growths(policy, measured) if not g.ref.path and g.bytes.seconds >= SPAN]
    per_day, days = whole(policy, measured)
    if not long or days is None or days >= LATER:
        return
    message = f"the disk of the data is full in {days:.0f} days, at {say_bytes(per_day)} a day"
    fix = "Add space, or keep only what is needed (db_cleanup)"
    yield Finding(1 if days < SOON else 2, "disk_full", Ref(""), message, fix=fix)
