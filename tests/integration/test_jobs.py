# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that go on alone: shown on a terminal, silent elsewhere, killed, met by another run, and asked to stop."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.control import request_stop
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._following import Follower, Job, job_of
from tests.fleet import Server
from tests.playbook import play, variables

from . import pg
from .churn import churn
from .conftest import Pool
from .module_runner import run, start, until
from .playing import Hosts, said, write_hosts
from .test_check_equals_run import options

LOCKED = "LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"


def parted(text: str) -> Job:
    job = job_of(text)
    assert job, text
    return job


def result_of(job: Job) -> dict[str, Any]:
    def ask(command: str) -> str:
        return subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, text=True).stdout

    follower = Follower(job, ask=ask, show=None, every=1.0, lost=RuntimeError, patience=0.0)
    return dict(json.loads(follower.result()))


def progress_of(job: Job) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(job.progress).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def test_a_job_is_met_by_another_run_says_how_far_it_is_and_can_be_stopped(
    pool: Pool, database: Callable[[Server], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = pool.get("postgresql-16")
    name = database(server)
    churn(server, name)
    asked = options(server, name, tmp_path, lock_timeout="60s")
    with pg.transaction(server, name, LOCKED):
        with monkeypatch.context() as alone:
            alone.setenv("DBFLEET_JOB", "detach")
            job = parted(start("db_vacuum", asked).wait().text)
        assert stat.S_IMODE(Path(job.result).stat().st_mode) == 0o600
        until(lambda: progress_of(job).get("running"), what="a step in the file of progress")
        assert stat.S_IMODE(Path(job.progress).stat().st_mode) == 0o600
        assert str(server.password) not in Path(job.progress).read_text(encoding="utf-8")
        assert "another run is at work" in run("db_vacuum", asked, fails=True).result["msg"]
        waiting = start("db_vacuum", {**asked, "if_running": "wait"})
        beside = Path(job.progress).with_name(f"{waiting.pid}.progress")
        until(lambda: beside.exists() and "others" in beside.read_text(encoding="utf-8"), what="who is waited for")
        (other,) = json.loads(beside.read_text(encoding="utf-8"))["others"]
        assert (other["pid"], other["module"]) == (job.pid, "db_vacuum")
        assert other["running"], "and how far it is"
        waiting.send(signal.SIGTERM)
        assert waiting.wait().result["ansible_facts"]
        assert [facts["pid"] for facts in request_stop(tmp_path / "journal")] == [job.pid]
        found = result_of(job)
    assert not found.get("failed")
    steps = found["ansible_facts"]["db_vacuum"]["steps"]
    assert "stopped by a stop request" in {step["error"] for step in steps}, steps
    assert [file.name for file in (tmp_path / "journal" / "running").iterdir()] == []


def test_on_a_terminal_hosts_tell_how_far_they_are_and_one_that_is_killed_is_named(
    pool: Pool, database: Callable[[Server], str], tmp_path: Path
) -> None:
    server = pool.get("postgresql-16")
    names = {"slow": database(server), "killed": database(server)}
    for name in names.values():
        churn(server, name)
    hosts: Hosts = {
        host: {
            **variables(server),
            "db_databases": [name],
            "maintenance_journal": str(tmp_path / host / "journal.sqlite"),
        }
        for host, name in names.items()
    }
    shared = {"maintenance_operations": ["vacuum"], "maintenance_lock_timeout": "60s", "maintenance_jobs": 1}
    where = write_hosts(tmp_path, hosts, **shared)
    shown: list[str] = []

    def told(host: str) -> bool:
        return any(line.startswith(f"{host}: db_vacuum ") and " of public.jobs: " in line for line in shown)

    with ThreadPoolExecutor() as beside, pg.transaction(server, names["killed"], LOCKED):
        with pg.transaction(server, names["slow"], LOCKED):
            env = {"ANSIBLE_REMOTE_TMP": str(tmp_path / "tmp"), "ANSIBLE_PIPELINING": "false"}
            running = beside.submit(play, "maintenance", where, env=env, show=shown.append, terminal=True)
            until(lambda: all(map(told, hosts)) or running.done(), 60, "lines of both hosts")
            assert not running.done(), said(running.result())
            assert not list((tmp_path / "tmp").rglob("AnsiballZ_*")), "their arguments lie nowhere while they run"
            (registered,) = (tmp_path / "killed" / "running").glob("*.json")
            os.kill(int(registered.stem), signal.SIGKILL)
        played = running.result()
    assert played.code != 0
    calls = played.of("db_vacuum")
    failed, slow = calls["killed"].result, calls["slow"]
    assert "ended without a result" in failed["msg"], failed
    assert "of public.jobs" in failed["msg"]
    assert {step["status"] for step in slow.fact["steps"]} == {"done"}, slow
    assert not list((tmp_path / "slow" / "running").iterdir())
    assert {file.suffix for file in (tmp_path / "killed" / "running").iterdir()} == {".json"}

    # Into a pipe nothing is shown, and what the module returns is the same whichever way it was started.
    churn(server, names["slow"], again=True)
    hosts["slow"]["maintenance_progress"], hosts["killed"]["maintenance_progress"] = True, False
    piped = play("maintenance", write_hosts(tmp_path, hosts, **shared))
    assert piped.code == 0, said(piped)
    assert not any(f"{host}: db_vacuum " in piped.text for host in hosts)
    calls = piped.of("db_vacuum")
    alone, as_usual = calls["slow"], calls["killed"]
    assert alone.result.keys() == as_usual.result.keys() == slow.result.keys()
    assert alone.result["ansible_facts"].keys() == as_usual.result["ansible_facts"].keys() == {"db_vacuum"}
    assert alone.fact.keys() == as_usual.fact.keys()
    given = [call.result["invocation"]["module_args"] for call in (alone, as_usual)]
    assert {key for key in given[0] if given[0][key] != given[1][key]} == {"databases", "journal"}
    assert all({step["status"] for step in call.fact["steps"]} == {"done"} for call in (alone, as_usual))
    assert not [file for host in hosts for file in (tmp_path / host / "running").iterdir()]
