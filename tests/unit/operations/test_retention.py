# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of cleanup, case by case: what a step says, and what is refused. The rest: test_retention_around.py."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Attempt,
    Database,
    Dead,
    Leftover,
    Limit,
    Measured,
    Plan,
    Ref,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import (
    Depot,
    Expired,
    Files,
    Missing,
    Piece,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    Purge,
)

from ..samples import MB, NOW, server, table
from .retention_world import ARCHIVE, BOTH, RULE, child, codes, expired, finding, made, policy, purges, ref, seen

HOUR = timedelta(hours=1)


# ---- a step ----------------------------------------------------------------------------------------------------------


def test_a_step_says_it_in_the_words_of_a_dba() -> None:
    (step,) = made(rows=12_034, of_rows=85_957).steps
    assert step.reason == "12,034 rows older than 90 d (before 2026-03-03 12:00 UTC), 14 % of the table"
    assert step.key == ("delete old", ref("events"))
    assert step.rank == (3, 12_034.0)
    assert step.expected.rows == 12_034
    assert step.measured["before"] == "2026-03-03T12:00:00+00:00"
    assert step.measured.keys() >= {"rule", "rows", "of_rows", "bytes", "indexed"}


def test_nothing_due_is_no_step_and_no_finding() -> None:
    assert made(rows=0) == Plan()


@pytest.mark.parametrize("row_bytes", [0, 1, 100, 400, 10_000, 40 * MB])
def test_what_passes_through_memory_comes_in_smaller_bites(row_bytes: int) -> None:
    piece = Piece(ref("events"), 9, 900, ("id",), True, "", row_bytes)
    (in_files,) = purges(made({"archive_after": "9d", "archive_dir": "/a"}, pieces=(piece,)))
    (in_table,) = purges(made({"archive_after": "9d"}, pieces=(piece,)))
    assert in_table.most == 50_000
    assert in_files.most * row_bytes <= 16 * MB or in_files.most == 1
    assert 1 <= in_files.pace.rows <= in_files.most <= 5000 < in_table.most  # it passes through memory


def test_the_bites_are_as_long_and_as_limited_as_was_asked_for() -> None:
    options = {"batch_seconds": 0.5, "max_replica_lag": "10s", "max_snapshot_age": "5m", "max_wal_backlog": "1GB"}
    (step,) = made(options=options).steps
    assert isinstance(step.task, Purge)
    assert step.task.pace.seconds == 0.5
    limits = {Limit("replica_lag", 10, "wait"), Limit("oldest_snapshot", 300, "wait")}
    assert set(step.limits) == limits | {Limit("wal_backlog", 1024 * MB, "wait")}
    assert made().steps[0].limits == ()


def test_bites_between_rests_are_short_unless_each_waits_for_a_disk() -> None:
    (hurried,), (gentle,) = purges(made()), purges(made(options={"duty_percent": 20}))
    assert (hurried.pace.seconds, hurried.pace.duty) == (0.2, 1.0)
    assert gentle.pace.seconds < hurried.pace.seconds and gentle.pace.duty == 0.2
    (shorter,) = purges(made(options={"duty_percent": 20, "batch_seconds": 0.001}))
    assert shorter.pace.seconds == 0.001
    (in_files,) = purges(made({"archive_after": "9d", "archive_dir": "/a"}, options={"duty_percent": 20}))
    assert (in_files.pace.seconds, in_files.pace.duty) == (0.2, 0.2)


@pytest.mark.parametrize("lacking", ["write", "session"])
def test_where_nothing_may_be_written_steps_are_shown_and_skipped(lacking: str) -> None:
    asked = policy(RULE)
    found = seen(asked, more={"server": server(role="standby", lacks={lacking: "it is a standby"})})
    (step,) = retention.plan(asked, found).steps
    assert step.skip == "it is a standby"


def test_the_option_tables_holds_for_rules_too() -> None:
    assert not made(options={"tables": ["-events"]}).steps
    assert made(options={"tables": ["public.events"]}).steps
    assert len(made(BOTH, {"tables": ["events"]}).steps) == len(made(BOTH).steps) == 3
    assert not made(BOTH, {"tables": ["events_archive"]}).steps


# ---- refusals --------------------------------------------------------------------------------------------------------

KEYLESS = Piece(ref("events"), 10, 900, (), False, "two rows may be the same")
REFUSED: list[tuple[str, int, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("no_such_column", 2, RULE, {}, {"why_not": "no column at", "code": "no_such_column", "pieces": ()}),
    ("not_applicable", 2, RULE, {}, {"why_not": "it is a view", "pieces": ()}),
    ("not_applicable", 2, RULE, {}, {"why_not": "it is a view", "pieces": (), "rows": None, "of_rows": None}),
    ("ambiguous_table", 2, RULE, {}, {"ambiguous": (ref("events"), Ref("shop", ("old", "events"))), "pieces": ()}),
    ("no_backup", 1, RULE, {"require_backup": "26h"}, {}),
    ("archive_differs", 2, ARCHIVE, {}, {"depot": Depot(ref("attic"), True, (), "id is a text there")}),
    ("archive_differs", 2, ARCHIVE, {}, {"depot": Depot(ref("events"), True)}),
    ("archive_unwritable", 2, {**BOTH, "archive_dir": "/a"}, {}, {"files": Files(why_not="it is a file")}),
    ("no_key", 2, RULE, {}, {"pieces": (KEYLESS,)}),
    ("counting_timed_out", 2, RULE, {}, {"rows": None}),
    ("counting_timed_out", 2, RULE, {}, {"of_rows": None}),
    ("too_many_rows", 2, {**RULE, "refuse_over_rows": 9}, {}, {}),
    ("too_many_rows", 2, {**RULE, "refuse_over_percent": 9.9}, {}, {}),
    ("too_many_rows", 2, RULE, {}, {"rows": 51}),
    ("children", 2, RULE, {}, {"children": (child(),)}),
    ("children", 2, RULE, {}, {"children": (child(None),)}),
    ("circular_children", 2, {**RULE, "on_children": "delete"}, {}, {"children": (child(circular=True),)}),
]


@pytest.mark.parametrize(("code", "priority", "rule", "options", "found"), REFUSED)
def test_a_refusal_stands_before_any_step(
    code: str, priority: int, rule: dict[str, Any], options: dict[str, Any], found: dict[str, Any]
) -> None:
    plan = made(rule, options, **found)
    assert not plan.steps
    told = finding(plan, code)
    assert told.priority == priority
    assert told.fix or told.cure or code in ("not_applicable", "no_such_column", "circular_children")
    assert told.message.startswith("rule old: ")
    assert "why_not" not in found or codes(plan) == {code}


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ({**RULE, "refuse_over_rows": 10}, {}),
        ({**RULE, "refuse_over_percent": 10.0}, {}),
        (RULE, {"rows": 50}),
        (RULE, {"children": (child(0),)}),
        ({**RULE, "on_children": "delete"}, {"children": (child(),)}),
        ({**RULE, "on_children": "delete"}, {"children": (child(0, circular=True),)}),
    ],
)
def test_at_the_limit_rows_leave(rule: dict[str, Any], found: dict[str, Any]) -> None:
    assert made(rule, **found).steps


def test_what_leaves_at_both_ages_is_judged_together() -> None:
    assert "too_many_rows" in codes(made({**BOTH, "refuse_over_rows": 19, "archive_dir": "/a"}))
    assert made({**BOTH, "refuse_over_rows": 20, "archive_dir": "/a"}).steps
    assert "too_many_rows" in codes(made({**BOTH, "refuse_over_percent": 19.9, "archive_dir": "/a"}))


def both(source: int, of_source: int, archive: int, of_archive: int, **fields: Any) -> Plan:
    """A rule whose table and archive have so many rows due, of so many."""
    asked = policy({**BOTH, **fields})
    found = []
    for sought in retention.wants(asked, server()).expired:
        rows, of_rows = (archive, of_archive) if "archive" in sought.expiry.table else (source, of_source)
        found.append(expired(sought, 0 if sought.archive else rows, of_rows))
    return retention.plan(asked, Measured(server(), (Database("shop", expired=tuple(found)),)))


def test_an_archive_may_empty_beside_its_table() -> None:
    assert len(both(0, 1000, 9, 9).steps) == 1
    assert "too_many_rows" in codes(both(0, 3, 9, 9))
    assert "too_many_rows" in codes(both(51, 100, 0, 10**6))


def test_what_is_refused_for_the_table_is_refused_for_its_archive() -> None:
    assert not both(51, 100, 5, 10**6).steps
    assert len(both(50, 100, 5, 10**6).steps) == 2


def test_the_rows_of_table_and_archive_are_counted_together() -> None:
    assert len(both(5, 100, 5, 100, refuse_over_rows=10).steps) == 2
    refused = both(5, 100, 5, 100, refuse_over_rows=9)
    assert not refused.steps
    assert len([f for f in refused.findings if f.code == "too_many_rows"]) == 1


@pytest.mark.parametrize(("hours", "ok", "refused"), [(25, True, False), (27, True, True), (1, False, True)])
def test_a_backup_has_to_be_verified_and_young(hours: int, ok: bool, refused: bool) -> None:
    asked = policy(RULE, require_backup="26h")
    past = {("verify", Ref("shop")): Attempt(NOW - hours * HOUR, 1.0, 0, 0, 0, ok)}
    plan = retention.plan(asked, seen(asked, more={"past": past}))
    assert ("no_backup" in codes(plan)) == refused
    assert bool(plan.steps) != refused


def test_without_a_backup_nothing_at_all_is_removed_but_archives_are_settled() -> None:
    gone = Leftover(ref("events_1"), "detach", ("events_1",), table=ref("events"))
    found: dict[str, Any] = {
        "detaching": (gone,),
        "files": Files(unsettled=("/a/x.partial",), outdated=("/a/y",), outdated_rows=7),
    }
    rule = {**BOTH, "archive_dir": "/a"}
    refused = made(rule, {"require_backup": "26h"}, **found)
    assert {type(step.task).__name__ for step in refused.steps} == {"Settle"}
    kinds = {type(step.task).__name__ for step in made(rule, **found).steps}
    assert kinds == {"Settle", "DropLeftover", "Purge", "RemoveFiles"}


def test_a_missing_backup_is_told_once_whichever_table_has_rows() -> None:
    asked = {"archive_table": "attic", **BOTH}
    assert len([f for f in made(asked, {"require_backup": "26h"}).findings if f.code == "no_backup"]) == 1
    assert "no_backup" not in codes(made(asked, {"require_backup": "26h"}, rows=0))


def test_two_rules_that_write_one_archive_differently_do_not_empty_it() -> None:
    one = {"name": "one", "archive_after": "9d", "delete_after": "90d", "archive_table": "attic"}
    two = {"name": "two", "archive_after": "9d", "delete_after": "99d", "archive_table": "public.attic"}
    asked = policy(one, two)
    wants = retention.wants(asked, server()).expired
    found = [
        Expired(
            s, ref("attic" if "attic" in s.expiry.table else "events"), 1, 10, (Piece(ref("attic"), 1, 9, ("id",)),)
        )
        for s in wants
    ]
    found = [e._replace(depot=Depot(ref("attic"), True)) if e.sought.archive else e for e in found]
    plan = retention.plan(asked, Measured(server(), (Database("shop", expired=tuple(found)),)))
    assert {f.message[:8] for f in plan.findings if f.code == "archive_shared"} == {"rule one", "rule two"}
    assert not [p for p in purges(plan) if p.expiry.table.endswith("attic")]


def test_a_table_that_is_nowhere_is_told_unless_a_preset_meant_it() -> None:
    asked = policy({**BOTH, "table": "evnts"})
    gone = tuple(Missing(s, "shop") for s in retention.wants(asked, server()).expired)
    plan = retention.plan(asked, Measured(server(), (Database("shop", without=gone),)))
    assert "evnts" in finding(plan, "no_such_table").message
    preset = policy(presets=["django_sessions"])
    gone = tuple(Missing(s, "shop") for s in retention.wants(preset, server()).expired)
    assert retention.plan(preset, Measured(server(), (Database("shop", without=gone),))) == Plan()


def test_a_table_in_one_of_the_databases_is_enough() -> None:
    asked = policy(RULE)
    (here,) = seen(asked).databases
    there = Database("jobs", without=(Missing(here.expired[0].sought, "jobs"),))
    assert retention.plan(asked, Measured(server(), (there, here))).findings == ()


def test_a_database_that_is_not_selected_is_told() -> None:
    asked = policy({**RULE, "database": "shpo"})
    told = finding(
        retention.plan(asked, Measured(server(), (Database("shop", tables=(table(),)),))), "no_such_database"
    )
    assert "shpo" in told.message


def test_a_rule_of_one_database_makes_nothing_due_in_another() -> None:
    asked = policy({**RULE, "database": "shop"})
    dirty = table(database="jobs", dead=Dead(10**6, 50.0))
    elsewhere = Database("jobs", tables=(dirty,))
    (here,) = seen(asked).databases
    assert not [
        s for s in retention.plan(asked, Measured(server(), (here, elsewhere))).steps if s.task.ref == dirty.ref
    ]
