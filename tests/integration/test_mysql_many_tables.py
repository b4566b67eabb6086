# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""3,000 tables and 9,000 indexes on MariaDB and MySQL: measured in seconds, by a handful of queries."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Wants
from tests.fleet import Fleet, Missing, Server

from .conftest import missing
from .module_runner import run
from .my import client, use
from .test_check_equals_run import options


class Many(NamedTuple):
    """A server and its large database."""

    server: Server
    name: str


@pytest.mark.parametrize("product", ["mariadb", "mysql"])
def test_three_thousand_tables(fleet: Fleet, tmp_path: Path, product: str) -> None:
    """One test, since filling takes longer than all that is asked; nothing is changed by it.

    On a server of its own, which is thrown away: it takes MySQL longer to drop 3,000 tables than to start once more.
    """
    try:
        server = fleet.mysql() if product == "mysql" else fleet.mariadb()
    except Missing as why:
        missing(why)
    try:
        many = filled(server)
        tables_are_measured_in_less_than_a_second(many)
        statistics_take_a_handful_of_queries(many)
        a_run_with_nothing_to_do_takes_a_handful_of_queries(many, tmp_path)
    finally:
        server.kill()
        shutil.rmtree(server.data_dir)


def filled(server: Server) -> Many:
    name = "many"
    server.sql(f"CREATE DATABASE {name}")
    with client(server, name) as say:
        say("SET SESSION sql_log_bin = 0")
        for number in range(3000):
            refers = ", foreign key (a) references t0 (id)" if number and number % 3 == 0 else ""
            columns = "id int unsigned auto_increment primary key, a int unsigned, b varchar(20), key (a), key (b)"
            say(f"CREATE TABLE t{number} ({columns}{refers})")
    return Many(server, name)


def tables_are_measured_in_less_than_a_second(many: Many) -> None:
    server, name = many
    used = use(server)
    used.measure(name)  # the server opens its tables once
    begun = time.monotonic()
    cpu = time.process_time()
    found = use(server).measure(name)
    took, cpu = time.monotonic() - begun, time.process_time() - cpu
    assert len(found.tables) == 3000
    assert cpu < 4
    assert took < 20, f"{took:.2f} s"  # about a quarter of a second on an idle machine
    server.mark_log()
    used.table(name, "t77", Wants(tables=True))
    assert len(server.statements(own=False)) < 20


def statistics_take_a_handful_of_queries(many: Many) -> None:
    """However many tables a database has, and 9,000 indexes in seconds."""
    server, name = many
    wants = Wants(tables=True, indexes=True, structure=True, health=True, activity=True)
    took, asked = [], []
    with use(server) as used:
        for _attempt in range(2):
            server.mark_log()
            began = time.process_time() + spent(server)
            found = used.measure(name, wants)
            took.append(time.process_time() + spent(server) - began)
            asked.append(len(server.statements()))
    assert len(found.tables) == 3000
    assert len(found.indexes) == 9000
    assert found.structure
    assert len(found.structure.counters) == 3000
    assert len(found.structure.foreign_keys) == 999
    assert max(asked) <= 40, asked
    assert min(took) < 8, took
    server.mark_log()
    fact = run("db_stats_facts", {**server.login(), "databases": [name], "journal": "none"}).fact()
    assert fact["summary"]["tables"] == 3000
    assert fact["summary"]["indexes"] == 9000
    assert len(server.statements()) < 90


def spent(server: Server) -> float:
    """Processor seconds of the server: what else runs on the machine does not count."""
    times = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def a_run_with_nothing_to_do_takes_a_handful_of_queries(many: Many, tmp_path: Path) -> None:
    server, name = many
    server.mark_log()
    began = time.monotonic()
    ran = run("db_vacuum", options(server, name, tmp_path))
    seconds = time.monotonic() - began
    assert not ran.changed
    queries = [x for x in server.logged() if x.application != "fleet"]
    assert len(queries) < 60, [q.statement[:80] for q in queries[:80]]
    # A bound against quadratic work, generous enough for a busy machine; the benchmarks hold the real figures.
    assert seconds < 20
