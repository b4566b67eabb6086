# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal read as history: whose, how much of it, in which order; killed, damaged and of an earlier version."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._past import Past
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Amount, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run import file, history
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.memory import written

from .engines import step
from .test_journal import ADDRESS, ended, fingerprint, reading, record, rows, writing

MONTH = 30 * 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite"


def read(path: Path | str, server: str = ADDRESS, *, since: float | None = None) -> Past:
    now = time.time()
    return history.read(str(path), server.__eq__, since=now - MONTH if since is None else since, now=now).past


def once(path: Path, *statuses: str, address: str = ADDRESS, name: str = "orders", status: str = "done") -> None:
    """A run whose steps, all on one table, end so."""
    with writing(path, address) as journal:
        record(journal, *(ended(step(name, size=10), s, error="" if s == "done" else f"why {s}") for s in statuses))
        journal.end_run(status)


def killed(path: Path, name: str = "orders") -> None:
    """A run whose process is no more."""
    with writing(path) as journal:
        journal.start(step(name, size=10))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE runs SET born = 'long ago' WHERE status = 'running'")
    db.close()


def test_runs_and_steps_of_one_server_as_they_were_begun(path: Path) -> None:
    with writing(path) as journal:
        planned = step("orders", size=900, expected=Amount(bytes=300, rows=7, seconds=5))
        done = ended(planned, bytes_after=500, changed=True, proven=True)
        record(journal, done._replace(actual=Amount(bytes=1, rows=6, seconds=2.5, written=40)))
        journal.end_run("done")
    once(path, "done", address="db2:5432")
    once(path, "failed", "deferred", status="failed")
    past = read(path)
    assert [(k.server, k.runs) for k in past.known] == [(ADDRESS, 2), ("db2:5432", 1)]
    assert [(r.id, r.operation, r.status) for r in past.runs] == [(1, "db_vacuum", "done"), (3, "db_vacuum", "failed")]
    assert [s.status for s in past.steps] == ["done", "failed", "deferred"]
    first = past.steps[0]
    assert (first.expected_bytes, first.expected_rows, first.expected_seconds) == (300, 7, 5)
    assert (first.freed, first.rows, first.seconds, first.written) == (400, 6, 2.5, 40)
    assert (first.changed, first.proven) == (1, 1)
    assert past.things[first.thing].ref == planned.task.ref
    assert {thing.server for thing in past.things.values()} == {ADDRESS}


def test_what_is_older_is_left_out_and_what_comes_from_a_wrong_clock_is_not(path: Path) -> None:
    for _run in range(3):
        once(path, "done")
    now = time.time()
    for number, began in ((1, now - 2 * MONTH), (3, now + MONTH)):
        rows_changed(path, f"UPDATE runs SET began = {began} WHERE id = {number}")
    past = read(path)
    assert [r.id for r in past.runs] == [2, 3]
    assert {s.run for s in past.steps} == {2, 3}
    assert past.first == pytest.approx(now - 2 * MONTH)


def rows_changed(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()


# ---- failures in a row -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nights", "times"),
    [
        ("f", 1),
        ("dff", 2),
        ("ffd", None),
        ("ffs", 2),  # deferred and skipped: neither better nor worse
        ("fsfs", 2),
        ("fdf", 1),
        ("fk", 2),
        ("kd", None),
        ("ss", None),
    ],
)
def test_failures_in_a_row(path: Path, nights: str, times: int | None) -> None:
    """d: done, f: failed, s: deferred, k: killed."""
    for night in nights:
        if night == "k":
            killed(path)
        else:
            once(path, {"d": "done", "f": "failed", "s": "deferred"}[night])
    streaks = read(path).streaks
    assert [s.times for s in streaks] == ([] if times is None else [times])
    if nights.endswith("f"):
        assert streaks[0].error == "why failed"


def test_a_row_of_failures_is_counted_beyond_the_time_asked_for(path: Path) -> None:
    """What fails once a week has failed four times in a month, and not once in the last seven days."""
    for _week in range(4):
        once(path, "failed")
    once(path, "failed", name="gone")
    now = time.time()
    for number in range(1, 5):
        rows_changed(path, f"UPDATE steps SET began = {now - (5 - number) * 7 * 86400 + 86400} WHERE run = {number}")
    rows_changed(path, f"UPDATE steps SET began = {now - 2 * MONTH} WHERE run = 5")
    past = read(path)
    assert [(s.times, s.operation) for s in past.streaks] == [(4, "db_vacuum")]
    assert past.streaks[0].last - past.streaks[0].first == pytest.approx(21 * 86400)
    assert read(path, "another:1").streaks == ()


def died(path: Path, address: str = ADDRESS) -> list[tuple[str, str, str]]:
    """What an assessment is told of runs that never came to their end."""
    with reading(path, address) as journal:
        return [(run.module, run.kind, str(run.ref)) for run in journal.died()]


def test_a_run_that_died_is_told_until_one_of_its_module_comes_to_its_end(path: Path) -> None:
    once(path)
    assert died(path) == []
    killed(path)
    told = [("db_vacuum", "vacuum", "public.orders")]
    assert died(path) == told
    assert died(path, "another:1") == []
    once(path)  # which has found it dead, and says so in the journal
    rows_changed(path, "UPDATE runs SET module = 'db_backup' WHERE id = 3")
    assert rows(path, "SELECT status FROM runs WHERE id = 2") == [("interrupted",)]
    assert died(path) == told
    once(path, "failed")
    assert died(path) == []
    killed(path)
    rows_changed(path, f"UPDATE runs SET began = began - {4 * 86400}")
    assert died(path) == []  # nobody has to hear of it for ever


def test_a_run_that_was_killed_says_so_and_nothing_is_written(path: Path) -> None:
    killed(path)
    before = fingerprint(path.parent)
    past = read(path)
    assert [r.status for r in past.runs] == [s.status for s in past.steps] == ["interrupted"]
    assert fingerprint(path.parent) == before
    assert rows(path, "SELECT status FROM runs") == [("running",)]


def test_a_run_under_way_is_read_from_beside_it(path: Path) -> None:
    with writing(path) as journal:
        journal.start(step("orders", size=10))
        past = read(path)
        assert [r.status for r in past.runs] == [s.status for s in past.steps] == ["running"]
        assert past.streaks == ()


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_journal_of_the_first_version(path: Path) -> None:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript(file.VERSION_1)
    db.execute(f"PRAGMA application_id = {file.APPLICATION}")
    db.execute("PRAGMA user_version = 1")
    orders = Ref("shop", ("public", "orders"))
    db.execute("INSERT INTO objects VALUES (1, ?, 'delete old orders', ?)", (ADDRESS, written(orders)))
    db.execute("INSERT INTO runs VALUES (7, ?, 'db_cleanup', ?, NULL, 'done', 'h', 1, '')", (ADDRESS, time.time()))
    db.execute(
        "INSERT INTO steps VALUES (1, 7, 1, NULL, 'done', 'r', '[]', 1, 2, 3, 4.0,"
        " NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    db.commit()
    db.close()
    past = read(path)
    assert (past.runs[0].id, past.runs[0].ended, past.steps[0].freed) == (7, None, None)
    assert past.things[1] == (ADDRESS, "delete", "old orders", orders)


def test_when_backups_were_made_and_verified(path: Path) -> None:
    once(path, "done")
    for number, (kind, database) in enumerate((("dump", "shop"), ("verify", "shop"), ("dump", "crm")), start=2):
        once(path, "done", name=f"t{number}")
        named = f"kind = '{kind}', ref = '[\"{database}\", [], \"\"]'"
        rows_changed(path, f"UPDATE objects SET {named} WHERE ref LIKE '%t{number}%'")
        rows_changed(path, f"UPDATE steps SET began = {number}.5 WHERE run = {number}")
    found = {(b.database, b.dumped, b.verified) for b in read(path).backed}
    assert found == {("shop", 2.5, 3.5), ("crm", 4.5, None)}


def test_where_there_is_none_it_says_so(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = history.read(str(path), ADDRESS.__eq__, since=0, now=time.time())
    assert (found.path, found.past) == (None, Past())
    assert str(path) in found.why
    assert "none" in history.read("none", ADDRESS.__eq__, since=0, now=1).why
    monkeypatch.setattr(history, "state_directories", lambda: (tmp_path / "system", tmp_path / "user"))
    assert history.read(None, ADDRESS.__eq__, since=0, now=1).why
    once(tmp_path / "user" / "journal.sqlite", "done")
    found = history.read(None, ADDRESS.__eq__, since=0, now=time.time())
    assert found.path == str(tmp_path / "user" / "journal.sqlite")
    assert len(found.past.runs) == 1


@pytest.mark.parametrize("content", [b"# a letter\n" * 99, b""])
def test_what_is_no_journal_is_refused_and_an_empty_file_is_empty(tmp_path: Path, content: bytes) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_bytes(content)
    if content:
        with pytest.raises(BadInput, match="letter"):
            read(letter)
    else:
        assert read(letter) == Past()
    for wrong in ("journal.sqlite", str(tmp_path), "~nobody at all/x"):
        with pytest.raises(BadInput):
            read(wrong)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("large") / "journal.sqlite"
    tables = [step(f"t{number}", size=10) for number in range(12)]
    for number in range(12):
        with writing(path) as journal:
            record(journal, *(ended(x, "failed" if n % 7 == number else "done") for n, x in enumerate(tables)))
            journal.end_run("done")
    return path.read_bytes()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from(["cut", "zeros", "noise", "bytes"]))
def test_damage_is_told_with_a_cure_or_does_not_matter(large: bytes, tmp_path: Path, seed: int, how: str) -> None:
    # Not Hypothesis' own dice: pages of noise are more than it remembers of a case.
    found, dice = bytearray(large), Random(seed)
    pages = dice.sample(range(4096, len(found), 4096), 3)
    if how == "cut":
        del found[dice.choice(pages) + dice.randrange(4096) :]
    for page in pages:
        if how == "bytes":
            found[page + dice.randrange(4096)] = dice.randrange(256)
        elif how != "cut":
            found[page : page + 4096] = bytes(4096) if how == "zeros" else dice.randbytes(4096)
    path = tmp_path / "journal.sqlite"
    path.write_bytes(found)
    with contextlib.suppress(Refused):  # and nothing else
        assert len(read(path).runs) <= 12
