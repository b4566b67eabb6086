# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong while old rows are taken on MySQL and MariaDB: others at work, and runs that die."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import purge
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.connection import Link
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Gone
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.shelf import Shelf
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Pace
from tests.fleet import Server
from tests.integration.cleanup import Application, connection, content, digest, rows_in_files, rows_of
from tests.integration.my import client
from tests.integration.my_cleanup import (
    ARCHIVED,
    COLUMNS,
    OLD,
    TEN_DAYS,
    MakeDatabase,
    cleaner,
    counted,
    days_ago,
    make,
)

# ---- others are at work ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["nowhere", "table", "files"])
@pytest.mark.parametrize("index", ["", ", key (at)"])
def test_while_the_application_writes(
    mysql: Server, database: MakeDatabase, tmp_path: Path, place: str, index: str
) -> None:
    """A row that is updated meanwhile is archived as it last was, or still there."""
    name = database(mysql)
    make(mysql, name, COLUMNS + index, rows=4000)
    before = {row["id"]: row for row in rows_of(mysql, "t", database=name)}
    folder = {"archive_dir": str(tmp_path / "a")} if place == "files" else {}
    rule = TEN_DAYS if place == "nowhere" else {**ARCHIVED, **folder}
    old = list(range(1500, 4001))

    def insert(fresh: int) -> str:
        return f"INSERT INTO t VALUES ({fresh}, {days_ago(20 * (fresh % 2))}, 'fresh', 0)"

    with cleaner(mysql, name, rule) as clean:
        with Application(lambda: connection(mysql, name), "t", old, insert) as shop:
            clean.run(lambda tick: time.sleep(0.01), pace=Pace(100, 0.2))
        while clean.steps():  # what came behind the walk
            clean.run()
    kept = rows_of(mysql, "t", database=name)
    gone: list[dict[str, str]] = []
    if place != "nowhere":
        gone = rows_in_files(tmp_path / "a") if folder else rows_of(mysql, "t_archive", database=name)
    notes = {row["id"]: row["note"] for row in [*kept, *gone]}
    assert len(notes) == len(kept) + len(gone)  # none is in two places
    assert len(shop.notes) > 20 and shop.inserted
    ids = {key: f"#{key}" for key in shop.notes}
    for number in ids:
        said = next((note for key, note in notes.items() if _id(key) == number), None)
        assert said in ((f"'{shop.notes[number]}",) if place != "nowhere" else (f"'{shop.notes[number]}", None))
    if place != "nowhere":
        assert {_id(key) for key in notes} == {_id(key) for key in before} | shop.inserted


def _id(cell: str) -> int:
    """`#15e2` is 1500."""
    digits, _e, zeros = cell[1:].partition("e")
    return int(digits + "0" * int(zeros or 0))


def test_a_locked_row_is_waited_for_and_tried_again(mysql: Server, database: MakeDatabase) -> None:
    """Busy after lock_timeout, nothing of the bite is gone; and with the lock away all goes on."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)")
    with (
        cleaner(mysql, name, {**ARCHIVED, "archive_after": "13d"}) as rule,
        client(mysql, name, autocommit=False) as say,
    ):
        (step,) = rule.steps()
        say("SELECT * FROM t WHERE id = 1990 FOR UPDATE")
        with pytest.raises(Busy):
            rule.carry_out(step, pace=Pace(100, 0.2))
        taken = counted(mysql, name, "t_archive")
        assert taken + counted(mysql, name, "t") == 2000
        say("ROLLBACK")
        rule.run()
        assert rule.steps() == []


def test_what_comes_behind_the_last_row_that_is_due_is_left_alone(mysql: Server, database: MakeDatabase) -> None:
    """Neither walked nor locked: on a key in the order of the dates that is all that stays."""
    name = database(mysql)
    make(mysql, name, values=f"i, {days_ago('(2000 - i + 0.5) / 144')}, 'x', 0")
    due = counted(mysql, name, "t", OLD)
    cursors: list[Any] = []
    with client(mysql, name) as shop, cleaner(mysql, name, TEN_DAYS) as clean:
        shop("START TRANSACTION")
        assert len(shop(f"SELECT id FROM t WHERE id > {due} FOR UPDATE")) == 2000 - due
        done = clean.run(lambda tick: cursors.append(json.loads(tick.cursor or "")["at"]), pace=Pace(100, 0.2))
        assert done.rows("delete") == due
        shop("ROLLBACK")
    assert 0 < due < 2000
    assert cursors[-1] == [str(due)]
    assert counted(mysql, name, "t") == 2000 - due


def test_a_row_that_stays_and_is_locked_stops_nobody(mysql: Server, database: MakeDatabase) -> None:
    """Without an index on the date rows are looked at that are not due: somebody may hold one of them for hours."""
    name = database(mysql)
    make(mysql, name)
    mysql.sql(f"UPDATE t SET at = {days_ago(1)} WHERE id IN (1700, 1800)", database=name)
    with cleaner(mysql, name, TEN_DAYS) as rule, client(mysql, name, autocommit=False) as say:
        say("SELECT * FROM t WHERE id IN (1700, 1800) FOR UPDATE")
        (step,) = rule.steps()
        assert rule.run().rows("delete") == step.expected.rows
        say("ROLLBACK")
        assert rule.steps() == []


# ---- runs that die ---------------------------------------------------------------------------------------------------


class Dies(Exception):
    """The process is gone: nothing is put in order."""


Dying = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["before", "killed", "after"])
def dying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Dying:
    """The third commit of a bite: the session ends before it, in it, or right after it, and the process with it."""
    moment, count = str(request.param), iter(range(1, 100))
    commit = purge.Bites.commit

    def committing(self: purge.Bites) -> None:
        if next(count) < 3:
            commit(self)
            return
        if moment == "after":
            commit(self)
        if moment == "killed":
            another(self).rows(f"KILL {self.link.id}")
            time.sleep(0.2)
            commit(self)
        self.link.close()
        raise Dies

    def closing(self: Shelf) -> None:
        for data in self._data.values():
            os.close(data.fd)  # as the system does, and their locks with them

    @contextmanager
    def until_then() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(purge.Bites, "commit", committing)
            patch.setattr(Shelf, "close", closing)
            yield

    return until_then


def another(bites: purge.Bites) -> Link:
    return Link(bites.link.login, Execution())


@pytest.mark.parametrize("touched", ["", "UPDATE t SET note = 'new' WHERE TRUE", "DELETE FROM t WHERE id % 2"])
def test_a_run_that_died_is_settled(
    mysql: Server, database: MakeDatabase, tmp_path: Path, dying: Dying, touched: str
) -> None:
    """Each row is in exactly one place after the next run, whatever the application did in between."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)")
    before = rows_of(mysql, "t", database=name)
    rule = {**ARCHIVED, "archive_dir": str(tmp_path / "a")}
    with dying(), cleaner(mysql, name, rule) as clean:
        (step,) = clean.steps()
        with pytest.raises((Dies, Gone)):
            clean.carry_out(step, pace=Pace(100, 0.2))
    left = list((tmp_path / "a").iterdir())
    assert any(".pending" in path.name for path in left)
    lost = rows_of(mysql, "t", "id % 2", database=name) if touched.startswith("DELETE") else []
    if touched:
        # Of the third bite, which nobody knows to be committed.
        mysql.sql(f"{touched} AND id BETWEEN 1750 AND 1780", database=name)
    kept = content(rows_of(mysql, "t", database=name))
    with cleaner(mysql, name, rule) as clean:
        assert [s.task.kind for s in clean.steps()][:1] == ["settle"]
        clean.run()
        assert clean.steps() == []
    files, table = rows_in_files(tmp_path / "a"), rows_of(mysql, "t", database=name)
    ids = [row["id"] for row in [*files, *table]]
    assert len(ids) == len(set(ids))
    if not touched:
        assert digest(files, table) == digest(before)
    assert not kept - content(files, table)
    assert {row["id"] for row in before} - set(ids) <= {row["id"] for row in lost}


def test_a_bite_goes_on_where_the_last_one_ended(mysql: Server, database: MakeDatabase) -> None:
    """With the cursor, without it, and with one of another walk."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)")
    with cleaner(mysql, name, {**TEN_DAYS, "rows_per_run": 100}) as rule:
        (step,) = rule.steps()
        cursors: list[str | None] = []
        rule.carry_out(step, lambda tick: cursors.append(tick.cursor), pace=Pace(50, 0.2))
        assert cursors[-1]
        left = counted(mysql, name, "t", OLD)
        assert left == 560 - 100
        for cursor in (cursors[-1], "{", '{"walk": "other", "at": ["1"]}', cursors[0]):
            with rule.used.engine.session(name) as session:
                work = rule.used.engine.carry_out(session, step.task, rule.used.server, cursor)
                next(work)
                work.close()
        with rule.used.engine.session(name) as session:
            task: Any = step.task
            task = task._replace(rows=None)
            work = rule.used.engine.carry_out(session, task, rule.used.server, cursors[-1])
            next(work)
            drained(work)
    assert counted(mysql, name, "t", OLD) == 0


def drained(work: Any) -> None:
    with suppress(StopIteration):
        while True:
            work.send(Pace(100, 0.2))
