# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers, and single sessions of theirs, that freeze (SIGSTOP) while they are measured: the run ends, and says why."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import CannotConnect, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.control import request_stop
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.watch import Watch
from tests.fleet import Fleet, Server

from .module_runner import Ran, Running, run, start, until
from .pg import client, use
from .test_check_equals_run import options
from .test_runs import connected

MANY = 40  # databases: measuring them takes long enough to freeze in the middle of it


@pytest.fixture(scope="module", params=["postgresql-16", "mariadb", "mysql"])
def server(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Server]:
    """A server of its own: nobody else may meet it frozen."""
    product, _dash, major = str(request.param).partition("-")
    made: Server = (
        fleet.postgresql(int(major), name="frosty")
        if major
        else fleet.mysql(name="frosty")
        if product == "mysql"
        else fleet.mariadb(name="frosty")
    )
    for i in range(MANY):
        made.sql(f"CREATE DATABASE d{i}")
    yield made
    made.stop()


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """In the order given, and thawed the other way round."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def arrives(server: Server, child: Running) -> None:
    """Waits until the module measures: until it has been seen in the third of the databases."""
    seen: set[str] = set()
    question = "SELECT datname FROM pg_stat_activity WHERE application_name = 'dbfleet' AND datname LIKE 'd%'"
    if server.engine != "postgresql":
        question = "SELECT db FROM information_schema.processlist WHERE db LIKE 'd%'"
    with connected(server, "d0") as cursor:
        if server.engine == "postgresql":
            cursor.connection.autocommit = True

        def measures() -> bool:
            cursor.execute(question)
            seen.update(name for (name,) in cursor.fetchall())
            return len(seen - {"d0"}) >= 3

        until(measures, 20, "the measurement")
    assert child.poll() is None


def start_measuring(server: Server, tmp_path: Path, name: str = "db_vacuum", **more: Any) -> Running:
    asked = options(server, "*", tmp_path, **more) if name == "db_vacuum" else {**server.login(), **more}
    asked["databases"] = ["d*"]
    child = start(name, {**asked, "connect_timeout": 2, "jobs": 1})
    arrives(server, child)
    return child


def ended(child: Running, within: float) -> tuple[Ran, float]:
    began = time.monotonic()
    ran = child.wait(within)
    return ran, time.monotonic() - began


@pytest.mark.parametrize("name", ["db_vacuum", "db_bloat_facts", "db_assess_facts"])
def test_a_frozen_server_is_found_out(server: Server, tmp_path: Path, name: str) -> None:
    child = start_measuring(server, tmp_path, name)
    with frozen([server.pid, *children(server.pid)]):
        ran, seconds = ended(child, 60)
    assert ran.result["failed"]
    assert server.password not in ran.text
    assert f"{server.host}:{server.port}" in ran.result["msg"]
    assert "answer" in ran.result["msg"] or "connect_timeout" in ran.result["msg"]
    assert seconds < 30
    assert not list(tmp_path.glob("**/running/*"))
    assert run("db_vacuum", {**options(server, "*", tmp_path), "databases": ["d1*"]}).code == 0


def by_signal(child: Running, tmp_path: Path) -> None:
    child.send(signal.SIGTERM)


def by_file(child: Running, tmp_path: Path) -> None:
    (tmp_path / "stop").touch()


def by_request(child: Running, tmp_path: Path) -> None:
    assert [r["pid"] for r in request_stop(tmp_path / "journal")] == [child.pid]


def by_budget(child: Running, tmp_path: Path) -> None:
    """It has one already."""


STOPS: dict[Callable[[Running, Path], None], str] = {
    by_signal: "stopped by SIGTERM",
    by_file: "stopped by the stop file",
    by_request: "stopped by a stop request",
    by_budget: "the time budget ended",
}


@pytest.mark.parametrize("how", STOPS)
def test_a_stop_reaches_a_run_that_measures_a_frozen_server(
    server: Server, tmp_path: Path, how: Callable[[Running, Path], None]
) -> None:
    more = {"time_budget": "1s"} if how is by_budget else {}
    child = start_measuring(server, tmp_path, stop_file=str(tmp_path / "stop"), **more)
    with frozen([server.pid, *children(server.pid)]):
        how(child, tmp_path)
        ran, seconds = ended(child, 60)
    # Whoever is just connecting gives up by connect_timeout, and has ended cleanly.
    said = ran.result.get("msg") or next(f["message"] for f in ran.fact()["findings"] if f["code"] == "not_measured")
    assert STOPS[how] in said or (how is by_budget and "waiting" in said)
    assert ran.result.get("failed") is None or "answer" in said
    assert not ran.changed
    assert seconds < (25 if how is by_budget else 15)
    assert not list(tmp_path.glob("**/running/*"))


@pytest.mark.parametrize("how", [by_signal, by_file, by_request])
def test_a_stop_ends_a_measurement_cleanly(
    server: Server, tmp_path: Path, how: Callable[[Running, Path], None]
) -> None:
    """Of a server that answers: the run has not failed, it says that nothing was measured."""
    if server.engine != "postgresql":
        pytest.skip("nothing holds up a measurement of MySQL and MariaDB for as long as this needs")
    with client(server, "d7") as cursor:
        cursor.execute("BEGIN; LOCK pg_catalog.pg_statistic_ext IN ACCESS EXCLUSIVE MODE")
        child = start_measuring(server, tmp_path, stop_file=str(tmp_path / "stop"), lock_timeout="5m")
        how(child, tmp_path)
        ran, seconds = ended(child, 30)
    assert not ran.result.get("failed"), ran.text
    assert not ran.changed
    assert ran.steps() == []
    (finding,) = [f for f in ran.fact()["findings"] if f["code"] == "not_measured"]
    assert STOPS[how] in finding["message"]
    assert seconds < 8


def test_one_session_that_freezes(server: Server, tmp_path: Path) -> None:
    """The server answers others: only time tells, and a stop."""
    if server.engine != "postgresql":
        pytest.skip("a session of MySQL and MariaDB is a thread, which cannot freeze alone")
    with client(server, "d7") as cursor:
        cursor.execute("BEGIN; LOCK pg_catalog.pg_statistic_ext IN ACCESS EXCLUSIVE MODE")
        child = start_measuring(server, tmp_path, lock_timeout="5m")
        question = "SELECT pid FROM pg_stat_activity WHERE datname = 'd7' AND wait_event_type = 'Lock'"
        until(lambda: server.sql(question), 20, "the measurement of d7")
        pid = int(server.sql(question)[0][0])
        with frozen([pid]):
            cursor.execute("ROLLBACK")
            time.sleep(8)  # more than the patience: a new connection is answered, so it is waited for
            assert child.poll() is None
            child.send(signal.SIGTERM)
            ran, seconds = ended(child, 30)
    assert "does not answer (stopped by SIGTERM)" in ran.result["msg"]
    assert seconds < 15


@pytest.mark.parametrize("freezes", [True, False])
def test_one_question_takes_no_longer_than_the_longest(server: Server, freezes: bool) -> None:
    if server.engine != "postgresql":
        pytest.skip("the same watch, and no thread of MySQL freezes alone")
    with use(server) as used, used.engine.session("d0") as session:
        watch = Watch(used.engine, patience=0.5, longest=2.0)
        pid = int(session.rows("SELECT pg_backend_pid()")[0][0])

        def ask() -> Any:
            return session.rows("SELECT pg_sleep(30)")

        began = time.monotonic()
        if freezes:
            # While it runs: an idle process would forget the cancel that waits for it.
            freezer = threading.Timer(0.5, os.kill, (pid, signal.SIGSTOP))
            freezer.start()
            try:
                with pytest.raises(CannotConnect, match="does not answer"):
                    watch.run(ask)
            finally:
                freezer.join()
                os.kill(pid, signal.SIGCONT)
        else:
            with pytest.raises(Refused, match="longer than 2"):
                watch.run(ask)
        assert time.monotonic() - began < 10
        assert watch.abandoned is freezes
