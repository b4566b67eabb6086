# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_cleanup on PostgreSQL against one big DELETE, and against itself beside an old snapshot. Figures: README.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2

from tests.fleet import Fleet, Server

from .purging import DATABASE, ROUNDS, SETTINGS, Cleaned, clean, options, seconds, told

MAJOR = int(os.environ.get("BENCH_POSTGRESQL", "16"))
ROWS = int(os.environ.get("BENCH_ROWS", "6000000"))
OLD = "now() - interval '90 days'"
MAKE = """
DROP TABLE IF EXISTS t;
CREATE TABLE t (id bigint, at timestamptz NOT NULL, customer int NOT NULL, note text);
INSERT INTO t SELECT n, now() - interval '90 days' + (n - {rows} / 2) * interval '1 second',
       n % 9973, repeat('x', n % 120)
  FROM generate_series(1, {rows}) n;
ALTER TABLE t ADD PRIMARY KEY (id);
CREATE INDEX t_at ON t (at);
CREATE INDEX t_customer ON t (customer);
VACUUM ANALYZE t;
CHECKPOINT;
"""


@contextmanager
def old_snapshot(server: Server) -> Iterator[None]:
    """An application that looks at the database as it was before."""
    login: dict[str, Any] = {"user": server.user, "password": server.password, "dbname": DATABASE}
    db = psycopg2.connect(host=server.host, port=server.port, application_name="shop", **login)
    try:
        db.set_session(isolation_level="REPEATABLE READ")
        db.cursor().execute("SELECT count(*) FROM pg_class")
        yield
    finally:
        db.close()


def ours(server: Server) -> Cleaned:
    return clean(options(server, {"delete_after": "90d"}))


def main() -> None:
    with Fleet() as fleet:
        server = fleet.postgresql(MAJOR, settings=SETTINGS)
        server.sql(f"CREATE DATABASE {DATABASE}")
        print(f"PostgreSQL {server.version}, {ROWS:,} rows, half of them due, {ROUNDS} rounds", flush=True)
        found: dict[str, list[float]] = {"one DELETE": [], "db_cleanup": [], "beside an old snapshot": []}
        wall: list[float] = []
        step: list[float] = []
        for number in range(ROUNDS):
            for name in list(found)[:: 1 if number % 2 == 0 else -1]:
                server.script(MAKE.format(rows=ROWS), database=DATABASE)
                if name == "one DELETE":
                    took = seconds(lambda: server.sql(f"DELETE FROM t WHERE at < {OLD}", database=DATABASE))
                elif name == "db_cleanup":
                    run = ours(server)
                    took = run.purging
                    wall.append(run.seconds)
                    step.append(run.taken("delete"))
                else:
                    with old_snapshot(server):
                        took = ours(server).purging
                late = f"SELECT count(*) FROM t WHERE at < {OLD} - interval '1 hour'"
                ((left,),) = server.sql(late, database=DATABASE)
                if int(left):
                    raise SystemExit(f"{name} left {left} rows")
                found[name].append(took)
        peer, mine, held = (told(name, times, "s") for name, times in found.items())
        told("db_cleanup with its vacuum", wall, "s")
        alone = told("its purge alone", step, "s")
    print(f"the purge alone has {100 * peer / alone:.0f} % of the speed of one DELETE")
    print(f"db_cleanup has {100 * peer / mine:.0f} % of the speed of one DELETE (to be at least 60)")
    print(f"beside an old snapshot it takes {held / mine:.2f} times its own time (to be at most 1.3)")
