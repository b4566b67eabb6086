# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory db_cleanup needs for few rows and for many, into files and without. Figures: README.md."""

from __future__ import annotations

import os
import tempfile

from tests.fleet import Fleet, Server

from .purging import DATABASE, SETTINGS, clean, options

MAJOR = int(os.environ.get("BENCH_POSTGRESQL", "16"))
SIZES = [int(n) for n in os.environ.get("BENCH_SIZES", "10000,100000,1000000,10000000").split(",")]
MAKE = """
DROP TABLE IF EXISTS t;
CREATE TABLE t (id bigint, at timestamptz NOT NULL, note text);
INSERT INTO t SELECT n, now() - interval '1 year' - n * interval '1 second', repeat('x', n::int % 60)
  FROM generate_series(1, {rows}) n;
ALTER TABLE t ADD PRIMARY KEY (id);
CREATE INDEX t_at ON t (at);
VACUUM ANALYZE t;
CHECKPOINT;
"""


def peak(server: Server, rows: int, folder: str) -> int:
    server.script(MAKE.format(rows=rows), database=DATABASE)
    rule = {"archive_after": "90d", "archive_dir": folder} if folder else {"delete_after": "90d"}
    run = clean(options(server, rule))
    if run.rows("delete", "archive") != rows:
        raise SystemExit(f"{run.rows('delete', 'archive')} of {rows} rows were taken")
    return run.peak


def main() -> None:
    with Fleet() as fleet:
        server = fleet.postgresql(MAJOR, settings=SETTINGS)
        server.sql(f"CREATE DATABASE {DATABASE}")
        print(f"PostgreSQL {server.version}, {SIZES} rows, all due", flush=True)
        for kind in ("delete", "archive into files"):
            peaks = []
            for rows in SIZES:
                with tempfile.TemporaryDirectory() as folder:
                    peaks.append(peak(server, rows, f"{folder}/archive" if kind != "delete" else ""))
                print(f"{kind:20} {rows:>12,} rows: peak {peaks[-1] / (1 << 20):7.1f} MB", flush=True)
            times = f"{peaks[-1] / peaks[0]:.2f} times the memory"
            print(f"{kind:20} {times} for {SIZES[-1] / SIZES[0]:.0f} times the rows", flush=True)
