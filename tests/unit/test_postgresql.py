# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the PostgreSQL engine needs no server: the layout of pages, options, the meaning of errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import (
    beside,
    catalog,
    faults,
    layout,
    names,
    options,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.driver import DriverError
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.layout import Column
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, DbFault, Gone, Refused, Stopped

BOOL, SHORT, INT, BIG = Column(1, 1, 1, 0), Column(2, 2, 2, 0), Column(4, 4, 4, 0), Column(8, 8, 8, 0)
ALIGNS, WIDTHS, SHARES = st.sampled_from([1, 2, 4, 8]), st.floats(0, 2000), st.floats(0, 1)
COLUMN = st.one_of(
    st.builds(lambda length, align, share: Column(length, align, length, share), st.integers(1, 16), ALIGNS, SHARES),
    st.builds(layout.variable, ALIGNS, WIDTHS, SHARES),
    st.builds(layout.sampled, ALIGNS, WIDTHS, SHARES, st.lists(st.tuples(st.integers(1, 2000), SHARES), max_size=5)),
)


@pytest.mark.parametrize(
    ("columns", "size"),
    [
        ([], 24),
        ([INT], 32),
        ([BIG], 32),
        ([INT, INT], 32),
        ([BOOL, BIG], 40),
        ([BIG, BOOL], 40),
        ([BOOL, SHORT, INT, BIG], 40),
        ([BOOL, INT, BOOL, BIG], 48),
    ],
)
def test_rows_of_one_size(columns: list[Column], size: int) -> None:
    """What pageinspect shows of such rows, and the line pointer."""
    assert layout.shape(columns) == (size + 4, True)


def test_fresh_pages() -> None:
    # 226 rows of one integer fit on a page: heap_page_items() says so, too.
    assert layout.pages(226, layout.shape([INT]), block=8192, fillfactor=100) == 1
    assert layout.pages(227, layout.shape([INT]), block=8192, fillfactor=100) == 2


@given(st.lists(COLUMN, max_size=8), st.integers(0, 10**7), st.sampled_from([10.0, 50.0, 100.0]))
def test_more_rows_never_need_fewer_pages(columns: list[Column], rows: int, fillfactor: float) -> None:
    shape = layout.shape(columns)
    assert shape.bytes >= 28
    fewer, more = (layout.pages(n, shape, block=8192, fillfactor=fillfactor) for n in (rows, rows + 1))
    assert fewer <= more
    assert layout.pages(rows, shape, block=8192, fillfactor=100) <= fewer


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_quoting_loses_nothing(name: str) -> None:
    quoted = names.quoted(name)
    assert quoted[0] == quoted[-1] == '"'
    assert quoted[1:-1].replace('""', '"') == name
    assert '"' not in quoted[1:-1].replace('""', "")


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("db2", "db2", 5432),
        ("db2:6000", "db2", 6000),
        ("[::1]:6000", "::1", 6000),
        ("::1", "::1", 5432),
        ("/run/postgresql", "/run/postgresql", 5432),
    ],
)
def test_addresses_of_replicas(address: str, host: str, port: int) -> None:
    login = options.login({"login_host": "db1", "login_port": 5432, "login_user": "u", "login_password": "p"}).at(
        address
    )
    assert (login.keywords["host"], login.keywords["port"], login.keywords["user"]) == (host, port, "u")


@pytest.mark.parametrize(
    ("state", "lost", "stopping", "kind"),
    [
        ("55P03", False, False, Busy),
        ("40P01", False, False, Busy),
        ("53300", True, False, Busy),
        ("08006", True, False, Gone),
        ("57P01", True, False, Gone),
        ("", True, False, Gone),
        ("", True, True, Stopped),
        ("57014", False, True, Stopped),
        ("57014", False, False, Refused),
        ("42501", False, False, Refused),
        ("53100", False, False, Refused),
        ("XX000", False, False, Refused),
    ],
)
def test_what_errors_mean(state: str, lost: bool, stopping: bool, kind: type[DbFault]) -> None:
    assert (faults.fault(DriverError("said so", state, lost), database="shop", stopping=stopping)).__class__ is kind


def test_a_password_in_a_message_is_hidden() -> None:
    error = DriverError('invalid connection option "hunter2"', "", True)
    assert "hunter2" not in str(faults.connect_fault(error, database="shop", listed=False, password="hunter2"))


def test_a_server_that_is_not_there_is_asked_after_once() -> None:
    hint = "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?"
    for text in (hint, " ".join(hint.split())):
        error = DriverError(f'connection to server at "127.0.0.1", port 9 failed: {text}', "", True)
        said = str(faults.connect_fault(error, database="shop", listed=False, password=""))
        assert said == "database shop: cannot connect: Connection refused. Is the server running there?"


def test_a_table_made_anew_between_the_halves_is_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = ([(2, "s", "anew", "old"), (4, "s", "t", "")], [(5, "s", "anew", "new"), (3, "other", "anew", "")])
    monkeypatch.setattr(beside, "both", lambda *_whom: halves)
    nobody: Any = None
    found = catalog._halves(nobody, nobody, "", {})
    assert sorted(found) == [(3, "other", "anew", ""), (4, "s", "t", ""), (5, "s", "anew", "new")]
