# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of PostgreSQL tried out: drills, whole servers, roles; a drill leaves neither a server nor a file."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import drill, roles, tarballs
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.dumping import Room
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.restoring import Place, poured
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.session import Session
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import reader
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Work
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Restore, Verify
from tests.fleet import Fleet, Server

from .conftest import Pool
from .pg import role
from .pg_backups import WHOLE, manner, shelf, taken, using

Make = Callable[[Server], str]
SERVER = Ref("")


@pytest.fixture
def somebody(postgresql: Server) -> Iterator[str]:
    name = f"somebody{os.getpid()}"
    postgresql.sql(f"CREATE ROLE {name}")
    yield name
    postgresql.sql(f"DROP ROLE {name}")


@pytest.fixture
def whole(postgresql: Server, somebody: str, database: Make) -> str:
    name = database(postgresql)
    postgresql.script(WHOLE.replace("{role}", somebody), database=name)
    return name


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only place for temporary files; empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o711)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield place
        assert list(place.iterdir()) == []


def proven(folder: Path) -> Backup:
    (backup,) = shelf(folder)
    return backup


@pytest.mark.parametrize("on", ["throwaway", "same_server"])
def test_a_drill_proves_a_dump(postgresql: Server, whole: str, tmp_path: Path, traces: Path, on: str) -> None:
    databases = postgresql.sql("SELECT datname FROM pg_database ORDER BY 1")
    with using(postgresql) as pg:
        streams = ((Ref(whole, ("public", "t")),), (Ref(whole, ("public", "h_1")),)) if on == "same_server" else ()
        backup = taken(pg, whole, tmp_path, streams=streams)
        pg.carry_out(Verify(Ref(whole), None, manner(tmp_path, identity=backup.server), "restore", on=on))
    backup = proven(tmp_path)
    assert backup.level == "restore"
    assert backup.verified_at is not None
    assert backup.rows is not None
    assert backup.rows["public.t"] == 500
    assert postgresql.sql("SELECT datname FROM pg_database ORDER BY 1") == databases


@pytest.mark.parametrize("on", ["throwaway", "same_server"])
def test_a_drill_sees_that_rows_are_missing(
    postgresql: Server, database: Make, tmp_path: Path, traces: Path, on: str
) -> None:
    shop = database(postgresql)
    postgresql.script("CREATE TABLE t AS SELECT generate_series(1, 100) AS id", database=shop)
    databases = postgresql.sql("SELECT datname FROM pg_database ORDER BY 1")
    with using(postgresql) as pg:
        backup = taken(pg, shop, tmp_path)._replace(rows={"public.t": 101})
        with pytest.raises(Refused, match=r"public\.t: 100 instead of 101"):
            pg.carry_out(Restore(Ref(shop), backup, drill=True, on=on))
    assert proven(tmp_path).level == ""
    assert postgresql.sql("SELECT datname FROM pg_database ORDER BY 1") == databases


@pytest.mark.parametrize("known", [True, False])
def test_a_drill_sees_that_a_row_is_another_one(
    pool: Pool, database: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """As many rows as there were, in another order: that is well. One of them changed: that is not."""
    server = pool.get("postgresql-16")
    shop = database(server)
    server.script("CREATE TABLE t AS SELECT i AS id, repeat('x', i) AS s FROM generate_series(1, 99) i", database=shop)
    said = ["CREATE TEMP TABLE o AS TABLE t; TRUNCATE t; INSERT INTO t TABLE o ORDER BY id DESC"]

    def spoiling(session: Session, backup: Backup, decrypt: None, room: Room, place: Place) -> Work:
        yield from poured(session, backup, decrypt, room, place)
        server.script(said[0], database=place.name)

    with using(server) as pg:
        backup = taken(pg, shop, tmp_path)
        monkeypatch.setattr(drill, "poured", spoiling)
        if known:
            pg.carry_out(Restore(Ref(shop), backup, drill=True, on="same_server"))
            backup = proven(tmp_path)
            assert backup.level == "restore"
            assert backup.sums is not None
            assert list(backup.sums) == ["public.t"]
        said[0] = "UPDATE t SET s = overlay(s PLACING 'y' FROM 7) WHERE id = 50"
        with pytest.raises(Refused, match=r"not what backup .* held: public\.t: [0-9a-f]+ instead of [0-9a-f]+$"):
            pg.carry_out(Restore(Ref(shop), backup, drill=True, on="same_server"))
    assert proven(tmp_path).level == ("restore" if known else "")


VALUES = (
    "SELECT setval('counter', 5); SELECT lo_put(4711, 3, 'x')",
    "large objects: .*; sequence public.counter: 5 inst",
)
OBJECTS = ("SELECT lo_unlink(4712)", r"large objects: 1:\S+ instead of 2:")
DEFINITIONS = (
    """
    COMMENT ON TABLE t IS 'its comment'; CREATE OR REPLACE VIEW v AS SELECT id, name FROM t WHERE id < 11;
    GRANT INSERT ON t TO public; DROP INDEX t_lower_idx; CREATE TABLE more (); REFRESH MATERIALIZED VIEW m WITH NO DATA;
    CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 2'
    """,
    "COMMENT public TABLE t is another; FUNCTION public f.integer. is another; MATERIALIZED VIEW DATA public m is not",
)


@pytest.mark.parametrize("case", [VALUES, OBJECTS, DEFINITIONS], ids=["values", "objects", "definitions"])
def test_a_drill_sees_what_is_no_row(
    postgresql: Server, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, str]
) -> None:
    def spoiling(session: Session, backup: Backup, decrypt: None, room: Room, place: Place) -> Work:
        yield from poured(session, backup, decrypt, room, place)
        postgresql.script(case[0], database=place.name)

    with using(postgresql) as pg:
        backup = taken(pg, whole, tmp_path)
        monkeypatch.setattr(drill, "poured", spoiling)
        with pytest.raises(Refused, match=case[1]):
            pg.carry_out(Restore(Ref(whole), backup, drill=True, on="same_server"))
    assert proven(tmp_path).level == ""


OBSTACLES = """
CREATE TABLE t AS SELECT 1 AS id;
CREATE MATERIALIZED VIEW m AS TABLE t;
CREATE FUNCTION loud() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not here'; END $$;
CREATE SUBSCRIPTION s{database} CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = 's');
CREATE EVENT TRIGGER loud ON ddl_command_end EXECUTE FUNCTION loud();
"""


def test_triggers_of_events_sleep_and_subscriptions_are_no_obstacle(
    postgresql: Server, database: Make, tmp_path: Path
) -> None:
    """Materialized views are refreshed when the triggers are there; nobody drops a database that subscribes."""
    shop = database(postgresql)
    postgresql.script(OBSTACLES.replace("{database}", shop), database=shop)
    databases = "SELECT datname FROM pg_database ORDER BY 1"
    before = postgresql.sql(databases)
    try:
        with using(postgresql) as pg:
            backup = taken(pg, shop, tmp_path)
            pg.carry_out(Restore(Ref(shop), backup, drill=True, on="same_server"))
            assert proven(tmp_path).level == "restore"
            pg.carry_out(Restore(Ref(shop), backup, replace=True))
        assert postgresql.sql(databases) == before
        assert postgresql.sql("SELECT id FROM m", database=shop) == [["1"]]
        assert postgresql.sql("SELECT evtname, evtenabled FROM pg_event_trigger", database=shop) == [["loud", "O"]]
        found = "SELECT subenabled, subslotname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid"
        assert postgresql.sql(f"{found} WHERE datname = '{shop}'") == [["f", "s"]]
    finally:
        postgresql.script(
            f"SET session_replication_role = replica; ALTER SUBSCRIPTION s{shop} SET (slot_name = NONE);"
            f"DROP SUBSCRIPTION s{shop}",
            database=shop,
        )


@pytest.mark.parametrize("own", [True, False])
def test_indexes_are_checked_wherever_the_extension_is(pool: Pool, database: Make, tmp_path: Path, own: bool) -> None:
    server = pool.get("postgresql-15")
    shop = database(server)
    server.script("CREATE TABLE t AS SELECT 1 AS id; ALTER TABLE t ADD PRIMARY KEY (id)", database=shop)
    if own:
        server.script('CREATE SCHEMA "o;wn"; CREATE EXTENSION amcheck SCHEMA "o;wn"', database=shop)
    with using(server) as pg:
        backup = taken(pg, shop, tmp_path)
        server.mark_log()
        pg.carry_out(Restore(Ref(shop), backup, drill=True, on="same_server"))
    checked = [said.statement for said in server.logged() if "bt_index_check" in said.statement]
    assert len(checked) == 1
    assert checked[0].startswith('SELECT "o;wn".' if own else 'SELECT "pg_catalog".')
    assert proven(tmp_path).level == "restore"


def test_a_whole_server(postgresql: Server, whole: str, tmp_path: Path, traces: Path) -> None:
    with using(postgresql) as pg:
        backup = taken(pg, "", tmp_path, method="physical")
        assert (backup.method, backup.format, backup.level) == ("physical", "tar", "")
        task = Verify(SERVER, None, manner(tmp_path, identity=backup.server), "decode")
        pg.carry_out(task)
        assert proven(tmp_path).level == "decode"
        pg.carry_out(task._replace(level="restore"))
        assert proven(tmp_path).level == "restore"
        with pytest.raises(Refused, match="not one of a single database"):
            pg.carry_out(Restore(Ref("other"), backup))


def test_a_copy_of_a_server_keeps_to_itself(fleet: Fleet, tmp_path: Path) -> None:
    """Whatever ALTER SYSTEM says: it neither archives, nor subscribes, nor needs the memory of the original."""
    server = fleet.postgresql(16, settings={"wal_level": "logical"})
    spoilt = tmp_path / "archived"
    try:
        server.sql("CREATE DATABASE shop")
        server.sql(
            f"CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={server.port} dbname=shop' PUBLICATION p"
            " WITH (connect = false, slot_name = 's', enabled = false)",
            database="shop",
        )
        server.sql("ALTER SUBSCRIPTION s ENABLE", database="shop")
        for words in (
            f"archive_command = 'touch {spoilt}'",
            "archive_mode = 'on'",
            "shared_buffers = '500GB'",
            "shared_preload_libraries = 'nothing_of_that_name'",
            "listen_addresses = '*'",
        ):
            server.sql(f"ALTER SYSTEM SET {words}")
        with using(server) as pg:
            backup = taken(pg, "", tmp_path / "b", method="physical")
            pg.carry_out(Verify(SERVER, backup, manner(tmp_path / "b"), "restore"))
        assert proven(tmp_path / "b").level == "restore"
        assert not spoilt.exists()
    finally:
        server.stop()


def test_a_whole_servers_archive_with_another_file_is_refused(postgresql: Server, tmp_path: Path, traces: Path) -> None:
    with using(postgresql) as pg:
        backup = taken(pg, "", tmp_path, method="physical")
    with reader.opened(backup, backup.files[0]) as source:
        archive = io.BytesIO(source.read(-1))
    for victim, why in (("PG_VERSION", "PG_VERSION is another file"), ("pg_xact/0000", "pg_xact/0000 is missing")):
        changed = io.BytesIO()
        archive.seek(0)
        with tarfile.open(fileobj=archive) as old, tarfile.open(fileobj=changed, mode="w") as new:
            for member in old:
                data = old.extractfile(member)
                if member.name == victim and why.endswith("missing"):
                    continue
                read = data.read() if data else b""
                new.addfile(member, io.BytesIO(read.replace(b"1", b"2") if member.name == victim else read))
        changed.seek(0)
        with pytest.raises(Refused, match=why):
            list(tarballs.check(changed))
    archive.seek(0)
    assert sum(tarballs.check(archive)) > 1_000_000
    cut = io.BytesIO(archive.getvalue()[:-1_000_000])
    with pytest.raises(Refused):
        list(tarballs.check(cut))


def test_roles_come_back_and_none_is_changed(fleet: Fleet, postgresql: Server, tmp_path: Path) -> None:
    other = fleet.postgresql(int(postgresql.installation.major))
    for words in (
        'CREATE ROLE "own;er" NOLOGIN',
        "CREATE ROLE clerk LOGIN PASSWORD 'abc' CONNECTION LIMIT 3",
        'GRANT "own;er" TO clerk',
        "ALTER ROLE clerk SET work_mem = '6MB'",
        "COMMENT ON ROLE clerk IS 'a clerk;\nof ours'",
        "CREATE ROLE keeper CONNECTION LIMIT 1",
    ):
        other.sql(words)
    with using(other) as pg:
        backup = taken(pg, "", tmp_path, method="globals")
        assert backup.about["passwords"] == "yes"
        pg.carry_out(Verify(SERVER, None, manner(tmp_path, identity=backup.server), "decode"))
        backup = proven(tmp_path)
        assert backup.level == "decode"
    postgresql.sql("CREATE ROLE keeper CONNECTION LIMIT 2")
    try:
        with using(postgresql) as pg, pg.engine.session("") as session:
            for _tick in roles.restore(session, backup, None):
                pass
        found = postgresql.sql(
            "SELECT rolname, rolconnlimit, (SELECT rolconfig FROM pg_roles r WHERE r.oid = a.oid),"
            " shobj_description(oid, 'pg_authid'), rolpassword IS NULL,"
            " pg_has_role(oid, (SELECT oid FROM pg_roles WHERE rolname = 'own;er'), 'USAGE')"
            " FROM pg_authid a WHERE rolname IN ('own;er', 'clerk', 'keeper') ORDER BY 1"
        )
        assert found == [
            ["clerk", "3", "{work_mem=6MB}", "a clerk;\nof ours", "f", "t"],
            ["keeper", "2", "", "", "t", "f"],
            ["own;er", "-1", "", "", "t", "t"],
        ]
    finally:
        postgresql.sql('DROP ROLE IF EXISTS clerk, keeper, "own;er"')
        other.stop()


def test_without_the_right_to_read_passwords_the_rest_is_kept(postgresql: Server, tmp_path: Path) -> None:
    with role(postgresql, f"few{os.getpid()}") as login, using(postgresql, **login) as pg:
        backup = taken(pg, "", tmp_path, method="globals")
        assert backup.about["passwords"] == "no"
        with reader.opened(backup, backup.files[0]) as source:
            text = source.read(-1).decode()
    assert f"CREATE ROLE few{os.getpid()}" in text
    assert "SCRAM" not in text
