# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_cleanup against pt-archiver on MariaDB: the same rows deleted, all limits on. What is measured: README.md."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from tests.fleet import Fleet
from tests.fleet.mysql import MariaDB

from .purging import DATABASE, ROUNDS, Cleaned, clean, options, seconds, told

ROWS = int(os.environ.get("BENCH_ROWS", "600000"))
STEP = "db_cleanup, its step alone"
CUTOFF = "UTC_TIMESTAMP() - INTERVAL 90 DAY"
COLUMNS = """
    id bigint AUTO_INCREMENT PRIMARY KEY, at datetime NOT NULL, customer int NOT NULL, state varchar(20) NOT NULL,
    note varchar(200), KEY at (at), KEY customer (customer)
"""
FILL = f"""
SELECT seq, {CUTOFF} + INTERVAL (CAST(seq AS SIGNED) - {{due}}) MINUTE,
       seq % 9973, 'shipped', repeat('x', seq % 120)
  FROM seq_1_to_{{rows}}
"""


def make(server: MariaDB) -> None:
    """Rows in the order of their dates; half of them are due."""
    server.sql(f"CREATE DATABASE {DATABASE}")
    server.sql(f"CREATE TABLE kept ({COLUMNS})", database=DATABASE)
    server.sql(f"INSERT INTO kept {FILL.format(due=ROWS // 2, rows=ROWS)}", database=DATABASE)


def again(server: MariaDB, replica: MariaDB) -> None:
    """The same table for each side; the replica has it, too. What was logged before is of no use to anybody."""
    server.script(
        "DROP TABLE IF EXISTS t; CREATE TABLE t LIKE kept; INSERT INTO t SELECT * FROM kept; ANALYZE TABLE t;",
        database=DATABASE,
    )
    replica.catch_up(server, timeout=300)
    server.script("FLUSH BINARY LOGS; PURGE BINARY LOGS BEFORE NOW();")


def computing(server: MariaDB) -> float:
    """Seconds that the server and all children that have ended have computed so far: load does not stretch them."""
    ticks = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    ended = os.times()
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") + ended.children_user + ended.children_system


def pt_archiver(server: MariaDB) -> None:
    """As its manual says it is fast; it knows no other limits."""
    source = f"h={server.host},P={server.port},D={DATABASE},t=t,u={server.user},p={server.password}"
    what = ("--source", source, "--where", f"at < {CUTOFF}", "--purge")
    how = ("--limit", "1000", "--bulk-delete", "--primary-key-only", "--commit-each", "--no-version-check")
    subprocess.run(["pt-archiver", *what, *how], check=True, stdin=subprocess.DEVNULL)


def db_cleanup(server: MariaDB, replica: MariaDB) -> Cleaned:
    rule = {"delete_after": "90d"}
    limits = {"replicas": [f"{replica.host}:{replica.port}"], "max_replica_lag": "1h"}
    more = {"max_snapshot_age": "1h", "max_wal_backlog": "100GB", "time_budget": "1h"}
    return clean(options(server, rule, **limits, **more))


def measure(
    server: MariaDB, name: str, side: Callable[[], Cleaned | None], found: defaultdict[str, list[float]]
) -> None:
    """One side, once: rows per second of the whole process, and of the step, and seconds of computing."""
    ran: list[Cleaned | None] = []
    before = computing(server)
    took = seconds(lambda: ran.append(side()))
    found[f"{name}, computing"].append(computing(server) - before)
    late = f"SELECT count(*) FROM t WHERE at < {CUTOFF} - INTERVAL 1 HOUR"
    ((left,),) = server.sql(late, database=DATABASE)
    ((kept,),) = server.sql("SELECT count(*) FROM t", database=DATABASE)
    if int(left) or not ROWS * 0.49 < int(kept) < ROWS * 0.51:
        raise SystemExit(f"{name} left {left} rows that are due, {kept} in all")
    found[name].append((ROWS - int(kept)) / took)
    if ran[0]:
        found[STEP].append((ROWS - int(kept)) / ran[0].taken("delete"))


def main() -> None:
    if not shutil.which("pt-archiver"):
        print("pt-archiver is not installed (Debian's package percona-toolkit): left out")
        return
    with Fleet() as fleet:
        settings = {"innodb_buffer_pool_size": "1G", "general_log": "OFF", "innodb_log_file_size": "512M"}
        server = fleet.mariadb(settings=settings)
        replica = fleet.mariadb_replica(server, settings=settings)
        make(server)
        print(f"MariaDB {server.version} with a replica, {ROWS:,} rows, half of them due, {ROUNDS} rounds", flush=True)
        sides = {"pt-archiver": lambda: pt_archiver(server), "db_cleanup": lambda: db_cleanup(server, replica)}
        found: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(ROUNDS):
            for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
                again(server, replica)
                measure(server, name, sides[name], found)
    peer, mine, *_rest = (told(name, found[name], "rows/s") for name in (*sides, STEP))
    for name in sides:
        told(f"{name}, computing", found[f"{name}, computing"], "s")
    print(f"db_cleanup takes {mine / peer:.2f} times pt-archiver's rows per second (to be at least 2)")
