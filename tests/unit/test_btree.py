# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of b-trees: against sizes that servers have made, and its laws. No server is asked here."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import btree, repeated
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.btree import Tree, Values
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.columns import Known
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.layout import Column

KNOWN = Known(4, "i", False, False, True, False, 4, 0.0, -1.0, True, None, None, None)
SIZES = st.integers(16, 400)


@pytest.mark.parametrize(("shares", "pages"), [(False, 234), (True, 58)])
def test_sizes_that_servers_made(shares: bool, pages: int) -> None:
    """60,000 rows of 500 different char(11), by 18.4 with deduplicate_items off and on."""
    size, fixed = btree.entry([Column(12, 1, 12, 0)])
    assert (size, fixed) == (24, True)
    tree = Tree(8192, 90, shares, size)
    assert abs(btree.pages(tree, [Values(500, 120, size, fixed)], scattered=False) - pages) <= 2


@given(st.integers(1, 10**6), st.floats(1, 500), SIZES, st.booleans(), st.booleans())
@example(280001, 1.001953125, 17, False, True)  # almost all values once
def test_laws(number: int, times: float, size: int, fixed: bool, scattered: bool) -> None:
    apart, together = (Tree(8192, 90, shares, size) for shares in (False, True))
    values = Values(number, times, float(size), fixed)
    plain = btree.pages(apart, [values], scattered=scattered)
    shared = btree.pages(together, [values], scattered=scattered)
    assert shared >= 2
    assert shared <= 1.02 * plain + 2, "what is shared is never repeated"
    assert btree.pages(apart, [values._replace(number=number + 1)], scattered=scattered) >= plain
    assert btree.pages(apart._replace(fillfactor=50.0), [values], scattered=scattered) >= plain


def test_nothing_takes_one_page() -> None:
    assert btree.pages(Tree(8192, 90, True, 16), [], scattered=False) == 1


@given(st.floats(0, 0.9), st.lists(st.floats(0.001, 0.1), max_size=8), st.floats(-1, 10**6), st.integers(1, 10**7))
def test_parts_are_the_whole(nulls: float, common: list[float], distinct: float, table: int) -> None:
    known = KNOWN._replace(nulls=nulls, shares=[share * (1 - nulls) for share in common], distinct=distinct)
    found = list(repeated.parts(known, float(table), 4))
    assert sum(part.share for part in found) <= 1 + 1e-6
    assert all(part.number > 0 and part.share >= 0 for part in found)
    assert sum(part.null for part in found) == (1 if nulls else 0)
    assert 1 <= repeated.number(known, float(table)) <= table


@pytest.mark.parametrize(("said", "values"), [(-1.0, 1000), (-0.25, 250), (40.0, 40), (0.0, 1000)])
def test_distinct_values_as_the_server_says_them(said: float, values: float) -> None:
    assert repeated.distinct(KNOWN._replace(distinct=said), 1000.0) == values
