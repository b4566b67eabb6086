# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether maintenance may start: what stops it, what is only told, and each of it once."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import preflight
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Activity,
    Finding,
    Measured,
    Plan,
    Ref,
    Space,
    Wants,
)

from ..samples import GB, defaults, measured, server, table


def policy(**given_options: Any) -> preflight.Policy:
    return preflight.policy(defaults(preflight.OPTIONS, **given_options))


def plan(options: dict[str, Any] | None = None, *, now: str = "2026-06-01T12:00:00+00:00", **database: Any) -> Plan:
    clock = datetime.fromisoformat(now)
    found = measured(table(), table(database="jobs"), server=server(now=clock, role="standby"), database=database)
    return preflight.plan(policy(**(options or {})), found)


def test_a_calm_server_is_ready() -> None:
    calm = Activity(oldest_seconds=3599.0, connections=94, max_connections=100)
    assert plan(activity=calm, spaces=(Space("data", 10 * GB, 100 * GB),)) == Plan()
    assert plan() == Plan()
    assert plan(activity=Activity(), spaces=(Space("wal"),)) == Plan()


@pytest.mark.parametrize(
    ("options", "database", "code", "message"),
    [
        ({"role": "primary"}, {}, "not_primary", "the server is a standby"),
        ({}, {"activity": Activity(connections=95, max_connections=100)}, "connections",
         "95 of 100 connections are taken, over 95 %"),
        ({}, {"spaces": (Space("wal", 9 * GB, 100 * GB),)}, "free_space",
         "9.0 GB of 100.0 GB are free for wal, under 10 %"),
        ({"window": "22:00-06:00", "window_timezone": "Europe/Berlin"}, {}, "outside_window",
         "it is 14:00 there, outside the maintenance window 22:00-06:00 Europe/Berlin"),
    ],
)  # fmt: skip
def test_what_stops_maintenance(options: dict[str, Any], database: dict[str, Any], code: str, message: str) -> None:
    found = plan(options, **database)
    assert found == Plan(findings=(Finding(1, code, Ref(""), message),))
    assert preflight.stopping(found.findings) == list(found.findings)


def test_a_long_transaction_is_told_once_and_stops_nothing() -> None:
    found = plan(activity=Activity(oldest_seconds=7200.0, oldest_who="connection 12, app@web1"))
    assert [f.message for f in found.findings] == ["a transaction is open for 2 h, over 1 h: connection 12, app@web1"]
    assert preflight.stopping(found.findings) == []


def test_a_transaction_of_somebody_unknown_is_told_for_each_database() -> None:
    found = plan(activity=Activity(oldest_seconds=7200.0))
    assert [f.ref.database for f in found.findings] == ["shop", "jobs"]
    assert all(f.message.endswith("over 1 h: whose, this login may not see") for f in found.findings)


def test_readings_that_move_between_databases_are_one_finding() -> None:
    full = measured(table(), table(database="jobs"))
    one, other = full.databases
    found = full._replace(
        databases=(
            one._replace(activity=Activity(None, "", 96, 100), spaces=(Space("data", GB, 100 * GB),)),
            other._replace(activity=Activity(None, "", 97, 100), spaces=(Space("data", GB - 1, 100 * GB),)),
        )
    )
    assert [f.code for f in preflight.plan(policy(), found).findings] == ["connections", "free_space"]


@pytest.mark.parametrize("hours", [-11, 0, 5.5, 14])
def test_the_clock_is_told_in_the_window_s_zone_wherever_it_was_read(hours: float) -> None:
    now = datetime.fromisoformat("2026-06-01T12:00:00+00:00").astimezone(timezone(timedelta(hours=hours)))
    (finding,) = plan({"window": "22:00-06:00"}, now=now.isoformat()).findings
    assert finding.message == "it is 12:00 there, outside the maintenance window 22:00-06:00 UTC"
    assert plan({"window": "11:00-13:00"}, now=now.isoformat()) == Plan()


ACTIVITIES = st.builds(
    Activity,
    st.none() | st.floats(0, 1e6),
    st.sampled_from(["", "pid 1"]),
    st.none() | st.integers(0, 500),
    st.none() | st.integers(0, 500),
)
SPACES = st.lists(
    st.builds(Space, st.sampled_from(["data", "wal"]), st.none() | st.integers(0, GB), st.none() | st.integers(0, GB)),
    max_size=3,
).map(tuple)


@given(st.none() | ACTIVITIES, SPACES, st.sampled_from(["any", "primary"]))
def test_it_plans_no_step_and_every_urgent_finding_of_its_own_stops(
    activity: Activity | None, spaces: tuple[Space, ...], role: str
) -> None:
    found = plan({"role": role, "window": "22:00-06:00"}, activity=activity, spaces=spaces)
    assert found.steps == ()
    assert preflight.stopping(found.findings) == [f for f in found.findings if f.priority == 1]


def test_what_others_find_urgent_stops_nothing() -> None:
    assert preflight.stopping([Finding(1, "database_unreadable", Ref("old"), "not allowed")]) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"window": "22-6"}, "window"),
        ({"window_timezone": "UTC"}, "window_timezone"),
        ({"window": "22:00-06:00", "window_timezone": "Mars"}, "window_timezone"),
        ({"max_transaction_age": "1"}, "max_transaction_age"),
        ({"min_free_percent": 101.0}, "min_free_percent"),
        ({"max_connections_percent": -1.0}, "max_connections_percent"),
    ],
)
def test_an_option_that_cannot_be_meant_is_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        policy(**options)


def test_it_measures_activity_and_nothing_else() -> None:
    assert preflight.wants(policy(), server()) == Wants(activity=True)
    assert preflight.doubts(policy(), Measured(server(), ())) == Wants()
