# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tests' own tools: a step that fails must never look like one that passed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dev import __main__ as command
from tests.dev import servers, steps
from tests.dev.steps import Counts, Log, Step, StepFailed, StepSkipped


@pytest.fixture(autouse=True)
def _own_logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(steps, "LOGS", tmp_path / "logs")


def _passes(log: Log) -> None:
    log.run("true")


def _fails(log: Log) -> None:
    log.run("false")


def _breaks(log: Log) -> None:
    raise RuntimeError("the tool itself is broken")


def _skips(log: Log) -> None:
    raise StepSkipped("not here")


def test_all_steps_run_whatever_fails_and_the_run_fails(capsys: pytest.CaptureFixture[str]) -> None:
    acts = {"passes": _passes, "fails": _fails, "breaks": _breaks, "skips": _skips, "last": _passes}
    code = command.run([Step(name, name, "code", act) for name, act in acts.items()])
    assert code == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 passed, 2 failed, 1 skipped in ")


def test_both_lanes_are_counted_and_their_output_is_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    def talks(log: Log) -> Counts:
        log.run("sh", "-c", "echo one; sleep 0.05; echo two")
        return Counts(passed=7, skipped=1)

    code = command.run([Step("a", "a", "servers", talks), Step("b", "b", "code", talks)])
    shown = capsys.readouterr().out
    assert code == 0
    assert shown.count("one\ntwo\n") == 2
    assert shown.splitlines()[-1].startswith("14 passed, 0 failed, 2 skipped in ")


def test_a_failed_step_keeps_the_counts_that_it_had() -> None:
    def fails(log: Log) -> None:
        raise StepFailed("pytest exited with 1", Counts(passed=3, failed=2))

    result, output = steps.run_step(Step("x", "x", "code", fails), live=False)
    assert output == "pytest exited with 1\n"
    assert (result.status, result.counts, result.note) == ("failed", Counts(3, 2, 0), "pytest exited with 1")


def test_a_step_gets_no_standard_input(tmp_path: Path) -> None:
    log = Log("stdin", live=False)
    assert log.run("cat", cwd=tmp_path) == ""
    log.finish()


def test_quiet_output_is_shown_when_the_command_failed() -> None:
    log = Log("quiet", live=False)
    assert log.run("echo", "for programs", quiet=True) == "for programs\n"
    with pytest.raises(StepFailed):
        log.run("sh", "-c", "echo for people; false", quiet=True)
    shown = log.finish().splitlines()
    assert "for programs" not in shown
    assert "for people" in shown


def test_counts_are_read_from_pytests_report(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>')
    assert steps.counts_of(report) == Counts(passed=3, failed=3, skipped=3)


def test_a_report_that_was_never_written_is_a_failure(tmp_path: Path) -> None:
    assert steps.counts_of(tmp_path / "none.xml").failed == 1


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        ("", ["postgresql-15", "postgresql-16", "postgresql-18", "mariadb", "mysql", "sqlite"]),
        ("postgresql-15\npostgresql-16\npostgresql-18\nmariadb\nmysql\nsqlite\n", []),
        ("PostgreSQL 15.18\npostgresql 16\npostgresql-18.4\nMariaDB 10.11\nMySQL 9.7.1\nSQLite 3.40.1\n", []),
        ("postgresql-150\npostgresql-16\npostgresql-18\nmariadb\nmysql\nsqlite\n", ["postgresql-15"]),
        ("postgresql-1\nmariadb\n", ["postgresql-15", "postgresql-16", "postgresql-18", "mysql", "sqlite"]),
    ],
)
def test_a_server_that_was_not_tested_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: str, missing: list[str]
) -> None:
    record = tmp_path / "tested.txt"
    record.write_text(lines)
    monkeypatch.setattr(servers, "TESTED", record)
    assert servers.missing_servers() == missing


@pytest.mark.parametrize(("in_ci", "status"), [(True, "failed"), (False, "skipped")])
def test_a_missing_server_fails_in_ci_and_is_loud_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_ci: bool, status: str
) -> None:
    record = tmp_path / "tested.txt"
    record.write_text("sqlite 3.40\n")
    monkeypatch.setattr(servers, "TESTED", record)
    monkeypatch.setattr(servers, "IN_CI", in_ci)
    assert command._coverage().status == status


def test_no_server_at_all_fails_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(servers, "TESTED", tmp_path / "none")
    monkeypatch.setattr(servers, "IN_CI", False)
    assert command._coverage().status == "failed"


def test_pytest_that_collects_nothing_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_nothing.py").write_text("")
    monkeypatch.setattr(servers, "ROOT", tmp_path)
    monkeypatch.setattr(servers, "DEV", tmp_path)
    log = Log("nothing", live=False)
    monkeypatch.setattr(log, "run", lambda *words, env: _exit_five())
    with pytest.raises(StepFailed, match="nothing was tested"):
        servers.unit(log)
    log.finish()


def _exit_five() -> str:
    raise StepFailed("python exited with 5")


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(SystemExit, match="no such part: lnit"):
        command.chosen(["lnit"])


def test_a_named_part_brings_what_it_needs() -> None:
    assert [step.name for step in command.chosen(["integration"])] == ["machine", "integration"]
    assert {step.part for step in command.chosen(["unit", "lint"])} == {"unit", "lint"}


STEADY = "def test_steady() -> None:\n    assert True\n"
UNSTEADY = """
from pathlib import Path
from typing import Any


def test_unsteady() -> None:
    mark = Path({mark!r})
    there = mark.exists()
    mark.touch()
    assert there
"""
BROKEN = "def test_broken() -> None:\n    assert False\n"


@pytest.mark.parametrize("broken", [False, True])
def test_what_failed_is_run_once_more_and_named(
    broken: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class There(Log):
        def run(self, *command: str | Path, **more: Any) -> str:
            return super().run(*command, **{**more, "cwd": tmp_path})

    monkeypatch.setattr(steps, "Log", There)
    monkeypatch.setattr(servers, "ROOT", tmp_path)
    monkeypatch.setattr(servers, "DEV", tmp_path)
    tests = tmp_path / "tests" / "unit"
    tests.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tests / "test_it.py").write_text(STEADY + UNSTEADY.format(mark=str(tmp_path / "mark")) + (BROKEN * broken))
    code = command.run([Step("unit", "unit", "code", servers.unit)])
    shown = capsys.readouterr().out
    assert code == int(broken)
    if broken:
        assert "unsteady" not in shown.splitlines()[-3]
        assert shown.splitlines()[-1].startswith("1 passed, 2 failed, 0 skipped in ")
    else:
        assert shown.splitlines()[-3].endswith("unsteady, passed when run alone: test_it::test_unsteady")
        assert shown.splitlines()[-1].startswith("2 passed, 0 failed, 0 skipped in ")
