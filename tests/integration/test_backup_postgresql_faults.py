# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of PostgreSQL where something goes wrong: the backup before survives, and half of one is never called one."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import (
    Decryption,
    Encryption,
    Sheltered,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import dumping
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    Busy,
    DbFault,
    Gone,
    MissingMeans,
    Refused,
    Stopped,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Restore, Verify
from tests.fleet import Fleet, Server

from .conftest import Pool, missing
from .module_runner import run
from .pg import Used, later, role, transaction
from .pg_backups import content, manner, shelf, taken, using

Make = Callable[[Server], str]
FEW = "CREATE TABLE t AS SELECT i AS id, md5(i::text) AS word FROM generate_series(1, 2000) i"
MANY = "CREATE TABLE big AS SELECT i AS id, repeat(md5(i::text), 8) AS word FROM generate_series(1, 300000) i"


@pytest.fixture
def server(pool: Pool) -> Server:
    return pool.get("postgresql-16")


@pytest.fixture
def shop(server: Server, database: Make) -> str:
    name = database(server)
    server.sql(FEW, database=name)
    return name


def task(pg: Used, name: str, folder: Path) -> Dump:
    return Dump(Ref(name), "dump", manner(folder, identity=pg.server.settings["identity"]))


def apart(name: str, *tables: str) -> tuple[tuple[Ref, ...], ...]:
    """A stream of its own for each of them."""
    return tuple((Ref(name, ("public", table)),) for table in tables)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def children(name: str) -> list[int]:
    """Programs of this name that this process has started."""
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-x", name], capture_output=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def killed(name: str, sign: int) -> None:
    """Ends a program of ours as soon as it is there."""
    for _try in range(200):
        for pid in children(name):
            time.sleep(0.2)
            os.kill(pid, sign)
            return
        time.sleep(0.02)


def test_the_backup_before_survives_a_killed_client(server: Server, shop: str, tmp_path: Path) -> None:
    with using(server) as pg:
        first = taken(pg, shop, tmp_path)
        before = files(tmp_path)
        server.sql(MANY, database=shop)
        for sign in (signal.SIGKILL, signal.SIGTERM):
            timer = later(0, functools.partial(killed, "pg_dump", sign))
            slow = task(pg, shop, tmp_path)
            with pytest.raises(Gone):
                pg.carry_out(slow._replace(manner=slow.manner._replace(rate_limit=10 << 20)))
            timer.join()
            assert files(tmp_path) == before
        assert shelf(tmp_path) == [first]


def test_a_killed_session_fails_the_backup(server: Server, shop: str, tmp_path: Path) -> None:
    """Of several streams, one has ended by then."""
    server.sql(MANY, database=shop)
    ends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND datname = '{shop}'"
    with using(server) as pg:
        slow = task(pg, shop, tmp_path)._replace(streams=apart(shop, "big"))
        timer = later(1.5, lambda: server.sql(ends))
        with pytest.raises(Gone):
            pg.carry_out(slow._replace(manner=slow.manner._replace(rate_limit=10 << 20)))
        timer.join()
    assert files(tmp_path) == []


def test_stopping_leaves_nothing(server: Server, shop: str, tmp_path: Path) -> None:
    server.sql(MANY, database=shop)
    with using(server) as pg, pg.engine.session(shop) as session:
        slow = task(pg, shop, tmp_path)
        slow = slow._replace(manner=slow.manner._replace(rate_limit=10 << 20), streams=apart(shop, "t", "big"))
        timer = later(1.0, session.cancel)
        began = time.monotonic()
        with pytest.raises(Stopped):
            for _tick in pg.engine.carry_out(session, slow, pg.server, None):
                pass
        assert time.monotonic() - began < 8
        timer.join()
    assert files(tmp_path) == []
    assert children("pg_dump") == []


def test_closing_the_work_leaves_nothing(server: Server, shop: str, tmp_path: Path) -> None:
    server.sql(MANY, database=shop)
    with using(server) as pg, pg.engine.session(shop) as session:
        slow = task(pg, shop, tmp_path)
        slow = slow._replace(manner=slow.manner._replace(rate_limit=10 << 20))
        work = pg.engine.carry_out(session, slow, pg.server, None)
        next(work)
        next(work)
        work.close()
        assert children("pg_dump") == []
    assert files(tmp_path) == []
    idle = f"SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = '{shop}'"
    assert server.sql(idle) == [["0"]]


def test_a_locked_table_is_waited_for_so_long_and_no_longer(server: Server, shop: str, tmp_path: Path) -> None:
    with (
        using(server, Execution(concurrent_wait=1.0)) as pg,
        transaction(server, shop, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE"),
    ):
        for streams in ((), apart(shop, "t")):
            with pytest.raises(Busy, match="lock"):
                pg.carry_out(task(pg, shop, tmp_path)._replace(streams=streams))
    assert files(tmp_path) == []


def test_a_table_that_may_not_be_read_is_no_backup(server: Server, shop: str, tmp_path: Path) -> None:
    with (
        role(server, f"few{os.getpid()}") as login,
        using(server, **login) as pg,
        pytest.raises(Refused, match="permission denied") as refused,
    ):
        pg.carry_out(task(pg, shop, tmp_path))
    assert "pg_read_all_data" in refused.value.cure
    assert files(tmp_path) == []


def test_rows_that_a_policy_hides_are_no_backup(server: Server, shop: str, tmp_path: Path) -> None:
    server.script("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON t USING (id < 5)", database=shop)
    with (
        role(server, f"few{os.getpid()}", "GRANT SELECT ON t TO PUBLIC", database=shop) as login,
        using(server, **login) as pg,
        pytest.raises(Refused, match="row-level security"),
    ):
        pg.carry_out(task(pg, shop, tmp_path))
    assert files(tmp_path) == []


def test_a_program_that_is_older_or_missing_is_refused(server: Server, shop: str, pool: Pool, tmp_path: Path) -> None:
    older = str(pool.get("postgresql-15").installation.bin_dir)
    with using(server, bin_dir=older) as pg:
        with pytest.raises(Refused, match="older than the server"):
            pg.carry_out(task(pg, shop, tmp_path))
        assert [f.code for f in pg.measure(shop, Wants(backups=Sheltered(str(tmp_path)))).findings] == [
            "no_backup_program"
        ] * 3
    with using(server, bin_dir=str(tmp_path)) as pg, pytest.raises(MissingMeans, match="pg_dump is not there"):
        pg.carry_out(task(pg, shop, tmp_path))


def test_verify_full_without_an_authority_never_dumps(fleet: Fleet, tmp_path: Path) -> None:
    """The client program checks what the connection checks: asked by itself, past the engine's own connection."""
    server = fleet.postgresql(15, tls=True)
    try:
        server.sql("CREATE DATABASE shop")
        with using(server, ssl_mode="require") as pg:
            assert taken(pg, "shop", tmp_path / "a").method == "dump"
            keywords = {**pg.engine._connector.login.keywords, "sslmode": "verify-full"}
            with pg.engine.session("shop") as session:
                pg.engine._connector.login = pg.engine._connector.login._replace(keywords=keywords)
                with pytest.raises(DbFault, match="root certificate"):
                    for _tick in pg.engine.carry_out(session, task(pg, "shop", tmp_path / "b"), pg.server, None):
                        pass
        assert files(tmp_path / "b") == []
    finally:
        server.stop()


def test_rows_of_excluded_tables_stay_behind(server: Server, shop: str, tmp_path: Path) -> None:
    server.script(
        'CREATE SCHEMA "Log.s"; CREATE TABLE "Log.s"."A*b" AS SELECT 1; CREATE TABLE log_1 AS SELECT 1;'
        "CREATE TABLE log_2 AS SELECT 1; CREATE TABLE blog AS SELECT 1;",
        database=shop,
    )
    with using(server) as pg:
        backup = taken(pg, shop, tmp_path, exclude=("log_?", "public.bl*"))
        pg.carry_out(Verify(Ref(shop), backup, manner(tmp_path), "decode"))
    assert shelf(tmp_path)[0].rows == {'"Log.s"."A*b"': 1, "public.t": 2000}


@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_damage_is_seen(server: Server, shop: str, tmp_path: Path, kind: str) -> None:
    with using(server) as pg:
        backup = taken(pg, shop, tmp_path)
        path = Path(backup.folder) / backup.files[0].name
        whole = path.read_bytes()
        step = max(1, len(whole) // 20)
        for at in range(0, len(whole), step):
            flipped = whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
            path.write_bytes(flipped if kind == "flip" else whole[:at])
            with pytest.raises(Refused):
                pg.carry_out(Verify(Ref(shop), backup, manner(tmp_path), "decode"))
            with pytest.raises(Refused):
                pg.carry_out(Restore(Ref("other"), backup))
        path.write_bytes(whole)
        assert shelf(tmp_path)[0].level == ""
        assert server.sql("SELECT datname FROM pg_database WHERE datname ~ '^(other|dbfleet)'") == []


def test_a_restore_never_takes_the_place_of_a_database_by_itself(server: Server, shop: str, tmp_path: Path) -> None:
    before = content(server, shop)
    with using(server) as pg:
        backup = taken(pg, shop, tmp_path)
        server.script("DELETE FROM t; CREATE TABLE more ()", database=shop)
        with pytest.raises(Refused, match="is there"):
            pg.carry_out(Restore(Ref(shop), backup))
        with transaction(server, shop), pytest.raises(Refused, match="1 sessions use"):
            pg.carry_out(Restore(Ref(shop), backup, replace=True))
        assert server.sql("SELECT count(*) FROM t", database=shop) == [["0"]]
    with using(server) as pg:
        pg.carry_out(Restore(Ref(shop), backup, replace=True))
    assert content(server, shop) == before
    assert server.sql("SELECT datname FROM pg_database WHERE datname ~ '^dbfleet'") == []


def test_a_restore_that_is_stopped_leaves_nothing(server: Server, shop: str, tmp_path: Path) -> None:
    server.sql(MANY, database=shop)
    with using(server) as pg:
        backup = taken(pg, shop, tmp_path)
        restore = Restore(Ref("other"), backup)
        with pg.engine.session("") as session:
            work = pg.engine.carry_out(session, restore, pg.server, None)
            next(work)
            session.stopped.set()
            with pytest.raises(Stopped):
                for _tick in work:
                    pass
    assert server.sql("SELECT datname FROM pg_database WHERE datname ~ '^(other|dbfleet)'") == []
    assert children("pg_restore") == []


def test_what_cannot_be_restored_is_refused(server: Server, shop: str, pool: Pool, tmp_path: Path) -> None:
    older = pool.get("postgresql-15")
    with using(server) as pg:
        backup = taken(pg, shop, tmp_path)
    with using(older) as pg:
        with pytest.raises(Refused, match="newer than this server"):
            pg.carry_out(Restore(Ref("other"), backup))
        with pytest.raises(Refused, match="one of mysql"):
            pg.carry_out(Restore(Ref("other"), backup._replace(engine="mysql")))


def test_an_older_backup_is_restored_on_a_newer_server(
    server: Server, pool: Pool, database: Make, tmp_path: Path
) -> None:
    older = pool.get("postgresql-15")
    shop = database(older)
    older.sql(FEW, database=shop)
    with using(older) as pg:
        backup = taken(pg, shop, tmp_path)
    try:
        with using(server) as pg:
            pg.carry_out(Restore(Ref(shop), backup))
        assert server.sql("SELECT count(*) FROM t", database=shop) == [["2000"]]
    finally:
        server.sql(f"DROP DATABASE IF EXISTS {shop}")


@pytest.fixture
def age(tmp_path: Path) -> tuple[str, Path]:
    """A recipient, and the file with the identity."""
    identity = tmp_path / "identity"
    try:
        said = subprocess.run(["age-keygen", "-o", identity], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        missing("age: apt-get install age")
    return said.stderr.partition("age1")[1] + said.stderr.partition("age1")[2].strip(), identity


@pytest.mark.parametrize("method", ["dump", "globals", "physical"])
def test_encrypted_ones_are_read_while_they_are_written(
    server: Server, shop: str, tmp_path: Path, age: tuple[str, Path], method: str
) -> None:
    folder = tmp_path / "backups"
    recipient, identity = age
    ref = Ref(shop if method == "dump" else "")
    with using(server) as pg:
        how = manner(folder, identity=pg.server.settings["identity"], encryption=Encryption("age", (recipient,)))
        # One of the tables has gone since it was measured.
        streams = apart(shop, "gone", "t") if method == "dump" else ()
        pg.carry_out(Dump(ref, method, how, decode=True, streams=streams))
        (backup,) = shelf(folder)
        assert (backup.level, backup.encryption) == ("decode", "age")
        assert len(backup.files) == (2 if method == "dump" else 1)
        assert backup.rows == ({"public.t": 2000} if method == "dump" else None)
        for stored in backup.files:
            body = (Path(backup.folder) / stored.name).read_bytes()
            assert body.startswith(b"age-encryption.org")
            assert b"c4ca4238a0b923820dcc509a6f75849b" not in body
        pg.carry_out(Verify(ref, backup, how, "decode"))
        pg.carry_out(Verify(ref, backup, how, "decode", decrypt=Decryption(identity=str(identity))))
        if method == "dump":
            pg.carry_out(Restore(Ref(shop), backup, replace=True, jobs=2, decrypt=Decryption(identity=str(identity))))
            assert server.sql("SELECT count(*) FROM t", database=shop) == [["2000"]]


def test_a_standby_is_backed_up_and_is_its_primary(fleet: Fleet, tmp_path: Path) -> None:
    primary = fleet.postgresql(15)  # with amcheck, for which a drill has to write
    standby = fleet.postgresql_standby(primary)
    try:
        primary.sql("CREATE DATABASE shop")
        primary.sql(FEW, database="shop")
        standby.catch_up()
        for method, database in (("dump", "shop"), ("globals", ""), ("physical", "")):
            with using(standby) as pg:
                streams = apart(database, "t") if method == "dump" else ()
                backup = taken(pg, database, tmp_path, method=method, streams=streams)
                how = manner(tmp_path, identity=backup.server)
                # A copy of a standby follows nobody.
                level = "restore" if method == "physical" else "decode"
                pg.carry_out(Verify(Ref(database), backup, how, level))
                assert pg.server.role == "standby"
        assert [b.level for b in shelf(tmp_path)] == ["decode", "decode", "restore"]
        with using(primary) as pg:
            assert {b.server for b in shelf(tmp_path)} == {pg.server.settings["identity"]}
        with using(standby) as pg, pytest.raises(Refused, match="standby"):
            pg.carry_out(Restore(Ref("other"), next(b for b in shelf(tmp_path) if b.method == "dump")))
    finally:
        standby.stop()
        primary.stop()


@pytest.fixture
def small(root: None, tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        missing(f"a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(server: Server, shop: str, small: Path) -> None:
    """The backup before survives, also where a restore has no room for what several workers read."""
    with using(server) as pg:
        first = taken(pg, shop, small)
        before = files(small)
        server.sql(MANY, database=shop)
        with pytest.raises(Refused, match="No space left"):
            pg.carry_out(task(pg, shop, small))
        assert files(small) == before
        pg.carry_out(Verify(Ref(shop), first, manner(small), "decode"))
        (small / "filler").write_bytes(bytes(os.statvfs(small).f_bavail * 4096 - 8192))
        with pytest.raises(Refused, match="No space left"):
            pg.carry_out(Restore(Ref("other"), first, jobs=2))
        assert files(small) == sorted([*before, "filler"])
    assert server.sql("SELECT datname FROM pg_database WHERE datname ~ '^(other|dbfleet)'") == []


def test_hostile_names_of_databases(server: Server, tmp_path: Path) -> None:
    names = ["dbname=postgres host=x", 'a\'b\\c "d"; DROP', "postgresql://x/y", "-f/../é\n$(x)"]

    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    try:
        for name in names:
            server.sql(f"CREATE DATABASE {quoted(name)}")
        for number, name in enumerate(names):
            with using(server) as pg:
                with pg.engine.session(name) as session:
                    session.worker(lock_timeout=1.0).rows(f"CREATE TABLE public.t{number} AS SELECT 1 AS id")
                backup = taken(pg, name, tmp_path / str(number))
                pg.carry_out(Verify(Ref(name), backup, manner(tmp_path), "decode"))
                assert shelf(tmp_path / str(number))[0].rows == {f"public.t{number}": 1}
                server.sql(f"DROP DATABASE {quoted(name)} WITH (FORCE)")
            with using(server) as pg:
                pg.carry_out(Restore(Ref(name), backup))
                found = {table.ref.path for table in pg.measure(name, Wants(tables=True)).tables}
                assert ("public", f"t{number}") in found
    finally:
        for name in names:
            server.sql(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")


def test_large_tables_are_told_with_what_is_out_of_line(server: Server, shop: str) -> None:
    server.script(
        "CREATE TABLE wide AS SELECT string_agg(md5(i::text), '') AS s FROM generate_series(1, 20000) i;"
        "CREATE TABLE member AS TABLE t; ALTER EXTENSION plpgsql ADD TABLE member; CREATE VIEW v AS TABLE t; VACUUM",
        database=shop,
    )
    with using(server) as pg:
        found = pg.measure(shop, Wants(backups=Sheltered("/nowhere"))).large
    assert [x.ref.path for x in found] == [("public", "wide"), ("public", "t")]
    assert found[0].bytes > 500_000 > found[1].bytes > 100_000


def test_patterns_are_quoted_for_pg_dump() -> None:
    assert dumping.pattern("log_*") == '*."log_"*'
    assert dumping.pattern('a.B"?c') == '"a"."B"""?"c"'


def test_manifests_that_lie_do_no_harm(server: Server, shop: str, tmp_path: Path) -> None:
    with using(server) as pg:
        backup = taken(pg, shop, tmp_path)
        for lie in (
            backup._replace(rows={"public.t; DROP TABLE t": 1}),
            backup._replace(about={**backup.about, "acl": '[["x", false, "ALL; DROP", true]]'}),
            backup._replace(about={**backup.about, "owner": 'nobody"; DROP DATABASE x'}),
            backup._replace(rows={"public.t": 1}),
        ):
            with pytest.raises(Refused):
                pg.carry_out(Restore(Ref("other"), lie))
        assert server.sql("SELECT datname FROM pg_database WHERE datname ~ '^(other|dbfleet)'") == []


def options(server: Server, shop: str, folder: Path) -> dict[str, object]:
    where = {"bin_dir": str(server.installation.bin_dir), "backup_dir": str(folder), "journal": "none"}
    return {"engine": "postgresql", "databases": [shop], **server.login(), **where}


def test_the_module_does_what_is_due_and_then_nothing(postgresql: Server, database: Make, tmp_path: Path) -> None:
    shop = database(postgresql)
    postgresql.sql(FEW, database=shop)
    asked = options(postgresql, shop, tmp_path)
    planned = run("db_backup", asked, check=True)
    assert planned.changed
    assert files(tmp_path) == []
    done = run("db_backup", asked)
    assert done.steps() == planned.steps()
    assert done.statements() == planned.statements()
    assert [s["status"] for s in done.fact()["steps"]] == ["done"] * 4
    assert [s["proven"] for s in done.fact()["steps"] if s["kind"] == "verify"] == [True, True]
    assert {(b.database, b.method, b.level) for b in shelf(tmp_path)} == {
        ("", "globals", "decode"),
        (shop, "dump", "decode"),
    }
    assert postgresql.password not in done.text
    assert not run("db_backup", asked).changed


def test_the_module_restores(postgresql: Server, database: Make, tmp_path: Path) -> None:
    shop = database(postgresql)
    postgresql.sql(FEW, database=shop)
    asked = options(postgresql, shop, tmp_path)
    run("db_backup", asked)
    asked = {**asked, "database": shop}
    del asked["databases"]
    drilled = run("db_restore", {**asked, "drill": True})
    assert [s["status"] for s in drilled.fact()["steps"]] == ["done"]
    assert [b.level for b in shelf(tmp_path) if b.method == "dump"] == ["restore"]
    try:
        run("db_restore", {**asked, "target": f"{shop}_2"})
        assert content(postgresql, f"{shop}_2") == content(postgresql, shop)
    finally:
        postgresql.sql(f"DROP DATABASE IF EXISTS {shop}_2")
