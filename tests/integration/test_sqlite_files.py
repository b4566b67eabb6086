# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files the SQLite engine takes, and that looking at them leaves no trace."""

from __future__ import annotations

import random
import socket
import sqlite3
import sys
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import SQLite, connection
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    BadInput,
    CannotConnect,
    Held,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Execution,
    Ref,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    Analyze,
    Rebuild,
)
from tests.integration.lite import (
    ALL,
    carried_out,
    engine_of,
    fingerprint,
    leave_hot_journal,
    logged,
    make,
    measured,
    named,
    other_process,
    writes,
)

# ---- which files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("databases", [None, [], ["*"], ["-/srv/x.db"], ["relative.db"], ["/srv/*.db", "*"]])
def test_files_must_be_named(databases: list[str] | None) -> None:
    with pytest.raises(BadInput, match="databases"):
        SQLite({"databases": databases}, Execution())


def test_globs_exclusions_links_and_what_lies_beside(tmp_path: Path) -> None:
    for name in ("a.db", "b.db", "c.db", "we[ir]d %.db"):
        make(tmp_path / name, "CREATE TABLE t (a)")
    for name in ("a.db-wal", "a.db-shm", "b.db-journal"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    server = engine_of(f"{tmp_path}/*", tmp_path / "link.db", f"-{tmp_path}/c.*", "-b.d?", f"{tmp_path}/none*").greet()
    assert [d.name for d in server.databases] == [str(tmp_path / n) for n in ("a.db", "we[ir]d %.db")]
    assert [(f.code, "none*" in f.message) for f in server.findings] == [("nothing_selected", True)]
    assert (server.engine, server.number, server.role) == ("sqlite", sqlite3.sqlite_version_info, "primary")
    assert socket.gethostname() in server.address
    assert server.now.tzinfo is not None
    assert {"vacuum", "freeze"} <= set(server.lacks)


def test_a_file_that_is_not_there_is_bad_input_and_stays_not_there(tmp_path: Path) -> None:
    make(tmp_path / "a.db", "CREATE TABLE t (a)")
    before = fingerprint(tmp_path)
    for name in ("missing.db", "."):
        with pytest.raises(BadInput, match=r"no file|no regular file"):
            engine_of(tmp_path / "a.db", tmp_path / name).greet()
    assert fingerprint(tmp_path) == before


def test_what_is_no_database_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all " * 400)
    (tmp_path / "encrypted.db").write_bytes(random.Random(1).randbytes(8192))
    (tmp_path / "empty.db").touch()
    make(tmp_path / "good.db", rows=10)
    infos = {Path(d.name).name: d for d in engine_of(f"{tmp_path}/*.db").greet().databases}
    assert "encrypted" in infos["text.db"].why_not
    assert "encrypted" in infos["encrypted.db"].why_not
    assert (infos["good.db"].why_not, infos["empty.db"].why_not) == ("", "")
    found = measured(tmp_path / "empty.db")
    assert [(x.kind, x.total_bytes, x.bloat) for x in found.tables] == [("file", 0, None)]
    assert not found.leftovers
    assert not found.findings


# ---- measuring leaves no trace ---------------------------------------------------------------------------------------


CRASH = """
    import os
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("INSERT INTO t (k) SELECT value FROM json_each('[1,2,3,4,5]')")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "state", ["rollback", "wal", "wal live", "wal crashed", "wal crashed, no shm", "empty wal", "hot"]
)
def test_measuring_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    log = logged(monkeypatch)
    path = make(tmp_path / "a.db", rows=2000, wal="wal" in state)
    rows = 2000
    with other_process(CRASH if state.startswith("wal ") else "print('ready', flush=True)", path) as other:
        if state.startswith("wal "):
            rows = 2005
        if "crashed" in state:
            other.kill()
            other.wait()
        if "no shm" in state:
            Path(f"{path}-shm").unlink()
            rows = 2000
        if state == "empty wal":
            Path(f"{path}-wal").touch()
        if state == "hot":
            leave_hot_journal(path)
        before = fingerprint(tmp_path)
        engine = engine_of(path)
        server = engine.greet()
        with engine.session(str(path)) as session:
            found = engine.measure(session, ALL, server)
            for task in (
                Analyze(Ref(str(path), ("t",))),
                Rebuild(Ref(str(path))),
                Rebuild(Ref(str(path)), online=False),
            ):
                engine.spell(task, server)
        assert fingerprint(tmp_path) == before
        assert writes(log) == set()
        if state == "hot":
            assert [left.what for left in found.leftovers] == ["transaction"]
        else:
            assert named(found, "t").rows == rows
        assert ("log_unread" in {f.code for f in found.findings}) == ("no shm" in state)


def test_a_reading_that_was_overtaken_is_repeated(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=100, wal=True)
    engine = engine_of(path)
    seen: list[bool] = []

    def ask(db: sqlite3.Connection, way: connection.Way) -> int:
        if not seen:
            make(path, "INSERT INTO t (k) VALUES (1)")  # comes and goes: no -wal tells of it afterwards
        seen.append(way.locked)
        return int(db.execute("SELECT count(*) FROM t").fetchone()[0])

    with engine.session(str(path)) as session:
        assert session.read(ask) == 101
    assert seen == [False, False]


def test_a_file_that_vanishes_is_a_fault_of_its_own(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=10)
    engine = engine_of(path)
    server = engine.greet()
    path.unlink()
    with engine.session(str(path)) as session, pytest.raises(CannotConnect, match="not there any more"):
        engine.measure(session, ALL, server)
    assert not list(tmp_path.iterdir())


# ---- the guard -------------------------------------------------------------------------------------------------------


GUARD = """
    sys.path[:0] = sys.argv[2:]
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite.guard import guard
    with guard([sys.argv[1]], 0):
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("wal", [False, True])
def test_two_runs_cannot_write_at_once_and_a_dead_one_holds_nothing(tmp_path: Path, wal: bool) -> None:
    path = make(tmp_path / "a.db", rows=10, wal=wal)
    other = make(tmp_path / "b.db", rows=10)
    engine = engine_of(path, other)
    before = fingerprint(tmp_path)
    with other_process(GUARD, path, *sys.path) as holder:
        with pytest.raises(Held, match=f"process {holder.pid} "), engine.guard([str(path), str(other)], 0.2):
            pytest.fail("the guard was given twice")
        with engine.guard([str(other)], 0):
            pass
        make(path, "INSERT INTO t (k) VALUES (1)")  # applications do not feel it
        holder.kill()
        holder.wait()
    with engine.guard([str(path), str(other)], 0):
        carried_out(path, Analyze(Ref(str(path), ("t",))), engine)
        with pytest.raises(Held), engine.guard([str(path)], 0):  # closing SQLite's descriptors has not dropped it
            pytest.fail("the guard was given twice")
    assert set(fingerprint(tmp_path)) == set(before)
