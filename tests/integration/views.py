# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Materialized views as db_refresh_views meets them, and what tests ask of its answer. No test lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fleet import Server

from .module_runner import Ran, run

# A chain of five, named against the order in which they read each other; a partitioned table; a name to stumble over.
SHOP = """
CREATE TABLE orders (id int PRIMARY KEY, customer int, amount int);
INSERT INTO orders SELECT n, n % 97, n % 13 FROM generate_series(1, 3000) n;
CREATE TABLE events (at date, n int) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO events SELECT '2026-03-01', n FROM generate_series(1, 500) n;
CREATE TABLE other (id int);
INSERT INTO other SELECT generate_series(1, 10);
CREATE VIEW per_customer AS SELECT customer, sum(amount) AS amount FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW e_totals AS SELECT * FROM per_customer;
CREATE UNIQUE INDEX ON e_totals (customer);
CREATE VIEW large AS SELECT * FROM e_totals WHERE amount > 100;
CREATE MATERIALIZED VIEW d_large AS SELECT * FROM large;
CREATE MATERIALIZED VIEW c_count AS SELECT count(*) AS n FROM d_large WITH NO DATA;
CREATE MATERIALIZED VIEW "b we""ird %s; --" AS SELECT n + 1 AS "n %s" FROM c_count WITH NO DATA;
CREATE UNIQUE INDEX "in""dex" ON "b we""ird %s; --" ("n %s");
CREATE MATERIALIZED VIEW a_last AS SELECT "n %s" + 1 AS n FROM "b we""ird %s; --" WITH NO DATA;
CREATE MATERIALIZED VIEW by_day AS SELECT at, count(*) AS n FROM events GROUP BY at;
CREATE MATERIALIZED VIEW elsewhere AS SELECT count(*) AS n FROM other;
"""
CHAIN = ["e_totals", "d_large", "c_count", 'b we"ird %s; --', "a_last"]
# Takes the lock of a vacuum, and of all that a concurrent refresh waits for.
SETTING = "ALTER MATERIALIZED VIEW e_totals SET (autovacuum_enabled = off)"
STATE = """
SELECT c.oid, c.relfilenode, c.relispopulated, c.reltuples, s.n_tup_ins, s.n_tup_del, s.vacuum_count, s.analyze_count
  FROM pg_class c JOIN pg_stat_all_tables s ON s.relid = c.oid WHERE c.relkind IN ('m', 'r') ORDER BY c.oid"""


def asked(server: Server, name: str, tmp_path: Path, **more: Any) -> dict[str, Any]:
    journal = str(tmp_path / "journal" / "journal.sqlite")
    return {**server.login(), "databases": [name], "journal": journal, "jobs": 4, **more}


def assessed(options: dict[str, Any]) -> dict[str, Any]:
    return dict(run("db_assess_facts", options).result["ansible_facts"]["db_due"])


def names(ran: Ran, *statuses: str) -> set[str]:
    """The views of the steps of these statuses, all of them without any."""
    steps = [s for s in ran.fact()["steps"] if not statuses or s["status"] in statuses]
    return {s["object"].removeprefix("public.") for s in steps}


def reason(ran: Ran, view: str) -> str:
    (found,) = [s["reason"] for s in ran.fact()["steps"] if s["object"] == f"public.{view}"]
    return str(found)


def make_shop(server: Server, name: str) -> tuple[Server, str]:
    """Fills a database, and gives both."""
    server.script(SHOP, database=name)
    return server, name
