# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions that nothing cuts off, errors that say what to do and no secret, and a pooler that is recognised."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import PostgreSQL
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.pool import MOST_IDLE
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    BadInput,
    Busy,
    CannotConnect,
    Gone,
    Refused,
    Stopped,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Vacuum
from tests.fleet import Fleet, Missing, Server

from .conftest import Pool, missing
from .pg import client, later, role, transaction, use

Make = Callable[[Server], str]
NASTY = {
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "search_path": "nowhere",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "datestyle": "German",
    "timezone": "Asia/Kathmandu",
    "client_min_messages": "error",
    "standard_conforming_strings": "off",
}


def test_greeting(postgresql: Server) -> None:
    with use(postgresql) as pg:
        found = pg.server
    assert (found.engine, found.version) == ("postgresql", postgresql.version.split()[0])
    assert found.number[0] == int(postgresql.installation.major)
    assert found.role == "primary"
    assert found.now.tzinfo is not None
    assert found.address == f"127.0.0.1:{postgresql.port}"
    databases = {d.name: d for d in found.databases}
    assert databases["template0"].why_not
    assert databases["template1"].system
    assert not databases["postgres"].system
    assert all(d.freeze_percent is not None for d in found.databases)
    # The default of summarize_wal, and below 17 there is none.
    assert found.lacks.keys() == {"incremental", "drill folder"}
    assert found.findings == ()


def test_settings_of_role_and_database_do_not_matter(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    nasty = dict(NASTY)
    if int(postgresql.installation.major) >= 17:
        nasty["transaction_timeout"] = "1ms"
        nasty["idle_session_timeout"] = "1ms"
    postgresql.script(
        """CREATE TABLE t AS SELECT i AS id, repeat('x', 100) AS v FROM generate_series(1, 100000) i;
        DELETE FROM t WHERE id % 2 = 0""",
        database=name,
    )
    with role(postgresql, "nasty", "ALTER ROLE nasty SUPERUSER") as login:
        for key, value in nasty.items():
            postgresql.sql(f"ALTER ROLE nasty SET {key} = '{value}'")
            postgresql.sql(f"ALTER DATABASE {name} SET {key} = '{value}'")
        with use(postgresql, **login) as pg, pg.engine.guard([name], 0):
            assert pg.server.lacks.keys() == {"incremental", "drill folder"}
            pg.carry_out(Vacuum(Ref(name, ("public", "t")), analyze=True))
            time.sleep(0.05)
            assert pg.table(name, "t").missing_statistics == ""
        # The settings go with the database.
        postgresql.sql(f"ALTER DATABASE {name} RESET ALL")


def test_nothing_of_the_settings_is_logged(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.mark_log()
    with use(postgresql) as pg:
        pg.measure(name)
    assert not [s for s in postgresql.statements() if s.lstrip().upper().startswith(("SET", "BEGIN", "RESET"))]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"login_password": "s3cret-and-wrong"}, "login_password"),
        ({"login_user": "nobody-at-all"}, "login_user"),
        ({"login_db": "no_such_db"}, "login_db"),
        ({"login_port": 1}, "running"),
        ({"session_role": "no_such_role"}, "session_role"),
        ({"ssl_mode": "require"}, "ssl_mode"),
        ({"login_host": "no-such-host.invalid"}, "login_host"),
    ],
)
def test_connections_that_fail_say_what_to_do(pool: Pool, wrong: dict[str, Any], says: str) -> None:
    server = pool.get("postgresql-16")
    with pytest.raises(CannotConnect) as caught:
        use(server, None, **wrong)
    assert says in str(caught.value)
    for secret in (server.password, "s3cret-and-wrong"):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        {"config_file": "/etc/my.cnf"},
        {"connect_params": {"dbname": "x"}},
        {"ca_cert": __file__},
        {"ca_cert": "/nowhere/ca.pem", "ssl_mode": "verify-full"},
        {"check_hostname": True, "ssl_mode": "require"},
        {"check_hostname": False, "ssl_mode": "verify-full"},
        {"login_host": "db1", "login_unix_socket": "/run/postgresql"},
    ],
)
def test_options_that_cannot_be_meant(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        PostgreSQL({"engine": "postgresql", **bad}, Execution())


def test_tls_is_verified_or_refused(fleet: Fleet, tmp_path: Path) -> None:
    try:
        server = fleet.postgresql(15, tls=True, name="pg-tls")
    except Missing as why:
        missing(why)
    with (
        use(server, ssl_mode="verify-full", ca_cert=str(server.ca_cert)) as pg,
        pg.engine.session("postgres") as session,
    ):
        assert session.rows("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
    other = tmp_path / "other.pem"
    other.write_text(Path(str(server.ca_cert)).read_text().replace("A", "B", 3))
    with pytest.raises(CannotConnect):
        use(server, ssl_mode="verify-full", ca_cert=str(other))
    with pytest.raises(CannotConnect, match="ca_cert"):
        use(server, ssl_mode="verify-ca")
    server.stop()


def test_unix_socket_and_session_role(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    by_socket = {"login_host": "localhost", "login_unix_socket": str(postgresql.socket), "session_role": "worker"}
    with role(postgresql, "worker", "GRANT worker TO postgres"), use(postgresql, None, **by_socket) as pg:
        assert pg.server.settings["user"] == "worker"
        assert not pg.server.settings["superuser"]
        with pg.engine.session(name) as session:
            assert session.rows("SELECT current_user::text, inet_client_addr()") == [("worker", None)]


def test_low_privileges_are_findings_and_no_crash(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        "CREATE TABLE theirs AS SELECT generate_series(1, 3000) AS id; DELETE FROM theirs WHERE id < 1500",
        database=name,
    )
    with role(postgresql, "low", database=name) as login:
        postgresql.script("CREATE SCHEMA low AUTHORIZATION low", database=name)
        postgresql.script("SET ROLE low; CREATE TABLE low.own AS SELECT generate_series(1, 3000) AS id", database=name)
        with use(postgresql, **login) as pg:
            codes = {f.code for f in pg.server.findings}
            assert {"no_activity", "no_statistics"} <= codes
            assert any("GRANT pg_monitor" in f.fix for f in pg.server.findings)
            found = pg.measure(name)
            (finding,) = [f for f in found.findings if f.code == "may_not_maintain"]
            assert "public.theirs" in finding.message
            assert "GRANT" in finding.fix
            theirs, own = (next(x for x in found.tables if x.ref.path[1] == n) for n in ("theirs", "own"))
            assert {"vacuum", "analyze", "freeze", "reclaim"} <= set(theirs.lacks)
            assert theirs.missing_statistics == "", "unknown is not missing"
            assert own.missing_statistics == "the table"
            assert "vacuum" not in own.lacks
            pg.carry_out(Vacuum(own.ref, analyze=True))
            assert pg.gauge("oldest_snapshot", Vacuum(own.ref)) is None
            # The server says so by a WARNING alone, and exits well.
            for task in (Vacuum(theirs.ref), Analyze(theirs.ref)):
                with pytest.raises(Refused, match=r"skipp|only|permission"):
                    pg.carry_out(task)


def test_the_privilege_to_maintain(pool: Pool, database: Make) -> None:
    server = pool.get("postgresql-18")
    name = database(server)
    server.script("CREATE TABLE theirs AS SELECT generate_series(1, 3000) AS id", database=name)
    grants = ("GRANT pg_maintain TO keeper", "GRANT pg_monitor TO keeper", "GRANT pg_read_all_data TO keeper")
    with role(server, "keeper", *grants) as login, use(server, **login) as pg:
        assert pg.server.findings == ()
        assert pg.table(name, "theirs").missing_statistics == "the table"
        pg.carry_out(Vacuum(Ref(name, ("public", "theirs")), analyze=True))
        assert pg.table(name, "theirs").missing_statistics == ""
        assert not pg.measure(name).findings


def test_a_lock_holder_costs_the_lock_timeout(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script("CREATE TABLE t AS SELECT generate_series(1, 3000) AS id; CREATE TABLE u (id int)", database=name)
    with use(postgresql, Execution(lock_timeout=0.3)) as pg, transaction(postgresql, name, "LOCK TABLE t"):
        began = time.monotonic()
        with pytest.raises(Busy) as caught:
            pg.carry_out(Vacuum(Ref(name, ("public", "t"))))
        # deadlock_timeout and half a second: an autovacuum would have given way by then.
        assert 0.25 < time.monotonic() - began < 15
        assert "public.t" in str(caught.value)
        pg.carry_out(Vacuum(Ref(name, ("public", "u"))))


def test_lost_and_cancelled_sessions(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script("CREATE TABLE t (id int)", database=name)
    ref = Ref(name, ("public", "t"))
    with use(postgresql, Execution(lock_timeout=30)) as pg:
        with transaction(postgresql, name, "LOCK TABLE t"), pg.engine.session(name) as session:
            timer = later(0.3, session.cancel)
            with pytest.raises(Stopped):
                list(pg.engine.carry_out(session, Vacuum(ref), pg.server, None))
            timer.join()
        with pg.engine.session(name) as session:
            session.cancel()
        pg.carry_out(Vacuum(ref))
        postgresql.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'dbfleet'")
        with pytest.raises(Gone):
            pg.carry_out(Vacuum(ref))
        pg.carry_out(Vacuum(ref))


def test_a_server_of_many_databases_keeps_its_connections(pool: Pool, database: Make) -> None:
    """Connections are kept for what comes next, but for one in each of hundreds of databases."""
    server = pool.get("postgresql-16")
    names = [database(server) for _number in range(MOST_IDLE + 3)]
    ours = "SELECT datname FROM pg_stat_activity WHERE application_name LIKE 'dbfleet%%' AND datname = ANY (%s)"
    with use(server) as pg, client(server, names[0]) as cursor:
        for name in names:
            with pg.engine.session(name) as session:
                assert session.rows("SELECT pg_catalog.current_database()") == [(name,)]
        deadline = time.monotonic() + 20  # a server takes a moment to let go of one
        found = names
        while len(found) > MOST_IDLE and time.monotonic() < deadline:
            cursor.execute(ours, (names,))
            found = [row[0] for row in cursor.fetchall()]
        assert sorted(found) == sorted(names[-MOST_IDLE:])
