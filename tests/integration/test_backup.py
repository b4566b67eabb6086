# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of backups on servers: what check mode shows, what a run does, what a second run leaves alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server

from .backups import aged, codes, fact, kinds, shelf
from .conftest import Pool
from .module_runner import run

TABLES = (
    "CREATE TABLE orders (id integer PRIMARY KEY, name varchar(80), paid decimal(9,2))",
    "INSERT INTO orders VALUES (1, 'snow', 1.50), (2, '', NULL), (3, 'or''d', -7)",
    "CREATE TABLE empty_one (a integer)",
    "CREATE VIEW names AS SELECT name FROM orders",
)
SERVERS = ("postgresql-15", "postgresql-16", "postgresql-18", "mariadb", "mysql")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Server:
    """With the client programs of its version first on the path."""
    found = pool.get(str(request.param))
    monkeypatch.setenv("PATH", str(found.installation.bin_dir), prepend=os.pathsep)
    return found


@pytest.fixture
def shop(server: Server, database: Callable[[Server], str]) -> str:
    name = database(server)
    for sql in TABLES:
        server.sql(sql, database=name)
    return name


def options(server: Server, name: str, folder: Path, **more: Any) -> dict[str, Any]:
    return {**server.login(), "databases": [name], "backup_dir": str(folder), "journal": "none", **more}


def test_backed_up_verified_restored_and_rotated(server: Server, shop: str, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    given = options(server, shop, folder)
    check = run("db_backup", given, check=True)
    assert not folder.exists()
    ran = run("db_backup", given)
    assert [(s["kind"], s["object"], s["reason"], s["statements"]) for s in fact(check)["steps"]] == [
        (s["kind"], s["object"], s["reason"], s["statements"]) for s in fact(ran)["steps"]
    ]
    assert {status for _kind, status in kinds(ran)} == {"done"}
    assert [k for k, _status in kinds(ran)].count("dump") == 2  # the database, and what belongs to none
    assert all(s["proven"] for s in fact(ran)["steps"]), fact(ran)["findings"]
    assert not run("db_backup", given).result["changed"]
    found = {b.method: b for b in shelf(folder).backups}
    assert found["dump"].level == "decode"
    assert found["dump"].server == found["globals"].server

    secret = str(server.login().get("login_password") or "")
    if secret:
        texts = [p.read_text() for p in folder.rglob("*.manifest.json")]
        assert all(secret not in text for text in [*texts, str(ran.result)])

    restoring = {k: v for k, v in given.items() if k != "databases"} | {"database": shop}
    target = f"{shop}_again"
    try:
        assert "is there" in run("db_restore", restoring, fails=True).result["msg"]
        run("db_restore", {**restoring, "target": target}, check=True)
        run("db_restore", {**restoring, "target": target})
        for sql in ("SELECT id, name, paid FROM orders ORDER BY id", "SELECT name FROM names ORDER BY name"):
            assert server.sql(sql, database=target) == server.sql(sql, database=shop)
        server.sql("DELETE FROM orders", database=target)
        run("db_restore", {**restoring, "target": target, "replace": True})
        assert server.sql("SELECT count(*) FROM orders", database=target) == server.sql(
            "SELECT count(*) FROM orders", database=shop
        )
    finally:
        server.sql(f"DROP DATABASE IF EXISTS {target}")

    aged(folder, timedelta(days=1))
    run("db_backup", given)
    rotation = {**given, "keep_last": 1}
    gone = run("db_backup_rotate", rotation)
    assert fact(gone)["summary"]["done"] == 2, fact(gone)
    assert "several_servers" not in codes(gone)
    assert not run("db_backup_rotate", rotation).result["changed"]


def test_a_drill_proves_the_newest(server: Server, shop: str, tmp_path: Path) -> None:
    given = options(server, shop, tmp_path / "backups", globals=False)
    run("db_backup", given)
    drill = {k: v for k, v in given.items() if k not in ("databases", "globals")} | {"database": shop, "drill": True}
    assert run("db_restore", drill).result["changed"]
    assert [b.level for b in shelf(tmp_path / "backups").backups] == ["restore"]
    assert not run("db_restore", drill).result["changed"]


def test_an_assessment_knows_what_is_due(server: Server, shop: str, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    asked = {**server.login(), "databases": [shop], "journal": "none", "statistics": False}
    policy = {"backup": {"backup_dir": str(folder)}, "rotate": {"backup_dir": str(folder), "keep_last": 1}}
    before = run("db_assess_facts", {**asked, **policy}).result["ansible_facts"]["db_due"]
    assert before["backup"]["due"]
    assert not before["rotate"]["due"]
    given = options(server, shop, folder, min_interval="0s", globals=False)
    for _n in range(2):
        run("db_backup", given)
        aged(folder, timedelta(minutes=1))
    after = run("db_assess_facts", {**asked, **policy}).result["ansible_facts"]["db_due"]
    assert [step["kind"] for step in after["rotate"]["sample"]] == ["remove_backup"]
    assert all(step["database"] == "" for step in after["backup"]["sample"])  # globals alone
    if server.engine == "postgresql":  # which looks for its programs beforehand
        without = {"backup": {"backup_dir": str(folder), "bin_dir": str(tmp_path)}}
        lacking = run("db_assess_facts", {**asked, **without}).result["ansible_facts"]["db_due"]
        told = [finding["fix"] for finding in lacking["findings"] if finding["code"] == "no_backup_program"]
        assert [str(tmp_path) in fix for fix in told] == [True] * 3
