# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nights over real SSH connections: a host out of reach, one that dies in the middle, one whose connection is cut."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fleet import Missing, Server
from tests.fleet.cache import fleet_base
from tests.fleet.processes import give_away
from tests.playbook import Played, play, variables

from . import pg
from .churn import churn, churn_file
from .conftest import Pool, missing
from .module_runner import until
from .playing import Hosts, said, write_hosts
from .sshd import Ssh, Sshd

WAITING = """
SELECT count(*) FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.database
 WHERE d.datname = '{name}' AND NOT l.granted"""
LOCKED = "LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"
SESSIONS = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = '{name}'"


@pytest.fixture
def ssh() -> Iterator[Ssh]:
    """In a folder that another user gets to, too, and whose name is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ssh-", dir=fleet_base()))
    try:
        folder.chmod(0o755)
        yield Ssh(folder)
    except Missing as why:
        missing(why)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_of(ssh: Ssh, host: str, address: str, *, pipelining: bool) -> Hosts:
    """A churned SQLite file with a journal beside it, on a host of its own."""
    folder = ssh.folder / host
    folder.mkdir(mode=0o755)
    path = folder / "shop.sqlite3"
    churn_file(path)
    sqlite = {"db_engine": "sqlite", "db_databases": [str(path)], "vacuum_reclaim_method": "exclusive"}
    own = {"maintenance_journal": str(folder / "journal.sqlite"), "ansible_pipelining": pipelining}
    return {host: {**ssh.variables(address), **sqlite, **own}}


def given_away(hosts: Hosts) -> Hosts:
    """Files of another user, who is to be become: nobody else is let write to them. Only root can."""
    if os.geteuid() == 0:
        for host in hosts.values():
            for path in (Path(host["db_databases"][0]), Path(host["db_databases"][0]).parent):
                give_away(path)
            other = path.owner()
            # Debian's Python: this one may lie where only root gets to. Such a user may have no shell.
            host |= {"ansible_python_interpreter": "/usr/bin/python3", "ansible_become": True}
            host |= {"ansible_remote_tmp": str(path / "tmp")}
            host |= {"ansible_become_method": "su", "ansible_become_user": other, "ansible_become_flags": "-s /bin/sh"}
    return hosts


def killed(registered: Path, database: str) -> None:
    """Work goes on by itself where only the connection is lost, and dies with its machine."""
    facts = [json.loads(file.read_text(encoding="utf-8")) for file in registered.glob("*.json")]
    (pid,) = [found["pid"] for found in facts if found["databases"] == [database]]
    os.kill(pid, signal.SIGKILL)


def states(report: Path) -> dict[str, str]:
    """Of the hosts, by the report's data."""
    return {host["host"]: host["state"] for host in json.loads(report.with_suffix(".json").read_text())["hosts"]}


def test_one_host_is_out_of_reach_and_one_dies_and_the_others_finish(
    ssh: Ssh, pool: Pool, database: Callable[[Server], str]
) -> None:
    server = pool.get("postgresql-16")
    name, cut = database(server), database(server)
    for each in (name, cut):
        churn(server, each)
    # What is done once for all is done by the first.
    hosts = file_of(ssh, "gone", "127.0.0.6", pipelining=True)
    # Nobody waits long for a machine that is dead.
    hosts["dying"] = {**ssh.variables("127.0.0.5"), **variables(server), "maintenance_reconnect": "1s"}
    hosts["dying"]["db_databases"] = [name]
    hosts["cut"] = {**ssh.variables("127.0.0.7"), **variables(server), "db_databases": [cut]}
    hosts |= file_of(ssh, "plain", "127.0.0.2", pipelining=True)
    hosts |= given_away(file_of(ssh, "other", "127.0.0.3", pipelining=False))
    page = ssh.folder / "night.html"
    where = write_hosts(
        ssh.folder,
        hosts,
        report_path=str(page),
        report_charts=False,
        maintenance_operations=["vacuum"],
        maintenance_lock_timeout="60s",
        maintenance_jobs=1,
    )

    def night(*arguments: str) -> Played:
        return play("maintenance", where, *arguments, env=ssh.environment())

    def asked(question: str, database: str = name) -> int:
        return int(server.sql(question.format(name=database))[0][0])

    with Sshd(ssh, "127.0.0.2", "127.0.0.3"), ThreadPoolExecutor() as beside:
        with (
            Sshd(ssh, "127.0.0.5") as dying,
            Sshd(ssh, "127.0.0.7") as cut_off,
            pg.transaction(server, name, LOCKED),
        ):
            running = beside.submit(night)
            with pg.transaction(server, cut, LOCKED):
                until(lambda: (asked(WAITING) and asked(WAITING, cut)) or running.done(), 120, "vacuums that wait")
                assert not running.done(), said(running.result())
                dying.kill()
                killed(ssh.folder / "running", name)
                cut_off.kill()
            with Sshd(ssh, "127.0.0.7"):
                first = running.result()
        assert first.code != 0
        found = dict.fromkeys(hosts, "done") | {"gone": "unreachable", "dying": "unreachable"}
        assert states(page) == found, said(first)
        for host, state in found.items():
            assert first.recap(host)["failed"] == (state != "done"), said(first)
        trouble = first.text.split("PLAY [Trouble]")[1]
        assert "gone: out of reach: " in trouble
        assert "dying: out of reach: " in trouble
        assert first.of("db_vacuum").keys() == {"plain", "other", "dying", "cut"}
        steps = first.of("db_vacuum")["cut"].fact["steps"]
        assert steps and {step["status"] for step in steps} == {"done"}, "it was picked up again"
        assert all(f">{host}<" in page.read_text(encoding="utf-8") for host in ("gone", "dying"))

        until(lambda: not asked(SESSIONS), what="the end of what the server did for the dead")
        with Sshd(ssh, "127.0.0.5", "127.0.0.6"):
            again = night("--limit", "gone,dying,plain")
    assert again.code == 0, said(again)
    assert again.of("db_vacuum").keys() == {"gone", "dying"}
    assert states(page) == {"gone": "done", "dying": "done", "plain": "healthy"}
