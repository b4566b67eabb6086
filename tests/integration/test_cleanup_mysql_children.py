# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows of MySQL and MariaDB from which others hang, and partitions that go whole."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Pace, Step
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropPartition
from tests.fleet import Server
from tests.integration.cleanup import digest, rows_in_files, rows_of
from tests.integration.module_runner import run
from tests.integration.my import client
from tests.integration.my_cleanup import (
    AGES,
    ARCHIVED,
    COLUMNS,
    OLD,
    SEED,
    TEN_DAYS,
    MakeDatabase,
    cleaner,
    counted,
    days_ago,
    make,
)

# ---- what hangs from the rows ----------------------------------------------------------------------------------------

FAMILY = """
    CREATE TABLE line (id int primary key, t int, n int, foreign key a (t) references t (id) {rule});
    CREATE TABLE note (id int primary key, line int, foreign key b (line) references line (id) {rule});
    INSERT INTO line SELECT id * 10, id, 1 FROM t WHERE id % 3 = 0;
    INSERT INTO line SELECT id * 10 + 1, id, 2 FROM t WHERE id % 3 = 0;
    INSERT INTO note SELECT id, id FROM line WHERE n = 2;
"""


def family(server: Server, name: str, rule: str = "", *, index: str = "") -> None:
    make(server, name, f"{COLUMNS}{index}")
    server.script(FAMILY.format(rule=rule), database=name)


@pytest.mark.parametrize("action", ["", "ON DELETE CASCADE", "ON DELETE SET NULL"])
def test_children_are_counted_before(mysql: Server, database: MakeDatabase, action: str) -> None:
    """Those that the server would remove or empty without a word are counted as well."""
    name = database(mysql)
    family(mysql, name, action)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        assert rule.steps() == []
        said = rule.said("children")
        lines, notes = (counted(mysql, name, *x) for x in (("line", "t > 1440"), ("note", "line > 14410")))
        assert f"{lines} rows of line" in said and f"{notes} rows of note" in said


@pytest.mark.parametrize("place", ["nowhere", "table", "files"])
@pytest.mark.parametrize("index", ["", ", key (at)"])
def test_children_leave_with_their_parents(
    mysql: Server, database: MakeDatabase, tmp_path: Path, place: str, index: str
) -> None:
    name = database(mysql)
    family(mysql, name, "ON DELETE CASCADE", index=index)
    before = {table: rows_of(mysql, table, database=name) for table in ("t", "line", "note")}
    folder = {"archive_dir": str(tmp_path / "a")} if place == "files" else {}
    on = {"on_children": "delete" if place == "nowhere" else "archive"}
    with cleaner(mysql, name, {**(TEN_DAYS if place == "nowhere" else ARCHIVED), **folder, **on}) as rule:
        (step,) = rule.steps()
        done = rule.run(pace=Pace(100, 0.2))
        assert done.children == step.expected.children > 0
        assert rule.steps() == []
    for table, rows in before.items():
        kept = rows_of(mysql, table, database=name)
        assert 0 < len(kept) < len(rows)
        if place == "table":
            assert digest(kept, rows_of(mysql, f"{table}_archive", database=name)) == digest(rows)
        if place == "files":
            assert digest(kept, rows_in_files(tmp_path / "a", table)) == digest(rows)
    assert counted(mysql, name, "line", "t > 1440") == counted(mysql, name, "note", "line > 14410") == 0


def test_children_of_another_database(mysql: Server, database: MakeDatabase) -> None:
    name, other = database(mysql), database(mysql)
    make(mysql, name)
    mysql.script(
        "CREATE TABLE `k id` (id int primary key, t int,"
        f" foreign key (t) references `{name}`.t (id) ON DELETE SET NULL);"
        f"INSERT INTO `k id` SELECT id, id FROM `{name}`.t WHERE id > 1990;",
        database=other,
    )
    with cleaner(mysql, name, TEN_DAYS) as rule:
        assert "k id" in rule.said("children") and rule.steps() == []
    with cleaner(mysql, name, {**TEN_DAYS, "on_children": "delete"}) as rule:
        assert rule.run().children == 10
    mysql.sql("DROP TABLE `k id`", database=other)


def test_children_that_came_since_are_not_removed_in_silence(mysql: Server, database: MakeDatabase) -> None:
    """Nobody has counted them: the bite fails, and nothing of it is gone."""
    name = database(mysql)
    make(mysql, name)
    mysql.script("CREATE TABLE line (t int, foreign key (t) references t (id) ON DELETE CASCADE)", database=name)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        (step,) = rule.steps()
        mysql.sql("INSERT INTO line VALUES (1999)", database=name)
        with pytest.raises(Refused, match="line"):
            rule.carry_out(step)
    assert counted(mysql, name, "line") == 1


def test_rows_in_a_circle_are_refused(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, up int, key (up)", f"{AGES}, NULL")
    mysql.sql("ALTER TABLE t ADD FOREIGN KEY (up) REFERENCES t (id) ON DELETE CASCADE", database=name)
    with cleaner(mysql, name, {**TEN_DAYS, "on_children": "delete"}) as rule:
        (step,) = rule.steps()
        mysql.sql("UPDATE t SET up = 1999 WHERE id = 5", database=name)
        assert rule.steps() == []
        assert "t" in rule.said("circular_children")
        with pytest.raises(Refused):
            rule.carry_out(step)
    assert counted(mysql, name, "t", "id IN (5, 1999)") == 2


# ---- partitions ------------------------------------------------------------------------------------------------------

BY = {
    "to_days": ("datetime not null", "RANGE (TO_DAYS(at))", "TO_DAYS({day})"),
    "nullable": ("datetime", "RANGE (TO_DAYS(at))", "TO_DAYS({day})"),
    "to_seconds": ("datetime not null", "RANGE (TO_SECONDS(at))", "TO_SECONDS({day})"),
    "columns": ("datetime not null", "RANGE COLUMNS (at)", "{day}"),
    "date": ("date not null", "RANGE COLUMNS (at)", "{day}"),
    "unix": ("timestamp not null", "RANGE (UNIX_TIMESTAMP(at))", "UNIX_TIMESTAMP({day})"),
}


def partitioned(server: Server, name: str, by: str, *, key: str = ", key (at)", sub: str = "") -> None:
    """Twenty days, four in a partition; the lowest holds nothing but what is older, the highest all that comes."""
    kind, method, bound = BY[by]
    with client(server, name) as say:
        say("SET time_zone = '+00:00'")
        (today,) = say("SELECT UTC_DATE()")[0]
        from datetime import timedelta

        days = [today - timedelta(days=age) for age in (20, 16, 12, 8, 4)]
        parts = ", ".join(
            f"PARTITION p{n} VALUES LESS THAN ({bound.format(day=chr(39) + str(day) + chr(39))})"
            for n, day in enumerate(days)
        )
        say(
            f"CREATE TABLE t (id int not null, at {kind}, note varchar(60){key}, key (id)) PARTITION BY {method} {sub}"
            f" ({parts}, PARTITION pmax VALUES LESS THAN {'(MAXVALUE)'})"
        )
        say("CREATE TABLE seed (i int primary key)")
        say(SEED)
        say(f"INSERT INTO t SELECT i, {days_ago('(i - 0.5) / 36')}, CONCAT('row ', i) FROM seed")


def keyed(server: Server, name: str) -> None:
    server.sql("ALTER TABLE t ADD PRIMARY KEY (id, at)", database=name)


@pytest.mark.parametrize("by", ["to_days", "to_seconds", "columns", "date", "unix"])
def test_whole_partitions_are_dropped(mysql: Server, database: MakeDatabase, by: str) -> None:
    """And the rest of what is due is taken row by row; never the last one."""
    name = database(mysql)
    partitioned(mysql, name, by)
    keyed(mysql, name)
    cutoff = f"at < DATE({days_ago(10)})" if by == "date" else OLD
    kept, due = rows_of(mysql, "t", f"NOT ({cutoff})", database=name), counted(mysql, name, "t", cutoff)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        steps = rule.steps()
        dropped = [s.task.ref.partition for s in steps if s.task.kind == "drop_partition"]
        assert dropped == ["p0", "p1", "p2"]
        assert sum(s.expected.rows for s in steps) == due
        assert [s.task.ref.partition for s in steps if s.task.kind == "delete"] == ["p3"]
        rule.run()
        assert rule.steps() == []
    assert digest(rows_of(mysql, "t", database=name)) == digest(kept)
    with cleaner(mysql, name, {**TEN_DAYS, "delete_after": "1d"}) as rule:
        rule.run()
    parts = mysql.sql(
        f"SELECT PARTITION_NAME FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = '{name}' AND TABLE_NAME = 't'"
    )
    assert ["pmax"] in parts


def test_a_partition_that_is_gone_is_its_own_proof(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    partitioned(mysql, name, "to_days")
    keyed(mysql, name)
    rule = {"name": "old", "table": "t", "date_column": "at", "delete_after": "10d", "refuse_over_percent": 100}
    login = {**mysql.login(), "databases": [name], "rules": [rule], "journal": "none"}
    steps = [s for s in run("db_cleanup", login).fact()["steps"] if s["kind"] in ("drop_partition", "delete")]
    assert [s["kind"] for s in steps].count("drop_partition") == 3
    assert [(s["status"], s["proven"]) for s in steps] == [("done", True)] * 4


def test_partitions_are_archived_before_they_are_dropped(mysql: Server, database: MakeDatabase, tmp_path: Path) -> None:
    name = database(mysql)
    partitioned(mysql, name, "columns", sub="SUBPARTITION BY HASH (id) SUBPARTITIONS 2")
    keyed(mysql, name)
    before = rows_of(mysql, "t", database=name)
    with cleaner(mysql, name, {**ARCHIVED, "archive_dir": str(tmp_path / "a")}) as rule:
        planned = {(s.task.kind, s.task.ref.partition) for s in rule.steps()}
        assert planned == {("archive", p) for p in ("p0", "p1", "p2", "p3")} | {
            ("drop_partition", p) for p in ("p0", "p1", "p2")
        }
        rule.run()
        assert rule.steps() == []
    assert digest(rows_of(mysql, "t", database=name), rows_in_files(tmp_path / "a")) == digest(before)


def test_a_row_that_came_into_an_archived_partition_keeps_it(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    partitioned(mysql, name, "columns")
    keyed(mysql, name)
    with cleaner(mysql, name, ARCHIVED) as rule:
        steps = rule.steps()
        for step in steps:
            if step.task.kind == "archive":
                rule.carry_out(step)
        mysql.sql(f"INSERT INTO t VALUES (5000, {days_ago(30)}, 'late')", database=name)
        drops = {s.task.ref.partition: s for s in steps if s.task.kind == "drop_partition"}
        with pytest.raises(Refused, match="stays"):
            rule.carry_out(drops["p0"])
        rule.carry_out(drops["p1"])
    assert counted(mysql, name, "t", "id = 5000") == 1
    mysql.sql(f"INSERT INTO t VALUES (5001, {days_ago(1)}, 'no lock is left')", database=name)


def test_rows_without_a_date_keep_the_lowest_partition(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    partitioned(mysql, name, "nullable")
    mysql.sql("ALTER TABLE t ADD UNIQUE KEY (id, at), ADD COLUMN n int", database=name)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        dropped = [p.ref.partition for p in rule.measure().expired[0].parts]
        assert dropped == ["p0", "p1", "p2"]
        mysql.sql("INSERT INTO t (id, at) VALUES (9999, NULL)", database=name)
        dropped = [p.ref.partition for p in rule.measure().expired[0].parts]
        assert dropped == ["p1", "p2"]


def test_a_row_without_a_date_that_came_since_keeps_its_partition(mysql: Server, database: MakeDatabase) -> None:
    """Between the plan and the drop: with the table locked it is looked for once more."""
    name = database(mysql)
    partitioned(mysql, name, "nullable")
    mysql.sql("ALTER TABLE t ADD UNIQUE KEY (id, at)", database=name)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        found = rule.measure().expired[0]
        drops = [DropPartition(p.ref, found.ref, "r0", undated=p.undated) for p in found.parts]
        assert [task.undated for task in drops] == ["at", "", ""]
        mysql.sql("INSERT INTO t (id, at) VALUES (9999, NULL)", database=name)
        with pytest.raises(Refused, match="stays"):
            rule.carry_out(Step(drops[0], "due"))
        rule.carry_out(Step(drops[1], "due"))
    assert counted(mysql, name, "t", "id = 9999") == 1
    mysql.sql(f"INSERT INTO t VALUES (5001, {days_ago(1)}, 'no lock is left')", database=name)


def test_a_table_in_use_keeps_its_partition_for_now(mysql: Server, database: MakeDatabase) -> None:
    """Waits lock_timeout for the definition, and is tried again."""
    name = database(mysql)
    partitioned(mysql, name, "columns")
    keyed(mysql, name)
    with cleaner(mysql, name, TEN_DAYS) as rule, client(mysql, name, autocommit=False) as say:
        step = next(s for s in rule.steps() if s.task.kind == "drop_partition")
        say("SELECT COUNT(*) FROM t")
        began = time.monotonic()
        with pytest.raises(Busy):
            rule.carry_out(step)
        assert time.monotonic() - began < 20
        say("ROLLBACK")
        rule.carry_out(step)
