# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""examples/awx-project: what its setup makes in AWX, by AWX's own modules, and that jobs get what they understand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.playbook import ROOT, environment, play
from tests.playbook.awx import TOKEN, Awx, Item, answers, served

from .playing import churned, said, write_hosts

PROJECT = ROOT / "examples" / "awx-project"
PASSWORD = "correct horse battery"
ADDRESS = "https://chat.example.com/hooks/whoever-knows-it"
# What these modules import is there before Ansible forks, and no certificates are read for an address without TLS.
PLAYBOOK = """
import ansible.module_utils.testing, ansible.module_utils.urls
from ansible.cli.playbook import main
main()
"""
SETTINGS: dict[str, Any] = {
    "setup_project_url": "https://git.example.com/databases.git",
    "setup_image": "registry.example.com/dbfleet-ee:1",
    "setup_login_password": PASSWORD,
    "setup_alert_secrets": {"slack_url": ADDRESS},
    "setup_credentials": ["key of the hosts"],
    "setup_instance_groups": ["near the databases", "default"],
    "setup_job_slices": 3,
    "setup_report_path": "/srv/report/databases.html",
    "setup_metrics_path": "/srv/report/databases.prom",
    "setup_approval_notifications": ["people on duty"],
}


class Made(NamedTuple):
    """AWX after two runs, what these printed, and what the second one wrote."""

    awx: Awx
    first: str
    second: str
    written_again: list[Any]


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    awx = Awx(PROJECT)
    awx.make("organizations", name="Default")
    machine = awx.make("credential_types", name="Machine", inputs={"fields": [], "required": []})
    awx.make("credentials", name="key of the hosts", credential_type=machine["id"])
    for name in ("default", "near the databases"):
        awx.make("instance_groups", name=name)
    awx.make("notification_templates", name="people on duty")
    with served(awx) as address:
        first = set_up(address)
        awx.writes.clear()
        second = set_up(address)
        yield Made(awx, first, second, list(awx.writes))


def set_up(address: str) -> str:
    """Runs setup.yml, which has to end well."""
    more = {"CONTROLLER_HOST": address, "CONTROLLER_OAUTH_TOKEN": TOKEN, "ANSIBLE_LOCALHOST_WARNING": "false"}
    more |= {"ANSIBLE_ACTION_PLUGINS": str(ROOT / "tests" / "playbook" / "in_process"), "SSL_CERT_FILE": os.devnull}
    # -v shows what each module returned.
    command = [sys.executable, "-c", PLAYBOOK, "setup.yml", "-v", "-e", json.dumps(SETTINGS)]
    env = {**os.environ, **environment(), **more, "SSL_CERT_DIR": os.devnull}
    done = subprocess.run(
        command, cwd=PROJECT, env=env, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# ---- what is there ---------------------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing(made: Made) -> None:
    assert re.search(r"changed=1\d ", made.first)
    assert re.search(r"changed=0 ", made.second)
    assert made.written_again == []
    assert made.awx.unknown == []


def test_no_secret_is_in_the_output_or_in_what_can_be_read(made: Made) -> None:
    readable = made.first + made.second + json.dumps(made.awx.items)
    kept = {name: made.awx.secrets[found["id"]] for name, found in made.awx.named("credentials").items()}
    assert kept["Databases: login"]["password"] == PASSWORD
    assert kept["Databases: alert"]["slack_url"] == ADDRESS
    assert PASSWORD not in readable
    assert ADDRESS not in readable
    types = made.awx.named("credential_types")
    alert = {"slack_url", "webhook_url", "pager_key", "mail_password"}
    for name, secrets in (("login", {"password"}), ("TLS", {"ssl_key"}), ("alert", alert)):
        assert {
            field["id"] for field in types[f"Databases: {name}"]["inputs"]["fields"] if field.get("secret")
        } == secrets
    assert types["Databases: login"]["injectors"]["extra_vars"] == {
        "db_login_user": "{{ username }}",
        "db_login_password": "{{ password }}",
    }


def test_each_playbook_has_a_template_to_check_and_one_to_run(made: Made) -> None:
    templates = made.awx.named("job_templates").values()
    types = {name: {x["job_type"] for x in templates if x["playbook"] == name} for name in playbooks()}
    reading = {"assess.yml", "alert.yml", "report.yml", "anything_due.yml"}
    assert types == {name: {"run"} if name in reading else {"check", "run"} for name in playbooks()}
    assert not any(x["allow_simultaneous"] for x in templates)
    sliced = {"maintenance.yml", "backup.yml", "cleanup.yml", "assess.yml"}
    assert {x["playbook"]: x["job_slice_count"] for x in templates} == {
        name: 3 if name in sliced else 1 for name in playbooks()
    }


def test_every_playbook_of_the_collection_is_in_the_project() -> None:
    """But for the one that writes crontabs: here AWX has the schedules."""
    ours = {path.name for path in (ROOT / "playbooks").glob("*.yml")} - {"schedule.yml"}
    assert ours == playbooks() - {"anything_due.yml"}
    for name in ours:
        (line,) = yaml.safe_load((PROJECT / name).read_text(encoding="utf-8"))
        assert line["ansible.builtin.import_playbook"] == f"dbfleet.maintenance.{Path(name).stem}"


def playbooks() -> set[str]:
    """Those of the project that AWX shows, but for the one that makes all this."""
    return {path.name for path in PROJECT.glob("*.yml")} - {"setup.yml", "execution-environment.yml"}


def test_every_job_has_its_surroundings(made: Made) -> None:
    awx, wanted = made.awx, {}
    for endpoint, name in (
        ("projects", "Databases: project"),
        ("inventories", "Databases: inventory"),
        ("execution_environments", "Databases: execution environment"),
        ("organizations", "Default"),
    ):
        wanted[endpoint] = awx.named(endpoint)[name]["id"]
    groups = [awx.named("instance_groups")[name]["id"] for name in SETTINGS["setup_instance_groups"]]
    keys = {
        awx.named("credentials")[name]["id"] for name in ("Databases: login", "Databases: alert", "key of the hosts")
    }
    for template in awx.named("job_templates").values():
        assert template["project"] == wanted["projects"]
        assert template["inventory"] == wanted["inventories"]
        assert template["execution_environment"] == wanted["execution_environments"]
        assert template["organization"] == wanted["organizations"]
        assert awx.linked("job_templates", template, "instance_groups") == groups  # the first is the preferred one
        assert set(awx.linked("job_templates", template, "credentials")) == keys
    (source,) = awx.named("inventory_sources").values()
    assert (source["source_project"], source["update_on_launch"]) == (wanted["projects"], True)


def test_schedules_are_of_what_they_name(made: Made) -> None:
    names = {x["id"]: x["name"] for kind in ("job_templates", "workflow_job_templates") for x in each(made.awx, kind)}
    found = {names[x["unified_job_template"]]: x["enabled"] for x in each(made.awx, "schedules")}
    assert found["Databases: maintenance with approval"] is True
    assert found["Databases: maintenance, run"] is False  # one of the two
    assert found["Databases: alert"] is True
    assert {"Databases: assess", "Databases: backup, run", "Databases: restore drill, run"} < set(found)


def each(awx: Awx, endpoint: str) -> list[Item]:
    """All of a kind."""
    return list(awx.items[endpoint].values())


def test_jobs_get_only_variables_that_are_known(made: Made) -> None:
    awx = made.awx
    asked = {question["variable"] for survey in awx.surveys.values() for question in survey["spec"]}
    given = {name for x in each(awx, "job_templates") for name in json.loads(x["extra_vars"] or "{}")}
    injected = {name for x in each(awx, "credential_types") for name in x["injectors"].get("extra_vars", {})}
    assert asked == {"maintenance_hosts", "maintenance_operations", "maintenance_time_budget"}
    assert given == {"report_path", "report_metrics_path"}
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("playbooks/*.yml"))
    text += "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    # A variable of the role's own is one of its options; the others are those of the playbooks.
    assert {name for name in asked | given | injected if not re.search(rf"\b{name}\b", text)} == set()
    known = yaml.safe_load((ROOT / "roles/report/meta/argument_specs.yml").read_text(encoding="utf-8"))
    assert given <= set(known["argument_specs"]["main"]["options"])


# ---- the workflow ----------------------------------------------------------------------------------------------------


def walked(awx: Awx, ended_well: Mapping[str, bool]) -> list[str]:
    """The nodes that AWX runs, in order: one starts when a parent that ran leads to it, as none is left to wait for."""
    nodes = {x["id"]: x for x in each(awx, "workflow_job_template_nodes")}
    follows = {
        number: {
            True: awx.linked("workflow_job_template_nodes", node, "success_nodes")
            + awx.linked("workflow_job_template_nodes", node, "always_nodes"),
            False: awx.linked("workflow_job_template_nodes", node, "failure_nodes")
            + awx.linked("workflow_job_template_nodes", node, "always_nodes"),
        }
        for number, node in nodes.items()
    }
    reached = {child for ways in follows.values() for children in ways.values() for child in children}
    line, ran = [number for number in nodes if number not in reached], []
    while line:
        number = line.pop(0)
        name = nodes[number]["identifier"]
        ran.append(name)
        line += follows[number][ended_well[name]]
    return ran


@pytest.mark.parametrize(
    ("failed", "way"),
    [
        (set(), "check, anything due, report"),
        ({"check"}, "check, anything due, report"),
        ({"anything due"}, "check, anything due, approval, run, report"),
        ({"anything due", "run"}, "check, anything due, approval, run, report"),
        ({"anything due", "approval"}, "check, anything due, approval, report"),
        ({"check", "anything due", "approval"}, "check, anything due, approval, report"),
    ],
)
def test_the_workflow_asks_only_where_something_is_due_and_always_reports(
    made: Made, failed: set[str], way: str
) -> None:
    names = {x["identifier"] for x in each(made.awx, "workflow_job_template_nodes")}
    assert names == {"check", "anything due", "approval", "run", "report"}
    assert ", ".join(walked(made.awx, {name: name not in failed for name in names})) == way


def test_the_workflow_runs_what_it_says_and_tells_who_has_to_approve(made: Made) -> None:
    awx = made.awx
    unified = {x["id"]: x for kind in ("job_templates", "workflow_approval_templates") for x in each(awx, kind)}
    nodes = {x["identifier"]: unified[x["unified_job_template"]] for x in each(awx, "workflow_job_template_nodes")}
    check, run = nodes["check"], nodes["run"]
    assert (check["playbook"], check["job_type"]) == ("maintenance.yml", "check")
    assert (run["playbook"], run["job_type"]) == ("maintenance.yml", "run")
    assert (nodes["anything due"]["playbook"], nodes["report"]["playbook"]) == ("anything_due.yml", "report.yml")
    assert (nodes["approval"]["type"], nodes["approval"]["timeout"]) == ("workflow_approval_template", 43200)
    (workflow,) = each(awx, "workflow_job_templates")
    duty = awx.named("notification_templates")["people on duty"]["id"]
    assert awx.linked("workflow_job_templates", workflow, "notification_templates_approvals") == [duty]
    # A limit of the workflow is for its jobs; the fork looks at no host, and could not see itself behind a limit.
    assert [nodes[name]["ask_limit_on_launch"] for name in ("check", "run", "report")] == [True] * 3
    assert nodes["anything due"]["ask_limit_on_launch"] is False


# ---- its jobs --------------------------------------------------------------------------------------------------------


def job(playbook: str, inventory: Path, variables: Mapping[str, Any], *arguments: str) -> Any:
    """As AWX starts it."""
    given = json.dumps({"awx_job_id": 7, **variables})
    stats = {"ANSIBLE_SHOW_CUSTOM_STATS": "true"}
    return play(f"../examples/awx-project/{playbook}", inventory, "-e", given, *arguments, env=stats)


def handed_on(text: str) -> dict[str, Any]:
    """What set_stats leaves for the next nodes."""
    found = re.search(r"RUN: (\{.*\})", text, re.DOTALL)
    assert found, text
    stats: dict[str, Any] = json.JSONDecoder().raw_decode(found.group(1))[0]
    return stats


def test_a_check_with_answers_leads_to_the_question(made: Made, lite: Callable[[str], Path], tmp_path: Path) -> None:
    where = write_hosts(tmp_path, churned(lite, "good", "other"))
    (workflow,) = each(made.awx, "workflow_job_templates")
    survey = made.awx.surveys[workflow["id"]]
    assert answers(survey, {}) == {}  # what nobody answered is left out, or "" would be no duration
    given = {"maintenance_hosts": "goo*", "maintenance_operations": ["vacuum"], "maintenance_time_budget": "30m"}
    variables = {**answers(survey, given), "db_login_user": "dbfleet", "db_login_password": PASSWORD}
    assert variables.keys() >= given.keys()

    check = job("maintenance", where, variables, "--check")
    assert check.code == 0, said(check)
    assert list(check.of("db_vacuum")) == ["good"]
    assert check.of("db_vacuum")["good"].result["invocation"]["module_args"]["time_budget"] == "30m"
    stats = handed_on(check.text)
    assert (stats["dbfleet_summary_7"]["hosts"], stats["dbfleet_summary_7"]["due"]) == (1, 1)

    # Slices hand on one each.
    due = job("anything_due", where, {**stats, "dbfleet_summary_8": {"hosts": 4, "due": 0, "text": "4 well"}})
    assert due.code == 2
    assert "Something is due on 1 of 5 hosts" in due.text
    quiet = job("anything_due", where, {"dbfleet_summary_8": {"hosts": 4, "due": 0, "text": "4 well"}})
    assert quiet.code == 0
    assert "4 well" in quiet.text
    lost = job("anything_due", where, {})
    assert lost.code == 2
    assert "handed nothing on" in lost.text
