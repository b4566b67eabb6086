# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_history_facts on a large journal: seconds of a whole process, and its memory. See README.md beside this."""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from ansible_collections.dbfleet.maintenance.plugins.module_utils._run import file
from tests.integration.module_runner import run

STEPS = int(os.environ.get("BENCH_STEPS", "100000"))
TABLES = int(os.environ.get("BENCH_TABLES", "3000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
DAYS, RUN = 30, 50  # days of samples; steps of a run
SERVER = "db1:5432"
STEP = f"INSERT INTO steps VALUES ({', '.join('?' * 21)})"


def make(path: Path) -> None:
    """Runs of a month, one step of a hundred failed; a sample of every table for every day."""
    db, now = file.open_for_writing(path), time.time()
    runs = STEPS // RUN
    began = [now - (runs - number) * DAYS * 86400 / runs for number in range(runs)]
    refs = [json.dumps(["shop", ["public", f"table_{number}"], ""]) for number in range(TABLES)]
    with file.transaction(db):
        for first, kind in ((1, "vacuum"), (TABLES + 1, "")):
            rows = ((first + number, SERVER, kind, ref) for number, ref in enumerate(refs))
            db.executemany("INSERT INTO objects VALUES (?, ?, ?, ?)", rows)
        db.executemany(
            "INSERT INTO runs VALUES (?, ?, 'db_vacuum', ?, ?, 'done', 'host', 1, '')",
            ((number + 1, SERVER, at, at + 60) for number, at in enumerate(began)),
        )
        head = ("dead rows 41 % (820,113) over 10 %", '["VACUUM \\"public\\".\\"orders\\""]', 10**9, 10**6, 0, 2.5)
        tail = (10**6, 0, 0, 2.4, 10**9, 10**9 - 10**6, 1, 1, 1)
        db.executemany(
            STEP,
            (
                (n + 1, n // RUN + 1, n % TABLES + 1, began[n // RUN], "done" if n % 97 else "failed", *head, *tail, "")
                for n in range(runs * RUN)
            ),
        )
        hours = [int(now // 3600) - 24 * day for day in range(DAYS)]
        db.executemany(
            "INSERT INTO sizes VALUES (?, ?, ?, ?, 100)",
            ((TABLES + 1 + n, hour, hour * 3600.0, 10**6 + hour * n) for n in range(TABLES) for hour in hours),
        )
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def main() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite"
        make(path)
        for since in ("30d", "1s"):
            walls, computed = [], []
            for _round in range(ROUNDS):
                before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
                fact = run(
                    "db_history_facts",
                    {"engine": "postgresql", "login_host": "db1", "journal": str(path), "since": since},
                ).fact()
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                walls.append(time.monotonic() - began)
                computed.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            count = fact["summary"]["steps"]
            print(
                f"since {since}: {count:,} steps of a journal of {path.stat().st_size / 1e6:.0f} MB:"
                f" {statistics.median(walls):.2f} s wall, {statistics.median(computed):.2f} s computed"
                f" ({ROUNDS} rounds), {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB at most,"
                f" {len(json.dumps(fact)) / 1024:.0f} kB returned",
                flush=True,
            )


if __name__ == "__main__":
    main()
