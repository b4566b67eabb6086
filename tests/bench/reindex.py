# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_reindex against `reindexdb --concurrently -j`: the same indexes, and the second run. See README.md beside this."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fleet import Fleet, Server
from tests.integration.module_runner import run

from .vacuum import SETTINGS, seconds

MAJOR = int(os.environ.get("BENCH_POSTGRESQL", "16"))
TABLES = int(os.environ.get("BENCH_TABLES", "20"))
ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
JOBS = 2
DATABASE = "bench"
FILES = """
SELECT c.relname, c.relfilenode FROM pg_catalog.pg_class c
 WHERE c.relkind = 'i' AND c.relnamespace = 'public'::regnamespace ORDER BY 1
"""


def make(server: Server) -> None:
    """Tables of two indexes each, and no out-of-line storage, whose index reindexdb would build, too."""
    server.sql(f"CREATE DATABASE {DATABASE}")
    for number in range(TABLES):
        server.script(
            f"CREATE TABLE t{number} (id bigint, at timestamptz, note varchar(40));"
            f"INSERT INTO t{number} SELECT n, '2026-01-01'::timestamptz + n * interval '1 second', 'x'"
            f" FROM generate_series(1, {ROWS}) n;"
            f"ALTER TABLE t{number} ADD CONSTRAINT t{number}_id PRIMARY KEY (id);"
            f"CREATE INDEX t{number}_at ON t{number} (at);",
            database=DATABASE,
        )
    server.sql("VACUUM ANALYZE", database=DATABASE)


def bloat(server: Server) -> None:
    """Every page of every index is left two thirds empty: built so, and then said to be meant full."""
    for name in (f"t{number}_{column}" for number in range(TABLES) for column in ("id", "at")):
        server.script(
            f"ALTER INDEX {name} SET (fillfactor = 30); REINDEX INDEX {name}; ALTER INDEX {name} RESET (fillfactor);",
            database=DATABASE,
        )
    server.sql("CHECKPOINT")


def rebuilt(server: Server, act: Callable[[], Any]) -> tuple[float, int]:
    """How long it took, and how many indexes were built anew."""
    before = server.sql(FILES, database=DATABASE)
    took = seconds(act)
    after = server.sql(FILES, database=DATABASE)
    return took, sum(a != b for a, b in zip(before, after, strict=True))


def reindexdb(server: Server) -> None:
    """The peer: all indexes of all tables."""
    argv = [str(server.bin_dir / "reindexdb"), "-h", server.host, "-p", str(server.port), "-U", server.user]
    subprocess.run(
        [*argv, "--quiet", "--concurrently", f"--jobs={JOBS}", "--schema=public", DATABASE],
        env={**os.environ, "PGPASSWORD": server.password},
        check=True,
    )


def ours(server: Server, journal: Path) -> dict[str, Any]:
    """db_reindex with the defaults, as a process of its own."""
    options = {**server.login(), "databases": [DATABASE], "jobs": JOBS, "journal": str(journal)}
    return run("db_reindex", options).result


def measure(server: Server, journal: Path) -> dict[str, list[float]]:
    """Interleaved rounds; it fails where the two did not do the same work, or ours something in the second run."""
    found: dict[str, list[float]] = {"reindexdb": [], "db_reindex": [], "reindexdb again": [], "db_reindex again": []}
    sides: dict[str, Callable[[], Any]] = {
        "reindexdb": lambda: reindexdb(server),
        "db_reindex": lambda: ours(server, journal),
    }
    for number in range(ROUNDS):
        for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
            bloat(server)
            for name, wanted in ((side, 2 * TABLES), (f"{side} again", 2 * TABLES if side == "reindexdb" else 0)):
                took, done = rebuilt(server, sides[side])
                found[name].append(took)
                if done != wanted:
                    raise SystemExit(f"{name}: {done} indexes built anew instead of {wanted}")
    return found


def main() -> None:
    with Fleet() as fleet, tempfile.TemporaryDirectory() as folder:
        server = fleet.postgresql(MAJOR, settings=SETTINGS)
        print(
            f"PostgreSQL {server.version}: {2 * TABLES} indexes of {TABLES} tables of {ROWS:,} rows,"
            f" {JOBS} jobs, {ROUNDS} rounds",
            flush=True,
        )
        make(server)
        found = measure(server, Path(folder) / "journal.sqlite")
        size = server.sql("SELECT pg_catalog.pg_size_pretty(pg_catalog.pg_indexes_size('t0'))", database=DATABASE)
        print(f"indexes of one table, when they are rebuilt: {size[0][0]}", flush=True)
    for name, times in found.items():
        print(f"{name:18} median {statistics.median(times):7.2f} s   ({min(times):.2f} to {max(times):.2f})")
    work = [a / b for a, b in zip(found["db_reindex"], found["reindexdb"], strict=True)]
    again = [a / b for a, b in zip(found["reindexdb again"], found["db_reindex again"], strict=True)]
    print(f"the work:       db_reindex takes {statistics.median(work):.2f} times reindexdb's time (to be at most 1.1)")
    print(f"the second run: db_reindex does nothing, {statistics.median(again):.1f} times faster")


if __name__ == "__main__":
    main()
