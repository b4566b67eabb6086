# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recommended about indexes and tables, by measurements that are made up: thresholds, exclusions, unknowns."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import advice
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Ref,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import (
    Counter,
    ForeignKey,
    Structure,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    AddKey,
    CreateIndex,
    DropIndex,
    Reindex,
    Widen,
)

from ..advised import ORDERS, codes, found, index, policy, world
from ..samples import GB, NOW, server

# ---- indexes ---------------------------------------------------------------------------------------------------------


def test_an_index_that_nobody_used_for_long_is_unused() -> None:
    (finding,) = found(world(index(scans=0)))
    assert (finding.code, finding.priority) == ("unused_index", 3)
    assert finding.cure == DropIndex(Ref("shop", ("public", "i")), ORDERS)
    assert "replicas" in finding.message
    (finding,) = found(world(index(scans=0, bytes=GB)))
    assert finding.priority == 2


@pytest.mark.parametrize(
    "why",
    [
        {"unique": True},
        {"primary": True, "unique": True},
        {"constraint": "positive"},
        {"keep": "supports foreign key f"},
        {"keep": "replica identity"},
        {"columns": ("",)},
        {"valid": True, "scans": 1},
        {"scans": None},
        {"counted_since": None},
        {"counted_since": NOW - timedelta(days=29)},
        {"last_scan": NOW - timedelta(days=29)},
        {"partition_of": Ref("shop", ("public", "parent"))},
    ],
    ids=str,
)
def test_what_is_needed_or_not_counted_is_not_unused(why: dict[str, Any]) -> None:
    assert codes(world(index(**{"scans": 0, **why}))) == []


def test_what_was_not_counted_is_unknown_and_never_none() -> None:
    blind, young = index(scans=None, counted_since=None), index(scans=0, counted_since=NOW - timedelta(days=2))
    for seen in (world(blind), world(young)):
        assert "unused_indexes in shop" in advice.unknown(policy(), seen)
    assert advice.unknown(policy(), world(index(scans=0))) == {}
    assert advice.unknown(policy(), world(index(scans=None, unique=True))) == {}  # nobody would call it unused


def test_a_standby_says_nothing_of_use() -> None:
    seen = world(index(scans=0), server=server(role="standby"))
    assert codes(seen) == []
    assert "unused_indexes" in advice.unknown(policy(), seen)


def test_the_indexes_of_partitions_are_one_with_their_parent() -> None:
    parent = index("p", scans=0, partitioned=True, bytes=0)
    children = [index(f"c{n}", scans=0, partition_of=parent.ref) for n in range(3)]
    (finding,) = found(world(parent, *children))
    assert finding.cure == DropIndex(parent.ref, ORDERS, partitioned=True)
    assert "3.0 MB" in finding.message
    assert codes(world(parent, *children[:2], children[2]._replace(scans=1))) == []
    assert codes(world(parent)) == []  # of a parent alone nothing is known


def test_of_two_that_are_the_same_the_one_that_something_stands_on_stays() -> None:
    plain = index("a", "x")
    for better in ({"primary": True}, {"constraint": "c", "unique": True}, {"unique": True}, {"keep": "clustered"}):
        twin = index("b", "x", **better)
        assert codes(world(plain, twin)) == [("duplicate_index", "a")]
    assert codes(world(plain, index("b", "x"))) == [("duplicate_index", "b")]
    assert codes(world(plain, index("b", "x", scans=9))) == [("duplicate_index", "a")]


@pytest.mark.parametrize(
    "other",
    [
        {"columns": ("y",)},
        {"parts": ("text_pattern_ops",)},
        {"where": "x > 0"},
        {"method": "hash"},
        {"included": ("z",)},
        {"table": Ref("shop", ("public", "others"))},
        {"valid": False},
    ],
    ids=str,
)
def test_what_differs_in_anything_is_no_duplicate(other: dict[str, Any]) -> None:
    assert "duplicate_index" not in dict(codes(world(index("a", "x"), index("b", "x", **other))))


def test_two_constraints_are_named_and_left_to_people() -> None:
    twins = [index(name, "x", unique=True, constraint=f"key_{name}") for name in ("a", "b")]
    (finding,) = found(world(*twins))
    assert finding.code == "duplicate_index"
    assert finding.cure is None
    assert "key_a" in finding.message
    assert "key_b" in finding.fix


def test_the_beginning_of_another_is_redundant() -> None:
    short, long = index("a", "x"), index("b", "x", "y")
    assert codes(world(short, long)) == [("redundant_index", "a")]
    assert codes(world(short, long, index("c", "x", "y", "z"))) == [("redundant_index", "a"), ("redundant_index", "b")]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"unique": True}, {}),
        ({"where": "x > 0"}, {}),
        ({"keep": "clustered"}, {}),
        ({}, {"where": "x > 0"}),
        ({}, {"method": "gist"}),
        ({}, {"visible": False}),
        ({}, {"valid": False}),
        ({"included": ("z",)}, {}),
        ({"method": "hash"}, {"method": "hash"}),
    ],
    ids=str,
)
def test_what_does_not_serve_the_same_is_not_redundant(short: dict[str, Any], long: dict[str, Any]) -> None:
    seen = world(index("a", "x", **short), index("b", "x", "y", **long))
    assert "redundant_index" not in dict(codes(seen))


def test_who_takes_over_is_not_unused() -> None:
    """Dropping the short one because of the long one, and the long one because nobody used it, would leave nothing."""
    short, long = index("a", "x"), index("b", "x", "y", scans=0)
    assert codes(world(short, long)) == [("redundant_index", "a")]
    supporting = index("a", "x", scans=0, keep="supports foreign key f")
    assert codes(world(supporting, long)) == [("redundant_index", "a")]
    assert codes(world(short._replace(scans=0), long)) == [("redundant_index", "a"), ("unused_index", "b")]


@given(st.lists(st.tuples(st.lists(st.sampled_from("xyz"), min_size=1, unique=True), st.integers(0, 1)), max_size=7))
def test_what_was_used_is_still_served_when_all_advice_is_followed(drawn: list[tuple[list[str], int]]) -> None:
    indexes = [index(f"i{n}", *columns, scans=scans) for n, (columns, scans) in enumerate(drawn)]
    gone = {f.cure.ref for f in found(world(*indexes)) if isinstance(f.cure, DropIndex)}
    left = [i for i in indexes if i.ref not in gone]
    for used in (i for i in indexes if i.scans):
        assert any(i.columns[: len(used.columns)] == used.columns for i in left)


def test_an_invalid_index_is_rebuilt_or_dropped_where_another_does_its_work() -> None:
    broken = index("a", "x", valid=False, scans=0)
    (finding,) = found(world(broken))
    assert (finding.code, finding.cure) == ("invalid_index", Reindex(broken.ref, ORDERS, True))
    (finding,) = found(world(broken, index("b", "x")))
    assert (finding.code, finding.cure) == ("invalid_index", DropIndex(broken.ref, ORDERS))
    (finding,) = found(world(broken._replace(partitioned=True)))
    assert finding.cure is None
    assert finding.fix


def test_only_the_tables_asked_for_are_judged() -> None:
    assert codes(world(index(scans=0)), tables=["-orders"]) == []


# ---- schema ----------------------------------------------------------------------------------------------------------


def key(**fields: Any) -> ForeignKey:
    parent = Ref("shop", ("public", "customers"))
    made = ForeignKey(ORDERS, "f", ("customer",), parent, ("id",), rows=50_000, indexed=False)
    return made._replace(**fields)


def test_a_foreign_key_needs_an_index_where_it_costs() -> None:
    (finding,) = found(world(structure=Structure(foreign_keys=(key(), key(name="same")))))
    assert finding.cure == CreateIndex(ORDERS, ("customer",))
    assert found(world(structure=Structure(foreign_keys=(key(rows=5, parent_changes=3),))))
    for harmless in (key(indexed=True), key(rows=5, parent_changes=0), key(rows=5, parent_changes=None)):
        assert codes(world(structure=Structure(foreign_keys=(harmless,)))) == []


def test_tables_without_a_key_get_one() -> None:
    (finding,) = found(world(structure=Structure(keyless=(ORDERS,), free_columns={ORDERS: "row_id"})))
    assert (finding.code, finding.cure) == ("no_primary_key", AddKey(ORDERS, "row_id"))


def counter(percent: float, **fields: Any) -> Counter:
    known = {"used": int(percent * 1e6), "most": 10**8, "table": ORDERS, "column": "id", **fields}
    return Counter(Ref("shop", ("public", "ids")), **known)


@pytest.mark.parametrize(("percent", "priority"), [(79.9, 0), (80, 2), (94, 2), (95, 1), (100, 1)])
def test_a_counter_is_widened_before_it_ends(percent: float, priority: int) -> None:
    findings = found(world(structure=Structure(counters=(counter(percent),))))
    assert [f.priority for f in findings] == ([priority] if priority else [])
    for finding in findings:
        assert finding.cure == Widen(ORDERS, "id", Ref("shop", ("public", "ids")))


def test_counters_that_begin_anew_or_are_as_wide_as_can_be() -> None:
    assert codes(world(structure=Structure(counters=(counter(99, cycles=True),)))) == []
    widest = counter(0, used=2**63 - 5, most=2**63 - 1)
    (finding,) = found(world(structure=Structure(counters=(widest,))))
    assert finding.cure is None
    assert finding.fix


def test_large_tables() -> None:
    assert [f.code for f in advice.plan(policy()._replace(large_table=GB), world()).findings] == ["large_table"]
    assert codes(world()) == []
