# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables that nobody expects rules on: the least values that a type can hold, and archives that would lose rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fleet import Server

from .cleanup import digest, rows_in_files, rows_of
from .conftest import Pool
from .module_runner import Ran, run

Make = Callable[[Server], str]


def options(server: Server, name: str, tmp_path: Path, *rules: dict[str, Any]) -> dict[str, Any]:
    filled = [{"name": f"of {r['table']}", "date_column": "at", "refuse_over_percent": 100, **r} for r in rules]
    return {**server.login(), "databases": [name], "rules": filled, "journal": str(tmp_path / "j.sqlite")}


def said(ran: Ran, code: str) -> dict[str, str]:
    """The messages of the findings of one code, by rule."""
    found = [f["message"] for f in ran.fact()["findings"] if f["code"] == code]
    return {words.split(":")[0].removeprefix("rule of "): words for words in found}


def assure_moved(server: Server, name: str, asked: dict[str, Any], folder: Path, moved: dict[str, int]) -> Ran:
    """So many rows of each table are in files then, each row is in one place, and the next run does nothing."""
    before = {table: rows_of(server, table, database=name) for table in moved}
    check = run("db_cleanup", asked, check=True)
    planned = [s for s in check.fact()["steps"] if s["kind"] == "archive"]
    assert {s["object"].split(".")[-1]: s["expected"]["rows"] for s in planned} == moved
    run("db_cleanup", asked)
    for table, count in moved.items():
        gone = rows_in_files(folder, table)
        assert len(gone) == count, table
        assert digest(gone, rows_of(server, table, database=name)) == digest(before[table]), table
    assert not run("db_cleanup", asked).changed
    return check


STRANGE_POSTGRESQL = """
CREATE TABLE epoch (id int PRIMARY KEY, at bigint);
INSERT INTO epoch VALUES (1, -9223372036854775808), (2, 0), (3, -5), (4, 9223372036854775807), (5, NULL);
CREATE TABLE digits (id int PRIMARY KEY, at numeric);
INSERT INTO digits VALUES (1, ('-1' || repeat('0', 400))::numeric), (2, 1.5), (3, 'NaN'), (4, 1e300);
CREATE TABLE days (id int PRIMARY KEY, at date);
INSERT INTO days VALUES (1, '4714-11-24 BC'), (2, '-infinity'), (3, '0001-01-01'), (4, 'infinity'),
                        (5, '5874897-12-31');
CREATE TABLE family (id int PRIMARY KEY, at timestamptz);
CREATE TABLE heir () INHERITS (family);
INSERT INTO heir VALUES (1, '2001-01-01');
CREATE TABLE crashes (id int PRIMARY KEY, at timestamptz);
INSERT INTO crashes VALUES (1, '2001-01-01');
CREATE UNLOGGED TABLE crashes_archive (LIKE crashes);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER watcher BEFORE INSERT ON crashes_archive FOR EACH ROW EXECUTE FUNCTION f();
CREATE TABLE whole (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE whole_archive PARTITION OF whole DEFAULT;
INSERT INTO whole VALUES ('2001-01-01')
"""


def test_strange_tables_of_postgresql(pool: Pool, database: Make, tmp_path: Path) -> None:
    server = pool.get("postgresql-18")
    name, folder = database(server), tmp_path / "archive"
    server.script(STRANGE_POSTGRESQL, database=name)
    server.sql(f"ALTER DATABASE {name} SET quote_all_identifiers = on", database=name)
    files = {"archive_after": "1d", "archive_dir": str(folder)}
    asked = options(
        server,
        name,
        tmp_path,
        {"table": "epoch", "date_unit": "seconds", **files},
        {"table": "digits", "date_unit": "milliseconds", **files},
        {"table": "days", "timezone": "Asia/Tokyo", **files},
        {"table": "family", "delete_after": "1d"},
        {"table": "crashes", "archive_after": "1d"},
        {"table": "whole", "archive_after": "1d"},
    )
    check = assure_moved(server, name, asked, folder, {"epoch": 3, "digits": 2, "days": 3})
    assert "heir" in said(check, "rows_in_children")["family"]
    refused = said(check, "archive_differs")
    assert "UNLOGGED" in refused["crashes"]
    assert "watcher" in said(check, "archive_triggers")["crashes"]
    assert "one partitioned table" in refused["whole"]
    assert server.sql("SELECT count(*) FROM heir, crashes, whole", database=name) == [["1"]]
    # Neither triggers nor foreign keys would hold.
    server.script(
        f"INSERT INTO days VALUES (9, '2001-01-01'); ALTER DATABASE {name} SET session_replication_role = replica",
        database=name,
    )
    ran = run("db_cleanup", asked)
    assert not ran.changed
    assert "replica" in said(ran, "not_applicable")["days"]


STRANGE_MYSQL = (
    "CREATE TABLE epoch (id int PRIMARY KEY, at bigint)",
    "INSERT INTO epoch VALUES (1, -9223372036854775808), (2, 0), (3, -5), (4, 9223372036854775807), (5, NULL)",
    "CREATE TABLE days (id int PRIMARY KEY, at datetime)",
    "INSERT INTO days VALUES (1, '0001-01-01'), (2, '2001-01-01'), (3, '9999-12-31')",
    "CREATE TABLE computed (id int PRIMARY KEY, at datetime, v int)",
    "INSERT INTO computed VALUES (1, '2001-01-01', 7)",
    "CREATE TABLE computed_archive (id int PRIMARY KEY, at datetime, v int AS (id * 2) STORED)",
    "CREATE TRIGGER watcher BEFORE INSERT ON computed_archive FOR EACH ROW SET NEW.at = NULL",
)


def test_strange_tables_of_mysql(mysql: Server, database: Make, tmp_path: Path) -> None:
    name, folder = database(mysql), tmp_path / "archive"
    for statement in STRANGE_MYSQL:
        mysql.sql(statement, database=name)
    files = {"archive_after": "1d", "archive_dir": str(folder)}
    asked = options(
        mysql,
        name,
        tmp_path,
        {"table": "epoch", "date_unit": "seconds", **files},
        {"table": "days", "timezone": "Asia/Tokyo", **files},
        {"table": "computed", "archive_after": "1d"},
    )
    check = assure_moved(mysql, name, asked, folder, {"epoch": 3, "days": 2})
    assert "its column v is computed" in said(check, "archive_differs")["computed"]
    assert "watcher" in said(check, "archive_triggers")["computed"]
    assert len(rows_of(mysql, "computed", database=name)) == 1
