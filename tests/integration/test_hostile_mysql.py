# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_vacuum on MySQL and MariaDB servers that nobody expected: what is strange takes nobody along and ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pymysql

from tests.fleet import Fleet, Server

from .module_runner import Ran, run, start, until
from .test_check_equals_run import options, shown, writes

Make = Callable[[Server], str]
FILLED = "(a int PRIMARY KEY, s varchar(300))"
ZOO = {
    "memory": "(a int) ENGINE=MEMORY",
    "csv": "(a int NOT NULL) ENGINE=CSV",
    "myisam": f"{FILLED} ENGINE=MyISAM",
    "no_key": "(a int, s varchar(300))",
    "words": "(a int PRIMARY KEY, s text, FULLTEXT (s))",
    "made": "(a int PRIMARY KEY, v int AS (a + 1) VIRTUAL, w int AS (a + 2) STORED, s varchar(300), KEY (v))",
    "squeezed": f"{FILLED} ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
    "redundant": f"{FILLED} ROW_FORMAT=REDUNDANT",
    "parted": "(a int, b int DEFAULT 1, s varchar(300), PRIMARY KEY (a, b)) PARTITION BY RANGE (a) SUBPARTITION BY"
    " HASH (b) SUBPARTITIONS 2 (PARTITION p0 VALUES LESS THAN (3000), PARTITION `P-1 #x` VALUES LESS THAN MAXVALUE)",
    "not_kept": f"{FILLED} STATS_PERSISTENT=0",
    "not_again": f"{FILLED} STATS_AUTO_RECALC=0",
    "slash/dot.hash#at@$": FILLED,
    "x#p#y": FILLED,
    "#sql-mine": FILLED,
    "parent": FILLED,
    "child": "(a int PRIMARY KEY, s varchar(300), FOREIGN KEY (a) REFERENCES parent (a))",
    "a234567890" * 6 + "1234": FILLED,
    "ünï表": FILLED,
}
MARIADB_ZOO = {
    "aria": f"{FILLED} ENGINE=Aria",
    "versioned": f"{FILLED} WITH SYSTEM VERSIONING",
    "hidden": "(a int PRIMARY KEY, h int INVISIBLE DEFAULT 4, s varchar(300))",
    "holes": f"{FILLED} PAGE_COMPRESSED=1",
}
MYSQL_ZOO = {
    "expression": "(a int PRIMARY KEY, s varchar(300), KEY ((a + 1)))",
    "many": "(a int PRIMARY KEY, s varchar(300), j json, KEY m ((CAST(j AS unsigned ARRAY))))",
    "place": "(a int PRIMARY KEY, p point NOT NULL SRID 4326 DEFAULT (ST_SRID(point(1, 1), 4326)), s varchar(300))",
}
# Whatever an administrator may have found good for the applications; servers differ in which of them they know.
ODD_SETTINGS = (
    "sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT,STRICT_ALL_TABLES'",
    "autocommit = 0",
    "init_connect = 'SET autocommit = 0'",
    "character_set_server = latin1",
    "time_zone = '-11:30'",
    "lock_wait_timeout = 1",
    "wait_timeout = 2",
    "sql_select_limit = 1",
    "max_join_size = 1",
    "sql_big_selects = 0",
    "group_concat_max_len = 4",
    "max_allowed_packet = 1024",
    "completion_type = CHAIN",
    "transaction_read_only = 1",
    "tx_read_only = 1",
    "sql_safe_updates = 1",
    "max_execution_time = 1",
    "max_statement_time = 0.001",
    "lc_messages = 'de_DE'",
    "transaction_isolation = 'SERIALIZABLE'",
    "tx_isolation = 'SERIALIZABLE'",
    "sql_require_primary_key = 1",
    "default_storage_engine = MyISAM",
    "information_schema_stats_expiry = 86400",
    "innodb_file_per_table = OFF",
    "max_sort_length = 4",
    "event_scheduler = ON",
)


@contextmanager
def client(server: Server, database: str = "", **more: Any) -> Iterator[Any]:
    login: dict[str, Any] = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    connection = pymysql.connect(**login, database=database or None, autocommit=True, **more)
    try:
        yield connection.cursor()
    finally:
        connection.close()


def fill(cursor: Any, name: str, definition: str, rows: int) -> None:
    """So many rows, analyzed when there was none, nine of ten gone again."""
    cursor.execute(f"CREATE TABLE `{name}` {definition}")
    cursor.execute(f"ANALYZE TABLE `{name}`")
    wide = "s varchar" in definition or "s text" in definition
    text = "x " * 140
    values = ", ".join(f"({n}, '{text}')" if wide else f"({n})" for n in range(1, rows))
    cursor.execute(f"INSERT INTO `{name}` {'(a, s)' if wide else '(a)'} VALUES {values}")
    cursor.execute(f"DELETE FROM `{name}` WHERE a % 10 <> 0")


def status(ran: Ran) -> dict[str, str]:
    return {s["object"]: s["status"] for s in ran.fact()["steps"]}


def test_a_zoo_of_tables(mysql: Server, database: Make, tmp_path: Path) -> None:
    name = database(mysql)
    zoo = {**ZOO, **(MARIADB_ZOO if mysql.engine == "mariadb" else MYSQL_ZOO)}
    with client(mysql, name) as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        for table, definition in zoo.items():
            fill(cursor, table, definition, 6000)
        cursor.execute("CREATE VIEW broken AS SELECT a FROM child")
        cursor.execute("DROP TABLE child")
        if mysql.engine == "mariadb":
            cursor.execute("CREATE SEQUENCE counting")
    asked = options(mysql, name, tmp_path, reclaim_method="exclusive")
    check = run("db_vacuum", asked, check=True)
    mysql.mark_log()
    real = run("db_vacuum", asked)
    assert writes(mysql) == shown(check)
    assert status(real)
    assert set(status(real).values()) == {"done"}
    assert all(s["proven"] for s in real.fact()["steps"]), real.text
    assert "orphan_table" not in real.codes()
    again = run("db_vacuum", asked)
    assert not again.changed, again.fact()["steps"]


def test_odd_settings_of_the_server(fleet: Fleet, mysql: Server, tmp_path: Path) -> None:
    """Not one of them may reach a session of ours; the account's password is odd, too."""
    server = fleet.mariadb(name="odd") if mysql.engine == "mariadb" else fleet.mysql(name="odd")
    names = ("a-b", "tick`y", "ünï表", "100%")
    password = "p'%\"\\ü表`$ #;"
    with client(server) as cursor:
        for name in names:
            quoted = "`" + name.replace("`", "``") + "`"
            cursor.execute(f"CREATE DATABASE {quoted}")
            cursor.execute(f"USE {quoted}")
            fill(cursor, "we''ird \"%s", f"{FILLED} STATS_AUTO_RECALC=0", 900)
        cursor.execute("CREATE USER odd@'%%' IDENTIFIED BY %s", (password,))
        cursor.execute("GRANT ALL ON *.* TO odd@'%'")
        done = 0
        for setting in ODD_SETTINGS:
            with suppress(pymysql.Error):
                cursor.execute(f"SET GLOBAL {setting}")
                done += 1
        assert done > 15
        asked = {k: v for k, v in options(server, "*", tmp_path).items() if k not in ("login_host", "login_port")}
        asked |= {"login_unix_socket": str(server.socket), "login_user": "odd"}
        ran = run("db_vacuum", {**asked, "login_password": password})
        assert {(s["database"], s["status"]) for s in ran.fact()["steps"]} == {(name, "done") for name in names}
        assert not run("db_vacuum", {**asked, "login_password": password}).changed
        for wrong in (password[::-1], password.encode().decode("latin1")):
            refused = run("db_vacuum", {**asked, "login_password": wrong}, fails=True)
            assert "login_password" in refused.result["msg"]
            assert wrong not in refused.text
    server.stop()


def test_what_went_away_has_not_failed(mysql: Server, database: Make, tmp_path: Path) -> None:
    """Tables and a database dropped between the plan and their steps, and every session of ours ended by force."""
    name, other = database(mysql), database(mysql)
    for place, tables in ((name, ("a_held", "b_dropped", "c_kept")), (other, ("t",))):
        with client(mysql, place) as cursor:
            for table in tables:
                fill(cursor, table, f"{FILLED} STATS_AUTO_RECALC=0", 900)
    ours = "SELECT id FROM information_schema.processlist WHERE id NOT IN (connection_id(), {}) AND db IN ('{}', '{}')"
    with client(mysql, name) as holder, client(mysql) as cursor:
        holder.execute("LOCK TABLES a_held WRITE")
        asked = options(mysql, name, tmp_path, databases=[name, other], jobs=1, lock_timeout="9s")
        child = start("db_vacuum", asked)
        waiting = "SELECT count(*) FROM information_schema.processlist WHERE state LIKE '%metadata lock%'"
        until(lambda: mysql.sql(waiting) != [["0"]], what="a step that waits")
        cursor.execute(f"DROP TABLE {name}.b_dropped")
        cursor.execute(f"DROP DATABASE {other}")
        cursor.execute(ours.format(holder.connection.thread_id(), name, other))
        for (process,) in cursor.fetchall():
            cursor.execute(f"KILL {process}")
        holder.execute("UNLOCK TABLES")
        ran = child.wait(60)
    assert not ran.result.get("failed"), ran.text
    assert status(ran) == {"a_held": "done", "b_dropped": "skipped", "c_kept": "done", "t": "skipped"}


def test_servers_that_are_full_or_frozen(fleet: Fleet, mysql: Server, tmp_path: Path) -> None:
    settings = {"max_connections": "10"}
    server = (
        fleet.mariadb(name="full", settings=settings)
        if mysql.engine == "mariadb"
        else fleet.mysql(name="full", settings=settings)
    )
    asked = options(server, "*", tmp_path, connect_timeout=2, jobs=50)
    crowd = []
    with suppress(pymysql.Error):
        while True:
            crowd.append(
                pymysql.connect(host=server.host, port=server.port, user=server.user, password=server.password)
            )
    refused = run("db_vacuum", asked, fails=True)
    assert "fewer jobs" in refused.result["msg"]
    for connection in crowd:
        connection.close()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        frozen = run("db_vacuum", asked, fails=True)
        assert time.monotonic() - began < 15
        assert "connect_timeout" in frozen.result["msg"]
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.stop()
