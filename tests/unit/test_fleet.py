# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the fleet reads servers' statement logs. The servers themselves are started by the integration tests."""

from __future__ import annotations

import pytest

from tests.fleet.logs import Logged, Sessions, postgresql_log

PG = "2026-11-21 20:54:01.123 UTC [71] \x1fshop\x1fpostgres\x1fpsql x\x1f "


def pg_statements(text: str) -> list[str]:
    return [entry.statement for entry in postgresql_log(text)]


def test_postgresql_statement_with_all_its_names() -> None:
    assert list(postgresql_log(f"{PG}LOG:  statement: SELECT 1\n")) == [
        Logged("shop", "psql x", 71, "SELECT 1", "postgres")
    ]


@pytest.mark.parametrize(
    "head",
    [
        "statement: ",
        "execute <unnamed>: ",
        "execute s1/c 1: ",
        "execute fetch from c_1: ",
        "duration: 0.123 ms  statement: ",
        "duration: 12.5 ms  execute <unnamed>: ",
    ],
)
def test_postgresql_both_protocols_with_and_without_duration(head: str) -> None:
    assert pg_statements(f"{PG}LOG:  {head}VACUUM (ANALYZE) a\n") == ["VACUUM (ANALYZE) a"]


def test_postgresql_statement_of_many_lines_stays_as_it_was_sent() -> None:
    sent = "SELECT 'a: b'\n\n\tFROM \"t\u2028\r\"\n  -- statement: x"
    logged = sent.replace("\n", "\n\t")
    text = f"{PG}LOG:  statement: {logged}\n{PG}LOG:  statement: SELECT 2\n"
    assert pg_statements(text) == [sent, "SELECT 2"]


def test_postgresql_line_that_looks_like_a_head_inside_a_statement_is_none() -> None:
    sent = f"SELECT '\n{PG}LOG:  statement: DROP TABLE t\n'"
    logged = sent.replace("\n", "\n\t")
    assert pg_statements(f"{PG}LOG:  statement: {logged}\n") == [sent]


@pytest.mark.parametrize(
    "line",
    [
        f"{PG}ERROR:  column statement: does not exist",
        f"{PG}STATEMENT:  SELECT nope",
        f"{PG}DETAIL:  parameters: $1 = '5'",
        f"{PG}LOG:  checkpoint starting: time",
        f"{PG}LOG:  duration: 0.3 ms",
        "postgres: could not access the server configuration file",
        "",
    ],
)
def test_postgresql_other_messages_are_no_statements(line: str) -> None:
    assert pg_statements(f"{line}\n{PG}LOG:  statement: SELECT 1\n{line}\n") == ["SELECT 1"]


BANNER = (
    "/usr/sbin/mariadbd, Version: 10.11.19-MariaDB-log (Debian 12). started with:\n"
    "Tcp port: 27109  Unix socket: /run/mysql.sock\n"
    "Time\t\t    Id Command\tArgument\n"
)


def test_mariadb_times_stand_only_where_they_change() -> None:
    text = (
        f"{BANNER}"
        "261121 20:59:14\t     4 Connect\tapp@127.0.0.1 on shop using TCP/IP\n"
        "\t\t     4 Query\tSELECT 1\n"
        "261121  9:59:15\t     4 Query\tSELECT 2\n"
        "\t\t     4 Quit\t\n"
    )
    assert Sessions().read(text) == [
        Logged("shop", "", 4, "SELECT 1", "app"),
        Logged("shop", "", 4, "SELECT 2", "app"),
    ]


def test_mysql_statement_of_many_lines_and_restart_in_between() -> None:
    text = (
        "2026-11-21T20:59:35.516423Z\t    8 Connect\troot@localhost on  using Socket\n"
        "2026-11-21T20:59:35.516424Z\t    8 Query\tSELECT 'a\n\n\tb'\n"
        f"{BANNER}"
        "2026-11-21T20:59:36.516424+01:00\t    0 Execute\tCREATE TABLE performance_schema.x(\n`a` INT)\n"
        "2026-11-21T20:59:36.516425+01:00\t    8 Execute\tSELECT 5\n"
    )
    assert [entry.statement for entry in Sessions().read(text)] == ["SELECT 'a\n\n\tb'", "SELECT 5"]


def test_mysql_database_follows_the_connection() -> None:
    sessions = Sessions()
    time = "2026-11-21T20:59:35.516423Z\t"
    sessions.read(
        f"{time}    8 Connect\troot@localhost on one using Socket\n{time}    9 Connect\tx@h on  using TCP/IP\n"
    )
    found = sessions.read(
        f"{time}    8 Query\tSELECT 1\n"
        f"{time}    8 Init DB\ttwo\n"
        f"{time}    8 Query\tSELECT 2\n"
        f"{time}    8 Query\tUSE `a ``b`\n"
        f"{time}    9 Query\tSELECT 3\n"
        f"{time}    8 Query\tSELECT 4\n"
    )
    assert [(entry.database, entry.statement) for entry in found] == [
        ("one", "SELECT 1"),
        ("two", "SELECT 2"),
        ("a `b", "USE `a ``b`"),
        ("", "SELECT 3"),
        ("a `b", "SELECT 4"),
    ]


def test_mysql_client_that_names_itself() -> None:
    text = (
        "\t\t     4 Connect\troot@localhost on  using Socket\n"
        "\t\t     4 Query\tDO 'application fleet'\n"
        "\t\t     4 Query\tSELECT 1\n"
    )
    assert Sessions().read(text) == [Logged("", "fleet", 4, "SELECT 1", "root")]
