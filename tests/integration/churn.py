# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases in need of maintenance, on every engine, and fingerprints that show whether anything was touched."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fleet import Server

from .module_runner import LATE

POSTGRESQL = """
CREATE TABLE orders (id bigint PRIMARY KEY, customer int, note text, "select" int);
INSERT INTO orders SELECT n, n % 997, repeat('x', n % 90), n FROM generate_series(1, 20000) n;
CREATE TABLE jobs (id bigint PRIMARY KEY, state text, payload text);
INSERT INTO jobs SELECT n, 'done', repeat(md5(n::text), 4) FROM generate_series(1, 40000) n;
DELETE FROM jobs WHERE id % 5 <> 0;
VACUUM ANALYZE jobs;
CREATE TABLE "we""ird %s name; --" ("we""ird %s" int PRIMARY KEY, t text);
INSERT INTO "we""ird %s name; --" SELECT n, 'ü' FROM generate_series(1, 5000) n;
CREATE TABLE events (at timestamptz, n int) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO events SELECT '2026-03-01'::timestamptz + n * interval '1 minute', n FROM generate_series(1, 9000) n;
CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) AS orders FROM orders GROUP BY customer;
CREATE TABLE quiet (id int PRIMARY KEY);
INSERT INTO quiet SELECT generate_series(1, 3000);
VACUUM ANALYZE orders, quiet;
DELETE FROM orders WHERE id % 3 = 0;
UPDATE "we""ird %s name; --" SET t = 'changed';
"""

POSTGRESQL_AGAIN = """
INSERT INTO jobs SELECT n, 'done', repeat(md5(n::text), 4) FROM generate_series(100001, 140000) n;
DELETE FROM jobs WHERE id > 100000 AND id % 50 <> 0;
VACUUM ANALYZE jobs;
DELETE FROM orders WHERE id % 3 = 1;
INSERT INTO events SELECT '2026-05-01'::timestamptz + n * interval '1 minute', n FROM generate_series(1, 9000) n;
"""

MYSQL = """
CREATE TABLE digits (d int PRIMARY KEY);
INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
CREATE TABLE jobs (id int PRIMARY KEY, state varchar(20), payload varchar(400)) STATS_AUTO_RECALC=0;
INSERT INTO jobs SELECT a.d + 10*b.d + 100*c.d + 1000*e.d + 10000*f.d, 'done', repeat('payload ', 40)
  FROM digits a, digits b, digits c, digits e, digits f;
ANALYZE TABLE jobs;
DELETE FROM jobs WHERE id % 5 <> 0;
ANALYZE TABLE jobs;
CREATE TABLE orders (id int PRIMARY KEY, customer int, `select` int, KEY (customer)) STATS_AUTO_RECALC=0;
ANALYZE TABLE orders;
INSERT INTO orders SELECT a.d + 10*b.d + 100*c.d + 1000*e.d, b.d, c.d FROM digits a, digits b, digits c, digits e;
CREATE TABLE `we``ird %s "name"; --` (`a``b` int PRIMARY KEY, t varchar(9), KEY (t)) STATS_AUTO_RECALC=0;
ANALYZE TABLE `we``ird %s "name"; --`;
INSERT INTO `we``ird %s "name"; --` SELECT a.d + 10*b.d + 100*c.d, 'ü' FROM digits a, digits b, digits c;
CREATE TABLE quiet (id int PRIMARY KEY);
INSERT INTO quiet SELECT d FROM digits;
ANALYZE TABLE quiet, digits;
"""

MYSQL_AGAIN = """
INSERT INTO jobs SELECT 200000 + a.d + 10*b.d + 100*c.d + 1000*e.d + 10000*f.d, 'done', repeat('payload ', 40)
  FROM digits a, digits b, digits c, digits e, digits f;
DELETE FROM jobs WHERE id >= 200000 AND id % 50 <> 0;
ANALYZE TABLE jobs;
INSERT INTO orders SELECT 20000 + a.d + 10*b.d + 100*c.d + 1000*e.d, b.d, c.d
  FROM digits a, digits b, digits c, digits e;
"""

SQLITE = """
CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT, payload TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
  INSERT INTO jobs SELECT i, 'done', hex(randomblob(60)) FROM n;
CREATE INDEX jobs_state ON jobs (state, id);
DELETE FROM jobs WHERE id % 5 <> 0;
CREATE TABLE "we""ird %s name; --" ("select" INTEGER PRIMARY KEY, t TEXT);
CREATE INDEX "in""dex" ON "we""ird %s name; --" (t);
INSERT INTO "we""ird %s name; --" SELECT id, state FROM jobs;
"""

SQLITE_AGAIN = """
WITH RECURSIVE n(i) AS (SELECT 100000 UNION ALL SELECT i + 1 FROM n WHERE i < 140000)
  INSERT INTO jobs SELECT i, 'done', hex(randomblob(60)) FROM n;
DELETE FROM jobs WHERE id >= 100000 AND id % 50 <> 0;
"""


def churn(server: Server, database: str, *, again: bool = False, logged: bool = False, small: bool = False) -> None:
    """Makes a database that needs everything, or one that needs it again; replicas get it when it is `logged`.

    With `small` jobs is as due in MySQL and MariaDB, and a fifth as large: most of the time went into its rows.
    """
    first, second = (POSTGRESQL, POSTGRESQL_AGAIN) if server.engine == "postgresql" else (MYSQL, MYSQL_AGAIN)
    if small:
        first, second = (sql.replace("digits f;", "digits f WHERE f.d < 2;") for sql in (first, second))
    # Otherwise every test would leave another 60 MB in the binary log, which lies in memory.
    quiet = "" if logged or server.engine == "postgresql" else "SET SESSION sql_log_bin = 0;\n"
    server.script(quiet + (second if again else first), database=database)


def churn_file(path: Path, *, again: bool = False) -> None:
    """The same for a SQLite file."""
    with sqlite3.connect(path) as db:
        db.executescript(SQLITE_AGAIN if again else SQLITE)
    db.close()


POSTGRESQL_STATE = """
SELECT c.oid, c.relname, c.relfilenode, c.reltuples, c.relpages, c.relfrozenxid, c.reloptions,
       pg_catalog.pg_relation_size(c.oid), s.last_vacuum, s.last_analyze, s.vacuum_count, s.analyze_count
  FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
 WHERE c.relnamespace = 'public'::regnamespace OR c.relname = 'pg_statistic' ORDER BY c.oid"""

MYSQL_STATE = """
SELECT t.table_name, t.create_time, t.table_rows, t.data_length, t.index_length, s.last_update, s.n_rows
  FROM information_schema.tables t
  LEFT JOIN mysql.innodb_table_stats s ON s.database_name = t.table_schema AND s.table_name = t.table_name
 WHERE t.table_schema = '{database}' ORDER BY t.table_name"""


def fingerprint(server: Server, database: str) -> str:
    """Schema, rows, physical state and statistics of a database."""
    time.sleep(LATE)
    if server.engine == "postgresql":
        found: Any = server.sql(POSTGRESQL_STATE, database=database)
        for row in list(found):
            found += _rows(server, database, row[1]) if row[1] in ("orders", "jobs", "events_2026", "quiet") else []
    else:
        found = server.sql(MYSQL_STATE.format(database=database), database=database)
        found += server.sql("CHECKSUM TABLE jobs, orders, quiet", database=database)
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _rows(server: Server, database: str, table: str) -> list[list[str]]:
    query = f"SELECT count(*), sum(pg_catalog.hashtext(x::text)) FROM {table} x"
    return server.sql(query, database=database)


def folder_print(folder: Path) -> Mapping[str, tuple[int, int, str]]:
    """Every file below a folder: size, time of the last change, hash."""
    return {
        str(p.relative_to(folder)): (
            p.stat().st_size,
            p.stat().st_mtime_ns,
            hashlib.sha256(p.read_bytes()).hexdigest(),
        )
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
