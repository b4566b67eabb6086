# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_reindex on PostgreSQL while others change what it works on. Snapshots and wreckage have files of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Work
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Reindex
from tests.fleet import Server

from .indexes import invalid, lazy, options, reindexing, valid_names
from .module_runner import run, start, until
from .pg import client, transaction, use

Database = Callable[[Server], str]
LAZY_NOTE = ["lazy_note"]


def forced(server: Server, database: str, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return options(server, database, tmp_path, force=True, indexes=LAZY_NOTE, **more)


def beside(server: Server, database: str, statement: str) -> threading.Thread:
    """Somebody else's statement that has to wait; what becomes of it is his."""

    def work() -> None:
        with client(server, database, application_name="foreign") as cursor:
            try:
                cursor.execute(statement)
            except psycopg2.Error as error:
                print(f"foreign: {error}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'foreign' AND wait_event_type = 'Lock'"
    until(lambda: server.sql(query), 10, "the foreign statement")
    return thread


def _killed(server: Server, database: str, work: Work) -> None:
    """Goes on until the new index is there, and loses its session."""
    for _tick in work:
        if invalid(server, database):
            time.sleep(0.2)  # in which it is seen
            for pid in reindexing(server):
                server.sql(f"SELECT pg_terminate_backend({pid})")


def test_a_second_reindex_comes_first_and_ours_is_killed(postgresql: Server, database: Database) -> None:
    """The index is another one when our turn comes than when we looked: what we make is still known as ours."""
    name = database(postgresql)
    lazy(postgresql, name)
    task = Reindex(Ref(name, ("public", "lazy_note")), Ref(name, ("public", "lazy")))
    with use(postgresql) as used, used.engine.session(name) as session:
        work = used.engine.carry_out(session, task, used.server, None)
        tick = next(work)
        while not tick.owns:
            tick = next(work)
        postgresql.sql("REINDEX INDEX CONCURRENTLY lazy_note", database=name)
        snapshot = transaction(postgresql, name, "SELECT count(*) FROM pg_class", isolation="REPEATABLE READ")
        with snapshot, pytest.raises(DbFault):
            _killed(postgresql, name, work)
    assert invalid(postgresql, name) == []


@pytest.mark.parametrize(
    ("statement", "killed"),
    [
        ("ALTER TABLE lazy RENAME TO crazy", False),
        ("ALTER TABLE lazy SET SCHEMA elsewhere", True),
        ("DROP TABLE lazy", False),
    ],
)
def test_ddl_that_queues_behind_a_rebuild(
    postgresql: Server, database: Database, tmp_path: Path, statement: str, killed: bool
) -> None:
    """The server ends it with a deadlock, or goes on: under whatever name the table has then, nothing is left."""
    name = database(postgresql)
    lazy(postgresql, name)
    postgresql.sql("CREATE SCHEMA elsewhere", database=name)
    child = start("db_reindex", forced(postgresql, name, tmp_path, retries=1))
    until(lambda: invalid(postgresql, name), 30, "the new index")
    with transaction(postgresql, name, "SELECT 1", isolation="REPEATABLE READ"):
        other = beside(postgresql, name, statement)
        for pid in reindexing(postgresql) if killed else ():
            postgresql.sql(f"SELECT pg_terminate_backend({pid})")
        time.sleep(0.5)
    ran = child.wait(60)
    other.join(20)
    assert {s["status"] for s in ran.fact()["steps"]} <= {"done", "skipped"}, ran.text
    left = postgresql.sql("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid", database=name)
    assert left == [], ran.text


def test_a_transaction_that_wants_what_the_rebuild_holds(
    postgresql: Server, database: Database, tmp_path: Path
) -> None:
    """A deadlock: one of the two is the victim, and nothing is left behind either way."""
    name = database(postgresql)
    lazy(postgresql, name)
    child = start("db_reindex", forced(postgresql, name, tmp_path))
    until(lambda: invalid(postgresql, name), 30, "the new index")
    with transaction(postgresql, name, "SELECT count(*) FROM lazy") as cursor:
        query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'dbfleet' AND wait_event = 'virtualxid'"
        until(lambda: postgresql.sql(query), 30, "the wait")
        try:
            cursor.execute("ALTER TABLE lazy ADD COLUMN more int")
            cursor.execute("COMMIT")
        except psycopg2.errors.DeadlockDetected:
            cursor.execute("ROLLBACK")
    ran = child.wait(60)
    (step,) = ran.fact()["steps"]
    assert step["status"] == "done", ran.text
    assert invalid(postgresql, name) == []


def test_fifty_indexes_of_one_table(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    columns = ", ".join(f"c{n} int" for n in range(50))
    values = ", ".join(f"n + {n}" for n in range(50))
    built = "; ".join(f"CREATE INDEX wide_{n} ON wide (c{n})" for n in range(50))
    postgresql.script(
        f"CREATE TABLE wide ({columns}); INSERT INTO wide SELECT {values} FROM generate_series(1, 500) n; {built};",
        database=name,
    )
    asked = options(postgresql, name, tmp_path, force=True, indexes=["wide_*"], jobs=8)
    before = valid_names(postgresql, name)
    ran = run("db_reindex", asked)
    assert {s["status"] for s in ran.fact()["steps"]} == {"done"}
    assert len(ran.fact()["steps"]) == 50
    assert valid_names(postgresql, name) == before
    assert invalid(postgresql, name) == []
