# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of MySQL and MariaDB under which a dump has not all rows, or its statements mean something else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server

from .module_runner import run
from .my import client
from .my_backup import describe

Make = Callable[[Server], str]
FILL = """\
CREATE TABLE keyless (a int, made timestamp NOT NULL, seen timestamp NOT NULL, gone timestamp NULL);
INSERT INTO keyless VALUES (1, '2026-01-01', '2026-01-02', NULL), (2, '2026-01-03', '2026-01-04', '2026-01-05');
CREATE TABLE parts (a int, b int, c decimal(20, 10) AS (a / b) STORED{week})
  PARTITION BY RANGE (a) (PARTITION few VALUES LESS THAN (10), PARTITION many VALUES LESS THAN MAXVALUE);
INSERT INTO parts (a, b) VALUES (1, 3), (20, 3);
"""


def fill(server: Server, database: str) -> None:
    # MariaDB generates nothing that is stored from what depends on a session, but for divisions.
    week = ", w int AS (week('2026-01-03')) STORED" if server.engine == "mysql" else ""
    server.script(FILL.format(week=week), database=database)


@pytest.fixture(autouse=True)
def programs(mysql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the server's version, wherever others are."""
    monkeypatch.setenv("PATH", os.pathsep.join((str(mysql.installation.bin_dir), os.environ["PATH"])))


@contextmanager
def globally(server: Server, **settings: str) -> Iterator[None]:
    """Those that the server knows have another value for a while."""
    with client(server, "mysql") as say:
        names = ", ".join(f"'{name}'" for name in settings)
        before = dict(say(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})"))
        try:
            for name in before:
                say(f"SET GLOBAL {name} = {settings[name]}")
            yield
        finally:
            for name, value in before.items():
                plain = str(value).isdigit() or value in ("ON", "OFF", "DEFAULT")
                say(f"SET GLOBAL {name} = {value if plain else repr(str(value))}")


def options(server: Server, folder: Path) -> dict[str, Any]:
    return {**server.login(), "backup_dir": str(folder), "journal": "none"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sql_select_limit", "1000"),
        ("init_connect", "'SET SESSION SQL_SELECT_LIMIT = 10'"),
        ("system_versioning_asof", "'2026-01-01 00:00:00'"),
    ],
)
def test_a_dump_that_would_lack_rows_is_refused(
    mysql: Server, database: Make, tmp_path: Path, name: str, value: str
) -> None:
    """In check mode, too, and in any operation that would count on it; nothing is written."""
    if name == "system_versioning_asof" and mysql.engine == "mysql":
        pytest.skip("MySQL has no versions of rows")
    shop = database(mysql)
    asked = {**options(mysql, tmp_path / "b"), "databases": [shop]}
    with globally(mysql, **{name: value}):
        for check in (True, False):
            ran = run("db_backup", asked, check=check, fails=True)
            assert name in ran.result["msg"]
            found = [
                each for each in ran.result["ansible_facts"]["db_backup"]["findings"] if each["code"] == "rows_hidden"
            ]
            assert {each["priority"] for each in found} == {1} and found[0]["fix"].startswith(f"SET GLOBAL {name} = ")
            assert not ran.result.get("changed")
    assert not (tmp_path / "b").exists()
    assert run("db_backup", asked).result["changed"]


def test_init_connect_leads_a_restore_nowhere_else(mysql: Server, database: Make, tmp_path: Path) -> None:
    """Dumps drop tables by their bare names: those of another database would be lost."""
    shop, other = database(mysql), database(mysql)
    fill(mysql, shop)
    mysql.script("CREATE TABLE keyless (precious int); INSERT INTO keyless VALUES (1)", database=other)
    told = options(mysql, tmp_path)
    run("db_backup", {**told, "databases": [shop], "globals": False})
    mysql.sql("CREATE USER clerk IDENTIFIED BY 'a plain secret'")
    mysql.sql(f"GRANT ALL ON `{shop}%`.* TO clerk")
    mysql.sql(f"GRANT ALL ON {other}.* TO clerk")
    asked = {**told, "login_user": "clerk", "login_password": "a plain secret", "database": shop}
    try:
        with globally(mysql, init_connect=f"'USE {other}'"):
            run("db_restore", {**asked, "target": f"{shop}_copy"})
            run("db_restore", {**asked, "replace": True})
        assert mysql.sql("SELECT * FROM keyless", database=other) == [["1"]]
        assert describe(mysql, f"{shop}_copy")["sum", "keyless"] == describe(mysql, shop)["sum", "keyless"]
    finally:
        mysql.sql("DROP USER clerk")
        mysql.sql(f"DROP DATABASE IF EXISTS {shop}_copy")


def test_a_restore_says_what_was_meant(mysql: Server, database: Make, tmp_path: Path) -> None:
    """Whatever the server's defaults are by then: without ours it refuses tables, or makes others."""
    shop = database(mysql)
    with globally(mysql, div_precision_increment="9", default_week_format="3"):
        fill(mysql, shop)
        before = describe(mysql, shop)
        run("db_backup", {**options(mysql, tmp_path), "databases": [shop], "verify": "restore"})
    others = {
        "explicit_defaults_for_timestamp": "OFF",
        "sql_generate_invisible_primary_key": "ON",
        "sql_require_primary_key": "ON",
        "default_week_format": "0",
        "div_precision_increment": "0",
        "lc_time_names": "'de_DE'",
    }
    with globally(mysql, **others):
        run("db_restore", {**options(mysql, tmp_path), "database": shop, "replace": True})
    assert describe(mysql, shop) == before


def test_who_may_not_say_so_restores_nothing_else(mysql: Server, database: Make, tmp_path: Path) -> None:
    """For one of them MySQL wants a privilege: that is said, and nothing is left behind."""
    shop = database(mysql)
    fill(mysql, shop)
    told = options(mysql, tmp_path)
    run("db_backup", {**told, "databases": [shop], "globals": False})
    copy = f"{shop}_copy"
    asked = {**told, "login_user": "clerk", "login_password": "a plain secret", "database": shop, "target": copy}
    mysql.sql("CREATE USER clerk IDENTIFIED BY 'a plain secret'")
    try:
        mysql.sql(f"GRANT ALL ON {copy}.* TO clerk")
        mysql.sql("GRANT SET_ANY_DEFINER ON *.* TO clerk" if mysql.engine == "mysql" else "GRANT SUPER ON *.* TO clerk")
        if mysql.engine == "mysql":
            with globally(mysql, sql_generate_invisible_primary_key="ON"):
                ran = run("db_restore", asked, fails=True)
            assert "primary keys that are not there" in ran.result["msg"]
            assert "SESSION_VARIABLES_ADMIN" in ran.result["msg"]
            assert mysql.sql(f"SHOW DATABASES LIKE '{copy}'") == []
        with globally(mysql, explicit_defaults_for_timestamp="OFF"):
            run("db_restore", asked)
        assert describe(mysql, copy)["TABLE", "keyless"] == describe(mysql, shop)["TABLE", "keyless"]
    finally:
        mysql.sql("DROP USER clerk")
        mysql.sql(f"DROP DATABASE IF EXISTS {copy}")
