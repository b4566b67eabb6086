# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pgbench's clients notice of a cleanup of another table, and of the same server. Figures: README.md."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path

from tests.fleet import Fleet, Server

from .cleanup_delete import MAKE
from .purging import DATABASE, ROUNDS, SETTINGS, clean, options, told

MAJOR = int(os.environ.get("BENCH_POSTGRESQL", "16"))
ROWS = int(os.environ.get("BENCH_ROWS", "4000000"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "20"))
CLIENTS = int(os.environ.get("BENCH_CLIENTS", "4"))


def pgbench(server: Server, *words: str) -> str:
    argv = [str(server.bin_dir / "pgbench"), "-h", server.host, "-p", str(server.port), "-U", server.user]
    done = subprocess.run(
        [*argv, *words, DATABASE],
        env={**os.environ, "PGPASSWORD": server.password},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def most(server: Server) -> float:
    """Transactions per second that the machine can do."""
    said = pgbench(server, "-n", "-c", str(CLIENTS), "-j", "1", "-T", "10")
    found = re.search(r"tps = ([0-9.]+)", said)
    if not found:
        raise SystemExit(f"pgbench said: {said}")
    return float(found[1])


def p99(server: Server, rate: float) -> float:
    """Milliseconds, the wait for the transaction's turn included."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "log")
        pace = ("--rate", f"{rate:.0f}", "-l", f"--log-prefix={prefix}")
        pgbench(server, "-n", "-c", str(CLIENTS), "-j", "1", "-T", str(SECONDS), *pace)
        lines = [line for path in Path(folder).iterdir() for line in path.read_text().splitlines()]
    times = sorted(int(line.split()[2]) / 1000 for line in lines)
    return times[int(0.99 * (len(times) - 1))]


def beside_cleanup(server: Server, rate: float) -> tuple[float, float]:
    """The p99, and for how much of that time db_cleanup ran."""
    busy, over = [0.0], threading.Event()

    def work() -> None:
        while not over.is_set():
            busy[0] += clean(options(server, {"delete_after": "90d", "rows_per_run": 200_000})).taken("delete")

    server.script(MAKE.format(rows=ROWS), database=DATABASE)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        found = p99(server, rate)
    finally:
        over.set()
        thread.join()
    return found, busy[0] / SECONDS


def main() -> None:
    with Fleet() as fleet:
        server = fleet.postgresql(MAJOR, settings=SETTINGS)
        server.sql(f"CREATE DATABASE {DATABASE}")
        pgbench(server, "-i", "-q", "-s", "20")
        top = most(server)
        print(
            f"PostgreSQL {server.version}, {CLIENTS} clients, at most {top:.0f} tps, --rate {top / 2:.0f}", flush=True
        )
        found: dict[str, list[float]] = {"p99 without": [], "p99 during a cleanup": [], "of the time it runs": []}
        for number in range(ROUNDS):
            for during in (False, True) if number % 2 == 0 else (True, False):
                if during:
                    slow, share = beside_cleanup(server, top / 2)
                    found["p99 during a cleanup"].append(slow)
                    found["of the time it runs"].append(share)
                else:
                    server.script(MAKE.format(rows=ROWS), database=DATABASE)
                    found["p99 without"].append(p99(server, top / 2))
    without, during_it = (told(name, found[name], "ms") for name in list(found)[:2])
    told("of the time a purge was under way", found["of the time it runs"], "")
    print(f"p99 during a cleanup is {during_it / without:.2f} times p99 without (to be at most 1.5)")
