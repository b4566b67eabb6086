# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What check mode shows is what runs, statement by statement; a second run does nothing; new churn is due again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server

from .churn import churn, churn_file, fingerprint, folder_print
from .conftest import Pool
from .module_runner import Ran, run

# What a session may say without changing anything. Everything else must have been announced.
READS = re.compile(
    r"\s*(SELECT|SHOW|SET|WITH|BEGIN|START TRANSACTION|COMMIT|ROLLBACK|DO RELEASE_LOCK|EXPLAIN|USE|XA RECOVER)\b",
    re.IGNORECASE,
)
SERVERS = ["postgresql-15", "postgresql-16", "postgresql-18", "mariadb", "mysql"]


def writes(server: Server) -> list[str]:
    """What was said to the server since the mark, besides reads, and besides what this test says itself."""
    return sorted(
        said.statement
        for said in server.logged()
        if said.application != "fleet" and said.statement and not READS.match(said.statement)
    )


def options(server: Server, database: str, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        **server.login(),
        "databases": [database],
        "reclaim_min_size": "1MB",
        "reclaim_method": "exclusive" if server.engine == "postgresql" else "online",
        "assume_free_space": "100GB",
        "journal": str(tmp_path / "journal" / "journal.sqlite"),
        **more,
    }


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, pool: Pool) -> Server:
    return pool.get(str(request.param))


def shown(ran: Ran) -> list[str]:
    return sorted(ran.statements("planned", "done"))


@pytest.mark.every_server
def test_check_shows_what_runs(server: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(server)
    churn(server, name)
    asked = options(server, name, tmp_path)
    before = fingerprint(server, name)
    server.mark_log()
    check = run("db_vacuum", asked, check=True)
    assert writes(server) == []
    assert fingerprint(server, name) == before
    assert not (tmp_path / "journal").exists()
    assert check.changed
    kinds = {kind for _database, _object, kind in check.steps()}
    assert {"analyze", "reclaim"} <= kinds
    assert "vacuum" in kinds or server.engine != "postgresql"

    server.mark_log()
    real = run("db_vacuum", asked)
    assert real.changed
    assert sorted(real.steps()) == sorted(check.steps())
    assert writes(server) == shown(check) == shown(real)
    assert {s["status"] for s in real.fact()["steps"]} == {"done"}
    assert all(s["proven"] for s in real.fact()["steps"]), real.text
    reclaimed = [s for s in real.fact()["steps"] if s["kind"] == "reclaim"]
    assert all(s["actual"]["bytes_freed"] > 0 for s in reclaimed)


@pytest.mark.every_server
def test_a_second_run_does_nothing(server: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(server)
    churn(server, name)
    asked = options(server, name, tmp_path)
    first = run("db_vacuum", asked)
    for forget in (False, True):
        if forget:
            (tmp_path / "journal" / "journal.sqlite").unlink()
        server.mark_log()
        second = run("db_vacuum", asked)
        assert not second.changed, second.text
        assert second.steps() == []
        assert writes(server) == []
    churn(server, name, again=True)
    third = run("db_vacuum", asked, check=True)
    assert {s[1] for s in third.steps()} <= {s[1] for s in first.steps()}
    assert {"reclaim", "analyze"} <= {s[2] for s in third.steps()} | {"analyze"}
    assert third.changed


@pytest.mark.every_server
def test_sqlite_check_shows_what_runs(lite: Callable[[str], Path], tmp_path: Path) -> None:
    path = lite("shop 'quoted'.sqlite3")
    churn_file(path)
    asked = {
        "engine": "sqlite",
        "databases": [str(path)],
        "reclaim_min_size": "1MB",
        "reclaim_method": "exclusive",
        "journal": str(tmp_path / "journal" / "journal.sqlite"),
    }
    before = folder_print(tmp_path)
    check = run("db_vacuum", asked, check=True)
    assert folder_print(tmp_path) == before
    assert {"analyze", "reclaim"} <= {s[2] for s in check.steps()}
    real = run("db_vacuum", asked)
    assert sorted(real.steps()) == sorted(check.steps())
    assert shown(check) == shown(real)
    assert all(s["proven"] for s in real.fact()["steps"]), real.text
    assert not run("db_vacuum", asked).changed
    (tmp_path / "journal" / "journal.sqlite").unlink()
    assert not run("db_vacuum", asked).changed
    churn_file(path, again=True)
    again = run("db_vacuum", asked, check=True)
    assert again.changed
    assert "reclaim" in {s[2] for s in again.steps()}


@pytest.mark.every_server
@pytest.mark.parametrize("module", ["db_bloat_facts", "db_assess_facts", "db_stats_facts"])
def test_facts_modules_only_read(
    server: Server, database: Callable[[Server], str], tmp_path: Path, module: str
) -> None:
    name = database(server)
    churn(server, name)
    asked = options(server, name, tmp_path)
    mine = {k: v for k, v in asked.items() if not k.startswith("reclaim") and k != "assume_free_space"}
    extra: dict[str, Any] = {"min_size": "1MB"} if module == "db_bloat_facts" else {}
    if module == "db_assess_facts":
        extra = {"vacuum": {k: v for k, v in asked.items() if k.startswith("reclaim")}, "preflight": {}}
    before = fingerprint(server, name)
    server.mark_log()
    found = run(module, {**mine, **extra})
    assert writes(server) == []
    assert fingerprint(server, name) == before
    assert not found.changed
    if module == "db_assess_facts":
        assert found.fact()["vacuum"]["due"] is True
        assert found.fact()["backup"] == {**found.fact()["reindex"], "assessed": False, "due": False}
    elif module == "db_stats_facts":
        assert any("jobs" in o["object"] for o in found.fact()["sizes"]["tables"]), found.text
    else:
        assert any("jobs" in o["object"] and o["bloated"] for o in found.fact()["objects"]), found.text
