# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An expired partition of PostgreSQL is dropped: who waits for it, and how long it takes. Figures: README.md."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg2

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


# What an application does meanwhile; the last one would wait for each lock on the partition itself.
ASKED = (
    "INSERT INTO t VALUES (1, now())",
    "SELECT id FROM t WHERE at > now() - interval '1 hour' LIMIT 1",
    "SELECT id FROM t_old LIMIT 1",
)


class Dropped(NamedTuple):
    """Seconds."""

    step: float
    waited: float  # the longest that one of these statements took meanwhile
    run: float  # the whole process, which counts the rows first


@contextmanager
def application(server: Server) -> Iterator[list[float]]:
    """Sessions that ask and ask; how long their slowest statement took, once they have ended."""
    slowest: list[float] = []
    over = threading.Event()

    def ask(words: str) -> None:
        worst, there = 0.0, True
        login: dict[str, Any] = {"user": server.user, "password": server.password, "dbname": DATABASE}
        db = psycopg2.connect(host=server.host, port=server.port, **login)
        db.autocommit = True
        with db.cursor() as cursor:
            while there and not over.is_set():
                began = time.monotonic()
                try:
                    cursor.execute(words)
                except psycopg2.errors.UndefinedTable:  # it is gone
                    there = False
                worst = max(worst, time.monotonic() - began)
                time.sleep(0.001)
        db.close()
        slowest.append(worst)

    threads = [threading.Thread(target=ask, args=(words,)) for words in ASKED]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        yield slowest
    finally:
        over.set()
        for thread in threads:
            thread.join()


def drop(server: Server, rows: int) -> Dropped:
    server.script(MAKE.format(rows=rows), database=DATABASE)
    with application(server) as slowest:
        run = clean(options(server, {"delete_after": "90d"}))
    if [s["kind"] for s in run.steps] != ["drop_partition"]:
        raise SystemExit(f"the partition was not dropped: {run.steps}")
    return Dropped(run.taken("drop_partition"), max(slowest), run.seconds)


def main() -> None:
    with Fleet() as fleet:
        server = fleet.postgresql(MAJOR, settings=SETTINGS)
        server.sql(f"CREATE DATABASE {DATABASE}")
        print(f"PostgreSQL {server.version}, partitions of {SIZES} rows, {ROUNDS} rounds", flush=True)
        found: dict[int, list[Dropped]] = {rows: [] for rows in SIZES}
        for number in range(ROUNDS):
            for rows in SIZES[:: 1 if number % 2 == 0 else -1]:
                found[rows].append(drop(server, rows))
    for name, field in (("longest wait", "waited"), ("the step", "step"), ("the whole run", "run")):
        medians = [
            told(f"{name}, {rows:,} rows", [1000 * getattr(one, field) for one in several], "ms")
            for rows, several in found.items()
        ]
        print(f"{name}: {medians[-1] / medians[0]:.2f} times that of {SIZES[0]:,} rows", flush=True)
