# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two sessions measure what one would measure, and whatever happens to one of them, nothing hangs and nothing is lost.

From how many relations on there are two is lowered, so that databases stay small.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import (
    session as postgresql_session,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.connection import (
    Connection,
    Connector,
    Kind,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.session import Session
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Gone, Refused, Stopped
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Database, Execution, Ref, Wants
from tests.fleet import Fleet, Missing, PostgreSQL, Server, pgbouncer

from .conftest import Pool, missing
from .pg import Used, client, later, role, transaction, use

Make = Callable[[Server], str]
EVERYTHING = Wants(
    tables=True, bloat=True, leftovers=True, indexes=True, index_bloat=True, views=True, structure=True
)  # but for activity, which is of the moment
BLOAT = Wants(bloat=True, bloat_min_bytes=16384, index_bloat=True, index_bloat_min_bytes=16384)
SLEEP = "SELECT pg_catalog.pg_sleep(60)"
SHOP = """
CREATE TABLE plain (id int PRIMARY KEY, v text, w int);
INSERT INTO plain SELECT i, md5(i::text), i % 7 FROM generate_series(1, 6000) i;
CREATE INDEX plain_v ON plain (v);
CREATE INDEX plain_w ON plain (w);
CREATE INDEX plain_both ON plain (w, id) WHERE w > 2;
CREATE INDEX plain_expression ON plain (lower(v));
CREATE INDEX plain_gin ON plain USING gin (to_tsvector('simple', v));
DELETE FROM plain WHERE id % 3 = 0;
CREATE TABLE wide (id int PRIMARY KEY, body text, gone text);
ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
INSERT INTO wide SELECT i, repeat(md5(i::text), 90), 'x' FROM generate_series(1, 300) i;
DELETE FROM wide WHERE id > 150;
ALTER TABLE wide DROP COLUMN gone;
CREATE TABLE parted (id int, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY RANGE (id);
CREATE TABLE parted_2a PARTITION OF parted_2 FOR VALUES FROM (0) TO (100000);
INSERT INTO parted SELECT i, '2026-01-15'::date + i % 30 FROM generate_series(1, 4000) i;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, of_plain int REFERENCES plain);
CREATE TABLE parent (id serial); CREATE TABLE child () INHERITS (parent);
CREATE MATERIALIZED VIEW summed AS SELECT w, count(*) AS n FROM plain GROUP BY w;
CREATE UNIQUE INDEX summed_w ON summed (w);
CREATE TABLE empty (id int);
CREATE TABLE locked (id int PRIMARY KEY); INSERT INTO locked SELECT generate_series(1, 3000);
CREATE SCHEMA "odd ""schema"; CREATE TABLE "odd ""schema"."t%" (id int PRIMARY KEY, "a:b c" text UNIQUE);
"""


@pytest.fixture
def shop(postgresql: Server, database: Make) -> str:
    """A database with some of everything."""
    name = database(postgresql)
    postgresql.script(SHOP, database=name)
    postgresql.sql("VACUUM ANALYZE", database=name)
    return name


@contextmanager
def sessions(monkeypatch: pytest.MonkeyPatch, two: bool) -> Iterator[None]:
    """From as many relations on as every database has, or none."""
    with monkeypatch.context() as patched:
        patched.setattr(postgresql_session, "MANY", 1 if two else 10**9)
        yield


def measured(server: Server, name: str, wants: Wants, **params: Any) -> Database:
    with use(server, **params) as pg:
        return lasting(pg.measure(name, wants))


def lasting(found: Database) -> Database:
    """What does not change by itself: to measure is to use the catalogs, which is counted, and tidies their pages."""
    catalogs = {table.ref for table in found.tables if table.kind == "catalog"}
    tables = [x._replace(dead=None) if x.ref in catalogs else x for x in found.tables]
    indexes = [i._replace(scans=0, last_scan=None) if i.table in catalogs else i for i in found.indexes]
    return found._replace(tables=tuple(tables), indexes=tuple(indexes))


def at_work(server: Server, name: str) -> set[int]:
    """The processes of ours that were asked something in this database since the mark."""
    return {said.pid for said in server.logged() if (said.application, said.database) == ("dbfleet", name)}


@contextmanager
def interfering(monkeypatch: pytest.MonkeyPatch, what: Callable[[Connection, bool, str], None]) -> Iterator[None]:
    """Does something just before each question of a measurement; told whose it is: the first session's or the other's.

    The first session of an engine is the one that asked first.
    """
    asked = Session.rows
    first: list[Session] = []

    def rows(self: Session, statement: str, values: Any = ()) -> Any:
        first.append(self)
        what(self._reader, self is not first[0], statement)
        return asked(self, statement, values)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "rows", rows)
        yield


@pytest.mark.parametrize("wants", [EVERYTHING, BLOAT, Wants(tables=True), Wants(indexes=True, tables=True)])
def test_two_sessions_find_what_one_finds(
    postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch, wants: Wants
) -> None:
    with client(postgresql, shop) as other, transaction(postgresql, shop, "LOCK TABLE locked"):
        other.execute("CREATE TEMP TABLE theirs AS SELECT generate_series(1, 3000) AS id")
        other.execute("CREATE INDEX ON theirs (id)")
        with sessions(monkeypatch, two=False):
            postgresql.mark_log()
            one = measured(postgresql, shop, wants)
            assert len(at_work(postgresql, shop)) == 1
        with sessions(monkeypatch, two=True):
            postgresql.mark_log()
            two = measured(postgresql, shop, wants)
            assert len(at_work(postgresql, shop)) == 2
    assert {"plain", "wide", "parted", "parted_2a", "summed", "locked", "t%"} <= {x.ref.path[1] for x in one.tables}
    assert len({x.ref for x in two.tables}) == len(two.tables)
    assert two.tables == one.tables
    assert two.indexes == one.indexes
    assert two == one


def test_indexes_without_words_are_the_same_indexes(
    postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The large ones alone, those of a login that may not ask for files, and those of the full description."""
    with sessions(monkeypatch, two=True):
        lean = measured(postgresql, shop, BLOAT)
        full = measured(postgresql, shop, BLOAT._replace(indexes=True))
        grants = ("GRANT pg_monitor TO looker", "GRANT pg_read_all_data TO looker")
        with role(postgresql, "looker", *grants, database=shop) as login:
            plain = measured(postgresql, shop, BLOAT, **login)
    large = [
        {x.ref: (x.table, x.bytes, x.rows, x.method, x.bloat) for x in found.indexes if x.bytes >= 16384}
        for found in (lean, full, plain)
    ]
    assert {"plain_v", "plain_both", "plain_gin", "plain_expression", "locked_pkey"} <= {r.path[1] for r in large[0]}
    assert sum(about[-1] is not None for about in large[0].values()) >= 6
    assert large[0] == large[1]
    assert {ref: about[:-1] for ref, about in large[2].items()} == {ref: about[:-1] for ref, about in large[0].items()}


def test_the_second_session_is_opened_like_the_first(
    postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("search_path", "lock_timeout", "statement_timeout", "default_transaction_read_only", "timezone")
    said = ", ".join(f"current_setting('{name}')" for name in settings)
    asked = f"SELECT current_user::text, session_user::text, {said}, pg_backend_pid()"
    nasty = {"search_path": "nowhere", "statement_timeout": "1ms", "lock_timeout": "1ms", "timezone": "Asia/Kathmandu"}
    with (
        role(postgresql, "owner", f"GRANT USAGE ON SCHEMA public TO owner; GRANT owner TO {postgresql.user}"),
        sessions(monkeypatch, two=True),
    ):
        for key, value in nasty.items():
            postgresql.sql(f"ALTER DATABASE {shop} SET {key} = '{value}'")
        with use(postgresql, Execution(lock_timeout=7.0), session_role="owner") as pg:
            pg.measure(shop, EVERYTHING)
            with pg.engine.session(shop) as one, one.twin(wanted=True) as two:
                assert two is not None
                (mine,), (its,) = one.rows(asked), two.rows(asked)
    assert mine[:-1] == its[:-1] == ("owner", postgresql.user, "pg_catalog", "7s", "0", "on", "UTC")
    assert mine[-1] != its[-1]


def test_a_look_at_one_table_is_no_work_for_two(postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof of each of thousands of steps, that is; and few relations are none either."""
    with sessions(monkeypatch, two=True), use(postgresql) as pg:
        postgresql.mark_log()
        pg.measure(shop, EVERYTHING._replace(only=(Ref(shop, ("public", "plain")),)))
        assert len(at_work(postgresql, shop)) == 1
    assert postgresql_session.MANY > 1000
    with use(postgresql) as pg:
        postgresql.mark_log()
        pg.measure(shop, EVERYTHING)
        assert len(at_work(postgresql, shop)) == 1


def test_no_second_connection_is_waited_for(postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a role's limit nor the server's: it is tried once, and nobody has to give way."""
    tried: list[str] = []
    opened = Connector.open

    def counted(self: Connector, database: str, kind: Kind) -> Connection:
        tried.append(database)
        return opened(self, database, kind)

    grants = ("GRANT pg_monitor TO lonely", "GRANT pg_read_all_data TO lonely", "ALTER ROLE lonely CONNECTION LIMIT 1")
    with role(postgresql, "lonely", *grants, database=shop) as login:
        with sessions(monkeypatch, two=False), use(postgresql, login_db=shop, **login) as pg:
            one = lasting(pg.measure(shop, EVERYTHING))
        with sessions(monkeypatch, two=True), use(postgresql, login_db=shop, **login) as pg:
            monkeypatch.setattr(Connector, "open", counted)
            began = time.monotonic()
            assert lasting(pg.measure(shop, EVERYTHING)) == one
            assert lasting(pg.measure(shop, EVERYTHING)) == one
            assert time.monotonic() - began < 5, "a connection was waited for"
            assert len(tried) <= 2, tried  # its own, where it did not idle, and one more that was refused


def test_two_databases_side_by_side_do_not_wait_for_each_other(
    postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one connection for each of two sessions neither gets a second one, nor waits for the other's."""
    grants = ("GRANT pg_monitor TO few", "GRANT pg_read_all_data TO few", "ALTER ROLE few CONNECTION LIMIT 2")
    with (
        role(postgresql, "few", *grants, database=shop) as login,
        sessions(monkeypatch, two=True),
        use(postgresql, login_db=shop, **login) as pg,
        pg.engine.session(shop) as one,
        pg.engine.session(shop) as two,
    ):
        began = time.monotonic()
        for session in (one, two):
            assert pg.engine.measure(session, EVERYTHING, pg.server).tables
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("which", range(4))
def test_what_the_second_session_loses_the_first_one_asks(
    postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """Its connection ended by an administrator, before its first question, its second …"""
    with sessions(monkeypatch, two=False):
        one = measured(postgresql, shop, EVERYTHING)
    ended: list[int] = []

    def end(at: Connection, second: bool, _statement: str) -> None:
        if second:
            ended.append(at.pid)
            if len(ended) == which + 1:
                postgresql.sql(f"SELECT pg_terminate_backend({at.pid}, 5000)")

    with sessions(monkeypatch, two=True), use(postgresql) as pg:
        with interfering(monkeypatch, end):
            found = lasting(pg.measure(shop, EVERYTHING))
        assert len(ended) > which
        assert found == one
        assert lasting(pg.measure(shop, EVERYTHING)) == one


@pytest.mark.parametrize("phase", ["tables", "indexes"])
def test_a_lost_first_session_ends_the_second(
    postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """And its fault is the one that is told, at once: not when the other has ended."""
    turns = {"tables": 0, "indexes": 1}[phase]
    asked: dict[bool, int] = {True: 0, False: 0}
    sleeping = threading.Event()

    def interfere(at: Connection, second: bool, statement: str) -> None:
        busy = threading.current_thread() is not threading.main_thread()
        asked[second] += busy or (not second and asked[True] > turns)
        if second and asked[True] == turns + 1:
            sleeping.set()
            at.rows(SLEEP)
        elif not second and phase in _phase(statement) and sleeping.wait(5):
            postgresql.sql(f"SELECT pg_terminate_backend({at.pid}, 5000)")

    with sessions(monkeypatch, two=True), use(postgresql) as pg, interfering(monkeypatch, interfere):
        began = time.monotonic()
        with pytest.raises(Gone):
            pg.measure(shop, EVERYTHING)
        assert time.monotonic() - began < 30
    assert sleeping.is_set()


def _phase(statement: str) -> str:
    """What the first session asks at the same time: its half of the tables; and of these who holds the horizon."""
    if "mod(c.oid" in statement:
        return "tables"
    return "indexes" if "clock_timestamp()" in statement else ""


@pytest.mark.parametrize("by", ["an administrator", "the engine", "the session"])
def test_a_stop_reaches_both(postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    pids: set[int] = set()
    both_sleep = threading.Event()

    def sleep(at: Connection, _second: bool, statement: str) -> None:
        if "mod(c.oid" in statement:
            pids.add(at.pid)
            if len(pids) == 2:
                both_sleep.set()
            at.rows(SLEEP)

    with sessions(monkeypatch, two=True), use(postgresql) as pg, pg.engine.session(shop) as session:

        def stop() -> None:
            assert both_sleep.wait(20)
            time.sleep(0.5)
            if by == "the engine":
                pg.engine.cancel()
            elif by == "the session":
                session.cancel()
            else:
                (second,) = pids - {session._reader.pid}
                postgresql.sql(f"SELECT pg_cancel_backend({second})")
                time.sleep(0.5)
                postgresql.sql(f"SELECT pg_cancel_backend({session._reader.pid})")

        began, stopping = time.monotonic(), later(0, stop)
        with (
            interfering(monkeypatch, sleep),
            pytest.raises(Refused if by == "an administrator" else Stopped, match=r"cancel|stopped"),
        ):
            pg.engine.measure(session, EVERYTHING, pg.server)
        stopping.join()
        assert time.monotonic() - began < 40
    assert len(pids) == 2


def test_somebody_who_locks_what_one_of_them_reads(
    postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second session alone reads operator classes: a lock timeout there is tried again, and told when it stays."""
    impatient = Execution(lock_timeout=0.3)
    with sessions(monkeypatch, two=False):
        one = measured(postgresql, shop, EVERYTHING)
    with sessions(monkeypatch, two=True), use(postgresql, impatient) as pg:
        pg.measure(shop, EVERYTHING)
        with transaction(postgresql, shop, "LOCK TABLE pg_catalog.pg_opclass") as holder:
            release = later(0.5, lambda: holder.execute("ROLLBACK"))
            found = lasting(pg.measure(shop, EVERYTHING))
            assert found.indexes == one.indexes
            release.join()
        with transaction(postgresql, shop, "LOCK TABLE pg_catalog.pg_opclass"), pytest.raises(Busy, match="lock"):
            pg.measure(shop, EVERYTHING)
        assert lasting(pg.measure(shop, EVERYTHING)).indexes == one.indexes


CHANGES = """
CREATE TABLE fleeting (id int PRIMARY KEY, v text); INSERT INTO fleeting SELECT i, 'x' FROM generate_series(1, 999) i;
CREATE INDEX fleeting_v ON fleeting (v); ANALYZE fleeting; VACUUM FULL plain; ALTER TABLE empty RENAME TO vacant;
DROP INDEX fleeting_v; TRUNCATE fleeting; REINDEX TABLE wide; DROP TABLE fleeting; ALTER TABLE vacant RENAME TO empty;
REINDEX TABLE CONCURRENTLY parted_1
"""


def test_objects_that_come_and_go_meanwhile(postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the others is there in every measurement, once."""
    over, rounds = threading.Event(), 0

    def change() -> None:
        nonlocal rounds
        with client(postgresql, shop) as cursor:
            while not over.is_set():
                for statement in CHANGES.split(";"):
                    cursor.execute(statement)
                rounds += 1

    others = {"plain", "wide", "parted", "parted_1", "parted_2", "parted_2a", "unlogged", "locked", "summed", "t%"}
    changer = threading.Thread(target=change)
    with sessions(monkeypatch, two=True), use(postgresql) as pg:
        changer.start()
        try:
            for turn in range(16):
                found = pg.measure(shop, (EVERYTHING, BLOAT)[turn % 2])
                names = [x.ref.path[1] for x in found.tables if x.kind != "catalog"]
                assert len(names) == len(set(names)), sorted(names)
                assert others <= set(names)
                indexes = [x.ref for x in found.indexes]
                assert len(indexes) == len(set(indexes))
        finally:
            over.set()
            changer.join()
    assert rounds >= 2, "nothing has changed meanwhile"


def test_connections_are_kept_and_closed(postgresql: Server, shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbfleet' AND datname = '{shop}'"
    with sessions(monkeypatch, two=True), client(postgresql, "postgres") as looker:
        with use(postgresql) as pg:
            for _turn in range(5):
                pg.measure(shop, EVERYTHING)
            looker.execute(ours)
            assert looker.fetchall() == [(2,)]
        until = time.monotonic() + 10
        left = [(2,)]
        while left != [(0,)] and time.monotonic() < until:
            looker.execute(ours)
            left = looker.fetchall()
        assert left == [(0,)]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pooler_with_one_connection_is_not_waited_for(
    fleet: Fleet, pool: Pool, database: Make, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A second session would get it when the first one has ended: never."""
    server = pool.get("postgresql-15")
    name = database(server)
    server.script(SHOP, database=name)
    narrow = pgbouncer.CONFIGURATION.replace("default_pool_size = 20", "default_pool_size = 1")
    assert narrow != pgbouncer.CONFIGURATION
    monkeypatch.setattr(pgbouncer, "CONFIGURATION", f"{narrow}query_wait_timeout = 60\n")
    try:
        between = fleet.pgbouncer(cast(PostgreSQL, server), pool_mode=mode)
    except Missing as why:
        missing(why)
    with sessions(monkeypatch, two=True), suppress_end(between), use(between) as pg:
        began = time.monotonic()
        assert {"plain", "wide"} <= {x.ref.path[1] for x in pg.measure(name, EVERYTHING).tables}
        assert time.monotonic() - began < 30


@contextmanager
def suppress_end(server: Server) -> Iterator[None]:
    """The server is stopped at the end, whatever comes."""
    try:
        yield
    finally:
        with suppress(OSError):
            server.stop()


def test_on_a_standby(fleet: Fleet, pool: Pool, database: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    primary = pool.get("postgresql-16")
    name = database(primary)
    primary.script(SHOP, database=name)
    primary.sql("VACUUM ANALYZE", database=name)
    standby = fleet.postgresql_standby(cast(PostgreSQL, primary))
    with suppress_end(standby):
        standby.catch_up()
        found = []
        for two in (False, True):
            with sessions(monkeypatch, two=two):
                found.append(measured(standby, name, EVERYTHING))
    assert {x.ref.path[1] for x in found[0].tables} >= {"plain", "wide"}
    assert found[0] == found[1]


def test_the_closer_look_at_an_index_that_was_locked_or_dropped(pool: Pool, database: Make) -> None:
    """Its estimate stands, and the others are looked at."""
    server = pool.get("postgresql-15")
    name = database(server)
    server.script(SHOP, database=name)
    server.script("CREATE EXTENSION pgstattuple; ANALYZE", database=name)
    refs = tuple(Ref(name, ("public", i)) for i in ("plain_pkey", "plain_v", "plain_w", "wide_pkey"))
    closer = BLOAT._replace(index_bloat_min_bytes=0, only=refs, exact=refs, scan_budget=10**9)
    with use(server, Execution(lock_timeout=0.3)) as pg, client(server, name) as other:
        methods = _methods(pg, name, closer)
        assert set(methods.values()) == {"pgstatindex"}
        asked = Session.rows
        seen: list[str] = []

        def rows(self: Session, statement: str, values: Any = ()) -> Any:
            if "pgstatindex(" in statement and "%s" in statement:
                seen.append(str(values))
                if len(seen) == 1:
                    other.execute("DROP INDEX plain_v")
                    other.execute("BEGIN; REINDEX INDEX plain_w")
            return asked(self, statement, values)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Session, "rows", rows)
            found = _methods(pg, name, closer)
        other.execute("ROLLBACK")
    assert [found[x] for x in ("wide_pkey", "plain_pkey", "plain_v", "plain_w")] == 2 * ["pgstatindex"] + 2 * [
        "estimate"
    ]
    assert len(seen) == 4


def _methods(pg: Used, name: str, wants: Wants) -> dict[str, str]:
    found = pg.measure(name, wants).indexes
    return {x.ref.path[1]: x.bloat.method for x in found if x.bloat and x.ref in wants.only}
