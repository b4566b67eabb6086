# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random rules for random tables: what stays, is archived and is deleted, as a plain model says. More of them by
DBFLEET_EXAMPLES."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.fleet import Server
from tests.integration import conftest
from tests.integration.cleanup import Row, content, rows_in_files, rows_of
from tests.integration.conftest import Pool
from tests.integration.module_runner import Ran, run
from tests.integration.retention_model import Fate, Place, World, fate, worlds

EXAMPLES = int(os.environ.get("DBFLEET_EXAMPLES", "20"))
PURGES = ("delete", "archive")
drawn = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)

pytestmark = pytest.mark.every_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def numbers(rows: list[Row], column: str = "n") -> list[int]:
    """Sorted, each as often as it is there."""
    found = (row[column].lstrip("#").partition("e") for row in rows if column in row)
    return sorted(int(digits + int(zeros or 0) * "0") for digits, _e, zeros in found)


class Seen:
    """All rows of a world, by where they are now."""

    def __init__(self, place: Place, world: World, folder: Path) -> None:
        self.kept = self._rows(place, world.name)
        self.archived = self._rows(place, f"{world.name}_archive")
        self.hanging = self._rows(place, "hangs") if world.children else []
        self.hung = self._rows(place, "hangs_archive") if world.children else []
        for row in rows_in_files(folder):
            (self.hung if "c" in row else self.archived).append(row)

    @staticmethod
    def _rows(place: Place, table: str) -> list[Row]:
        try:
            return rows_of(place.where, place.quoted(table), database=place.database)
        except Exception as error:
            if "exist" in str(error) or "no such table" in str(error):
                return []
            raise


def counts(ran: Ran, of: str) -> dict[tuple[str, str], int]:
    """Rows that each purge was expected to take, or took."""
    steps = [step for step in ran.fact()["steps"] if step["kind"] in PURGES]
    return {(step["kind"], step["object"]): int(step[of].get("rows", 0)) for step in steps}


def check(place: Place, world: World, folder: Path) -> None:
    """Check mode, the run, and further ones until nothing is due."""
    made = datetime.now(UTC).replace(microsecond=0)
    place.make(world, made)
    before = Seen(place, world, folder)
    options = place.options(world, folder)
    foretold = run("db_cleanup", options, check=True)
    assert content(Seen(place, world, folder).kept) == content(before.kept), "check mode changed something"
    ran = run("db_cleanup", options)
    wanted = fate(world, made, made)
    assume(wanted == fate(world, made, datetime.now(UTC)))  # midnight came between
    due = len(wanted.archived) + len(wanted.deleted)
    assert foretold.changed == ran.changed == bool(due), ran.fact()
    assert counts(foretold, "expected") == counts(ran, "actual")
    taken = sum(counts(ran, "actual").values())
    assert taken == (due if world.rows_per_run is None else min(due, world.rows_per_run)), ran.fact()
    if world.rows_per_run is not None:
        # The next one takes as many again, and one without the limit takes the rest.
        second = sum(counts(run("db_cleanup", options), "actual").values())
        assert second == min(due - taken, world.rows_per_run)
        options = place.options(world._replace(rows_per_run=None), folder)
        run("db_cleanup", options)
    assert not run("db_cleanup", options).changed, "the second run changed something"
    compare(Seen(place, world, folder), before, world, wanted)


def compare(after: Seen, before: Seen, world: World, wanted: Fate) -> None:
    """Each row is where the model has it, and as it was."""
    assert numbers(after.kept) == sorted(wanted.stay)
    assert numbers(after.archived) == sorted(wanted.archived)
    moved = content(after.kept, after.archived)
    assert moved == content([row for row in before.kept if numbers([row])[0] not in wanted.deleted])
    assert numbers(after.hanging) == sorted(n for n in world.children if n in wanted.stay)
    hung = [n for n in world.children if n in wanted.archived and world.on_children == "archive"]
    assert numbers(after.hung) == sorted(hung)


def explore(place: Place, folder: Path, data: st.DataObject) -> None:
    world = data.draw(worlds(place.engine))
    shutil.rmtree(folder, ignore_errors=True)
    place.drop(world)
    try:
        check(place, world, folder)
    finally:
        place.drop(world)


@drawn
@given(data=st.data())
def test_sqlite(tmp_path: Path, folder: Path, data: st.DataObject) -> None:
    conftest.tested(f"sqlite {sqlite3.sqlite_version}")
    explore(Place(tmp_path / "model.sqlite3"), folder, data)


@pytest.mark.parametrize("name", ["postgresql-16", "mariadb", "mysql"])
def test_server(pool: Pool, database: Callable[[Server], str], folder: Path, name: str) -> None:
    server = pool.get(name)
    place = Place(server, database(server))

    @drawn
    @given(data=st.data())
    def each(data: Any) -> None:
        explore(place, folder, data)

    each()


@pytest.mark.parametrize("name", ["postgresql-16", "mariadb", "mysql"])
def test_a_day_that_has_not_ended_stays_in_its_file(
    pool: Pool, database: Callable[[Server], str], folder: Path, name: str
) -> None:
    """Rows of the cutoff's own day are not due, though the day began before the cutoff."""
    server = pool.get(name)
    place = database(server)
    day = (datetime.now(UTC) - timedelta(days=90)).date()
    server.script(
        f"CREATE TABLE days (id int PRIMARY KEY, at date); INSERT INTO days VALUES (1, '{day}'), (2, CURRENT_DATE);",
        database=place,
    )
    ages = {"archive_after": "30d", "delete_after": "90d", "refuse_over_percent": 100}
    rule = {"name": "r", "table": "days", "date_column": "at", "archive_dir": str(folder), **ages}
    options = {**server.login(), "databases": [place], "journal": "none", "rules": [rule]}
    assert run("db_cleanup", options).changed
    assert not run("db_cleanup", options).changed
    assert len(rows_in_files(folder)) == 1
