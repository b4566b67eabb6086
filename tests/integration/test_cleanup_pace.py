# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cleanup that leaves most of the time to others does the same, says so, and is predicted to take longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server

from .conftest import Pool
from .module_runner import Ran, run
from .test_cleanup_postgresql import options

RULE = {"name": "old", "table": "t", "date_column": "at", "delete_after": "1d", "refuse_over_percent": 100}
ROWS = 20_000
MAKE = f"""
CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz NOT NULL);
INSERT INTO t SELECT n, now() - interval '90 days' + n * interval '1 minute' FROM generate_series(1, {ROWS}) n;
INSERT INTO t SELECT -n, now() FROM generate_series(1, 5) n;
CREATE INDEX ON t (at);
ANALYZE t;
"""


@pytest.fixture
def server(pool: Pool) -> Server:
    return pool.get("postgresql-16")


def of(ran: Ran, kind: str) -> dict[str, Any]:
    (step,) = [s for s in ran.fact()["steps"] if s["kind"] == kind]
    return dict(step)


def test_it_rests_and_takes_all_the_same(server: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(server)
    server.script(MAKE, database=name)
    hurried, given = options(server, name, tmp_path, RULE), options(server, name, tmp_path, RULE, duty_percent=25)
    expected = [of(run("db_cleanup", words, check=True), "delete")["expected"] for words in (hurried, given)]
    assert expected[0]["rows"] == expected[1]["rows"] == ROWS
    assert expected[1]["seconds"] == pytest.approx(4 * expected[0]["seconds"], rel=0.02)

    done = run("db_cleanup", given)
    purge, vacuum = of(done, "delete"), of(done, "vacuum")
    assert (purge["status"], purge["proven"], purge["actual"]["rows"]) == ("done", True, ROWS)
    assert purge["actual"]["rows_remaining"] == 0
    assert vacuum["statements"][0] == "SET vacuum_cost_delay = 2"
    assert (vacuum["status"], vacuum["proven"]) == ("done", True)
    assert server.sql("SELECT count(*) FROM t", database=name) == [["5"]]
    assert not run("db_cleanup", given).changed
