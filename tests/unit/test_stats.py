# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module db_stats_facts around its fact: what is kept, what is capped, what is null. On a world of memory."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from ansible_collections.dbfleet.maintenance.plugins.module_utils._facts import assess_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import advice
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Measured, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._stats import stats_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import Index

from .modules import Ran, run
from .samples import GB, MB, NOW, fleets, table
from .test_facts import peopled
from .world import World


def stats(world: World, *, check: bool = False, **options: Any) -> Ran:
    return run(stats_module, world, options, check=check)


def facts(world: World, **options: Any) -> dict[str, Any]:
    return dict(stats(world, **options).result["ansible_facts"]["db_stats"])


@settings(max_examples=25, deadline=None)
@given(fleets())
def test_whatever_is_measured_becomes_facts_and_nothing_else(measured: Measured) -> None:
    world = peopled(measured)
    ran = stats(world, large_table="1B")
    assert (ran.code, ran.result["changed"]) == (0, False)
    assert world.ran == []
    found = ran.result["ansible_facts"]["db_stats"]
    recommended = found["recommendations"]
    assert {r["code"] for r in recommended} <= advice.RECOMMENDED
    assert not {f["code"] for f in found["findings"]} & advice.RECOMMENDED
    assert found["summary"]["recommendations"] >= len(recommended)
    assert [r["priority"] for r in recommended] == sorted(r["priority"] for r in recommended)
    assert found["summary"]["urgent"] == sum(r["priority"] == 1 for r in recommended)


def test_what_is_not_known_is_null_and_not_none_at_all() -> None:
    found = facts(World(table()))
    for part in ("connections", "slots", "archiving", "logs", "long_queries", "slow_statements", "blocking"):
        assert found[part] is None, part
    assert found["replication"]["replicas"] is None
    assert found["growth"] == {"bytes_per_day": None, "days_to_full": None, "databases": {}, "tables": []}


def test_unused_indexes_are_null_where_nobody_counts() -> None:
    here = Ref("shop", ("public", "orders"))
    index = Index(Ref("shop", ("public", "i")), here, columns=("a",), parts=("int4_ops",))
    for seen, wanted in (
        (index, None),
        (index._replace(scans=0, counted_since=NOW - timedelta(days=1)), None),
        (index._replace(scans=3, counted_since=NOW - timedelta(days=90)), []),
        (index._replace(scans=0, counted_since=NOW - timedelta(days=90)), [{"database": "shop", "object": "public.i"}]),
    ):
        assert facts(World(table(), database={"indexes": (seen,)}))["indexes"]["unused"] == wanted


def test_indexes_of_the_catalogs_are_not_counted() -> None:
    catalog = table("pg_class", kind="catalog")
    indexes = tuple(
        Index(Ref("shop", ("public", f"{name}_i")), Ref("shop", ("public", name)), bytes=MB, columns=("a",))
        for name in ("pg_class", "orders")
    )
    found = facts(World(table(), catalog, database={"indexes": indexes}))
    counts = (found["summary"]["indexes"], found["indexes"]["count"], found["sizes"]["databases"]["shop"]["indexes"])
    assert counts == (1, 1, 1)
    assert found["indexes"]["bytes"] == MB


def test_only_what_is_old_is_named_among_the_oldest() -> None:
    tables = [table(f"t{percent}", freeze_percent=float(percent)) for percent in (0, 49, 50, 120)]
    oldest = facts(World(*tables))["transaction_ids"]["oldest"]
    assert [x["percent"] for x in oldest] == [120, 50]


def kept(path: Path) -> list[int]:
    db = sqlite3.connect(path)
    try:
        return [row[0] for row in db.execute("SELECT bytes FROM sizes ORDER BY bytes")]
    finally:
        db.close()


def test_sizes_are_kept_and_never_in_check_mode(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    world = World(table(total_bytes=3 * GB), table("small", total_bytes=MB // 2))
    assert stats(world, check=True, journal=str(path)).code == 0
    assert not path.exists()
    assert stats(world, journal=str(path)).code == 0
    assert kept(path) == [3 * GB, 3 * GB + MB // 2]  # the larger table, and the database
    assert stats(world, journal=str(path)).code == 0
    assert len(kept(path)) == 2
    assert run(assess_module, world, {"journal": str(path), "statistics": False}).code == 0
    assert len(kept(path)) == 2


def test_lists_are_capped() -> None:
    world = World(*(table(f"t{n}") for n in range(30)))
    found = facts(world, max_results=5)
    assert len(found["recommendations"]) == 5
    assert found["summary"]["recommendations"] == 30
    assert len(found["sizes"]["tables"]) == 20
    assert found["summary"]["tables"] == 30


def test_the_assessment_takes_options_of_the_statistics() -> None:
    world = World(table())
    for given_options, wanted in (({}, {"large_table"}), ({"large_table": "1TB"}, set())):
        ran = run(assess_module, world, {"statistics_options": given_options} if given_options else {})
        recommended = {r["code"] for r in ran.result["ansible_facts"]["db_stats"]["recommendations"]}
        assert recommended == wanted
        assert wanted <= {f["code"] for f in ran.result["ansible_facts"]["db_due"]["findings"]}
