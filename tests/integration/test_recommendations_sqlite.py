# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recommendations on SQLite files: all that ails a schema is found, and its cure runs as printed and cures it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import SQLite
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution

from .advising import Advice, advise

Lite = Callable[..., Path]
NOW = {"unused_index_age": "0s"}


def asked(path: Path, **options: Any) -> Advice:
    return advise(SQLite({"databases": [str(path)]}, Execution(lock_timeout=0.3)), [], **options)


def make(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.executescript(statement)
        db.commit()
    return path


def cured(path: Path, advice: Advice) -> None:
    """The printed words of every recommendation, as one types them into a shell."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for recommendation in advice.recommended:
            assert recommendation["fix"], recommendation
            db.executescript(recommendation["fix"])
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


NUMBERS = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 20000) SELECT"


def test_indexes(lite: Lite) -> None:
    """Duplicates and beginnings are told; unused ones cannot be, and nobody says that there are none."""
    path = make(
        lite(),
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c UNIQUE)",
        "CREATE INDEX one ON t (a); CREATE INDEX two ON t (a)",
        "CREATE INDEX longer ON t (a, b); CREATE INDEX c_too ON t (c)",
        "CREATE INDEX partly ON t (a) WHERE b > 3; CREATE INDEX sorted ON t (a COLLATE NOCASE)",
        "CREATE INDEX own ON t (b)",
    )
    found = asked(path, **NOW)
    told = {(r["code"], r["object"]) for r in found.recommended}
    assert ("duplicate_index", "c_too") in told
    assert {"partly", "sorted", "own", "longer"}.isdisjoint({name for _code, name in told})
    assert len(found.recommended) == 3
    assert any("does not count" in why for key, why in found.unknown.items() if key.startswith("unused_indexes"))
    cured(path, found)
    assert asked(path, **NOW).recommended == []
    left = {name for (name,) in rows(path, "SELECT name FROM sqlite_schema WHERE type = 'index'")}
    assert {"longer", "partly", "sorted", "own"} <= left


def test_missing_foreign_key_indexes(lite: Lite) -> None:
    """However the parent's columns are named. An index that begins with the columns serves, and the rows' own order."""
    path = make(
        lite(),
        "CREATE TABLE Parent (id INTEGER PRIMARY KEY, a, b, UNIQUE (a, b))",
        "CREATE TABLE bare (id INTEGER PRIMARY KEY, p REFERENCES parent)",
        "CREATE TABLE pair (id INTEGER PRIMARY KEY, x, y, z, FOREIGN KEY (x, y) REFERENCES Parent (a, b))",
        "CREATE TABLE served (id INTEGER PRIMARY KEY REFERENCES Parent (id))",
        "CREATE TABLE turned (id INTEGER PRIMARY KEY, x, y, FOREIGN KEY (x, y) REFERENCES Parent (a, b))",
        "CREATE INDEX turned_yx ON turned (y, x, id)",
        "CREATE TABLE partly (id INTEGER PRIMARY KEY, p REFERENCES Parent (id))",
        "CREATE INDEX partly_p ON partly (p) WHERE p > 5",
        "CREATE TABLE rowless (p REFERENCES Parent (id), n, PRIMARY KEY (p, n)) WITHOUT ROWID",
        'CREATE TABLE "ho""st il" (id INTEGER PRIMARY KEY, "p p" REFERENCES Parent (id))',
        'CREATE INDEX "ho""st il_p p" ON bare (id, p)',  # the name that the cure would choose
        f"INSERT INTO Parent {NUMBERS} i, i, i FROM s",
        *(f"INSERT INTO {table} {NUMBERS} i, i FROM s" for table in ("bare", "partly", '"ho""st il"')),
        f"INSERT INTO pair {NUMBERS} i, i, i, i FROM s",
        f"INSERT INTO turned {NUMBERS} i, i, i FROM s",
    )
    found = asked(path)
    assert set(found.found("missing_foreign_key_index")) == {"bare", "pair", "partly", 'ho"st il'}
    assert len(found.recommended) == 4
    cured(path, found)
    assert asked(path).recommended == []


def test_few_rows_need_no_index(lite: Lite) -> None:
    path = make(
        lite(), "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY KEY, p REFERENCES p)"
    )
    assert asked(path).recommended == []


def test_tables_without_a_key(lite: Lite) -> None:
    """The table is made anew with all that belongs to it: rows, indexes, triggers, generated columns, its views."""
    path = make(
        lite(),
        "CREATE TABLE fine (k TEXT PRIMARY KEY); CREATE TABLE unique_too (k NOT NULL UNIQUE)",
        "CREATE TABLE log (n)",
        """CREATE TABLE "odd (""name" (a TEXT COLLATE NOCASE DEFAULT '(x,', /* ( */ b INT CHECK (b < 50), id,
           g AS (a || b), UNIQUE (a)) -- the end""",
        """INSERT INTO "odd (""name" (a, b, id) VALUES ('one', 1, 'x'), ('two', 2, 'y')""",
        """CREATE INDEX beside ON "odd (""name" (b)""",
        """CREATE TRIGGER after_it AFTER INSERT ON "odd (""name" BEGIN INSERT INTO log (n) VALUES (new.a); END""",
        """CREATE VIEW looks AS SELECT a, g FROM "odd (""name" """,
        """CREATE TABLE child (id INTEGER PRIMARY KEY, a REFERENCES "odd (""name" (a))""",
        "INSERT INTO child VALUES (1, 'one')",
        "CREATE VIRTUAL TABLE words USING fts5 (text)",
    )
    found = asked(path)
    assert set(found.found("no_primary_key")) == {'odd ("name', "log"}
    assert len(found.recommended) == 2
    cured(path, found)
    assert asked(path).recommended == []
    assert rows(path, "SELECT * FROM looks") == [("one", "one1"), ("two", "two2")]
    assert rows(path, 'SELECT id_2, id FROM "odd (""name"') == [(1, "x"), (2, "y")]
    make(path, """INSERT INTO "odd (""name" (a, b) VALUES ('three', 3)""")
    assert rows(path, "SELECT n FROM log") == [("three",)]
    assert len(rows(path, "SELECT 1 FROM sqlite_schema WHERE name IN ('beside', 'after_it', 'looks')")) == 3


def test_counters(lite: Lite) -> None:
    """AUTOINCREMENT takes 2^63 - 1 as its last number; nothing is wider, so a word of advice is all."""
    path = make(
        lite(),
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "CREATE TABLE few (id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO t VALUES (9000000000000000000); INSERT INTO few VALUES (5)",
    )
    found = asked(path)
    assert found.codes() == ["counter_near_end"]
    assert found.recommended[0]["object"] == "t"
    assert "Nothing is wider" in found.recommended[0]["fix"]


def test_a_clean_schema_gets_none(lite: Lite) -> None:
    path = make(
        lite(),
        "CREATE TABLE branch (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        "CREATE TABLE teller (id INTEGER PRIMARY KEY, branch INTEGER NOT NULL REFERENCES branch)",
        "CREATE INDEX teller_branch ON teller (branch)",
        "CREATE TABLE pairs (a REFERENCES branch, b REFERENCES teller, PRIMARY KEY (a, b)) WITHOUT ROWID",
        "CREATE INDEX pairs_b ON pairs (b)",
        f"INSERT INTO branch {NUMBERS} i, i FROM s",
        f"INSERT INTO teller {NUMBERS} i, i FROM s",
        "ANALYZE",
    )
    assert asked(path, **NOW).recommended == []
