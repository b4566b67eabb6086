# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is worth a call, by the figures of a fleet; and that a figure around its limit does not call all day."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alarms import KINDS, Limits
from tests.playbook.results import GB, MB, assessed, finding, history, mixed, ran, step

from .watch import GONE, HEALTHY, WANTED, Watch, at, measured, stats, wrong

SLOW = {"text": "SELECT  *\nFROM orders", "database": "shop", "calls": 12, "mean_seconds": 3.0}


def test_nothing_is_wrong_with_a_healthy_host() -> None:
    assert wrong({"db1": HEALTHY}) == {}
    assert wrong({"db1": measured(stats())}) == {}


def test_every_kind_of_trouble_of_a_fleet_is_found() -> None:
    found = wrong(mixed(12))
    levels = {key: one.level for key, one in found.items()}
    assert levels == {
        ("failed", "shop-eu-primary", "reindex"): "critical",
        ("urgent", "shop-eu-primary", "horizon_pinned shop public.orders"): "critical",
        ("unreachable", "warehouse-02.eu-central.db.example.com", ""): "critical",
        ("missing", "billing", ""): "critical",
        ("backup", "reports", "shop"): "warning",
        ("backup", "shop-us-primary", "shop"): "warning",
        ("disk", "shop-eu-primary", ""): "warning",
        ("disk", "shop-us-primary", ""): "warning",
        ("growth", "shop-eu-primary", "shop"): "warning",
        ("growth", "shop-us-primary", "shop"): "warning",
    }


@pytest.mark.parametrize(
    ("figures", "kind", "level"),
    [
        ({"connections": 79.9}, None, ""),
        ({"connections": 80.0}, "connections", "warning"),
        ({"connections": 95.0}, "connections", "critical"),
        ({"connections": None}, None, ""),
        ({"slow_statements": [{**SLOW, "mean_seconds": 1.9}]}, None, ""),
        ({"slow_statements": [SLOW]}, "statements", "warning"),
        ({"slow_statements": [{**SLOW, "mean_seconds": 5.0}]}, "statements", "critical"),
        ({"sizes": {"tables": [{"database": "shop", "object": "t", "total_bytes": GB - 1}]}}, None, ""),
        ({"sizes": {"tables": [{"database": "shop", "object": "t", "total_bytes": GB}]}}, "table", "warning"),
        ({"transaction_ids": {"databases": {"shop": 99.0}, "oldest": []}}, None, ""),
        ({"transaction_ids": {"databases": {"shop": 120.0}, "oldest": []}}, "transaction_ids", "warning"),
        (
            {"transaction_ids": {"databases": {"shop": 9.0}, "oldest": [{"database": "shop", "percent": 150.0}]}},
            "transaction_ids",
            "critical",
        ),
        ({"growth": {"databases": {"shop": {"bytes": GB, "bytes_per_day": 99 * MB}}}}, None, ""),
        ({"growth": {"databases": {"shop": {"bytes": GB, "bytes_per_day": 100 * MB}}}}, "growth", "warning"),
        ({"growth": {"days_to_full": 31.0}}, None, ""),
        ({"growth": {"days_to_full": 30.0}}, "disk", "warning"),
        ({"growth": {"days_to_full": 0.0}}, "disk", "critical"),
    ],
)
def test_figures_and_their_limits(figures: dict[str, Any], kind: str | None, level: str) -> None:
    found = wrong({"db1": measured(stats(**figures))})
    assert [(one.kind, one.level) for one in found.values()] == ([(kind, level)] if kind else [])


@pytest.mark.parametrize(("hours", "level"), [(25.9, ""), (26, "warning"), (50, "critical")])
def test_a_backup_is_too_old(hours: float, level: str) -> None:
    found = wrong({"db1": {"maintenance_assessed": assessed(backup_age=round(hours * 3600))}})
    assert [(one.kind, one.subject, one.level) for one in found.values()] == (
        [("backup", "shop", level)] if level else []
    )


def test_a_database_of_today_gets_its_time_for_a_backup() -> None:
    watch, new = Watch(), {"db1": {"maintenance_assessed": assessed(backup_age=None)}}
    assert [*watch.tell(new), *watch.tell(new, 23)] == [
        "Databases: 1 warning: db1 shop has no backup that was read to its end"
    ]
    assert watch.tell(new, 24) == ["Databases: 1 critical: db1 shop has no backup that was read to its end"]


def test_bloat_of_what_is_small_is_nobodys_business() -> None:
    def host(size: int, bloat: int) -> dict[str, Any]:
        one = {"database": "shop", "bytes": size, "bloat_bytes": bloat, "index_bloat_bytes": 0}
        return {"maintenance_assessed": assessed(bloat={**one, "databases": [one]})}

    assert wrong({"db1": host(10 * GB, 2 * GB)}) == {}
    assert wrong({"db1": host(10 * GB, 3 * GB)}).keys() == {("bloat", "db1", "shop")}
    assert wrong({"db1": host(GB - 1, GB - 1)}) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_wants_to_hear_is_not_looked_for(kind: str) -> None:
    hosts = {**mixed(12), "busy": measured(stats(connections=99.0, slow_statements=[SLOW]))}
    everything = wrong(hosts)
    rest = wrong(hosts, Limits(kinds=tuple(one for one in KINDS if one != kind)))
    assert rest == {key: one for key, one in everything.items() if key[0] != kind}


def test_a_limit_of_nought_is_never_reached() -> None:
    none = (0.0, 0.0)
    limits = Limits(connections=none, statements=none, backup=none, disk=none, bloat=none, growth=none, table=none)
    hosts = {**mixed(12), "busy": measured(stats(connections=99.0, slow_statements=[SLOW]))}
    assert {key[0] for key in wrong(hosts, limits)} == {"failed", "urgent", "unreachable", "missing"}


def test_a_figure_around_its_limit_calls_once() -> None:
    watch = Watch()
    shares = [(0, 81.0), (1, 79.0), (2, 80.5), (3, 72.1), (4, 80.0)]
    told = [watch.tell({"db1": measured(stats(connections=share))}, hour) for hour, share in shares]
    assert [len(one) for one in told] == [1, 0, 0, 0, 0]
    assert watch.tell({"db1": measured(stats(connections=71.9))}, 5) == ["Databases: 1 over"]


def test_steps_that_fail_are_one_alarm_an_operation_and_critical_in_the_third_night() -> None:
    steps = [step("vacuum", f"public.t{number}", "failed") for number in range(200)]
    host = {"maintenance_assessed": assessed(due=["vacuum"]), "vacuum_result": ran("db_vacuum", steps)}
    (found,) = wrong({"db1": host}).values()
    assert (found.kind, found.level, found.subject) == ("failed", "warning", "vacuum")
    assert "and 199 more" in found.text
    steps = [step("reindex", "public.orders_pkey", "failed")]
    host["vacuum_result"] = ran("db_reindex", steps)
    for times, level in ((2, "warning"), (3, "critical")):
        known = {**HEALTHY, "maintenance_history": history("db1", MB, failing=times)}
        (found,) = (one for one in wrong({"db1": known}).values() if one.kind == "failed")
        assert (found.level, f"{times} times in a row" in found.text) == (level, True)


def test_urgent_findings_are_known_by_what_they_are_about_and_not_by_their_words() -> None:
    def host(days: int) -> dict[str, Any]:
        urgent = finding(1, "horizon_pinned", "public.orders", f"a transaction is open for {days} d")
        return {"db1": {"maintenance_assessed": assessed(findings=[urgent])}}

    watch = Watch()
    assert len(watch.tell(host(3))) == 1
    assert watch.tell(host(4), 24) == []
    assert watch.tell({"db1": HEALTHY}, 48) == ["Databases: 1 over"]


def test_a_figure_that_a_limit_judges_is_not_told_as_a_finding_too() -> None:
    full = finding(1, "connections", "", "99 of 100 connections are taken", database="")
    host = measured(stats(connections=99.0, recommendations=[full]), findings=[full])
    assert [key[0] for key in wrong({"db1": host})] == ["connections"]


# ---- hosts -----------------------------------------------------------------------------------------------------------


def test_a_host_on_which_no_run_ends_well_is_overdue() -> None:
    watch = Watch(inventory=["db1", "db2"])
    assert watch.tell({"db1": HEALTHY, "db2": HEALTHY}) == []
    # Looks in between are no runs.
    assert watch.tell({"db1": HEALTHY, "db2": HEALTHY}, 25.9, ran=()) == []
    assert watch.tell({"db1": HEALTHY}, 26) == []
    assert watch.tell({"db1": HEALTHY, "db2": HEALTHY}, 26, ran=()) == [
        "Databases: 1 critical: db2 no run without errors for 1 d 2 h"
    ]
    assert watch.tell({"db1": HEALTHY, "db2": HEALTHY}, 27) == ["Databases: 1 over"]


def test_an_operation_that_runs_no_more_is_overdue_beside_others_that_do() -> None:
    watch = Watch()
    assert watch.tell({"db1": HEALTHY}) == []
    for day in range(1, 8):  # nights with nothing but vacuum
        told = watch.tell({"db1": HEALTHY}, 24 * day, ran=["vacuum"])
        late = "Databases: 4 warnings: no run without errors for too long"
        assert told == ([late] if day == 2 else [])  # reindex has its week
    names = {one["subject"] for one in watch.state["alarms"].values()}
    assert names == {"backup", "cleanup", "refresh views", "rotate backups"}
    assert watch.tell({"db1": HEALTHY}, 24 * 8, ran=["vacuum"]) == [
        "Databases: 1 warning: db1 reindex no run without errors for 8 d"
    ]
    assert watch.tell({"db1": HEALTHY}, 24 * 8 + 1) == ["Databases: 5 over"]


def test_where_nothing_runs_any_more_that_is_said_once() -> None:
    watch = Watch()
    watch.tell({"db1": HEALTHY})
    assert [watch.tell({"db1": HEALTHY}, hour, ran=()) for hour in (26, 24 * 9)] == [
        ["Databases: 1 critical: db1 no run without errors for 1 d 2 h"],
        [],
    ]


def test_an_operation_counts_where_it_ended_though_another_failed() -> None:
    def night(status: str) -> dict[str, Any]:
        found = assessed(due=["backup", "vacuum"])
        backup = ran("db_backup", [step("dump", "shop", status)])
        failing = ran("db_vacuum", [step("vacuum", "public.t", "failed")])
        return {"db1": {"maintenance_assessed": found, "backup_result": backup, "vacuum_result": failing}}

    watch = Watch()
    for day in range(3):
        watch.look(night("done"), 24 * day)
    assert [one["subject"] for one in overdue(watch)] == [""]  # no night without errors
    watch.look({"db1": HEALTHY}, 24 * 3, ran=["reindex"])
    # Backup was made at 48 h, and had nothing to do with the errors.
    assert [one["subject"] for one in overdue(watch)] == ["vacuum"]


def overdue(watch: Watch) -> list[dict[str, Any]]:
    return [one for one in watch.state["alarms"].values() if one["kind"] == "overdue"]


@pytest.mark.parametrize(
    ("result", "late"),
    [
        (ran("db_backup", [step("dump", "shop", "deferred")]), "backup"),
        (ran("db_backup", [step("dump", "shop", "failed")]), ""),  # which is an error of the host
        (None, "backup"),  # it was due, and never began: outside of the window, say
    ],
)
def test_an_operation_that_never_comes_to_its_end_is_overdue(result: Any, late: str) -> None:
    host = {"maintenance_assessed": assessed(due=["backup"], idle=True)}
    watch = Watch()
    for day in range(3):
        watch.look({"db1": host if result is None else {**host, "backup_result": result}}, 24 * day)
    assert [one["subject"] for one in overdue(watch)] == [late]


def test_what_a_host_is_not_meant_to_have_is_not_missed() -> None:
    never = assessed()
    never["ansible_facts"]["db_due"]["rotate"]["assessed"] = False
    standby = assessed(findings=[finding(3, "not_primary", "", "it is a standby")], due=["backup"], idle=True)
    hosts = {"db1": {"maintenance_assessed": never}, "db2": {"maintenance_assessed": standby}}
    watch = Watch()
    watch.tell(hosts)
    watch.tell(hosts, 48, ran=["vacuum"])
    assert {one["subject"] for one in overdue(watch) if one["host"] == "db1"} == {"backup", "cleanup", "refresh views"}
    assert not any(one["host"] == "db2" for one in overdue(watch))
    # Somebody takes the folder of backups away: nobody is called for them from then on.
    never["ansible_facts"]["db_due"]["backup"]["assessed"] = False
    watch.tell({"db1": {"maintenance_assessed": never}}, 49, ran=())
    assert {one["subject"] for one in overdue(watch)} == {"cleanup", "refresh views"}


def test_a_run_that_is_asked_for_less_does_not_forget_the_rest() -> None:
    """What it is not asked for it does not assess."""
    less = assessed()
    for name in ("backup", "cleanup", "reindex", "refresh_views", "rotate"):
        less["ansible_facts"]["db_due"][name]["assessed"] = False
    watch = Watch()
    watch.tell({"db1": HEALTHY})
    watch.tell({"db1": {"maintenance_assessed": less}}, 26, ran=["vacuum"])
    assert {one["subject"] for one in overdue(watch)} == {"backup", "cleanup", "refresh views", "rotate backups"}


def test_fleets_that_are_looked_after_once_a_week_are_not_missed_earlier() -> None:
    limits = Limits(overdue=8 * 86400.0, operations={**WANTED.limits.operations, "cleanup": 0.0})
    watch = Watch(WANTED._replace(limits=limits))
    watch.tell({"db1": HEALTHY})
    watch.tell({"db1": HEALTHY}, 24 * 7, ran=["vacuum"])
    assert overdue(watch) == []
    watch.tell({"db1": HEALTHY}, 24 * 8, ran=["vacuum"])
    assert "cleanup" not in {one["subject"] for one in overdue(watch)} >= {"backup", "reindex"}


def test_the_journal_tells_of_runs_that_others_made() -> None:
    watch = Watch()
    watch.tell({"db1": HEALTHY})
    done = history("db1", MB)
    done["ansible_facts"]["db_history"]["operations"] = [
        {"operation": "db_backup", "kind": "dump", "last_done_at": at(47).isoformat()},
        {"operation": "db_backup_rotate", "kind": "remove_backup", "last_done_at": at(47).isoformat()},
        {"operation": "db_cleanup", "kind": "delete", "last_done_at": at(4800).isoformat()},  # a clock that was wrong
        {"operation": "db_refresh_views", "kind": "refresh", "last_done_at": None},
        {"operation": "db_vacuum", "kind": "analyze", "last_done_at": at(47).isoformat()},  # is no vacuum
    ]
    watch.tell({"db1": {**HEALTHY, "maintenance_history": done}}, 48, ran=["reindex"])
    assert {one["subject"] for one in overdue(watch)} == {"cleanup", "refresh views", "vacuum"}


def test_a_run_that_died_calls_once_and_is_over_with_the_next_one() -> None:
    def host(*findings: Any) -> dict[str, Any]:
        return {"db1": {"maintenance_assessed": assessed(findings=findings)}}

    died = finding(
        2, "run_died", "", "db_backup began at 2026-11-22 01:10 UTC and died: process 7 is gone", database=""
    )
    watch = Watch()
    assert watch.tell(host(died), ran=()) == [f"Databases: 1 warning: db1 {died['message']}"]
    assert watch.tell(host(died), 1, ran=()) == []
    assert watch.tell(host(), 2, ran=()) == ["Databases: 1 over"]


def test_a_run_that_died_is_told_by_the_journal_where_the_server_is_gone_too() -> None:
    told = history("db1", MB)
    run = {"server": "db1:5432", "operation": "db_vacuum"}
    told["ansible_facts"]["db_history"]["runs"] = [
        {**run, "status": "interrupted", "at": "2026-11-22T01:10:03+00:00"},
        {**run, "status": "interrupted", "at": "2026-11-21T01:10:03+00:00"},
        {**run, "operation": "db_backup", "status": "done", "at": "2026-11-22T00:10:03+00:00"},
        {**run, "operation": "db_backup", "status": "interrupted", "at": "2026-11-21T00:10:03+00:00"},
    ]
    (died,) = (one for one in wrong({"db1": {**GONE, "maintenance_history": told}}).values() if one.kind == "failed")
    assert died.text == "db_vacuum began at 2026-11-22T01:10:03+00:00 and died: its process is gone"


# ---- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_was_ahead_silences_nobody() -> None:
    """A run on a controller whose clock was a year ahead, until somebody saw it."""
    watch = Watch(WANTED._replace(reminder=3600.0, weekly=["slack"]))
    full = measured(stats(connections=99.0))
    watch.tell({"db1": full, "db2": HEALTHY}, 24 * 365)
    assert len(watch.tell({"db1": full, "db2": HEALTHY}, 0)) == 2  # reminded; and the week's summary, which was due
    assert [*watch.state["days"]] == ["2026-11-22"]
    late = Watch(inventory=["db1", "gone"])
    late.tell({"db1": HEALTHY, "gone": GONE}, 24 * 365)
    assert late.tell({"db1": HEALTHY}, 0, ran=()) == []
    assert late.tell({"db1": HEALTHY}, 26, ran=()) == ["Databases: 1 critical: db1 no run without errors for 1 d 2 h"]
    late.inventory = {"db1"}
    late.look({"db1": HEALTHY}, 27)
    assert not any(one["host"] == "gone" for one in late.state["alarms"].values())
    assert late.state["operations"].keys() == late.state["hosts"].keys() == {"db1"}


def test_a_host_that_is_new_gets_its_time() -> None:
    watch = Watch()
    assert watch.tell({"new": HEALTHY}, ran=()) == []
    assert len(watch.tell({"new": HEALTHY}, 26, ran=())) == 1


def test_only_what_was_looked_at_again_is_over() -> None:
    watch = Watch(inventory=["db1", "db2"])
    full = {"db1": measured(stats(connections=99.0)), "db2": HEALTHY}
    assert len(watch.tell(full)) == 1
    assert watch.tell({"db2": HEALTHY}, 1) == []  # --limit
    assert watch.tell({"db1": HEALTHY, "db2": HEALTHY}, 2) == []  # a night without statistics
    assert watch.tell({"db1": GONE, "db2": HEALTHY}, 3) == [
        "Databases: 1 critical: db1 out of reach: Failed to connect to the host via ssh: no route to host"
    ]
    assert watch.tell({"db1": HEALTHY, "db2": HEALTHY}, 4) == ["Databases: 1 over"]
    assert watch.tell({**full, "db1": measured(stats())}, 5) == ["Databases: 1 over"]


def test_a_step_that_failed_is_over_when_its_operation_ran_again() -> None:
    failed = ran("db_vacuum", [step("vacuum", "public.orders", "failed")])
    watch = Watch()
    assert len(watch.tell({"db1": {"maintenance_assessed": assessed(due=["vacuum"]), "vacuum_result": failed}})) == 1
    assert watch.tell({"db1": HEALTHY}, 1, ran=()) == []
    assert watch.tell({"db1": HEALTHY}, 2, ran=["reindex"]) == []
    assert watch.tell({"db1": HEALTHY}, 3, ran=["vacuum"]) == ["Databases: 1 over"]


def test_an_error_of_a_night_is_over_with_the_next_night_and_one_of_a_look_with_the_next_look() -> None:
    wrong_password = {"maintenance_error": "password authentication failed"}
    watch = Watch()
    assert watch.tell({"db1": wrong_password}) == ["Databases: 1 critical: db1 password authentication failed"]
    assert watch.tell({"db1": HEALTHY}, 1, ran=()) == []
    assert watch.tell({"db1": HEALTHY}, 2) == ["Databases: 1 over"]
    watch.tell({"db1": wrong_password}, 3, ran=())
    assert watch.tell({"db1": HEALTHY}, 4, ran=()) == ["Databases: 1 over"]


def test_a_host_that_left_the_inventory_is_forgotten_after_a_week() -> None:
    watch = Watch()
    watch.tell({"db1": GONE, "db2": HEALTHY})
    assert watch.tell({"db2": HEALTHY}, 24) == []
    assert watch.tell({"db2": HEALTHY}, 24 * 7 + 1) == ["Databases: 1 over"]
    assert watch.state["hosts"].keys() == {"db2"}
