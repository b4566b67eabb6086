# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines at the end of a playbook."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.dbfleet.maintenance.plugins.filter.merged_by_name import merged_by_name
from ansible_collections.dbfleet.maintenance.plugins.filter.report import report
from ansible_collections.dbfleet.maintenance.plugins.filter.summary import summary
from ansible_collections.dbfleet.maintenance.plugins.filter.troubled import troubled
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._night import LISTED, trouble
from tests.playbook import results

FINDING = {
    "priority": 2,
    "code": "horizon_pinned",
    "database": "shop",
    "object": "public.orders",
    "message": "a transaction is open",
    "fix": None,
}


def _assessed(steps: int = 0, stopped_by: tuple[str, ...] = (), findings: tuple[dict[str, Any], ...] = ()) -> Any:
    sample = {
        "database": "shop",
        "object": "public.orders",
        "kind": "vacuum",
        "reason": "dead rows 41 %",
        "statements": ["VACUUM x"],
    }
    vacuum = {"due": steps > 0, "steps": steps, "bytes": 1024 * steps, "sample": [sample] * min(steps, 2)}
    preflight = {"ok": not stopped_by, "stopped_by": list(stopped_by)}
    return {"ansible_facts": {"db_due": {"preflight": preflight, "vacuum": vacuum, "findings": list(findings)}}}


def _ran(*statuses: str, findings: tuple[dict[str, Any], ...] = (), **more: Any) -> Any:
    steps = [
        {
            "database": "shop",
            "object": "public.orders",
            "kind": "vacuum",
            "status": status,
            "statements": ["VACUUM x"],
            "error": None if status in ("planned", "done") else "why",
            "expected": {"bytes_freed": 2048},
            "proven": True if status == "done" else None,
        }
        for status in statuses
    ]
    counts = {status: statuses.count(status) for status in ("done", "skipped", "deferred", "failed")}
    summary = {"planned": len(steps), **counts, "bytes_freed": 0, "seconds": 1.5}
    return {"ansible_facts": {"db_vacuum": {"steps": steps, "summary": summary, "findings": list(findings)}}, **more}


def _lines(host: dict[str, Any], **how: bool) -> list[str]:
    return report({"db1": host, "other": {}}, ["db1"], ["vacuum"], **how)


def test_a_healthy_host_takes_one_line() -> None:
    assert _lines({"maintenance_assessed": _assessed()}) == ["db1: nothing due"]


def test_what_is_planned_and_what_was_done() -> None:
    assessed = _assessed(2)
    planned = {"maintenance_assessed": assessed, "vacuum_result": _ran("planned", "planned", "deferred")}
    assert _lines(planned, planned=True) == [
        "db1: vacuum: 3 steps planned, about 4.0 kB to free",
        "db1:   deferred    vacuum of shop public.orders: why",
    ]
    done = {"maintenance_assessed": assessed, "vacuum_result": _ran("done", "done")}
    assert _lines(done) == ["db1: vacuum: 2 of 2 steps done, 1.50 s"]


def test_only_a_full_report_names_what_is_due() -> None:
    host = {"maintenance_assessed": _assessed(3)}
    assert _lines(host) == ["db1: vacuum: 3 steps due, about 3.0 kB to free"]
    assert _lines(host, full=True)[1:] == [
        "db1:   due         vacuum of shop public.orders: dead rows 41 %",
        "db1:   due         vacuum of shop public.orders: dead rows 41 %",
        "db1:               and 1 more steps of vacuum",
    ]


def test_what_stops_a_host_is_said() -> None:
    assert _lines({"maintenance_assessed": _assessed(2, ("it is 12:00",))}) == ["db1: not started: it is 12:00"]


def test_an_error_is_trouble_and_what_was_done_before_is_shown() -> None:
    host = {"maintenance_error": "1 of 2 steps failed", "vacuum_result": _ran("done", "failed")}
    assert trouble(host, ["vacuum"]) == "1 of 2 steps failed"
    first, second = _lines(host)
    assert first == "db1: FAILED: 1 of 2 steps failed; vacuum: 1 of 2 steps done, 1 failed, 1.50 s"
    assert second == "db1:   failed      vacuum of shop public.orders: why"


def test_a_host_that_is_lost_under_way_is_trouble() -> None:
    lost = {"unreachable": True, "msg": "Task failed: no route to host"}
    for host in ({"maintenance_assessed": lost}, {"maintenance_assessed": _assessed(1), "vacuum_result": lost}):
        assert trouble(host, ["vacuum"]) == "out of reach: no route to host"
        assert _lines(host)[0].startswith("db1: FAILED: out of reach: no route to host")
    assert trouble({"maintenance_assessed": _assessed(1), "vacuum_result": _ran("done")}, ["vacuum"]) == ""


def test_findings_are_named_once_by_priority_and_not_all_of_them() -> None:
    minor = {**FINDING, "priority": 3, "message": "minor", "fix": "do it"}
    assessed = _assessed(findings=(minor, FINDING))
    host = {"maintenance_assessed": assessed, "vacuum_result": _ran(findings=(FINDING,))}
    assert _lines(host)[1:] == ["db1:   finding (2) shop public.orders: a transaction is open"]
    assert _lines(host, full=True)[2:] == [
        "db1:   finding (3) shop public.orders: minor",
        "db1:     fix       do it",
    ]
    many = tuple({**FINDING, "message": str(i)} for i in range(LISTED + 3))
    assert _lines({"maintenance_assessed": _assessed(findings=many)})[-1] == "db1:               and 3 more findings"


def test_advice_is_told_from_findings_and_not_given_for_what_is_done() -> None:
    advice = {**FINDING, "code": "unused_index", "message": "not used", "fix": "DROP INDEX x"}
    cured = {**FINDING, "code": "invalid_index", "message": "invalid", "fix": "VACUUM  x"}
    assessed = _assessed(1, findings=(advice, cured))
    assessed["ansible_facts"]["db_stats"] = {"recommendations": [advice, cured]}
    told = ["db1:   advice (2)  shop public.orders: not used", "db1:     fix       DROP INDEX x"]
    assert _lines({"maintenance_assessed": assessed, "vacuum_result": _ran("done")})[1:] == told
    failed = _lines({"maintenance_assessed": assessed, "vacuum_result": _ran("failed")})
    assert "db1:   advice (2)  shop public.orders: invalid" in failed


def test_a_full_report_says_what_the_server_is_and_leaves_out_what_it_does_not_tell() -> None:
    stats: dict[str, Any] = {
        "engine": "postgresql",
        "server": {"version": "18.4", "role": "primary", "uptime_seconds": 7200},
        "connections": {"used": 34, "most": 97, "percent": 35.05},
        "performance": {"cache_hit_percent": 99.43},
        "sizes": {"disks": {"wal": {"free": 1 << 30, "total": 1 << 31}}},
        "growth": {"bytes_per_day": 1 << 20},
        "maintenance": {"seconds": 90},
        "summary": {"bytes": 1 << 32, "databases": 2, "tables": 1, "indexes": 12},
    }
    assessed = _assessed()
    assessed["ansible_facts"]["db_stats"] = stats
    host = {"maintenance_assessed": assessed}
    assert _lines(host) == ["db1: nothing due"]
    assert _lines(host, full=True)[1:] == [
        "db1:   server      postgresql 18.4, primary; up 2 h; 34 of 97 connections (35 %); cache hits 99.4 %",
        "db1:   data        4.0 GB in 2 databases; 1 table; 12 indexes; 1.0 GB free for wal; growing by 1.0 MB a day",
        "db1:   work due    about 1 min 30 s",
    ]
    stats["server"]["uptime_seconds"] = stats["connections"] = stats["performance"]["cache_hit_percent"] = None
    stats["sizes"]["disks"], stats["growth"]["bytes_per_day"], stats["maintenance"]["seconds"] = {}, None, 0
    assert _lines(host, full=True)[1:] == [
        "db1:   server      postgresql 18.4, primary",
        "db1:   data        4.0 GB in 2 databases; 1 table; 12 indexes",
    ]


def test_the_troubled_are_those_of_the_hosts_that_have_trouble() -> None:
    wrong = {"maintenance_error": "no"}
    hosts = {"db1": wrong, "db2": {"maintenance_assessed": _assessed()}, "db3": wrong, "db4": wrong}
    assert troubled(hosts, ["db4", "db2", "gone", "db1"], ["vacuum"]) == ["db4", "db1"]


def test_what_cleanup_takes_is_said_in_rows() -> None:
    vacuum = {"kind": "vacuum", "expected": {"bytes_freed": 0, "rows": 7}}
    ran = _ran("planned", "planned", "planned")
    first, second, third = ran["ansible_facts"]["db_vacuum"]["steps"]
    first |= {"kind": "delete", "expected": {"bytes_freed": 2048, "rows": 1200}}
    second |= {"kind": "archive", "expected": {"bytes_freed": 2048, "rows": 34}}
    third |= vacuum
    fact = ran["ansible_facts"]["db_vacuum"]
    host = {"maintenance_assessed": _assessed(), "cleanup_result": {"ansible_facts": {"db_cleanup": fact}}}

    def said(**how: bool) -> str:
        (line,) = report({"db1": host}, ["db1"], ["cleanup"], **how)
        return line

    assert said(planned=True) == "db1: cleanup: 3 steps planned, 1,234 rows, about 4.0 kB of them"
    second["expected"]["rows"] = None
    assert said(planned=True) == "db1: cleanup: 3 steps planned, an unknown number of rows, about 4.0 kB of them"
    fact["summary"] |= {"done": 3, "rows": 1234, "bytes_freed": 4096}
    for step in fact["steps"]:
        step["status"] = "done"
    assert said() == "db1: cleanup: 3 of 3 steps done, 1,234 rows (4.0 kB) removed, 1.50 s"
    due: dict[str, Any] = {"due": True, "steps": 2, "bytes": 0, "rows": None, "sample": []}
    db_due = {"preflight": {"ok": True, "stopped_by": []}, "cleanup": due, "findings": []}
    host = {"maintenance_assessed": {"ansible_facts": {"db_due": db_due}}}
    assert said() == "db1: cleanup: 2 steps due, an unknown number of rows"


def test_rules_of_several_levels_become_one_by_name() -> None:
    site = [{"name": "audit", "table": "audit_log", "where": "x"}, {"name": "jobs", "table": "jobs"}]
    group = [{"name": "notes", "table": "notes"}]
    host = [{"name": "audit", "where": None, "delete_after": "7d"}, {"name": "jobs", "enabled": False}]
    assert merged_by_name([site, group, host]) == [
        {"name": "audit", "table": "audit_log", "where": None, "delete_after": "7d"},
        {"name": "jobs", "table": "jobs", "enabled": False},
        {"name": "notes", "table": "notes"},
    ]
    assert site[0] == {"name": "audit", "table": "audit_log", "where": "x"}


def test_presets_are_names_or_dictionaries() -> None:
    site: list[Any] = ["django_sessions", "rails_sessions", {"preset": "soft_deleted", "name": "notes", "table": "n"}]
    host: list[Any] = ["rails_sessions", {"preset": "django_sessions", "delete_after": "7d"}, {"name": "notes", "x": 1}]
    assert merged_by_name([site, host]) == [
        {"preset": "django_sessions", "delete_after": "7d"},
        "rails_sessions",
        {"preset": "soft_deleted", "name": "notes", "table": "n", "x": 1},
    ]
    assert merged_by_name([host, ["django_sessions"]])[1] == {"preset": "django_sessions", "delete_after": "7d"}


def test_what_has_no_name_is_left_to_the_module_and_what_is_no_list_is_refused() -> None:
    nameless = {"table": "a"}
    assert merged_by_name([[nameless, 7], [dict(nameless)]]) == [nameless, 7, nameless]
    with pytest.raises(AnsibleFilterError, match=r"has to be a list of rules, and .* is none"):
        merged_by_name([[], nameless])


def test_a_misspelt_name_is_told() -> None:
    site = [{"name": "audit", "table": "audit_log", "date_column": "at"}]
    host = [{"name": "audti", "delete_after": "7d"}]
    assert merged_by_name([site], ["table", "date_column"]) == site
    with pytest.raises(AnsibleFilterError, match="audti has no table, date_column, and no other level has more of"):
        merged_by_name([site, host], ["table", "date_column"])


def test_a_summary_counts_hosts_with_work_also_where_something_went_wrong() -> None:
    hosts = results.mixed(9)
    operations = ["backup", "cleanup", "vacuum", "reindex", "refresh_views", "rotate_backups"]
    done = summary(hosts, list(hosts), operations)
    assert (done["hosts"], done["due"], done["states"]["failed"], done["late_backups"]) == (9, 0, 1, 2)
    planned = summary(hosts, list(hosts), operations, planned=True)
    # What was planned beside the failure; what is put off until its window is nothing that somebody could approve.
    assert planned["due"] == 3
    assert len(json.dumps(planned)) < 1024
    assert summary({"a": {"maintenance_assessed": results.assessed(due=["vacuum"])}}, ["a"], operations)["due"] == 1
