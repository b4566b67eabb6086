# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups by the playbooks, as cron and AWX run them: made, rotated, and required before old rows leave."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.demo import aging
from tests.playbook import play

from . import lite as files
from .backups import aged, backed_up, shelf
from .playing import Hosts, said, write_hosts

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
