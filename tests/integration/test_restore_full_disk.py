# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that become full while a backup of PostgreSQL is restored: nothing is lost, and the next run succeeds."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, FleetError, Server, processes
from tests.fleet.postgresql import PostgreSQL

from .conftest import POSTGRESQL
from .module_runner import Ran, run, until
from .pg_backups import content, shelf
from .small_disks import Disk, filled_meanwhile, offspring, small_disk, whole

ROWS = 6000  # of 512 bytes that cannot be packed: 3 MB
TABLES = """
CREATE TABLE {name} AS SELECT i AS id, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 16) j) AS word
  FROM generate_series(1, {rows}) i;
ALTER TABLE {name} ADD PRIMARY KEY (id);
"""
# Rows of the second table take their time wherever they are restored: until then the first one has room.
SLOW = """
CREATE FUNCTION slow(i int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
  IF i % 50 = 0 AND current_database() <> 'shop' THEN PERFORM pg_sleep(0.005); END IF; RETURN true; END $$;
ALTER TABLE b ADD CHECK (slow(id));
"""
OURS = "SELECT datname FROM pg_database WHERE datname LIKE 'dbfleet%'"
POURED = f"{OURS} AND pg_database_size(oid) > 9::bigint << 20"  # a template's 7 MB, and some rows


@pytest.fixture(scope="module")
def server(fleet: Fleet) -> PostgreSQL:
    return fleet.postgresql(max(POSTGRESQL), name="full")


@pytest.fixture(scope="module")
def disk(server: PostgreSQL) -> Iterator[Disk]:
    """A tablespace of its own."""
    with small_disk(server.home / "small", 64) as found:
        (found.path / "space").mkdir(mode=0o700)
        os.chown(found.path / "space", *(server.data_dir.stat().st_uid, server.data_dir.stat().st_gid))
        server.sql(f"CREATE TABLESPACE small LOCATION '{found.path}/space'")
        yield found
        server.kill()


@pytest.fixture
def shop(server: PostgreSQL, disk: Disk) -> Iterator[str]:
    """A database on the small disk."""
    server.sql("CREATE DATABASE shop TABLESPACE small")
    server.script("".join(TABLES.format(name=name, rows=ROWS) for name in ("a", "b", "c")) + SLOW, database="shop")
    server.sql("CHECKPOINT")  # what a template gave a database has room on the disk from now on
    yield "shop"
    disk.free()
    for name in ("shop", "new"):
        server.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def options(server: Server, folder: Path, **more: Any) -> dict[str, Any]:
    told = {"bin_dir": str(server.bin_dir), "backup_dir": str(folder), "journal": "none"}
    return {**server.login(), **told, **more}


def refused(ran: Ran, server: Server, database: str) -> None:
    message, error = ran.result["msg"], errors(ran)
    assert database in message and "No space left" in message and server.host in message
    assert "room" in error
    assert server.password not in ran.text


def errors(ran: Ran) -> str:
    return " ".join(step["error"] or "" for step in ran.fact()["steps"])


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("replace", [False, True])
def test_a_full_tablespace(
    server: PostgreSQL, disk: Disk, shop: str, tmp_path: Path, *, replace: bool, jobs: int
) -> None:
    run("db_backup", options(server, tmp_path, databases=[shop], jobs=jobs))
    (backup,) = (each for each in shelf(tmp_path) if each.method == "dump")
    backed_up = content(server, shop)
    server.sql("INSERT INTO a VALUES (0, 'newer')", database=shop)
    newer = content(server, shop)
    target = shop if replace else "new"
    asked = options(server, tmp_path, database=shop, jobs=jobs, target=target, replace=replace)
    ran = filled_meanwhile("db_restore", asked, lambda: server.sql(OURS), disk, leave=1 << 20)
    refused(ran, server, target)
    assert server.sql(OURS) == [] and (replace or server.sql("SELECT 1 FROM pg_database WHERE datname = 'new'") == [])
    whole(backup)
    disk.free()  # the test's own sums want some of it
    assert content(server, shop) == newer
    run("db_restore", asked)
    assert content(server, target)[1:] == backed_up[1:]


def test_what_cannot_be_dropped_is_named(server: PostgreSQL, disk: Disk, shop: str, tmp_path: Path) -> None:
    """A full disk takes no checkpoint where another database is as new; the next run drops what is left."""
    run("db_backup", options(server, tmp_path, databases=[shop]))
    server.sql("CREATE DATABASE other TABLESPACE small")
    try:
        asked = options(server, tmp_path, database=shop, target="new")
        ran = filled_meanwhile("db_restore", asked, lambda: server.sql(OURS), disk, leave=1 << 20)
        refused(ran, server, "new")
        ((left,),) = server.sql(OURS)
        assert f"{left} is still there (checkpoint request failed" in ran.result["msg"]
        disk.free()
        run("db_restore", asked)
        assert server.sql(OURS) == [] and content(server, "new")[1:] == content(server, shop)[1:]
    finally:
        disk.free()
        server.sql("DROP DATABASE other")


def test_a_drill_beside_it_on_a_full_tablespace(server: PostgreSQL, disk: Disk, shop: str, tmp_path: Path) -> None:
    run("db_backup", options(server, tmp_path, databases=[shop]))
    asked = options(server, tmp_path, database=shop, drill=True, drill_on="same_server")
    ran = filled_meanwhile("db_restore", asked, lambda: server.sql(OURS), disk, leave=1 << 20)
    refused(ran, server, shop)
    (backup,) = (each for each in shelf(tmp_path) if each.method == "dump")
    assert server.sql(OURS) == [] and backup.level == "decode"
    whole(backup)
    disk.free()
    run("db_restore", asked)
    assert [each.level for each in shelf(tmp_path) if each.method == "dump"] == ["restore"]


def test_a_throwaway_server_on_a_full_disk(
    server: PostgreSQL, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of too small a disk it is said before; one that becomes full ends the drill, and nothing stays there."""
    run("db_backup", options(server, tmp_path, databases=[shop]))
    asked = options(server, tmp_path, database=shop, drill=True)
    with tempfile.TemporaryDirectory(dir="/tmp") as where, small_disk(Path(where) / "t", 400) as place:
        Path(where).chmod(0o755)
        place.path.chmod(0o1777)
        monkeypatch.setenv("TMPDIR", str(place.path))
        place.fill(leave=100 << 20)
        said = run("db_restore", asked, fails=True).result["msg"]
        assert "bytes left" in said and "TMPDIR" in said and str(place.path) in said
        place.free()
        ran = filled_meanwhile(
            "db_restore", asked, lambda: list(place.path.glob("*/.s.PGSQL.5432")), place, leave=12 << 20
        )
        # Where it has crashed another one is tried to be started, of whose disk it is said before that it is too small.
        message = ran.result["msg"]
        assert shop in message and ("No space left" in message or "bytes left" in message) and "room" in errors(ran)
        assert server.password not in ran.text
        assert [path.name for path in place.path.iterdir()] == ["ballast"]
        assert offspring(place.path) == []
        place.free()
        run("db_restore", asked)
        assert [each.level for each in shelf(tmp_path) if each.method == "dump"] == ["restore"]
        assert list(place.path.iterdir()) == []


def moved(fleet: Fleet, what: str) -> Iterator[tuple[PostgreSQL, Disk]]:
    """A server whose data directory, or only its log, is on a small disk; segments of the log have 1 MB."""
    server = fleet.postgresql(max(POSTGRESQL), name=f"cramped-{what or 'data'}")
    server.stop()
    resize: list[str | Path] = [
        server.installation.program("pg_resetwal"),
        "--wal-segsize=1",
        "-D",
        str(server.data_dir),
    ]
    processes.run(resize, as_server=True)
    server.settings |= {"min_wal_size": "2MB", "max_wal_size": "512MB", "wal_recycle": "off" if what else "on"}
    with small_disk(server.home / "disk", 128) as disk:
        place = server.data_dir / what
        subprocess.run(["cp", "-a", place, disk.path / "there"], check=True)
        shutil.rmtree(place)
        place.symlink_to(disk.path / "there")
        server.start()
        server.sql("CREATE DATABASE shop")
        server.script("".join(TABLES.format(name=name, rows=ROWS) for name in ("a", "b", "c")) + SLOW, database="shop")
        yield server, disk
        server.kill()


def poured(server: Server) -> bool:
    """Some rows are there; and what a template gave the new database has room on the disk, as it has minutes later."""
    return bool(server.sql(POURED)) and server.sql("CHECKPOINT") == []


def answers(server: Server) -> bool:
    try:
        return server.sql("SELECT 1") == [["1"]]
    except FleetError:
        return False


@pytest.mark.parametrize("what", ["", "pg_wal"])
def test_a_disk_that_the_server_itself_needs(fleet: Fleet, tmp_path: Path, what: str) -> None:
    """Of data, tables that were restored make room for the checkpoint that comes with DROP DATABASE: nothing crashes.

    Without room for its log a server crashes; started again with some it is as it was.
    """
    with contextmanager(moved)(fleet, what) as (server, disk):
        run("db_backup", options(server, tmp_path, databases=["shop"]))
        backed_up = content(server, "shop")
        for target in ("new", "shop"):
            server.script("INSERT INTO a SELECT min(id) - 1, 'newer' FROM a; CHECKPOINT", database="shop")
            newer = content(server, "shop")
            asked = options(server, tmp_path, database="shop", target=target, replace=target == "shop", jobs=1)
            ran = filled_meanwhile("db_restore", asked, lambda: poured(server), disk)
            said = server.log_file.read_text()
            assert ("PANIC" in said) == (what == "pg_wal") and server.password not in ran.text
            whole(shelf(tmp_path)[-1])
            disk.free()
            if what:
                assert target in ran.result["msg"]
                until(lambda: answers(server) or not server.running)
                server.start()
            else:
                refused(ran, server, target)
                assert server.sql(OURS) == []
            assert content(server, "shop") == newer
            assert server.sql("SELECT 1 FROM pg_database WHERE datname = 'new'") == []
            run("db_restore", asked)
            assert content(server, target)[1:] == backed_up[1:] and server.sql(OURS) == []
            server.sql("DROP DATABASE IF EXISTS new")
