# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cleanup as a whole, on servers of both kinds: presets, both ages in one rule, and what is due afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server

from .conftest import Pool
from .module_runner import Ran, run

SERVERS = ["postgresql-15", "postgresql-18", "mariadb", "mysql"]
# Ages from 0 to 999 days, so many rows a day; an order has an item.
TABLES = {
    "postgresql": """
        CREATE TABLE django_session (session_key text PRIMARY KEY, expire_date timestamptz NOT NULL);
        CREATE INDEX ON django_session (expire_date);
        CREATE TABLE orders (id bigint PRIMARY KEY, deleted_at timestamp, note text);
        CREATE TABLE items (id bigint PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders);
        CREATE INDEX ON orders (deleted_at);
        CREATE INDEX ON items (order_id);
        INSERT INTO django_session SELECT n::text, now() - (n % 1000) * interval '1 day' - interval '1 hour'
            FROM generate_series(1, 3000) n;
        INSERT INTO orders SELECT n, CASE WHEN n % 7 > 0 THEN
            now() AT TIME ZONE 'UTC' - (n % 1000) * interval '1 day' - interval '1 hour' END, repeat('x', 50)
            FROM generate_series(1, 7000) n;
        INSERT INTO items SELECT id, id FROM orders;
        VACUUM ANALYZE
    """,
    "mysql": """
        CREATE TABLE digits (n int PRIMARY KEY);
        INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);
        CREATE VIEW numbers AS SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 1 AS n
            FROM digits a, digits b, digits c, digits d;
        CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, expire_date datetime(6) NOT NULL,
            KEY (expire_date));
        CREATE TABLE orders (id bigint PRIMARY KEY, deleted_at datetime, note text, KEY (deleted_at));
        CREATE TABLE items (id bigint PRIMARY KEY, order_id bigint NOT NULL,
            FOREIGN KEY (order_id) REFERENCES orders (id));
        INSERT INTO django_session SELECT n, utc_timestamp() - INTERVAL n % 1000 DAY - INTERVAL 1 HOUR FROM numbers
            WHERE n <= 3000;
        INSERT INTO orders SELECT n, CASE WHEN n % 7 > 0 THEN
            utc_timestamp() - INTERVAL n % 1000 DAY - INTERVAL 1 HOUR END, repeat('x', 50)
            FROM numbers WHERE n <= 7000;
        INSERT INTO items SELECT id, id FROM orders;
        ANALYZE TABLE orders, items, django_session
    """,
}
ORDERS = {
    "preset": "soft_deleted",
    "table": "orders",
    "on_children": "delete",
    "refuse_over_percent": 80,
}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, pool: Pool) -> Server:
    return pool.get(str(request.param))


def filled(server: Server, database: Callable[[Server], str]) -> str:
    name = database(server)
    for statement in TABLES["postgresql" if server.engine == "postgresql" else "mysql"].split(";\n"):
        server.sql(statement, database=name)
    return name


def asked(server: Server, name: str, tmp_path: Path, **more: Any) -> dict[str, Any]:
    kept = str(tmp_path / "journal" / "journal.sqlite")
    return {**server.login(), "databases": [name], "journal": kept, "presets": ["django_sessions", ORDERS], **more}


def numbers(ran: Ran) -> dict[tuple[str, str], tuple[int, int]]:
    """By kind and object: rows and children that were expected."""
    steps = ran.fact()["steps"]
    return {
        (s["kind"], s["object"].rpartition(".")[2]): (s["expected"]["rows"], s["expected"].get("children", 0))
        for s in steps
    }


def count(server: Server, name: str, table: str) -> int:
    ((found,),) = server.sql(f"SELECT count(*) FROM {table}", database=name)
    return int(found)


def test_sessions_and_soft_deleted_orders_by_their_presets(
    server: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    name = filled(server, database)
    options = asked(server, name, tmp_path)
    before = {table: count(server, name, table) for table in ("django_session", "orders", "items")}
    check = run("db_cleanup", options, check=True)
    ran = run("db_cleanup", options)
    assert ran.code == 0, ran.result
    assert numbers(check) == numbers(ran)
    by_step = {(s["kind"], s["object"].rpartition(".")[2]): s for s in ran.fact()["steps"]}
    assert {key[0] for key in by_step} <= {"delete", "archive", "vacuum", "analyze"}
    for key, step in by_step.items():
        assert step["status"] == "done" or (step["error"] or "").startswith("no longer due"), (key, step)
        assert step["proven"] in (True, None), step
        if key[0] in ("delete", "archive"):
            assert step["actual"]["rows"] == step["expected"]["rows"]
            assert step["actual"]["children"] == step["expected"]["children"]
    gone, moved = by_step["delete", "orders"]["actual"]["rows"], by_step["archive", "orders"]["actual"]["rows"]
    assert (gone, moved) == (270 * 6, 365 * 6)
    assert count(server, name, "orders") == before["orders"] - gone - moved
    assert count(server, name, "orders_archive") == moved
    assert count(server, name, "items") == before["items"] - gone - moved
    assert count(server, name, "django_session") == 30 * 3
    again = run("db_cleanup", options)
    assert (again.changed, again.fact()["steps"]) == (False, [])


def test_what_a_purge_makes_due_is_done_with_it(
    server: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    name = filled(server, database)
    options = asked(server, name, tmp_path)
    vacuum = {key: value for key, value in options.items() if key != "presets"}
    run("db_vacuum", vacuum)
    ran = run("db_cleanup", options)
    assert ran.code == 0, ran.result
    if server.engine == "postgresql":
        kinds = {(s["kind"], s["object"]) for s in ran.fact()["steps"] if s["status"] == "done"}
        assert {("vacuum", "public.orders"), ("vacuum", "public.items"), ("vacuum", "public.django_session")} <= kinds
        assert ("vacuum", "public.orders_archive") in kinds
    left = run("db_vacuum", vacuum)
    assert left.steps() == []


def test_rows_per_run_takes_them_by_and_by(server: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = filled(server, database)
    rule = {**ORDERS, "rows_per_run": 2000}
    options = asked(server, name, tmp_path, presets=[rule])
    rows = [count(server, name, "orders")]
    while len(rows) < 5:
        ran = run("db_cleanup", options)
        assert all(s["proven"] in (True, None) for s in ran.fact()["steps"]), ran.fact()["steps"]
        rows.append(count(server, name, "orders"))
        if not ran.changed:
            break
    assert [a - b for a, b in itertools.pairwise(rows)] == [2000, 635 * 6 - 2000, 0]
