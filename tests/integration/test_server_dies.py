# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that die while a module works: what went wrong first is told, not only that nobody answers any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fleet import Fleet

from .module_runner import start
from .my import wait_until

NOISE = {
    "postgresql": "CREATE TABLE t AS SELECT sha512(i::text::bytea) AS x FROM generate_series(1, 300000) i",
    "mariadb": "CREATE TABLE t AS SELECT sha2(seq, 512) AS x FROM seq_1_to_200000",
}

LOADING = {
    "postgresql": "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY%FROM%'",
    "mariadb": "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'copy' AND TABLE_NAME = 't'",
}


@pytest.mark.parametrize("engine", NOISE)
@pytest.mark.parametrize("kind", ["db_backup", "db_restore"])
def test_the_first_cause_is_told(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, kind: str
) -> None:
    name = f"dying-{engine}-{kind}"
    server = fleet.postgresql(16, name=name) if engine == "postgresql" else fleet.mariadb(name=name)
    monkeypatch.setenv("PATH", os.pathsep.join((str(server.installation.bin_dir), os.environ["PATH"])))
    server.sql("CREATE DATABASE shop")
    server.sql(NOISE[engine], database="shop")
    told = {**server.login(), "engine": engine, "backup_dir": str(tmp_path), "journal": "none"}
    dump = {**told, "databases": ["shop"], "globals": False}
    if kind == "db_restore":
        assert start("db_backup", dump).wait().result["changed"]
    if kind == "db_backup":
        running = start(kind, {**dump, "rate_limit": "1MB"})
        wait_until(lambda: any(path.stat().st_size > 1 << 19 for path in tmp_path.rglob("*.partial")))
    else:
        running = start(kind, {**told, "database": "shop", "target": "copy"})
        wait_until(lambda: server.sql(LOADING[engine]), seconds=30)
    server.kill()
    message = running.wait().result["msg"]
    assert "refused" in message and "since then" in message
    assert any(words in message for words in ("closed the connection", "onnection was lost", "Lost connection"))
