# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard whose connection is killed in mid-run: taken again before the next step, or the step is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.guard import name_of
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Held, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Rebuild
from tests.fleet import Server

from .module_runner import start, until
from .my import client, fill, fingerprint, use

Make = Callable[[Server], str]


def holder(server: Server, database: str) -> str:
    """The connection that holds the guard of a database; empty when nobody does."""
    found = server.sql(f"SELECT IS_USED_LOCK('{name_of(database)}')")[0][0]
    return "" if found in (None, "NULL") else found


def kill_guard(server: Server, database: str) -> str:
    victim = holder(server, database)
    assert victim
    server.sql(f"KILL {victim}")
    until(lambda: holder(server, database) != victim, what="the lock's end with its connection")
    return victim


def test_a_lost_guard_is_taken_again(mysql: Server, database: Make) -> None:
    name, other = database(mysql), database(mysql)
    fill(mysql, name, "t", "id int primary key, n int", "i, i", 100)
    with use(mysql) as mine, use(mysql) as another:
        with mine.engine.guard([name, other], 0):
            victims = {kill_guard(mysql, name)}
            assert holder(mysql, other) == ""
            mine.carry_out(Analyze(Ref(name, ("t",))))
            for one in (name, other):
                assert holder(mysql, one) not in {"", *victims}
                with pytest.raises(Held), another.engine.guard([one], 0):
                    pass
            # And once more: the new one is watched like the old.
            victims.add(kill_guard(mysql, other))
            mine.carry_out(Rebuild(Ref(name, ("t",))))
            assert holder(mysql, other) not in {"", *victims}
        assert holder(mysql, name) == holder(mysql, other) == ""
        with another.engine.guard([name, other], 0):
            pass


def test_a_guard_that_another_run_has_taken_is_not_worked_under(mysql: Server, database: Make) -> None:
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, n int", "i, i", 100)
    task = Rebuild(Ref(name, ("t",)))
    with use(mysql) as mine, use(mysql) as another, mine.engine.guard([name], 0):
        kill_guard(mysql, name)
        with another.engine.guard([name], 0):
            before = fingerprint(mysql, name)
            with pytest.raises(Refused, match="guard was lost, and another run is at work"):
                mine.carry_out(task)
            assert fingerprint(mysql, name) == before
        mine.carry_out(task)


def test_a_released_lock_is_noticed(mysql: Server, database: Make) -> None:
    """The connection is there, and its lock is not: whoever pools connections resets them."""
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, n int", "i, i", 100)
    with use(mysql) as mine, mine.engine.guard([name], 0):
        assert mine.engine._guard
        mine.engine._guard._link.rows("DO RELEASE_ALL_LOCKS()")
        assert holder(mysql, name) == ""
        mine.carry_out(Analyze(Ref(name, ("t",))))
        assert holder(mysql, name)


def test_a_run_whose_guard_is_killed(mysql: Server, database: Make, tmp_path: Path) -> None:
    """Between two steps of a module; nobody else gets in before it has ended."""
    name = database(mysql)
    for table in ("a", "b"):
        fill(mysql, name, table, "id int primary key, v varchar(300), key (v)", "i, repeat(i, 30)", 60000)
        mysql.sql(f"DELETE FROM {table} WHERE id % 10 > 0", database=name)
    options = {
        **mysql.login(),
        "databases": [name],
        "actions": ["reclaim"],
        "reclaim_min_size": "1MB",
        "assume_free_space": "100GB",
        "journal": str(tmp_path / "journal.sqlite"),
        "jobs": 1,
        "lock_timeout": "30s",
    }
    under_way = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER TABLE%FORCE%'"
    # The first rebuild waits for this reader to end: on a fast server both would be over before the guard is killed.
    with client(mysql, name) as reader:
        reader("START TRANSACTION")
        reader("SELECT COUNT(*) FROM a, b WHERE a.id < 9 AND b.id < 9")
        module = start("db_vacuum", options)
        until(lambda: mysql.sql(under_way)[0][0] == "1", what="the first rebuild")
        victim = kill_guard(mysql, name)
    seen: set[str] = set()
    watching = threading.Event()

    def watch() -> None:
        while not watching.is_set():
            seen.add(holder(mysql, name))

    watcher = threading.Thread(target=watch)
    watcher.start()
    ran = module.wait()
    watching.set()
    watcher.join()
    assert {s["status"] for s in ran.fact()["steps"]} == {"done"}, ran.text
    assert len(ran.steps()) == 2
    assert seen - {"", victim}, "nobody held the guard for the second step"
