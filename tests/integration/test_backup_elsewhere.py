# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills on another server that runs: proven there, and nothing is left there, nor a word of its password anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server

from .backups import fact, kinds
from .conftest import Pool
from .lite import make
from .module_runner import Ran, run
from .pg import role
from .pg_backups import shelf

Make = Callable[[Server], str]
FILL = """
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 300) i;
GRANT SELECT ON t TO {role};
ALTER TABLE t OWNER TO {role};
"""
THERE = "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database ORDER BY 1"
ROLES = "SELECT rolname FROM pg_roles ORDER BY 1"


@pytest.fixture
def source(pool: Pool) -> Server:
    return pool.get("postgresql-16")


@pytest.fixture
def other(pool: Pool) -> Server:
    return pool.get("postgresql-18")


def options(source: Server, other: Server, folder: Path, **more: Any) -> dict[str, Any]:
    on = {name: value for name, value in other.login().items() if name not in ("engine", "login_password")}
    told = {"backup_dir": str(folder), "journal": "none", "drill_on": on, "drill_password": other.password}
    return {**source.login(), "bin_dir": str(other.bin_dir), **told, **more}


def drilled(source: Server, other: Server, folder: Path, database: str, **more: Any) -> Ran:
    fails = more.pop("fails", False)
    told = options(source, other, folder, drill=True, database=database, **more)
    return run("db_restore", told, fails=fails)


def test_a_drill_on_another_server(source: Server, other: Server, database: Make, tmp_path: Path) -> None:
    """Which knows none of the owners and privileges; nothing stays there."""
    shop = database(source)
    before = other.sql(THERE), other.sql(ROLES)
    with role(source, f"owner_{shop}", database=shop):
        source.script(FILL.replace("{role}", f"owner_{shop}"), database=shop)
        plain = {name: value for name, value in options(source, other, tmp_path).items() if "drill" not in name}
        ran = run("db_backup", {**plain, "databases": [shop], "globals": False})
        assert ("verify", "done") in kinds(ran)
        proven = drilled(source, other, tmp_path, shop)
        assert kinds(proven) == [("restore", "done")]
        assert f"a scratch database on {other.host}:{other.port}" in fact(proven)["steps"][0]["statements"][0]
        assert other.password not in proven.text
        assert shelf(tmp_path)[0].level == "restore"
        assert kinds(drilled(source, other, tmp_path, shop)) == []
    assert (other.sql(THERE), other.sql(ROLES)) == before


def test_a_backup_is_verified_on_another_server(source: Server, other: Server, database: Make, tmp_path: Path) -> None:
    shop = database(source)
    source.script("CREATE TABLE t AS SELECT generate_series(1, 50) AS id", database=shop)
    before = other.sql(THERE)
    other.mark_log()
    told = options(source, other, tmp_path, databases=[shop], globals=False, verify="restore")
    assert kinds(run("db_backup", told)) == [("dump", "done"), ("verify", "done")]
    assert any("COPY" in said.statement for said in other.logged())
    assert shelf(tmp_path)[0].level == "restore"
    assert other.sql(THERE) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drill_on": {"login_host": "127.0.0.1", "login_password": "x"}}, "a password in it would be logged"),
        ({"drill_on": {"login_port": 1}}, "names no server"),
        ({"drill_on": {"login_host": "127.0.0.1", "port": 1}}, "port is no option of that server"),
        ({"drill_on": "elsewhere"}, "'elsewhere' is not known"),
        ({"drill_on": "throwaway"}, "drill_password is for another server"),
    ],
)
def test_what_is_no_server(source: Server, other: Server, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    ran = drilled(source, other, tmp_path, "shop", fails=True, **change)
    assert said in ran.result["msg"]


def test_servers_that_are_no_good(source: Server, other: Server, database: Make, tmp_path: Path) -> None:
    """An older one, and one that does not let us in: the backup stays as far verified as it was."""
    shop = database(other)
    told = options(other, other, tmp_path, databases=[shop], globals=False)
    run("db_backup", {name: value for name, value in told.items() if "drill" not in name})
    older = drilled(other, source, tmp_path, shop, fails=True, bin_dir=str(other.bin_dir))
    assert f"has version 16, older than the backup's {other.version}" in older.result["msg"]
    closed = drilled(other, other, tmp_path, shop, fails=True, drill_password="wrong")
    assert "password authentication failed" in closed.result["msg"]
    assert shelf(tmp_path)[0].level == "decode"


def test_no_other_engine_is_tried_out_elsewhere(other: Server, tmp_path: Path) -> None:
    path = make(tmp_path / "shop.sqlite3", "CREATE TABLE t (id INTEGER)")
    told = {"engine": "sqlite", "backup_dir": str(tmp_path / "b"), "database": str(path), "journal": "none"}
    ran = run("db_restore", {**told, "drill": True, "drill_on": {"login_host": "127.0.0.1"}}, fails=True)
    assert "drill_on another server is not for sqlite" in ran.result["msg"]
