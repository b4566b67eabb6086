# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tables are dumped beside the rest of their database."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Shelf
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import backup as planner
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.backup_streams import LEAST, divided
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Database,
    DatabaseInfo,
    Measured,
    Ref,
    Table,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump

from ..samples import GB, MB, defaults, server


def table(name: str, size: int) -> Table:
    return Table(Ref("shop", ("public", name)), bytes=size)


FOUR = (table("a", 400 * MB), table("b", 300 * MB), table("c", 200 * MB), table("d", 90 * MB), table("e", MB))


def names(jobs: int = 2, size: int = GB, other: int = 0, large: tuple[Table, ...] = FOUR, **given_options: Any) -> Any:
    """The tables of each stream but the first, as the planner plans it."""
    infos = (DatabaseInfo("shop", size), DatabaseInfo("crm", other))
    where = server(databases=infos, settings={"identity": "postgresql:7"})
    found = (Database("shop", large=large), Database("crm"))
    options = defaults(planner.OPTIONS, **{"backup_dir": "/b", "globals": False, "jobs": jobs, **given_options})
    plan = planner.plan(planner.policy(options), Measured(where, found, shelf=Shelf("/b")))
    (task,) = (s.task for s in plan.steps if isinstance(s.task, Dump) and s.task.ref == Ref("shop"))
    return [[ref.path[1] for ref in refs] for refs in task.streams]


def test_the_work_is_divided() -> None:
    assert names() == [["a", "d"]]
    assert names(large=FOUR[:4]) == [["b", "c"]]
    assert names(jobs=3) == [["a"], ["b"]]
    assert names(jobs=9) == [["a"], ["b"], ["c"], ["d"]]


def test_one_stream_is_enough() -> None:
    assert names(jobs=1) == []
    assert names(large=(table("a", 50 * GB), table("b", MB))) == []
    assert names(large=(table("a", 50 * GB), *(table(f"b{n}", 20 * MB) for n in range(3)))) == [["a"]]
    assert names(large=(table("a", 50 * MB), table("b", 50 * MB))) == []
    assert names(other=GB) == []
    assert names(other=GB - 1) == [["a", "d"]]
    assert names(large=()) == []


def test_what_is_excluded_needs_no_stream() -> None:
    assert names(exclude_tables=["public.b", "c"]) == [["a"]]


@given(st.lists(st.integers(0, GB), max_size=20), st.integers(2, 8))
def test_every_large_table_is_in_one_stream_at_most_and_none_has_all_the_work(sizes: list[int], jobs: int) -> None:
    tables = [table(f"t{n}", size) for n, size in enumerate(sizes)]
    of = {x.ref: x.bytes for x in tables}
    found = divided(tables, jobs)
    told = [ref for refs in found for ref in refs]
    assert len(told) == len(set(told))
    assert all(of[ref] >= LEAST for ref in told)
    assert len(found) < jobs
    loads = [sum(of[ref] for ref in refs) for refs in found]
    first = sum(sizes) - sum(loads)
    if found:  # no table fits better elsewhere: longest first is within its largest piece of the best
        assert max([first, *loads]) - min([first, *loads]) <= max(sizes) + sum(s for s in sizes if s < LEAST)
