# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases whose indexes need db_reindex, and what is left of a rebuild that was cut off. No test lives here."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.fleet import Server

from .module_runner import until
from .pg import client, transaction

# Every fifth row stays, so that about 80 % of each b-tree but the partial one is free; `quiet` is healthy.
SCHEMA = """
CREATE TABLE orders (id bigint PRIMARY KEY, customer int, note text, state text);
INSERT INTO orders SELECT n, n % 997, md5(n::text), 'open' FROM generate_series(1, 10000) n;
CREATE UNIQUE INDEX orders_note ON orders (note);
CREATE INDEX orders_upper ON orders (upper(note), id);
CREATE INDEX orders_some ON orders (note) INCLUDE (customer) WHERE state = 'open';
CREATE TABLE "we""ird %s name; --" ("a""b" int, t text);
INSERT INTO "we""ird %s name; --" SELECT n, md5(n::text) FROM generate_series(1, 8000) n;
CREATE INDEX "in""dex %s; --" ON "we""ird %s name; --" (t, "a""b");
CREATE TABLE events (at timestamptz, n int, note text) PARTITION BY RANGE (at);
CREATE TABLE events_early PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE events_late PARTITION OF events FOR VALUES FROM ('2026-02-01') TO ('2027-01-01');
CREATE INDEX events_note ON events (note, n);
INSERT INTO events SELECT '2026-01-01'::timestamptz + n * interval '8 minutes', n, md5(n::text)
  FROM generate_series(1, 15000) n;
CREATE TABLE rooms (id int, note text, EXCLUDE USING btree (note WITH =));
INSERT INTO rooms SELECT n, md5(n::text) FROM generate_series(1, 8000) n;
CREATE TABLE quiet (id int PRIMARY KEY, note text);
INSERT INTO quiet SELECT n, md5(n::text) FROM generate_series(1, 8000) n;
CREATE INDEX quiet_note ON quiet (note);
DELETE FROM orders WHERE id % 5 <> 0;
DELETE FROM "we""ird %s name; --" WHERE "a""b" % 5 <> 0;
DELETE FROM events WHERE n % 5 <> 0;
DELETE FROM rooms WHERE id % 5 <> 0;
"""
AGAIN = """
INSERT INTO orders SELECT n, n % 997, md5(n::text), 'open' FROM generate_series(100001, 110000) n;
VACUUM ANALYZE orders;
DELETE FROM orders WHERE id % 50 <> 0;
"""
BLOATED = {
    "public.orders_pkey",
    "public.orders_note",
    "public.orders_upper",
    "public.orders_some",
    'public.in"dex %s; --',
    "public.events_early_note_n_idx",
    "public.events_late_note_n_idx",
}
INVALID = """
SELECT n.nspname || '.' || c.relname
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT i.indisvalid ORDER BY 1"""


def options(server: Server, database: str, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        **server.login(),
        "databases": [database],
        "min_size": "200kB",
        "assume_free_space": "100GB",
        "journal": str(tmp_path / "journal" / "journal.sqlite"),
        **more,
    }


def spoil(server: Server, database: str, *, again: bool = False) -> None:
    """Bloated indexes of every sort, one that is invalid, and healthy ones."""
    server.script(AGAIN if again else SCHEMA, database=database)
    # In a session of its own: the counters of the one before have arrived.
    server.sql("VACUUM ANALYZE", database=database)
    if not again:
        broken(server, database)


def broken(server: Server, database: str) -> None:
    """An invalid index, as a build leaves it that broke off."""
    server.sql("CREATE TABLE double AS SELECT n % 2000 AS id FROM generate_series(1, 2001) n", database=database)
    with client(server, database) as cursor, pytest.raises(psycopg2.errors.UniqueViolation):
        cursor.execute("CREATE UNIQUE INDEX CONCURRENTLY double_id ON double (id)")
    server.sql("DELETE FROM double WHERE ctid = (SELECT max(ctid) FROM double)", database=database)
    server.sql("VACUUM ANALYZE double", database=database)


def invalid(server: Server, database: str) -> list[str]:
    return [row[0] for row in server.sql(INVALID, database=database)]


def valid_names(server: Server, database: str) -> list[str]:
    query = (
        "SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indisvalid AND c.relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    return [row[0] for row in server.sql(query, database=database)]


def reindexing(server: Server, *, application: str = "dbfleet") -> list[int]:
    """Server processes at a concurrent reindex."""
    query = (
        "SELECT pid FROM pg_catalog.pg_stat_activity WHERE state = 'active' AND query ~ '^REINDEX'"
        f" AND application_name = '{application}'"
    )
    return [int(row[0]) for row in server.sql(query)]


def cut_off(server: Server, database: str, index: str, kind: str, *, holder: str = "") -> str:
    """A foreign REINDEX CONCURRENTLY that was terminated: what it leaves is `ccnew` or `ccold`. Returns its name.

    `holder` is a statement that keeps it from its end, where the index is not one of a user's table.
    """
    query = f"SELECT indrelid::pg_catalog.regclass FROM pg_catalog.pg_index WHERE indexrelid = '{index}'::regclass"
    table = server.sql(query, database=database)[0][0]
    # A writer of the table keeps the build from beginning, a mere reader keeps the old index from being dropped.
    word = "LOCK TABLE {} IN ROW EXCLUSIVE MODE" if kind == "ccnew" else "SELECT 1 FROM {} LIMIT 1"
    before = set(invalid(server, database))

    def work() -> None:
        with client(server, database, application_name="foreign") as cursor, pytest.raises(psycopg2.Error):
            cursor.execute(f"REINDEX INDEX CONCURRENTLY {index}")

    with transaction(server, database, holder or word.format(table)):
        worker = threading.Thread(target=work)
        worker.start()

        def there() -> set[str]:
            return {name for name in set(invalid(server, database)) - before if f"_{kind}" in name}

        until(there, 60, f"the {kind}")
        (name,) = there()
        for pid in reindexing(server, application="foreign"):
            server.sql(f"SELECT pg_terminate_backend({pid})")
        worker.join()
    return name


LAZY = """
CREATE FUNCTION lazily(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN
    IF pg_catalog.current_setting('application_name') <> 'fleet' THEN PERFORM pg_catalog.pg_sleep(0.002); END IF;
    RETURN t;
  END $$;
CREATE TABLE lazy (id int PRIMARY KEY, note text);
INSERT INTO lazy SELECT n, md5(n::text) FROM generate_series(1, 1200) n;
CREATE INDEX lazy_note ON lazy (lazily(note));
"""


def lazy(server: Server, database: str) -> None:
    """An index whose rebuild takes everybody but the tests themselves some seconds."""
    server.script(LAZY, database=database)
    server.sql("VACUUM ANALYZE lazy", database=database)
