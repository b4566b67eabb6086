# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong while old rows are taken on MySQL and MariaDB, and tables on which something is odd."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import purge
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Gone, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Pace, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze
from tests.fleet import Server
from tests.integration.cleanup import Application, connection, content, digest, rows_in_files, rows_of
from tests.integration.my import client, fill, use
from tests.integration.my_cleanup import cleaner, days_ago

COLUMNS = "id int primary key, at datetime null, note varchar(60), kind int"
AGES = f"i, {days_ago('(i - 0.5) / 144')}, CONCAT('row ', i), i % 7"
TEN_DAYS = {"table": "t", "date_column": "at", "delete_after": "10d", "refuse_over_percent": 100.0}
ARCHIVED = {**TEN_DAYS, "delete_after": None, "archive_after": "10d"}
OLD = f"at < {days_ago(10)}"

MakeDatabase = Callable[[Server], str]


def make(server: Server, name: str, columns: str = COLUMNS, values: str = AGES, rows: int = 2000) -> None:
    fill(server, name, "t", columns, values, rows)


def counted(server: Server, name: str, table: str, where: str = "TRUE") -> int:
    return int(server.sql(f"SELECT COUNT(*) FROM {table} WHERE {where}", database=name)[0][0])


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
    return int(digits) * 10 ** int(zeros or 0)


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


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, moment: str) -> Iterator[dict[str, int]]:
    """The third commit of a bite: the session dies before it, in it, or right after it, and the process with it."""
    count = {"commits": 0}
    commit = purge.Bites.commit

    def dying(self: purge.Bites) -> None:
        count["commits"] += 1
        if count["commits"] < 3:
            commit(self)
            return
        if moment == "after":
            commit(self)
        if moment == "killed":
            other = connection_of(self)
            other(f"KILL {self.link.id}")
            time.sleep(0.2)
            commit(self)
        self.link.close()
        raise Dies

    monkeypatch.setattr(purge.Bites, "commit", dying)
    yield count
    monkeypatch.undo()


def connection_of(bites: purge.Bites) -> Callable[[str], Any]:
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.connection import Link

    return Link(bites.link.login, Execution()).rows


@pytest.mark.parametrize("moment", ["before", "killed", "after"])
@pytest.mark.parametrize("touched", ["", "UPDATE t SET note = 'new'", "DELETE FROM t WHERE id % 2"])
def test_a_run_that_died_is_settled(
    mysql: Server, database: MakeDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, touched: str
) -> None:
    """Each row is in exactly one place after the next run, whatever the application did in between."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)")
    before = rows_of(mysql, "t", database=name)
    rule = {**ARCHIVED, "archive_dir": str(tmp_path / "a")}
    with killed_at(monkeypatch, moment), cleaner(mysql, name, rule) as clean:
        (step,) = clean.steps()
        with pytest.raises((Dies, Gone)), _no_settling(monkeypatch):
            clean.carry_out(step, pace=Pace(100, 0.2))
    left = list((tmp_path / "a").iterdir())
    assert any(".pending" in path.name for path in left)
    lost = rows_of(mysql, "t", "id % 2", database=name) if touched.startswith("DELETE") else []
    if touched:
        lowest = mysql.sql("SELECT MIN(id) FROM t WHERE id > 1440", database=name)[0][0]
        mysql.sql(
            f"{touched}{' AND' if 'WHERE' in touched else ' WHERE'} id BETWEEN {lowest} AND {lowest} + 30",
            database=name,
        )
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


@contextmanager
def _no_settling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that is killed does not close its files in good order."""
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.shelf import Shelf

    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "close", lambda self: None)
        yield


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
            task = step.task._replace(rows=None)
            work = rule.used.engine.carry_out(session, task, rule.used.server, cursors[-1])
            next(work)
            with pytest.raises(StopIteration):
                while True:
                    work.send(Pace(100, 0.2))
    assert counted(mysql, name, "t", OLD) == 0


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
        f"CREATE TABLE `k id` (id int primary key, t int, foreign key (t) references `{name}`.t (id) ON DELETE SET NULL);"
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
        say(
            "INSERT INTO seed WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 900) SELECT * FROM s"
        )
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
        assert time.monotonic() - began < 4
        say("ROLLBACK")
        rule.carry_out(step)


# ---- odd tables ------------------------------------------------------------------------------------------------------


def test_without_a_key_it_is_refused(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    make(mysql, name, "id int, at datetime, kind enum('a', 'b'), key (at), key (id)", f"i, {days_ago('i')}, 'a'", 100)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        assert rule.steps() == []
        assert "key" in rule.said("no_key")


@pytest.mark.parametrize("engine", ["MyISAM", "Aria"])
def test_tables_without_transactions(mysql: Server, database: MakeDatabase, engine: str) -> None:
    """Rows are deleted, and not archived: an archive could not be exact."""
    if engine == "Aria" and mysql.engine == "mysql":
        pytest.skip("MySQL has no Aria")
    name = database(mysql)
    fill(mysql, name, "t", f"{COLUMNS}, key (at)", AGES, 2000, f"ENGINE={engine}")
    kept = rows_of(mysql, "t", f"NOT ({OLD})", database=name)
    with cleaner(mysql, name, ARCHIVED) as rule:
        assert rule.steps() == []
        assert engine in rule.said("no_transactions")
    with cleaner(mysql, name, {**TEN_DAYS, "where": "kind >= 0 AND NOW() > 0"}) as rule:
        rule.run()
        assert rule.steps() == []
    assert digest(rows_of(mysql, "t", database=name)) == digest(kept)


def test_zero_dates_stay(mysql: Server, database: MakeDatabase) -> None:
    """They say that there is no date, as NULL does."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)")
    with client(mysql, name) as say:
        say("SET sql_mode = ''")
        say("UPDATE t SET at = '0000-00-00' WHERE id > 1950")
    with cleaner(mysql, name, ARCHIVED) as rule:
        assert rule.run().rows("archive") == 510
        assert rule.steps() == []
    assert counted(mysql, name, "t", "id > 1950") == 50


def test_triggers_are_named(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    make(mysql, name)
    mysql.sql("CREATE TABLE log (n int)", database=name)
    mysql.sql("CREATE TRIGGER `said %s` AFTER DELETE ON t FOR EACH ROW INSERT INTO log VALUES (1)", database=name)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        assert "said %s" in rule.said("triggers_fire")
        rows = rule.run().rows("delete")
    assert counted(mysql, name, "log") == rows


def test_views_columns_and_dates_that_do_not_fit(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    make(mysql, name, rows=100)
    mysql.sql("CREATE VIEW v AS SELECT * FROM t", database=name)
    for rule_of, code in (
        ({"table": "v"}, "no_table"),
        ({"table": "nothing"}, "no_such_table"),
        ({"date_column": "when"}, "no_such_column"),
        ({"date_column": "note"}, "not_a_date"),
        ({"date_column": "kind"}, "not_a_date"),
        ({"date_unit": "seconds"}, "not_a_date"),
    ):
        with cleaner(mysql, name, {**TEN_DAYS, **rule_of}) as rule:
            assert rule.steps() == []
            assert code in rule.codes()


def test_hostile_names(mysql: Server, database: MakeDatabase, tmp_path: Path) -> None:
    name = database(mysql)
    table, date, key = "we`ird.%s {} 'ü'; --", "d`ate %s", "k?y %(x)s"
    quoted = {x: "`" + x.replace("`", "``") + "`" for x in (table, date, key)}
    fill(mysql, name, "seed", "i int primary key", "i", 400)
    with client(mysql, name) as say:
        say(
            f"CREATE TABLE {quoted[table]} ({quoted[key]} int primary key, {quoted[date]} datetime, key ({quoted[date]}))"
        )
        say(f"INSERT INTO {quoted[table]} SELECT i, {days_ago('i - 0.5')} FROM seed")
        say(f"CREATE TABLE `k``id %s` (x int primary key, foreign key (x) references {quoted[table]} ({quoted[key]}))")
        say("INSERT INTO `k``id %s` SELECT i FROM seed WHERE i % 2")
    before = rows_of(mysql, quoted[table], database=name)
    rule_of = {**ARCHIVED, "table": table, "date_column": date, "on_children": "archive"}
    with cleaner(mysql, name, {**rule_of, "archive_after": "200d"}) as rule:
        rule.run()
    with cleaner(mysql, name, {**rule_of, "archive_dir": str(tmp_path / "a")}) as rule:
        rule.run()
        assert rule.steps() == []
    archive = "`" + f"{table}_archive".replace("`", "``") + "`"
    files = [row for row in rows_in_files(tmp_path / "a") if key in row]
    places = rows_of(mysql, quoted[table], database=name), rows_of(mysql, archive, database=name), files
    assert digest(*places) == digest(before)
    assert [len(x) for x in places] == [10, 200, 190]


def test_keys_that_are_not_shown(mysql: Server, database: MakeDatabase) -> None:
    """MySQL makes invisible primary keys by itself; MariaDB has invisible columns and tables that keep their history."""
    name = database(mysql)
    with client(mysql, name) as say:
        if mysql.engine == "mysql":
            say("SET sql_generate_invisible_primary_key = ON")
            say("CREATE TABLE t (id int, at datetime, note varchar(60), kind int)")
        else:
            say(
                "CREATE TABLE t (id int not null default 0 invisible primary key, at datetime, note varchar(60), kind int) WITH SYSTEM VERSIONING"
            )
        say("CREATE TABLE seed (i int primary key)")
        say(
            "INSERT INTO seed WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 900) SELECT * FROM s"
        )
        say(f"INSERT INTO t (id, at, note, kind) SELECT {AGES.replace('144', '36')} FROM seed")
    with cleaner(mysql, name, ARCHIVED) as rule:
        assert rule.run().rows("archive") == 540
        assert rule.steps() == []
    assert counted(mysql, name, "t_archive") == 540
    if mysql.engine == "mariadb":
        assert counted(mysql, name, "t FOR SYSTEM_TIME ALL") == 900


def test_statement_logging(mysql: Server, database: MakeDatabase) -> None:
    """READ COMMITTED is refused there."""
    name = database(mysql)
    make(mysql, name)
    before = mysql.sql("SELECT @@GLOBAL.binlog_format")[0][0]
    mysql.sql("SET GLOBAL binlog_format = 'STATEMENT'")
    try:
        with cleaner(mysql, name, TEN_DAYS) as rule:
            rule.run()
            assert rule.steps() == []
    finally:
        mysql.sql(f"SET GLOBAL binlog_format = '{before}'")


def test_counting_has_an_end(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    make(mysql, name, rows=300)
    with cleaner(
        mysql, name, {**TEN_DAYS, "where": "BENCHMARK(3000000, SHA2(note, 512)) = 0"}, count_timeout="1s"
    ) as rule:
        began = time.monotonic()
        assert rule.measure().expired[0].rows is None
        assert time.monotonic() - began < 10


def test_gauge_of_the_binary_log(mysql: Server) -> None:
    with use(mysql) as used:
        size = used.gauge("wal_backlog", Analyze(Ref("mysql", ("user",))))
    assert size is not None and size > 0
