# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as the playbooks write it, and as a browser shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _charts, _page
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._fleet import fleet
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._fleet_host import Asked
from tests.playbook import play
from tests.playbook.browser import Browser, program
from tests.playbook.results import HOSTILE, mixed

from .conftest import IN_CI
from .playing import GONE, churned, said, write_hosts

# ---- the playbooks ---------------------------------------------------------------------------------------------------


def test_a_night_ends_with_a_report_that_names_everyone(lite: Callable[[str], Path], tmp_path: Path) -> None:
    hosts = churned(lite, "good")
    hosts |= {"bad": {}, "gone": dict(GONE)}  # one of which nobody said what it is
    page = tmp_path / "night.html"
    where = write_hosts(
        tmp_path,
        hosts,
        report_path=str(page),
        report_metrics_path=str(tmp_path / "fleet.prom"),
        report_hosts=[*hosts, "retired"],
        maintenance_operations=["vacuum"],
    )
    night = play("maintenance", where)
    # Who failed still makes the run end as one that failed, and only they do.
    assert night.code != 0
    assert {host: night.recap(host)["failed"] for host in hosts} == {"good": 0, "bad": 1, "gone": 1}, said(night)
    found = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    states = {"bad": "failed", "gone": "unreachable", "retired": "silent", "good": "done"}
    assert {host["host"]: host["state"] for host in found["hosts"]} == states
    assert found["summary"]["trouble"] == "1 of 4 failed, 1 of 4 out of reach, 1 of 4 did not report"
    steps = night.of("db_vacuum")["good"].fact["summary"]["done"]
    assert {one["operation"]: one["done"] for one in found["operations"]} == {"vacuum": steps}
    assert found["summary"]["bytes_freed"] > 0
    assert str(lite("good")) in page.read_text(encoding="utf-8")

    metrics = series(tmp_path / "fleet.prom")
    assert {host: metrics[f"dbfleet_host_state {host} {state}"] for host, state in states.items()} == dict.fromkeys(
        states, 1
    )
    assert metrics["dbfleet_operation_steps good vacuum done"] == steps
    success = metrics["dbfleet_host_last_success_timestamp_seconds good"]

    # In the morning: what the journals know, and how things are now.
    # As AWX runs it, what it hands to the next node of a workflow is shown.
    awx = {"ANSIBLE_SHOW_CUSTOM_STATS": "true"}
    morning = play("report", where, "-e", f"report_path={tmp_path}/morning.html", "-e", "awx_job_id=7", env=awx)
    assert morning.code != 0
    handed = re.search(r"RUN: \{.*?\n\}|RUN: \{.*\}", morning.text, re.DOTALL)
    assert handed
    assert handed.group().count("dbfleet_summary_7") == 1
    assert len(handed.group()) < 1024
    assert series(tmp_path / "fleet.prom")["dbfleet_host_last_success_timestamp_seconds good"] > success
    told = json.loads((tmp_path / "morning.json").read_text(encoding="utf-8"))
    assert {host["host"]: host["state"] for host in told["hosts"]} == {**states, "good": "healthy"}
    assert {one["operation"]: one["done"] for one in told["operations"]} == {"vacuum": steps}
    assert told["history_seconds"] == 86400
    assert told["summary"]["bytes_freed"] == found["summary"]["bytes_freed"]


def series(file: Path) -> dict[str, float]:
    """Samples by their name and the values of their labels."""
    families = text_string_to_metric_families(file.read_text(encoding="utf-8"))
    return {" ".join((one.name, *one.labels.values())): one.value for f in families for one in f.samples}


# ---- the page --------------------------------------------------------------------------------------------------------

# What stands out of the window, or of what it stands in. Names may be broken anywhere; nothing may be cut off.
OVERFLOWING = """
(() => {
  document.querySelectorAll("details").forEach(details => { details.open = true; });
  const wide = document.documentElement.clientWidth, found = [];
  for (const element of document.querySelectorAll("body, body *")) {
    const box = element.getBoundingClientRect();
    if (box.width && (box.right > wide + 1 || box.left < -1)) found.push([element.tagName, element.textContent]);
    if (element.clientWidth && !element.closest("svg") && element.scrollWidth > element.clientWidth + 1)
      found.push(["in " + element.tagName, element.textContent]);
  }
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect(), lines = new Map();
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBoundingClientRect(), line = Math.round(box.top);
      if (box.right > frame.right + 1 || box.left < frame.left - 1) found.push(["svg", text.textContent]);
      if (lines.has(line) && lines.get(line) > box.left) found.push(["over", text.textContent]);
      lines.set(line, box.right);
    }
  }
  return found;
})()
"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    path = program()
    if path is None:
        message = "no Chromium is here: chromium-headless-shell has one; DBFLEET_CHROMIUM names another"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    with Browser(path) as started:
        yield started


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A report with everything in it, and with names that nobody should have chosen."""
    hosts: dict[str, Any] = mixed(14)
    long = "a-very-long-name-" * 6 + ".db.example.com"
    hosts[long] = hosts.pop("shop-eu-primary")
    hosts[HOSTILE] = hosts.pop("hostile")
    asked = Asked("Databases", datetime.now(UTC), ("backup", "cleanup", "vacuum", "reindex"))
    data = fleet(hosts, asked)
    path = tmp_path / "report.html"
    text = _page.page(data, _charts.charts(data["databases"]), data_name="report.json")
    path.write_bytes(text.encode("utf-8", "backslashreplace"))
    return path


def test_in_a_browser(browser: Browser, written: Path, tmp_path: Path) -> None:
    """All of it in one, for the start of a browser takes longer than everything else together."""
    for width, dark in ((390, False), (390, True), (1200, False)):
        nothing_overflows_and_nothing_is_asked_for(browser, written, width=width, dark=dark)
    the_measure_of_what_overflows_finds_what_does(browser, written, tmp_path / "harmed.html")
    no_script_of_a_name_runs_and_ours_copies(browser, written)
    on_paper_everything_is_open(browser, written)


def nothing_overflows_and_nothing_is_asked_for(browser: Browser, written: Path, *, width: int, dark: bool) -> None:
    browser.open(written, width=width, dark=dark)
    assert browser.ask(OVERFLOWING) == []
    assert browser.ask("document.documentElement.scrollWidth <= window.innerWidth") is True
    assert (browser.requests, browser.refused, browser.logged) == ([written.as_uri()], [], [])
    paper = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def the_measure_of_what_overflows_finds_what_does(browser: Browser, written: Path, harmed: Path) -> None:
    wrong = '<p style="white-space: nowrap">' + "wide " * 60 + "</p></main>"
    harmed.write_text(written.read_text(encoding="utf-8").replace("</main>", wrong), encoding="utf-8")
    browser.open(harmed, width=390)
    assert browser.ask(OVERFLOWING) != []


def no_script_of_a_name_runs_and_ours_copies(browser: Browser, written: Path) -> None:
    browser.open(written, width=1200)
    assert browser.ask("document.scripts.length") == 1
    assert browser.ask("document.querySelectorAll('.fix button:not([hidden])').length") > 0
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.ask("document.querySelector('.fix button').click()")
    browser.until(lambda: browser.ask("document.querySelector('.fix button').textContent") == "copied")
    # The policy of the page holds also for what got in by a way that nobody thought of.
    image = '<img src="https://example.com/x.png" onerror="window.harmed = 1">'
    browser.ask(f"document.body.insertAdjacentHTML('beforeend', {json.dumps(image)})")
    browser.until(lambda: browser.refused == ["csp"])
    assert browser.ask("window.harmed === undefined") is True


def on_paper_everything_is_open(browser: Browser, written: Path) -> None:
    browser.open(written, width=800, media="print")
    assert browser.ask("document.querySelectorAll('details:not([open])').length") > 0
    hidden = """[...document.querySelectorAll('details:not([open]) li, details:not([open]) tr')]
                .filter(e => !e.getBoundingClientRect().height).length"""
    assert browser.ask(hidden) == 0
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
