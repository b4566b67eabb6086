# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recommendations on MySQL and MariaDB: all that ails a schema is found, and its cure runs as printed and cures it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pymysql
import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import MySQL
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution
from tests.fleet import Fleet, Missing, Server

from .advising import Advice, advise
from .conftest import Pool, missing
from .my import client, fill, small

Make = Callable[[Server], str]
NOW: dict[str, Any] = {"unused_index_age": "0s"}  # a test's server has counted for seconds only
HOSTILE = "we`ird %s 'ta\"ble\\"


@pytest.fixture(scope="module")
def counting(fleet: Fleet) -> Server:
    """MariaDB with performance_schema, which is off by default there."""
    try:
        return fleet.mariadb(settings={"performance_schema": "ON"})
    except Missing as why:
        missing(why)


@pytest.fixture(params=["mysql", "mariadb", "mariadb that counts"])
def each(request: pytest.FixtureRequest, pool: Pool) -> Server:
    if request.param == "mariadb that counts":
        found: Server = request.getfixturevalue("counting")
        return found
    return pool.get(str(request.param))


@pytest.fixture(params=["mysql", "mariadb that counts"])
def counted(request: pytest.FixtureRequest, pool: Pool) -> Server:
    found: Server = pool.get("mysql") if request.param == "mysql" else request.getfixturevalue("counting")
    return found


def asked(server: Server, database: str, login: dict[str, Any] | None = None, **options: Any) -> Advice:
    """What concerns the database only."""
    engine = MySQL({**server.login(), **(login or {})}, Execution())
    found = advise(engine, [database], **options)
    return found._replace(recommended=[r for r in found.recommended if r["database"] == database])


def cured(server: Server, database: str, advice: Advice) -> list[str]:
    """The printed words of every recommendation, run one by one."""
    done = []
    with client(server, database, connect_timeout=5) as say:
        for recommendation in advice.recommended:
            assert recommendation["fix"], recommendation
            for statement in recommendation["fix"].split(";\n"):
                say(statement)
                done.append(statement)
    return done


def make(server: Server, database: str, *statements: str) -> None:
    with client(server, database) as say:
        for statement in statements:
            say(statement)


# ---- indexes ---------------------------------------------------------------------------------------------------------


def test_unused_duplicate_and_redundant_indexes(counted: Server, database: Make) -> None:
    """And none that is used, unique, or that a foreign key stands on."""
    name = database(counted)
    fill(counted, name, "t", "id int primary key, a int, b int, c int, u int, f int", "i, i, i, i, i, i", 50)
    make(
        counted,
        name,
        "CREATE TABLE parent (id int primary key)",
        "ALTER TABLE t ADD KEY used (a), ADD KEY unused (b), ADD UNIQUE alone (u)",
        "ALTER TABLE t ADD KEY twin_1 (c), ADD KEY twin_2 (c)",
        "ALTER TABLE t ADD KEY short (a), ADD KEY beginning (f), ADD KEY longer (f, b)",
        "INSERT INTO parent SELECT id FROM t",
        "ALTER TABLE t ADD CONSTRAINT to_parent FOREIGN KEY (f) REFERENCES parent (id)",
        "SELECT COUNT(*) FROM t FORCE INDEX (used) WHERE a > 3",
        "SELECT COUNT(*) FROM t FORCE INDEX (twin_1) WHERE c > 3",
    )
    found = asked(counted, name, **NOW)
    codes = {(r["code"], r["object"].partition(".")[2]) for r in found.recommended}
    assert ("unused_index", "unused") in codes
    assert len(found.found("duplicate_index")) == 2  # of used and short, of twin_1 and twin_2
    assert ("redundant_index", "beginning") in codes
    assert not {n for code, n in codes} & {"PRIMARY", "alone"}
    words = cured(counted, name, found)
    assert f"ALTER TABLE `{name}`.`t` DROP INDEX `unused`, ALGORITHM=INPLACE, LOCK=NONE" in words
    again = asked(counted, name, **NOW)
    # What stood in for another has to prove itself from now on: altering a table begins its counters anew.
    assert set(again.codes()) <= {"unused_index"}
    left = {
        row[0]
        for row in counted.sql(
            f"SELECT INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = '{name}' AND TABLE_NAME = 't'"
        )
    }
    assert {"PRIMARY", "alone"} <= left
    assert "unused" not in left
    assert len(left & {"twin_1", "twin_2"}) == 1
    assert len(left & {"used", "short"}) == 1


def test_young_counters_recommend_nothing(counted: Server, database: Make) -> None:
    name = database(counted)
    make(counted, name, "CREATE TABLE t (id int primary key, v int, KEY idle (v))")
    found = asked(counted, name)
    assert found.recommended == []
    assert "under unused_index_age" in found.unknown[f"unused_indexes in {name}"]


def test_uncounted_is_unknown(pool: Pool, database: Make) -> None:
    """MariaDB as it comes: performance_schema is off, and nobody counts."""
    server = pool.get("mariadb")
    name = database(server)
    make(server, name, "CREATE TABLE t (id int primary key, v int, w int, KEY idle (v), KEY twin (v), KEY other (w))")
    found = asked(server, name, **NOW)
    assert found.codes() == ["duplicate_index"]
    assert "performance_schema is off" in found.unknown[f"unused_indexes in {name}"]
    assert "performance_schema" in found.unknown["statements"]


# ---- the schema ------------------------------------------------------------------------------------------------------

KEYLESS = {
    "plain": "(v int)",
    "taken": "(my_row_id int, v int)",
    "counts": "(n int NOT NULL AUTO_INCREMENT, v int, KEY (n))",
    "parted": "(v int, d date) PARTITION BY RANGE COLUMNS (d) (PARTITION p0 VALUES LESS THAN ('2020-01-01'),"
    " PARTITION p1 VALUES LESS THAN MAXVALUE)",
    "hashed": "(v int) PARTITION BY HASH (v) PARTITIONS 2",
    "nullable": "(v int, UNIQUE (v))",
}


def test_tables_without_a_key(each: Server, database: Make) -> None:
    name = database(each)
    make(each, name, *(f"CREATE TABLE {table} {columns}" for table, columns in KEYLESS.items()))
    make(
        each, name, f"CREATE TABLE `{HOSTILE.replace('`', '``')}` (v int)", "CREATE TABLE fine (v int NOT NULL UNIQUE)"
    )
    make(each, name, "INSERT INTO plain VALUES (1), (1), (2)", "INSERT INTO parted VALUES (1, '2019-05-05')")
    make(each, name, "CREATE VIEW looks AS SELECT * FROM plain")
    found = asked(each, name)
    assert set(found.found("no_primary_key")) == {*KEYLESS, HOSTILE}
    cured(each, name, found)
    # What counts has its own index still, which nobody needs any more.
    assert [r["object"] for r in asked(each, name).recommended] == ["counts.n"]
    assert each.sql("SELECT * FROM plain", database=name) == [["1"], ["1"], ["2"]]  # the new column does not show
    make(each, name, "INSERT INTO plain VALUES (7)", "INSERT INTO taken VALUES (1, 2)")


def test_counters_near_their_end(each: Server, database: Make) -> None:
    """The columns keep all else that they are, and whoever refers to them grows with them."""
    name = database(each)
    check = " CHECK (id > 0)" if each.engine == "mariadb" else ""
    make(
        each,
        name,
        "CREATE TABLE small (id tinyint unsigned NOT NULL AUTO_INCREMENT COMMENT 'it''s \\\\ the key' PRIMARY KEY,"
        " v int)",
        "CREATE TABLE parent (id smallint NOT NULL AUTO_INCREMENT COMMENT 'x' PRIMARY KEY)",
        "CREATE TABLE child (id int PRIMARY KEY, p smallint NOT NULL DEFAULT 7 COMMENT 'of', q smallint,"
        " CONSTRAINT one FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE,"
        " CONSTRAINT two FOREIGN KEY (q) REFERENCES parent (id) ON DELETE SET NULL)",
        f"CREATE TABLE grandchild (id smallint PRIMARY KEY{check},"
        " CONSTRAINT up FOREIGN KEY (id) REFERENCES parent (id))",
        "CREATE TABLE great (g smallint PRIMARY KEY, CONSTRAINT further FOREIGN KEY (g) REFERENCES grandchild (id))",
        "CREATE TABLE self (id tinyint AUTO_INCREMENT PRIMARY KEY, up tinyint, FOREIGN KEY (up) REFERENCES self (id))",
        "CREATE TABLE far (id int AUTO_INCREMENT PRIMARY KEY)",
        "INSERT INTO small (id) VALUES (250)",
        "INSERT INTO parent VALUES (7), (32000)",
        "INSERT INTO child VALUES (1, 7, 32000)",
        "INSERT INTO self VALUES (120, NULL), (121, 120)",
        "INSERT INTO far VALUES (1000000)",
    )
    before = {
        table: defined(each, name, table) for table in ("small", "parent", "child", "grandchild", "great", "self")
    }
    found = asked(each, name)
    assert found.codes() == ["counter_near_end"] * 3
    assert set(found.found("counter_near_end")) == {"small", "parent", "self"}
    cured(each, name, found)
    assert asked(each, name).recommended == []
    for table, words in before.items():
        assert defined(each, name, table) == grown(words), table
    make(each, name, "INSERT INTO parent VALUES (3000000)", "INSERT INTO child VALUES (2, 3000000, 3000000)")
    make(each, name, "DELETE FROM parent WHERE id = 3000000")
    assert each.sql("SELECT id FROM child", database=name) == [["1"]]


def defined(server: Server, database: str, table: str) -> list[str]:
    """The lines of its definition, without where it counts on; in any order, for keys are added anew."""
    words = server.sql(f"SHOW CREATE TABLE {table}", database=database)[0][1]
    # MariaDB shows display widths, which go with the type.
    return sorted(re.sub(r"int\(\d+\)", "int", line.strip().rstrip(",")) for line in words.splitlines()[:-1])


def grown(lines: list[str]) -> list[str]:
    def wider(line: str) -> str:
        # The server named it, and names it anew after the foreign key.
        line = line.replace("KEY `up` (`up`)", "KEY `self_ibfk_1` (`up`)")
        return re.sub(r"\b(tiny|small)int", "bigint", line)

    return sorted(wider(line) for line in lines)


def test_foreign_engines(each: Server, database: Make) -> None:
    name = database(each)
    make(each, name, "CREATE TABLE old (id int PRIMARY KEY, v int, w int, KEY a (v), KEY b (v)) ENGINE = MyISAM")
    found = asked(each, name)
    assert sorted(found.codes()) == ["duplicate_index", "foreign_engine"]
    cured(each, name, found)
    assert asked(each, name).recommended == []
    make(each, name, "CREATE TABLE other (id int PRIMARY KEY, v int, KEY a (v), KEY b (v)) ENGINE = MyISAM")
    duplicate = asked(each, name).found("duplicate_index")
    ((_index, recommendation),) = duplicate.items()
    make(each, name, recommendation["fix"])  # its engine copies, and cannot do so online


def test_unique_twins(each: Server, database: Make) -> None:
    """A unique index is dropped like any other; what tells that the rows are unique stays."""
    name = database(each)
    make(each, name, "CREATE TABLE t (id int PRIMARY KEY, u int, UNIQUE one (u), UNIQUE two (u), UNIQUE again (id))")
    make(each, name, "ALTER TABLE t ADD KEY plain (u)")
    found = asked(each, name)
    assert len(found.found("duplicate_index")) == len(found.recommended) == 3
    cured(each, name, found)
    assert asked(each, name).recommended == []
    left = each.sql(
        "SELECT INDEX_NAME, NON_UNIQUE FROM information_schema.STATISTICS"
        f" WHERE TABLE_SCHEMA = '{name}' AND TABLE_NAME = 't' ORDER BY 1"
    )
    assert [row[1] for row in left] == ["0", "0"]
    assert "PRIMARY" in {row[0] for row in left}


def test_missing_foreign_key_index(each: Server, database: Make) -> None:
    """InnoDB keeps one for each foreign key, unless it is told not to look."""
    name = database(each)
    fill(each, name, "parent", "id int primary key", "i", 5)
    fill(each, name, "child", "id int primary key, p int", "i, 1 + i % 5", 20000)
    make(each, name, "ALTER TABLE child ADD CONSTRAINT c FOREIGN KEY (p) REFERENCES parent (id)")
    assert asked(each, name).recommended == []
    with client(each, name) as say:
        say("SET foreign_key_checks = 0")
        if each.engine == "mysql":  # it never lets go of it
            with pytest.raises(pymysql.Error, match="needed in a foreign key"):
                say("ALTER TABLE child DROP INDEX c")
            return
        say("ALTER TABLE child DROP INDEX c")
        say("ANALYZE TABLE child")
    found = asked(each, name)
    assert found.codes() == ["missing_foreign_key_index"]
    cured(each, name, found)
    assert asked(each, name).recommended == []


def test_a_clean_schema_gets_none(each: Server, database: Make) -> None:
    """Only unique indexes, and those that foreign keys stand on."""
    name = database(each)
    fill(each, name, "branch", "id int primary key, balance int, filler char(88)", "i, 0, ''", 5)
    fill(
        each,
        name,
        "teller",
        "id int primary key, branch int not null, code varchar(20) not null",
        "i, 1 + i % 5, i",
        50,
    )
    make(
        each,
        name,
        "ALTER TABLE teller ADD UNIQUE (code), ADD FOREIGN KEY (branch) REFERENCES branch (id)",
        "CREATE TABLE both_sides (a int NOT NULL, b int NOT NULL, PRIMARY KEY (a, b), KEY (b),"
        " FOREIGN KEY (a) REFERENCES branch (id), FOREIGN KEY (b) REFERENCES teller (id))",
        "CREATE TABLE history (id bigint AUTO_INCREMENT PRIMARY KEY, at datetime)",
        "CREATE TABLE by_unique (code varchar(20) NOT NULL UNIQUE)",
    )
    found = asked(each, name, **NOW)
    assert found.recommended == []


def test_mariadb_sequences(pool: Pool, database: Make) -> None:
    server = pool.get("mariadb")
    name = database(server)
    make(server, name, "CREATE SEQUENCE short MAXVALUE 100 NOCACHE", "CREATE SEQUENCE wide", "SELECT SETVAL(short, 95)")
    make(
        server, name, "CREATE SEQUENCE round_and_round MAXVALUE 10 CYCLE NOCACHE", "SELECT SETVAL(round_and_round, 10)"
    )
    found = asked(server, name)
    ((obj, recommendation),) = found.found("counter_near_end").items()
    assert obj == "short"
    assert "chose this end" in recommendation["message"]  # nobody but them knows whether larger numbers are good
    assert "ALTER" not in recommendation["fix"]


def test_low_privilege_is_unknown(each: Server, database: Make) -> None:
    """With the GRANT that would show it; and what can be seen is recommended all the same."""
    name = database(each)
    make(each, name, "CREATE TABLE t (v int, w int, KEY a (v), KEY b (v), KEY c (w))")
    login = small(each, f"SELECT ON `{name}`.*")
    found = asked(each, name, login, **NOW)
    assert found.codes() == ["duplicate_index", "no_primary_key"]
    assert f"unused_indexes in {name}" in found.unknown
    assert "GRANT PROCESS ON *.* TO 'small'@'%'" in found.unknown["backends"]
    assert "GRANT" in found.unknown["replicas"]
    assert "GRANT" in found.unknown["logs"]
