# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: what it remembers, what it forgets, and what it never touches."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Amount, Outcome, Ref, Step, Tick
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run import host
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import Journal, open_journal
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropLeftover

from .engines import step, table

ADDRESS = "db1:5432"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite"


def writing(path: Path, address: str = ADDRESS, **more: Any) -> Journal:
    journal = open_journal(str(path), address, readonly=False, **more)
    journal.begin_run("db_vacuum")
    return journal


def reading(path: Path, address: str = ADDRESS) -> Journal:
    return open_journal(str(path), address, readonly=True)


def ended(planned: Step, status: str = "done", *, seconds: float = 2.0, **fields: Any) -> Outcome:
    return Outcome(planned, status, Amount(seconds=seconds), bytes_before=planned.size, **fields)


def record(journal: Journal, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        journal.start(outcome.step, ["VACUUM x"])
        journal.close(outcome)


def rows(path: Path, query: str) -> list[Any]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def fingerprint(directory: Path) -> dict[str, tuple[str, int, int]]:
    """Content, size and time of every file; of directories their time, which a file made and removed changes."""
    found = {}
    for file in sorted([directory, *directory.rglob("*")]):
        content = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        found[str(file)] = (content, file.stat().st_mtime_ns, file.stat().st_mode)
    return found


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_what_was_done_is_remembered_of_its_server_only(path: Path) -> None:
    planned = step("orders", size=1000, expected=Amount(bytes=300, seconds=5))
    with writing(path) as journal:
        record(journal, ended(planned, bytes_after=600))
    with reading(path) as journal:
        attempt = journal.past()[planned.key]
        assert (attempt.seconds, attempt.bytes_before, attempt.bytes_after, attempt.ok) == (2.0, 1000, 600, True)
        assert attempt.expected_bytes == 300
        assert abs(datetime.now(UTC) - attempt.at) < timedelta(minutes=1)
        assert journal.rates() == {"vacuum": 500.0}
    with reading(path, "db2:5432") as journal:
        assert (journal.past(), journal.rates()) == ({}, {})


def test_the_log_holds_why_and_what_and_how_long(path: Path) -> None:
    with writing(path) as journal:
        record(journal, ended(step("orders", size=1000), "failed", error="no", attempts=3, changed=True, proven=False))
        journal.end_run("failed")
    assert rows(path, "SELECT reason, statements, status, seconds, error, attempts, changed, proven FROM steps") == [
        ("dead rows", '["VACUUM x"]', "failed", 2.0, "no", 3, 1, 0)
    ]
    assert rows(path, "SELECT module, address, status, ended >= began FROM runs") == [
        ("db_vacuum", ADDRESS, "failed", 1)
    ]


def test_a_short_failure_does_not_hide_the_experience_and_a_long_one_does(path: Path) -> None:
    planned = step("orders", size=1000)
    with writing(path) as journal:
        record(journal, ended(planned, seconds=10), ended(planned, "failed", seconds=1))
    assert reading(path).past()[planned.key].ok
    with writing(path) as journal:
        record(journal, ended(planned, "deferred", seconds=50))
    assert reading(path).past()[planned.key][1:] == (50.0, 1000, 1000, 0, False)
    with writing(path) as journal:
        record(journal, ended(planned, seconds=60, bytes_after=500))
    assert reading(path).past()[planned.key].ok


def test_what_never_began_is_no_attempt(path: Path) -> None:
    with writing(path) as journal:
        journal.close(ended(step("a"), "skipped", seconds=0, error="a standby"))
    assert reading(path).past() == {}
    assert rows(path, "SELECT status, error FROM steps") == [("skipped", "a standby")]


def test_the_rate_follows_the_server(path: Path) -> None:
    with writing(path) as journal:
        for seconds in [1.0] * 50 + [10.0] * 50:
            record(journal, ended(step("a", size=1000), seconds=seconds))
    assert reading(path).rates()["vacuum"] == pytest.approx(100, rel=0.1)


def test_deferred_steps_are_overdue_until_they_have_another_outcome(path: Path) -> None:
    a, b = step("a"), step("b")
    with writing(path) as journal:
        record(journal, ended(a, "deferred", error="no time"), ended(b, "deferred", error="no time"))
    assert reading(path).overdue() == {a.key, b.key}
    with writing(path) as journal:
        record(journal, ended(a))
    assert reading(path).overdue() == {b.key}


def test_ownership_ends_with_the_step_or_when_it_is_dropped(path: Path) -> None:
    a, b = step("a"), step("b")
    names = ("tmp_1", 'odd "name" 100 %')
    with writing(path) as journal:
        for owner in (a, b):
            journal.start(owner)
            for name in names:
                journal.tick(owner, Tick(owns=name))
    assert reading(path).owned() == {a.key: names, b.key: names}
    drop = Step(DropLeftover(table("b"), "index", names[:1]), "left over")
    with writing(path) as journal:
        record(journal, ended(a), ended(drop))
    assert reading(path).owned() == {b.key: names[1:]}
    with writing(path) as journal:
        journal.tick(b, Tick(disowns=names[1]))
    assert reading(path).owned() == {}


@settings(max_examples=40, deadline=None)
@given(name=st.text(max_size=8), cursor=st.text(st.characters(exclude_categories=())), partition=st.text(max_size=3))
def test_any_name_comes_back_as_it_went(tmp_path_factory: Any, name: str, cursor: str, partition: str) -> None:
    """Also what is no valid UTF-8: file names may be anything."""
    path = tmp_path_factory.mktemp("names") / "journal.sqlite"
    planned = step("a")._replace(task=DropLeftover(Ref("/srv/\udcff" + name, (name, '"'), partition), name, (name,)))
    with writing(path) as journal:
        journal.start(planned, [cursor])
        journal.tick(planned, Tick(cursor=cursor, owns=name or "x"))
        journal.close(ended(planned, "deferred", error=cursor))
    with reading(path) as journal:
        assert journal.cursor(planned) == cursor
        assert journal.overdue() == {planned.key}
        assert journal.owned() == {planned.key: (name or "x",)}


def test_samples_are_kept_once_an_hour(path: Path) -> None:
    ref = table("orders")
    with writing(path) as journal:
        for minutes in (0, 10, 59, 61):
            journal.sample("shop", ref, 1000 + minutes, 5, NOW + timedelta(minutes=minutes))
    assert rows(path, "SELECT bytes, rows FROM sizes ORDER BY at") == [(1000, 5), (1061, 5)]


def test_what_is_older_than_400_days_is_forgotten(path: Path) -> None:
    old, new = step("old", size=10), step("new", size=10)
    with writing(path) as journal:
        record(journal, ended(old), ended(old, "deferred"))
        journal.end_run("done")
        journal.shut()
    db = sqlite3.connect(path)
    with db:
        for name, column in [("runs", "began"), ("attempts", "at"), ("deferred", "at")]:
            db.execute(f"UPDATE {name} SET {column} = {column} - 401 * 86400")
    db.close()
    known = []
    for _run in range(2):
        with writing(path) as journal:
            record(journal, ended(new))
            journal.end_run("done")
        known.append(set(reading(path).past()))
    assert known == [{old.key, new.key}, {new.key}]  # the first may have been a clock that jumped ahead
    assert rows(path, "SELECT count(*) FROM objects") == [(1,)]
    assert rows(path, "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM steps)") == [(2, 2)]


def aged(path: Path, days: float) -> None:
    """All that the journal holds is so much older."""
    db = sqlite3.connect(path)
    columns = (
        "runs.began",
        "steps.began",
        *(f"{name}.at" for name in ("attempts", "cursors", "owned", "notes", "sizes")),
    )
    with db:
        for name, column in (one.split(".") for one in columns):
            db.execute(f"UPDATE {name} SET {column} = {column} - {days} * 86400")
    db.close()


def test_history_is_kept_as_long_as_wanted_and_what_steps_are_decided_by_longer(path: Path) -> None:
    """What a rebuild has left half-built must be known as ours however short history is."""
    old, new, half = step("old", size=10), step("new", size=10), step("half", size=10)
    counts = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM steps), (SELECT count(*) FROM sizes)"
    with writing(path) as journal:
        record(journal, ended(old))
        journal.start(half)
        journal.tick(half, Tick(Amount(), "12", "orders_ccnew"))
        journal.sample("shop", old.task.ref, 1000, 5, datetime.now(UTC))
        journal.end_run("done")
    aged(path, 8)
    with writing(path, keep=90 * DAY) as journal:
        journal.end_run("done")
    assert rows(path, counts) == [(2, 2, 1)]
    with open_journal(str(path), ADDRESS, readonly=True, keep=7 * DAY) as journal:  # check mode
        journal.begin_run("db_vacuum", check=True)
        journal.end_run("done")
    assert rows(path, counts) == [(2, 2, 1)]
    with writing(path, keep=7 * DAY) as journal:
        record(journal, ended(new))
        journal.end_run("done")
    assert rows(path, counts) == [(2, 1, 0)]
    known = reading(path)
    assert (set(known.past()), known.cursor(half)) == ({old.key, new.key}, "12")
    assert known.owned() == {half.key: ("orders_ccnew",)}


def test_samples_are_forgotten_also_where_no_run_has_anything_to_do(path: Path) -> None:
    now, ref = datetime.now(UTC), step("orders").task.ref
    for days in (20, 10, 0):
        with open_journal(str(path), ADDRESS, readonly=False, keep=15 * DAY) as journal:
            journal.sample("shop", ref, 1000 - days, 5, now - timedelta(days=days))
    # By the time before the last: a clock that jumps ahead makes nothing old.
    assert rows(path, "SELECT bytes FROM sizes ORDER BY at") == [(980,), (990,), (1000,)]
    with open_journal(str(path), ADDRESS, readonly=False, keep=15 * DAY) as journal:
        journal.sample("shop", ref, 1001, 5, now + timedelta(days=1))
    assert rows(path, "SELECT bytes FROM sizes ORDER BY at") == [(990,), (1000,), (1001,)]


def test_a_clock_that_jumps_makes_nothing_old(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without a clock of its own starts in 1970; another one is a century ahead until somebody sees it."""
    now = time.time()
    for moment in (now - 86400, now - 3600, 10.0, now, now + 3e9, now + 60):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        with writing(path) as journal:
            record(journal, ended(step("orders", size=10)))
            journal.end_run("done")
    monkeypatch.undo()
    began = [at for (at,) in rows(path, "SELECT r.began FROM runs r JOIN steps s ON s.run = r.id")]
    assert {now - 86400, now - 3600, now, now + 60} <= set(began)


# ---- places and modes ------------------------------------------------------------------------------------------------


def test_file_and_directory_are_private(path: Path) -> None:
    with writing(path):
        assert {file.name for file in path.parent.iterdir()} >= {"journal.sqlite", "journal.sqlite-wal"}
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_none_remembers_nothing_and_takes_everything() -> None:
    with open_journal("none", ADDRESS, readonly=False) as journal:
        journal.begin_run("db_vacuum")
        record(journal, ended(step("a")))
        journal.tick(step("a"), Tick(cursor="1", owns="x"))
        journal.sample("shop", table("a"), 1, None, NOW)
        journal.end_run("done")
        assert (journal.past(), journal.overdue(), journal.rates(), journal.owned()) == ({}, frozenset(), {}, {})
        assert journal.cursor(step("a")) is None


def test_the_default_place_is_the_systems_and_else_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, user = tmp_path / "lib" / "dbfleet", tmp_path / "home"
    system.parent.mkdir()
    monkeypatch.setattr(host, "SYSTEM_DIRECTORY", system)
    monkeypatch.setenv("XDG_STATE_HOME", str(user))
    with open_journal(None, ADDRESS, readonly=True) as journal:
        assert journal.path == system / "journal.sqlite"
    assert not system.exists()
    with open_journal(None, ADDRESS, readonly=False) as journal:
        assert journal.path == system / "journal.sqlite"
    monkeypatch.setattr(host, "SYSTEM_DIRECTORY", tmp_path / "no" / "such" / "place")
    with open_journal(None, ADDRESS, readonly=False) as journal:
        assert journal.path == user / "dbfleet" / "journal.sqlite"
    assert stat.S_IMODE((user / "dbfleet").stat().st_mode) == 0o700


def test_no_place_at_all_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SYSTEM_DIRECTORY", tmp_path / "no" / "such")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    warnings: list[str] = []
    with open_journal(None, ADDRESS, readonly=False, warn=warnings.append) as journal:
        record(journal, ended(step("a")))
    assert len(warnings) == 1
    assert "No journal can be kept" in warnings[0]


@pytest.mark.parametrize("content", [None, b"root:x:0:0\n"])
def test_a_given_path_that_cannot_be_a_journal_is_bad_input(tmp_path: Path, content: bytes | None) -> None:
    place = tmp_path / "thing"
    if content is None:
        place.mkdir()
    else:
        place.write_bytes(content)
    for readonly in (True, False):
        with pytest.raises(BadInput, match="cannot be used"):
            open_journal(str(place), ADDRESS, readonly=readonly)
    assert content is None or place.read_bytes() == content


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "app.sqlite"
    db = sqlite3.connect(place)
    db.execute("CREATE TABLE users (name)")
    db.commit()
    db.close()
    before = fingerprint(tmp_path)
    for readonly in (False, True):
        with pytest.raises(BadInput, match="another program"):
            open_journal(str(place), ADDRESS, readonly=readonly)
    assert fingerprint(tmp_path) == before


# ---- check mode ------------------------------------------------------------------------------------------------------


def busy(path: Path) -> Iterator[Journal]:
    """A journal in the middle of another process' run: what it knows stands in the -wal."""
    with writing(path) as journal:
        record(journal, ended(step("a", size=7), "deferred"))
        yield journal


@pytest.mark.parametrize("beginning", ["missing", "closed", "open", "corrupt", "empty"])
def test_check_mode_changes_no_byte(path: Path, tmp_path: Path, beginning: str) -> None:
    path.parent.mkdir(mode=0o700)
    other = busy(path) if beginning in ("closed", "open") else iter(())
    next(other, None)
    if beginning == "closed":
        list(other)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
    if beginning in ("corrupt", "empty"):
        path.write_bytes(b"garbage" * 1000 if beginning == "corrupt" else b"")
    before = fingerprint(tmp_path)
    with reading(path) as journal:
        assert journal.overdue() == ({step("a").key} if beginning in ("closed", "open") else frozenset())
        assert set(journal.past()) == ({step("a").key} if beginning in ("closed", "open") else set())
        journal.begin_run("db_vacuum", check=True)
        record(journal, ended(step("b")))
        journal.sample("shop", table("a"), 1, 1, NOW)
        journal.end_run("done")
    assert fingerprint(tmp_path) == before
    list(other)


def test_check_mode_reads_while_another_process_goes_on_writing(path: Path) -> None:
    planned = step("a", size=7)
    done = threading.Event()

    def write() -> None:
        with writing(path) as journal:
            while not done.is_set():
                record(journal, ended(planned, "deferred", error="x" * 5000))
                time.sleep(0.001)

    with writing(path) as journal:
        record(journal, ended(planned, "deferred"))
    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert all(reading(path).overdue() == {planned.key} for _again in range(30))
    finally:
        done.set()
        thread.join()
