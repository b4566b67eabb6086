# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows by the playbooks, as cron and AWX run them: rules of the inventory, rules of the command line, refusals."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from os import environ
from pathlib import Path
from typing import Any

import pytest

from tests.demo import aging
from tests.fleet import Server
from tests.playbook import environment, play, steps, variables

from .cleanup import digest, rows_in_files, rows_of
from .conftest import Pool
from .playing import SERVERS, Hosts, Inventory, said, write_hosts

TABLES = ("django_session", "audit_log", "sales_orders")
RULE = {"name": "old entries", "table": "audit_log", "date_column": "created_at", "delete_after": "90d"}


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return partial(write_hosts, tmp_path)


@pytest.fixture
def files(lite: Callable[[str], Path]) -> Callable[..., Hosts]:
    """Makes SQLite files in which much has aged, each a host."""

    def make(*names: str) -> Hosts:
        for name in names:
            aging.age_file(lite(name))
        return {name: {"db_engine": "sqlite", "db_databases": [str(lite(name))]} for name in names}

    return make


def file_of(hosts: Hosts, name: str) -> Path:
    return Path(hosts[name]["db_databases"][0])


def count(file: Path, table: str) -> int:
    with closing(sqlite3.connect(file)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# ---- the main thing --------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(pool: Pool, database: Callable[[Server], str], files: Callable[..., Hosts]) -> Hosts:
    """A database on every engine in which much has aged; those of servers have partitions, too."""
    hosts = files("file")
    for key in SERVERS:
        server = pool.get(key)
        name = database(server)
        aging.age(server, name)
        hosts[key] = {**variables(server), "db_databases": [name], **aging.variables_of_servers()}
    return hosts


def test_a_mixed_fleet_is_cleaned_up_as_checked_and_then_left_alone(
    mixed: Hosts, inventory: Inventory, pool: Pool, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    places: dict[str, Any] = {key: pool.get(key) for key in SERVERS} | {"file": file_of(mixed, "file")}
    names = {host: "" if host == "file" else found["db_databases"][0] for host, found in mixed.items()}
    before = {host: rows_of(places[host], "audit_log", database=name) for host, name in names.items()}
    where = inventory(mixed, **aging.variables(archive))
    check = play("maintenance", where, "--check", "--diff")
    assert not archive.exists()
    for host, name in names.items():
        assert digest(rows_of(places[host], "audit_log", database=name)) == digest(before[host])
    first = play("maintenance", where, "--diff")
    again = play("maintenance", where)
    assert [check.code, first.code, again.code] == [0, 0, 0], said(first)
    assert steps([*check.of("db_cleanup").values()]) == steps([*first.of("db_cleanup").values()])
    assert set(first.of("db_cleanup")) == set(mixed)
    # Cleanup goes first: what it leaves behind is vacuumed in the same night.
    order = [call.module for call in first.calls if call.host == "postgresql-16"]
    assert order[:3] == ["db_assess_facts", "db_cleanup", "db_vacuum"]
    kept = [rows_of(places[host], "audit_log", database=name) for host, name in names.items()]
    assert digest(*kept, rows_in_files(archive)) == digest(*before.values())
    for host, call in first.of("db_cleanup").items():
        left = {(step["kind"], step["measured"].get("rule")): step for step in call.fact["steps"]}
        assert {("delete", "django_sessions"), ("archive", "audit_log"), ("archive", "deleted orders")} <= left.keys()
        assert (("drop_partition", "old events") in left) is (host != "file")
        entry = left["archive", "audit_log"]
        assert entry["actual"]["rows"] == entry["expected"]["rows"] == 3201
        assert (entry["actual"]["rows_remaining"], entry["actual"]["rows_held_back"]) == (0, 0)
    assert len(again.calls) == len(mixed)
    for host in mixed:
        assert again.recap(host)["changed"] == 0
        assert f'"{host}: nothing due"' in again.text


# ---- rules -----------------------------------------------------------------------------------------------------------


def test_without_rules_nobody_looks_for_old_rows(files: Callable[..., Hosts], inventory: Inventory) -> None:
    played = play("maintenance", inventory(files("file")), "--check")
    assert played.code == 0, said(played)
    assert played.of("db_assess_facts")["file"].result["invocation"]["module_args"]["cleanup"] is None
    assert not played.of("db_cleanup")
    picked = inventory(files("other"), cleanup_rules=[RULE], maintenance_operations=["vacuum"])
    played = play("maintenance", picked, "--check")
    assert not played.of("db_cleanup")


def test_rules_of_several_levels_merge_by_name(files: Callable[..., Hosts], inventory: Inventory) -> None:
    hosts = files("one", "two")
    hosts["two"] |= {
        "cleanup_rules_50_group": [{"name": "orders", "table": "sales_orders", "delete_after": "800d"}],
        "cleanup_rules_90_host": [{"name": "orders", "date_column": "deleted_at"}, {"name": "old entries", "where": 1}],
        "cleanup_rules_91_host": [{"name": "old entries", "where": None, "delete_after": "80d"}],
        "cleanup_presets_host": [{"name": "django_sessions", "enabled": False}],
    }
    where = inventory(hosts, cleanup_rules=[RULE], cleanup_presets=["django_sessions", "rails_sessions"])
    played = play("cleanup", where, "--check")
    assert played.code == 0, said(played)
    assert {call.module for call in played.calls} == {"db_assess_facts", "db_cleanup"}
    for module in ("db_assess_facts", "db_cleanup"):
        asked = {host: call.result["invocation"]["module_args"] for host, call in played.of(module).items()}
        given = {host: args["cleanup"] if module == "db_assess_facts" else args for host, args in asked.items()}
        assert [_given(rule) for rule in given["one"]["rules"]] == [RULE]
        assert given["one"]["presets"] == ["django_sessions", "rails_sessions"]
        assert [_given(rule) for rule in given["two"]["rules"]] == [
            {**RULE, "delete_after": "80d"},
            {"name": "orders", "table": "sales_orders", "date_column": "deleted_at", "delete_after": "800d"},
        ]
        assert given["two"]["presets"] == [{"name": "django_sessions", "enabled": False}, "rails_sessions"]
    rules = {h: {s["measured"].get("rule") for s in c.fact["steps"]} for h, c in played.of("db_cleanup").items()}
    assert "django_sessions" in rules["one"]
    assert "django_sessions" not in rules["two"]
    assert {"old entries", "orders"} <= rules["two"]


def _given(rule: dict[str, Any]) -> dict[str, Any]:
    """Without what the module filled in."""
    return {name: rule[name] for name in ("name", "table", "date_column", "delete_after", "where") if rule[name]}


def test_one_rule_runs_now_with_other_values(files: Callable[..., Hosts], inventory: Inventory) -> None:
    hosts = files("file")
    file = file_of(hosts, "file")
    sessions = count(file, "django_session")
    where = inventory(hosts, cleanup_rules=[{**RULE, "enabled": False}], cleanup_presets=["django_sessions"])
    asked = ("-e", 'cleanup_only="old entries"', "-e", 'cleanup_override="delete_after=120d rows_per_run=100"')
    check = play("cleanup", where, "--check", *asked)
    assert count(file, "audit_log") == aging.ENTRIES
    played = play("cleanup", where, *asked)
    assert (check.code, played.code) == (0, 0), said(played)
    (step,) = (s for s in played.of("db_cleanup")["file"].fact["steps"] if s["kind"] == "delete")
    assert (step["actual"]["rows"], step["actual"]["rows_held_back"]) == (100, step["measured"]["rows"] - 100)
    assert count(file, "audit_log") == aging.ENTRIES - 100
    assert count(file, "django_session") == sessions
    assert "file: cleanup: 1 of 1 step done, 100 rows" in played.text
    wrong = play("cleanup", where, "-e", "cleanup_only=old")
    assert wrong.code == 2
    assert "only: there is no rule old. There are: old entries, django_sessions" in wrong.text


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_rule_that_cannot_be_meant_fails_its_host_and_no_other(
    files: Callable[..., Hosts], inventory: Inventory
) -> None:
    hosts = files("good", "bad")
    hosts["bad"]["cleanup_rules_host"] = [{"name": "old entries", "archive_after": "365d"}]
    played = play("cleanup", inventory(hosts, cleanup_rules=[RULE]))
    assert played.code == 2
    assert count(file_of(hosts, "bad"), "audit_log") == aging.ENTRIES
    assert count(file_of(hosts, "good"), "audit_log") < aging.ENTRIES
    told = played.text.split("PLAY [Trouble]")[1]
    assert "bad: rule old entries: archive_after 365d is not shorter than delete_after 90d" in told
    assert played.recap("good")["failed"] == 0


def test_a_rule_that_must_take_nothing_is_told_and_the_others_run(
    files: Callable[..., Hosts], inventory: Inventory
) -> None:
    hosts = files("file")
    file = file_of(hosts, "file")
    careful = {**RULE, "refuse_over_percent": 20}
    lost = {"name": "lost", "table": "no_such_log", "date_column": "at", "delete_after": "1d"}
    where = inventory(hosts, cleanup_rules=[careful, lost], cleanup_presets=["django_sessions"])
    played = play("cleanup", where)
    assert played.code == 0, said(played)
    assert count(file, "audit_log") == aging.ENTRIES
    assert count(file, "django_session") < aging.SESSIONS
    for words in (
        "rule old entries: nothing is removed: 3,201 of 8,000 rows (40 %) are due, over refuse_over_percent 20",
        "fix       If that is meant, set refuse_over_percent of this rule to ",
        "rule lost: no selected database has a table no_such_log",
    ):
        assert words in played.text
    again = play("cleanup", where)
    assert not again.of("db_cleanup")
    assert "over refuse_over_percent 20" in again.text


def test_a_wrong_password_names_the_server_and_not_the_password(pool: Pool, inventory: Inventory) -> None:
    server = pool.get("postgresql-16")
    wrong = {**variables(server), "db_login_password": "not the secret"}
    played = play("cleanup", inventory({"db": wrong}, cleanup_rules=[RULE]), "-v")
    assert played.code == 2
    assert "not the secret" not in played.text
    assert f"{server.host}:{server.port}" in played.text.split("PLAY [Trouble]")[1]


# ---- the role by itself ----------------------------------------------------------------------------------------------

ALONE = """
- hosts: all
  gather_facts: false
  module_defaults:
    group/dbfleet.maintenance.all: {{engine: sqlite, databases: ["{file}"], journal: none}}
  roles:
    - role: dbfleet.maintenance.cleanup
"""


def _alone(tmp_path: Path, where: Path, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    playbook = tmp_path / "alone.yml"
    playbook.write_text(ALONE.format(file=file))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(where), str(playbook), *arguments]
    env = {**environ, **environment()}
    return subprocess.run(command, env=env, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_the_role_works_without_the_playbooks(
    files: Callable[..., Hosts], inventory: Inventory, tmp_path: Path
) -> None:
    hosts = files("file")
    file = file_of(hosts, "file")
    where = inventory(hosts, cleanup_rules=[RULE], cleanup_rules_more=[aging.DELETED_ORDERS])
    first = _alone(tmp_path, where, file)
    assert first.returncode == 0, first.stdout
    assert (count(file, "audit_log"), count(file, "sales_orders_archive")) == (aging.ENTRIES - 3201, 438)
    again = _alone(tmp_path, where, file)
    assert "changed=0" in again.stdout
    wrong = _alone(tmp_path, where, file, "-e", "cleanup_partitions=all")
    assert wrong.returncode == 2
    assert "value of cleanup_partitions must be one of: auto, never" in wrong.stdout
