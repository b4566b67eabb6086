# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that become full while files come to be: of SQLite, of whole servers, and of backups that are fetched."""

from __future__ import annotations

import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.sites import INSIDE
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump
from tests.fleet import Fleet, Server
from tests.fleet.processes import give_away, server_account

from . import lite
from .backups import backed_up, content, kinds, shelf
from .conftest import POSTGRESQL, Pool, missing
from .module_runner import run
from .my_backup import Shelter
from .pg_backups import manner, using
from .pg_backups import shelf as shelf_of
from .small_disks import Disk, filled_meanwhile, offspring, small_disk, whole

NOISE = 30_000_000  # bytes that cannot be packed


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "small", 80) as found:
        yield found


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the servers' account can get to."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


# ---- SQLite


def noisy(path: Path) -> Path:
    made = lite.make(path, rows=100)
    with lite.closing(made) as db:
        db.execute("CREATE TABLE noise AS SELECT randomblob(?) AS x", (NOISE,))
    return made


def begun(folder: Path, pattern: str = "*") -> bool:
    """Whether something is being written there."""
    return any(path.is_file() and path.stat().st_size and path.name != "ballast" for path in folder.rglob(pattern))


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_on_a_disk_that_becomes_full(disk: Disk, tmp_path: Path, *, replace: bool) -> None:
    source, target, folder = noisy(tmp_path / "shop.db"), disk.path / "shop.db", tmp_path / "backups"
    backed_up(source, folder)
    before: list[str] = []
    if replace:
        with lite.closing(target) as db:
            db.executescript("CREATE TABLE t (a); INSERT INTO t VALUES ('mine')")
        before = content(target)
    asked: dict[str, Any] = {"engine": "sqlite", "backup_dir": str(folder), "journal": "none", "replace": replace}
    asked.update(database=str(source), target=str(target))
    disk.fill(leave=8 << 20)
    for check in (True, False):
        said = run("db_restore", asked, check=check, fails=True).result
        assert "are free" in said["msg"] and str(target) in said["msg"] and "Make room" in said["msg"]
        assert not said["changed"]
    disk.free()
    ran = filled_meanwhile("db_restore", asked, lambda: begun(disk.path, ".dbfleet-*"), disk)
    assert (
        "No space left" in ran.result["msg"] and "Make room" in ran.result["msg"] and str(target) in ran.result["msg"]
    )
    assert {path.name for path in disk.path.iterdir()} == {"ballast", *(["shop.db"] if replace else [])}
    whole(shelf(folder).backups[-1])
    assert not replace or content(target) == before
    disk.free()
    assert kinds(run("db_restore", asked)) == [("restore", "done")]
    assert content(target) == content(source)


def test_what_is_fetched_on_a_disk_that_becomes_full(disk: Disk, tmp_path: Path) -> None:
    source, target, folder = noisy(tmp_path / "shop.db"), tmp_path / "new.db", disk.path / "backups"
    (tmp_path / "copies").mkdir(mode=0o700)
    backed_up(source, tmp_path / "backups", copy_to=str(tmp_path / "copies"))
    asked: dict[str, Any] = {"engine": "sqlite", "backup_dir": str(folder), "journal": "none"}
    asked.update(database=str(source), target=str(target), copy_from=str(tmp_path / "copies"))
    disk.fill(leave=8 << 20)
    for check in (True, False):
        ran = run("db_restore", asked, check=check, fails=True)
        assert "are free" in ran.result["msg"]
    disk.free()
    ran = filled_meanwhile("db_restore", asked, lambda: begun(folder), disk)
    assert "No space left" in ran.result["msg"] and "Make room" in ran.result["msg"]
    assert not [path for path in folder.rglob("*") if path.is_file()] and not target.exists()
    whole(shelf(tmp_path / "backups").backups[-1])
    disk.free()
    assert kinds(run("db_restore", asked)) == [("fetch", "done"), ("restore", "done")]
    assert content(target) == content(source)


# ---- whole servers


def test_a_new_data_directory_on_a_disk_that_becomes_full(pool: Pool, tmp_path: Path, place: Path) -> None:
    server = pool.get(f"postgresql-{max(POSTGRESQL)}")
    with using(server) as pg:
        pg.carry_out(Dump(Ref(""), "physical", manner(tmp_path, identity=pg.server.settings["identity"])))
    (backup,) = shelf_of(tmp_path)
    with small_disk(place / "small", 400) as disk:
        site = disk.path / "new"
        asked: dict[str, Any] = {"engine": "postgresql", "bin_dir": str(server.bin_dir), "journal": "none"}
        asked.update(backup_dir=str(tmp_path), target_dir=str(site))
        account = server_account()
        if account:
            asked["target_owner"] = pwd.getpwuid(account.uid).pw_name
        stays_whole(asked, disk, site / INSIDE / "data" / "base")
        whole(backup)
        done = run("db_restore", asked)
        assert kinds(done) == [("restore", "done")] and (site / "PG_VERSION").exists()


@pytest.mark.parametrize("which", ["data", "spaces"])
def test_one_of_two_disks_becomes_full(fleet: Fleet, tmp_path: Path, place: Path, which: str) -> None:
    """The other one is left as it was, too."""
    server = fleet.postgresql(max(POSTGRESQL), name="spacious")
    far = server.home / "far"
    far.mkdir(mode=0o700)
    give_away(far)
    server.script(
        f"""CREATE TABLESPACE far LOCATION '{far}';
            CREATE TABLE t TABLESPACE far AS SELECT i, repeat(md5(i::text), 8) AS v FROM generate_series(1, 30000) i"""
    )
    with using(server) as pg:
        pg.carry_out(Dump(Ref(""), "physical", manner(tmp_path, identity=pg.server.settings["identity"])))
    (backup,) = shelf_of(tmp_path)
    with small_disk(place / "data", 400) as data, small_disk(place / "spaces", 400) as spaces:
        site, beside = data.path / "new", spaces.path / "new"
        asked: dict[str, Any] = {"engine": "postgresql", "bin_dir": str(server.bin_dir), "journal": "none"}
        asked.update(backup_dir=str(tmp_path), target_dir=str(site), tablespace_dir=str(beside))
        account = server_account()
        if account:
            asked["target_owner"] = pwd.getpwuid(account.uid).pw_name
        stays_whole(asked, data if which == "data" else spaces, (site if which == "data" else beside) / INSIDE / "data")
        assert not site.exists() and not beside.exists()
        whole(backup)
        assert kinds(run("db_restore", asked)) == [("restore", "done")] and list(beside.glob("far/PG*"))
    server.drop()


def test_a_new_data_directory_of_mariadb(
    pool: Pool, tmp_path: Path, place: Path, database: Callable[[Server], str]
) -> None:
    if shutil.which("mariadb-backup") is None:
        missing("mariadb-backup")
    server = pool.get("mariadb")
    database(server)
    shelter = Shelter(server, tmp_path / "backups")
    shelter.carry_out(Dump(Ref(""), "physical", shelter.manner))
    with small_disk(place / "small", 400) as disk:
        asked = {"engine": "mariadb", "backup_dir": str(tmp_path / "backups"), "journal": "none"}
        asked["target_dir"] = str(disk.path / "new")
        disk.path.chmod(0o755)
        stays_whole(asked, disk, disk.path / "new" / INSIDE / "data" / "ibdata1")
        whole(shelter.newest(""))
        assert kinds(run("db_restore", asked)) == [("restore", "done")]


def stays_whole(asked: dict[str, Any], disk: Disk, sign: Path) -> None:
    """Too small a disk is told before; of one that becomes full once `sign` is there, nothing is left but that."""
    disk.fill(leave=2 << 20)
    for check in (True, False):
        said = run("db_restore", asked, check=check, fails=True).result
        assert "are free there" in said["msg"] and str(disk.path) in said["msg"] and not said["changed"]
    disk.free()
    ran = filled_meanwhile("db_restore", asked, sign.exists, disk)
    assert "No space left" in ran.result["msg"] and "room" in ran.result["msg"]
    assert [path.name for path in disk.path.iterdir()] == ["ballast"]
    assert offspring(disk.path) == []
    disk.free()
