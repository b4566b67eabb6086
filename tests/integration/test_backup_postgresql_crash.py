# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that are killed while they back up, restore or try out: the next run mends it, and what was good is good."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Sheltered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups
from tests.fleet import Server

from .conftest import Pool
from .module_runner import Running, run, start, until
from .pg_backups import content

Make = Callable[[Server], str]
MANY = "CREATE TABLE big AS SELECT i AS id, repeat(md5(i::text), 4) AS word FROM generate_series(1, 150000) i"
DUMPING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbfleet' AND query LIKE 'COPY%'"
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbfleet'"
INTERIM = "SELECT datname FROM pg_database WHERE datname ~ '^dbfleet_restoring'"


@pytest.fixture
def server(pool: Pool) -> Server:
    return pool.get("postgresql-16")


@pytest.fixture
def shop(server: Server, database: Make) -> str:
    name = database(server)
    server.script(f"{MANY}; ALTER TABLE big ADD PRIMARY KEY (id)", database=name)
    return name


def options(server: Server, folder: Path, **more: Any) -> dict[str, Any]:
    where = {"bin_dir": str(server.installation.bin_dir), "backup_dir": str(folder), "journal": "none"}
    return {"engine": "postgresql", **server.login(), **where, **more}


def killed(running: Running, when: Callable[[], Any], moment: float) -> None:
    until(lambda: running.poll() is not None or when(), 60, "the right moment")
    time.sleep(moment)
    running.send(signal.SIGKILL)
    until(lambda: running.poll() is not None)
    running.end()


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.3, 0.6, 1.0, 1.5])
def test_while_it_backs_up(server: Server, shop: str, tmp_path: Path, moment: float) -> None:
    asked = options(server, tmp_path, databases=[shop], globals=False)
    run("db_backup", asked)
    (first,) = backups.look(Sheltered(str(tmp_path))).backups
    server.sql("SELECT pg_sleep(1)")
    # About three seconds of dump and verification.
    slow = start("db_backup", {**asked, "min_interval": "1s", "rate_limit": "12MB"})
    killed(slow, lambda: server.sql(DUMPING) != [["0"]], moment)
    until(lambda: server.sql(OURS) == [["0"]], 30, "the end of its sessions")
    shelf = backups.look(Sheltered(str(tmp_path)))
    assert shelf.backups[0] == first
    assert not shelf.broken
    assert [b.level for b in shelf.backups[1:]] in ([], [""], ["decode"])
    again = run("db_backup", {**asked, "min_interval": "1s"})
    assert {s["status"] for s in again.fact()["steps"]} == {"done"}
    shelf = backups.look(Sheltered(str(tmp_path)))
    assert (shelf.unfinished, shelf.broken) == ((), ())
    assert shelf.backups[-1].level == "decode"
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_while_it_restores(server: Server, shop: str, tmp_path: Path, moment: float) -> None:
    run("db_backup", options(server, tmp_path, databases=[shop], globals=False))
    asked = options(server, tmp_path, database=shop, target=f"{shop}_r")
    killed(start("db_restore", asked), lambda: server.sql(INTERIM), moment)
    until(lambda: server.sql(OURS) == [["0"]], 30, "the end of its sessions")
    try:
        there = server.sql(f"SELECT 1 FROM pg_database WHERE datname = '{shop}_r'")
        if there:
            assert content(server, f"{shop}_r") == content(server, shop)
        run("db_restore", {**asked, "replace": bool(there)})
        assert content(server, f"{shop}_r") == content(server, shop)
        assert server.sql(INTERIM) == []
    finally:
        server.sql(f"DROP DATABASE IF EXISTS {shop}_r")


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0])
def test_while_it_tries_out(server: Server, shop: str, tmp_path: Path, moment: float) -> None:
    """The server of the drill ends with the module, also by SIGKILL; its files are left in the folder for such."""
    run("db_backup", options(server, tmp_path, databases=[shop], globals=False))
    place = Path(tempfile.gettempdir())
    before = set(place.glob("dbfleet-*/data"))

    def made() -> list[Path]:
        return [path for path in place.glob("dbfleet-*/data") if path not in before and (path / "PG_VERSION").exists()]

    killed(start("db_restore", options(server, tmp_path, database=shop, drill=True)), made, moment)
    left = made()
    try:
        until(lambda: not [path for path in left if at_work(path)], 30, "the end of its server")
        assert [b.level for b in backups.look(Sheltered(str(tmp_path))).backups] == ["decode"]
    finally:
        for path in left:
            shutil.rmtree(path.parent)


def at_work(data: Path) -> bool:
    """Whether a process has the folder on its command line."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(data).encode() in place.read_bytes():
                return True
        except OSError:
            continue
    return False
