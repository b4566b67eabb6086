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

# Databases of one run: it is caught in one that is neither the first nor the last. Those of PostgreSQL are large, and
# take longer to measure.
EACH = {"postgresql": 6, "mysql": 16, "mariadb": 16}
RUNS = 7  # at once, each in databases of its own


@pytest.fixture(scope="module")
def named(fleet: Fleet) -> Iterator[Callable[[str], Server]]:
    """Servers of its own: nobody else may meet them frozen."""
    made: dict[str, Server] = {}

    def get(name: str) -> Server:
        product, _dash, major = name.partition("-")
        if name not in made:
            starts = {"mysql": fleet.mysql, "mariadb": fleet.mariadb}
            made[name] = fleet.postgresql(int(major), name="frosty") if major else starts[product](name="frosty")
            every = (database for place in range(RUNS) for database in databases(made[name], place))
            made[name].script("".join(f"CREATE DATABASE {database};\n" for database in every))
        return made[name]

    yield get
    for server in made.values():
        server.stop()


@pytest.fixture(params=["postgresql-16", "mariadb", "mysql"])
def server(request: pytest.FixtureRequest, named: Callable[[str], Server]) -> Server:
    return named(str(request.param))


@pytest.fixture
def postgresql(named: Callable[[str], Server]) -> Server:
    """Only its sessions are processes, which can freeze alone; only there a lock holds a measurement up."""
    return named("postgresql-16")


def databases(server: Server, place: int) -> list[str]:
    each = EACH[server.engine]
    return [f"d{each * place + i}" for i in range(each)]


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


def caught(server: Server, child: Running, place: int) -> bool:
    """Lets it run until it measures one of its databases that is neither the first nor the last, and holds it there.

    It may be over before that was seen: on a machine with much to do nobody looks for a while. And a server shows a
    session for a while after its client has left: those of the last databases do not count.
    """
    every = databases(server, place)
    inside = ", ".join(f"'{name}'" for name in every[1 : len(every) // 2])
    question = f"SELECT datname FROM pg_stat_activity WHERE application_name = 'dbfleet' AND datname IN ({inside})"
    if server.engine != "postgresql":
        question = f"SELECT db FROM information_schema.processlist WHERE db IN ({inside})"
    with connected(server, databases(server, place)[0]) as cursor:
        if server.engine == "postgresql":
            cursor.connection.autocommit = True
        found = False

        def found_or_over() -> bool:
            nonlocal found
            if child.poll() is not None:
                return True
            child.send(signal.SIGCONT)
            time.sleep(0.001)
            # It stands still while it is looked for.
            child.send(signal.SIGSTOP)
            cursor.execute(question)
            found = bool(cursor.fetchall())
            return found

        until(found_or_over, 60, "the measurement")
        return found


def held(server: Server, tmp_path: Path, name: str, place: int, **more: Any) -> Running:
    """A run that stands still in the middle of its measurement."""
    for _turn in range(10):
        child = start_measuring(server, tmp_path, name, place=place, **more)
        if caught(server, child, place):
            return child
        child.wait()
    raise AssertionError("never found at its measurement")


def start_measuring(server: Server, tmp_path: Path, name: str = "db_vacuum", *, place: int = 0, **more: Any) -> Running:
    asked = options(server, "*", tmp_path, **more) if name == "db_vacuum" else {**server.login(), **more}
    asked["databases"] = databases(server, place)
    return start(name, {"connect_timeout": 1, "jobs": 1, **asked})


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


FACTS = ("db_vacuum", "db_bloat_facts", "db_assess_facts")


def test_a_frozen_server_is_found_out_and_a_stop_ends_the_wait(server: Server, tmp_path: Path) -> None:
    """Every module finds it out, and every way to stop reaches a run. Side by side: all that they do is wait."""
    started: dict[Any, Running] = {}
    # The one with the budget comes last: its time runs.
    for place, what in enumerate([by_signal, by_file, by_request, *FACTS, by_budget]):
        at = tmp_path / str(place)
        at.mkdir()
        more: dict[str, Any] = {} if what in FACTS else {"stop_file": str(at / "stop")}
        if what is by_budget:
            # It is over, with the ten seconds of grace for what runs, before the patience is, and before one that is
            # just connecting gives up.
            more.update(time_budget="1s", connect_timeout=12)
        name = what if isinstance(what, str) else "db_vacuum"
        started[what] = held(server, at, name, place, **more)
    with frozen([server.pid, *children(server.pid)]):
        for child in started.values():
            child.send(signal.SIGCONT)
        began = time.monotonic()
        for place, how in enumerate(STOPS):
            how(started[how], tmp_path / str(place))
        for how in STOPS:
            ended_by(how, started[how].wait(60))
            assert time.monotonic() - began < (25 if how is by_budget else 15)
        for name in FACTS:
            found_out(server, started[name].wait(60))
            assert time.monotonic() - began < 30
    assert not list(tmp_path.glob("**/running/*"))
    assert run("db_vacuum", {**options(server, "*", tmp_path), "databases": ["d1*"]}).code == 0


def found_out(server: Server, ran: Ran) -> None:
    assert ran.result["failed"]
    assert server.password not in ran.text
    assert f"{server.host}:{server.port}" in ran.result["msg"]
    assert "answer" in ran.result["msg"] or "connect_timeout" in ran.result["msg"]


def ended_by(how: Callable[[Running, Path], None], ran: Ran) -> None:
    # Whoever is just connecting gives up by connect_timeout, and has ended cleanly.
    said = ran.result.get("msg") or next(f["message"] for f in ran.fact()["findings"] if f["code"] == "not_measured")
    assert STOPS[how] in said
    assert ran.result.get("failed") is None or "answer" in said
    assert not ran.changed


@pytest.mark.parametrize("how", [by_signal, by_file, by_request])
def test_a_stop_ends_a_measurement_cleanly(
    postgresql: Server, tmp_path: Path, how: Callable[[Running, Path], None]
) -> None:
    """Of a server that answers: the run has not failed, it says that nothing was measured."""
    with client(postgresql, "d2") as cursor:
        cursor.execute("BEGIN; LOCK pg_catalog.pg_statistic_ext IN ACCESS EXCLUSIVE MODE")
        child = start_measuring(postgresql, tmp_path, stop_file=str(tmp_path / "stop"), lock_timeout="5m")
        waits_in(postgresql, "d2")
        began = time.monotonic()
        how(child, tmp_path)
        ran = child.wait(30)
        assert time.monotonic() - began < 8
    assert not ran.result.get("failed"), ran.text
    assert not ran.changed
    assert ran.steps() == []
    (finding,) = [f for f in ran.fact()["findings"] if f["code"] == "not_measured"]
    assert STOPS[how] in finding["message"]


def waits_in(server: Server, database: str) -> int:
    """The process that waits there for the lock of a catalog: that of the measurement."""
    question = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
    until(lambda: server.sql(question), 60, "the measurement")
    return int(server.sql(question)[0][0])


def test_one_session_that_freezes(postgresql: Server, tmp_path: Path) -> None:
    """The server answers others: only time tells, and a stop."""
    with client(postgresql, "d2") as cursor:
        cursor.execute("BEGIN; LOCK pg_catalog.pg_statistic_ext IN ACCESS EXCLUSIVE MODE")
        child = start_measuring(postgresql, tmp_path, lock_timeout="5m")
        with frozen([waits_in(postgresql, "d2")]):
            cursor.execute("ROLLBACK")
            time.sleep(4)  # twice the patience: a new connection is answered, so it is waited for
            assert child.poll() is None
            began = time.monotonic()
            child.send(signal.SIGTERM)
            ran = child.wait(30)
            assert time.monotonic() - began < 15
    assert "does not answer (stopped by SIGTERM)" in ran.result["msg"]


@pytest.mark.parametrize("freezes", [True, False])
def test_one_question_takes_no_longer_than_the_longest(postgresql: Server, freezes: bool) -> None:
    with use(postgresql) as used, used.engine.session("d0") as session:
        watch = Watch(used.engine, patience=0.5, longest=1.0)
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
            with pytest.raises(Refused, match="longer than 1"):
                watch.run(ask)
        assert time.monotonic() - began < 10
        assert watch.abandoned is freezes
