# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An expired partition of MariaDB and MySQL leaves, by one statement and by db_cleanup: who waits. See README.md."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pymysql

from tests.fleet import Fleet, FleetError
from tests.fleet.mysql import MySQL

from .purging import DATABASE, ROUNDS, clean, options, told

SIZES = [int(n) for n in os.environ.get("BENCH_SIZES", "1000000,10000000").split(",")]
SETTINGS = {"innodb_buffer_pool_size": "1G", "general_log": "OFF"}
AT_ONCE = 500_000
MAKE = """
DROP TABLE IF EXISTS t;
CREATE TABLE t (id bigint NOT NULL AUTO_INCREMENT, at datetime NOT NULL, PRIMARY KEY (id, at), KEY (at))
  PARTITION BY RANGE COLUMNS (at) (
    PARTITION old VALUES LESS THAN ('2002-01-01'), PARTITION new VALUES LESS THAN ('2102-01-01'),
    PARTITION rest VALUES LESS THAN MAXVALUE);
INSERT INTO t (at) VALUES (now()), (now());
INSERT INTO t (at) VALUES ('2001-06-01'), ('2001-06-02'), ('2001-06-03'), ('2001-06-04'), ('2001-06-05');
"""
MORE = "INSERT INTO t (at) SELECT at FROM t PARTITION (old) LIMIT {rows}"
# What an application does meanwhile; each of them waits for a lock on the whole table.
ASKED = ("INSERT INTO t (at) VALUES (now())", "SELECT id FROM t WHERE at > now() - INTERVAL 1 HOUR LIMIT 1")


PLAIN = "ALTER TABLE t DROP PARTITION old"


class Dropped(NamedTuple):
    """Seconds."""

    plain: float  # one DROP PARTITION
    plain_waited: float  # the longest that one of these statements took meanwhile
    step: float
    waited: float
    run: float  # the whole process, which counts the rows first


NAMES = {
    "longest wait, DROP PARTITION": "plain_waited",
    "longest wait, db_cleanup": "waited",
    "DROP PARTITION": "plain",
    "the step": "step",
    "the whole run": "run",
}


def make(server: MySQL, rows: int) -> None:
    """So many rows in the partition that has expired; what is logged of them is of no use to anybody."""
    server.script(f"SET sql_log_bin = 0; {MAKE}", database=DATABASE)
    there = 5
    while there < rows:
        more = min(there, AT_ONCE, rows - there)
        server.script(f"SET sql_log_bin = 0; {MORE.format(rows=more)};", database=DATABASE)
        there += more
    server.script("SET sql_log_bin = 0; ANALYZE TABLE t;", database=DATABASE)


@contextmanager
def application(server: MySQL) -> Iterator[list[float]]:
    """Sessions that ask and ask; how long their slowest statement took, once they have ended."""
    slowest: list[float] = []
    over, asking = threading.Event(), threading.Semaphore(0)

    def ask(words: str) -> None:
        worst = 0.0
        db = pymysql.connect(host=server.host, port=server.port, user=server.user, password=server.password)
        db.autocommit(True)
        db.select_db(DATABASE)
        with db.cursor() as cursor:
            cursor.execute(words)
            asking.release()
            while not over.is_set():
                began = time.monotonic()
                cursor.execute(words)
                worst = max(worst, time.monotonic() - began)
                time.sleep(0.001)
        db.close()
        slowest.append(worst)

    threads = [threading.Thread(target=ask, args=(words,)) for words in ASKED]
    for thread in threads:
        thread.start()
    try:
        for _thread in threads:
            asking.acquire(timeout=60)
        time.sleep(0.3)
        yield slowest
    finally:
        over.set()
        for thread in threads:
            thread.join()


def drop(server: MySQL, rows: int) -> Dropped:
    make(server, rows)
    with application(server) as others:
        began = time.monotonic()
        server.sql(PLAIN, database=DATABASE)
        plain = time.monotonic() - began
    make(server, rows)
    with application(server) as slowest:
        run = clean(options(server, {"delete_after": "90d"}))
    if [s["kind"] for s in run.steps if s["kind"] != "analyze"] != ["drop_partition"]:
        raise SystemExit(f"the partition was not dropped: {run.steps}")
    return Dropped(plain, max(others), run.taken("drop_partition"), max(slowest), run.seconds)


def measure(server: MySQL) -> None:
    server.sql(f"CREATE DATABASE {DATABASE}")
    print(f"{server.engine} {server.version}, partitions of {SIZES} rows, {ROUNDS} rounds", flush=True)
    found: dict[int, list[Dropped]] = {rows: [] for rows in SIZES}
    for number in range(ROUNDS):
        for rows in SIZES[:: 1 if number % 2 == 0 else -1]:
            found[rows].append(drop(server, rows))
    for name, field in NAMES.items():
        medians = [
            told(f"{name}, {rows:,} rows", [1000 * getattr(one, field) for one in several], "ms")
            for rows, several in found.items()
        ]
        print(f"{name}: {medians[-1] / medians[0]:.2f} times that of {SIZES[0]:,} rows", flush=True)


def main() -> None:
    for kind in ("mariadb", "mysql"):
        try:
            with Fleet() as fleet:
                measure(getattr(fleet, kind)(settings=SETTINGS))
        except FleetError as fault:
            print(f"{kind}: left out: {fault}")
