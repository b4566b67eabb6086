# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows of MySQL and MariaDB: each is kept, archived or deleted, as its date says, and never in two places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server
from tests.integration.cleanup import content, digest, rows_in_files, rows_of
from tests.integration.module_runner import run
from tests.integration.my import client, fill, small
from tests.integration.my_cleanup import OF_RULE, Cleaner, cleaner, days_ago

ROWS = 3000  # one row in ten minutes of age for each number: a bit over twenty days
COLUMNS = "id int primary key, at datetime null, note varchar(60), kind int"
AGES = f"i, IF(i % 50 = 0, NULL, {days_ago('(i - 0.5) / 144')}), CONCAT('row ', i), i % 7"
TEN_DAYS = {"table": "t", "date_column": "at", "delete_after": "10d", "refuse_over_percent": 100.0}
ARCHIVED = {**TEN_DAYS, "delete_after": None, "archive_after": "10d"}

MakeDatabase = Callable[[Server], str]


def make(server: Server, name: str, columns: str = COLUMNS, values: str = AGES, rows: int = ROWS) -> None:
    fill(server, name, "t", columns, values, rows)


def due(server: Server, name: str, condition: str = "") -> list[dict[str, str]]:
    """Rows of `t` that are older than ten days. Far from the boundary, whoever asks when."""
    return rows_of(server, "t", f"at < {days_ago(10)}{condition}", database=name)


# ---- deleted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["", ", key (at)", ", key (kind, at)", ", key at_kind (at, kind)"])
def test_rows_are_deleted_by_their_age(mysql: Server, database: MakeDatabase, index: str) -> None:
    """With and without an index on the date; rows without a date stay; a second run finds nothing."""
    name = database(mysql)
    make(
        mysql, name, f"{COLUMNS}{index}".replace("kind int", "kind int not null" if "at_kind" in index else "kind int")
    )
    before, gone = rows_of(mysql, "t", database=name), due(mysql, name)
    with cleaner(mysql, name, TEN_DAYS) as rule:
        (step,) = rule.steps()
        assert step.expected.rows == len(gone)
        assert ("no_date_index" in rule.codes()) == (index in ("", ", key (kind, at)"))
        assert rule.run().rows("delete") == len(gone)
        assert rule.steps() == []
    kept = rows_of(mysql, "t", database=name)
    assert digest(kept, gone) == digest(before)
    assert sum("at" not in row for row in kept) == ROWS // 50


def test_rows_are_walked_by_date_where_few_leave(mysql: Server, database: MakeDatabase) -> None:
    """And by the key where most do: then reading all in its order is faster."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)")
    few, most = ({**TEN_DAYS, "delete_after": after} for after in ("18d", "2d"))
    for rule, walk in ((few, ("at", "id")), (most, ("id",))):
        with cleaner(mysql, name, rule) as clean:
            (piece,) = clean.measure().expired[0].pieces
            assert (piece.walk, piece.indexed) == (walk, True)
            gone, before = piece.rows, len(rows_of(mysql, "t", database=name))
            assert clean.run().rows("delete") == gone
            assert len(rows_of(mysql, "t", database=name)) == before - (gone or 0)


KEYS = {
    "composite": (
        "a varchar(20), b bigint unsigned, at datetime, note text, primary key (a, b)",
        "CONCAT('k', i % 9), i",
    ),
    "text": (
        "id varchar(40) collate utf8mb4_unicode_ci, at datetime, note text, primary key (id)",
        "CONCAT('Ü\\'x\\\\', i, ' 𝄞')",
    ),
    "latin1": ("id varchar(40) character set latin1, at datetime, note text, primary key (id)", "CONCAT('Ü', i)"),
    "binary": ("id binary(16), at datetime, note text, primary key (id)", "UNHEX(LPAD(HEX(i * 7919), 32, 'F0'))"),
    "decimal": ("id decimal(20,6), at datetime, note text, primary key (id)", "i / 7 - 100"),
    "dated": ("at datetime(6), id int, note text, primary key (at, id)", ""),
    "unique": ("id int not null unique, at datetime, note text", "i"),
    "daily": ("d date, id int, at datetime, note text, primary key (d, id)", "CURDATE() - INTERVAL i DIV 900 DAY, i"),
}


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_many_types(mysql: Server, database: MakeDatabase, key: str, tmp_path: Path) -> None:
    """Walked from bite to bite, deleted first and archived then."""
    name = database(mysql)
    columns, values = KEYS[key]
    at = days_ago("(i - 0.5) / 144")
    values = f"{at}, i, 'note'" if key == "dated" else f"{values}, {at}, 'note'"
    make(mysql, name, columns, values)
    before = rows_of(mysql, "t", database=name)
    with cleaner(mysql, name, {**TEN_DAYS, "delete_after": "15d"}) as rule:
        deleted = rows_of(mysql, "t", f"at < {days_ago(15)}", database=name)
        assert rule.run().rows("delete") == len(deleted) > 0
    with cleaner(mysql, name, {**ARCHIVED, "archive_dir": str(tmp_path / "a")}) as rule:
        rule.run()
        assert rule.steps() == []
    places = rows_of(mysql, "t", database=name), rows_in_files(tmp_path / "a"), deleted
    assert digest(*places) == digest(before)
    assert min(map(len, places)) > 0


@pytest.mark.parametrize(
    ("column", "value", "more"),
    [
        ("date", "UTC_DATE() - INTERVAL i DAY", {}),
        ("timestamp(3)", days_ago("i"), {"timezone": "Europe/Vienna"}),
        ("datetime(6)", days_ago("i"), {"timezone": "America/New_York"}),
        ("int unsigned", "UNIX_TIMESTAMP() - i * 86400", {"date_unit": "seconds"}),
        ("bigint", "(UNIX_TIMESTAMP() - i * 86400) * 1000", {"date_unit": "milliseconds"}),
    ],
)
def test_dates_of_every_type(
    mysql: Server, database: MakeDatabase, column: str, value: str, more: dict[str, str]
) -> None:
    """The cutoff lies ten days back: of forty rows, a day older each, those of more than ten days leave."""
    name = database(mysql)
    fill(mysql, name, "t", f"id int primary key, at {column}, key (at)", f"i, {value}", 40)
    with cleaner(mysql, name, {**TEN_DAYS, **more}) as rule:
        before = {int(row["id"][1:].partition("e")[0]) for row in rows_of(mysql, "t", database=name)}
        rule.run()
        kept = sorted(int(r[0]) for r in mysql.sql("SELECT id FROM t", database=name))
    # Wall clocks of a zone are hours away from those of UTC, in which the rows were made.
    assert len(before) > 0
    assert kept in (list(range(1, 10)), list(range(1, 11)))


# ---- archived --------------------------------------------------------------------------------------------------------

WIDE = (
    "id int primary key auto_increment, at datetime(3), f float, d double, n decimal(30,10), b bit(9),"
    " bin varbinary(9), l longblob, t text character set latin1, e enum('x', 'y'), s set('a', 'b'), y year, tm time(2),"
    " j json, g point, full varchar(20) character set utf8mb4, made int as (y * 2), kept int as (y * 3) stored,"
    " ts timestamp null, u varchar(9) unique"
)
WIDE_NAMES = "at, f, d, n, b, bin, l, t, e, s, y, tm, j, g, full, ts, u"
WIDE_VALUES = (
    f"{days_ago('(i - 0.5) / 14')}, i / 7e0, i / 7e0, i / 7, i % 512, UNHEX(HEX(i)), REPEAT(UNHEX('00ff0a'), i % 5),"
    " CONCAT('Grüße ', i), IF(i % 2, 'x', 'y'), 'a,b', 2000 + i % 50, SEC_TO_TIME(i * 97), CONCAT('{\"k\": ', i, '}'),"
    " POINT(i, 1 / 3), '𝄞 \\\\ \\\"\\'', NOW(), CONCAT('u', i)"
)


def wide(server: Server, name: str, rows: int = 400) -> None:
    """A table of every type, whose columns are partly computed."""
    fill(server, name, "seed", "i int primary key", "i", rows)
    with client(server, name) as say:
        say(f"CREATE TABLE t ({WIDE})")
        say(f"INSERT INTO t ({WIDE_NAMES}) SELECT {WIDE_VALUES} FROM seed")
        say("INSERT INTO t (at) VALUES ('2001-01-01'), (NULL)")


@pytest.mark.parametrize("place", ["table", "jsonl", "csv"])
def test_every_type_is_archived_as_it_was(mysql: Server, database: MakeDatabase, tmp_path: Path, place: str) -> None:
    name = database(mysql)
    wide(mysql, name)
    before = rows_of(mysql, "t", database=name)
    where = {} if place == "table" else {"archive_dir": str(tmp_path / "a"), "archive_format": place}
    with cleaner(mysql, name, {**ARCHIVED, **where}) as rule:
        (step,) = rule.steps()
        assert rule.run().rows("archive") == step.expected.rows
        assert rule.steps() == []
    kept = rows_of(mysql, "t", database=name)
    gone = rows_of(mysql, "t_archive", database=name) if place == "table" else rows_in_files(tmp_path / "a")
    assert content(kept, gone) == content(before)
    assert len(kept) > 100 < len(gone)


def test_archive_table_is_plain(mysql: Server, database: MakeDatabase) -> None:
    """The source's columns, its key and the date's index: nothing that counts, refers, computes or forbids."""
    name = database(mysql)
    wide(mysql, name, 200)
    mysql.sql('ALTER TABLE t ADD COLUMN `later %s`` "x"` int', database=name)
    with cleaner(mysql, name, {**ARCHIVED, "archive_table": f"{name}.`hist%s"}) as rule:
        first = rule.statements()[0]
        rule.run()
    (row,) = mysql.sql("SHOW CREATE TABLE ```hist%s`", database=name)
    assert "PRIMARY KEY (`id`)" in row[1] and "KEY `at` (`at`)" in row[1]
    for word in ("AUTO_INCREMENT", "UNIQUE", "GENERATED", "FOREIGN"):
        assert word not in row[1].upper().replace("AUTO_INCREMENT=", "")
    assert first.startswith("CREATE TABLE")


def test_columns_that_came_later_are_added_to_the_archive(mysql: Server, database: MakeDatabase) -> None:
    name = database(mysql)
    make(mysql, name)
    before = rows_of(mysql, "t", database=name)
    with cleaner(mysql, name, {**ARCHIVED, "archive_after": "15d"}) as rule:
        rule.run()
    mysql.sql("ALTER TABLE t ADD COLUMN more varchar(9)", database=name)
    with cleaner(mysql, name, ARCHIVED) as rule:
        assert "archive_differs" in rule.codes()
        rule.run()
    assert digest(rows_of(mysql, "t", database=name), rows_of(mysql, "t_archive", database=name)) == digest(before)
    assert mysql.sql("SELECT COUNT(*) FROM t_archive WHERE more IS NULL", database=name) != [["0"]]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("MODIFY note varchar(10)", "note"),
        ("MODIFY note varchar(60) character set latin1", "latin1"),
        ("MODIFY id smallint", "id"),
        ("ADD must int NOT NULL", "must"),
        ("ENGINE = MyISAM", "transactions"),
    ],
)
def test_an_archive_that_does_not_take_the_rows_is_refused(
    mysql: Server, database: MakeDatabase, change: str, word: str
) -> None:
    name = database(mysql)
    make(mysql, name, COLUMNS.replace("varchar(60)", "varchar(60) character set utf8mb4"), rows=2000)
    mysql.sql("CREATE TABLE t_archive LIKE t", database=name)
    mysql.sql(f"ALTER TABLE t_archive {change}", database=name)
    with cleaner(mysql, name, ARCHIVED) as rule:
        assert word in rule.said("archive_differs")
        assert rule.steps() == []


def test_one_rule_archives_and_deletes(mysql: Server, database: MakeDatabase) -> None:
    """At ten days into the archive, at fifteen out of it; what is older than that when it is found goes at once."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)")
    before = rows_of(mysql, "t", database=name)
    old = rows_of(mysql, "t", f"at < {days_ago(15)}", database=name)
    rule_of = {**ARCHIVED, "delete_after": "15d"}
    with cleaner(mysql, name, rule_of) as rule:
        done = rule.run()
        assert done.rows("delete") == len(old)
        assert rule.steps() == []
    kept, archived = (rows_of(mysql, table, database=name) for table in ("t", "t_archive"))
    assert digest(kept, archived, old) == digest(before)
    mysql.sql("UPDATE t_archive SET at = at - INTERVAL 3 DAY", database=name)
    with cleaner(mysql, name, rule_of) as rule:
        assert {(s.task.kind, str(s.task.ref)) for s in rule.steps()} == {("delete", "t_archive")}
        assert rule.run().rows("delete") > 0
        assert rule.steps() == []


def test_an_archive_in_another_database(mysql: Server, database: MakeDatabase) -> None:
    """It is found from where its table is, also when its own rows reach the end of their time."""
    name, other = database(mysql), database(mysql)
    make(mysql, name)
    before = rows_of(mysql, "t", database=name)
    rule_of = {**ARCHIVED, "archive_table": f"{other}.old", "delete_after": "18d"}
    with cleaner(mysql, name, {**rule_of, "delete_after": None}) as rule:
        rule.run()
    assert digest(rows_of(mysql, "t", database=name), rows_of(mysql, "old", database=other)) == digest(before)
    with cleaner(mysql, name, rule_of) as rule:
        (step,) = rule.steps()
        assert (step.task.ref.database, step.task.kind) == (other, "delete")
        rule.run()
        assert rule.steps() == []
    with cleaner(mysql, name, {**ARCHIVED, "archive_table": "nowhere_db.old"}) as rule:
        assert rule.measure().expired[0].depot is not None


# ---- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        "kind = 3 OR kind = 4 -- a comment",
        "kind IN (SELECT kind FROM wanted)",
        "at < NOW() - INTERVAL 11 DAY",
        "note LIKE '%5'",
    ],
)
@pytest.mark.parametrize("archive", [False, True])
def test_only_rows_that_meet_the_condition_leave(
    mysql: Server, database: MakeDatabase, where: str, archive: bool
) -> None:
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)")
    mysql.script("CREATE TABLE wanted (kind int); INSERT INTO wanted VALUES (2), (5);", database=name)
    before, gone = rows_of(mysql, "t", database=name), due(mysql, name, f" AND ({where}\n)")
    with cleaner(mysql, name, {**(ARCHIVED if archive else TEN_DAYS), "where": where}) as rule:
        (step,) = rule.steps()
        assert step.expected.rows == len(gone) > 0
        rule.run()
        assert rule.steps() == []
    assert digest(rows_of(mysql, "t", database=name), gone) == digest(before)
    if archive:
        assert digest(rows_of(mysql, "t_archive", database=name)) == digest(gone)


@pytest.mark.parametrize("where", ["1=1) OR (1=1", "kind = ", "1 LIMIT 5", "missing = 1", "COUNT(*) > 1", "1 /* x"])
def test_a_condition_that_does_not_stand_alone_is_refused(mysql: Server, database: MakeDatabase, where: str) -> None:
    name = database(mysql)
    make(mysql, name, rows=2000)
    with cleaner(mysql, name, {**TEN_DAYS, "where": where}) as rule:
        assert rule.steps() == []
        assert rule.said("bad_where")


def small_rights(server: Server, database: str, *grants: str) -> dict[str, Any]:
    return small(server, *(f"{grant} ON `{database}`.*" for grant in grants))


def test_missing_rights_are_told_before(mysql: Server, database: MakeDatabase) -> None:
    """With the GRANT that helps; nothing is tried."""
    from tests.integration.my import use

    name = database(mysql)
    make(mysql, name, rows=2000)
    for grants, rule, code in (
        (("SELECT",), TEN_DAYS, "missing_privilege"),
        (("SELECT, DELETE",), ARCHIVED, "archive_differs"),
    ):
        with use(mysql, **small_rights(mysql, name, *grants)) as used:
            clean = Cleaner(used, name, {**OF_RULE, "name": "r", **rule})
            assert clean.steps() == []
            assert "GRANT" in clean.said(code)
    with use(mysql, **small_rights(mysql, name, "SELECT, DELETE")) as used:
        clean = Cleaner(used, name, TEN_DAYS)
        assert clean.run().rows("delete") > 0
        assert clean.steps() == []


# ---- the module ------------------------------------------------------------------------------------------------------


def test_the_module_does_what_its_check_said(mysql: Server, database: MakeDatabase, tmp_path: Path) -> None:
    """The same steps with the same rows; nothing is touched by the check, and nothing is due afterwards."""
    name = database(mysql)
    make(mysql, name, f"{COLUMNS}, key (at)")
    before = rows_of(mysql, "t", database=name)
    rules = [{"name": "old", **ARCHIVED, "archive_dir": str(tmp_path / "a"), "where": "kind <> 3"}]
    options = {**mysql.login(), "databases": [name], "rules": rules, "journal": str(tmp_path / "journal.sqlite")}
    check = run("db_cleanup", options, check=True)
    assert digest(rows_of(mysql, "t", database=name)) == digest(before)
    assert not (tmp_path / "a").exists()
    done = run("db_cleanup", options)
    assert check.changed and done.changed
    assert check.steps() == done.steps()
    (planned,), (step,) = ([s for s in x.fact()["steps"] if s["kind"] == "archive"] for x in (check, done))
    assert planned["expected"]["rows"] == step["actual"]["rows"] > 0
    assert step["proven"]
    assert not run("db_cleanup", options).changed
    assert digest(rows_of(mysql, "t", database=name), rows_in_files(tmp_path / "a")) == digest(before)
