# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Large partitions of MySQL and MariaDB leave by way of a table beside them, and whatever dies meanwhile is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import exchange, partitions
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.connection import Link
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Step
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropPartition
from tests.fleet import Server
from tests.integration.chaos import chaos
from tests.integration.cleanup import digest, rows_in_files, rows_of
from tests.integration.my import client, small, use
from tests.integration.my_cleanup import ARCHIVED, TEN_DAYS, Cleaner, MakeDatabase, cleaner, counted, days_ago

YEARS = 13
COLUMNS = "id int not null auto_increment, at datetime not null, note varchar(60), primary key (id, at), key (at)"
YOUNG = "at > '2020-01-01'"
WORDS = 12  # statements, those that switch the binary log among them
PLAIN = 3  # of a partition that leaves as it stands; with the lock, since rows without a date lie in the lowest


class Died(BaseException):
    """What a killed module does: nothing any more."""


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has rows counts as large here."""
    monkeypatch.setattr(partitions, "LARGE", 0)


def make(
    server: Server, name: str, columns: str = COLUMNS, options: str = "", *, years: int = 1, table: str = "t"
) -> None:
    """Three old rows in each partition of a year, and two young ones in the last."""
    parts = ", ".join(f"PARTITION p{n} VALUES LESS THAN ('{2001 + n}-01-01')" for n in range(years))
    old = ", ".join(f"('{2000 + n}-0{month}-01', 'old')" for n in range(years) for month in (2, 4, 6))
    server.script(
        f"CREATE TABLE {table} ({columns}) {options}"
        f" PARTITION BY RANGE COLUMNS (at) ({parts}, PARTITION new VALUES LESS THAN MAXVALUE);"
        f"INSERT INTO {table} (at, note) VALUES {old}, ({days_ago(1)}, 'young'), ({days_ago(2)}, 'young');",
        database=name,
    )


def drops(rule: Cleaner) -> list[Step]:
    return [s for s in rule.steps() if s.task.kind == "drop_partition"]


def beside(server: Server, name: str) -> list[str]:
    found = server.sql(f"SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{name}'")
    return sorted(table for (table,) in found if table.startswith("dbfleet_"))


def partitions_of(server: Server, name: str, table: str = "t") -> list[str]:
    of = f"TABLE_SCHEMA = '{name}' AND TABLE_NAME = '{table}'"
    found = server.sql(f"SELECT PARTITION_NAME FROM information_schema.PARTITIONS WHERE {of} ORDER BY 1")
    return [partition for (partition,) in found]


@contextmanager
def dying(after: int) -> Iterator[None]:
    """The session is lost after so many statements, and nothing is cleaned up."""
    run: Callable[..., Any] = Link.run
    said: list[str] = []

    def counting(link: Link, statement: str, **more: Any) -> Any:
        if len(said) == after:
            vars(link)["_raw"]._force_close()
            raise Died
        said.append(statement)
        return run(link, statement, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "run", counting)
        yield


def die(rule: Cleaner, step: Step, after: int) -> None:
    with dying(after), pytest.raises(Died):
        rule.carry_out(step)


def test_what_is_shown_is_what_runs(mysql: Server, database: MakeDatabase) -> None:
    """And the binary log has no more of it than before: that the partition is dropped."""
    name = database(mysql)
    make(mysql, name, years=2)
    kept = rows_of(mysql, "t", YOUNG, database=name)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        steps = rule.steps()
        assert [s.task.ref.partition for s in steps] == ["p0", "p1"]
        shown = [rule.used.engine.spell(s.task, rule.used.server) for s in steps]
        assert [len(words) for words in shown] == [WORDS, WORDS]
        mysql.sql("FLUSH BINARY LOGS")
        mysql.mark_log()
        rule.run()
        ran = [statement for statement in mysql.statements() if any(statement in words for words in shown)]
        assert ran == [word for words in shown for word in words]
        assert rule.steps() == []
    assert digest(rows_of(mysql, "t", database=name)) == digest(kept)
    assert beside(mysql, name) == [] and partitions_of(mysql, name) == ["new"]
    log = mysql.sql("SHOW BINARY LOGS")[-1][0]
    logged = [row[5] for row in mysql.sql(f"SHOW BINLOG EVENTS IN '{log}'") if f"`{name}`" in row[5]]
    assert len(logged) == 2 and all("DROP PARTITION" in words for words in logged), logged
    mysql.sql(f"INSERT INTO t (at, note) VALUES ({days_ago(0)}, 'x')", database=name)
    assert counted(mysql, name, "t", f"id = {2 * 3 + 3}") == 1


def test_whatever_it_dies_after_is_mended(mysql: Server, database: MakeDatabase) -> None:
    """Each partition's step dies after another statement. What is not due is there all the time."""
    name = database(mysql)
    make(mysql, name, years=YEARS)
    young = digest(rows_of(mysql, "t", YOUNG, database=name))
    with cleaner(mysql, name, TEN_DAYS) as rule:
        steps = drops(rule)
        assert len(steps) == YEARS
        for after, step in enumerate(steps):
            if after < WORDS:
                die(rule, step, after)
            else:
                rule.carry_out(step)
            assert digest(rows_of(mysql, "t", YOUNG, database=name)) == young
    left = beside(mysql, name)
    # From CREATE to DROP TABLE: once the name is there, until it goes.
    assert [exchange.name_of("t", f"p{n}") in left for n in range(WORDS)] == [2 <= n <= 10 for n in range(WORDS)]
    assert [f"p{n}" in partitions_of(mysql, name) for n in range(WORDS)] == [n <= 7 for n in range(WORDS)]
    rows = sum(counted(mysql, name, table) for table in [*left, "t"])
    assert rows == 2 + 3 * 11  # those of the last one that died had gone with their table
    with cleaner(mysql, name, TEN_DAYS) as rule:
        kinds = [s.task.kind for s in sorted(rule.steps(), key=lambda s: s.rank, reverse=True)]
        assert kinds == ["drop_leftover"] * len(left) + ["drop_partition"] * 8
        rule.run()
        assert rule.steps() == []
    assert beside(mysql, name) == [] and partitions_of(mysql, name) == ["new"]
    assert digest(rows_of(mysql, "t", database=name)) == young


def test_another_attempt_goes_on_where_the_first_one_ended(mysql: Server, database: MakeDatabase) -> None:
    """The same step again, as it is tried again when its session was lost: after the exchange, and after the drop."""
    name = database(mysql)
    make(mysql, name, years=2)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        one, two = drops(rule)
        die(rule, one, 6)
        die(rule, two, 9)
        assert rule.carry_out(one).rows == rule.carry_out(two).rows == 3
        assert rule.steps() == []
    assert beside(mysql, name) == [] and partitions_of(mysql, name) == ["new"]


def test_what_came_after_the_exchange_is_archived(mysql: Server, database: MakeDatabase, tmp_path: Path) -> None:
    """A run died between the two; old rows came into the partition, empty by then: none of them leaves unseen."""
    name = database(mysql)
    make(mysql, name)
    before = rows_of(mysql, "t", database=name)
    archived = {**ARCHIVED, "archive_dir": str(tmp_path / "a")}
    with cleaner(mysql, name, archived) as rule:
        archive, drop = sorted(rule.steps(), key=lambda s: s.task.kind)
        rule.carry_out(archive)
        die(rule, drop, 6)
    mysql.sql("INSERT INTO t (id, at, note) VALUES (700, '2000-03-01', 'late')", database=name)
    late = rows_of(mysql, "t", "id = 700", database=name)
    with cleaner(mysql, name, archived) as rule:
        rule.run()
        assert rule.steps() == []
    assert digest(rows_of(mysql, "t", database=name), rows_in_files(tmp_path / "a")) == digest(before, late)
    assert beside(mysql, name) == [] and partitions_of(mysql, name) == ["new"]


def test_what_came_before_it_keeps_the_partition(mysql: Server, database: MakeDatabase, tmp_path: Path) -> None:
    name = database(mysql)
    make(mysql, name)
    with cleaner(mysql, name, {**ARCHIVED, "archive_dir": str(tmp_path / "a")}) as rule:
        archive, drop = sorted(rule.steps(), key=lambda s: s.task.kind)
        rule.carry_out(archive)
        assert isinstance(drop.task, DropPartition) and drop.task.concurrently
        mysql.sql("INSERT INTO t (id, at, note) VALUES (700, '2000-03-01', 'late')", database=name)
        with pytest.raises(Refused, match="stays"):
            rule.carry_out(drop)
    assert counted(mysql, name, "t", "id = 700") == 1 and beside(mysql, name) == []


@pytest.mark.parametrize("engine", ["mariadb", "mysql"])
def test_the_server_may_die_after_the_exchange(engine: str) -> None:
    """All statements, and all that may strike: `./dev chaos partitions`."""
    code, said = chaos("partitions", f"--engine={engine}", "--cell=files/exchanged/server stopped")
    assert code == 0, said


def test_what_is_not_looked_for_again_is_lost() -> None:
    words = ["--engine=mariadb", "--cell=files/made/session ended", "--mutant=unseen"]
    code, said = chaos("partitions", *words)
    assert code == 1 and "added 100" in said and "too few" in said, said


# ---- what is no matter of names --------------------------------------------------------------------------------------

SHAPES = {
    "comment": ("", r"COMMENT='it''s \\ a\nPARTITION BY `x` COMMENT=''y'''"),
    "checked": (", n int default 3 check (n > 0), constraint pos check (n >= 0)", ""),
    "computed": (", n int default 3, g int as (n + 1) stored, v int as (n + 2) virtual, key (v), j json", ""),
    "compressed": ("", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"),
    "odd": (", `a``b'c` int comment 'DATA DIRECTORY=''/x''', i int invisible default 5", "STATS_PERSISTENT=0"),
    "added": ("", ""),
}
ADDED = "ALTER TABLE added ADD COLUMN z int DEFAULT 7 FIRST, ALGORITHM=INSTANT; ALTER TABLE added DROP COLUMN note"
KEEPS = {("mysql", "added")}  # what the server will not exchange after all


def test_tables_of_all_kinds(mysql: Server, database: MakeDatabase) -> None:
    """Told by what died right after the exchange has left; the rest of them leave as they stand."""
    name = database(mysql)
    for table, (columns, options) in SHAPES.items():
        make(mysql, name, COLUMNS + columns, options, years=2, table=table)
    mysql.script(ADDED, database=name)
    mysql.sql("CREATE TRIGGER gone BEFORE DELETE ON checked FOR EACH ROW SET @gone = 1", database=name)
    with cleaner(mysql, name, *({**TEN_DAYS, "table": table} for table in SHAPES)) as rule:
        found = {(s.task.ref.path[0], s.task.ref.partition): s for s in drops(rule)}
        for table in SHAPES:
            die(rule, found[table, "p0"], 6)
            moved = counted(mysql, name, exchange.name_of(table, "p0"))
            assert moved == (0 if (mysql.engine, table) in KEEPS else 3), table
            rule.carry_out(found[table, "p1"])
    with cleaner(mysql, name, *({**TEN_DAYS, "table": table} for table in SHAPES)) as rule:
        rule.run()
        assert rule.steps() == []
    assert beside(mysql, name) == []
    for table in SHAPES:
        assert partitions_of(mysql, name, table) == ["new"] and counted(mysql, name, table) == 2


def test_a_table_that_is_not_ours_is_never_touched(mysql: Server, database: MakeDatabase) -> None:
    """One of just that name, and a copy of one of ours. The partition leaves as it stands."""
    name = database(mysql)
    make(mysql, name, years=2)
    taken = exchange.name_of("t", "p1")
    with cleaner(mysql, name, TEN_DAYS) as rule:
        one, two = drops(rule)
        mysql.sql(f"CREATE TABLE {taken} (id int) COMMENT='mine'", database=name)
        rule.carry_out(two)
        die(rule, one, 2)
    ours = exchange.name_of("t", "p0")
    mysql.script(f"CREATE TABLE dbfleet_copy LIKE {ours}; DROP TABLE {ours};", database=name)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        assert [s.task.kind for s in rule.steps()] == ["drop_partition"]
        mysql.sql(f"CREATE TABLE {ours} (id int) COMMENT='mine'", database=name)
        assert len(rule.statements()) == PLAIN
        rule.run()
    assert beside(mysql, name) == sorted(["dbfleet_copy", ours, taken]) and partitions_of(mysql, name) == ["new"]


def test_a_table_in_use_is_left_as_it_was(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    make(mysql, name)
    with cleaner(mysql, name, TEN_DAYS) as rule, client(mysql, name, autocommit=False) as say:
        (step,) = drops(rule)
        say("SELECT COUNT(*) FROM t")
        with pytest.raises(Busy):
            rule.carry_out(step)
        assert beside(mysql, name) == [] and partitions_of(mysql, name) == ["new", "p0"]
        say("ROLLBACK")
        rule.carry_out(step)
    assert counted(mysql, name, "t") == 2 and beside(mysql, name) == []


def test_what_cannot_be_exchanged_is_planned_as_it_runs(
    mysql: Server, database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones, subpartitions, and a login that may not make the table, or not keep it out of the binary log."""
    name = database(mysql)
    make(mysql, name)
    local = "BINLOG ADMIN" if mysql.engine == "mariadb" else "SESSION_VARIABLES_ADMIN"
    table = f"SELECT, INSERT, DELETE, ALTER, DROP, TRIGGER ON {name}.t"
    whole = f"SELECT, INSERT, DELETE, CREATE, ALTER, DROP, TRIGGER, LOCK TABLES ON {name}.*"

    def words(*grants: str) -> int:
        login = small(mysql, *grants) if grants else {}
        with use(mysql, Execution(), **login) as used:
            return len(Cleaner(used, name, TEN_DAYS).statements())

    assert words() == words(f"{local} ON *.*", whole) == WORDS
    assert words(f"{local} ON *.*", table) == words(whole) == PLAIN
    with monkeypatch.context() as patch:
        patch.setattr(partitions, "LARGE", 64 << 20)
        assert words() == PLAIN
    by = "PARTITION p0 VALUES LESS THAN ('2001-01-01'), PARTITION new VALUES LESS THAN MAXVALUE"
    sub = "PARTITION BY RANGE COLUMNS (at) SUBPARTITION BY HASH (id) SUBPARTITIONS 2"
    mysql.script(f"ALTER TABLE t REMOVE PARTITIONING; ALTER TABLE t {sub} ({by});", database=name)
    assert words() == PLAIN
