# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal in trouble: killed, corrupt, deleted, on a full disk, shared. No trouble of its stops a run."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Outcome, Ref, Step, Tick
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run import file
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import open_journal
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Vacuum

from .engines import Clockwork, Files, Purge, anything, carry_out, count, make_file, step
from .test_journal import ADDRESS, ended, reading, record, rows, writing

ROOT = Path(__file__).parents[3]
PREAMBLE = """
import sys, time
from pathlib import Path
sys.path[:0] = [{root!r}, {collections!r}]
from tests.unit.run.engines import *
from tests.unit.run.test_journal import *
path, place = Path(sys.argv[1]), sys.argv[1]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite"


def python(body: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that runs these lines; `path` is its first argument."""
    preamble = PREAMBLE.format(root=str(ROOT), collections=str(ROOT / ".dev" / "collections"))
    return subprocess.Popen(
        [sys.executable, "-c", preamble + textwrap.dedent(body), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdout
    said = child.stdout.readline()
    if said.strip() != word:
        child.kill()
        pytest.fail(f"{said!r} instead of {word!r}: {child.communicate()[1]}")


# ---- killed ----------------------------------------------------------------------------------------------------------


def test_a_run_that_was_killed_is_gone_on_with(path: Path, tmp_path: Path) -> None:
    shop = make_file(tmp_path / "shop.sqlite")
    child = python(
        """
        class Slow(Files):
            def _delete(self, session, task, cursor):
                work = super()._delete(session, task, cursor)
                pace = None
                for number in range(99):
                    tick = work.send(pace)
                    pace = yield tick._replace(owns="wreckage" if number == 0 else "")
                    if number == 2:
                        yield Tick(owns="more")     # answered: the ticks before it are in the journal
                        print("there", flush=True)
                        time.sleep(60)

        with writing(path) as journal:
            carry_out(Slow(), Step(Purge(Ref(sys.argv[2], ("orders",)), Pace(100, 0.0)), "old"), journal=journal)
        """,
        path,
        shop,
    )
    wait_for(child, "there")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    planned = Step(anything(Purge(Ref(shop, ("orders",)))), "old")
    assert Path(f"{path}-wal").stat().st_size
    with reading(path) as journal:  # check mode knows it, too, and leaves the file to the next run
        assert journal.overdue() == {planned.key}
        assert journal.cursor(planned) == "300"
        assert journal.owned() == {planned.key: ("wreckage", "more")}
    assert Path(f"{path}-wal").stat().st_size
    with writing(path) as journal:
        assert journal.overdue() == {planned.key}
        engine = Files()
        (outcome,) = carry_out(engine, planned, journal=journal)
        assert (outcome.status, outcome.actual.rows, engine.cursors) == ("done", 700, ["300"])
    assert count(shop) == 0
    assert reading(path).overdue() == frozenset()
    assert rows(path, "SELECT status FROM runs ORDER BY id") == [("interrupted",), ("running",)]
    assert rows(path, "SELECT status FROM steps ORDER BY id") == [("interrupted",), ("done",)]


# ---- corrupt ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_moved_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"garbage" * 1000)
    warnings: list[str] = []
    with open_journal(str(path), ADDRESS, readonly=True, warn=warnings.append) as journal:
        assert journal.past() == {}
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert "cannot be read" in warnings.pop()
    with writing(path, warn=warnings.append) as journal:
        record(journal, ended(step("a")))
    assert len(warnings) == 1
    assert "is corrupt" in warnings[0]
    assert set(reading(path).past()) == {step("a").key}
    (aside,) = path.parent.glob("*.corrupt-*")
    assert aside.read_bytes() == b"garbage" * 1000


def test_pages_that_are_corrupt_are_found_when_they_are_read(path: Path) -> None:
    with writing(path) as journal:
        for number in range(500):
            record(journal, ended(step(f"t{number}", size=9)))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    warnings: list[str] = []
    with writing(path, warn=warnings.append) as journal:
        record(journal, ended(step("a")))
    assert "is corrupt" in warnings[0]
    assert set(reading(path).past()) == {step("a").key}
    assert len(list(path.parent.glob("*.corrupt-*"))) == 1


def test_a_journal_of_a_newer_version_is_not_touched(path: Path) -> None:
    with writing(path):
        pass
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(Exception, match="newer version"):
        writing(path)
    assert path.read_bytes() == before


# ---- during a run ----------------------------------------------------------------------------------------------------


def test_a_journal_deleted_in_the_middle_costs_nothing_but_itself(path: Path, tmp_path: Path) -> None:
    shop = make_file(tmp_path / "shop.sqlite")
    engine = Files()

    def delete(number: int) -> None:
        if number == 3:
            for file in path.parent.iterdir():
                file.unlink()
            path.parent.rmdir()

    engine.on_bite = delete
    planned = Step(anything(Purge(Ref(shop, ("orders",)))), "old")
    with writing(path, warn=print) as journal:
        outcomes = carry_out(engine, planned, step("x", shop)._replace(task=Vacuum(Ref(shop))), journal=journal)
        journal.end_run("done")
    assert [o.status for o in outcomes] == ["done", "done"]
    assert count(shop) == 0
    with writing(path) as journal:
        assert journal.past() == {}


def test_a_full_disk_warns_once_and_the_run_goes_on(path: Path) -> None:
    child = python(
        """
        import resource
        warnings = []
        journal = writing(path, warn=warnings.append)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))     # from here on every further write fails
        outcomes = carry_out(Clockwork(), *(step("t%d" % n) for n in range(50)), journal=journal)
        journal.end_run("done")
        journal.shut()
        print({o.status for o in outcomes}, len(warnings), "cannot be written" in warnings[0])
        """,
        path,
    )
    out, err = child.communicate(timeout=60)
    assert out == "{'done'} 1 True\n", err


def test_a_journal_that_another_holds_for_long_is_done_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "BUSY_SECONDS", 0.05)
    warnings: list[str] = []
    with writing(path, warn=warnings.append) as journal:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        outcomes = carry_out(Clockwork(), step("a"), step("b"), step("c"), journal=journal)
        assert [o.status for o in outcomes] == ["done"] * 3
        db.close()
    assert len(warnings) == 1
    assert "locked" in warnings[0]


def test_only_the_thread_that_opened_it_writes(path: Path) -> None:
    errors: list[Exception] = []
    with writing(path) as journal:

        def write() -> None:
            try:
                journal.start(step("a"))
            except sqlite3.ProgrammingError as error:
                errors.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(errors) == 1


# ---- shared ----------------------------------------------------------------------------------------------------------


def test_processes_that_begin_and_write_at_once_lose_nothing(path: Path) -> None:
    body = """
        journal = writing(path, warn=lambda text: print("warning", text))
        for number in range(200):
            planned = step("t%d" % number, "db" + sys.argv[2], size=9)
            record(journal, ended(planned))
            journal.tick(planned, Tick(cursor="1", owns="x"))
        journal.end_run("done")
        journal.shut()
        """
    children = [python(body, path, number) for number in range(4)]
    said = [child.communicate(timeout=120) for child in children]
    assert said == [("", "")] * 4
    assert rows(path, "SELECT count(*) FROM steps WHERE status = 'done'") == [(800,)]
    assert rows(path, "SELECT status FROM runs") == [("done",)] * 4
    assert len(reading(path).past()) == 800
    assert list(path.parent.iterdir()) == [path]


def test_a_run_of_another_living_process_is_not_taken_for_killed(path: Path) -> None:
    child = python(
        """
        journal = writing(path)
        journal.start(step("a"))
        print("there", flush=True)
        sys.stdin.read()
        """,
        path,
    )
    try:
        wait_for(child, "there")
        with writing(path) as journal:
            assert journal.overdue() == frozenset()
            journal.tick(step("b"), Tick(cursor="1"))
        assert rows(path, "SELECT status FROM steps") == [("running",)]
    finally:
        child.kill()
        child.communicate()


def test_an_outcome_without_a_start_is_recorded(path: Path) -> None:
    with writing(path) as journal:
        journal.close(Outcome(step("a"), "deferred", error="no time"))
    assert rows(path, "SELECT status, error, seconds FROM steps") == [("deferred", "no time", 0.0)]
    assert reading(path).overdue() == {step("a").key}
