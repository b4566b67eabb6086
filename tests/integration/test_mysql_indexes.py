# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes of MySQL and MariaDB as they are read: definitions, sizes, uses, and who needs them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import Index
from tests.fleet import Server

from .my import client, fill, small, use

Make = Callable[[Server], str]
TABLES = (
    (
        "CREATE TABLE parent (a int, b int, c varchar(20), PRIMARY KEY (a), UNIQUE KEY ub (b), KEY kc (c(5)),"
        " KEY kbc (c, b DESC))"
    ),
    (
        "CREATE TABLE child (id int PRIMARY KEY, p int, q int, t text, g point NOT NULL, KEY kp (p), KEY kpq (p, q),"
        " KEY kq (q), KEY kqp (q, p, id), FULLTEXT KEY ft (t), SPATIAL KEY sp (g),"
        " CONSTRAINT fk1 FOREIGN KEY (p) REFERENCES parent (a), CONSTRAINT fk2 FOREIGN KEY (q) REFERENCES parent (b))"
    ),
    "CREATE TABLE parts (a int PRIMARY KEY, b int, KEY kb (b)) PARTITION BY HASH (a) PARTITIONS 3",
    "CREATE TABLE `we``ird %s` (`a``b` int, KEY `k``1` (`a``b`))",
    "CREATE TABLE memory (a int, KEY USING HASH (a)) ENGINE=MEMORY",
)


def read(server: Server, database: str, wants: Wants | None = None, **login: Any) -> dict[str, Index]:
    with use(server, **login) as used:
        found = used.measure(database, wants or Wants(indexes=True)).indexes
    return {".".join(index.ref.path): index for index in found}


def test_definitions(mysql: Server, database: Make) -> None:
    name = database(mysql)
    for statement in TABLES:
        mysql.sql(statement, database=name)
    mysql.sql(
        f"ALTER TABLE parts ADD KEY off (b, a) {'INVISIBLE' if mysql.engine == 'mysql' else 'IGNORED'}", database=name
    )
    if mysql.engine == "mysql":
        mysql.sql("ALTER TABLE parts ADD KEY sum ((a + b) DESC, b)", database=name)
    found = read(mysql, name)
    key = found["parent.kbc"]
    assert key.ref == Ref(name, ("parent", "kbc"))
    assert key.table == Ref(name, ("parent",))
    assert (key.columns, key.method, key.unique, key.valid, key.visible) == (("c", "b"), "btree", False, True, True)
    # MariaDB keeps an order since 10.8.
    assert key.parts == ("`c`", "`b` DESC")
    assert found["parent.kc"].parts == ("`c`(5)",)
    assert found["parent.PRIMARY"].primary
    assert found["parent.PRIMARY"].keep == "primary key"
    assert found["parent.ub"].unique
    assert found["parent.ub"].keep == "unique"
    assert found["child.ft"].method == "fulltext"
    assert found["child.sp"].method == "spatial"
    assert found["memory.a"].method == "hash"
    assert found["we`ird %s.k`1"].parts == ("`a``b`",)
    assert found["parts.kb"].bytes == 3 * 16384
    assert not found["parts.off"].visible
    if mysql.engine == "mysql":
        assert found["parts.sum"].columns == ("", "b")
        assert "`a` + `b`" in found["parts.sum"].parts[0]
        assert found["parts.sum"].parts[0].endswith("DESC")
    only = read(mysql, name, Wants(indexes=True, only=(Ref(name, ("parent", "kc")), Ref(name, ("parts",)))))
    assert {index.table.path[0] for index in only.values()} == {"parent", "parts"}


def test_who_needs_an_index(mysql: Server, database: Make) -> None:
    """One of those that could serve a foreign key is kept for it, on either side; the others may go."""
    name, other = database(mysql), database(mysql)
    for statement in TABLES[:2]:
        mysql.sql(statement, database=name)
    found = read(mysql, name)
    kept = {k: index.keep for k, index in found.items() if index.keep.startswith("supports")}
    assert kept == {"child.kpq": "supports foreign key fk1", "child.kqp": "supports foreign key fk2"}
    # What is kept is enough: the server lets the others go, and not these.
    mysql.sql("ALTER TABLE child DROP KEY kp, DROP KEY kq", database=name)
    # The parent's side, from another database, in an index that is neither unique nor primary.
    mysql.sql("CREATE TABLE named (id int PRIMARY KEY, b int, KEY kb (b))", database=name)
    mysql.sql("SET GLOBAL restrict_fk_on_non_standard_key = 0") if mysql.engine == "mysql" else None
    try:
        mysql.sql(
            f"CREATE TABLE far (b int, CONSTRAINT fk3 FOREIGN KEY (b) REFERENCES {name}.named (b))", database=other
        )
        found = read(mysql, name)
        assert found["named.kb"].keep == "supports foreign key fk3"
        assert read(mysql, other)["far.fk3"].keep == "supports foreign key fk3"
    finally:
        mysql.sql("SET GLOBAL restrict_fk_on_non_standard_key = 1") if mysql.engine == "mysql" else None
        mysql.sql("DROP TABLE IF EXISTS far", database=other)


def test_uses(mysql: Server, database: Make) -> None:
    """Counted since the table was last altered; unknown, and not none, where the server does not count."""
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, a int, b int, key ka (a), key kb (b)", "i, i, i", 2000)
    with client(mysql, name) as say:
        for i in range(5):
            say(f"SELECT * FROM t FORCE INDEX (ka) WHERE a = {i + 1}")
    found = read(mysql, name)
    if mysql.engine == "mariadb":  # which comes with performance_schema off
        assert {(index.scans, index.counted_since) for index in found.values()} == {(None, None)}
        return
    assert found["t.ka"].scans == 5
    assert found["t.kb"].scans == 0
    since = found["t.kb"].counted_since
    assert since
    time.sleep(1.1)
    mysql.sql("ALTER TABLE t ADD KEY kab (a, b)", database=name)
    found = read(mysql, name)
    later = found["t.kb"].counted_since
    assert later
    assert later > since
    mysql.sql("UPDATE performance_schema.setup_instruments SET ENABLED = 'NO' WHERE NAME = 'wait/io/table/sql/handler'")
    try:
        assert {index.scans for index in read(mysql, name).values()} == {None}
    finally:
        mysql.sql(
            "UPDATE performance_schema.setup_instruments SET ENABLED = 'YES' WHERE NAME = 'wait/io/table/sql/handler'"
        )
    rule = f"('TABLE', '{name}', '%', 'NO', 'NO')"
    mysql.sql(f"INSERT INTO performance_schema.setup_objects VALUES {rule}")
    try:
        assert {index.scans for index in read(mysql, name).values()} == {None}
    finally:
        mysql.sql(f"DELETE FROM performance_schema.setup_objects WHERE OBJECT_SCHEMA = '{name}'")
    assert later - since >= timedelta(seconds=1)


def test_a_poor_login(mysql: Server, database: Make) -> None:
    """Definitions of what it may select from; sizes and uses are unknown."""
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, a int, key ka (a)", "i, i", 2000)
    found = read(mysql, name, **small(mysql, f"SELECT ON {name}.*"))
    assert set(found) == {"t.PRIMARY", "t.ka"}
    assert {(index.bytes, index.scans) for index in found.values()} == {(0, None)}


def test_many(mysql: Server, database: Make) -> None:
    """As many queries for 300 tables as for one."""
    name = database(mysql)
    asked = []
    for count in (1, 300):
        with client(mysql, name) as say:
            for i in range(count):
                say(f"CREATE TABLE IF NOT EXISTS t{i} (id int PRIMARY KEY, a int, b int, KEY ka (a), KEY kb (b))")
        mysql.mark_log()
        assert len(read(mysql, name)) == 3 * count
        asked.append(sum(said.application != "fleet" and bool(said.statement) for said in mysql.logged()))
    assert asked[0] == asked[1]
