# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_vacuum on SQLite files that nobody expected: what is strange takes nobody along and comes to an end."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .module_runner import Ran, run, start

Lite = Callable[[str], Path]
SPECIAL = """
CREATE VIRTUAL TABLE words USING fts5 (x); INSERT INTO words SELECT 'hello world' FROM t LIMIT 900;
CREATE VIRTUAL TABLE boxes USING rtree (id, a, b); INSERT INTO boxes SELECT a, 1, 2 FROM t LIMIT 900;
CREATE TABLE "without" (a TEXT PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO "without" SELECT a, 1 FROM t;
CREATE TABLE made (a INT, b INT AS (a + 1) STORED, c INT AS (a + 2)); CREATE INDEX made_c ON made (c);
INSERT INTO made (a) SELECT a FROM t;
CREATE TABLE refuses (a); CREATE TRIGGER no AFTER INSERT ON refuses BEGIN SELECT raise(ABORT, 'no'); END;
CREATE VIEW broken AS SELECT * FROM nowhere;
CREATE INDEX some ON t (s) WHERE a < 0;
"""


def fill(path: Path, *pragmas: str, more: str = "") -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in pragmas:
            db.execute(f"PRAGMA {pragma}")
        db.executescript("CREATE TABLE t (a INTEGER PRIMARY KEY, s TEXT); CREATE INDEX t_s ON t (s)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO t VALUES (?, ?)", ((i, f"x{i}" * 20) for i in range(5000)))
        db.execute("COMMIT")
        db.executescript(f"DELETE FROM t WHERE a % 10 <> 0; {more}")


def options(tmp_path: Path, *paths: Path | str, **more: Any) -> dict[str, Any]:
    return {
        "engine": "sqlite",
        "databases": [str(path) for path in paths],
        "reclaim_min_size": "1kB",
        "reclaim_method": "exclusive",
        "journal": str(tmp_path / "journal" / "journal.sqlite"),
        **more,
    }


def twice(tmp_path: Path, *paths: Path | str, **more: Any) -> Ran:
    """Check and run agree, every step is proven, and the second run has nothing to do."""
    check = run("db_vacuum", options(tmp_path, *paths, **more), check=True)
    real = run("db_vacuum", options(tmp_path, *paths, **more))
    assert sorted(real.steps()) == sorted(check.steps())
    assert {(s["status"], s["proven"]) for s in real.fact()["steps"]} <= {("done", True)}, real.text
    again = run("db_vacuum", options(tmp_path, *paths, **more))
    assert not again.changed, again.fact()["steps"]
    return real


def test_every_kind_of_file(lite: Lite, tmp_path: Path) -> None:
    for page in (512, 65536):
        for vacuum in ("NONE", "FULL", "INCREMENTAL"):
            for journal in ("DELETE", "WAL", "PERSIST", "OFF"):
                name = f"kind {page} {vacuum} {journal}.db"
                fill(lite(name), f"page_size = {page}", f"auto_vacuum = {vacuum}", f"journal_mode = {journal}")
    real = twice(tmp_path, tmp_path / "kind *.db", jobs=4)
    assert len({s["database"] for s in real.fact()["steps"]}) == 24


def test_special_contents_and_names(lite: Lite, tmp_path: Path) -> None:
    names = (
        "new\nline.db",
        "q?.db",
        "ha#sh.db",
        "per%20cent.db",
        "a'b\"c.db",
        "ünï表.db",
        "file:x.db?mode=ro",
        "[a].db",
    )
    for name in (*names, ":memory:"):
        fill(lite(name), more=SPECIAL if name == "[a].db" else "")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/not utf-8 \xff.db")
    fill(lite("plain.db"))
    lite("plain.db").rename(odd)
    paths = [tmp_path / name for name in (*names, ":memory:") if "?" not in name and "*" not in name]
    real = twice(tmp_path, *paths, tmp_path / "not*.db", tmp_path / "q?.db", tmp_path / "file:x.db*ro", jobs=4)
    assert len({s["database"] for s in real.fact()["steps"]}) == len(names) + 2


def test_look_alikes_take_nobody_along(lite: Lite, tmp_path: Path) -> None:
    fill(lite("good.db"))
    whole = lite("good.db").read_bytes()
    lite("random.db").write_bytes(os.urandom(40960))
    lite("empty.db").touch()
    lite("text.db").write_text("hello " * 1000)
    lite("half.db").write_bytes(whole[:5000])
    lite("holes.db").write_bytes(whole[:20000] + os.urandom(4000) + whole[24000:])
    os.mkfifo(lite("pipe.db"))
    lite("folder.db").mkdir()
    lite("dangling.db").symlink_to("/nowhere")
    damaged = lite("holes.db").read_bytes()
    for turn in range(2):
        ran = start("db_vacuum", options(tmp_path, tmp_path / "*.db")).wait()
        findings = [f for f in ran.fact()["findings"] if f["code"] in ("database_unreadable", "database_damaged")]
        failed = {Path(s["database"]).name for s in ran.fact()["steps"] if s["status"] == "failed"}
        # Where the damage lies decides whether it shows when the file is measured, or when it is rebuilt.
        unreadable = {Path(f["database"]).name for f in findings}
        assert unreadable | failed == {"random.db", "text.db", "half.db", "holes.db"}
        done = {Path(s["database"]).name for s in ran.fact()["steps"] if s["status"] == "done"}
        assert done == ({"good.db"} if turn == 0 else set())
        assert "Traceback" not in ran.text
    assert lite("holes.db").read_bytes() == damaged


def test_one_file_by_three_names(lite: Lite, tmp_path: Path) -> None:
    """A symbolic link is the file itself; SQLite's journals go by name, so hard links are a danger of their own."""
    fill(lite("one.db"))
    lite("link.db").symlink_to(lite("one.db"))
    lite("hard.db").hardlink_to(lite("one.db"))
    real = twice(tmp_path, lite("one.db"), lite("link.db"), f"{tmp_path}/./one.db", lite("hard.db"), jobs=4)
    assert {s["database"] for s in real.fact()["steps"]} == {str(lite("one.db"))}
    assert [f["database"] for f in real.fact()["findings"] if f["code"] == "two_names"] == [str(lite("hard.db"))]


def test_somebody_keeps_the_file_to_himself(lite: Lite, tmp_path: Path) -> None:
    fill(lite("his.db"))
    fill(lite("free.db"))
    with closing(sqlite3.connect(lite("his.db"), isolation_level=None)) as db:
        db.executescript("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        ran = run("db_vacuum", options(tmp_path, lite("his.db"), lite("free.db"), lock_timeout="300ms"))
    (found,) = [f for f in ran.fact()["findings"] if f["code"] == "database_unreadable"]
    assert str(os.getpid()) in found["message"]
    assert {s["database"] for s in ran.fact()["steps"]} == {str(lite("free.db"))}


def test_a_locale_without_such_letters(lite: Lite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lite("ünï.db"))
    # An interpreter reads its locale when it starts.
    for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0"), ("DBFLEET_FORK", "0")):
        monkeypatch.setenv(name, value)
    refused = run("db_vacuum", options(tmp_path, lite("ünï.db")), fails=True)
    assert "LC_ALL" in refused.result["msg"]
    assert "Traceback" not in refused.text


def test_many_tables(lite: Lite, tmp_path: Path) -> None:
    """Each proof looks at its own table: steps may be many."""
    tables = range(300)
    with closing(sqlite3.connect(lite("many.db"), isolation_level=None)) as db:
        made = "".join(f"CREATE TABLE t{n} (a); CREATE INDEX i{n} ON t{n} (a);" for n in tables)
        db.executescript(
            "BEGIN;" + made + "".join(f"INSERT INTO t{n} VALUES (1), (2), (3);" for n in tables) + "COMMIT"
        )
    real = run("db_vacuum", options(tmp_path, lite("many.db"), max_results=5), diff=True)
    assert real.fact()["summary"]["done"] == len(tables)
    assert len(real.fact()["steps"]) == 5
    assert len(real.text) < 20000
    assert not run("db_vacuum", options(tmp_path, lite("many.db"))).changed
