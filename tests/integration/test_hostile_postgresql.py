# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_vacuum on PostgreSQL servers that nobody expected: what is strange takes nobody along and comes to an end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.fleet import Fleet, Server

from .conftest import Pool
from .module_runner import Ran, run, start, until
from .pg import client, role
from .test_check_equals_run import options, shown, writes

Make = Callable[[Server], str]
ROWS = "SELECT i FROM generate_series(1, 300) i"

# Each with something that ANALYZE collects only now and then, or never: asked for again and again, it would never end.
STRANGE = f"""
CREATE TABLE partial AS SELECT i AS id, 'done'::text AS state FROM generate_series(1, 500) i;
CREATE INDEX ON partial (lower(state)) WHERE state = 'failed';
CREATE TABLE no_columns (); INSERT INTO no_columns SELECT FROM generate_series(1, 500);
CREATE TABLE no_partitions (a int) PARTITION BY RANGE (a);
CREATE TABLE tree (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE tree_1 PARTITION OF tree FOR VALUES FROM (1) TO (100) PARTITION BY LIST (b);
CREATE TABLE tree_1_1 PARTITION OF tree_1 FOR VALUES IN (1);
CREATE TABLE tree_1_rest PARTITION OF tree_1 DEFAULT;
CREATE TABLE tree_rest PARTITION OF tree DEFAULT PARTITION BY HASH (b);
INSERT INTO tree SELECT i % 99 + 1, i % 3 FROM generate_series(1, 900) i;
CREATE MATERIALIZED VIEW not_populated AS SELECT * FROM partial WITH NO DATA;
CREATE UNLOGGED TABLE unlogged AS {ROWS};
CREATE TYPE pair AS (x int, y text); CREATE DOMAIN above AS int CHECK (value > 0);
CREATE TABLE typed OF pair; INSERT INTO typed SELECT i, 'a' FROM generate_series(1, 100) i;
CREATE TABLE types (a above, b pair, c int[], d json, e xml, f tsvector, g int4range, h int4multirange, i point,
                    j xid, k json[], l pair[], m text, n regclass);
INSERT INTO types SELECT 1, (1, 'a')::pair, '{{1}}', '{{}}', NULL, 'a b', '[1,2)', '{{}}', '(1,1)', '5',
                         ARRAY['{{}}'::json], ARRAY[(1, 'a')::pair], NULL, 'pg_class' FROM generate_series(1, 100);
CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY, a int, b int GENERATED ALWAYS AS (a * 2) STORED, c int);
INSERT INTO made (a) {ROWS}; ALTER TABLE made DROP COLUMN c;
CREATE TABLE extended AS SELECT 1 AS a, 2 AS b, '{{}}'::json AS c FROM generate_series(1, 100);
CREATE STATISTICS two ON a, b FROM extended; CREATE STATISTICS words ON (a + b), (a * 2) FROM extended;
CREATE TABLE touchy (a int) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 0,
    autovacuum_analyze_threshold = 0, autovacuum_analyze_scale_factor = 0, autovacuum_vacuum_insert_threshold = 0,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_enabled = false);
INSERT INTO touchy {ROWS}; DELETE FROM touchy WHERE a = 1;
CREATE TABLE loose (a int) WITH (fillfactor = 10); INSERT INTO loose SELECT generate_series(1, 50000);
CREATE TABLE mother AS {ROWS}; CREATE TABLE daughter () INHERITS (mother);
CREATE TABLE ranges (r int4range, EXCLUDE USING gist (r WITH &&));
INSERT INTO ranges SELECT int4range(i, i + 1) FROM generate_series(1, 100) i;
CREATE TABLE wide ({", ".join(f"c{n} int" for n in range(1600))}); INSERT INTO wide (c1) {ROWS};
CREATE FUNCTION mood(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN i; END';
CREATE TABLE moody AS {ROWS}; CREATE INDEX ON moody (mood(i));
CREATE OR REPLACE FUNCTION mood(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql
    AS $$BEGIN RAISE EXCEPTION '%', repeat('bad day ü ', 100000); END$$;
"""


def table(server: Server, database: str, *names: str) -> None:
    for name in names:
        server.sql(f"CREATE TABLE {name} AS {ROWS}", database=database)


def by_object(ran: Ran) -> dict[str, dict[str, Any]]:
    return {step["object"]: step for step in ran.fact()["steps"]}


@contextmanager
def locked(server: Server, database: str, name: str) -> Iterator[Any]:
    """Somebody who lets nobody analyze a table."""
    with client(server, database) as cursor:
        cursor.execute(f"BEGIN; LOCK {name} IN SHARE MODE")
        yield cursor


def waits(server: Server) -> None:
    until(lambda: server.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") != [["0"]], what="a step that waits")


def test_strange_objects(postgresql: Server, database: Make, tmp_path: Path) -> None:
    name = database(postgresql)
    postgresql.script(STRANGE, database=name)
    table(postgresql, name, "aunt")
    asked = options(postgresql, name, tmp_path)
    with client(postgresql, name) as cursor:
        cursor.execute("CREATE TEMP TABLE mine () INHERITS (aunt)")
        check = run("db_vacuum", asked, check=True)
        postgresql.mark_log()
        real = run("db_vacuum", asked, fails=True)
        assert writes(postgresql) == shown(check)
        steps = by_object(real)
        moody = steps.pop("public.moody")
        assert {s["status"] for s in steps.values()} == {"done"}
        assert all(s["proven"] for s in steps.values()), real.text[:3000]
        assert moody["status"] == "failed"
        assert "bad day ü" in moody["error"]
        assert len(moody["error"]) < 3000
        postgresql.sql("DROP INDEX moody_mood_idx", database=name)
        run("db_vacuum", asked)
        last = run("db_vacuum", asked)
        assert not last.changed, last.fact()["steps"]


def test_names_in_other_encodings(pool: Pool, tmp_path: Path) -> None:
    """All databases share the catalog of their names, and nothing says in which encoding each was written."""
    server = pool.get("postgresql-16")
    table(server, "postgres", "here")
    for encoding in ("LATIN1", "SQL_ASCII"):
        server.sql(f"CREATE DATABASE {encoding} ENCODING '{encoding}' TEMPLATE template0")
        with client(server, encoding.lower(), client_encoding="LATIN1") as cursor:
            cursor.execute('CREATE TABLE "caf\xe9" AS SELECT 1 AS id FROM generate_series(1, 99)')
    with client(server, "latin1", client_encoding="LATIN1") as cursor:
        cursor.execute('CREATE DATABASE "d\xe9j\xe0"')
    try:
        found = run("db_vacuum", options(server, "*", tmp_path))
        assert {"public.caf\xe9", "public.here"} <= set(by_object(found))
        unreadable = {f["database"]: f for f in found.fact()["findings"] if f["code"] == "database_unreadable"}
        assert set(unreadable) == {"sql_ascii", "d\\xe9j\\xe0"}
        assert "UTF-8" in unreadable["sql_ascii"]["fix"]
        assert not run("db_vacuum", options(server, "*", tmp_path)).changed
    finally:
        with client(server, "latin1", client_encoding="LATIN1") as cursor:
            cursor.execute('DROP DATABASE "d\xe9j\xe0"')
        server.script("DROP DATABASE latin1; DROP DATABASE sql_ascii; DROP TABLE here")


def test_what_went_away_has_not_failed(postgresql: Server, database: Make, tmp_path: Path) -> None:
    """Tables and a database dropped, renamed and replaced between the plan and their steps; sessions ended by force."""
    name, other = database(postgresql), database(postgresql)
    table(postgresql, name, "a_held", "b_dropped", "c_renamed", "d_replaced", "e_kept")
    table(postgresql, other, "t")
    asked = options(postgresql, name, tmp_path, jobs=1, lock_timeout="9s", databases=[name, other])
    with locked(postgresql, name, "a_held") as cursor:
        child = start("db_vacuum", asked)
        waits(postgresql)
        postgresql.sql("DROP TABLE b_dropped, d_replaced; ALTER TABLE c_renamed RENAME TO c", database=name)
        table(postgresql, name, "d_replaced")
        postgresql.sql(f"DROP DATABASE {other} WITH (FORCE)")
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dbfleet'")
        cursor.execute("DROP TABLE a_held; COMMIT")
        ran = child.wait(60)
    assert not ran.result.get("failed"), ran.text
    status = {f"{s['database']}:{s['object']}": s["status"] for s in ran.fact()["steps"]}
    assert status.pop(f"{other}:public.t") in ("skipped", "done")
    gone = {f"{name}:public.{t}" for t in ("a_held", "b_dropped", "c_renamed")}
    assert {k: v for k, v in status.items() if k not in gone}.keys() == {
        f"{name}:public.d_replaced",
        f"{name}:public.e_kept",
    }
    assert all(status[k] in ("skipped", "done") for k in gone)
    assert status[f"{name}:public.e_kept"] == "done"


def test_others_at_work_are_waited_for_by_the_next_run(postgresql: Server, database: Make, tmp_path: Path) -> None:
    """A VACUUM of somebody else lets nobody else in, perhaps for hours: that is a finding, not a failure each night."""
    name = database(postgresql)
    postgresql.script("CREATE TABLE big AS SELECT generate_series(1, 200000) i; DELETE FROM big", database=name)
    with client(postgresql, name, application_name="a colleague") as cursor:
        cursor.execute("SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1")

        def vacuum() -> None:
            with suppress(psycopg2.Error):
                cursor.execute("VACUUM big")

        colleague = threading.Thread(target=vacuum)
        colleague.start()
        at_work = "SELECT pid FROM pg_stat_progress_vacuum"
        until(lambda: postgresql.sql(at_work) != [], what="the colleague's vacuum")
        try:
            ran = run("db_vacuum", options(postgresql, name, tmp_path))
        finally:
            postgresql.sql(f"SELECT pg_cancel_backend(pid) FROM ({at_work}) w")
            colleague.join()
    assert not ran.changed
    (found,) = [f for f in ran.fact()["findings"] if f["code"] == "still_at_work"]
    assert "a colleague" in found["message"]
    assert run("db_vacuum", options(postgresql, name, tmp_path)).changed


def test_poor_logins(postgresql: Server, database: Make, tmp_path: Path) -> None:
    """Owner of a table in a schema that it may not use; three connections for two jobs; then one."""
    name = database(postgresql)
    table(postgresql, name, "elses")
    with role(postgresql, "poor", "ALTER ROLE poor CONNECTION LIMIT 3", database=name) as login:
        postgresql.script(
            f"""CREATE SCHEMA hidden; CREATE TABLE hidden.t AS {ROWS}; ALTER TABLE hidden.t OWNER TO poor;
            CREATE SCHEMA own AUTHORIZATION poor; SET ROLE poor;
            CREATE TABLE own.a AS {ROWS}; CREATE TABLE own.b AS {ROWS};""",
            database=name,
        )
        asked = options(postgresql, name, tmp_path, jobs=2, **login)
        ran = run("db_vacuum", asked)
        assert {o: s["status"] for o, s in by_object(ran).items()} == {"own.a": "done", "own.b": "done"}
        fixes = [f["fix"] for f in ran.fact()["findings"] if f["code"] == "may_not_maintain"]
        assert 'GRANT USAGE ON SCHEMA "hidden" TO "poor"' in fixes
        assert len(fixes) == 2
        postgresql.sql("ALTER ROLE poor CONNECTION LIMIT 1")
        assert not run("db_vacuum", asked).changed
        postgresql.sql(f"SET ROLE poor; CREATE TABLE own.c AS {ROWS}", database=name)
        crowded = run("db_vacuum", asked, fails=True)
        assert "CONNECTION LIMIT" in crowded.result["msg"]
        assert login["login_password"] not in crowded.text
        postgresql.sql("DROP SCHEMA hidden, own CASCADE", database=name)


def test_counters_that_stand_still(pool: Pool, database: Make, tmp_path: Path) -> None:
    """With track_counts off dead rows stay as they were counted last, however often they are vacuumed."""
    server = pool.get("postgresql-18")
    name = database(server)
    server.script("CREATE TABLE t AS SELECT generate_series(1, 20000) i; ANALYZE t; DELETE FROM t", database=name)
    server.sql(f"ALTER DATABASE {name} SET track_counts = off")
    for turn in range(2):
        ran = run("db_vacuum", options(server, name, tmp_path), check=turn == 0)
        assert not ran.changed, ran.text
        assert "not_counted" in ran.codes()


def test_a_login_trigger_that_writes(pool: Pool, database: Make, tmp_path: Path) -> None:
    """It runs before a session can say anything: sessions that begin read-only could not log in."""
    server = pool.get("postgresql-18")
    name = database(server)
    server.script(
        """CREATE TABLE logins (at timestamptz);
        CREATE FUNCTION note() RETURNS event_trigger SECURITY DEFINER LANGUAGE plpgsql
            AS 'BEGIN INSERT INTO public.logins VALUES (now()); END';
        CREATE EVENT TRIGGER note ON login EXECUTE FUNCTION note();""",
        database=name,
    )
    table(server, name, "t")
    check = run("db_vacuum", options(server, name, tmp_path), check=True)
    server.mark_log()
    real = run("db_vacuum", options(server, name, tmp_path))
    assert sorted(real.steps()) == sorted(check.steps()) != []
    assert writes(server) == shown(real)


def test_sessions_that_may_not_idle(fleet: Fleet, tmp_path: Path) -> None:
    """The first session of a run knows no version yet, and cannot ask not to be ended; a locked catalog; a restart."""
    server = fleet.postgresql(18, settings={"idle_session_timeout": "300ms", "transaction_timeout": "5s"}, name="brief")
    for number in range(3):
        server.sql(f"CREATE DATABASE d{number}")
        table(server, f"d{number}", "t")
    table(server, "postgres", "t")
    with client(server, "d0", options="-c idle_session_timeout=0 -c transaction_timeout=0") as cursor:
        cursor.execute("BEGIN; LOCK pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        ran = run("db_vacuum", options(server, "*", tmp_path, jobs=1))
        assert time.monotonic() - began < 20
    (found,) = [f for f in ran.fact()["findings"] if f["code"] == "database_unreadable"]
    assert (found["database"], "catalog" in found["fix"]) == ("d0", True)
    assert {s["database"] for s in ran.fact()["steps"]} == {"d1", "d2", "postgres"}
    table(server, "d1", "again")
    with locked(server, "d1", "again"):
        child = start("db_vacuum", options(server, "d1", tmp_path, lock_timeout="9s"))
        waits(server)
        server.restart()
        ran = child.wait(60)
    assert {s["status"] for s in ran.fact()["steps"]} == {"done"}, ran.text
    server.stop()


def test_a_server_that_freezes(fleet: Fleet, tmp_path: Path) -> None:
    """Whoever connects is told so within connect_timeout."""
    server = fleet.postgresql(16, name="frozen")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        ran = run("db_vacuum", options(server, "postgres", tmp_path, connect_timeout=2), fails=True)
        assert "connect_timeout" in ran.result["msg"]
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.stop()


@pytest.mark.parametrize("host", ["::1", "socket"])
def test_ways_to_the_server(fleet: Fleet, tmp_path: Path, host: str) -> None:
    server = fleet.postgresql(16, settings={"listen_addresses": "127.0.0.1,::1"}, name="ways")
    hba = server.data_dir / "pg_hba.conf"
    hba.write_text(hba.read_text() + "host all all ::1/128 scram-sha-256\n")
    server.reload()
    where = {"login_host": host} if host != "socket" else {"login_host": "", "login_unix_socket": str(server.socket)}
    ran = run("db_vacuum", options(server, "*", tmp_path, **where))
    written = f"[::1]:{server.port}" if host == "::1" else f"{server.socket}:{server.port}"
    assert ran.fact()["server"]["address"] == written
    server.stop()
