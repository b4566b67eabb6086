# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as they are asked: tags, operations, surveys, windows, stops; and the roles by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server
from tests.playbook import environment, play, variables

from .churn import churn
from .conftest import Pool
from .module_runner import start, until
from .playing import Hosts, Inventory, churned, leave_an_invalid_index, said, write_hosts


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return partial(write_hosts, tmp_path)


@pytest.fixture
def files(lite: Callable[[str], Path]) -> Callable[..., Hosts]:
    return partial(churned, lite)


# ---- what is asked for -----------------------------------------------------------------------------------------------


def test_tags_and_operations_pick(files: Callable[..., Hosts], inventory: Inventory) -> None:
    where = inventory(files("file"))
    for arguments in (("--skip-tags", "vacuum"), ("--tags", "backup"), ("-e", '{"maintenance_operations": []}')):
        played = play("maintenance", where, *arguments)
        assert played.code == 0, said(played)
        assert played.of("db_assess_facts").keys() == {"file"}
        assert not played.of("db_vacuum")
    for arguments in (("--tags", "vacuum"), ("-e", '{"maintenance_operations": ["vacuum"]}')):
        played = play("maintenance", where, "--check", *arguments)
        assert played.code == 0, said(played)
        assert played.of("db_vacuum")["file"].fact["summary"]["planned"] > 0


def test_each_operation_has_a_tag_of_its_name(
    pool: Pool, database: Callable[[Server], str], inventory: Inventory
) -> None:
    server = pool.get("postgresql-16")
    name = database(server)
    churn(server, name)
    leave_an_invalid_index(server, name)
    where = inventory({"db": {**variables(server), "db_databases": [name]}})
    for arguments, modules in (
        (("--tags", "reindex"), {"db_reindex"}),
        (("-e", '{"maintenance_operations": ["refresh_views"]}'), {"db_refresh_views"}),
        (("--skip-tags", "reindex"), {"db_vacuum", "db_refresh_views"}),
    ):
        played = play("maintenance", where, "--check", *arguments)
        assert played.code == 0, said(played)
        assert {c.module for c in played.calls} == {"db_assess_facts", *modules}


def test_an_operation_that_is_none_is_refused_before_anything_is_touched(
    files: Callable[..., Hosts], inventory: Inventory
) -> None:
    played = play("maintenance", inventory(files("file")), "-e", '{"maintenance_operations": ["vacuum", "vacum"]}')
    assert played.code == 2
    assert "there is no vacum. There are: backup, cleanup, vacuum" in played.text
    assert not any(call.status == "ok" for call in played.calls)


def test_a_survey_hands_over_text(files: Callable[..., Hosts], inventory: Inventory) -> None:
    survey = {"maintenance_hosts": "one", "maintenance_jobs": "4", "vacuum_dead_percent": "20", "vacuum_force": "false"}
    arguments = [word for name, value in survey.items() for word in ("-e", f"{name}={value}")]
    played = play("maintenance", inventory(files("one", "two")), *arguments)
    assert played.code == 0, said(played)
    assert played.of("db_vacuum").keys() == {"one"}
    asked = played.of("db_vacuum")["one"].result["invocation"]["module_args"]
    assert (asked["jobs"], asked["dead_percent"], asked["force"]) == (4, 20.0, False)


def test_variables_reach_assessment_and_module_alike(files: Callable[..., Hosts], inventory: Inventory) -> None:
    wanted = {
        "vacuum_reclaim_percent": 99,
        "reindex_bloat_percent": 44,
        "refresh_views_max_age": "1d",
        "maintenance_statistics": True,
        "statistics_long_query": "7m",
        "maintenance_jobs": 3,
        "maintenance_time_budget": "1h",
        "db_tables": ["jobs"],
    }
    played = play("maintenance", inventory({"file": {**files("file")["file"], **wanted}}), "--check")
    assessed = played.of("db_assess_facts")["file"].result["invocation"]["module_args"]
    vacuumed = played.of("db_vacuum")["file"].result["invocation"]["module_args"]
    assert assessed["reindex"]["bloat_percent"] == 44
    assert assessed["refresh_views"]["max_age"] == "1d"
    assert assessed["statistics_options"]["long_query"] == "7m"
    policy = {name: vacuumed[name] for name in assessed["vacuum"]}
    assert policy == assessed["vacuum"]
    assert policy["reclaim_percent"] == 99
    assert vacuumed["time_budget"] == "1h"
    for asked in (assessed, vacuumed):
        assert asked["jobs"] == 3
        assert asked["tables"] == ["jobs"]


# ---- preflight -------------------------------------------------------------------------------------------------------


def test_outside_the_window_nothing_is_done_and_nothing_is_wrong(
    files: Callable[..., Hosts], inventory: Inventory
) -> None:
    hosts = files("file")
    file = Path(hosts["file"]["db_databases"][0])
    hour = datetime.now(UTC).hour
    later = f"{(hour + 3) % 24:02}:00-{(hour + 5) % 24:02}:00"
    before = file.read_bytes()
    played = play("maintenance", inventory(hosts, maintenance_window=later))
    assert played.code == 0, said(played)
    assert not played.of("db_vacuum")
    assert file.read_bytes() == before
    assert "file: not started: it is " in played.text


def test_a_host_that_lacks_free_space_is_not_touched_and_fails(
    files: Callable[..., Hosts], inventory: Inventory
) -> None:
    hosts = files("file")
    file = Path(hosts["file"]["db_databases"][0])
    before = file.read_bytes()
    played = play("maintenance", inventory(hosts), "-e", "preflight_min_free_percent=100")
    assert played.code == 2
    assert not played.of("db_vacuum")
    assert file.read_bytes() == before
    assert "file: Not started: " in played.text.split("PLAY [Trouble]")[1]


# ---- stop ------------------------------------------------------------------------------------------------------------


def test_stop_reaches_a_run_that_is_at_work(
    pool: Pool, database: Callable[[Server], str], inventory: Inventory, tmp_path: Path
) -> None:
    import psycopg2

    server = pool.get("postgresql-16")
    name = database(server)
    churn(server, name)
    login: dict[str, Any] = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    where = inventory({"db": variables(server)})
    # Others may be at work on this machine, too: only runs beside the test's own journal are meant.
    here = ("-e", '{"stop_directories": []}')
    patient = {"lock_timeout": "1m", "jobs": 1, "journal": str(tmp_path / "journal.sqlite"), "databases": [name]}
    holder = psycopg2.connect(dbname=name, **login)
    try:
        holder.cursor().execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        running = start("db_vacuum", {**server.login(), **patient})
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'VACUUM%'"
        until(lambda: server.sql(waiting) != [["0"]], what="the run waits for the lock")
        asked = play("stop", where, "--check", *here)
        assert asked.code == 0, said(asked)
        assert f"At work: db_vacuum on {server.host}:{server.port}" in asked.text
        assert running.poll() is None
        stopped = play("stop", where, *here)
        assert stopped.code == 0, said(stopped)
        assert f"Stopped: db_vacuum on {server.host}:{server.port}" in stopped.text
    finally:
        holder.close()
    ended = running.wait(30)
    assert any("stop request" in (step["error"] or "") for step in ended.fact()["steps"])
    again = play("stop", where, *here)
    assert again.code == 0
    assert again.recap("db") == {**again.recap("db"), "ok": 1, "changed": 0}


def test_stop_does_not_wait_for_the_dead(inventory: Inventory, tmp_path: Path) -> None:
    tested_state = tmp_path / "state"
    registered = tested_state / "running"
    registered.mkdir(parents=True)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    about = '{"pid": %d, "born": "%s", "module": "db_vacuum", "address": "x"}'
    (registered / f"{ended.pid}.json").write_text(about % (ended.pid, "1"))
    # The number of another process: ours, born at another time.
    (registered / f"{os.getpid()}.json").write_text(about % (os.getpid(), "1"))
    arguments = ("-e", f'{{"stop_directories": ["{tested_state}"], "stop_timeout": 5}}')
    played = play("stop", inventory({"db": {"db_engine": "sqlite"}}), *arguments)
    assert played.code == 0, said(played)
    assert played.recap("db")["changed"] == 0
    assert not list(registered.glob("*.stop"))


# ---- the roles by themselves -----------------------------------------------------------------------------------------

ALONE = """
- hosts: all
  gather_facts: false
  module_defaults:
    group/dbfleet.maintenance.all: {{engine: sqlite, databases: ["{file}"], journal: none}}
  roles:
    - role: dbfleet.maintenance.preflight
    - role: dbfleet.maintenance.cleanup
    - role: dbfleet.maintenance.vacuum
    - role: dbfleet.maintenance.reindex
    - role: dbfleet.maintenance.refresh_views
"""


def _alone(tmp_path: Path, where: Path, file: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    playbook = tmp_path / "alone.yml"
    playbook.write_text(ALONE.format(file=file))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(where), str(playbook), *arguments]
    env = {**os.environ, **environment()}
    return subprocess.run(command, env=env, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_roles_work_without_the_playbooks(files: Callable[..., Hosts], inventory: Inventory, tmp_path: Path) -> None:
    hosts = files("file")
    where = inventory(hosts)
    (file,) = hosts["file"]["db_databases"]
    first = _alone(tmp_path, where, file)
    assert first.returncode == 0, first.stdout
    assert "changed=1" in first.stdout
    again = _alone(tmp_path, where, file)
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout
    refused = _alone(tmp_path, where, file, "-e", "preflight_min_free_percent=100")
    assert refused.returncode == 2
    assert "Maintenance must not start: " in refused.stdout
    wrong = _alone(tmp_path, where, file, "-e", "vacuum_reclaim_method=quick")
    assert wrong.returncode == 2
    assert "value of vacuum_reclaim_method must be one of: online, exclusive" in wrong.stdout
