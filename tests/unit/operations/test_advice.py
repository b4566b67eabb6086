# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recommended, by measurements that are made up: thresholds, exclusions, and what is unknown."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils import _health as health
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import advice, advice_sessions
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.advice_policy import Policy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    DatabaseInfo,
    Finding,
    Measured,
    Ref,
    Sample,
    Space,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import (
    Counter,
    ForeignKey,
    Index,
    Structure,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    AddKey,
    CreateIndex,
    DropIndex,
    EndPrepared,
    EndSession,
    Reindex,
    Vacuum,
    Widen,
)

from ..samples import GB, MB, NOW, defaults, measured, server, table

ORDERS = Ref("shop", ("public", "orders"))
LONG_AGO = NOW - timedelta(days=100)


def policy(**given_options: Any) -> Policy:
    return advice.policy(defaults(advice.OPTIONS, large_table="1TB", **given_options))


def index(name: str = "i", *columns: str, **fields: Any) -> Index:
    """Used, unless told otherwise."""
    columns = columns or (name,)
    ref = Ref("shop", ("public", name))
    parts = tuple("int4_ops" for _column in columns)
    known = {"columns": columns, "parts": parts, "bytes": MB, "scans": 5, "counted_since": LONG_AGO, **fields}
    return Index(ref, fields.pop("table", ORDERS), **{k: v for k, v in known.items() if k != "table"})


def world(*indexes: Index, structure: Structure | None = None, **fields: Any) -> Measured:
    return measured(table(), database={"indexes": indexes, "structure": structure}, **fields)


def found(seen: Measured, **options: Any) -> list[Finding]:
    return [f for f in advice.plan(policy(**options), seen).findings if f.code in advice.RECOMMENDED]


def codes(seen: Measured, **options: Any) -> list[tuple[str, str]]:
    return [(f.code, f.ref.path[-1] if f.ref.path else f.ref.database) for f in found(seen, **options)]


def sick(**fields: Any) -> Measured:
    return world(health=health.Health(**fields))


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


# ---- sessions --------------------------------------------------------------------------------------------------------


def session(number: int, *blockers: int, wait: float = 60.0, **fields: Any) -> health.Backend:
    waits = {"blocked_by": blockers, "wait_seconds": wait} if blockers else {}
    return health.Backend(number, database="shop", **{**waits, **fields})


@given(st.integers(2, 30))
def test_a_chain_names_its_root_once(length: int) -> None:
    backends = tuple(session(n, *([n - 1] if n > 1 else [])) for n in range(1, length + 1))
    (finding,) = found(sick(backends=backends))
    assert (finding.code, finding.cure) == ("blocked", EndSession(Ref("shop"), 1))
    assert f"{length - 1} session" in finding.message


def test_a_tree_has_one_root_and_two_trees_have_two() -> None:
    tree = (session(1), session(2, 1), session(3, 1), session(4, 2, 3))
    (chain,) = advice_sessions.chains(health.Health(backends=tree))
    assert (chain.root, {b.id for b in chain.waiting}) == (1, {2, 3, 4})
    two = (*tree, session(10), session(11, 10), session(12, 11, 1))
    assert {c.root for c in advice_sessions.chains(health.Health(backends=two))} == {1, 10}


def test_hundreds_that_queue_are_told_apart_at_once() -> None:
    """Whoever waits in a queue waits for everybody before him."""
    queue = tuple(session(n, *range(1, n)) for n in range(1, 401))
    began = time.process_time()
    (chain,) = advice_sessions.chains(health.Health(backends=queue))
    assert (chain.root, len(chain.waiting)) == (1, 399)
    assert time.process_time() - began < 0.5


def test_what_must_not_be_ended_is_not_told_to_be() -> None:
    for keep in ("a backup (pg_dump)", "replication"):
        first, second = found(sick(backends=(session(1, keep=keep, statement_seconds=1e4), session(2, 1))))
        assert (first.cure, second.cure) == (None, None)
        assert keep in first.fix
        assert keep in second.fix
    (unseen,) = found(sick(backends=(session(2, 1),)))
    assert unseen.cure is None


def test_a_prepared_transaction_of_unknown_age_is_left_to_its_manager() -> None:
    (finding,) = found(sick(prepared=(health.Prepared("x", "shop"),)))
    assert finding.cure is None


@given(st.dictionaries(st.integers(0, 9), st.frozensets(st.integers(0, 9), max_size=3), max_size=10))
def test_whatever_waits_for_whatever_an_end_is_found(waits: dict[int, frozenset[int]]) -> None:
    backends = tuple(session(n, *sorted(ahead - {n})) for n, ahead in waits.items())
    chains = advice_sessions.chains(health.Health(backends=backends))
    waiting = {b.id for b in backends if b.blocked_by}
    assert {b.id for c in chains for b in c.waiting} | {c.root for c in chains} >= waiting


def test_a_wait_of_a_moment_is_none_of_our_business() -> None:
    assert codes(sick(backends=(session(1), session(2, 1, wait=9.0)))) == []
    (finding,) = found(sick(backends=(session(1), session(2, 1, wait=301.0))))
    assert finding.priority == 1


def test_a_prepared_transaction_that_blocks_cannot_be_terminated() -> None:
    waits = (session(2, 0),)
    prepared = (health.Prepared("left", "shop", "app", 5000.0),)
    (first, second) = found(sick(backends=waits, prepared=prepared))
    assert first.cure == EndPrepared(Ref("shop"), "left")
    assert second.cure is None
    assert "prepared" in second.message


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"statement_seconds": 301.0}, "long_query"),
        ({"statement_seconds": 299.0}, ""),
        ({"transaction_seconds": 901.0, "state": "idle in transaction"}, "long_transaction"),
        ({"transaction_seconds": 899.0}, ""),
        ({"statement_seconds": 1000.0, "transaction_seconds": 1000.0}, "long_query"),
    ],
)
def test_long_work(fields: dict[str, Any], code: str) -> None:
    findings = found(sick(backends=(session(7, **fields),)))
    assert [(f.code, f.cure) for f in findings] == ([(code, EndSession(Ref("shop"), 7))] if code else [])


@pytest.mark.parametrize(("used", "priority"), [(79, 0), (80, 2), (94, 2), (95, 1), (120, 1)])
def test_connections(used: int, priority: int) -> None:
    findings = found(sick(connections=health.Connections(used, 100)))
    assert [f.priority for f in findings] == ([priority] if priority else [])


@pytest.mark.parametrize(("mean", "priority"), [(1.9, 0), (2.0, 3), (4.9, 3), (5.0, 2)])
def test_slow_statements(mean: float, priority: int) -> None:
    statement = health.Statement("SELECT 1", "shop", 10, mean, 10 * mean)
    assert [f.priority for f in found(sick(statements=(statement,)))] == ([priority] if priority else [])


# ---- the server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slot", "code", "priority"),
    [
        (health.Slot("s", "physical", False, 5 * GB), "slot_stalled", 2),
        (health.Slot("s", "physical", False, 5 * MB), "", 0),
        (health.Slot("s", "physical", False, None), "", 0),
        (health.Slot("s", "logical", False, 0, inactive_seconds=90_000.0), "slot_stalled", 2),
        (health.Slot("s", "logical", False, 0, "lost"), "slot_stalled", 1),
        (health.Slot("s", "logical", True, 5 * GB), "slot_behind", 2),
        (health.Slot("s", "logical", True, 5 * MB), "", 0),
    ],
)
def test_slots(slot: health.Slot, code: str, priority: int) -> None:
    findings = found(sick(slots=(slot,)))
    assert [(f.code, f.priority) for f in findings] == ([(code, priority)] if code else [])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"archiver": health.Archiver("on", failed=3, failing=True)}, [("archiver_failing", 1)]),
        ({"archiver": health.Archiver("on", failed=3)}, []),
        ({"archiver": health.Archiver("off", failed=3, failing=True)}, []),
        ({"archiver": health.Archiver("on", waiting=100)}, [("archiver_behind", 2)]),
        ({"replicas": (health.Replica("r", "streaming", 301.0),)}, [("replica_lag", 2)]),
        ({"replicas": (health.Replica("r", "streaming", None),)}, []),
        ({"replicas": (health.Replica("r", "stopped", error="gone"),)}, [("replication_broken", 1)]),
        ({"logs": health.Logs(True, expire_seconds=0)}, [("logs_never_expire", 2)]),
        ({"logs": health.Logs(True, expire_seconds=None)}, []),
        ({"logs": health.Logs(False, expire_seconds=0)}, []),
        ({"purge_pending": 10**7}, [("purge_behind", 2)]),
    ],
)
def test_replication_and_logs(fields: dict[str, Any], expected: list[tuple[str, int]]) -> None:
    assert [(f.code, f.priority) for f in found(sick(**fields))] == expected


def test_ages_name_the_oldest_table_where_it_is_known() -> None:
    infos = (DatabaseInfo("shop", freeze_percent=120.0), DatabaseInfo("other", freeze_percent=160.0))
    seen = measured(table(freeze_percent=119.0), server=server(databases=infos))
    first, second = found(seen)
    assert (first.code, first.cure, first.priority) == ("wraparound", Vacuum(ORDERS, freeze=True), 2)
    assert (second.ref, second.cure, second.priority) == (Ref("other"), None, 1)
    assert codes(measured(table(freeze_percent=99.0))) == []


# ---- growth ----------------------------------------------------------------------------------------------------------


def daily(per_day: float, days: int = 10) -> tuple[Sample, ...]:
    return tuple(Sample(NOW - timedelta(days=days - n), int(GB + per_day * n), None) for n in range(days))


def test_growth_is_an_alarm_from_seven_samples_on() -> None:
    seen = world(samples={Ref("shop"): daily(200 * MB)})
    assert codes(seen) == [("growth", "shop")]
    assert codes(world(samples={Ref("shop"): daily(200 * MB, 6)})) == []
    assert codes(world(samples={Ref("shop"): daily(99 * MB)})) == []
    assert codes(seen, growth_alert="0B") == []


def test_a_load_at_noon_is_no_growth() -> None:
    hours = tuple(Sample(NOW - timedelta(hours=9 - n), GB * n, None) for n in range(9))
    assert codes(world(samples={Ref("shop"): hours})) == []


def test_a_disk_that_fills_up() -> None:
    for free, priority in ((GB, 1), (4 * GB, 2), (400 * GB, 0)):
        seen = measured(
            table(), database={"spaces": (Space("data", free, 900 * GB),)}, samples={Ref("shop"): daily(200 * MB)}
        )
        full = [f.priority for f in found(seen, growth_alert="1TB") if f.code == "disk_full"]
        assert full == ([priority] if priority else [])


# ---- all of it -------------------------------------------------------------------------------------------------------


def test_a_healthy_server_gets_none_and_nobody_knows_is_not_healthy() -> None:
    well = health.Health(
        connections=health.Connections(5, 100),
        backends=(),
        prepared=(),
        statements=(),
        replicas=(),
        slots=(),
        archiver=health.Archiver("off"),
        logs=health.Logs(True),
    )
    assert codes(world(index(), structure=Structure(), health=well)) == []
    blind = health.Health(unknown={"backends": "the login may not see them"})
    assert codes(world(health=blind)) == []
    assert advice.unknown(policy(), world(health=blind)) == {"backends": "the login may not see them"}


def test_it_plans_no_step_and_says_what_hindered() -> None:
    hindrance = Finding(2, "may_not_maintain", Ref("shop"), "no rights")
    seen = measured(table(), database={"findings": (hindrance,)})
    plan = advice.plan(policy(), seen)
    assert plan.steps == ()
    assert hindrance in plan.findings
    assert hindrance.code not in advice.RECOMMENDED


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"long_query": "5 minutes"}, "long_query"),
        ({"growth_alert": "100"}, "growth_alert"),
        ({"connection_warning": 101}, "connection_warning"),
        ({"connection_warning": 97.0}, "connection_critical"),
        ({"slow_statement_warning": "6s"}, "slow_statement_critical"),
        ({"counter_percent": 0}, "counter_percent"),
        ({"unused_index_age": "30"}, "unused_index_age"),
        ({"tables": []}, "tables"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word) as raised:
        policy(**options)
    assert raised.value.cure
