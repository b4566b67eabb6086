# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a whole MariaDB server becomes a new data directory, on which a server starts that is as it was."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.backups.data_directory import DataDirectory
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import drilling
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.connection import Link
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.throwaway import At, Throwaway
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Restore
from tests.fleet import Server
from tests.fleet.cache import fleet_base

from .backups import codes, fact, kinds
from .conftest import Pool, missing
from .module_runner import run
from .my_backup import Shelter, furnish

Make = Callable[[Server], str]
PLAIN = ("plain", "parted", "made", "old_dates", "child", "aside", "versioned", "far")


@pytest.fixture
def maria(pool: Pool) -> Server:
    if shutil.which("mariadb-backup") is None:
        missing("mariadb-backup")
    return pool.get("mariadb")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's account can get to."""
    with tempfile.TemporaryDirectory(dir=fleet_base()) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def sums(rows: Callable[[str], Any], name: str) -> list[Any]:
    tables = ", ".join(f"{name}.{table}" for table in PLAIN)
    return sorted(tuple(map(str, row)) for row in rows(f"CHECKSUM TABLE {tables}"))


def dies_in_the_middle(backup: Backup, target: Path) -> None:
    """By SIGKILL, when a server runs on what it has made."""
    pid = os.fork()
    if not pid:
        vars(drilling)["checked"] = lambda *_all: os.kill(os.getpid(), signal.SIGKILL)
        params = {"engine": "mariadb", "backup_dir": str(Path(backup.folder).parent), "target_dir": str(target)}
        engine = DataDirectory(params, Execution())
        task = Restore(Ref("", (str(target),)), backup, site=str(target))
        with engine.session("") as session:
            for _tick in engine.carry_out(session, task, engine.greet(), None):
                pass
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def started(backup: Backup, target: Path) -> Throwaway:
    found = target.stat()
    account = (str(found.st_uid), str(found.st_gid)) if os.geteuid() == 0 else None
    return Throwaway(backup, at=At(str(target), account))


def test_a_server_starts_on_what_was_restored(maria: Server, database: Make, tmp_path: Path, place: Path) -> None:
    name, shelter, target = database(maria), Shelter(maria, tmp_path / "backups"), place / "new"
    furnish(maria, name)
    away = place / "away"
    away.mkdir(mode=0o777)
    away.chmod(0o777)
    maria.script(f"CREATE TABLE far (a int) DATA DIRECTORY '{away}'; INSERT INTO far VALUES (7)", database=name)
    shelter.carry_out(Dump(Ref(""), "physical", shelter.manner))
    backup = shelter.newest("")
    dies_in_the_middle(backup, target)
    assert [path.name for path in target.iterdir()] == [".dbfleet-restore"]

    options = {"engine": "mariadb", "backup_dir": str(tmp_path / "backups"), "journal": "none"}
    options.update(target_dir=str(target))
    planned, files = run("db_restore", options, check=True), list(target.rglob("*"))
    assert list(target.rglob("*")) == files and codes(planned) == {"unfinished_restore", "not_verified"}
    done = run("db_restore", options)
    assert kinds(planned) == [("restore", "planned")] and kinds(done) == [("restore", "done")]
    words = [fact(ran)["steps"][0]["statements"] for ran in (planned, done)]
    assert words[0] == words[1] and f"mbstream -x -C {target}" in words[0][0]
    assert not (target / ".dbfleet-restore").exists() and not list(target.rglob("*.isl"))
    owners = {(path.stat().st_uid, path.stat().st_mode & 0o007) for path in target.rglob("*") if path.is_dir()}
    assert owners == {(target.stat().st_uid, 0)} and target.stat().st_mode & 0o777 == 0o700
    for check in (True, False):
        assert "is not empty" in run("db_restore", options, check=check, fails=True).result["msg"]

    server, stop = started(backup, target), threading.Event()
    try:
        for _second in server.start(stop, str(target / "backup-my.cnf")):
            pass
        with closing(Link(server.login, Execution())) as link:
            assert sums(link.rows, name) == sums(maria.sql, name)
            for what in ("event", "proc"):
                assert link.rows(f"SELECT COUNT(*) FROM mysql.{what} WHERE db = %s", (name,)) == [(2,)]
    finally:
        server.end()
    assert (away / name / "far.ibd").exists()


def test_what_is_damaged_becomes_no_data_directory(maria: Server, tmp_path: Path, place: Path) -> None:
    """Nor does anything stay of it: an empty folder is as it was."""
    shelter, target = Shelter(maria, tmp_path / "backups"), place / "new"
    target.mkdir()
    target.chmod(0o755)
    shelter.carry_out(Dump(Ref(""), "physical", shelter.manner))
    path = Path(shelter.newest("").folder) / shelter.newest("").files[0].name
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)
    options = {"engine": "mysql", "path": str(path), "journal": "none", "target_dir": str(target)}
    assert kinds(run("db_restore", options, check=True)) == [("restore", "planned")]
    assert path.name in run("db_restore", options, fails=True).result["msg"]
    assert (list(target.iterdir()), target.stat().st_mode & 0o777) == ([], 0o755)
