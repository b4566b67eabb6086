# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups by the playbooks, as cron and AWX run them: made, rotated, and required before old rows leave."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.demo import aging
from tests.fleet import Server
from tests.playbook import play, variables

from . import lite as files
from .backups import aged, backed_up, shelf
from .conftest import Pool
from .module_runner import run
from .playing import SERVERS, Hosts, said, write_hosts

RULE = {"name": "old entries", "table": "audit_log", "date_column": "created_at", "delete_after": "90d"}


def hosts_of(lite: Callable[[str], Path], *names: str) -> Hosts:
    for name in names:
        files.make(lite(name), rows=50)
    return {name: {"db_engine": "sqlite", "db_databases": [str(lite(name))]} for name in names}


def test_a_fleet_is_backed_up_as_checked_and_then_left_alone(lite: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    where = write_hosts(tmp_path, hosts_of(lite, "one", "two"), backup_dir=str(folder), rotate_backups_keep_last=1)
    check = play("backup", where, "--check")
    assert check.code == 0, said(check)
    assert not folder.exists()
    first = play("backup", where)
    again = play("backup", where)
    assert [first.code, again.code] == [0, 0], said(first)
    assert set(check.of("db_backup")) == set(first.of("db_backup")) == {"one", "two"}
    assert not again.of("db_backup")
    assert "nothing due" in said(again)
    assert len(shelf(folder).backups) == 2
    aged(folder, timedelta(days=1))
    next_night = play("backup", where)
    assert next_night.code == 0, said(next_night)
    assert len(shelf(folder).backups) == 2
    assert all(b.level == "decode" for b in shelf(folder).backups)


def test_old_rows_leave_after_the_backup(lite: Callable[[str], Path], tmp_path: Path) -> None:
    """And stay where there is none."""
    path = lite("old.db")
    aging.age_file(path)
    folder = tmp_path / "backups"
    shared: dict[str, Any] = {"backup_dir": str(folder), "cleanup_rules": [RULE]}
    where = write_hosts(tmp_path, {"old": {"db_engine": "sqlite", "db_databases": [str(path)]}}, **shared)
    check = play("maintenance", where, "--check")
    ran = play("maintenance", where)
    assert [check.code, ran.code] == [0, 0], said(ran)
    planned = [s["kind"] for s in check.of("db_cleanup")["old"].fact["steps"]]
    done = [(s["kind"], s["status"]) for s in ran.of("db_cleanup")["old"].fact["steps"]]
    assert done == [(kind, "done") for kind in planned]
    assert shelf(folder).backups


def test_without_a_backup_old_rows_stay(lite: Callable[[str], Path], tmp_path: Path) -> None:
    path = lite("old.db")
    aging.age_file(path)
    folder = tmp_path / "backups"
    folder.write_text("in the way")
    shared: dict[str, Any] = {"backup_dir": str(folder), "cleanup_rules": [RULE], "rotate_backups_keep_last": 1}
    where = write_hosts(tmp_path, {"old": {"db_engine": "sqlite", "db_databases": [str(path)]}}, **shared)
    ran = play("maintenance", where)
    assert ran.code != 0
    assert not [s for s in ran.of("db_cleanup")["old"].fact["steps"] if s["kind"] == "delete"]
    assert "no_backup" in {f["code"] for f in ran.of("db_cleanup")["old"].fact["findings"]}


def test_a_drill_over_the_fleet(lite: Callable[[str], Path], tmp_path: Path) -> None:
    """A host that fails keeps no other from its drill."""
    folder, hosts = tmp_path / "backups", hosts_of(lite, "one", "two")
    backed_up(lite("one"), folder)
    where = write_hosts(tmp_path, hosts, backup_dir=str(folder))
    ran = play("restore_drill", where)
    assert ran.code != 0, said(ran)
    assert {host: call.status for host, call in ran.of("db_restore").items()} == {"one": "ok", "two": "failed"}
    assert [b.level for b in shelf(folder).backups] == ["restore"]


WATCHED = """\
#!/bin/sh
echo "$0" >> {log}
exec {program} "$@"
"""
LOADERS = {"postgresql": "pg_restore", "mariadb": "mariadb", "mysql": "mysql"}


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Callable[[Server], tuple[Path, Path]]]:
    """A folder with all programs of a server, and the file in which the one that loads a dump notes that it ran."""
    with tempfile.TemporaryDirectory(prefix="programs", dir="/tmp") as name:

        def laid(server: Server) -> tuple[Path, Path]:
            folder, log = Path(name), tmp_path / "ran"
            folder.chmod(0o755)  # the account of a temporary server has to get there
            for program in server.installation.bin_dir.iterdir():
                (folder / program.name).symlink_to(program)
            loader = folder / LOADERS[server.engine]
            loader.unlink(missing_ok=True)
            loader.write_text(WATCHED.format(log=log, program=server.installation.program(loader.name)))
            loader.chmod(0o755)
            return folder, log

        yield laid


@pytest.mark.parametrize("key", SERVERS)
def test_a_drill_takes_the_programs_that_it_is_told(
    pool: Pool,
    database: Callable[[Server], str],
    programs: Callable[[Server], tuple[Path, Path]],
    tmp_path: Path,
    key: str,
) -> None:
    server = pool.get(key)
    shop, folder = database(server), tmp_path / "backups"
    server.script("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)", database=shop)
    own = {"engine": server.engine, "bin_dir": str(server.installation.bin_dir), "journal": "none"}
    run("db_backup", {**server.login(), **own, "databases": [shop], "backup_dir": str(folder), "globals": False})
    bin_dir, log = programs(server)
    host = {**variables(server), "drill_databases": [shop]}
    where = write_hosts(tmp_path, {"one": host}, backup_dir=str(folder), backup_bin_dir=str(bin_dir))
    ran = play("restore_drill", where)
    assert ran.code == 0, said(ran)
    assert [b.level for b in shelf(folder).backups] == ["restore"]
    assert set(log.read_text().split()) == {str(bin_dir / LOADERS[server.engine])}
