# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MySQL engine on MariaDB and MySQL: what it measures, what it does, that both agree, and that it is quick."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Rebuild, Vacuum
from tests.fleet import Server

from .my import ALL, READ, client, fill, fingerprint, use

Make = Callable[[Server], str]
HOSTILE = (
    "back`tick",
    'quo"te',
    "apo'strophe",
    "two words",
    "täble",
    "per%cent",
    "%s",
    "a#p#b",
    "select",
    "dot.ted",
    "表",
)
KINDS = {
    "plain": "(id int primary key, v varchar(10))",
    "keyless": "(v int)",
    "full": "(id int primary key, v text, fulltext (v))",
    "spatial": "(id int primary key, g geometry not null, spatial index (g))",
    "virtual": "(id int primary key, v int, w int generated always as (v + 1) virtual, key (w))",
    "stored": "(id int primary key, v int, w int generated always as (v + 1) stored, key (w))",
    "child": "(id int primary key, p int, foreign key (p) references plain (id) on delete cascade)",
    "squeezed": "(id int primary key, v text) row_format=compressed key_block_size=8",
    "isam": "(id int primary key) engine=myisam",
    "csv": "(id int not null) engine=csv",
    "parted": "(id int primary key) partition by hash (id) partitions 2",
}
BY_CHOICE = {"csv", "parted"}  # the server would, we do not


def test_greets(mysql: Server, database: Make) -> None:
    name = database(mysql)
    found = use(mysql).server
    assert found.engine == mysql.engine
    assert found.version == mysql.version
    assert ".".join(map(str, found.number)) == found.version
    assert found.role == "primary"
    assert abs(found.now.timestamp() - time.time()) < 5
    assert name in {d.name for d in found.databases}
    assert not {d.name for d in found.databases} & {"mysql", "information_schema", "performance_schema", "sys"}
    lacks = {"vacuum", "freeze", "cost delay", "single rebuild", "refresh", "pgbackrest", "incremental"}
    assert set(found.lacks) == lacks | ({"physical"} if mysql.engine == "mysql" else set())
    assert not found.findings


def test_the_server_says_which_it_is(mysql: Server) -> None:
    other = "mysql" if mysql.engine == "mariadb" else "mariadb"
    assert use(mysql, engine=other).server.engine == mysql.engine


def test_empty_database(mysql: Server, database: Make) -> None:
    found = use(mysql).measure(database(mysql))
    assert (found.tables, found.leftovers, found.findings) == ((), (), ())
    assert found.activity is not None
    assert found.activity.connections
    assert {s.name for s in found.spaces} == {"data", "tmp"}
    assert all(s.free and s.total for s in found.spaces)  # this server runs where the test does


def test_counts_changes_until_analyzed(mysql: Server, database: Make) -> None:
    name = database(mysql)
    # Without automatic recalculation, which would analyze behind the test's back.
    fill(mysql, name, "orders", "id int primary key, v int", "i, i", 5000, "STATS_AUTO_RECALC=0")
    used = use(mysql)
    task = Analyze(Ref(name, ("orders",)))
    used.carry_out(task)
    before = used.table(name, "orders")
    assert before.changed == 0
    assert before.rows == pytest.approx(5000, rel=0.1)
    mysql.sql("DELETE FROM orders WHERE id <= 1000", database=name)
    mysql.sql("UPDATE orders SET v = v + 1 WHERE id > 4500", database=name)
    changed = used.table(name, "orders")
    assert changed.changed == 1500
    assert changed.analyzed == before.analyzed
    words = used.carry_out(task)
    assert words == [f"ANALYZE NO_WRITE_TO_BINLOG TABLE `{name}`.`orders`"]
    after = used.table(name, "orders")
    assert after.changed == 0
    assert after.analyzed is not None
    assert abs(after.analyzed.timestamp() - time.time()) < 10  # whatever the server's time zone is


def test_statistics_in_memory_are_never_out_of_date(mysql: Server, database: Make) -> None:
    name = database(mysql)
    fill(mysql, name, "scratch", "id int primary key", "i", 3000, "STATS_PERSISTENT=0")
    found = use(mysql).table(name, "scratch")
    assert (found.changed, found.analyzed) == (None, None)


def test_rebuild_frees_and_analyzes(mysql: Server, database: Make) -> None:
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, v varchar(200), n int, key (n)", "i, repeat('x', 150), i", 100000)
    used = use(mysql)
    full = used.table(name, "t")
    mysql.sql("DELETE FROM t WHERE id % 4 > 0", database=name)
    before = used.table(name, "t")
    assert before.total_bytes == full.total_bytes
    assert before.bloat is not None
    assert before.bloat.low > 50
    words = used.carry_out(Rebuild(Ref(name, ("t",))))
    assert words == [f"ALTER TABLE `{name}`.`t` FORCE, ALGORITHM=INPLACE, LOCK=NONE"]
    after = used.table(name, "t")
    freed = 100 * (1 - after.total_bytes / before.total_bytes)
    assert before.bloat.low <= freed <= before.bloat.high
    assert after.changed == 0  # a rebuild makes new statistics, so nothing else is due for it
    assert after.analyzed is not None
    assert after.analyzed.timestamp() > time.time() - 10
    assert after.bloat is None or after.bloat.low < 20


@pytest.mark.parametrize("online", [True, False])
def test_kinds_of_tables(mysql: Server, database: Make, online: bool) -> None:
    """What `lacks` says before is what the server says then."""
    name = database(mysql)
    with client(mysql, name) as say:
        for table, definition in KINDS.items():
            say(f"CREATE TABLE `{table}` {definition}")
    used = use(mysql)
    found = {t.ref.path[0]: t for t in used.measure(name).tables if not t.ref.partition}
    assert set(found) == set(KINDS)
    lack = "online rebuild" if online else "exclusive rebuild"
    refused = set()
    for table in set(KINDS) - BY_CHOICE:
        try:
            used.carry_out(Rebuild(Ref(name, (table,)), online))
        except Refused:
            refused.add(table)
    assert refused == {table for table in set(KINDS) - BY_CHOICE if lack in found[table].lacks}
    assert {"analyze", lack} <= set(found["csv"].lacks)
    # The whole is rebuilt online, one partition is not: its writers wait.
    assert ("exclusive rebuild" in found["parted"].lacks, "online rebuild" in found["parted"].lacks) == (True, False)


def test_views_are_no_tables(mysql: Server, database: Make) -> None:
    name = database(mysql)
    with client(mysql, name) as say:
        say("CREATE TABLE t (id int primary key)")
        say("CREATE VIEW v AS SELECT * FROM t")
        if mysql.engine == "mariadb":
            say("CREATE SEQUENCE s")
            say("CREATE TABLE versioned (id int primary key) WITH SYSTEM VERSIONING")
    versioned = {"versioned"} if mysql.engine == "mariadb" else set()
    assert {x.ref.path[0] for x in use(mysql).measure(name).tables} == {"t"} | versioned


def test_hostile_names(mysql: Server) -> None:
    """A database, tables, partitions and columns with every sign that could be taken for something else."""
    name = "data`base %s ä'\""
    mysql.sql("CREATE DATABASE `" + name.replace("`", "``") + "`")
    try:
        for i, table in enumerate(HOSTILE):
            quoted = "`" + table.replace("`", "``") + "`"
            parted = f"PARTITION BY HASH (`select`) (PARTITION `p-{i}`, PARTITION {quoted})" if i % 2 else ""
            columns = "`select` int primary key, `x``y %s` varchar(100), key (`x``y %s`)"
            mysql.sql(f"CREATE TABLE {quoted} ({columns}) {parted}", database=name)
            rows = ", ".join(f"({n}, repeat('x', 90))" for n in range(3000))
            mysql.sql(f"INSERT INTO {quoted} VALUES {rows}", database=name)
        used = use(mysql)
        found = used.measure(name)
        assert not found.findings
        assert {t.ref.path[0] for t in found.tables} == set(HOSTILE)
        parts = {t.ref.partition for t in found.tables if t.ref.partition}
        assert parts == {p for i, table in enumerate(HOSTILE) if i % 2 for p in (f"p-{i}", table)}
        assert all(table.total_bytes > 200000 for table in found.tables)
        mysql.mark_log()
        words = [w for t in found.tables if not t.ref.partition for w in used.carry_out(Analyze(t.ref))]
        words += [w for t in found.tables for w in used.carry_out(Rebuild(t.ref, online=not t.ref.partition))]
        assert [s for s in mysql.statements(own=False) if not READ.match(s)] == words
        counted = {t.ref: t.rows for t in used.measure(name).tables}
        assert not {ref: n for ref, n in counted.items() if n <= (1000 if ref.partition else 2500)}
    finally:
        mysql.sql("DROP DATABASE `" + name.replace("`", "``") + "`")


def test_measuring_and_spelling_changes_nothing(mysql: Server, database: Make) -> None:
    name = database(mysql)
    # The server itself must not make new statistics meanwhile.
    still = "STATS_AUTO_RECALC=0"
    fill(mysql, name, "t", "id int primary key, v text, n int, key (n)", "i, repeat('x', 200), i", 20000, still)
    fill(mysql, name, "p", "id int primary key, v int", "i, i", 20000, f"{still} PARTITION BY HASH (id) PARTITIONS 3")
    before = fingerprint(mysql, name)
    mysql.mark_log()
    used = use(mysql)
    found = used.measure(name)
    used.measure(name, ALL._replace(exact=tuple(t.ref for t in found.tables), scan_budget=1 << 30))
    for table in found.tables:
        used.engine.spell(Analyze(table.ref), used.server)
        used.engine.spell(Rebuild(table.ref), used.server)
        for gauge in ("oldest_snapshot", "disk_missing", "wal_missing", "tmp_missing", "replica_lag"):
            used.gauge(gauge, Rebuild(table.ref))
    statements = mysql.statements(own=False)
    assert statements
    assert [s for s in statements if not READ.match(s)] == []
    assert fingerprint(mysql, name) == before


def test_there_is_no_vacuum(mysql: Server) -> None:
    used = use(mysql)
    with pytest.raises(Refused):
        used.engine.spell(Vacuum(Ref("x", ("y",))), used.server)
