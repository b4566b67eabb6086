# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_bloat_facts against pgstattuple in time, and against check_postgres in error. What is measured: README.md."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.cached import IN_MEMORY, evict, file_system, load, megabytes_read, on_a_disk
from tests.fleet import Fleet, Server
from tests.integration.shapes import shapes

TABLES = int(os.environ.get("BENCH_TABLES", "3000"))
ROWS = int(os.environ.get("BENCH_ROWS", "32000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SEED = int(os.environ.get("DBFLEET_SEED", "2026"))
DATABASE, DRAWN = "bench", "drawn"
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "2GB", "maintenance_work_mem": "128MB"}
MODULE = "ansible_collections.dbfleet.maintenance.plugins.modules.db_bloat_facts"
# A module as Ansible starts it, without its packing.
CHILD = """
import runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = sys.stdin.buffer.read(), "legacy"
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
"""
PGSTATTUPLE = """
SELECT pg_catalog.count(*), pg_catalog.sum(s.free_space + s.dead_tuple_len)
  FROM pg_catalog.pg_class c, pgstattuple(c.oid::regclass) s WHERE c.relkind = 'r' AND c.relname ~ '^t[0-9]'
"""
PGSTATINDEX = """
SELECT pg_catalog.count(*), pg_catalog.sum(s.deleted_pages)
  FROM pg_catalog.pg_class c, pgstatindex(c.oid::regclass) s WHERE c.relkind = 'i' AND c.relname ~ '^t[0-9]'
"""
SAID = re.compile(r"(?:table public\.|index )(\S+) rows:\S+ pages:(\d+) shouldbe:(\d+)")


def fill(server: Server) -> None:
    """TABLES tables of ROWS rows with a primary key and two more indexes, a third of the rows deleted, and vacuumed."""
    server.sql(f"CREATE DATABASE {DATABASE}")
    server.sql("CREATE EXTENSION pgstattuple", database=DATABASE)

    def some(first: int) -> None:
        server.script(
            "".join(
                f"CREATE UNLOGGED TABLE t{n} (id bigint, at timestamptz, note text, state int);"
                f"INSERT INTO t{n} SELECT i, now(), repeat('x', i % 60), i % 7 FROM generate_series(1, {ROWS}) i;"
                f"ALTER TABLE t{n} ADD PRIMARY KEY (id); CREATE INDEX ON t{n} (at); CREATE INDEX ON t{n} (state, note);"
                f"DELETE FROM t{n} WHERE id % 3 = 0; VACUUM ANALYZE t{n};"
                for n in range(first, min(first + 50, TABLES))
            ),
            database=DATABASE,
        )

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(some, range(0, TABLES, 50)))
    catalogs = ", ".join(f"pg_catalog.pg_{name}" for name in ("class", "attribute", "index", "statistic", "type"))
    server.sql(f"VACUUM ANALYZE {catalogs}", database=DATABASE)


class Run(NamedTuple):
    """One side, once."""

    seconds: float
    computing: float  # seconds of processor time of client and server together: load does not stretch them as much
    read: float  # megabytes from the disks of the machine


def measured(server: Server, act: Callable[[], Any]) -> Run:
    computed, read, began = computing(server), megabytes_read(), time.monotonic()
    act()
    seconds = time.monotonic() - began
    time.sleep(0.2)  # the server counts what a session has computed when that has ended
    return Run(seconds, computing(server) - computed, megabytes_read() - read)


def computing(server: Server) -> float:
    """Seconds that the children of this process, and the server's, have computed that have ended."""
    ticks = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[13:15]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") + used.ru_utime + used.ru_stime


def ours(server: Server, database: str, **more: Any) -> dict[str, Any]:
    """db_bloat_facts of everything that is not too small, as a process of its own."""
    options = {"databases": [database], "method": "estimate", **more, **server.login()}
    internal = {"_ansible_check_mode": False, "_ansible_diff": False, "_ansible_remote_tmp": "/tmp"}
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    said = subprocess.run(
        [sys.executable, "-c", CHILD, MODULE],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**options, **internal}}),
        env={**kept, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        raise SystemExit(f"db_bloat_facts failed: {said.stdout[-2000:]}{said.stderr[-2000:]}")
    return dict(json.loads(said.stdout.splitlines()[-1])["ansible_facts"]["db_bloat"])


def peer(server: Server) -> None:
    for statement in (PGSTATTUPLE, PGSTATINDEX):
        server.sql(statement, database=DATABASE)


def speed(server: Server) -> None:
    """Both situations: all of it in memory, and none of it."""
    size = server.sql(f"SELECT pg_catalog.pg_size_pretty(pg_catalog.pg_database_size('{DATABASE}'))")[0][0]
    print(f"{TABLES} tables of {ROWS:,} rows, {3 * TABLES} indexes, {size}, {ROUNDS} rounds", flush=True)
    sides: dict[str, Callable[[], Any]] = {
        "db_bloat_facts": lambda: ours(server, DATABASE),
        "pgstattuple": lambda: peer(server),
    }
    load(server)
    for act in sides.values():
        act()  # so that bytecode is there, and hint bits are set
    rounds("warm: all of it in memory", server, sides, lambda: None)
    kind = file_system(server.data_dir)
    if kind in IN_MEMORY:
        print(f"cold: left out, {server.data_dir} is on {kind}, which is memory: DBFLEET_DIR names another folder")
    else:
        rounds(f"cold: none of it in memory ({kind})", server, sides, lambda: evict(server))


def rounds(situation: str, server: Server, sides: dict[str, Callable[[], Any]], before: Callable[[], Any]) -> None:
    """The sides in turn, `before` each of them; who begins changes."""
    found: dict[str, list[Run]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            before()
            found[name].append(measured(server, sides[name]))
    for name, runs in found.items():
        middle, walls = Run(*map(statistics.median, zip(*runs, strict=True))), [r.seconds for r in runs]
        print(
            f"{situation}: {name:14} {middle.seconds:7.2f} s ({min(walls):.2f} to {max(walls):.2f}),"
            f" {middle.computing:6.2f} s of CPU, {middle.read:6.0f} MB read"
        )
    walls, cpus = (
        [statistics.median(r[i] for r in runs) for runs in (found["pgstattuple"], found["db_bloat_facts"])]
        for i in (0, 1)
    )
    print(
        f"{situation}: db_bloat_facts is {walls[0] / walls[1]:.1f} times faster (to be at least 20),"
        f" with {cpus[0] / cpus[1]:.1f} times less computing",
        flush=True,
    )


def check_postgres(server: Server) -> dict[str, float] | None:
    """Bloat in percent by name, as Debian's check_postgres estimates it. What it does not list it holds for fine."""
    program = shutil.which("check_postgres")
    if program is None:
        return None
    login = [f"--host={server.host}", f"--port={server.port}", f"--dbuser={server.user}", f"--dbname={DRAWN}"]
    said = subprocess.run(
        [program, "--action=bloat", *login, "--warning=1 b", "--critical=1000 G", "--perflimit=100000"],
        env={**os.environ, "PGPASSWORD": server.password},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    if "POSTGRES_BLOAT" not in said:
        raise SystemExit(f"check_postgres said: {said[:500]}")
    return {name: 100.0 * max(0, 1 - int(ideal) / int(pages)) for name, pages, ideal in SAID.findall(said)}


def truths(server: Server, drawn: list[Any]) -> tuple[dict[str, float], dict[str, float]]:
    """What VACUUM FULL and REINDEX free, in percent, of the objects of half a megabyte and more."""
    tables: dict[str, float] = {}
    indexes: dict[str, float] = {}
    for shape in drawn:
        for name, how, kept in (
            *((i, "REINDEX INDEX", indexes) for i in shape.indexes),
            (shape.name, "VACUUM FULL", tables),
        ):
            size = f"SELECT pg_catalog.pg_relation_size('{name}'::regclass)"
            before = int(server.sql(size, database=DRAWN)[0][0])
            if before >= 512 << 10:
                server.sql(f"{how} {name}", database=DRAWN)
                kept[name] = max(0.0, 100.0 * (1 - int(server.sql(size, database=DRAWN)[0][0]) / before))
    return tables, indexes


def error(server: Server) -> None:
    """Points of percent between the estimates and the truth, on the shapes of the estimator's own test."""
    server.sql(f"CREATE DATABASE {DRAWN}")
    drawn = shapes(SEED, tables=40, size=4e6)
    for shape in drawn:
        server.script(";\n".join((shape.make, *shape.churn)), database=DRAWN)
    server.sql("VACUUM ANALYZE", database=DRAWN)
    objects = ours(server, DRAWN, min_size="0B", max_results=100000)["objects"]
    mine = {o["object"].removeprefix("public."): o["bloat_percent"] or 0.0 for o in objects}
    theirs = check_postgres(server)
    if theirs is None:
        print("check_postgres is not installed (Debian's package check-postgres): its error is left out")
    for what, truth in zip(("tables", "b-trees"), truths(server, drawn), strict=True):
        for who, said in (("db_bloat_facts", mine), ("check_postgres", theirs)):
            if said is not None:
                off = sorted(abs(said.get(name, 0.0) - percent) for name, percent in truth.items())
                p90 = off[int(0.9 * (len(off) - 1))]
                print(
                    f"{what:8} {who:15} {len(off)}: median {statistics.median(off):5.2f},"
                    f" p90 {p90:5.2f}, worst {off[-1]:5.2f} points"
                )


def main() -> None:
    with on_a_disk(20 << 30), Fleet() as fleet:
        server = fleet.postgresql(15, settings=SETTINGS)
        print(f"PostgreSQL {server.version}, shapes of DBFLEET_SEED={SEED}", flush=True)
        error(server)
        fill(server)
        speed(server)


if __name__ == "__main__":
    main()
