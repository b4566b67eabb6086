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
from typing import NamedTuple

from tests.fleet import Fleet, Server

from .cleanup_delete import MAKE
from .purging import DATABASE, ROUNDS, SETTINGS, Cleaned, clean, options, told

MAJOR = int(os.environ.get("BENCH_POSTGRESQL", "16"))
ROWS = int(os.environ.get("BENCH_ROWS", "2000000"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "40"))
CLIENTS = int(os.environ.get("BENCH_CLIENTS", "4"))
DUTY = float(os.environ.get("BENCH_DUTY", "20"))
PER_RUN = 1_000_000  # rows: counting, purge, vacuum and proof, and what fits of a second run, are in what is measured
WITHOUT, GENTLY, HURRIED = "without", f"duty_percent {DUTY:g}", "duty_percent 100"


class Waits(NamedTuple):
    """Milliseconds, the wait for the transaction's turn included; and the share of the time that steps took."""

    p50: float
    p99: float
    purging: float = 0.0
    vacuuming: float = 0.0


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


def waits(server: Server, rate: float) -> Waits:
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "log")
        pace = ("--rate", f"{rate:.0f}", "-l", f"--log-prefix={prefix}")
        pgbench(server, "-n", "-c", str(CLIENTS), "-j", "1", "-T", str(SECONDS), *pace)
        lines = [line for path in Path(folder).iterdir() for line in path.read_text().splitlines()]
    times = sorted(int(line.split()[2]) / 1000 for line in lines)
    return Waits(times[len(times) // 2], times[int(0.99 * (len(times) - 1))])


def beside_cleanup(server: Server, rate: float, duty: float) -> Waits:
    """With runs of db_cleanup one after the other, from start-up to proof."""
    runs: list[Cleaned] = []
    over = threading.Event()
    given = options(server, {"delete_after": "90d", "rows_per_run": PER_RUN}, duty_percent=duty)

    def work() -> None:
        # What is under way at the end is left there, as at the end of a night: it stops between two bites.
        while not over.is_set():
            runs.append(clean(given, stop=over))
            if not runs[-1].steps:
                break  # nothing is due any more

    thread = threading.Thread(target=work)
    thread.start()
    try:
        found = waits(server, rate)
    finally:
        over.set()
        thread.join()
    purging, vacuuming = (sum(run.taken(kind) for run in runs) / SECONDS for kind in ("delete", "vacuum"))
    return found._replace(purging=purging, vacuuming=vacuuming)


def main() -> None:
    with Fleet() as fleet:
        server = fleet.postgresql(MAJOR, settings={**SETTINGS, "max_wal_size": "1GB"})
        server.sql(f"CREATE DATABASE {DATABASE}")
        pgbench(server, "-i", "-q", "-s", "20")
        print(f"PostgreSQL {server.version}, {CLIENTS} clients, {ROUNDS} rounds of {SECONDS} s each", flush=True)
        found: dict[str, list[Waits]] = {WITHOUT: [], GENTLY: [], HURRIED: []}
        for number in range(ROUNDS):
            rate = most(server) / 2  # of this minute: a machine that others use has more and less to give
            print(f"--rate {rate:.0f}", flush=True)
            for name in list(found)[:: 1 if number % 2 == 0 else -1]:
                server.script(MAKE.format(rows=ROWS), database=DATABASE)
                if name == WITHOUT:
                    found[name].append(waits(server, rate))
                else:
                    found[name].append(beside_cleanup(server, rate, DUTY if name == GENTLY else 100.0))
                print(f"{name}: {found[name][-1]}", flush=True)
    medians: dict[str, float] = {}
    for name, several in found.items():
        told(f"p50, {name}", [w.p50 for w in several], "ms")
        medians[name] = told(f"p99, {name}", [w.p99 for w in several], "ms")
        if name != WITHOUT:
            told("  of the time it purged", [w.purging for w in several], "")
            told("  of the time it vacuumed", [w.vacuuming for w in several], "")
    for name in (GENTLY, HURRIED):
        wanted = " (to be at most 1.5)" if name == GENTLY else ""
        print(f"p99 beside a cleanup with {name} is {medians[name] / medians[WITHOUT]:.2f} times p99 without{wanted}")
