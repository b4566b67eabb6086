# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and servers on which something is odd, and old rows leave all the same or stay for a reason."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze
from tests.fleet import Server
from tests.integration.cleanup import digest, rows_in_files, rows_of
from tests.integration.my import client, fill, use
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

HEAVY = "(SELECT COUNT(*) FROM t a, t b, t c WHERE a.id + b.id + c.id + t.id < 0) = 0"


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
            f"CREATE TABLE {quoted[table]}"
            f" ({quoted[key]} int primary key, {quoted[date]} datetime, key ({quoted[date]}))"
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
    """MySQL makes invisible primary keys by itself; MariaDB has tables that keep their history."""
    name = database(mysql)
    with client(mysql, name) as say:
        if mysql.engine == "mysql":
            say("SET sql_generate_invisible_primary_key = ON")
            say("CREATE TABLE t (id int, at datetime, note varchar(60), kind int)")
        else:
            say(
                "CREATE TABLE t (id int not null default 0 invisible primary key, at datetime, note varchar(60),"
                " kind int) WITH SYSTEM VERSIONING"
            )
        say("CREATE TABLE seed (i int primary key)")
        say(SEED)
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
    make(mysql, name)
    with cleaner(mysql, name, {**TEN_DAYS, "where": HEAVY}, count_timeout="1s") as rule:
        began = time.monotonic()
        assert rule.measure().expired[0].rows is None
        assert time.monotonic() - began < 10


def test_gauge_of_the_binary_log(mysql: Server) -> None:
    with use(mysql) as used:
        size = used.gauge("wal_backlog", Analyze(Ref("mysql", ("user",))))
    assert size is not None and size > 0
