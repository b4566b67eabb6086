# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bloat of InnoDB tables: what is foretold against what a rebuild then gives back, for many shapes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Bloat, Execution, Ref, Table, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Rebuild
from tests.fleet import Fleet, MySQL, Server

from .my import ALL, Used, client, fill, mould, use, wait_until

Make = Callable[[Server], str]
# MariaDB's purge holds a table for as long as one of its batches takes, seconds where pages are compressed: the last
# step of a rebuild waits for it. A module comes again, but here there is one attempt.
PATIENT = Execution(lock_timeout=60)


class Shape(NamedTuple):
    """A table: columns, values of row `i`, rows, options, and its oldest two thirds."""

    columns: str
    values: str
    rows: int
    old: str
    options: str = ""


SHAPES = {
    "fixed": Shape(
        "id int primary key, a int not null, b bigint not null, d datetime not null, key (a), key (d)",
        "i, floor(rand(i) * 1e9), i, '2026-01-01' + interval i second",
        180000,
        "id <= 120000",
    ),
    "orders": Shape(
        "id bigint primary key, made datetime, who int, note varchar(300), sum decimal(12, 2), key (made), key (who)",
        "i, '2026-01-01' - interval floor(rand(i) * 1e7) second, floor(rand(i + 7) * 1e9), repeat('n', i % 200), i / 7",
        90000,
        "id <= 60000",
    ),
    "wide": Shape(
        "id int primary key, t text, u varchar(2000)",
        "i, repeat('w', floor(rand(i) * 3000)), repeat('u', floor(rand(i) * 1500))",
        7500,
        "id <= 5000",
    ),
    "away": Shape("id int primary key, b mediumblob", "i, repeat('b', floor(rand(i) * 40000))", 900, "id <= 600"),
    "uuid": Shape(
        "id char(32) character set ascii primary key, v varchar(120), n int, key (n)",
        "left(sha2(i, 256), 32), repeat('v', floor(rand(i) * 100)), floor(rand(i) * 1e9)",
        100000,
        "id < 'aa'",
    ),
    "tenants": Shape(
        "t int, id int, v varchar(200), primary key (t, id)",
        "i % 50, i, repeat('v', floor(rand(i) * 200))",
        250000,
        "id <= 166000",
    ),
    "keyless": Shape("a int, v varchar(200), key (a)", "i, repeat('n', i % 200)", 90000, "a <= 60000"),
}
DELETES = {
    "none": "",
    "oldest two thirds": "{old}",
    "every second": "crc32({key}) % 2 = 0",
    "random 70 %": "crc32(concat({key}, 'salt')) % 10 < 7",
}


def estimate(used: Used, ref: Ref, *, closer: bool = False) -> tuple[Bloat, Table]:
    wants = ALL._replace(only=(ref,), exact=(ref,) if closer else ())
    (table,) = [t for t in used.measure(ref.database, wants).tables if t.ref == ref]
    assert table.bloat is not None
    return table.bloat, table


def rebuilt(used: Used, ref: Ref) -> tuple[int, float]:
    """Rebuilds a table; its bytes before, and what share of them the rebuild gave back, in percent."""
    before = used.table(ref.database, ref.path[-1], Wants(tables=True)).total_bytes
    used.carry_out(Rebuild(ref))
    return before, 100 * (1 - used.table(ref.database, ref.path[-1], Wants(tables=True)).total_bytes / before)


@pytest.mark.parametrize("shape", SHAPES)
def test_foretells_what_a_rebuild_gives_back(mysql: Server, database: Make, shape: str) -> None:
    name, it = database(mysql), SHAPES[shape]
    fill(mysql, name, "t", it.columns, it.values, it.rows, it.options)
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    if shape in ("uuid", "fixed"):
        used.carry_out(Rebuild(ref))  # random keys leave a third of the pages free by themselves
    with mould(mysql, name, "t") as again:
        for way, where in DELETES.items():
            if where and shape == "tenants":
                # How far to trust the statistics says more of its rows than a sample: they are to be the usual ones.
                mysql.sql("DROP TABLE t", database=name)
                fill(mysql, name, "t", it.columns, it.values, it.rows, it.options)
            elif where:
                again()
            if where:
                key = "a" if shape == "keyless" else "id"
                mysql.sql(f"DELETE FROM t WHERE {where.format(old=it.old, key=key)}", database=name)
            looks = [estimate(used, ref, closer=closer) for closer in (False, True)]
            before, truth = rebuilt(used, ref)
            # A file of less than 32 megabytes grows by one at a time, which is some percent of these.
            step = 100 * (1 << 20 if before < 32 << 20 else 4 << 20) / before
            for look, table in looks:
                said = f"{way}: truth {truth:.1f} %, foretold {look}"
                assert look.low - 0.5 <= max(0.0, truth) <= look.high + 0.5, said
                assert abs(max(0.0, truth) - look.percent) < 5 + step, said
                assert 0 <= look.low <= look.percent <= look.high <= 100
                assert abs(look.bytes - table.total_bytes * look.percent / 100) < 10
                assert look.low > 25 if where else look.low < 20, said


# The four deletes of which DATA_FREE sees the first only, and next to nothing of the others.
RETENTION = {
    "oldest 66 %": "id <= 99000",
    "every second row": "id % 2 = 0",
    "random 70 %": "crc32(concat(id, '{seed}')) % 10 < 7",
    "random date 70 %": "made < '2026-01-01' + interval 0.7 * 365 day",
}


def test_retention(mysql: Server, database: Make) -> None:
    """150,000 rows with two secondary indexes, one of them random: the error of the estimate is 15 points at most."""
    name, seed = database(mysql), random.randrange(10**6)
    columns = "id int primary key, made datetime, code int, note varchar(200), key (made), key (code)"
    date = f"'2026-01-01' + interval floor(rand(i + {seed}) * 365 * 86400) second"
    fill(mysql, name, "t", columns, f"i, {date}, floor(rand(i * 7) * 1e9), repeat('n', 40 + i % 90)", 150000)
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    with mould(mysql, name, "t") as again:
        for way, where in RETENTION.items():
            again()
            mysql.sql(f"DELETE FROM t WHERE {where.format(seed=seed)}", database=name)
            look, _table = estimate(used, ref)
            _before, truth = rebuilt(used, ref)
            said = f"{way}, seed {seed}: truth {truth:.1f} %, foretold {look}"
            print(said)
            assert abs(truth - look.percent) <= 15, said
            assert look.low - 0.5 <= truth <= look.high + 0.5, said
            assert look.low > 30, said


# Hardly a row is left: then the smallest file that the server makes counts, and not its usual reserve.
KEYS = {
    "integer": ("id int primary key, {rest}", "i, {rest}", "id"),
    "uuid": (
        "id char(36) charset ascii primary key, {rest}",
        "insert(left(sha2(i, 224), 36), 9, 1, '-'), {rest}",
        "id",
    ),
    "bytes": ("id binary(16) primary key, {rest}", "unhex(left(sha2(i, 224), 32)), {rest}", "id"),
    "moments": ("at datetime, n int, {rest}, primary key (at, n)", "'2026-01-01' + interval i minute, i, {rest}", "n"),
    "lines": ("o int, n int, {rest}, primary key (o, n)", "floor(i / 9), i, {rest}", "n"),
    "tenants": ("o int, n int, {rest}, primary key (o, n)", "i % 7, i, {rest}", "n"),
}
LEFT = {"every 50th": "crc32({key}) % 50 > 0", "one percent": "crc32(concat({key}, 'z')) % 100 > 0", "no row": "TRUE"}


@pytest.mark.parametrize("kind", KEYS)
def test_hardly_a_row_is_left(mysql: Server, database: Make, kind: str) -> None:
    name = database(mysql)
    columns, values, key = KEYS[kind]
    rest = "v varchar(400), k int" if key == "n" else "v varchar(400), n int"
    fill(mysql, name, "t", columns.format(rest=rest), values.format(rest="repeat('x', 250), i"), 40000)
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    with mould(mysql, name, "t") as again:
        for left, where in LEFT.items():
            again()
            mysql.sql(f"DELETE FROM t WHERE {where.format(key=key)}", database=name)
            look, _table = estimate(used, ref)
            _before, truth = rebuilt(used, ref)
            said = f"{left}: truth {truth:.2f} %, foretold {look}"
            assert abs(truth - look.percent) <= 2, said
            assert look.low - 0.5 <= truth <= look.high + 0.5, said


@pytest.mark.parametrize("left", [5, 50])
def test_long_values_on_pages_of_their_own(mysql: Server, database: Make, left: int) -> None:
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, b mediumblob", "i, repeat('b', 1000 + floor(rand(i) * 40000))", 2000)
    mysql.sql(f"DELETE FROM t WHERE crc32(id) % 100 >= {left}", database=name)
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    look, table = estimate(used, ref, closer=True)
    used.carry_out(Rebuild(ref))
    truth = 100 * (1 - used.table(name, "t", Wants(tables=True)).total_bytes / table.total_bytes)
    said = f"truth {truth:.1f} %, foretold {look}"
    assert abs(truth - look.percent) <= 10, said
    assert look.low - 0.5 <= truth <= look.high + 0.5, said


def test_statistics_of_another_time(mysql: Server, database: Make) -> None:
    """Nobody has counted since: the rows of such a table are between what its statistics and its rows say."""
    name = database(mysql)
    columns = "o int, n int, v varchar(400), primary key (o, n)"
    fill(mysql, name, "t", columns, "i % 3, i, repeat('x', 300)", 130000, "STATS_AUTO_RECALC=0")
    mysql.sql("ANALYZE TABLE t", database=name)
    mysql.sql("DELETE FROM t WHERE crc32(n) % 10 > 0", database=name)
    mysql.sql("FLUSH TABLES", database=name)
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    looks = [estimate(used, ref, closer=closer)[0] for closer in (False, True)]
    table = used.table(name, "t", Wants(tables=True))
    used.carry_out(Rebuild(ref))
    truth = 100 * (1 - used.table(name, "t", Wants(tables=True)).total_bytes / table.total_bytes)
    for look in looks:
        assert look.low - 0.5 <= truth <= look.high + 0.5, f"truth {truth:.1f} %, foretold {looks}"
    assert abs(truth - looks[1].percent) < 10, f"truth {truth:.1f} %, foretold {looks}"


def test_sees_what_data_free_does_not(mysql: Server, database: Make) -> None:
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, v varchar(200)", "i, repeat('x', 150)", 150000)
    mysql.sql("DELETE FROM t WHERE id % 2 = 0", database=name)
    used = use(mysql, PATIENT)
    bloat, table = estimate(used, Ref(name, ("t",)))
    with client(mysql, name) as say:
        if mysql.engine == "mysql":
            say("SET SESSION information_schema_stats_expiry = 0")
        free = say(f"SELECT DATA_FREE FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{name}'")[0][0]
    assert free < 0.25 * table.total_bytes
    assert bloat.low > 30


def test_partitions(mysql: Server, database: Make) -> None:
    """The whole is measured and rebuilt online; one partition is measured by itself, and only rebuilt when asked to."""
    name = database(mysql)
    parts = "PARTITION BY RANGE (id) (PARTITION old VALUES LESS THAN (60001), PARTITION new VALUES LESS THAN MAXVALUE)"
    fill(mysql, name, "t", "id int primary key, v varchar(200)", "i, repeat('x', 150)", 120000, parts)
    mysql.sql("DELETE FROM t WHERE id <= 60000 AND id % 10 > 0", database=name)
    used = use(mysql, PATIENT)
    found = {t.ref.partition: t for t in used.measure(name).tables}
    assert {p: t.kind for p, t in found.items()} == {"": "table", "old": "partition", "new": "partition"}
    assert found[""].total_bytes == found["old"].total_bytes + found["new"].total_bytes
    assert found[""].changed is not None
    assert found["old"].changed is None
    bloat = {p: t.bloat for p, t in found.items()}
    assert all(bloat.values())
    for part in ("old", "new"):
        words = used.carry_out(Rebuild(Ref(name, ("t",), part), online=False))
        assert words == [
            f"ALTER TABLE `{name}`.`t` REBUILD PARTITION `{part}`",
            f"ALTER TABLE `{name}`.`t` ANALYZE PARTITION NO_WRITE_TO_BINLOG `{part}`",
        ]
        after = {t.ref.partition: t for t in used.measure(name, ALL._replace(only=(Ref(name, ("t",)),))).tables}
        truth = 100 * (1 - after[part].total_bytes / found[part].total_bytes)
        foretold = bloat[part]
        assert foretold
        step = 100 * (5 << 20) / found[part].total_bytes
        assert foretold.low - step <= truth <= foretold.high + step
        assert (foretold.low > 40) == (part == "old")
        assert after[part].rows == pytest.approx(6000 if part == "old" else 60000, rel=0.2)
    whole = bloat[""]
    assert whole
    assert 10 < whole.low < 60
    used.carry_out(Rebuild(Ref(name, ("t",))))


def test_compressed_tables_get_a_wide_interval(mysql: Server, database: Make) -> None:
    name = database(mysql)
    squeezed = "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"
    fill(mysql, name, "t", "id int primary key, v varchar(200)", "i, sha2(i, 512)", 100000, squeezed)
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    fresh = estimate(used, ref)[0]
    assert fresh.low < 20
    mysql.sql("DELETE FROM t WHERE id % 10 > 1", database=name)
    bloat, table = estimate(used, ref)
    used.carry_out(Rebuild(ref))
    truth = 100 * (1 - used.table(name, "t", Wants(tables=True)).total_bytes / table.total_bytes)
    assert bloat.low - 5 <= truth <= bloat.high + 5
    assert bloat.low > 15


def test_exotic_columns(mysql: Server, database: Make) -> None:
    """Every type, NULL and not: the row's length is right."""
    name = database(mysql)
    columns = (
        "id bigint unsigned primary key, ti tinyint, si smallint, mi mediumint null, f float, dd double,"
        " de decimal(30, 10),"
        " da date, ti2 time(3), ts timestamp(6) null, dt datetime(2), y year, b1 bit(9), bi binary(5),"
        " vb varbinary(300),"
        " ch char(10) character set utf8mb4, vc varchar(20) character set utf8mb4, en enum('a', 'b'), se set('x', 'y'),"
        " js json, tt tinytext, lb longblob, key (de, vc(5)), key (ch), key (dt, en)"
    )
    values = (
        "18446744073709000000 + i, 1, i % 9, if(i % 2, null, 5), 1, 2, i / 3, '2026-01-01', '10:11:12.123',"
        " '2026-01-01 00:00:00', '2026-01-01', 2026, b'101', 'abc', repeat('v', i % 90), 'äöü', 'ß', 'a', 'x,y',"
        " '{\"k\": [1, 2, 3]}', if(i % 3, null, 'tiny'), repeat('l', i % 50)"
    )
    fill(mysql, name, "t", columns, values, 100000)
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    used.carry_out(Rebuild(ref))
    fresh, table = estimate(used, ref)
    assert fresh.percent < 100 * (6 << 20) / table.total_bytes + 5
    mysql.sql("DELETE FROM t WHERE id % 3 > 0", database=name)
    bloat, table = estimate(used, ref)
    used.carry_out(Rebuild(ref))
    truth = 100 * (1 - used.table(name, "t", Wants(tables=True)).total_bytes / table.total_bytes)
    assert abs(truth - bloat.percent) < 5 + 100 * (5 << 20) / table.total_bytes


def test_keys_far_apart_and_close_together(mysql: Server, database: Make) -> None:
    """Almost all rows lie in a billionth of the range of keys."""
    name = database(mysql)
    far = "if(i > 20, 9000000000000000000 + i, i * 400000000000000000)"
    fill(mysql, name, "t", "id bigint primary key, v varchar(200)", f"{far}, repeat('x', 150)", 100000)
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    assert estimate(used, ref)[0].low < 20
    mysql.sql("DELETE FROM t WHERE id > 100 AND id % 3 > 0", database=name)
    assert 30 < estimate(used, ref)[0].low < 70
    assert 35 < estimate(used, ref, closer=True)[0].low < 70
    mysql.sql("DELETE FROM t", database=name)
    assert estimate(used, ref)[0].low > 90


@pytest.fixture
def shared(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[MySQL]:
    """A MariaDB whose tables lie in one shared file."""
    server = fleet.mariadb(settings={"innodb_file_per_table": "OFF"})
    yield server
    server.stop()


def test_shared_file(shared: MySQL) -> None:
    shared.sql("CREATE DATABASE shop")
    fill(shared, "shop", "t", "id int primary key, v varchar(200)", "i, repeat('x', 150)", 50000)
    shared.sql("DELETE FROM t WHERE id % 4 > 0", database="shop")
    use(shared).carry_out(Analyze(Ref("shop", ("t",))))
    table = use(shared).table("shop", "t")
    assert table.bloat is None
    assert table.total_bytes > 1_000_000


def test_my_isam_knows(mysql: Server, database: Make) -> None:
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, v varchar(200)", "i, repeat('x', 150)", 50000, "ENGINE=MyISAM")
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    assert estimate(used, ref)[0].percent == 0
    mysql.sql("DELETE FROM t WHERE id % 2 = 0", database=name)
    bloat, table = estimate(used, ref)
    used.carry_out(Rebuild(ref, online=False))
    freed = table.total_bytes - used.table(name, "t").total_bytes
    assert freed == pytest.approx(bloat.bytes, rel=0.15)
    assert estimate(used, ref)[0].percent == 0


def test_purge_pending(mysql: Server, database: Make) -> None:
    """Purge takes its time after a large DELETE: said in a finding; the estimate still holds for a rebuild."""
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, v varchar(200), key (v)", "i, repeat('x', 150)", 150000)
    used, ref = use(mysql, PATIENT), Ref(name, ("t",))
    with client(mysql, name) as say:
        # In batches of one purge is slow enough to be looked at, however busy this machine is.
        usual = say("SELECT @@innodb_purge_batch_size")[0][0]
        say("SET GLOBAL innodb_purge_batch_size = 1")
        try:
            say("DELETE FROM t WHERE id % 2 = 0")
            wait_until(lambda: "purge_pending" in {f.code for f in used.measure(name).findings})
        finally:
            say(f"SET GLOBAL innodb_purge_batch_size = {usual}")
    bloat, table = estimate(used, ref)
    used.carry_out(Rebuild(ref))
    truth = 100 * (1 - used.table(name, "t", Wants(tables=True)).total_bytes / table.total_bytes)
    assert bloat.low - 10 < truth < bloat.high + 10
