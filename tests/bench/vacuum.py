# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_vacuum against `vacuumdb -j`: the same work, and the second run. What is measured: README.md beside this."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fleet import Fleet, Server
from tests.integration.module_runner import run

MAJOR = int(os.environ.get("BENCH_POSTGRESQL", "16"))
TABLES = int(os.environ.get("BENCH_TABLES", "300"))
ROWS = int(os.environ.get("BENCH_ROWS", "100000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
JOBS = 2
DATABASE = "bench"
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "2GB", "maintenance_work_mem": "256MB"}


def fill(server: Server) -> None:
    """TABLES tables of ROWS rows with a primary key and one more index."""
    server.sql(f"CREATE DATABASE {DATABASE}")
    for number in range(TABLES):
        server.script(
            f"CREATE TABLE t{number} (id bigint PRIMARY KEY, at timestamptz, note text, state int);"
            f"INSERT INTO t{number} SELECT n, now(), repeat('x', 100), n % 7 FROM generate_series(1, {ROWS}) n;"
            f"CREATE INDEX ON t{number} (at);",
            database=DATABASE,
        )


def churn(server: Server) -> None:
    """A fifth of the rows of every table changes."""
    for number in range(TABLES):
        server.sql(f"UPDATE t{number} SET state = state + 1 WHERE id % 5 = 0", database=DATABASE)
    server.sql("CHECKPOINT")


def seconds(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def vacuumdb(server: Server) -> None:
    """The peer: all tables of the database, vacuumed and analyzed."""
    argv = [str(server.bin_dir / "vacuumdb"), "-h", server.host, "-p", str(server.port), "-U", server.user]
    subprocess.run(
        [*argv, "--quiet", "--analyze", f"--jobs={JOBS}", "--schema=public", DATABASE],
        env={**os.environ, "PGPASSWORD": server.password},
        check=True,
    )


def ours(server: Server, journal: Path) -> dict[str, Any]:
    """db_vacuum with the defaults, as a process of its own."""
    options = {**server.login(), "databases": [DATABASE], "jobs": JOBS, "journal": str(journal)}
    return run("db_vacuum", options).result


def peer(server: Server, found: dict[str, list[float]]) -> None:
    """One side of a round."""
    found["vacuumdb"].append(seconds(lambda: vacuumdb(server)))
    found["vacuumdb again"].append(seconds(lambda: vacuumdb(server)))


def mine(server: Server, journal: Path, found: dict[str, list[float]]) -> None:
    """The other side; it fails where it did not do the same work, or something in the second run."""
    began = time.monotonic()
    done = ours(server, journal)["summary"]["done"]
    found["db_vacuum"].append(time.monotonic() - began)
    began = time.monotonic()
    again = ours(server, journal)["changed"]
    found["db_vacuum again"].append(time.monotonic() - began)
    if done != TABLES or again:
        raise SystemExit(f"{done} of {TABLES} tables done; the second run changed: {again}")


def measure(server: Server, journal: Path) -> dict[str, list[float]]:
    """Interleaved rounds, so that a slow minute of the machine hits both."""
    found: dict[str, list[float]] = {"vacuumdb": [], "db_vacuum": [], "vacuumdb again": [], "db_vacuum again": []}
    for number in range(ROUNDS):
        for side in ("peer", "mine") if number % 2 == 0 else ("mine", "peer"):
            churn(server)
            if side == "peer":
                peer(server, found)
            else:
                mine(server, journal, found)
    return found


def main() -> None:
    with Fleet() as fleet, tempfile.TemporaryDirectory() as folder:
        server = fleet.postgresql(MAJOR, settings=SETTINGS)
        print(
            f"PostgreSQL {server.version}: {TABLES} tables of {ROWS:,} rows, {JOBS} jobs, {ROUNDS} rounds", flush=True
        )
        fill(server)
        vacuumdb(server)
        size = server.sql(f"SELECT pg_catalog.pg_size_pretty(pg_catalog.pg_database_size('{DATABASE}'))")[0][0]
        print(f"database: {size}", flush=True)
        found = measure(server, Path(folder) / "journal.sqlite")
    for name, times in found.items():
        print(f"{name:18} median {statistics.median(times):7.2f} s   ({min(times):.2f} to {max(times):.2f})")
    work = [a / b for a, b in zip(found["db_vacuum"], found["vacuumdb"], strict=True)]
    again = [a / b for a, b in zip(found["vacuumdb again"], found["db_vacuum again"], strict=True)]
    print(f"the work:       db_vacuum takes {statistics.median(work):.2f} times vacuumdb's time (to be at most 1.1)")
    print(f"the second run: db_vacuum is {statistics.median(again):.1f} times faster (to be at least 20)")


if __name__ == "__main__":
    main()
