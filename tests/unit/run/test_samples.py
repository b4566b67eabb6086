# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes in the journal: at most one an hour, thinned as they age, read back for trends."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run import samples
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import Journal, open_journal

TODAY = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
SHOP, ORDERS = Ref("shop"), Ref("shop", ("public", "orders"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def open_it(path: Path, *, readonly: bool = False, address: str = "db1:5432") -> Journal:
    return open_journal(str(path), address, readonly=readonly)


def count(path: Path, where: str = "true") -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute(f"SELECT count(*) FROM sizes WHERE {where}").fetchone()[0])
    finally:
        db.close()


def test_many_are_kept_in_one_go_and_come_back_by_server(path: Path) -> None:
    for hours in range(10, 0, -1):
        with open_it(path) as journal:
            sizes = [(SHOP, 10_000 - hours, 100), (ORDERS, 1000 - hours, None)]
            journal.sample_all(sizes, TODAY - timedelta(hours=hours))
    with open_it(path, readonly=True) as journal:
        found = journal.samples()
    assert found.keys() == {SHOP, ORDERS}
    assert [s.bytes for s in found[SHOP]] == list(range(9990, 10_000))
    assert [s.at for s in found[ORDERS]] == [TODAY - timedelta(hours=hours) for hours in range(10, 0, -1)]
    assert {s.rows for s in found[ORDERS]} == {None}
    with open_it(path) as journal:  # one that writes knows the same
        assert journal.samples() == found
    with open_it(path, readonly=True, address="db2:5432") as journal:
        assert journal.samples() == {}


def test_one_an_hour_and_what_did_not_change_once_a_day(path: Path) -> None:
    with open_it(path) as journal:
        for minutes in range(0, 180, 10):
            journal.sample_all([(SHOP, minutes, 1), (ORDERS, 5, 5)], TODAY + timedelta(minutes=minutes))
    assert (count(path, "bytes <> 5"), count(path, "bytes = 5")) == (4, 1)
    with open_it(path) as journal:
        journal.sample_all([(ORDERS, 5, 5)], TODAY + timedelta(hours=24))
        journal.sample_all([(ORDERS, 5, 5)], TODAY - timedelta(hours=5))  # a clock that was put back
    assert count(path, "bytes = 5") == 2


def test_a_clock_that_was_a_year_ahead_once_neither_removes_nor_hinders_anything(path: Path) -> None:
    with open_it(path) as journal:
        for days in range(10, 5, -1):
            journal.sample_all([(SHOP, 1000 - days, 1)], TODAY - timedelta(days=days))
        journal.sample_all([(SHOP, 5000, 1)], TODAY + timedelta(days=3650))
        for days in range(5, 0, -1):
            journal.sample_all([(SHOP, 1000 - days, 1)], TODAY - timedelta(days=days))
        (found,) = journal.samples().values()
    assert [s.bytes for s in found] == list(range(990, 1000))


def test_older_ones_are_thinned(path: Path) -> None:
    """An hourly run of more than a year leaves hours of two days, days of two months, weeks of the rest."""
    with open_it(path) as journal:
        for hours in range(430 * 24, 0, -3):
            journal.sample_all([(SHOP, 10**9 - hours, 1)], TODAY - timedelta(hours=hours))
    now = int(TODAY.timestamp() // 3600)
    recent, middle = count(path, f"hour >= {now - 48}"), count(path, f"hour BETWEEN {now - 1440} AND {now - 72}")
    old = count(path, f"hour < {now - 1512}")
    assert recent == 16
    assert 56 <= middle <= 59
    assert 46 <= old <= 52
    assert count(path) < 160
    with open_it(path) as journal:
        (found,) = journal.samples().values()
    assert 40 <= len(found) <= 60


def test_three_thousand_tables_take_little_time_and_space(path: Path) -> None:
    tables = [Ref("shop", ("public", f"table_{number}")) for number in range(3000)]
    began = time.process_time()
    with open_it(path) as journal:
        for days in range(20, 0, -1):
            journal.sample_all([(ref, 10**6 - days, 5) for ref in tables], TODAY - timedelta(days=days))
    assert count(path) == 60_000
    per_sample = path.stat().st_size / 60_000
    assert per_sample < 80
    assert (time.process_time() - began) / 20 < 2
    began = time.process_time()
    with open_it(path, readonly=True) as journal:
        found = journal.samples()
    assert len(found) == samples.MOST
    assert time.process_time() - began < 2.5


def test_databases_are_always_read(path: Path) -> None:
    sizes = [(Ref("shop", ("public", f"t{number}")), 10**6, 1) for number in range(300)]
    server = Ref("", ("connections",))
    with open_it(path) as journal:
        for hours in (3, 2, 1):
            grown = [(ref, size * (4 - hours), rows) for ref, size, rows in sizes]
            journal.sample_all([*grown, (SHOP, 7, 7), (server, 3, 100)], TODAY - timedelta(hours=hours))
        assert {SHOP, server} <= journal.samples().keys()


def test_nothing_is_kept_where_nothing_may_be_written(path: Path) -> None:
    with open_it(path, readonly=True) as journal:
        journal.sample_all([(SHOP, 1, 1)], TODAY)
        assert journal.samples() == {}
    assert not path.exists()
    with open_journal("none", "db1", readonly=False) as journal:
        journal.sample_all([(SHOP, 1, 1)], TODAY)
        assert journal.samples() == {}
