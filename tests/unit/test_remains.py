# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a second measurement says of a purge: how many rows are left of those that were due."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Step
from ansible_collections.dbfleet.maintenance.plugins.module_utils._remains import rows_left, size_of
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, DropPartition

from .operations.retention_world import RULE, policy, ref, seen
from .samples import measured, table

PART = Step(DropPartition(ref("events_1"), ref("events"), "old"), "old")


def purge() -> Step:
    asked = policy(RULE)
    (step,) = retention.plan(asked, seen(asked)).steps
    return step


@pytest.mark.parametrize(
    ("found", "left"),
    [
        ({"rows": 7}, 7),
        ({"rows": 0}, 0),
        ({"rows": 0, "pieces": ()}, 0),
        ({"rows": None}, None),
        ({"rows": None, "pieces": ()}, None),
    ],
)
def test_rows_that_are_left_are_those_still_due(found: dict[str, Any], left: int | None) -> None:
    assert rows_left(seen(policy(RULE), **found), purge()) == left


def test_rows_of_another_rule_are_not_this_ones() -> None:
    assert rows_left(seen(policy({**RULE, "name": "new"})), purge()) is None
    assert rows_left(seen(policy({"delete_after": "91d"})), purge()) is None
    assert rows_left(seen(policy(RULE)), Step(Analyze(ref("events")), "stale")) is None


def test_what_is_purged_keeps_its_size_and_says_itself_what_it_took() -> None:
    found = measured(table("events"))
    assert size_of(found, purge()) is None
    assert size_of(found, PART) is None
    assert size_of(found, Step(Analyze(Ref("shop", ("public", "events"))), "stale")) == table("events").total_bytes
