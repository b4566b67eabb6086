# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laws of the reindex planner: whatever is measured, whatever is asked for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import reindex
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.reindex_needs import Policy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Attempt,
    Database,
    Leftover,
    Measured,
    Note,
    Plan,
    Ref,
    Step,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import Collation, Index
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    DropLeftover,
    RefreshCollation,
    Reindex,
    lane_of,
)

from ..samples import GB, MB, NOW, bloat, defaults, server, table

METHODS = st.sampled_from(["online", "exclusive"])
SINGLE = {"single rebuild": "an index is rebuilt with its table"}


def policy(**given_options: Any) -> Policy:
    return reindex.policy(defaults(reindex.OPTIONS, **given_options))


def index(name: str = "a", owner: str = "t", **fields: Any) -> Index:
    """A healthy one, unless told otherwise."""
    return Index(Ref("shop", ("public", name)), Ref("shop", ("public", owner)), bytes=GB, rows=1000)._replace(**fields)


def world(*indexes: Index, lacks: dict[str, str] | None = None, **fields: Any) -> Measured:
    tables = tuple(table(path[-1]) for path in sorted({x.table.path for x in indexes}))
    found = Database("shop", indexes=indexes, tables=tables)._replace(**fields.pop("database", {}))
    return Measured(server(lacks=lacks or {}), (found,))._replace(**fields)


def steps(found: Measured, **given_options: Any) -> list[Step]:
    return list(reindex.plan(policy(**given_options), found).steps)


def codes(found: Measured, **given_options: Any) -> list[str]:
    return sorted(f.code for f in reindex.plan(policy(**given_options), found).findings)


# ---- drawn -----------------------------------------------------------------------------------------------------------


@st.composite
def indexes(draw: st.DrawFn, name: str) -> Index:
    percent = draw(st.none() | st.sampled_from([0.0, 20.0, 29.9, 30.0, 31.0, 80.0]))
    size = draw(st.sampled_from([0, MB, 10 * MB, GB]))
    stale = draw(st.sampled_from(["", "", "collation de was 1, is 2"]))
    return index(
        name,
        draw(st.sampled_from(["t", "u"])),
        bytes=size,
        valid=draw(st.sampled_from([True, True, False])),
        primary=draw(st.booleans()),
        partitioned=draw(st.integers(0, 5)) == 0,
        bloat=None if percent is None else bloat(percent, size, doubt=draw(st.sampled_from([0.0, 5.0]))),
        stale=stale,
        state=f"16400 {stale}" if stale else "",
        lacks=draw(st.sampled_from([{}, {}, {}, {"online rebuild": "no"}, {"exclusive rebuild": "no"}])),
    )


@st.composite
def worlds(draw: st.DrawFn) -> Measured:
    """Indexes of two tables, in every state that an engine could report, with wreckage here and there."""
    found = [draw(indexes(name)) for name in "abcd"[: draw(st.integers(0, 4))]]
    lacks = draw(st.sampled_from([{}, {}, SINGLE]))
    if lacks:  # such servers compile their collations in
        found = [x._replace(stale="", state="") for x in found]
    refs = st.sampled_from([x.ref for x in found] or [index("gone").ref])
    what = st.sampled_from(["reindex", "reindex", "pg_repack"])
    half = st.sampled_from(["a_ccnew", "b_ccold1"]).map(lambda name: (name,))
    marks = st.sampled_from([("index 7",), ("index 8",)])
    why = st.sampled_from(["", "its index is invalid, too"])
    dead = st.builds(Leftover, refs, what, half, st.integers(0, GB), st.just(True), why, st.just(index().table), marks)
    busy = st.builds(Leftover, refs, what, half, st.just(0), st.just(False), st.just("process 7 builds it"))
    wreck = dead | busy
    stale = tuple(x.ref for x in found if x.stale)
    others = draw(st.sampled_from([(), (), ("CHECK low of t",)]))
    collation = (Collation(Ref("shop"), "1", "2", stale, others),) if stale else ()
    owned = {("reindex", x.ref): ("index 7",) for x in found if draw(st.booleans())}
    return world(
        *found,
        lacks=lacks,
        owned=owned,
        database={"leftovers": tuple(draw(st.lists(wreck, max_size=2))), "collations": collation},
    )


def after(found: Measured, done: Sequence[Step]) -> Measured:
    """What the next measurement shows when these steps were carried out, and did what they promise."""
    notes: dict[Any, Note] = dict(found.notes)
    for step in done:
        (database,) = found.databases
        task = step.task
        if isinstance(task, Reindex):
            cured = [x for x in database.indexes if task.ref in (x.ref, x.table)]
            notes |= {("reindex", x.ref): Note(NOW, x.state) for x in cured}
            healthy = {x.ref: x._replace(valid=True, bloat=bloat(0)) for x in cured}
            database = database._replace(indexes=tuple(healthy.get(x.ref, x) for x in database.indexes))
        elif isinstance(task, DropLeftover):
            gone = [x for x in database.leftovers if x.ref == task.ref and set(x.names) <= set(task.names)]
            database = database._replace(leftovers=tuple(x for x in database.leftovers if x not in gone))
        else:
            fresh = tuple(x._replace(stale="", state="") for x in database.indexes)
            database = database._replace(indexes=fresh, collations=())
        found = found._replace(databases=(database,), notes=notes)
    return found


def due(plan: Plan) -> list[Step]:
    return [step for step in plan.steps if not step.skip]


# ---- laws ------------------------------------------------------------------------------------------------------------


@given(worlds(), METHODS)
def test_every_step_has_a_reason_its_numbers_and_a_key_of_its_own(found: Measured, method: str) -> None:
    plan = reindex.plan(policy(method=method), found)
    assert len({step.key for step in plan.steps}) == len(plan.steps)
    for step in plan.steps:
        assert step.reason == step.reason.strip() != ""
        assert json.loads(json.dumps(step.measured)) == step.measured
        assert step.expected.bytes >= 0
    for finding in plan.findings:
        assert finding.message.rstrip(" :;,") == finding.message


@given(worlds(), METHODS, st.booleans())
def test_a_second_run_has_nothing_to_do(found: Measured, method: str, adopt: bool) -> None:
    asked = policy(method=method, adopt_leftovers=adopt)
    done = due(reindex.plan(asked, found))
    assert due(reindex.plan(asked, after(found, done))) == []


@pytest.mark.parametrize(
    ("name", "values"), [("bloat_percent", [0.1, 20.0, 30.0, 31.0, 100.0]), ("min_size", ["0B", "10MB", "1GB", "2GB"])]
)
@settings(max_examples=50)
@given(data=st.data())
def test_a_looser_threshold_never_adds_a_step(name: str, values: list[Any], data: st.DataObject) -> None:
    found = data.draw(worlds())
    keys = [{s.key for s in steps(found, reasons=["bloated"], **{name: value})} for value in values]
    assert all(looser <= stricter for stricter, looser in itertools.pairwise(keys))


@given(worlds(), st.randoms())
def test_the_order_of_indexes_does_not_matter(found: Measured, shuffle: Any) -> None:
    (database,) = found.databases
    mixed = database._replace(indexes=tuple(shuffle.sample(database.indexes, len(database.indexes))))
    one, other = reindex.plan(policy(), found), reindex.plan(policy(), found._replace(databases=(mixed,)))
    assert {s.key: s for s in one.steps} == {s.key: s for s in other.steps}
    assert sorted(map(str, one.findings)) == sorted(map(str, other.findings))


@given(worlds(), st.sampled_from(["write", "session"]))
def test_where_nothing_may_be_written_every_step_is_shown_and_skipped(found: Measured, lacking: str) -> None:
    barred = found._replace(server=server(lacks={**found.server.lacks, lacking: "a standby"}))
    plan = reindex.plan(policy(), barred)
    assert [s.key for s in plan.steps] == [s.key for s in reindex.plan(policy(), found).steps]
    assert {s.skip for s in plan.steps} <= {"a standby"}


@given(worlds(), METHODS)
def test_a_finding_stands_for_no_step_that_is_planned(found: Measured, method: str) -> None:
    plan = reindex.plan(policy(method=method), found)
    keys = {step.key for step in plan.steps}
    for finding in plan.findings:
        if finding.code in ("no_online_rebuild", "no_exclusive_rebuild", "natural_size", "leftover_in_use"):
            assert ("reindex", finding.ref) not in keys
        if finding.code == "collation_mismatch":
            assert ("refresh_collation", finding.ref) not in keys


@given(worlds(), METHODS)
def test_a_collation_is_refreshed_only_when_all_that_it_sorts_is_or_will_be_rebuilt(
    found: Measured, method: str
) -> None:
    plan = reindex.plan(policy(method=method), found)
    coming = {step.key for step in plan.steps if isinstance(step.task, Reindex)}
    for step in plan.steps:
        if isinstance(step.task, RefreshCollation):
            stale = [x for x in found.databases[0].indexes if x.stale and not x.partitioned]
            for x in stale:
                key = ("reindex", x.table if found.server.lacks else x.ref)
                assert key in step.after
                assert key in coming
            assert not found.databases[0].collations[0].others


@given(worlds(), st.booleans())
def test_wreckage_of_others_stays_unless_adopted(found: Measured, adopt: bool) -> None:
    (database,) = found.databases
    for step in steps(found, adopt_leftovers=adopt):
        if isinstance(step.task, DropLeftover):
            assert step.task.what == "reindex"
            for left in database.leftovers:
                if left.ref == step.task.ref and left.what == "reindex" and set(left.names) <= set(step.task.names):
                    # Two of one name are one object to the server; here one of them has to be ours.
                    same = [x for x in database.leftovers if (x.ref, x.names) == (left.ref, left.names)]
                    ours = any(set(x.marks) & set(found.owned.get(("reindex", x.ref), ())) for x in same)
                    assert any(x.dead for x in same)
                    assert ours or (adopt and any(not x.why_not for x in same))


@given(worlds(), METHODS)
def test_only_doubts_that_matter_are_looked_into(found: Measured, method: str) -> None:
    asked = policy(method=method)
    known = {x.ref: x for x in found.databases[0].indexes}
    for ref in reindex.doubts(asked, found).exact:
        estimate = known[ref].bloat
        assert estimate is not None
        assert estimate.low < asked.bloat_percent <= estimate.high
    assert reindex.doubts(policy(reasons=["invalid"]), found) == Wants()


@given(worlds(), METHODS)
def test_two_steps_of_one_table_share_a_lane(found: Measured, method: str) -> None:
    for step in steps(found, method=method):
        if isinstance(step.task, Reindex):
            assert lane_of(step.task) == step.task.table


# ---- cases -----------------------------------------------------------------------------------------------------------


def test_reasons_and_their_order() -> None:
    sick = index(valid=False, stale="collation de was 1, is 2", state="x", bloat=bloat(50))
    (step,) = steps(world(sick))
    assert step.reason.startswith("collation de was 1, is 2")
    assert "invalid" in step.reason
    assert "bloat 50 %" in step.reason
    ranks = [
        steps(world(x))[0].rank[0] for x in (index(stale="s", state="x"), index(valid=False), index(bloat=bloat(99)))
    ]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 3
    assert [s.task.ref for s in steps(world(sick), reasons=["bloated"])] == [sick.ref]
    assert steps(world(index(valid=False)), reasons=["bloated", "collation"]) == []


def test_where_indexes_are_rebuilt_with_their_table_one_rebuild_serves_all() -> None:
    sick = [index(name, bloat=bloat(percent, 100 * MB)) for name, percent in (("b", 40), ("a", 60))]
    primary = index("PRIMARY", bloat=bloat(90), primary=True)
    found = world(*sick, primary, index("healthy"), lacks=SINGLE)
    (step,) = steps(found)
    assert step.task == Reindex(index().table, index().table, True)
    assert step.measured["indexes"] == ["a", "b"]
    assert step.expected.bytes == 100 * MB
    assert step.size == found.databases[0].tables[0].total_bytes
    assert reindex.wants(policy(), found.server).tables
    assert not reindex.wants(policy(), server()).tables
    assert steps(world(primary, lacks=SINGLE)) == []
    replicated = found._replace(server=server(lacks={**SINGLE, "local rebuild": "a replica would replay it"}))
    assert codes(replicated) == ["replicated_rebuild"]
    assert len(steps(replicated, replicated_max_size="100GB")) == 1


def test_bloat_that_comes_back_by_itself_is_left_alone() -> None:
    assert steps(world(index(bloat=bloat(35), settles=40.0))) == []
    (step,) = steps(world(index(bloat=bloat(45), settles=40.0)))
    assert "over 40 %" in step.reason
    assert steps(world(index(bloat=bloat(45), settles=40.0)), bloat_percent=50.0) == []


def test_force_needs_names_and_spares_wreckage() -> None:
    with pytest.raises(BadInput, match="force"):
        policy(force=True, indexes=["*", "?*"], tables=["-audit"])
    left = Leftover(index("a").ref, "reindex", ("a_ccnew",), dead=True, table=index().table)
    found = world(index("a"), index("a_ccnew", valid=False), index("b"), database={"leftovers": (left,)})
    assert [s.task.ref.path[-1] for s in steps(found, force=True, tables=["t"])] == ["a", "b"]
    assert [s.task.ref.path[-1] for s in steps(found, force=True, indexes=["b"])] == ["b"]


def test_a_part_is_selected_with_its_parents() -> None:
    top = index("top", "events", partitioned=True)
    middle = index("middle", "events_2026", partitioned=True, partition_of=top.ref)
    leaf = index("leaf", "events_2026_01", partition_of=middle.ref, bloat=bloat(80))
    found = world(top, middle, leaf)
    for named in ({"indexes": ["top"]}, {"indexes": ["public.middle"]}, {"tables": ["events"]}, {"indexes": ["leaf"]}):
        assert [s.task.ref for s in steps(found, **named)] == [leaf.ref]
    assert steps(found, indexes=["-top"]) == []
    assert steps(found, tables=["*", "-events_2026_01"]) == []


def test_a_rebuild_that_gained_little_is_not_repeated_until_it_has_grown() -> None:
    last = Attempt(NOW - timedelta(days=1), 3.0, GB, GB, GB // 2, True)
    sick = index(bloat=bloat(50))
    remembered = world(sick, past={("reindex", sick.ref): last})
    assert steps(remembered) == []
    assert codes(remembered) == ["natural_size"]
    assert reindex.doubts(policy(), remembered) == Wants()
    grown = world(sick._replace(bytes=int(1.3 * GB)), past={("reindex", sick.ref): last})
    assert len(steps(grown)) == 1
    # What is wrong cannot wait.
    assert len(steps(world(sick._replace(valid=False), past={("reindex", sick.ref): last}))) == 1


def test_an_index_that_somebody_builds_is_left_alone() -> None:
    busy = Leftover(index().ref, "reindex", ("a",), dead=False, why_not="server process 7 is at work on it")
    found = world(index(valid=False), database={"leftovers": (busy,)})
    assert steps(found, adopt_leftovers=True) == []
    assert codes(found) == ["leftover_in_use"]


def test_online_waits_for_old_snapshots_and_exclusive_does_not() -> None:
    found = world(index(bloat=bloat(50)))
    online, exclusive = ({x.gauge for x in steps(found, method=method)[0].limits} for method in ("online", "exclusive"))
    assert online - exclusive == {"oldest_snapshot"}
    assert exclusive == {"disk_missing", "wal_missing", "tmp_missing"}


def test_a_version_that_nobody_tested_gets_no_rebuild() -> None:
    left = Leftover(index().ref, "reindex", ("a_ccnew",), marks=("index 7",))
    found = world(index(bloat=bloat(50)), lacks={"rewrite": "nobody tried"}, database={"leftovers": (left,)})
    found = found._replace(owned={("reindex", index().ref): ("index 7",)})
    assert {s.task.kind: s.skip for s in steps(found)} == {"drop_leftover": "", "reindex": "nobody tried"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"reasons": []}, "reasons"),
        ({"indexes": []}, "indexes"),
        ({"bloat_percent": 0}, "bloat_percent"),
        ({"bloat_percent": 101}, "bloat_percent"),
        ({"min_size": "10"}, "min_size"),
        ({"max_snapshot_age": "soon"}, "max_snapshot_age"),
        ({"replicated_max_size": "-1GB"}, "replicated_max_size"),
    ],
)
def test_an_option_that_cannot_be_meant_is_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        policy(**options)
