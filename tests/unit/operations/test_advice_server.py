# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is recommended about sessions, the server and its growth, by measurements that are made up."""

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
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    DatabaseInfo,
    Finding,
    Ref,
    Sample,
    Space,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import (
    Structure,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    EndPrepared,
    EndSession,
    Vacuum,
)

from ..advised import ORDERS, codes, found, index, policy, sick, world
from ..samples import GB, MB, NOW, measured, server, table

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
    assert time.process_time() - began < 2.5


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
