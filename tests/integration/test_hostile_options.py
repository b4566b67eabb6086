# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that are legal and odd, and options that are neither: an end in seconds, words that help, no traceback."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server

from .conftest import Pool
from .module_runner import run, start
from .test_check_equals_run import options

Make = Callable[[Server], str]


@pytest.fixture
def filled(pool: Pool, database: Make) -> tuple[Server, str]:
    server = pool.get("postgresql-18")
    name = database(server)
    server.script("".join(f"CREATE TABLE t{n} AS SELECT generate_series(1, 200) i;" for n in range(6)), database=name)
    return server, name


def test_odd_and_legal(filled: tuple[Server, str], tmp_path: Path) -> None:
    server, name = filled
    nothing: list[dict[str, Any]] = [
        {"tables": ["nothing*"]},
        {"tables": ["-*"]},
        {"databases": [name, "-*"]},
        {"databases": [f"-{name}", "-[0-9]"[:1] + "t*", "-postgres"]},
        {"time_budget": "2ms"},
        {"actions": ["freeze"]},
        {"stop_file": str(tmp_path)},
    ]
    for odd in nothing:
        for check in (True, False):
            ran = run("db_vacuum", options(server, name, tmp_path, **odd), check=check)
            assert not ran.changed, (odd, ran.text)
    widest = {"jobs": 50, "time_budget": "999999w", "lock_timeout": "99999d", "retries": 0, "max_results": 1}
    ran = run("db_vacuum", options(server, name, tmp_path, **widest))
    assert ran.fact()["summary"]["done"] == 6
    assert len(ran.fact()["steps"]) == 1
    # As touchy as can be: nothing has changed since.
    touchy = {
        "dead_percent": 0,
        "min_dead_rows": 0,
        "changed_percent": 0,
        "min_changed_rows": 0,
        "analyze_max_age": "0s",
    }
    assert not run("db_vacuum", options(server, name, tmp_path, **touchy)).changed


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"databases": ["*", "No_such"]}, "No_such"),
        ({"databases": []}, "databases"),
        ({"login_port": 99999999}, "port"),
        ({"login_host": "no such host"}, "login_host"),
        ({"login_user": "x y'=\\ü"}, "login_user"),
        ({"login_db": "postgresql://elsewhere/x"}, "login_db"),
        ({"session_role": 'none"; --'}, "session_role"),
        ({"connect_params": {"nonsense": 1}}, "nonsense"),
        ({"window_timezone": "Mars/Olympus", "window": "22:00-06:00"}, "Mars"),
        ({"dead_percent": "nan"}, "dead_percent"),
        ({"vacuum_cost_delay": "nan"}, "vacuum_cost_delay"),
        ({"journal": "beside.sqlite"}, "absolute"),
        ({"journal": "/tmp"}, "not a file"),
        ({"journal": "/dev/null"}, "not a file"),
        ({"journal": "~nobody_here/journal"}, "journal"),
        ({"journal": ""}, "absolute"),
    ],
)
def test_refused_in_words(pool: Pool, tmp_path: Path, wrong: dict[str, Any], word: str) -> None:
    server = pool.get("postgresql-18")
    for check in (True, False):
        ran = run("db_vacuum", options(server, "postgres", tmp_path, **wrong), check=check, fails=True)
        assert word in ran.result["msg"]
        assert ran.result["changed"] is False
        assert "Traceback" not in ran.text
        assert server.password not in ran.text


def test_journals_of_others(filled: tuple[Server, str], tmp_path: Path) -> None:
    """One that is newer than this collection, one of another program, one that is garbage: none of them is harmed."""
    server, name = filled
    newer, other, garbage = (tmp_path / f"{n}.sqlite" for n in ("newer", "other", "garbage"))
    run("db_vacuum", options(server, name, tmp_path, journal=str(newer), tables=["t0"]))
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version = 99")
    with closing(sqlite3.connect(other)) as db:
        db.executescript("CREATE TABLE theirs (a); CREATE TABLE more (b); INSERT INTO theirs VALUES (1)")
    garbage.write_bytes(b"SQLite format 3\0" + b"\1garbage" * 5000)
    for path in (newer, other, garbage):
        before = path.read_bytes()
        checked = start(
            "db_vacuum", options(server, name, tmp_path, journal=str(path), tables=["t1"]), check=True
        ).wait()
        assert path.read_bytes() == before
        real = start("db_vacuum", options(server, name, tmp_path, journal=str(path), tables=["t1"])).wait()
        assert "Traceback" not in checked.text + real.text
        assert "cannot be used" in real.result["msg"]
        assert path.read_bytes() == before
