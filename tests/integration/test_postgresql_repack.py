# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rebuilding online by pg_repack: its command line, its end when it is stopped or killed, and what it leaves behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import (
    clients,
    leftovers,
    means,
    repack,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.connection import Kind
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Refused, Stopped
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropLeftover, Rebuild
from tests.fleet import FleetError, Server

from .conftest import Pool, missing
from .pg import Used, client, later, role, transaction, use

Make = Callable[[Server], str]
FILL = """
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, {rows}) i;
DELETE FROM t WHERE id % 2 = 0;
"""
WRECKS = """
SELECT relname FROM pg_class WHERE relnamespace = 'repack'::regnamespace AND relname ~ '_[0-9]+$'
UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'repack'::regnamespace AND typname ~ '^pk_'
UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
"""
COPYING = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_repack' AND query LIKE 'INSERT INTO repack%'
"""
ONLINE = Wants(tables=True, bloat=True, leftovers=True)


@pytest.fixture
def server(pool: Pool) -> Server:
    return pool.get("postgresql-15")


@pytest.fixture
def shop(server: Server, database: Make) -> str:
    name = database(server)
    if not means.clients():
        missing("pg_repack: apt-get install postgresql-15-repack")
    try:
        server.sql("CREATE EXTENSION pg_repack", database=name)
    except FleetError as error:
        missing(f"the extension pg_repack: {error}")
    return name


def fill(server: Server, database: str, rows: int = 20000) -> Ref:
    server.script(FILL.format(rows=rows), database=database)
    server.sql("VACUUM ANALYZE t", database=database)
    return Ref(database, ("public", "t"))


def online(pg: Used, ref: Ref) -> str:
    """Why it cannot be rebuilt online, or nothing."""
    return pg.table(ref.database, ref.path[1], ONLINE, schema=ref.path[0]).lacks.get("online rebuild", "")


def words_of(pg: Used, ref: Ref) -> list[str]:
    online(pg, ref)
    return shlex.split(pg.engine.spell(Rebuild(ref), pg.server)[0])


@contextmanager
def under_way(server: Server, words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A pg_repack of somebody else's, in the middle of its copying."""
    env = {**os.environ, "PGPASSWORD": server.password}
    process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while server.sql(COPYING) == [["0"]]:
            assert process.poll() is None, "it was too fast"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_its_end(server: Server) -> None:
    deadline = time.monotonic() + 30
    while server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_repack'") != [["0"]]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_gives_space_back_while_the_table_is_used(server: Server, shop: str) -> None:
    ref = fill(server, shop)
    with use(server) as pg, client(server, shop) as app:
        before = pg.table(shop, "t", ONLINE)
        assert "online rebuild" not in before.lacks
        assert before.bloat is not None
        assert before.bloat.low > 40
        app.execute("INSERT INTO t VALUES (0, 'kept')")
        server.mark_log()
        words = pg.carry_out(Rebuild(ref))
        after = pg.table(shop, "t", ONLINE)
        said = [x.statement for x in server.logged() if x.application == "dbfleet" and "VACUUM" in x.statement]
        skip = "(SKIP_DATABASE_STATS) " if int(server.installation.major) >= 16 else ""
        assert said == words[1:] == [f'VACUUM {skip}"public"."t"']
    assert after.total_bytes < 0.6 * before.total_bytes
    assert after.dead is not None
    assert (after.dead.rows, after.inserted, after.changed) == (0, 0, 0)
    assert server.sql("SELECT count(*), max(v) FILTER (WHERE id = 0) FROM t", database=shop) == [["10001", "kept"]]
    assert server.sql(WRECKS, database=shop) == []


def test_its_command_line_harms_nobody_and_hides_the_password(server: Server, shop: str) -> None:
    ref = fill(server, shop, 100)
    with use(server) as pg:
        words = words_of(pg, ref)
        assert Path(words[0]).name == "pg_repack"
        assert "--no-kill-backend" in words
        assert "--no-password" in words
        assert words[words.index("--table") + 1] == '"public"."t"'
        assert server.password not in " ".join(words)
        with clients.private_folder() as folder:
            env = clients.environment(pg.engine._connector, folder, Kind(), leftovers.REPACK)
            passfile = folder / "pgpass"
            assert env["PGPASSFILE"] == str(passfile)
            assert passfile.stat().st_mode & 0o777 == 0o600
            assert folder.stat().st_mode & 0o777 == 0o700
            assert server.password not in " ".join(v for k, v in env.items() if k not in os.environ)
        assert not folder.exists()


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("CREATE TABLE x (id int)", "primary key"),
        ("CREATE TABLE x (id int); CREATE UNIQUE INDEX ON x (id)", "primary key"),
        ("CREATE TABLE x (id int NOT NULL); CREATE UNIQUE INDEX ON x (id) WHERE id > 0", "primary key"),
        ("CREATE TABLE x (id int NOT NULL, e int); CREATE UNIQUE INDEX ON x (id, abs(e))", "primary key"),
        ("CREATE UNLOGGED TABLE x (id int PRIMARY KEY)", "unlogged"),
        ("CREATE MATERIALIZED VIEW x AS SELECT 1 AS id", "REFRESH"),
        ("CREATE TABLE x (id int PRIMARY KEY) PARTITION BY RANGE (id)", "partition"),
        ("CREATE TABLE x (id int NOT NULL UNIQUE)", ""),
        ("CREATE TABLE x (id int NOT NULL, b int); CREATE UNIQUE INDEX ON x (id) INCLUDE (b)", "primary key"),
        ("CREATE TABLE x (id int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX ON x (id) INCLUDE (b)", ""),
    ],
)
def test_tables_that_it_cannot_take(server: Server, shop: str, table: str, why: str) -> None:
    server.script(table, database=shop)
    with use(server) as pg:
        ref = Ref(shop, ("public", "x"))
        reason = online(pg, ref)
        assert why in reason
        assert bool(why) == bool(reason)
        if "CREATE TABLE" in table and "PARTITION" not in table:
            # It agrees, and says so with a good exit and a warning alone.
            if why and not ("INCLUDE" in table and int(server.installation.major) >= 17):  # 1.5 takes that one
                with pytest.raises(Refused):
                    pg.carry_out(Rebuild(ref))
            elif not why:
                pg.carry_out(Rebuild(ref))


def test_means_that_are_missing(server: Server, shop: str, database: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    other = database(server)
    ref, without = fill(server, shop, 100), fill(server, other, 100)
    with use(server) as pg:
        assert "CREATE EXTENSION" in online(pg, without)
        with pytest.raises(Refused, match="CREATE EXTENSION"):
            pg.carry_out(Rebuild(without))
    with role(server, "tenant", "ALTER ROLE tenant NOINHERIT; GRANT postgres TO tenant", database=shop) as login:
        server.sql("ALTER TABLE t OWNER TO tenant", database=shop)
        with use(server, **login) as pg:
            assert "superuser" in online(pg, ref)
        server.sql("ALTER TABLE t OWNER TO postgres", database=shop)
    monkeypatch.setattr(means, "clients", lambda: {"1.2.3": "/usr/bin/pg_repack"})
    with use(server) as pg:
        assert "there: 1.2.3" in online(pg, ref)


def test_a_lock_holder_is_not_killed(server: Server, shop: str) -> None:
    ref = fill(server, shop, 2000)
    with use(server, Execution(lock_timeout=0.1)) as pg, transaction(server, shop, "SELECT 1 FROM t LIMIT 1") as app:
        began = time.monotonic()
        with pytest.raises(Busy, match="timed out"):
            pg.carry_out(Rebuild(ref))
        assert time.monotonic() - began < 25
        app.execute("SELECT 1")
        assert server.sql(WRECKS, database=shop) == []


def waiting(server: Server, database: str) -> bool:
    """Whether a pg_repack has laid its trigger and log, and waits for older transactions to end."""
    return len(server.sql(WRECKS, database=database)) > 2


def test_stopped_in_the_middle_it_leaves_nothing(server: Server, shop: str) -> None:
    ref = fill(server, shop, 2000)
    with use(server) as pg, transaction(server, shop, "SELECT txid_current()"):
        with pg.engine.session(shop) as session:

            def stop() -> None:
                while not waiting(server, shop):
                    time.sleep(0.02)
                session.cancel()

            timer = later(0, stop)
            with pytest.raises(Stopped):
                list(pg.engine.carry_out(session, Rebuild(ref), pg.server, None))
            timer.join()
        assert server.sql(WRECKS, database=shop) == []
        wait_for_its_end(server)
        with pg.engine.session(shop) as session:
            act: Any = pg.engine.carry_out(session, Rebuild(ref), pg.server, None)
            while not waiting(server, shop):
                next(act)
            act.close()
        assert server.sql(WRECKS, database=shop) == []
        wait_for_its_end(server)
    assert server.sql("SELECT count(*) FROM t", database=shop) == [["1000"]]


def test_what_a_killed_one_leaves_is_found_and_dropped(server: Server, shop: str) -> None:
    ref = fill(server, shop, 300000)
    with use(server) as pg:
        words = words_of(pg, ref)
        with under_way(server, words) as process:
            (alive,) = pg.leftovers(shop)
            assert not alive.dead
            assert "server process" in alive.why_not
            with pytest.raises(Refused, match="at work"):
                pg.carry_out(DropLeftover(ref, alive.what, alive.names))
            process.send_signal(signal.SIGKILL)
            process.wait()
        wait_for_its_end(server)
        (dead,) = pg.leftovers(shop)
        assert (dead.ref, dead.what, dead.dead) == (ref, "pg_repack", True)
        assert dead.names[0] == "repack_trigger"
        server.sql("UPDATE t SET v = 'changed while the trigger was left' WHERE id < 100", database=shop)
        dropped = pg.carry_out(DropLeftover(ref, dead.what, dead.names))
        assert dropped[0] == 'DROP TRIGGER IF EXISTS "repack_trigger" ON "public"."t"'
        assert server.sql(WRECKS, database=shop) == []
        assert pg.leftovers(shop) == ()
        pg.carry_out(Rebuild(ref))
        assert server.sql("SELECT count(*) FROM t", database=shop) == [["150000"]]


def test_another_one_at_work_is_left_alone(server: Server, shop: str) -> None:
    ref = fill(server, shop, 300000)
    with use(server) as pg:
        words = words_of(pg, ref)
        with under_way(server, words) as process:
            with pytest.raises(Busy):
                pg.carry_out(Rebuild(ref))
            assert process.wait(60) == 0
    assert server.sql(WRECKS, database=shop) == []


@pytest.mark.parametrize(
    ("version", "database", "word"),
    [
        ("1.4.8", "shop", "shop"),
        ("1.4.8", "it's one", r"'it\'s one'"),
        ("1.5.0", "a=b", "'a=b'"),
        ("1.5.1", "shop", "shop"),
        ("1.5.2", "it's one", "it's one"),
        ("1.5.2", "a='b", r"dbname='a=\'b'"),
        ("1.5.3", "postgres://x", "dbname='postgres://x'"),
    ],
)
def test_names_as_each_version_takes_them(server: Server, version: str, database: str, word: str) -> None:
    with use(server) as pg:
        found = means.Means("", "pg_repack", version=version)
        words = repack.argv(Ref(database, ("public", "t")), pg.engine._connector, found, 1.0)
    assert words[words.index("--dbname") + 1] == word


def test_hostile_names_on_the_command_line(server: Server) -> None:
    name = "postgresql://x=y 'z'"
    server.sql(f'CREATE DATABASE "{name}"')
    try:
        if not means.clients():
            missing("pg_repack")
        server.script(
            """CREATE EXTENSION pg_repack; CREATE SCHEMA "s c";
            CREATE TABLE "s c"."t""; DROP TABLE x; --" ("select" int PRIMARY KEY);
            INSERT INTO "s c"."t""; DROP TABLE x; --" VALUES (1)""",
            database=name,
        )
        with use(server) as pg:
            ref = Ref(name, ("s c", 't"; DROP TABLE x; --'))
            assert online(pg, ref) == ""
            pg.carry_out(Rebuild(ref))
    finally:
        server.sql(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.parametrize("said", ["database", "environment", ""])
def test_names_in_another_encoding(server: Server, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Whatever encoding the database has, and its clients are told to speak: ours are UTF-8, rows are not converted."""
    name = f"latin{os.getpid()}"
    server.sql(f"CREATE DATABASE {name} ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    try:
        if not means.clients():
            missing("pg_repack")
        if said == "database":
            server.sql(f"ALTER DATABASE {name} SET client_encoding = 'WIN1250'")
        if said == "environment":
            monkeypatch.setenv("PGCLIENTENCODING", "WIN1250")
        server.script(
            'CREATE EXTENSION pg_repack; CREATE TABLE "Käse" ("größe" text PRIMARY KEY, z text);'
            " INSERT INTO \"Käse\" VALUES ('ñandú', 'õ')",
            database=name,
        )
        with use(server) as pg:
            ref = Ref(name, ("public", "Käse"))
            assert online(pg, ref) == ""
            pg.carry_out(Rebuild(ref))
        assert server.sql('SELECT "größe", z FROM "Käse"', database=name) == [["ñandú", "õ"]]
    finally:
        server.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
