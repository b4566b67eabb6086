# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that become full while a backup of MySQL or MariaDB is restored: the run ends, and the next one succeeds."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Sheltered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups
from tests.fleet import Fleet, Server

from .module_runner import run
from .my import fill
from .my_backup import describe
from .small_disks import Disk, filled_meanwhile, offspring, small_disk, whole

ROWS = 12000  # of a kilobyte, in each of two tables


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def cramped(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[tuple[Server, Disk, Disk, Disk]]:
    """A server whose data directory is on a small disk, its binary logs on another one, what passes on a third."""
    server = fleet.mysql(name="cramped") if request.param == "mysql" else fleet.mariadb(name="cramped-mariadb")
    server.stop()
    with (
        small_disk(server.home / "disk", 300) as disk,
        small_disk(server.home / "logs", 300) as logs,
        small_disk(server.home / "tmp", 50) as passing,
    ):
        for path in server.data_dir.iterdir():
            if path.name.startswith(("binlog", "mysql-bin")):
                path.unlink()
        subprocess.run(["cp", "-a", "--sparse=never", server.data_dir, disk.path / "data"], check=True)
        server.data_dir = disk.path / "data"
        server.settings["log_bin"] = str(logs.path / "binlog")
        server.start()
        yield server, disk, logs, passing
        for each in (disk, logs, passing):
            each.free()
        server.kill()


@pytest.fixture
def server(cramped: tuple[Server, Disk, Disk, Disk], monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("PATH", os.pathsep.join((str(cramped[0].installation.bin_dir), os.environ["PATH"])))
    return cramped[0]


@pytest.fixture
def disk(cramped: tuple[Server, Disk, Disk, Disk]) -> Iterator[Disk]:
    yield cramped[1]
    cramped[1].free()


@pytest.fixture
def logs(cramped: tuple[Server, Disk, Disk, Disk]) -> Iterator[Disk]:
    yield cramped[2]
    cramped[2].free()


@pytest.fixture
def passing(cramped: tuple[Server, Disk, Disk, Disk]) -> Iterator[Disk]:
    yield cramped[3]
    cramped[3].free()


@pytest.fixture
def shop(server: Server, disk: Disk) -> Iterator[str]:
    server.sql("CREATE DATABASE shop")
    for name in ("a", "b"):
        fill(server, "shop", name, "id int PRIMARY KEY, word varchar(1024)", "i, REPEAT(SHA2(i, 256), 16)", ROWS)
        server.sql(f"ANALYZE TABLE shop.{name}")
    yield "shop"
    disk.free()
    for name in ("shop", "new"):
        server.sql(f"DROP DATABASE IF EXISTS {name}")


def options(server: Server, folder: Path, **more: Any) -> dict[str, Any]:
    return {**server.login(), "backup_dir": str(folder), "journal": "none", **more}


def newest(folder: Path) -> Backup:
    return max(backups.look(Sheltered(str(folder))).backups, key=lambda backup: (backup.method == "dump", backup.began))


def loading(data: Path, name: str) -> bool:
    """Whether its second table has some rows: InnoDB has made its file larger."""
    return any(path.stat().st_size > 4 << 20 for path in data.glob(f"{name}/b.ibd"))


@pytest.mark.parametrize("replace", [False, True])
def test_a_full_data_directory(server: Server, disk: Disk, shop: str, tmp_path: Path, *, replace: bool) -> None:
    """What replaces a database was tried out; it is dropped first, as the README says, and is in the backup."""
    told = options(server, tmp_path)
    run("db_backup", {**told, "databases": [shop], "verify": "restore", "drill_on": "same_server", "globals": False})
    backed_up = describe(server, shop)
    server.sql("INSERT INTO a VALUES (0, 'newer')", database=shop)
    newer = describe(server, shop)
    target = shop if replace else "new"
    asked = {**told, "database": shop, "target": target, "replace": replace}
    ran = filled_meanwhile("db_restore", asked, lambda: loading(server.data_dir, target), disk)
    message = ran.result["msg"]
    assert target in message and server.host in message and "full" in message and "room" in message
    assert ("that was to be replaced is gone" in message) == replace and server.password not in ran.text
    assert server.sql("SHOW DATABASES LIKE 'new'") == []
    whole(newest(tmp_path))
    disk.free()
    if not replace:
        assert describe(server, shop) == newer
    run("db_restore", asked)
    assert describe(server, target) == backed_up


def test_a_drill_beside_it_on_a_full_disk(server: Server, disk: Disk, shop: str, tmp_path: Path) -> None:
    told = options(server, tmp_path)
    run("db_backup", {**told, "databases": [shop]})
    asked = {**told, "database": shop, "drill": True, "drill_on": "same_server"}
    ran = filled_meanwhile("db_restore", asked, lambda: loading(server.data_dir, "dbfleet_drill_*"), disk)
    message = ran.result["msg"]
    assert shop in message and "full" in message and "room" in message and server.password not in ran.text
    assert server.sql("SHOW DATABASES LIKE 'dbfleet%'") == [] and newest(tmp_path).level == "decode"
    whole(newest(tmp_path))
    disk.free()
    run("db_restore", asked)
    assert newest(tmp_path).level == "restore"


def test_a_throwaway_server_on_a_full_disk(
    server: Server, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of too small a disk it is said before; one that becomes full ends the drill, and nothing stays there."""
    told = options(server, tmp_path)
    run("db_backup", {**told, "databases": [shop]})
    asked = {**told, "database": shop, "drill": True}
    with tempfile.TemporaryDirectory(dir="/tmp") as where, small_disk(Path(where) / "t", 1500) as place:
        Path(where).chmod(0o755)
        place.path.chmod(0o1777)
        monkeypatch.setenv("TMPDIR", str(place.path))
        place.fill(leave=50 << 20)
        said = run("db_restore", asked, fails=True).result["msg"]
        assert "are free" in said and "TMPDIR" in said and str(place.path) in said
        place.free()
        ran = filled_meanwhile("db_restore", asked, lambda: loading(place.path, "*/data/shop"), place)
        assert shop in ran.result["msg"] and "full" in ran.result["msg"] and "room" in ran.result["msg"]
        assert [path.name for path in place.path.iterdir()] == ["ballast"] and offspring(place.path) == []
        place.free()
        run("db_restore", asked)
        assert newest(tmp_path).level == "restore" and list(place.path.iterdir()) == []


def test_what_has_no_room_replaces_nothing(server: Server, disk: Disk, shop: str, tmp_path: Path) -> None:
    """The database would be dropped first."""
    told = options(server, tmp_path)
    run("db_backup", {**told, "databases": [shop], "verify": "restore", "drill_on": "same_server", "globals": False})
    backed_up = describe(server, shop)
    server.script("DROP TABLE a, b; CREATE TABLE a AS SELECT 'mine' AS word", database=shop)
    mine = describe(server, shop)
    disk.fill(leave=8 << 20)
    said = run("db_restore", {**told, "database": shop, "replace": True}, fails=True).result["msg"]
    assert "are free in" in said and str(disk.path) in said and "Make room" in said
    assert describe(server, shop) == mine
    disk.free()
    run("db_restore", {**told, "database": shop, "replace": True})
    assert describe(server, shop) == backed_up


def test_no_room_for_temporary_files(server: Server, passing: Disk, shop: str, tmp_path: Path) -> None:
    """What a transaction logs passes through one. The client program repeats the rows that failed, and we do not."""
    if server.engine == "mysql":
        pytest.skip("MySQL ends itself where it cannot log (binlog_error_action)")
    told = options(server, tmp_path)
    run("db_backup", {**told, "databases": [shop]})
    asked = {**told, "database": shop, "target": "new"}
    ran = filled_meanwhile("db_restore", asked, lambda: loading(server.data_dir, "new"), passing)
    message = ran.result["msg"]
    assert "No space left" in message
    assert "new" in message and "Make room" in message
    assert not re.search(r"[0-9a-f]{64}", ran.text)
    assert server.sql("SHOW DATABASES LIKE 'new'") == []
    passing.free()
    run("db_restore", asked)
    assert describe(server, "new") == describe(server, shop)


def test_no_room_for_the_binary_log(server: Server, logs: Disk, shop: str, tmp_path: Path) -> None:
    """The server waits in silence, and nobody waits with it; what could not be dropped is taken by the next run.

    MariaDB since 11.7 keeps what a transaction logs beside the log from the beginning, and says that there is no room.
    """
    told = options(server, tmp_path)
    run("db_backup", {**told, "databases": [shop]})
    backed_up = describe(server, shop)
    asked = {**told, "database": shop, "target": "new"}
    began = time.monotonic()
    ran = filled_meanwhile("db_restore", asked, lambda: loading(server.data_dir, "new"), logs)
    assert time.monotonic() - began < 40 and server.running
    message = ran.result["msg"]
    assert "Waiting for someone to free space" in server.log_file.read_text() or "#binlog_cache_files" in message
    assert "No space left" in message and str(logs.path) in message and "new" in message and "room" in message
    whole(newest(tmp_path))
    logs.free()
    server.kill()  # it looks again a minute later, which is too long for a test
    server.start()
    run("db_restore", asked)
    assert describe(server, "new") == backed_up == describe(server, shop)
