# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile identifiers: quotes, blanks, percent signs, words of SQL, in names of databases, schemas, tables, columns."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Vacuum
from tests.fleet import Server

from .pg import use

Make = Callable[[Server], str]
HOSTILE = [
    'with "quotes"',
    "tab\tand space",
    "ünïcödé 表",
    "100%",
    "%s",
    "select",
    "a'b",
    "x;DROP TABLE t;--",
    "back\\slash",
]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def test_hostile_names(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    for schema in HOSTILE[:3]:
        postgresql.sql(f"CREATE SCHEMA {quoted(schema)}", database=name)
    for number, table in enumerate(HOSTILE):
        schema = HOSTILE[number % 3]
        postgresql.script(
            f"""CREATE TABLE {quoted(schema)}.{quoted(table)} (id int, {quoted(table + "!")} text, "select" int);
            INSERT INTO {quoted(schema)}.{quoted(table)} SELECT i, 'x' FROM generate_series(1, 100) i;
            DELETE FROM {quoted(schema)}.{quoted(table)} WHERE id < 50;""",
            database=name,
        )
    with use(postgresql) as pg:
        for number, table in enumerate(HOSTILE):
            schema = HOSTILE[number % 3]
            found = pg.table(name, table, schema=schema)
            assert found.dead is not None
            assert found.dead.rows == 49
            pg.carry_out(Vacuum(found.ref, analyze=True))
            found = pg.table(name, table, schema=schema)
            assert found.dead is not None
            assert (found.dead.rows, found.missing_statistics) == (0, "")


def test_hostile_database_name(postgresql: Server) -> None:
    name = "data=base 'with' \"all\" %s"
    postgresql.sql(f"CREATE DATABASE {quoted(name)}")
    try:
        postgresql.sql("CREATE TABLE t AS SELECT 1 AS id", database=name)
        with use(postgresql) as pg:
            assert name in [d.name for d in pg.server.databases]
            pg.carry_out(Analyze(Ref(name, ("public", "t"))))
            assert pg.table(name, "t").missing_statistics == ""
    finally:
        postgresql.sql(f"DROP DATABASE {quoted(name)}")
