# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has aged in the shop, for every engine, and the rules by which it leaves. What churns: shop.py."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.fleet import Server

SESSIONS, ENTRIES, ORDERS, EVENTS = 9_000, 8_000, 12_000, 14_400  # rows
MONTHS = 8  # of events, the current one included, each a partition

# Two fifths of the sessions expired more than a month ago, two fifths of the audit log are older than 90 days, and
# every tenth order was deleted by its customer some time in the last 1,000 days. Events are kept for 160 days.
POSTGRESQL = f"""
CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text, expire_date timestamptz NOT NULL);
INSERT INTO django_session SELECT md5(n::text), repeat('s', 60), now() + (n - 5000) * interval '20 minutes'
  FROM generate_series(1, {SESSIONS}) n;
CREATE INDEX ON django_session (expire_date);
CREATE TABLE audit_log (id bigint PRIMARY KEY, created_at timestamptz NOT NULL, who text, what text);
INSERT INTO audit_log SELECT n, now() - n * interval '27 minutes', 'user ' || n % 70, 'changed item ' || n % 900
  FROM generate_series(1, {ENTRIES}) n;
CREATE INDEX ON audit_log (created_at);
CREATE TABLE sales_orders (id bigint PRIMARY KEY, customer_id bigint, total numeric(10, 2), deleted_at timestamptz);
INSERT INTO sales_orders SELECT n, n % 2000, n % 900 + 0.5,
  CASE WHEN n % 10 = 0 THEN now() - n * interval '2 hours' END FROM generate_series(1, {ORDERS}) n;
CREATE INDEX ON sales_orders (deleted_at);
CREATE TABLE events (at timestamptz, id bigint, what text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
{{partitions}}
INSERT INTO events SELECT now() - n * interval '20 minutes', n, 'clicked item ' || n % 900
  FROM generate_series(1, {EVENTS}) n;
SELECT pg_stat_force_next_flush();
VACUUM (ANALYZE) django_session, audit_log, sales_orders, events;
"""

MYSQL = f"""
CREATE TABLE counted (n int PRIMARY KEY);
INSERT INTO counted WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 200)
  SELECT a.n + 200 * (b.n - 1) FROM numbers a, numbers b WHERE b.n <= {EVENTS // 200};
CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text, expire_date datetime NOT NULL,
  KEY (expire_date)) STATS_AUTO_RECALC=0;
INSERT INTO django_session SELECT left(sha2(n, 256), 40), repeat('s', 60),
  utc_timestamp() + INTERVAL (n - 5000) * 20 MINUTE FROM counted WHERE n <= {SESSIONS};
CREATE TABLE audit_log (id int PRIMARY KEY, created_at datetime NOT NULL, who varchar(20), what varchar(60),
  KEY (created_at)) STATS_AUTO_RECALC=0;
INSERT INTO audit_log SELECT n, utc_timestamp() - INTERVAL n * 27 MINUTE, concat('user ', n % 70),
  concat('changed item ', n % 900) FROM counted WHERE n <= {ENTRIES};
CREATE TABLE sales_orders (id int PRIMARY KEY, customer_id int, total decimal(10, 2), deleted_at datetime,
  KEY (deleted_at)) STATS_AUTO_RECALC=0;
INSERT INTO sales_orders SELECT n, n % 2000, n % 900 + 0.5,
  if(n % 10 = 0, utc_timestamp() - INTERVAL n * 2 HOUR, NULL) FROM counted WHERE n <= {ORDERS};
CREATE TABLE events (at datetime NOT NULL, id int, what varchar(60), PRIMARY KEY (at, id)) STATS_AUTO_RECALC=0
  PARTITION BY RANGE (to_days(at)) ({{partitions}});
INSERT INTO events SELECT utc_timestamp() - INTERVAL n * 20 MINUTE, n, concat('clicked item ', n % 900) FROM counted;
ANALYZE TABLE django_session, audit_log, sales_orders, events;
DROP TABLE counted;
"""

SQLITE = f"""
CREATE TABLE django_session (session_key TEXT PRIMARY KEY, session_data TEXT, expire_date TEXT NOT NULL);
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {SESSIONS})
  INSERT INTO django_session SELECT 'session ' || n, '{"s" * 60}', datetime('now', ((n - 5000) * 20) || ' minutes')
  FROM numbers;
CREATE INDEX django_session_expire ON django_session (expire_date);
CREATE TABLE audit_log (id INTEGER PRIMARY KEY, created_at TEXT NOT NULL, who TEXT, what TEXT);
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ENTRIES})
  INSERT INTO audit_log SELECT n, datetime('now', (n * -27) || ' minutes'), 'user ' || n % 70,
    'changed item ' || n % 900 FROM numbers;
CREATE INDEX audit_log_created ON audit_log (created_at);
CREATE TABLE sales_orders (id INTEGER PRIMARY KEY, customer_id INTEGER, total REAL, deleted_at TEXT);
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ORDERS})
  INSERT INTO sales_orders SELECT n, n % 2000, n % 900 + 0.5,
    CASE WHEN n % 10 = 0 THEN datetime('now', (n * -2) || ' hours') END FROM numbers;
CREATE INDEX sales_orders_deleted ON sales_orders (deleted_at);
ANALYZE django_session;
ANALYZE audit_log;
ANALYZE sales_orders;
"""

DELETED_ORDERS = {
    "name": "deleted orders",
    "table": "sales_orders",
    "date_column": "deleted_at",
    "archive_after": "365d",
    "delete_after": "730d",
}
OLD_EVENTS = {"name": "old events", "table": "events", "date_column": "at", "delete_after": "160d"}


def variables(archive: Path) -> dict[str, Any]:
    """What an inventory says for all hosts."""
    audit_log = {"name": "audit_log", "archive_dir": str(archive)}
    return {"cleanup_presets": ["django_sessions", audit_log], "cleanup_rules": [DELETED_ORDERS]}


def variables_of_servers() -> dict[str, Any]:
    """What it says, too, of hosts that have partitions."""
    return {"cleanup_rules_50_events": [OLD_EVENTS]}


def months(now: datetime) -> list[tuple[datetime, datetime]]:
    """The first moments of each month with events and of the month after it, oldest first."""
    ends = [(now.replace(day=1) + timedelta(days=32)).replace(day=1)]
    for _month in range(MONTHS):
        ends.append((ends[-1] - timedelta(days=1)).replace(day=1))
    days = [end.replace(hour=0, minute=0, second=0, microsecond=0) for end in reversed(ends)]
    return list(pairwise(days))


def partitions(engine: str) -> str:
    """SQL of the partitions of `events`."""
    spans = months(datetime.now(UTC))
    if engine == "postgresql":
        made = "CREATE TABLE events_{0:%Y_%m} PARTITION OF events FOR VALUES FROM ('{0}') TO ('{1}');"
        return "\n".join(made.format(first, after) for first, after in spans)
    made = "PARTITION events_{0:%Y_%m} VALUES LESS THAN (to_days('{1:%Y-%m-%d}'))"
    return ", ".join(made.format(first, after) for first, after in spans)


def age(server: Server, database: str = "shop") -> None:
    """Fills a database."""
    text = POSTGRESQL if server.engine == "postgresql" else MYSQL
    server.script(text.format(partitions=partitions(server.engine)), database=database)


def age_file(path: Path) -> None:
    """Fills a SQLite file."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(SQLITE)
