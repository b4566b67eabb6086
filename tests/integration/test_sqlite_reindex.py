# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_reindex on SQLite files as its users call it: check, run, run again, and others at work on the file."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from .lite import HOLD, closing, fingerprint, make, other_process
from .module_runner import run, start, until

TABLES = """
CREATE TABLE t (id INTEGER PRIMARY KEY, k INT, v TEXT, u TEXT UNIQUE);
CREATE TABLE w (a TEXT, b INT, c TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE INDEX tk ON t (k);
CREATE INDEX te ON t (lower(v), k + 1);
CREATE INDEX tp ON t (v) WHERE k > 100;
CREATE INDEX "in""dex %s; --ü" ON t (k DESC, v COLLATE NOCASE);
CREATE INDEX wc ON w (c);
"""
BLOATED = {"tk", "te", "tp", 'in"dex %s; --ü', "sqlite_autoindex_t_1"}


@pytest.fixture(params=[False, True], ids=["rollback", "wal"])
def spoilt(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Every fifth row of `t` stays; `w` and its index are healthy."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = make(folder / "shop.db", wal=request.param)
    dice = random.Random(1)

    def word(bits: int = 120) -> str:
        return f"{dice.getrandbits(bits):x}"

    with closing(path) as db:
        db.executescript(TABLES)
        db.execute("BEGIN")
        rows = ((dice.randint(0, 10**9), word(), word()) for _number in range(20000))
        db.executemany("INSERT INTO t (k, v, u) VALUES (?, ?, ?)", rows)
        db.executemany("INSERT INTO w VALUES (?, ?, ?)", ((word(80), n, word()) for n in range(20000)))
        db.execute("DELETE FROM t WHERE id % 5 <> 0")
        db.execute("COMMIT")
    return path


def options(path: Path, tmp_path: Path, **more: Any) -> dict[str, Any]:
    journal = str(tmp_path / "journal" / "journal.sqlite")
    base = {"engine": "sqlite", "databases": [str(path)], "min_size": "50kB", "method": "exclusive", "journal": journal}
    return {**base, **more}


def content(path: Path) -> list[Any]:
    with closing(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [*db.execute("SELECT * FROM t ORDER BY id"), *db.execute("SELECT * FROM w ORDER BY a, b")]


def test_check_shows_what_runs_and_a_second_run_does_nothing(spoilt: Path, tmp_path: Path) -> None:
    rows = content(spoilt)
    before = fingerprint(spoilt.parent)
    check = run("db_reindex", options(spoilt, tmp_path), check=True)
    assert fingerprint(spoilt.parent) == before
    ran = run("db_reindex", options(spoilt, tmp_path))
    assert {s["object"] for s in ran.fact()["steps"]} == BLOATED
    assert [(s["status"], s["proven"]) for s in ran.fact()["steps"]] == [("done", True)] * len(BLOATED)
    assert ran.statements() == check.statements()
    assert check.changed
    assert ran.changed
    again = run("db_reindex", options(spoilt, tmp_path))
    assert not again.changed
    assert again.steps() == []
    assert content(spoilt) == rows


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN; SELECT count(*) FROM t"])
def test_somebody_else_is_at_work(spoilt: Path, tmp_path: Path, lock: str) -> None:
    """A writer, and without WAL a reader, is waited for no longer than lock_timeout; the file stays as it was."""
    asked = options(spoilt, tmp_path, lock_timeout="200ms", retries=0)
    rows = content(spoilt)
    with closing(spoilt) as db:
        wal = db.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    free = wal and "SELECT" in lock
    with other_process(HOLD, spoilt, *lock.split("; ")):
        ran = run("db_reindex", asked, fails=not free)
        if not free:
            assert "is locked" in ran.result["msg"]
            assert {s["status"] for s in ran.fact()["steps"]} == {"failed"}
    assert content(spoilt) == rows
    assert run("db_reindex", asked).changed != free


def test_a_killed_run_leaves_the_file_whole(spoilt: Path, tmp_path: Path) -> None:
    rows = content(spoilt)
    asked = options(spoilt, tmp_path)
    child = start("db_reindex", asked)
    beside = [spoilt.parent / f"{spoilt.name}-{what}" for what in ("wal", "journal")]
    until(lambda: child.poll() is not None or any(each.exists() for each in beside), 30)
    child.send(signal.SIGKILL)
    child.end()
    assert content(spoilt) == rows
    run("db_reindex", asked)
    assert run("db_reindex", asked).steps() == []
    assert content(spoilt) == rows
