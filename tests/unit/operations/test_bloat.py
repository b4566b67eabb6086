# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner behind db_bloat_facts: what is reported, and what is worth an exact look."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import bloat as operation
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Finding, Measured, Plan, Ref, Table
from ansible_collections.dbfleet.maintenance.plugins.module_utils._selection import Patterns, names_of

from ..samples import GB, MB, bloat, defaults, fleets, measured, server, table


def policy(**given_options: Any) -> operation.Policy:
    return operation.policy(defaults(operation.OPTIONS, **given_options))


@given(fleets(), st.sampled_from(["auto", "exact", "estimate"]), st.sampled_from(["0B", "1MB", "3GB", "1TB"]))
def test_an_exact_look_reads_no_more_than_its_budget(found: Measured, method: str, budget: str) -> None:
    asked = policy(method=method, scan_budget=budget)
    byref = {x.ref: x for x in operation.selected(asked, found)}
    wants = operation.doubts(asked, found)
    assert set(wants.exact) <= byref.keys()
    assert len(set(wants.exact)) == len(wants.exact)
    assert sum(byref[ref].bytes for ref in wants.exact) <= asked.scan_budget
    if method == "auto":
        for ref in wants.exact:
            estimate = byref[ref].bloat
            assert estimate is not None
            assert estimate.low < 10 <= estimate.high
    if method == "estimate":
        assert wants.exact == ()


def test_a_table_that_does_not_fit_does_not_keep_smaller_ones_out() -> None:
    found = measured(*[table(n, bytes=size, bloat=bloat(10, doubt=5)) for n, size in (("a", 4 * GB), ("b", GB // 2))])
    assert operation.doubts(policy(), found).exact == (Ref("shop", ("public", "b")),)
    assert operation.doubts(policy(), found).scan_budget == GB


@given(fleets(), st.lists(st.sampled_from(["*", "a", "b*", "-c"]), min_size=1, max_size=3))
def test_what_is_reported_is_what_is_selected(found: Measured, names: list[str]) -> None:
    asked, patterns = policy(tables=names, min_size="100MB"), Patterns(names)
    for x in operation.selected(asked, found):
        assert isinstance(x, Table)
        assert patterns.takes(*names_of(x.ref))
        assert x.total_bytes >= 100 * MB
        assert x.kind not in ("catalog", "partitioned")
    assert operation.plan(asked, found) == Plan()


def test_what_hindered_the_measurement_is_told() -> None:
    told = Finding(2, "missing_privilege", Ref("shop"), "the login may not")
    found = measured(table(), server=server(findings=(told,)), database={"findings": (told,)})
    assert operation.plan(policy(), found).findings == (told, told)


@pytest.mark.parametrize(
    ("option", "value"),
    [("scan_budget", "1"), ("scan_budget", "all"), ("min_size", -1), ("bloat_percent", 101.0), ("bloat_percent", -1.0),
     ("tables", []), ("tables", ["[a]*"])],
)  # fmt: skip
def test_an_option_that_cannot_be_meant_is_named(option: str, value: object) -> None:
    with pytest.raises(BadInput, match=option):
        policy(**{option: value})


def test_small_objects_need_no_estimate() -> None:
    wants = operation.wants(policy(min_size="5MB"), server())
    assert (wants.bloat, wants.bloat_min_bytes, wants.leftovers, wants.activity) == (True, 5 * MB, False, False)
