# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on a fleet: what it says, in which order, and that nothing in it can be more than text."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _charts, _page
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._fleet import STATES, fleet
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._fleet_host import Asked
from tests.playbook import results
from tests.playbook.results import DAY, GB, HOSTILE, MB, assessed, finding, history, mixed, ran, step

NIGHT = Asked(
    "Databases",
    datetime(2026, 11, 22, 4, 30, tzinfo=UTC),
    ("backup", "cleanup", "vacuum", "reindex", "refresh_views", "rotate_backups"),
)
Data = dict[str, Any]


def report(hosts: dict[str, Any], **how: Any) -> Data:
    return fleet(hosts, NIGHT._replace(**how))


def one(host: dict[str, Any], **how: Any) -> Data:
    """The only host's element."""
    (found,) = report({"db1": host}, **how)["hosts"]
    return dict(found)


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_hosts_come_worst_first_and_none_is_left_out() -> None:
    hosts = mixed(30)
    found = report(hosts)["hosts"]
    states = [host["state"] for host in found]
    assert states == sorted(states, key=STATES.index)
    assert {host["host"] for host in found} == set(hosts)
    by_name = {host["host"]: host["state"] for host in found}
    assert [by_name[name] for name in list(hosts)[:7]] == [
        "failed",
        "unreachable",
        "silent",
        "done",
        "unfinished",
        "waiting",
        "healthy",
    ]


def test_the_first_line_names_trouble_before_anything_else() -> None:
    text = report(mixed(12))["summary"]["text"]
    assert text == (
        "1 of 12 failed, 1 of 12 out of reach, 1 of 12 did not report; 9 without errors; 1 urgent finding; "
        "2 databases without a backup in time; 3.0 GB freed; 1,292,113 rows removed"
    )
    assert report({"a": {"maintenance_assessed": assessed()}})["summary"]["text"] == "1 of 1 without errors"


def test_numbers_are_sums_over_the_hosts() -> None:
    found = report(mixed(40))
    assert found["summary"]["states"] == {
        state: sum(host["state"] == state for host in found["hosts"]) for state in STATES
    }
    by_name = {one["operation"]: one for one in found["operations"]}
    assert list(by_name) == ["cleanup", "vacuum", "reindex"]
    assert (by_name["vacuum"]["hosts"], by_name["vacuum"]["planned"], by_name["vacuum"]["done"]) == (2, 4, 3)
    assert by_name["vacuum"]["bytes_freed"] == 3 * GB
    # The space of removed rows stays in the table until somebody gives it back.
    assert (by_name["cleanup"]["rows"], by_name["cleanup"]["bytes_freed"]) == (1_292_113, 0)
    assert found["steps"][0]["bytes_freed"] == 3 * GB


def test_findings_are_ordered_by_priority_and_there_once_for_all_their_hosts() -> None:
    found = report(mixed(30))["findings"]
    assert [f["priority"] for f in found] == sorted(f["priority"] for f in found)
    (unused,) = [f for f in found if f["code"] == "unused_index"]
    assert unused["hosts"][:2] == ["shop-eu-primary", "shop-us-primary"]
    assert len(unused["hosts"]) == len(set(unused["hosts"])) == 2 + len(range(9, 30, 3))
    assert unused["fix"] == results.UNUSED["fix"]


def test_what_was_done_is_no_finding_any_more() -> None:
    cured = finding(2, "invalid_index", "public.orders", "invalid", fix="VACUUM public.orders")
    host = {
        "maintenance_assessed": assessed(findings=[cured]),
        "vacuum_result": ran("db_vacuum", [step("vacuum", "public.orders")]),
    }
    assert report({"db1": host})["findings"] == []
    del host["vacuum_result"]
    assert len(report({"db1": host})["findings"]) == 1


def test_failures_have_their_error_and_how_often_it_was_so() -> None:
    failures = report(mixed(12))["failures"]
    assert [(f["host"], f["name"], f["times"]) for f in failures] == [
        ("shop-eu-primary", "shop public.orders_pkey", 3),
        ("warehouse-02.eu-central.db.example.com", "", 1),
    ]
    assert failures[0]["error"] == "canceling statement due to lock timeout"
    assert failures[1]["error"] == "out of reach: Failed to connect to the host via ssh: no route to host"


def test_an_error_that_no_step_explains_is_told_beside_them() -> None:
    host = {
        "maintenance_assessed": assessed(due=["vacuum"]),
        "maintenance_error": "no space left on device",
        "vacuum_result": ran("db_vacuum", [step("vacuum", "public.orders", "failed")]),
    }
    assert [f["error"] for f in report({"db1": host})["failures"]] == [
        "no space left on device",
        "canceling statement due to lock timeout",
    ]


def test_a_failed_step_makes_its_host_one_that_failed() -> None:
    failed = {"vacuum_result": ran("db_vacuum", [step("vacuum", "public.orders", "failed")])}
    assert one(failed)["state"] == "failed"


@pytest.mark.parametrize(
    ("host", "state"),
    [
        ({}, "silent"),
        ({"ansible_facts": {}}, "silent"),
        ({"maintenance_assessed": {"failed": True, "msg": "no"}}, "silent"),
        ({"maintenance_assessed": assessed(due=["vacuum"])}, "due"),
        ({"maintenance_assessed": assessed(due=["vacuum"], idle=True)}, "waiting"),
        ({"maintenance_assessed": assessed(preflight={"ok": False, "stopped_by": ["full"]}, idle=False)}, "stopped"),
        ({"maintenance_assessed": assessed()}, "healthy"),
        ({"maintenance_error": "why"}, "failed"),
        ({"vacuum_result": ran("db_vacuum", [step("vacuum", "t", proven=False)])}, "unfinished"),
    ],
)
def test_every_host_has_one_state(host: dict[str, Any], state: str) -> None:
    assert one(host)["state"] == state


def test_a_check_says_what_would_be_done() -> None:
    planned = ran("db_vacuum", [step("reclaim", "public.orders", "planned", freed=GB)])
    found = report({"db1": {"maintenance_assessed": assessed(due=["vacuum"]), "vacuum_result": planned}}, planned=True)
    assert found["hosts"][0]["state"] == "due"
    assert found["summary"]["text"] == "1 of 1 without errors; something is due on 1; 1.0 GB to free"


def test_facts_count_where_nobody_registered_anything_and_nowhere_else() -> None:
    facts = {"db_due": assessed(due=["vacuum"])["ansible_facts"]["db_due"]}
    assert one({"ansible_facts": facts})["state"] == "due"
    # Ours ran, and found nothing: facts are those of an earlier run.
    assert one({"ansible_facts": facts, "maintenance_assessed": assessed()})["state"] == "healthy"
    assert one({"ansible_facts": facts, **results.unreachable()})["state"] == "unreachable"


def test_the_journal_tells_what_was_done_where_nothing_ran_now() -> None:
    told = history("db1", MB)
    old, new = "2026-11-20T01:00:00+00:00", "2026-11-22T01:00:00+00:00"
    told["ansible_facts"]["db_history"]["steps"] = [
        {**step("reclaim", name), "operation": "db_vacuum", "at": at, "bytes_freed": GB, "seconds": 3.0, "rows": 0}
        for name, at in (("public.a", old), ("public.b", new), ("public.c", "nonsense"))
    ]
    host = {"maintenance_assessed": assessed(), "maintenance_history": told}
    found = report({"db1": host}, history=DAY)
    assert [s["object"] for s in found["steps"]] == ["public.b"]
    assert found["operations"][0]["bytes_freed"] == GB
    assert found["hosts"][0]["state"] == "healthy"
    host["vacuum_result"] = ran("db_vacuum", [step("reclaim", "public.d", freed=2 * GB)])
    assert [s["object"] for s in report({"db1": host})["steps"]] == ["public.d"]


def test_a_backup_of_this_run_counts() -> None:
    host = {"maintenance_assessed": assessed(backup_age=3 * DAY)}
    assert one(host)["late_backups"] == 1
    host["backup_result"] = ran("db_backup", [step("dump", "shop"), step("verify", "shop")])
    found = one(host)
    assert (found["late_backups"], found["backup_age_seconds"]) == (0, 0)
    host["backup_result"] = ran("db_backup", [step("dump", "shop", "failed")])
    assert one(host)["late_backups"] == 1


def test_databases_come_worst_first() -> None:
    databases = report(mixed(60))["databases"]
    assert [x["age_seconds"] for x in databases["backups"]][:2] == [None, 40 * 3600]
    paces = [x["bytes_per_day"] for x in databases["growth"]]
    assert paces == sorted(paces, reverse=True)
    assert databases["growth"][0]["days_until_full"] == 10


# ---- the page --------------------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """What a browser would make of it: elements with their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def page(data: Data, **how: Any) -> str:
    return _page.page(data, _charts.charts(data["databases"]), **how)


def shape(seen: Seen) -> list[str]:
    return [f"{tag} {sorted(attributes)}" for tag, attributes in seen.elements]


def hostile(text: str) -> dict[str, Any]:
    """Hosts whose every text is this one."""
    hosts = copy.deepcopy(mixed(7))
    hosts = {text if name == "hostile" else name: host for name, host in hosts.items()}
    hosts[text]["maintenance_assessed"] = assessed(findings=[finding(1, text, text, text, fix=text, database=text)])
    due = hosts[text]["maintenance_assessed"]["ansible_facts"]["db_due"]
    due["server"] = {"version": text, "address": text, "role": text}
    for one in (*due["bloat"]["databases"], *due["backups"]):
        one["database"] = text
    hosts["billing"] = {"maintenance_error": text, "vacuum_result": ran("db_vacuum", [step("vacuum", text, "failed")])}
    hosts["reports"]["vacuum_result"] = ran("db_vacuum", [step("reclaim", text, freed=GB, reason=text)])
    return hosts


NASTY = [
    HOSTILE,
    '"><img src=x onerror=alert(1)>',
    "</style></script><script src=//evil.example></script>",
    "{{ 7 * 7 }}{% raw %}",
    "' onload='alert(1)",
    '<svg/onload=alert(1)> id="',
    "]]>--><!--",
]


def test_the_page_has_the_same_elements_whatever_names_are_like() -> None:
    wanted = shape(Seen(_page.page(report(hostile("plain"), title="plain"), [])))
    for text in NASTY:
        seen = Seen(_page.page(report(hostile(text), title=text), []))
        assert shape(seen) == wanted
        assert text.replace("\0", "") in seen.text.replace("\0", "")


def test_nor_do_charts_whose_labels_look_like_markup() -> None:
    for number, text in enumerate(NASTY):
        bars = [{"host": text, "database": "shop", "bytes_per_day": MB, "days_until_full": None}]
        (chart,) = _charts.charts({"bloat": [], "growth": bars, "backups": [], "backup_max_age_seconds": DAY})
        seen = Seen(chart.svg)
        assert [tag for tag, _attributes in seen.elements if tag not in ("g", "path")] == ["svg", "text", "text"]
        assert text[:9].replace("\0", "") in seen.text, number


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_any_name_is_told_as_it_is(name: str) -> None:
    data = report({"db1": {"maintenance_error": name}})
    seen = Seen(_page.page(data, []))
    # HTML has no two kinds of line ends, and no zero byte.
    assert name.replace("\r\n", "\n").replace("\r", "\n") in seen.text.replace("\r\n", "\n").replace("\r", "\n")
    assert [tag for tag, _attributes in seen.elements].count("script") == 1


def test_nothing_comes_from_elsewhere_and_no_script_but_ours_may_run() -> None:
    text = page(report(mixed(9)))
    seen = Seen(text)
    for tag, attributes in seen.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "use", "image")
        assert all(not name.startswith("on") for name in attributes)
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text and "@import" not in text
    (policy,) = [a["content"] for tag, a in seen.elements if tag == "meta" and "http-equiv" in a]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in (policy or "")
    assert "default-src 'none'" in (policy or "")


def test_the_same_data_gives_the_same_page() -> None:
    assert page(report(mixed(12))) == page(report(mixed(12)))


def test_a_thousand_hosts_take_ten_times_the_room_of_a_hundred() -> None:
    sizes = {}
    for count in (100, 200, 1000):
        data = report(mixed(count))
        assert len(data["hosts"]) == count
        sizes[count] = (len(_page.page(data, [])), len(json.dumps(data)))
    for small, double, large in zip(*sizes.values(), strict=True):
        each = (double - small) / 100
        assert abs(large - double) / 800 < 1.1 * each
    assert sizes[1000][0] < 2 * MB


def test_findings_beyond_what_anybody_reads_are_counted() -> None:
    many = [finding(2, "no_primary_key", f"public.t{n}", "none") for n in range(_page.MOST + 7)]
    seen = Seen(_page.page(report({"db1": {"maintenance_assessed": assessed(findings=many)}}), []))
    assert "7 more are in the data file." in seen.text
    assert sum(attributes.get("class") == "p2" for _tag, attributes in seen.elements) == _page.MOST


# ---- charts ----------------------------------------------------------------------------------------------------------


def test_charts_show_the_worst_and_say_of_how_many() -> None:
    bloat, growth, backups = _charts.charts(report(mixed(40))["databases"])
    assert [chart.svg.count("<text") for chart in (bloat, growth, backups)] == [2 * _charts.BARS] * 3
    assert backups.note.endswith("the worst 10 of 38 databases")
    assert growth.told.startswith("shop · shop-eu-primary: 2.0 GB a day, full in 10 d; ")
    assert backups.told.startswith("shop · reports: none; shop · shop-us-primary: 1 d 16 h; ")
    assert "var(--bad)" in growth.svg and "var(--bad)" in backups.svg and "var(--bad)" not in bloat.svg


def test_there_is_no_chart_of_nothing() -> None:
    assert _charts.charts(report({"db1": {"maintenance_error": "why"}})["databases"]) == []


def test_without_the_library_the_report_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    data = report(mixed(12))
    with pytest.raises(_charts.NoLibrary, match=r"pip install matplotlib") as raised:
        _charts.charts(data["databases"])
    seen = Seen(_page.page(data, [], why_no_charts=str(raised.value)))
    assert "No charts: install matplotlib on the controller" in seen.text
    assert "svg" not in {tag for tag, _attributes in seen.elements}
