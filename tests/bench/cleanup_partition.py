# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An expired partition of PostgreSQL is dropped in the same time whatever it holds. Figures: README.md."""

from __future__ import annotations

import os

from tests.fleet import Fleet, Server

from .purging import DATABASE, ROUNDS, SETTINGS, clean, options, told

MAJOR = int(os.environ.get("BENCH_POSTGRESQL", "16"))
SIZES = [int(n) for n in os.environ.get("BENCH_SIZES", "1000000,10000000").split(",")]
MAKE = """
DROP TABLE IF EXISTS t;
CREATE TABLE t (id bigint, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE t_old PARTITION OF t FOR VALUES FROM ('2001-01-01') TO ('2002-01-01');
CREATE TABLE t_new PARTITION OF t FOR VALUES FROM ('2002-01-01') TO ('2102-01-01');
INSERT INTO t_new SELECT n, now() FROM generate_series(1, 1000) n;
INSERT INTO t_old SELECT n, '2001-06-01' FROM generate_series(1, {rows}) n;
CREATE INDEX ON t (at);
VACUUM ANALYZE t;
CHECKPOINT;
"""


def drop(server: Server, rows: int) -> tuple[float, float]:
    """Seconds of the step, and of the whole process, which counts the rows first."""
    server.script(MAKE.format(rows=rows), database=DATABASE)
    run = clean(options(server, {"delete_after": "90d"}))
    if [s["kind"] for s in run.steps] != ["drop_partition"]:
        raise SystemExit(f"the partition was not dropped: {run.steps}")
    return run.taken("drop_partition"), run.seconds


def main() -> None:
    with Fleet() as fleet:
        server = fleet.postgresql(MAJOR, settings=SETTINGS)
        server.sql(f"CREATE DATABASE {DATABASE}")
        print(f"PostgreSQL {server.version}, partitions of {SIZES} rows, {ROUNDS} rounds", flush=True)
        found: dict[int, list[tuple[float, float]]] = {rows: [] for rows in SIZES}
        for number in range(ROUNDS):
            for rows in SIZES[:: 1 if number % 2 == 0 else -1]:
                found[rows].append(drop(server, rows))
    medians = [told(f"the step, {rows:,} rows", [a for a, b in times], "s") for rows, times in found.items()]
    for rows, times in found.items():
        told(f"the whole run, {rows:,} rows", [b for a, b in times], "s")
    said = f"{medians[-1] / medians[0]:.2f} times the time of {SIZES[0]:,}"
    print(f"dropping {SIZES[-1]:,} rows takes {said} (to be about 1)")
