# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's numbers for Prometheus: read back by its own parser; names, dashboard and rules that say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _metrics
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._fleet import fleet
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._fleet_host import Asked
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._metrics import METRICS, PREFIX
from tests.playbook.results import (
    DAY,
    GB,
    HOSTILE,
    MB,
    MISSING,
    PINNED,
    assessed,
    history,
    mixed,
    ran,
    step,
    unreachable,
)

ROOT = Path(__file__).parents[2]
NIGHT = datetime(2026, 11, 22, 4, 30, tzinfo=UTC)
OPERATIONS = ("backup", "cleanup", "vacuum", "reindex", "refresh_views", "rotate_backups")
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def written(
    hosts: dict[str, Any], older: str = "", *, at: datetime = NIGHT, inventory: list[str] | None = None, **labels: str
) -> str:
    """The file that a report on these hosts leaves where the older one was."""
    data = fleet(hosts, Asked("Databases", at, OPERATIONS))
    found, told = _metrics.numbers(data, at)
    stay = _metrics.staying(_metrics.known(older), told, list(hosts), hosts if inventory is None else inventory)
    return _metrics.text(found, stay, labels)


def read(text: str) -> Series:
    """Every sample, by Prometheus's parser; the file as a whole has to be one that it takes."""
    text.encode()
    found: Series = {}
    for family in text_string_to_metric_families(text):
        assert (family.type, family.documentation) == ("gauge", METRICS[family.name.removeprefix(PREFIX)].help)
        for sample in family.samples:
            key = (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items())))
            assert key not in found  # for two of one kind the collector refuses the whole file
            assert {label for label, _value in key[1]} >= set(METRICS[key[0]].labels)
            found[key] = sample.value
    return found


def of(text: str, metric: str, **labels: str) -> float | None:
    """One sample."""
    return read(text).get((metric, tuple(sorted(labels.items()))))


def all_of(text: str, metric: str) -> dict[tuple[str, ...], float]:
    """By the values of its labels, in the order in which they are documented."""
    found = {key: value for key, value in read(text).items() if key[0] == metric}
    return {tuple(dict(labels)[x] for x in METRICS[metric].labels): value for (_name, labels), value in found.items()}


# ---- what it says ----------------------------------------------------------------------------------------------------


def measured() -> dict[str, Any]:
    """As in the morning, with statistics; their recommendations are among what was found."""
    host = assessed(findings=[MISSING, PINNED])
    host["ansible_facts"]["db_stats"] = {
        "connections": {"used": 91, "most": 100, "percent": 91.0},
        "slow_statements": [{"database": "shop", "text": "SELECT 1", "mean_seconds": 2.5, "calls": 3}],
        "transaction_ids": {"databases": {"shop": 61.5, "young": 3.0}, "oldest": []},
        "recommendations": [MISSING],
    }
    return {"maintenance_assessed": host}


def test_every_documented_name_is_there_and_no_other() -> None:
    assert {name for name, _labels in read(written({**mixed(12), "db1": measured()}))} == set(METRICS)


def test_statistics_are_told_and_stay_while_nobody_measures_them() -> None:
    """A night without statistics is no cure of what they recommended."""
    morning = written({"db1": measured()})
    wanted: dict[str, dict[tuple[str, ...], float]] = {
        "host_connections_ratio": {("db1",): 0.91},
        "host_slowest_statement_seconds": {("db1",): 2.5},
        "database_transaction_age_ratio": {("db1", "shop"): 0.615},
        "host_recommendations": {("db1", "1"): 0, ("db1", "2"): 1, ("db1", "3"): 0},
    }
    night = written({"db1": WELL}, morning, at=LATER)
    assert {name: all_of(morning, name) for name in wanted} == wanted
    assert {name: all_of(night, name) for name in wanted} == wanted
    assert all_of(morning, "host_findings") == {("db1", "1"): 1, ("db1", "2"): 0, ("db1", "3"): 0}
    assert all_of(night, "host_findings") == {("db1", "1"): 0, ("db1", "2"): 0, ("db1", "3"): 0}
    calm = measured()
    calm["maintenance_assessed"]["ansible_facts"]["db_stats"] |= {
        "slow_statements": [],
        "transaction_ids": {"databases": {}, "oldest": []},
        "recommendations": [],
    }
    over = written({"db1": calm}, night, at=LATER)
    assert all_of(over, "host_slowest_statement_seconds") == all_of(over, "database_transaction_age_ratio") == {}
    assert all_of(over, "host_recommendations")["db1", "2"] == 0


def test_numbers_are_those_of_the_report() -> None:
    text = written(mixed(12))
    assert of(text, "report_timestamp_seconds") == NIGHT.timestamp()
    assert of(text, "backup_max_age_seconds") == 26 * 3600
    states = {key[0]: key[1] for key in all_of(text, "host_state")}
    assert states["shop-eu-primary"] == "failed"
    assert states["billing"] == "silent"
    assert len(states) == 12
    assert of(text, "host_findings", host="shop-eu-primary", priority="1") == 1
    assert of(text, "host_findings", host="db0007", priority="1") == 0
    assert of(text, "host_size_bytes", host="reports") == 40 * GB
    assert of(text, "host_bloat_bytes", host="reports") == 4 * GB
    assert of(text, "database_bloat_bytes", host="reports", database="shop", object="table") == 3 * GB
    growth = of(text, "database_growth_bytes_per_second", host="reports", database="shop")
    assert growth == pytest.approx(90 * MB / DAY, rel=1e-6)
    full = of(text, "host_disk_full_timestamp_seconds", host="shop-eu-primary")
    assert full == pytest.approx(NIGHT.timestamp() + 10 * DAY)
    steps = {key[1:]: value for key, value in all_of(text, "operation_steps").items() if key[0] == "shop-us-primary"}
    assert (steps["vacuum", "done"], steps["vacuum", "deferred"], steps["vacuum", "failed"]) == (1, 1, 0)
    assert of(text, "operation_removed_rows", host="reports", operation="cleanup") == 1_292_113
    assert of(text, "operation_freed_bytes", host="shop-eu-primary", operation="vacuum") == 3 * GB


def test_a_backup_counts_from_when_it_began_and_never_is_zero() -> None:
    late = assessed()
    (backup,) = late["ansible_facts"]["db_due"]["backups"]
    backup |= {"at": "2026-11-22T00:10:00+02:00", "age_seconds": 7200, "verified_age_seconds": 7200 + 86400}
    made = {
        "maintenance_assessed": assessed(backup_age=30 * 3600),
        "backup_result": ran("db_backup", [step("dump", "shop")]),
    }
    never = {"maintenance_assessed": assessed(backup_age=None)}
    text = written({"late": {"maintenance_assessed": late}, "made": made, "never": never})
    began = datetime(2026, 11, 21, 22, 10, tzinfo=UTC)
    newest = all_of(text, "database_last_backup_timestamp_seconds")
    assert newest == {("late", "shop"): began.timestamp(), ("made", "shop"): NIGHT.timestamp(), ("never", "shop"): 0}
    good = all_of(text, "database_last_verified_backup_timestamp_seconds")
    assert good == {**newest, ("late", "shop"): (began - timedelta(days=1)).timestamp()}


def test_a_night_that_the_journal_tells_of_was_no_success() -> None:
    """Though the host looks well in the morning, when nothing runs."""
    told = {"maintenance_assessed": assessed(), "maintenance_history": history("db1", MB, failing=2)}
    text = written({"db1": told, "db2": {"maintenance_assessed": assessed()}})
    assert all_of(text, "host_last_success_timestamp_seconds") == {("db2",): NIGHT.timestamp()}
    assert of(text, "host_failures", host="db1") == 1


# ---- what stays, and what goes ---------------------------------------------------------------------------------------


WELL = {"maintenance_assessed": assessed(), "maintenance_history": history("db1", MB)}
LATER = NIGHT + timedelta(days=1)
OF_THE_RUN = {
    "report_timestamp_seconds",
    "host_state",
    "host_failures",
    "host_last_report_timestamp_seconds",
    "host_last_success_timestamp_seconds",
}


@pytest.mark.parametrize("gone", [{}, unreachable(), {"maintenance_error": "password authentication failed"}])
def test_a_host_that_tells_nothing_keeps_what_it_said(gone: dict[str, Any]) -> None:
    """Or its old backup would be no alert any more on the night on which the host is down as well."""
    before = written({"db1": WELL})
    after = written({"db1": gone}, before, at=LATER)
    for name in sorted({name for name, _labels in read(before)} - OF_THE_RUN):
        assert all_of(after, name) == all_of(before, name), name
    assert of(after, "host_last_success_timestamp_seconds", host="db1") == NIGHT.timestamp()
    assert of(after, "host_state", host="db1", state="healthy") is None
    assert len(all_of(after, "host_state")) == 1
    assert of(after, "report_timestamp_seconds") == LATER.timestamp()
    # And so it stays, however often it is written.
    assert written({"db1": gone}, after, at=LATER) == after


def test_what_a_measured_host_has_no_more_is_gone() -> None:
    before = written({"db1": WELL})
    facts = assessed(backup_age=3600)
    due = facts["ansible_facts"]["db_due"]
    due["bloat"] = {"bytes": 30 * GB, "bloat_bytes": 0, "index_bloat_bytes": 0, "databases": []}
    due["backups"][0]["database"] = "renamed"
    steady = history("db1", MB)
    steady["ansible_facts"]["db_history"]["databases"][0] |= {"bytes_per_day": 0, "days_until_full": None}
    steady["ansible_facts"]["db_history"]["disks"] = []
    after = written({"db1": {"maintenance_assessed": facts, "maintenance_history": steady}}, before, at=LATER)
    assert all_of(after, "database_bloat_bytes") == {}
    assert all_of(after, "database_growth_bytes_per_second") == {}
    assert all_of(after, "host_disk_full_timestamp_seconds") == {}
    assert set(all_of(after, "database_last_backup_timestamp_seconds")) == {("db1", "renamed")}
    assert of(after, "host_growth_bytes_per_second", host="db1") == 0


def test_hosts_that_a_limit_leaves_out_stay_until_they_leave_the_inventory() -> None:
    hosts = mixed(10)
    before = written(hosts)
    one = {"reports": hosts["reports"]}
    after = written(one, before, at=LATER, inventory=list(hosts))
    assert {key: value for key, value in read(after).items() if ("host", "reports") not in key[1] and key[1]} == {
        key: value for key, value in read(before).items() if ("host", "reports") not in key[1] and key[1]
    }
    assert of(after, "host_last_report_timestamp_seconds", host="reports") == LATER.timestamp()
    rest = [name for name in hosts if name != "hostile"]
    assert {host for host, _state in all_of(written(one, after, inventory=rest), "host_state")} == set(rest)


def test_what_is_no_line_of_ours_is_left_out() -> None:
    before = written({"db1": WELL, "db2": WELL})
    harmed = before.replace("# TYPE", "\x00\x00").replace('host="db2"', 'host="db2', 3)
    others = 'dbfleet_invented{host="db1"} 1\nother{host="db2"} 1\ndbfleet_host_databases{host="db2"} 1 2 3\n'
    after = written({"db1": WELL}, harmed + others, inventory=["db1", "db2"])
    assert 'host="db2' in after
    assert {name for name, _labels in read(after)} <= set(METRICS)


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [HOSTILE, 'a"} 1\ndbfleet_host_state{host="b', "a\\", '\\n"', "a\rb\u2028c\x85d"])
def test_a_name_is_only_a_name(name: str) -> None:
    text = written({name: WELL}, fleet=name)
    assert of(text, "host_databases", host=name, fleet=name) == 1
    assert of(text, "report_timestamp_seconds", fleet=name) == NIGHT.timestamp()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=()), min_size=1), min_size=1, max_size=4, unique=True))
def test_any_name_is_read_back_and_found_again(names: list[str]) -> None:
    text = written(dict.fromkeys(names, WELL))
    seen = {host for host, _state in all_of(text, "host_state")}
    assert seen == {name.encode("utf-8", "backslashreplace").decode() for name in names}
    kept = written({"other": WELL}, text, inventory=names)
    assert {host for host, _state in all_of(kept, "host_state")} == seen | {"other"}


def test_two_names_that_look_alike_do_not_spoil_the_file() -> None:
    text = written({"caf\udce9": WELL, "caf\\udce9": WELL})
    assert all_of(text, "host_databases") == {("caf\\udce9",): 1}


def test_which_labels_can_be_added() -> None:
    wrong = ["host", "database", "__name__", "no-minus", "1st", ""]
    assert _metrics.no_labels(["fleet", *wrong, "Region_2"]) == wrong


# ---- what is written about it ----------------------------------------------------------------------------------------


def test_the_readme_has_the_same_names() -> None:
    readme = (
        (ROOT / "roles/report/README.md").read_text(encoding="utf-8").partition("## Metrics")[2].partition("\n## ")[0]
    )
    rows = re.findall(r"^\| `dbfleet_(\w+)` \| (.*?) \| (.*?) \|$", readme, re.MULTILINE)
    said = {name: (re.findall(r"`(\w+)`", labels), text.replace("`", "")) for name, labels, text in rows}
    assert said == {name: (list(metric.labels), metric.help) for name, metric in METRICS.items()}


def expressions() -> Iterator[tuple[str, str]]:
    """Every one of the dashboard and of the alerts, with where it stands."""
    board = json.loads((ROOT / "examples/grafana/dbfleet.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    rules = yaml.safe_load((ROOT / "examples/prometheus/dbfleet-alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _expression in EXPRESSIONS])
def test_dashboard_and_alerts_use_what_is_written(where: str, expression: str) -> None:
    """Names and labels exist, and it is PromQL."""
    query = re.sub(r"^label_values\((.*), (\w+)\)$", r"count by (\2) (\1)", expression)
    names = set(re.findall(rf"\b{PREFIX}(\w+)", query))
    assert names, where
    assert names <= set(METRICS)
    known = {"instance", "job", *(label for name in names for label in METRICS[name].labels)}
    assert set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', query)) <= known
    grouped = re.findall(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)", query)
    assert {label.strip() for labels in grouped for label in labels.split(",") if label.strip()} <= known
    promql_parser.parse(query.replace("$__range", "1d").replace("$__interval", "1m"))


def test_panels_of_the_dashboard_have_a_place_of_their_own() -> None:
    board = json.loads((ROOT / "examples/grafana/dbfleet.json").read_text(encoding="utf-8"))
    places = [(panel["gridPos"], panel["id"]) for panel in board["panels"]]
    assert len({number for _place, number in places}) == len(places)
    taken = [(p["x"] + x, p["y"] + y) for p, _id in places for x in range(p["w"]) for y in range(p["h"])]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _y in taken) == 23


def test_the_alerts_tell_what_to_do() -> None:
    rules = yaml.safe_load((ROOT / "examples/prometheus/dbfleet-alerts.yml").read_text(encoding="utf-8"))
    for rule in rules["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical")
        used = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
        names = re.findall(rf"\b{PREFIX}(\w+)", rule["expr"])
        assert used <= {label for name in names for label in METRICS[name].labels}
