# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role alert: its variables are db_alert's options, and who is told what is said by switches and recipients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_options import OPTIONS

ROLE = Path(__file__).parents[3] / "roles" / "alert"
# What the role makes of its own variables, and what its second task gives.
OTHERS = {"state_path", "calls", "daily", "weekly", "run", "sent"}
URL = "https://hooks.example.com/x"


def read(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def trusted(found: Any) -> Any:
    """As Ansible reads what stands in a role."""
    if isinstance(found, dict):
        return {key: trusted(value) for key, value in found.items()}
    if isinstance(found, list):
        return [trusted(value) for value in found]
    return trust_as_template(found) if isinstance(found, str) else found


def made(name: str, **variables: Any) -> Any:
    """A variable of the role where these are set."""
    known = {**read("defaults/main.yml"), **read("vars/main.yml")}
    templar = Templar(DataLoader(), {**trusted(known), **variables})
    return templar.template(trust_as_template("{{ " + name + " }}"))


SPECS = read("meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def test_its_variables_are_the_options_of_the_module() -> None:
    told = {name: {key: value for key, value in spec.items() if key != "description"} for name, spec in SPECS.items()}
    wanted = {f"alert_{name}": spec for name, spec in OPTIONS.items() if name not in OTHERS}
    assert {name: told[name] for name in wanted} == wanted


def test_defaults_are_those_that_are_specified() -> None:
    assert read("defaults/main.yml") == {name: spec["default"] for name, spec in SPECS.items() if "default" in spec}


def test_every_variable_is_described() -> None:
    assert all(line.endswith(".") for spec in SPECS.values() for line in spec["description"])


def test_the_module_gets_every_option() -> None:
    policy = read("vars/main.yml")["alert_policy"]
    assert policy.keys() == OPTIONS.keys() - {"run", "sent"}
    given = {f"alert_{name}": f"given {name}" for name in policy if name not in OTHERS or name == "state_path"}
    got = made("alert_policy", **given)
    assert {name: got[name] for name in policy if f"alert_{name}" in given} == {
        name: f"given {name}" for name in policy if f"alert_{name}" in given
    }


@pytest.mark.parametrize("name", ["send", "mail"])
def test_whoever_answers_sign_by_sign_keeps_nobody_for_ever(name: str) -> None:
    """The timeout of a module is of each read; and a message that took too long is no reason not to send the rest."""
    (task,) = (task for task in read(f"tasks/{name}.yml") if "loop" in task)
    assert made("timeout", timeout=trust_as_template(task["timeout"]), alert_timeout="20") == 50
    assert (task["ignore_errors"], task["no_log"]) == (True, True)


def test_secrets_are_marked() -> None:
    secret = {name for name, spec in SPECS.items() if spec.get("no_log")}
    assert secret == {name for name in SPECS if name.endswith(("_slack_url", "_webhook_url", "_password", "_key"))} | {
        "alert_pager_url"
    }


@pytest.mark.parametrize(
    ("given", "channels"),
    [
        ({}, ([], [], [])),
        ({"alert_mail_to": ["a@b"]}, (["mail"], [], [])),
        ({"alert_mail_to": ["a@b"], "alert_daily": True, "alert_weekly": True}, (["mail"], ["mail"], ["mail"])),
        ({"alert_mail_to": ["a@b"], "alert_daily": True, "alert_daily_mail_to": []}, (["mail"], [], [])),
        ({"alert_mail_to": ["a@b"], "alert_calls": False, "alert_daily": True}, ([], ["mail"], [])),
        ({"alert_weekly_mail_to": ["boss@b"], "alert_weekly": True}, ([], [], ["mail"])),
        ({"alert_slack_url": URL, "alert_webhook_url": URL}, (["slack", "webhook"], [], [])),
        ({"alert_daily_slack_url": URL, "alert_daily": True}, ([], ["slack"], [])),
        ({"alert_pager_key": "k"}, (["pager"], [], [])),
        # As -e gives them.
        ({"alert_mail_to": "a@b", "alert_calls": "false", "alert_daily": "true"}, ([], ["mail"], [])),
        ({"alert_slack_url": URL, "alert_pager_key": "k", "alert_calls": "no", "alert_weekly": "no"}, ([], [], [])),
        ({"alert_pager_key": "k", "alert_calls": False, "alert_daily": True}, ([], [], [])),
    ],
)
def test_who_is_told(given: dict[str, Any], channels: tuple[list[str], ...]) -> None:
    assert tuple(made("alert_channels", **given)[name] for name in ("call", "daily", "weekly")) == channels


def test_each_kind_of_message_has_its_own_recipients() -> None:
    given = {"alert_mail_to": ["dba@b"], "alert_weekly": True, "alert_weekly_mail_to": ["boss@b"]}
    assert made("alert_recipients", **given) == {"call": ["dba@b"], "daily": [], "weekly": ["boss@b"]}
    addresses = made("alert_addresses", alert_slack_url=URL, alert_daily=True, alert_daily_slack_url=f"{URL}/daily")
    assert (addresses["call"]["slack"], addresses["daily"]["slack"]) == (URL, f"{URL}/daily")


@pytest.mark.parametrize(
    ("given", "ran"),
    [
        ({}, ["backup", "vacuum"]),
        ({"vacuum_actions": ["analyze"]}, ["backup"]),
        ({"vacuum_actions": "analyze"}, ["backup"]),
        ({"vacuum_actions": ["vacuum", "analyze"]}, ["backup", "vacuum"]),
        ({"ansible_run_tags": ["vacuum"]}, ["vacuum"]),
        ({"ansible_run_tags": ["vacuum"], "vacuum_actions": ["analyze"]}, []),  # which is no night's work
        ({"maintenance_only_assess": True}, []),
    ],
)
def test_what_a_night_has_carried_out(given: dict[str, Any], ran: list[str]) -> None:
    """Statistics between the nights must not hide that these have stopped."""
    plays = yaml.safe_load((ROLE.parents[1] / "playbooks/maintenance.yml").read_text(encoding="utf-8"))
    (task,) = (task for play in plays for task in play["tasks"] if task["name"] == "Alert")
    known = {"maintenance_chosen": ["backup", "vacuum"], "ansible_run_tags": ["all"], **given}
    assert Templar(DataLoader(), known).template(trust_as_template(task["vars"]["alert_ran"])) == ran
