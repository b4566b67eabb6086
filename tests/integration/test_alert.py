# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role alert, run by Ansible, and whoever takes what it sends: a mail host and a web server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fleet.processes import free_port
from tests.playbook import environment, play
from tests.playbook.receivers import Receivers, receivers
from tests.playbook.results import assessed, finding, unreachable

from .playing import churned, said, write_hosts

SECRETS = ("SECRET-PATH", "SECRET-KEY", "SECRET-PASSWORD")
HARM = (
    "x\nBcc: all@example.com\n\n<b>bold</b> <!channel> @everyone {{ '{{ 6 * 7 }}' }} \"'"  # a template that makes one
)


@pytest.fixture
def taken() -> Iterator[Receivers]:
    with receivers() as found:
        yield found


def sending(taken: Receivers, tmp_path: Path, **more: Any) -> dict[str, Any]:
    """Variables by which everything arrives."""
    return {
        "alert_state_path": str(tmp_path / "state" / "alerts.json"),
        "alert_slack_url": f"{taken.url}/slack/SECRET-PATH",
        "alert_webhook_url": f"{taken.url}/json/SECRET-PATH",
        "alert_pager_url": f"{taken.url}/pager",
        "alert_pager_key": "SECRET-KEY",
        "alert_mail_to": ["dba@example.com", "Second <second@example.com>"],
        "alert_mail_host": "127.0.0.1",
        "alert_mail_port": taken.mail_port,
        "alert_mail_secure": "never",
        "alert_summary_at": "00:00",
        **more,
    }


# ---- one after the other ---------------------------------------------------------------------------------------------


def night(title: str, fleet: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """A play after which the role looks at these results."""
    return {
        "name": title,
        "hosts": "db1,db2",
        "gather_facts": False,
        "vars": {"fleet": fleet, "alert_title": title, "alert_fail": False, "alert_ran": ["vacuum"], **variables},
        "tasks": [
            {"ansible.builtin.set_fact": {"maintenance_assessed": "{{ fleet[inventory_hostname] }}"}},
            {"ansible.builtin.include_role": {"name": "dbfleet.maintenance.alert"}, "run_once": True},
            {
                "ansible.builtin.debug": {"msg": "UNTOLD {{ alert_untold | to_json }}"},
                "run_once": True,
                "when": "alert_untold | length > 0",
            },
        ],
    }


def full(share: float) -> dict[str, Any]:
    """A host whose connections are taken, whose names mean harm."""
    found = assessed(findings=[finding(2, "no_primary_key", HARM, HARM, database=HARM)])
    used = {"used": 1, "most": 100, "percent": share}
    found["ansible_facts"]["db_stats"] = {"engine": "postgresql", "server": {}, "connections": used}
    return found


def run(tmp_path: Path, plays: list[dict[str, Any]], shared: dict[str, Any]) -> str:
    """One ansible-playbook for all of them, with as much said as it can say."""
    (tmp_path / "nights.yml").write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
    where = write_hosts(tmp_path, {"db1": {}, "db2": {}, "keeper": {}}, **shared)
    command = [sys.executable, "-m", "ansible", "playbook", "-vvv", "-i", str(where), str(tmp_path / "nights.yml")]
    done = subprocess.run(
        command,
        env={**os.environ, **environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_from_the_first_call_to_the_last(taken: Receivers, tmp_path: Path) -> None:
    """All in one run of Ansible: its start takes longer than everything else."""
    nowhere = {
        "alert_slack_url": f"{taken.url}/500/SECRET-PATH",
        "alert_webhook_url": f"http://127.0.0.1:{free_port()}/SECRET-PATH",
        "alert_pager_url": f"{taken.url}/hang/SECRET-PATH",
        "alert_mail_port": free_port(),
        "alert_mail_username": "dba",
        "alert_mail_password": "SECRET-PASSWORD",
        "alert_timeout": 1,  # for what never answers
        # Addresses that are none are secrets, too.
        "alert_daily": True,
        "alert_daily_slack_url": "127.0.0.1/SECRET-PATH",
        "alert_daily_webhook_url": "http://127.0.0.1:SECRET-PATH/",
        "alert_daily_mail_to": [],
    }
    from_a_file = {"alert_slack_url": f"{taken.url}/slack/SECRET-PATH\n"}  # it ends with a line
    wrong = {"db1": full(99.0), "db2": unreachable()["maintenance_assessed"]}
    right = {"db1": full(10.0), "db2": assessed()}
    plays = [
        night("planned", wrong) | {"check_mode": True},
        night("lost", wrong, **nowhere),
        night("told", wrong, alert_daily=True, alert_daily_slack_url="", alert_daily_webhook_url="", **from_a_file),
        # A host reads and keeps the same file as the controller did.
        night("over", right, alert_webhook_url="", alert_mail_to=[], alert_state_host="keeper"),
    ]
    output = run(tmp_path, plays, sending(taken, tmp_path))

    # What did not go out was said without a secret, and came with the next run by every way.
    (untold,) = [line for line in output.splitlines() if "UNTOLD" in line and '"msg"' in line]
    for words in ("slack by 127.0.0.1: Status code was 500", "webhook by 127.0.0.1", "pager by 127.0.0.1"):
        assert words in untold
    assert "slack by an unknown host: unknown url type: (hidden)" in untold
    assert "mail by 127.0.0.1: [Errno 111] Connection refused" in untold
    chat = [one["text"].splitlines()[0] for one in taken.posted("/slack/SECRET-PATH")]
    assert chat == ["*told: 2 critical: out of reach, connections*", "*over: 2 over*"]
    (program,) = taken.posted("/json/SECRET-PATH")
    assert program["counts"] == {"opened": 2, "worse": 0, "ended": 0, "again": 0}
    subjects = [str(mail.message["Subject"]) for mail in taken.mails]
    assert subjects == [
        "told: 2 critical: out of reach, connections",
        "told: day: 1 of 2 out of reach; 1 without errors",
    ]
    # The pager's incident ends with its own name.
    began, ended = taken.posted("/pager")
    assert (began["event_action"], began["routing_key"]) == ("trigger", "SECRET-KEY")
    assert ended == {"event_action": "resolve", "dedup_key": began["dedup_key"], "routing_key": "SECRET-KEY"}
    state = tmp_path / "state" / "alerts.json"
    kept = json.loads(state.read_text(encoding="utf-8"))
    assert (kept["alarms"], kept["told"]["pager"], kept["told"]["slack"], len(kept["told"]["mail"])) == ({}, {}, {}, 2)
    assert oct(state.stat().st_mode & 0o777) == "0o600"
    for secret in SECRETS:
        assert secret not in output
        assert secret not in state.read_text(encoding="utf-8")
    names_mean_nothing(taken)


def names_mean_nothing(taken: Receivers) -> None:
    """Neither in the head of a mail nor in its text, nor in a chat."""
    (day,) = [mail for mail in taken.mails if "day" in str(mail.message["Subject"])]
    assert day.recipients == {"dba@example.com", "second@example.com"}
    assert day.message["Bcc"] is None
    assert day.message["Auto-Submitted"] == "auto-generated"
    assert "{{ 6 * 7 }}" in day.text
    assert "<b>bold" not in day.text and "&lt;b&gt;bold&lt;/b&gt;" in day.text
    assert all(
        "<!" not in one["text"] and "@everyone" not in one["text"] for _path, one in taken.posts if "text" in one
    )


# ---- the playbooks ---------------------------------------------------------------------------------------------------


def test_a_night_that_could_tell_nobody_does_not_end_as_if_all_were_well(
    lite: Callable[[str], Path], taken: Receivers, tmp_path: Path
) -> None:
    """Though nothing is wrong with its only host."""
    state = tmp_path / "alerts.json"
    where = write_hosts(
        tmp_path,
        churned(lite, "good"),
        maintenance_alert=True,
        maintenance_operations=["vacuum"],
        alert_state_path=str(state),
        alert_daily=True,
        alert_webhook_url=f"{taken.url}/500/SECRET-PATH",
    )
    night = play("maintenance", where)
    assert (night.code, night.recap("good")["failed"]) == (2, 1), said(night)
    assert "Not told, and to be told by the next run: webhook by 127.0.0.1: Status code was 500" in said(night)
    assert "SECRET-PATH" not in said(night)
    kept = json.loads(state.read_text(encoding="utf-8"))
    assert (kept["alarms"], kept["summaries"], kept["hosts"].keys()) == ({}, {}, {"good"})
    # It was a night's work, which the week will tell of.
    assert [day["runs"] for day in kept["days"].values()] == [1]
