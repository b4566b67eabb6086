# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_bloat_facts against pgstattuple in time, and against check_postgres in error. What is measured: README.md."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.fleet import Fleet, Server
from tests.integration.module_runner import run
from tests.integration.shapes import shapes

TABLES = int(os.environ.get("BENCH_TABLES", "3000"))
ROWS = int(os.environ.get("BENCH_ROWS", "16000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SEED = int(os.environ.get("DBFLEET_SEED", "2026"))
DATABASE, DRAWN = "bench", "drawn"
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "2GB", "maintenance_work_mem": "128MB"}
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
    """TABLES tables of ROWS rows with a primary key and two more indexes, a third of the rows deleted."""
    server.sql(f"CREATE DATABASE {DATABASE}")
    server.sql("CREATE EXTENSION pgstattuple", database=DATABASE)
    for first in range(0, TABLES, 100):
        server.script(
            "".join(
                f"CREATE UNLOGGED TABLE t{n} (id bigint PRIMARY KEY, at timestamptz, note text, state int);"
                f"INSERT INTO t{n} SELECT i, now(), repeat('x', i % 60), i % 7 FROM generate_series(1, {ROWS}) i;"
                f"CREATE INDEX ON t{n} (at); CREATE INDEX ON t{n} (state, note); DELETE FROM t{n} WHERE id % 3 = 0;"
                for n in range(first, min(first + 100, TABLES))
            ),
            database=DATABASE,
        )
    server.sql("VACUUM ANALYZE", database=DATABASE)


def seconds(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def ours(server: Server, database: str, **more: Any) -> dict[str, Any]:
    """db_bloat_facts of everything that is not too small, as a process of its own."""
    options = {"databases": [database], "method": "estimate", **more}
    facts = run("db_bloat_facts", {**server.login(), **options}).result["ansible_facts"]["db_bloat"]
    return dict(facts)


def peer(server: Server) -> None:
    for statement in (PGSTATTUPLE, PGSTATINDEX):
        server.sql(statement, database=DATABASE)


def speed(server: Server) -> None:
    fill(server)
    size = server.sql(f"SELECT pg_catalog.pg_size_pretty(pg_catalog.pg_database_size('{DATABASE}'))")[0][0]
    print(f"{TABLES} tables of {ROWS:,} rows, {3 * TABLES} indexes, {size}, {ROUNDS} rounds", flush=True)
    found: dict[str, list[float]] = {"db_bloat_facts": [], "pgstattuple": []}
    for _round in range(ROUNDS):
        found["db_bloat_facts"].append(seconds(lambda: ours(server, DATABASE)))
        found["pgstattuple"].append(seconds(lambda: peer(server)))
    for name, times in found.items():
        print(f"{name:16} median {statistics.median(times):7.2f} s   ({min(times):.2f} to {max(times):.2f})")
    ratio = [a / b for a, b in zip(found["pgstattuple"], found["db_bloat_facts"], strict=True)]
    print(f"db_bloat_facts is {statistics.median(ratio):.1f} times faster (to be at least 20)", flush=True)


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
    with Fleet() as fleet:
        server = fleet.postgresql(15, settings=SETTINGS)
        print(f"PostgreSQL {server.version}, shapes of DBFLEET_SEED={SEED}", flush=True)
        error(server)
        speed(server)


if __name__ == "__main__":
    main()
