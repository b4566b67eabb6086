# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit in words: bytes as bytes, seconds as seconds, and unknown is too much."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Limit, Ref, Step
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.limits import breach
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Vacuum

from ..samples import GB
from ..world import World


@pytest.mark.parametrize(
    ("gauge", "value", "worst", "said"),
    [
        ("wal_backlog", 3 * GB, GB, "write-ahead or binary logs that are kept: 3.0 GB, over the limit of 1.0 GB"),
        ("wal_backlog", None, GB, "unknown is too much (limit 1.0 GB)"),
        ("wal_backlog", GB, GB, ""),
        ("replica_lag", 90.0, 10.0, "the lag of the replicas is 1 min 30 s, over the limit of 10 s"),
        ("oldest_snapshot", 600.0, 300.0, "the oldest snapshot's age is 10 min, over the limit of 5 min"),
        ("disk_missing", GB, 0, "1.0 GB"),
    ],
)
def test_a_broken_limit_is_told(gauge: str, value: Any, worst: float, said: str) -> None:
    world = World()
    world.gauges[gauge] = value
    step = Step(Vacuum(Ref("shop")), "due", limits=(Limit(gauge, worst, "wait"),))
    with world.session("shop") as session:
        told = breach(world, session, step)
    assert said in told
    assert bool(said) == bool(told)
