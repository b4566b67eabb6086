# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A web shop and its job queue after a busy month, for every engine. Generated in the servers; nothing is started."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from tests.fleet import Server
from tests.fleet.errors import FleetError

# What happened: a quarter of the orders was cancelled and deleted, most of the basket items were purged long ago and
# vacuumed since (free space inside the table), the queue was worked off, a sale filled the sessions, the price import
# was never analyzed, nor was the partitioned log as a whole. Tokens of logins gave way to newer ones, whose place in
# the index is elsewhere: the table stays as it is, and the index grows. Reports were not refreshed since, or never.
# Some indexes nobody needs, and one is not there that somebody needs.
POSTGRESQL = """
CREATE TABLE customers (id bigint PRIMARY KEY, email text NOT NULL, city text);
INSERT INTO customers SELECT n, 'customer' || n || '@example.com', 'city ' || n % 500 FROM generate_series(1, 20000) n;
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL, state text, placed timestamptz, note text);
INSERT INTO orders SELECT n, n % 20000 + 1, 'paid', now() - n * interval '20 seconds', repeat('note ', n % 12)
  FROM generate_series(1, 120000) n;
CREATE INDEX orders_customer_id ON orders (customer_id);
CREATE TABLE basket_items (id bigint PRIMARY KEY, basket bigint, product int, added timestamptz, options text);
INSERT INTO basket_items SELECT n, n / 3, n % 2000, now(), md5(n::text) || md5((n + 1)::text)
  FROM generate_series(1, 180000) n;
CREATE TABLE job_queue (id bigint PRIMARY KEY, state text, payload text, run_at timestamptz);
INSERT INTO job_queue SELECT n, 'new', repeat('x', 40), now() FROM generate_series(1, 30000) n;
CREATE TABLE sessions (id bigint PRIMARY KEY, customer_id bigint, seen timestamptz);
INSERT INTO sessions SELECT n, n % 20000, now() FROM generate_series(1, 30000) n;
CREATE TABLE access_log (at timestamptz NOT NULL, path text, status int) PARTITION BY RANGE (at);
CREATE TABLE access_log_2026_05 PARTITION OF access_log FOR VALUES FROM ('2026-05-01') TO ('2026-06-01');
CREATE TABLE access_log_2026_06 PARTITION OF access_log FOR VALUES FROM ('2026-06-01') TO ('2026-07-01');
INSERT INTO access_log SELECT '2026-05-01'::timestamptz + n * interval '90 seconds', '/item/' || n % 900, 200
  FROM generate_series(1, 50000) n;
CREATE TABLE logins (id int PRIMARY KEY, token text);
INSERT INTO logins SELECT n, md5(n::text) FROM generate_series(1, 60000) n;
CREATE INDEX logins_token ON logins (token);
DELETE FROM logins WHERE id % 10 < 7;
VACUUM logins;
INSERT INTO logins SELECT n, 'z' || n FROM generate_series(1, 60000) n WHERE n % 10 < 7;
CREATE TABLE invoices (id int PRIMARY KEY, customer_id bigint REFERENCES customers, amount int);
INSERT INTO invoices SELECT n, n % 20000 + 1, n % 90 FROM generate_series(1, 20000) n;
CREATE INDEX invoices_amount ON invoices (amount);
CREATE INDEX orders_by_customer ON orders (customer_id);
CREATE MATERIALIZED VIEW revenue AS SELECT customer_id, sum(amount) AS amount FROM invoices GROUP BY customer_id;
CREATE UNIQUE INDEX ON revenue (customer_id);
CREATE MATERIALIZED VIEW best_customers AS SELECT * FROM revenue ORDER BY amount DESC LIMIT 100 WITH NO DATA;
INSERT INTO customers VALUES (0, 'customer1@example.com', 'city 1');
DELETE FROM basket_items WHERE id % 10 < 7;
SELECT pg_stat_force_next_flush();
VACUUM (ANALYZE) customers, orders, invoices, logins, revenue, basket_items, job_queue, sessions,
  access_log_2026_05, access_log_2026_06;
SELECT count(*) FROM logins WHERE token = 'z1';
SELECT count(*) FROM orders WHERE customer_id = 7;
DELETE FROM orders WHERE id % 4 = 0;
UPDATE job_queue SET state = 'done';
DELETE FROM job_queue WHERE id % 8 <> 0;
INSERT INTO sessions SELECT n, n % 20000, now() FROM generate_series(30001, 36000) n;
CREATE TABLE price_import (product int, price numeric(10, 2));
INSERT INTO price_import SELECT n, n % 90 + 0.99 FROM generate_series(1, 9000) n;
"""

# Statistics are not recalculated by the server here, as on many busy ones: it would be done within seconds otherwise.
MYSQL = """
CREATE TABLE digits (d int PRIMARY KEY);
INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
CREATE TABLE numbers (n int PRIMARY KEY);
INSERT INTO numbers SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d
  FROM digits a, digits b, digits c, digits e, digits f;
CREATE TABLE customers (id int PRIMARY KEY, email varchar(60), city varchar(20)) STATS_AUTO_RECALC=0;
INSERT INTO customers SELECT n, concat('customer', n, '@example.com'), concat('city ', n % 500)
  FROM numbers WHERE n <= 20000;
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, state varchar(9), note varchar(60), KEY (customer_id),
  KEY by_customer (customer_id)) STATS_AUTO_RECALC=0;
INSERT INTO orders SELECT n, n % 20000 + 1, 'paid', repeat('note ', n % 12) FROM numbers WHERE n <= 60000;
CREATE TABLE basket_items (id int PRIMARY KEY, basket int, product int, options varchar(200)) STATS_AUTO_RECALC=0;
INSERT INTO basket_items SELECT n, n DIV 3, n % 2000, repeat(sha2(n, 256), 2) FROM numbers;
CREATE TABLE job_queue (id int PRIMARY KEY, state varchar(9), payload varchar(90)) STATS_AUTO_RECALC=0;
ANALYZE TABLE digits, numbers, customers, orders, job_queue;
DELETE FROM basket_items WHERE id % 10 < 7;
ANALYZE TABLE basket_items;
UPDATE orders SET state = 'sent' WHERE id % 4 = 0;
DELETE FROM orders WHERE id % 3 = 0;
INSERT INTO job_queue SELECT n, 'done', repeat('x', 80) FROM numbers WHERE n <= 10000;
DROP TABLE numbers, digits;
"""

SQLITE = """
CREATE TABLE readings (id INTEGER PRIMARY KEY, sensor INTEGER, at TEXT, value REAL, raw BLOB);
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 90000)
  INSERT INTO readings SELECT n, n % 40, '2026-06-01', n / 7.0, randomblob(90) FROM numbers;
CREATE INDEX readings_sensor ON readings (sensor, at);
CREATE INDEX readings_by_sensor ON readings (sensor);
CREATE TABLE sensors (id INTEGER PRIMARY KEY, name TEXT);
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 40)
  INSERT INTO sensors SELECT n, 'sensor ' || n FROM numbers;
DELETE FROM readings WHERE id % 10 < 7;
"""


def fill(server: Server) -> None:
    """Makes the database `shop` on a server."""
    server.sql("CREATE DATABASE shop")
    if server.engine != "postgresql":
        server.script(MYSQL, database="shop")
        return
    server.script(POSTGRESQL, database="shop")
    # A customer is there twice: the index stays behind invalid, and so it does after the second one is gone.
    with contextlib.suppress(FleetError):
        server.sql("CREATE UNIQUE INDEX CONCURRENTLY customers_email ON customers (email)", database="shop")
    server.sql("DELETE FROM customers WHERE id = 0", database="shop")


def fill_file(path: Path, *, incremental: bool) -> None:
    """Makes a SQLite file that can give pages back bit by bit, or only as a whole."""
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA auto_vacuum = {'INCREMENTAL' if incremental else 'NONE'}")
        db.executescript(SQLITE)
    db.close()
