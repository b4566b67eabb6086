# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is worth a call, by the figures of a fleet; and that a figure around its limit does not call all day."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alarms import KINDS, Limits
from tests.playbook.results import GB, MB, assessed, finding, history, mixed, ran, step

from .watch import GONE, HEALTHY, Watch, measured, stats, wrong

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
    assert watch.tell({"db1": HEALTHY}, 26, ran=["vacuum"]) == []
    assert watch.tell({"db1": HEALTHY, "db2": HEALTHY}, 26, ran=()) == [
        "Databases: 1 critical: db2 no run without errors for 1 d 2 h"
    ]
    assert watch.tell({"db1": HEALTHY, "db2": HEALTHY}, 27) == ["Databases: 1 over"]


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
