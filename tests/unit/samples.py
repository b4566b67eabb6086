# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements to plan from, made up or drawn by hypothesis, and what carrying a step out does to them. No test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import vacuum
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.vacuum_needs import NEEDED_BY, Policy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Bloat,
    Database,
    Dead,
    Leftover,
    Measured,
    Ref,
    Server,
    Step,
    Table,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, DropLeftover, Rebuild, Vacuum

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MB, GB = 1 << 20, 1 << 30


def defaults(options: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """The parameters as Ansible hands them to a module."""
    return {**{name: spec.get("default") for name, spec in options.items()}, **given}


def policy(**given: Any) -> Policy:
    return vacuum.policy(defaults(vacuum.OPTIONS, **given))


def server(**fields: Any) -> Server:
    return Server("postgresql", "18.4", (18, 4), "db1:5432", "primary", NOW)._replace(**fields)


def table(name: str = "orders", database: str = "shop", **fields: Any) -> Table:
    """A healthy one, unless told otherwise."""
    whole = {"bytes": GB, "total_bytes": 2 * GB, "rows": 1_000_000, **fields}
    return Table(Ref(database, ("public", name)), **whole)


def measured(*tables: Table, **fields: Any) -> Measured:
    """The tables by their databases, on one server. `database`: more fields of each database."""
    more = fields.pop("database", {})
    names = dict.fromkeys(x.ref.database for x in tables) or {"shop": None}
    databases = [Database(n, tables=tuple(x for x in tables if x.ref.database == n))._replace(**more) for n in names]
    return Measured(fields.pop("server", server()), tuple(databases))._replace(**fields)


def bloat(percent: float, size: int = GB, *, doubt: float = 0.0) -> Bloat:
    return Bloat(int(size * percent / 100), percent, percent - doubt, percent + doubt, "estimate")


# ---- drawn -----------------------------------------------------------------------------------------------------------


KINDS = st.sampled_from(["table"] * 6 + ["matview", *sorted(NEEDED_BY)])  # mostly tables
PERCENTS = st.sampled_from([0.0, 3.0, 9.9, 10.0, 29.0, 30.0, 49.0, 50.0, 55.0, 80.0, 100.0])
COUNTS = st.sampled_from([0, 1, 999, 1000, 5000, 10**6, 10**7, 10**9])
SIZES = st.sampled_from([0, 8192, 99 * MB, 100 * MB, 2 * GB, 49 * GB, 60 * GB])


@st.composite
def tables(draw: st.DrawFn, name: str = "orders", *, pins: bool = True) -> Table:
    """Tables of every kind in every state that an engine could report, near the thresholds more often than not."""
    rows, size, dead = draw(COUNTS), draw(SIZES), draw(st.none() | COUNTS)
    pinned = pins and draw(st.integers(0, 3)) == 0
    age = draw(st.none() | PERCENTS)
    bloated = draw(st.none() | PERCENTS)
    doubt = draw(st.sampled_from([0.0, 5.0]))
    return Table(
        Ref(draw(st.sampled_from(["shop", "jobs"])), ("public", name)),
        draw(KINDS),
        size,
        size + draw(st.sampled_from([0, MB, GB])),
        rows,
        dead=None if dead is None else Dead(dead, 100 * dead / max(rows + dead, 1), dead // 3 if pinned else None),
        inserted=draw(st.none() | COUNTS),
        insert_limit=draw(st.none() | COUNTS.map(float)),
        changed=draw(st.none() | COUNTS),
        analyzed=draw(st.sampled_from([None, NOW, NOW - timedelta(days=7), NOW - timedelta(days=30)])),
        missing_statistics=draw(st.sampled_from(["", "", "", "column select"])),
        freeze_percent=age,
        freeze_floor=draw(st.sampled_from([0.0, age / 2, age])) if pinned and age else 0.0,
        bloat=None if bloated is None else bloat(bloated, size, doubt=doubt),
        own=draw(st.dictionaries(st.sampled_from(["dead_percent", "changed_percent"]), PERCENTS, max_size=1)),
        lacks=draw(st.dictionaries(st.sampled_from(["analyze", "online rebuild"]), st.just("no"), max_size=1)),
        pinned_by="session 12 of app" if pinned else "",
    )


@st.composite
def fleets(draw: st.DrawFn, *, pins: bool = True) -> Measured:
    """Some tables in up to two databases, with wreckage here and there."""
    names = "abcd"[: draw(st.integers(0, 4))]
    found = measured(*[draw(tables(name, pins=pins)) for name in names])
    wreck = st.builds(
        Leftover,
        st.sampled_from([x.ref for d in found.databases for x in d.tables] or [Ref("shop", ("public", "gone"))]),
        st.sampled_from(["pg_repack", "repack"]),
        st.lists(st.sampled_from(["log_1", "table_1", "trigger"]), min_size=1, max_size=2).map(tuple),
        st.integers(0, GB),
        st.booleans(),
        st.sampled_from(["", "server process 7 is at work on it"]),
    )
    databases = [
        d._replace(leftovers=tuple(draw(st.lists(wreck, max_size=3)) if draw(st.integers(0, 3)) == 0 else ()))
        for d in found.databases
    ]
    databases = [d._replace(leftovers=tuple(x for x in d.leftovers if x.ref.database == d.name)) for d in databases]
    return found._replace(databases=tuple(databases))


# ---- carried out -----------------------------------------------------------------------------------------------------


def after(found: Measured, steps: Sequence[Step]) -> Measured:
    """What the next measurement shows when these steps were carried out, and did what they promise."""
    for step in steps:
        databases = [_cured(d, step) if d.name == step.task.ref.database else d for d in found.databases]
        found = found._replace(databases=tuple(databases))
    return found


def _cured(database: Database, step: Step) -> Database:
    task = step.task
    if isinstance(task, DropLeftover):
        rest = [x for x in database.leftovers if (x.ref, x.what) != (task.ref, task.what) or not x.dead]
        return database._replace(leftovers=tuple(rest))
    assert isinstance(task, (Vacuum, Analyze, Rebuild))
    return database._replace(tables=tuple(cured(x, task) if x.ref == task.ref else x for x in database.tables))


def cured(table: Table, task: Vacuum | Analyze | Rebuild) -> Table:
    if isinstance(task, Analyze) or getattr(task, "analyze", True):
        table = table._replace(changed=0, analyzed=NOW, missing_statistics="")
    if isinstance(task, (Vacuum, Rebuild)):
        table = table._replace(dead=_rest(table.dead), inserted=None if table.inserted is None else 0)
    if isinstance(task, Rebuild):
        freed = table.bloat.bytes if table.bloat else 0
        table = table._replace(bloat=bloat(0), bytes=table.bytes - freed, total_bytes=table.total_bytes - freed)
    if isinstance(task, Vacuum) and task.freeze:
        table = table._replace(freeze_percent=table.freeze_floor)
    return table


def _rest(dead: Dead | None) -> Dead | None:
    """What a vacuum leaves: rows that somebody may still look at."""
    if dead is None or dead.removable is None:
        return dead and Dead(0, 0.0)
    rows = dead.rows - dead.removable
    return Dead(rows, dead.percent * rows / max(dead.rows, 1), 0)
