# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Advice that would hurt whoever follows it literally: none of it is given, on real servers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg2
import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.waits import blotted
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.sessions import beginning
from tests.fleet import Fleet, Missing, Server

from . import pg
from .conftest import Pool, missing
from .module_runner import run, until
from .test_recommendations_postgresql import make, recommended, stats

Make = Callable[[Server], str]


def told(server: Server, name: str, code: str, **options: Any) -> dict[str, dict[str, Any]]:
    return {obj: r for (its, obj), r in recommended(stats(server, name, **options)).items() if its == code}


# ---- indexes ---------------------------------------------------------------------------------------------------------

SUBPARTED = """
CREATE TABLE part (id int, at date, kind int, note int) PARTITION BY RANGE (at);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (kind);
CREATE TABLE part_1a PARTITION OF part_1 FOR VALUES IN (1);
CREATE TABLE part_1b PARTITION OF part_1 FOR VALUES IN (2);
CREATE INDEX part_note ON part (note);
INSERT INTO part SELECT g, date '2026-02-01', 1 + g % 2, g FROM generate_series(1, 4000) g;
ANALYZE;
"""


def test_uses_of_the_partitions_of_partitions_count(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    make(postgresql, name, SUBPARTED)
    assert set(told(postgresql, name, "unused_index")) == {"public.part_note"}
    with pg.client(postgresql, name) as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("SELECT count(*) FROM part_1a WHERE note = 17")
    until(lambda: not told(postgresql, name, "unused_index"), what="the use of a leaf")


def test_a_young_index_has_not_been_counted_for_long(postgresql: Server, database: Make) -> None:
    """The server does not say when an index was made: an analyze that was before it does."""
    name = database(postgresql)
    with pg.client(postgresql, name) as cursor:
        cursor.execute("CREATE TABLE t AS SELECT g AS id, g AS a, g AS b FROM generate_series(1, 1000) g")
        cursor.execute("ALTER TABLE t ADD PRIMARY KEY (id)")
        cursor.execute("CREATE INDEX old ON t (a)")
        cursor.execute("SELECT pg_stat_reset(), pg_sleep(6)")
        cursor.execute("ANALYZE t")
        cursor.execute("CREATE INDEX young ON t (b)")
    found = stats(postgresql, name, unused_index_age="4s")
    assert {obj for code, obj in recommended(found) if code == "unused_index"} == {"public.old"}
    assert "1 of 2 indexes" in found.fact("db_stats")["unknown"][f"unused_indexes in {name}"]
    assert set(told(postgresql, name, "unused_index")) == {"public.old", "public.young"}


def test_a_login_that_cannot_date_an_index_says_so(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    make(postgresql, name, "CREATE TABLE t (id int PRIMARY KEY, a int);\nCREATE INDEX i ON t (a)")
    who = f"small_{name}"
    postgresql.sql(f"CREATE ROLE {who} LOGIN PASSWORD 'small' IN ROLE pg_monitor")
    try:
        found = told(postgresql, name, "unused_index", login_user=who, login_password="small")
        assert "when it was made is not known" in found["public.i"]["message"]
    finally:
        postgresql.sql(f"DROP ROLE {who}")


TIED = """
CREATE TABLE parent (id int NOT NULL, code int NOT NULL);
CREATE UNIQUE INDEX parent_first ON parent (id);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent (id));
ALTER TABLE parent ADD PRIMARY KEY (id);
CREATE TABLE granular (id int PRIMARY KEY, a int);
CREATE INDEX coarse ON granular USING brin (a) WITH (pages_per_range = 128);
CREATE INDEX fine ON granular USING brin (a) WITH (pages_per_range = 4);
CREATE TABLE ways (id int PRIMARY KEY, a text, b int, c int);
CREATE INDEX ways_up ON ways (a, b);
CREATE INDEX ways_down ON ways (a DESC, b);
CREATE INDEX ways_c ON ways (a COLLATE "C", b);
CREATE INDEX ways_like ON ways (a text_pattern_ops, b);
CREATE INDEX ways_some ON ways (a, b) WHERE c > 0;
CREATE INDEX ways_more ON ways (a, b) INCLUDE (c);
CREATE INDEX ways_hash ON ways USING hash (a);
"""


def test_what_differs_or_is_referred_to_is_no_duplicate(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    make(postgresql, name, TIED)
    assert told(postgresql, name, "duplicate_index") == {}
    assert told(postgresql, name, "redundant_index") == {}
    with pg.client(postgresql, name) as cursor, pytest.raises(psycopg2.errors.DependentObjectsStillExist):
        cursor.execute("DROP INDEX parent_first")  # what would have been recommended


def test_an_index_that_is_being_built_is_left_alone(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    make(postgresql, name, "CREATE TABLE t (id int PRIMARY KEY, a int);\nCREATE INDEX i ON t (a)")
    with pg.client(postgresql, name) as builder:
        builder.execute("SELECT pg_backend_pid()")
        (pid,) = builder.fetchone()
        with pg.transaction(postgresql, name, "INSERT INTO t VALUES (1, 1)"):
            thread = threading.Thread(target=builder.execute, args=("CREATE INDEX CONCURRENTLY slow ON t (id, a)",))
            thread.start()
            query = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
            until(lambda: postgresql.sql(query, database=name)[0][0] == "1", what="the build")
            found = recommended(stats(postgresql, name, long_query="0s", lock_wait="0s"))
        thread.join()
    assert "invalid_index" not in {code for code, _obj in found}
    ends = [r for r in found.values() if str(pid) in str(r["fix"])]
    assert ends == []  # nobody is told to end the builder


def test_what_belongs_to_an_extension_or_a_session_is_left_alone(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    make(postgresql, name, "CREATE TABLE t (id int PRIMARY KEY, a int);\nCREATE INDEX t_a ON t (a)")
    with pg.client(postgresql, name) as cursor:
        cursor.execute("ALTER EXTENSION plpgsql ADD TABLE t")
        cursor.execute("CREATE TEMPORARY TABLE mine (id int, a int)")
        cursor.execute("CREATE INDEX ON mine (a)")
        cursor.execute("CREATE INDEX ON mine (a)")
        assert recommended(stats(postgresql, name)) == {}
        cursor.execute("ALTER EXTENSION plpgsql DROP TABLE t")


# ---- counters --------------------------------------------------------------------------------------------------------

WIDTHS = """
CREATE TABLE viewed (id serial PRIMARY KEY, v int);
CREATE VIEW looks AS SELECT id FROM viewed;
CREATE TABLE doubled (id serial PRIMARY KEY, twice bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE watched (id serial PRIMARY KEY, v int);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER w AFTER UPDATE OF id ON watched FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TABLE parted (id serial PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (2147483647);
CREATE DOMAIN small AS int CHECK (VALUE > 0);
CREATE SEQUENCE of_domain;
CREATE TABLE domained (id small PRIMARY KEY DEFAULT nextval('of_domain'));
CREATE SEQUENCE shared;
CREATE TABLE wide (id bigint PRIMARY KEY DEFAULT nextval('shared'));
CREATE TABLE narrow (id int PRIMARY KEY DEFAULT nextval('shared'));
CREATE TABLE elder (id serial PRIMARY KEY, v int);
CREATE TABLE younger () INHERITS (elder);
CREATE SEQUENCE on_purpose MAXVALUE 2147483647;
CREATE SEQUENCE round MAXVALUE 100 CYCLE;
SELECT setval(s, 2100000000) FROM unnest(ARRAY['viewed_id_seq', 'doubled_id_seq', 'watched_id_seq', 'parted_id_seq',
    'of_domain', 'shared', 'elder_id_seq', 'on_purpose']) s;
SELECT setval('round', 99);
"""


def test_a_column_grows_only_where_nothing_hinders_it(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    make(postgresql, name, WIDTHS)
    found = told(postgresql, name, "counter_near_end")
    hindered = {
        "public.viewed_id_seq": "looks",
        "public.doubled_id_seq": "twice",
        "public.watched_id_seq": "trigger w",
        "public.parted_id_seq": "partitioned by it",
        "public.of_domain": "domain",
        "public.on_purpose": "somebody chose",
    }
    assert set(found) == {*hindered, "public.shared", "public.elder_id_seq"}
    for obj, why in hindered.items():
        assert why in found[obj]["message"], found[obj]
        assert "ALTER" not in found[obj]["fix"]
    for obj in ("public.shared", "public.elder_id_seq"):
        assert "written anew" in found[obj]["message"]
        with pg.client(postgresql, name) as cursor:
            for statement in found[obj]["fix"].split(";\n"):
                cursor.execute(statement)
    with pg.client(postgresql, name) as cursor:
        cursor.execute("SELECT setval('shared', 3000000000), setval('elder_id_seq', 3000000000)")
        for table in ("wide", "narrow", "elder", "younger"):
            cursor.execute(f"INSERT INTO {table} DEFAULT VALUES RETURNING id")
            assert cursor.fetchone()[0] > 3000000000


# ---- sessions and slots ----------------------------------------------------------------------------------------------


def test_backups_are_not_ended(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    with pg.client(postgresql, name, application_name="pg_dump") as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT pg_backend_pid()")
        (long,) = told(postgresql, name, "long_transaction", long_transaction="0s").values()
        assert "backup" in long["fix"]
        assert "terminate" not in long["fix"]


def test_a_standby_that_is_away_for_a_moment_keeps_its_slot(fleet: Fleet) -> None:
    try:
        server = fleet.postgresql(18)
    except Missing as why:
        missing(why)
    server.sql("SELECT pg_create_physical_replication_slot('standby', true)")
    server.sql("CREATE TABLE filler AS SELECT g AS id, repeat('x', 500) FROM generate_series(1, 6000) g")
    (away,) = told(server, "postgres", "slot_stalled", slot_retained="1MB").values()
    assert "drop_replication_slot" not in away["fix"]
    (gone,) = told(server, "postgres", "slot_stalled", slot_retained="1MB", slot_inactive="0s").values()
    assert "drop_replication_slot" in gone["fix"]
    server.stop()


# ---- secrets and sizes -----------------------------------------------------------------------------------------------

SECRETS = [
    "SELECT dblink_connect('c', 'host=a password=hidden')",
    "SELECT * FROM dblink('postgresql://app:hidden@db/shop', 'SELECT 1')",
    "COPY t FROM PROGRAM 'curl -u app:hidden https://x'",
    "SELECT pgp_sym_encrypt(note, 'hidden') FROM t",
    "SELECT crypt('hidden', gen_salt('bf'))",
    "INSERT INTO users (login, password) VALUES ('hidden', 'hidden')",
    "SELECT 1 /* don't */, 'hidden' AS password",
    "CREATE SUBSCRIPTION s CONNECTION 'host=a passfile=x user=hidden'",
    "SELECT http_get('https://x', 'Bearer hidden')",
    "SET app.token = hidden",
]


@pytest.mark.parametrize("statement", SECRETS)
def test_no_secret_of_a_statement_is_shown(statement: str) -> None:
    assert "hidden" not in beginning(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM users WHERE pw = SHA1('hidden')",
        "CREATE TABLE f (id int) ENGINE=FEDERATED CONNECTION='mysql://u:hidden@h/d/t'",
        "INSERT INTO users (login, password) VALUES ('hidden', 'hidden')",
        "SET @x = MD5('hidden')",
    ],
)
def test_no_secret_of_a_statement_is_shown_by_mysql(statement: str) -> None:
    assert "hidden" not in blotted(statement)


def test_secrets_and_huge_statements_in_no_result(postgresql: Server, database: Make, tmp_path: Any) -> None:
    name = database(postgresql)
    statements = [
        "SELECT pg_sleep(30), 'hidden-1' AS password",
        "SELECT pg_sleep(30), length('dblink(''postgresql://a:hidden-2@b'')')",
        f"SELECT pg_sleep(30), length('{'x' * 1_000_000}')",
    ]
    journal = tmp_path / "journal.sqlite"
    with ExitStack() as stack:
        cursors = [stack.enter_context(pg.client(postgresql, name)) for _statement in statements]
        threads = []
        for cursor, statement in zip(cursors, statements, strict=True):
            cursor.execute("SELECT pg_backend_pid()")
            threads.append((cursor.fetchone()[0], threading.Thread(target=_run, args=(cursor, statement))))
            threads[-1][1].start()
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND query ~ 'pg_sleep.30'"
        until(lambda: int(postgresql.sql(query)[0][0]) == len(statements), what="the statements")
        ran = stats(postgresql, name, long_query="0s", journal=str(journal))
        assert len(ran.fact("db_stats")["long_queries"]) == len(statements)
        assert "hidden-" not in ran.text
        assert b"hidden-" not in journal.read_bytes()
        assert len(ran.text) < 50_000
        for pid, thread in threads:
            postgresql.sql(f"SELECT pg_terminate_backend({pid})")
            thread.join()


def _run(cursor: Any, statement: str) -> None:
    with pytest.raises(psycopg2.Error):
        cursor.execute(statement)


# ---- MySQL and MariaDB -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["mariadb", "mysql"])
def each(request: pytest.FixtureRequest, pool: Pool) -> Server:
    return pool.get(str(request.param))


def asked(server: Server, name: str, **options: Any) -> dict[tuple[str, str], dict[str, Any]]:
    ran = run("db_stats_facts", {**server.login(), "databases": [name], "journal": "none", **options})
    return {(r["code"], r["object"]): r for r in ran.fact("db_stats")["recommendations"] if r["database"]}


def test_other_storage_engines_are_chosen_on_purpose(each: Server, database: Make) -> None:
    name = database(each)
    each.sql(f"CREATE TABLE {name}.quick (id int PRIMARY KEY) ENGINE = MEMORY")
    each.sql(f"CREATE TABLE {name}.habit (id int PRIMARY KEY) ENGINE = MyISAM")
    assert {obj for code, obj in asked(each, name) if code == "foreign_engine"} == {"habit"}


def test_the_index_of_a_column_that_counts_stays(each: Server, database: Make) -> None:
    """Of two the server lets one go, not both."""
    name = database(each)
    each.sql(
        f"CREATE TABLE {name}.t (a int PRIMARY KEY, n int NOT NULL AUTO_INCREMENT, b int, KEY one (n), KEY two (n))"
    )
    found = asked(each, name, unused_index_age="0s")
    assert [code for code, _obj in found] == ["duplicate_index"]
    for r in found.values():
        each.sql(r["fix"], database=name)
    assert asked(each, name, unused_index_age="0s") == {}


def test_a_sequence_that_counts_downwards(pool: Pool, database: Make) -> None:
    server = pool.get("mariadb")
    name = database(server)
    server.sql(f"CREATE SEQUENCE {name}.down START WITH 100 MAXVALUE 100 MINVALUE 1 INCREMENT BY -1 NOCACHE")
    server.sql(f"SELECT SETVAL({name}.down, 5)")
    ((_key, found),) = asked(server, name).items()
    assert found["code"] == "counter_near_end"
    assert "MAXVALUE" not in str(found["fix"])
