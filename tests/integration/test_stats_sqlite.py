# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The statistics of SQLite files: what little is known, what is not, and no trace of having looked."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import SQLite
from ansible_collections.dbfleet.maintenance.plugins.module_utils._health import Health
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Wants

from .module_runner import run

Lite = Callable[..., Path]
ALL = Wants(tables=True, indexes=True, structure=True, health=True, activity=True)


def health(*paths: Path) -> Health:
    engine = SQLite({"databases": [str(p) for p in paths]}, Execution(lock_timeout=0.3))
    server = engine.greet()
    with engine.session(str(paths[0])) as session:
        return engine.health(session, server)


def test_little_is_known_and_it_is_said(lite: Lite) -> None:
    path = lite()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    found = health(path)
    assert (found.connections, found.backends, found.statements, found.uptime_seconds) == (None,) * 4
    assert {"connections", "backends", "statements", "uptime_seconds"} <= set(found.unknown)
    assert found.logs
    assert not found.logs.enabled


def test_write_ahead_logs_of_all_files(lite: Lite) -> None:
    """Their sizes are those of the files beside the databases."""
    paths = [lite("one.db"), lite("two.db"), lite("plain.db")]
    links = [sqlite3.connect(path, isolation_level=None) for path in paths]
    try:
        for link in links[:2]:
            link.execute("PRAGMA journal_mode = WAL")
        for link in links:
            link.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
            link.execute("INSERT INTO t VALUES (1, zeroblob(100000))")
        logs = health(*paths).logs
        assert logs
        assert logs.enabled
        assert logs.files == 2
        assert logs.bytes == sum(Path(f"{path}-wal").stat().st_size for path in paths[:2]) > 200000
    finally:
        for link in links:
            link.close()


def test_who_holds_a_lock(lite: Lite) -> None:
    """SQLite cannot say it; the kernel can, of another process than ours."""
    path = lite()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    words = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('BEGIN IMMEDIATE');"
        " print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", words, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        found = health(path)
        assert found.backends is None
        assert f"process {holder.pid}" in found.unknown["backends"]
        assert holder.stdin
        holder.stdin.close()
    assert "process" not in health(path).unknown["backends"]


def test_damaged_and_interrupted_files_keep_nobody_from_the_others(lite: Lite) -> None:
    whole, broken = lite("whole.db"), lite("broken.db")
    for path in (whole, broken):
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE t (v)")
            db.commit()
    content = bytearray(broken.read_bytes())
    content[100:200] = b"\xff" * 100
    broken.write_bytes(content)
    options = {"engine": "sqlite", "databases": [str(broken), str(whole)], "journal": "none"}
    fact = run("db_stats_facts", options).fact()
    assert {r["code"] for r in fact["recommendations"] if r["database"] == str(whole)} == {"no_primary_key"}
    assert any(f["database"] == str(broken) for f in fact["findings"])


def test_leaves_no_trace(lite: Lite) -> None:
    path = lite()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, p REFERENCES t)")
        db.execute("INSERT INTO t VALUES (1, 1)")
        db.commit()
    before = (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir()))
    fact = run("db_stats_facts", {"engine": "sqlite", "databases": [str(path)], "journal": "none"}).fact()
    assert fact["counters"][0]["used"] == 1
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before


def test_three_thousand_tables(lite: Lite) -> None:
    path = lite()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        for number in range(3000):
            db.execute(f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY AUTOINCREMENT, p REFERENCES t0, a, b, c);")
            for column in "pab":
                db.execute(f"CREATE INDEX t{number}_{column} ON t{number} ({column})")
        db.execute("COMMIT")
    engine = SQLite({"databases": [str(path)]}, Execution())
    server = engine.greet()
    took = []
    for _attempt in range(3):
        began = time.process_time()
        with engine.session(str(path)) as session:
            found = engine.measure(session, ALL, server)
        took.append(time.process_time() - began)
    assert len(found.tables) == 3001
    assert len(found.indexes) == 9000
    assert found.structure
    assert len(found.structure.foreign_keys) == 3000
    assert all(key.indexed for key in found.structure.foreign_keys)
    assert min(took) < 6, took
