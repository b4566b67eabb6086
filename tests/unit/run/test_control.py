# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stops: signals, the stop file, stop requests and the registration that they find a run by."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Work
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.control import (
    Control,
    Registration,
    request_stop,
    running,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.host import alive, birth

from .engines import Clockwork, carry_out, count, make_file, step
from .test_journal import reading
from .test_journal_trouble import python, wait_for
from .test_scheduling import takes

# A run that deletes all rows and would then go on for ever, under the control that modules use.
ENDLESS = """
        import signal
        # Whatever ignores them around these tests.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.control import Registration
        how = Execution(jobs=2, stop_file=sys.argv[4])
        registration = Registration("db_cleanup", "localhost:1", ["shop"], places=[Path(sys.argv[3])])
        shop = sys.argv[2]
        steps = (
            Step(Purge(Ref(shop, ("orders",))), "old"),
            Step(Grind(Ref(shop, ("orders",))), "endless"),
            Step(Vacuum(Ref(shop)), "after it"),
        )
        with writing(path) as journal, Control(how, registration=registration) as control:
            print("there", flush=True)
            outcomes = carry_out(Files(), *steps, journal=journal, control=control, jobs=2)
            journal.end_run("stopped")
        print([o.status for o in outcomes], "/".join(sorted({o.error for o in outcomes})))
        """


class Run:
    """The endless run in a process of its own, once its rows are deleted and it is in the statement without an end."""

    def __init__(self, directory: Path) -> None:
        self.journal, self.state, self.stop_file = directory / "j" / "journal.sqlite", directory, directory / "stop"
        self.shop = make_file(directory / "shop.sqlite")
        self.child = python(ENDLESS, self.journal, self.shop, directory, self.stop_file)
        wait_for(self.child, "there")
        until = time.monotonic() + 20
        while count(self.shop) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.1)

    def ended(self) -> str:
        began = time.monotonic()
        out, err = self.child.communicate(timeout=30)
        assert err == ""
        assert self.child.returncode == 0
        assert time.monotonic() - began < 5
        assert list((self.state / "running").iterdir()) == []
        assert len(reading(self.journal).overdue()) == 2
        assert count(self.shop) == 0
        return out.strip()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_ends_a_run_cleanly(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path)
    run.child.send_signal(getattr(signal, name))
    assert run.ended() == f"['done', 'deferred', 'deferred'] /stopped by {name}"


def test_a_stop_file_ends_a_run_cleanly(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.stop_file.write_text("")
    assert run.ended() == f"['done', 'deferred', 'deferred'] /stopped by the stop file {run.stop_file}"


def test_a_stop_request_finds_a_run_and_ends_it_cleanly(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (facts,) = request_stop(tmp_path)
    assert (facts["pid"], facts["module"], facts["address"]) == (run.child.pid, "db_cleanup", "localhost:1")
    assert run.ended() == "['done', 'deferred', 'deferred'] /stopped by a stop request"
    assert running(tmp_path) == []


def test_a_stop_that_came_before_the_run_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "stop"
    file.write_text("")
    how = Execution(stop_file=str(file))
    engine = Clockwork()
    outcomes = carry_out(engine, step("a"), step("b"), control=Control(how))
    assert [o.status for o in outcomes] == ["deferred", "deferred"]
    assert engine.order == []


def test_a_cancel_that_was_lost_between_two_statements_is_repeated() -> None:
    def deaf_at_first(session: Any) -> Work:
        while not session.cancelled.wait(0.01):
            pass
        session.cancelled.clear()
        yield from takes(30)(session)

    began = time.monotonic()
    (outcome,) = carry_out(Clockwork({"a": deaf_at_first}), step("a"), time_budget=0.3)
    assert (outcome.status, outcome.error) == ("deferred", "the time budget ended while it ran")
    assert 1 < time.monotonic() - began < 15


# ---- handlers --------------------------------------------------------------------------------------------------------


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with Control(Execution()):
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under nohup, and in the background of a script."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Control(Execution()) as control:
            os.kill(os.getpid(), signal.SIGHUP)
            assert control.stopped() == ""
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_first_reason_stays() -> None:
    with Control(Execution()) as control:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert control.stopped() == "stopped by SIGTERM"
        assert control.ending() == "stopped by SIGTERM"


# ---- registration ----------------------------------------------------------------------------------------------------


def test_a_registration_is_private_and_goes_away(tmp_path: Path) -> None:
    with Control(Execution(), registration=Registration("db_vacuum", "h:1", ["shop"], places=[tmp_path / "state"])):
        place = tmp_path / "state" / "running"
        (file,) = place.iterdir()
        assert file.name == f"{os.getpid()}.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        facts = json.loads(file.read_text())
        assert (facts["pid"], facts["module"], facts["databases"]) == (os.getpid(), "db_vacuum", ["shop"])
    assert list(place.iterdir()) == []


def test_what_killed_runs_left_is_swept_away(tmp_path: Path) -> None:
    place = tmp_path / "running"
    place.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (place / f"{gone.pid}.json").write_text("{}")
    (place / f"{gone.pid}.stop").write_text("")
    (place / f"{os.getppid()}.json").write_text(json.dumps({"pid": os.getppid(), "born": "1"}))  # its number, reused
    (place / f"{os.getpid()}.stop").write_text("")  # meant for a run that had this number before
    with Control(Execution(), registration=Registration("m", "h:1", places=[tmp_path])) as control:
        assert [file.name for file in place.iterdir()] == [f"{os.getpid()}.json"]
        assert control.stopped() == ""


def test_a_run_that_cannot_register_runs_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    registration = Registration("m", "h:1", places=[tmp_path / "file"])
    with Control(Execution(), registration=registration) as control:
        assert control.stopped() == ""
    assert "stop requests will not reach this run" in registration.problem


def test_files_are_looked_at_five_times_a_second_at_most() -> None:
    looks: list[float] = []

    class Counting(Registration):
        def requested(self) -> bool:
            looks.append(time.monotonic())
            return False

    control = Control(Execution(), registration=Counting("m", "h:1"))
    until = time.monotonic() + 1.1
    while time.monotonic() < until:
        control.stopped()
    assert 2 <= len(looks) <= 6


def test_a_process_is_known_by_its_birth() -> None:
    assert alive(os.getpid(), birth(os.getpid()))
    assert not alive(os.getpid(), "1")
    assert alive(1, None)


# ---- the budget ------------------------------------------------------------------------------------------------------


def test_the_budget_ends_a_sleep() -> None:
    control = Control(Execution(time_budget=0.2))
    began = time.monotonic()
    control.sleep(5)
    assert 0.15 < time.monotonic() - began < 4
    assert control.spent()
    assert control.ending() == "the time budget ended while it ran"
    assert Control(Execution(time_budget=0.0, hard_stop=False)).ending() == ""
    assert Control(Execution()).left() is None


def test_waiting_costs_no_processor_time() -> None:
    used = time.process_time()
    carry_out(Clockwork({"a": takes(1.5)}), step("a"), *(step(str(n), after=(step("a").key,)) for n in range(200)))
    assert time.process_time() - used < 1.2
