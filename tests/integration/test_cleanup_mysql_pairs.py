# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bites of MySQL and MariaDB that two sessions take at once: the halves are the whole, and either can fail."""

from __future__ import annotations

from threading import Timer
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import crew, purge
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Gone, Stopped
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Pace
from tests.fleet import Server
from tests.integration.cleanup import content, rows_of
from tests.integration.my import client, use
from tests.integration.my_cleanup import (
    AGES,
    COLUMNS,
    OLD,
    TEN_DAYS,
    Cleaner,
    MakeDatabase,
    cleaner,
    counted,
    days_ago,
    make,
)

PACE = Pace(100, 0.2)
UPWARDS = (
    f"i, {days_ago('(2000 - i + 0.5) / 144')}, CONCAT('row ', i), i % 7"  # 560 are due, in the order of their keys
)
TABLES = {
    "key": (f"{COLUMNS}, key (at)", AGES),
    "date": (f"{COLUMNS}, key (at)", f"i, {days_ago('MOD(i, 9) / 2 + 6.7')}, 'x', 0"),
    "no index": (COLUMNS, f"i, {days_ago('MOD(i, 40) + 0.5')}, 'x', 0"),
    "two columns": (
        "a int, b varchar(9), at datetime null, primary key (a, b)",
        f"i % 5, CONCAT('é', i), {days_ago('(i - 0.5) / 144')}",
    ),
    "bytes": ("id varbinary(9) primary key, at datetime", f"CHAR(i % 256, i DIV 256), {days_ago('(i - 0.5) / 144')}"),
}


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each bite that two sessions took; bites of a few rows are enough for that here."""
    found: list[int] = []
    delete = crew.Pair.delete

    def told(self: crew.Pair, lower: str, upper: str, between: str) -> int:
        found.append(delete(self, lower, upper, between))
        return found[-1]

    monkeypatch.setattr(crew.Pair, "delete", told)
    monkeypatch.setattr(purge, "LEAST", 10)
    return found


@pytest.mark.parametrize("shape", TABLES)
def test_both_halves_are_the_whole(mysql: Server, database: MakeDatabase, pairs: list[int], shape: str) -> None:
    """Along every kind of key: what was counted is gone, all else is as it was, and nobody waited for the other."""
    name = database(mysql)
    make(mysql, name, *TABLES[shape])
    stays = content(rows_of(mysql, "t", f"NOT {OLD}", database=name))
    with cleaner(mysql, name, TEN_DAYS) as clean:
        (step,) = clean.steps()
        assert clean.run(pace=PACE).rows("delete") == step.expected.rows > 0
        assert clean.steps() == []
    assert content(rows_of(mysql, "t", database=name)) == stays
    # All of them but where few rows are left.
    assert len(pairs) >= step.expected.rows // 100 and sum(pairs) > step.expected.rows - 51


def test_a_locked_row_undoes_both_halves(mysql: Server, database: MakeDatabase, pairs: list[int]) -> None:
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)", UPWARDS)
    with cleaner(mysql, name, TEN_DAYS) as clean, client(mysql, name, autocommit=False) as say:
        (step,) = clean.steps()
        say("SELECT * FROM t WHERE id = 180 FOR UPDATE")  # in the upper half of the second bite
        with pytest.raises(Busy):
            clean.carry_out(step, pace=PACE)
        assert pairs == [100]
        assert counted(mysql, name, "t") == 2000 - 100
        say("ROLLBACK")
        clean.run(pace=PACE)
        assert clean.steps() == []


def test_a_second_session_that_dies_is_done_without(mysql: Server, database: MakeDatabase, pairs: list[int]) -> None:
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)", UPWARDS)
    with cleaner(mysql, name, TEN_DAYS) as clean, client(mysql, name) as say:
        (step,) = clean.steps()

        def kill(_tick: object) -> None:
            engine: Any = clean.used.engine
            for link in engine._crew._idle:
                say(f"KILL {link.id}")

        assert clean.carry_out(step, kill, pace=PACE).rows == step.expected.rows
        assert clean.steps() == []
    assert len(pairs) == 1


def test_half_a_bite_that_is_committed_is_gone_and_no_more(
    mysql: Server, database: MakeDatabase, pairs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second session dies between the two commits: its rows are still there, and the next run takes them."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)", UPWARDS)
    commit = crew.Pair.commit
    with cleaner(mysql, name, TEN_DAYS) as clean, client(mysql, name) as say:
        (step,) = clean.steps()

        def committing(self: crew.Pair) -> None:
            say(f"KILL {self._other.id}")
            commit(self)

        with monkeypatch.context() as patch:
            patch.setattr(crew.Pair, "commit", committing)
            with pytest.raises(Gone):
                clean.carry_out(step, pace=PACE)
        assert counted(mysql, name, "t") == 2000 - 51  # and the row between the halves
        assert clean.run(pace=PACE).rows("delete") == step.expected.rows - 51
        assert clean.steps() == []
        assert counted(mysql, name, "t") == 2000 - step.expected.rows


def test_a_run_that_is_stopped_leaves_no_half(mysql: Server, database: MakeDatabase, pairs: list[int]) -> None:
    """The first session is cancelled while the second waits for a lock: neither has removed anything."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)", UPWARDS)
    with use(mysql, Execution(lock_timeout=30)) as used, client(mysql, name, autocommit=False) as say:
        clean = Cleaner(used, name, TEN_DAYS)
        (step,) = clean.steps()
        task: Any = step.task
        say("SELECT * FROM t WHERE id IN (30, 80) FOR UPDATE")  # one in each half of the first bite
        with used.engine.session(name) as session:
            work = used.engine.carry_out(session, task._replace(pace=PACE), used.server, None)
            Timer(0.3, session.cancel).start()
            with pytest.raises(Stopped):
                next(work)
            work.close()
        say("ROLLBACK")
        assert counted(mysql, name, "t") == 2000
        clean.run(pace=PACE)
        assert clean.steps() == []


@pytest.mark.parametrize("case", ["jobs", "trigger", "duty"])
def test_one_session_where_two_would_be_too_many(
    mysql: Server, database: MakeDatabase, pairs: list[int], case: str
) -> None:
    """What a trigger does for one of them, the other would wait for."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)", UPWARDS)
    if case == "trigger":
        mysql.sql("CREATE TABLE n (n int); INSERT INTO n VALUES (0)", database=name)
        mysql.sql("CREATE TRIGGER c AFTER DELETE ON t FOR EACH ROW UPDATE n SET n = n + 1", database=name)
    with use(mysql, Execution(jobs=1 if case == "jobs" else 2)) as used:
        clean = Cleaner(used, name, TEN_DAYS)
        clean.run(pace=PACE._replace(duty=0.5) if case == "duty" else PACE)
        assert clean.steps() == []
    assert pairs == []
