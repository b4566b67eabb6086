# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A purge of PostgreSQL that was stopped goes on at its cursor, and comes round to what lies before that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Pace, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Expiry
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Purge
from tests.fleet import Server

from . import pg

SHAPES = {
    "by date": "CREATE TABLE t (at timestamptz, id int PRIMARY KEY); CREATE INDEX ON t (at)",
    "by date and key": "CREATE TABLE t (at timestamptz, id int PRIMARY KEY); CREATE INDEX ON t (at DESC, id DESC)",
    "by date alone": "CREATE TABLE t (at timestamptz, id int); CREATE INDEX ON t (at)",
    "by key": "CREATE TABLE t (at timestamptz, id int PRIMARY KEY)",
    "by place": "CREATE TABLE t (at timestamptz, id int)",
}
# 25 rows of each moment, so that a bite of 10 ends within one; every third is due no more.
FILLED = """INSERT INTO t SELECT now() - CASE WHEN n % 3 = 0 THEN interval '1 hour' ELSE interval '9 days' END
                                 - n / 25 * interval '1 second', n FROM generate_series(1, 600) n"""
ALL = 1_000_000
LEFT = "SELECT count(*) FROM t WHERE at < now() - interval '1 day'"


def purge(used: pg.Used, task: Purge, cursor: str | None, bites: int) -> str | None:
    """Some bites of 10 rows, or all of them; the cursor where it ended. None of them is larger."""
    with used.engine.session(task.ref.database) as session:
        act = used.engine.carry_out(session, task, used.server, cursor)
        try:
            tick = next(act)
            while bites:
                assert tick.amount.rows <= task.pace.rows
                cursor = tick.cursor or cursor
                bites -= tick.cursor is not None
                tick = act.send(task.pace)
        except StopIteration:
            pass
        finally:
            act.close()
    return cursor


@pytest.mark.parametrize("bites", [1, 7, 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_cursor_is_where_it_goes_on(
    postgresql: Server, database: Callable[[Server], str], shape: str, bites: int
) -> None:
    name = database(postgresql)
    postgresql.script(f"{SHAPES[shape]}; {FILLED}", database=name)
    ref = Ref(name, ("public", "t"))
    expiry = Expiry("old", "t", "", "at", datetime.now(UTC) - timedelta(days=1))
    task = Purge(ref, ref, expiry, (), pace=Pace(10, 0.2))
    with pg.use(postgresql) as used:
        due = int(postgresql.sql(LEFT, database=name)[0][0])
        cursor = purge(used, task, None, bites)
        left = int(postgresql.sql(LEFT, database=name)[0][0])
        assert cursor and 0 < left < due
        # It became due meanwhile, behind the cursor and in front of it; and its place is one that is free again.
        postgresql.sql(
            "INSERT INTO t SELECT now() - interval '20 days', -n FROM generate_series(1, 30) n", database=name
        )
        postgresql.sql("VACUUM t", database=name)
        postgresql.sql(
            "INSERT INTO t SELECT now() - interval '2 days', 2000 + n FROM generate_series(1, 30) n", database=name
        )
        purge(used, task, cursor, ALL)
        assert postgresql.sql(LEFT, database=name) == [["0"]]
        assert postgresql.sql("SELECT count(*) FROM t", database=name) == [["200"]]
        # A cursor of another rule, or of no sense at all, is none.
        for odd in ("{", '{"of": "x", "at": ["1"]}', '{"at": 1}', "[]", cursor.replace('"at"', '"of"')):
            postgresql.sql("INSERT INTO t SELECT now() - interval '20 days', -1", database=name)
            purge(used, task, odd, ALL)
            assert postgresql.sql(LEFT, database=name) == [["0"]]
