# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that all modules share: how their words become numbers, and what cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._options import EXECUTION, execution
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution

from .samples import GB, defaults


def read(**given_options: Any) -> Execution:
    return execution(defaults(EXECUTION, **given_options))


def test_the_defaults_are_those_of_the_record() -> None:
    assert read() == Execution() == execution({})


def test_every_option_is_read() -> None:
    assert read(
        jobs=4,
        time_budget="2h",
        hard_stop=False,
        lock_timeout="500ms",
        retries=0,
        concurrent_wait="1h",
        if_running="wait",
        replicas=["db2", "db3:5433"],
        max_replica_lag="0s",
        stop_file="/run/stop",
        assume_free_space="200GB",
    ) == Execution(4, 7200, False, 0.5, 3600, 0, "wait", ("db2", "db3:5433"), 0, "/run/stop", 200 * GB)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"jobs": 0}, "jobs"),
        ({"jobs": -1}, "jobs"),
        ({"journal_keep": "23h"}, "journal_keep"),
        ({"journal_keep": "a year"}, "journal_keep"),
        ({"retries": -1}, "retries"),
        ({"max_results": 0}, "max_results"),
        ({"time_budget": "0s"}, "time_budget"),
        ({"time_budget": "2 hours"}, "time_budget"),
        ({"time_budget": "7200"}, "time_budget"),
        ({"lock_timeout": "0s"}, "lock_timeout"),
        ({"lock_timeout": "0.1ms"}, "lock_timeout"),
        ({"lock_timeout": "-1s"}, "lock_timeout"),
        ({"concurrent_wait": "0ms"}, "concurrent_wait"),
        ({"concurrent_wait": "soon"}, "concurrent_wait"),
        ({"max_replica_lag": "10s"}, "max_replica_lag"),
        ({"max_replica_lag": "ten", "replicas": ["db2"]}, "max_replica_lag"),
        ({"replicas": ["db2"]}, "max_replica_lag"),
        ({"assume_free_space": "200"}, "assume_free_space"),
        ({"assume_free_space": "0.5"}, "assume_free_space"),
        ({"window_timezone": "UTC"}, "window_timezone"),
    ],
)
def test_an_option_that_cannot_be_meant_is_named_with_a_cure(options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word) as raised:
        read(**options)
    assert raised.value.cure


@given(st.sampled_from(["time_budget", "lock_timeout", "concurrent_wait"]), st.floats(0, 1e6), st.sampled_from("smhdw"))
def test_no_wait_becomes_zero_which_servers_take_for_endless(name: str, number: float, unit: str) -> None:
    try:
        found = getattr(read(**{name: f"{number:.6f}{unit}"}), name)
    except BadInput:
        found = 1.0
    assert found * 1000 >= 1
