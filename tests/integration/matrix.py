# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which test meets which server, where all with all would take too long. No test lives here.

Of the three PostgreSQL versions each case of a test meets one, and the cases take turns; which one begins differs from
test to test. Where there are four cases or more, MariaDB and MySQL take turns, too. What is marked
`every_server` meets all of them, as everything does where DBFLEET_MATRIX is not `turns`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import pytest

FAMILIES = {
    "postgresql": (re.compile(r"postgresql-\d+"), 1),
    "mysql": (re.compile(r"mariadb-watching|mariadb|mysql"), 4),
}


def taking_turns(items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The tests that are to be run, and the others, both in their order."""
    functions: dict[tuple[str, str], dict[str, dict[str, pytest.Item]]] = {}
    for item in items:
        found = _server(item)
        if found and item.get_closest_marker("every_server") is None:
            family, server = found
            name, _bracket, case = item.nodeid.partition("[")
            functions.setdefault((name, family), {}).setdefault(case.replace(server, "", 1), {})[server] = item
    left: set[pytest.Item] = set()
    for (name, family), cases in functions.items():
        if len(cases) < FAMILIES[family][1]:
            continue
        # Not the same server for the first case of every test; and the same one in every run.
        first = zlib.crc32(name.encode())
        for i, servers in enumerate(cases.values()):
            # One further after each round, or of two parameters each value of the second would always meet the same.
            chosen = list(servers)[(first + i + i // len(servers)) % len(servers)]
            left |= {item for server, item in servers.items() if server != chosen}
    return [item for item in items if item not in left], [item for item in items if item in left]


def _server(item: pytest.Item) -> tuple[str, str] | None:
    """The family and the name of the server that a fixture of the test was given as its parameter."""
    for value in getattr(getattr(item, "callspec", None), "params", {}).values():
        for family, (server, _cases) in FAMILIES.items():
            if isinstance(value, str) and server.fullmatch(value):
                return family, value
    return None
