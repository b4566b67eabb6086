# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vacuum and analyze that a purge makes due, by the thresholds of vacuum_needs.py. Not: which rows leave."""

from __future__ import annotations

import typing as t

from .._records import Database, Finding, Key, Measured, Ref, Step, Table
from .._tasks import DropPartition, Purge
from .._tuples import NamedTuple
from . import vacuum

AFTERWARDS = ("vacuum", "analyze")
GENTLE_DELAY = 2.0  # milliseconds: what autovacuum_vacuum_cost_delay is by default


class Change(NamedTuple):
    """What the steps of a plan do to a table."""

    gone: int = 0  # rows
    come: int = 0
    after: tuple[Key, ...] = ()

    def plus(self, gone: int, come: int, key: Key) -> Change:
        return Change(self.gone + gone, self.come + come, tuple(dict.fromkeys((*self.after, key))))


def _policy(*, gently: bool) -> t.Any:
    """The defaults of db_vacuum, for these two actions."""
    params = {name: spec.get("default") for name, spec in vacuum.OPTIONS.items()}
    delay = GENTLE_DELAY if gently else None
    return vacuum.policy({**params, "actions": list(AFTERWARDS), "vacuum_cost_delay": delay})


def due(measured: Measured, database: Database, *, gently: bool) -> tuple[list[Step], tuple[Finding, ...]]:
    """What the tables measured need now: the second look, before a projected step starts and after it ended."""
    gently = gently and "cost delay" not in measured.server.lacks
    plan = vacuum.plan(_policy(gently=gently), measured._replace(databases=(database._replace(leftovers=()),)))
    return list(plan.steps), plan.findings


def projected(measured: Measured, database: Database, steps: t.Sequence[Step], *, gently: bool) -> list[Step]:
    """What the tables will need once these steps are carried out."""
    changes = _changes(steps)
    tables = {table.ref: table for table in database.tables}
    made = {ref for ref, change in changes.items() if change.come and ref not in tables}
    found = {**tables, **(_new(made, database.tables) if tables else {})}
    coming = [_then(found[ref], change) for ref, change in changes.items() if ref in found]
    if not coming:
        return []
    needed, _told = due(measured, database._replace(tables=tuple(coming), findings=()), gently=gently)
    return [step._replace(after=changes[step.task.ref].after, projected=True) for step in needed]


def _new(refs: t.Collection[Ref], others: t.Sequence[Table]) -> dict[Ref, Table]:
    """Archive tables that the steps make: nobody knows anything of them. Inserts count as in the smallest table."""
    limit = min((table.insert_limit for table in others if table.insert_limit is not None), default=None)
    inserted = None if limit is None else 0
    return {ref: Table(ref, missing_statistics="the table", inserted=inserted, insert_limit=limit) for ref in refs}


def _changes(steps: t.Sequence[Step]) -> dict[Ref, Change]:
    changes: dict[Ref, Change] = {}

    def change(ref: Ref | None, gone: int, come: int, key: Key) -> None:
        if ref is not None:
            whole = ref._replace(partition="")
            changes[whole] = changes.get(whole, Change()).plus(gone, come, key)

    dropped = {step.task.ref for step in steps if isinstance(step.task, DropPartition)}
    for step in steps:
        task = step.task
        if not isinstance(task, Purge) or step.skip:
            continue
        part = step.expected.rows / task.due if task.due else 0.0
        if task.ref not in dropped:
            change(task.ref, step.expected.rows, 0, step.key)
        change(task.to, 0, step.expected.rows, step.key)
        for child in task.children:
            rows = round((child.rows or 0) * part)
            change(child.table, rows, 0, step.key)
            change(child.to, 0, rows, step.key)
    return changes


def _then(table: Table, change: Change) -> Table:
    """The table after that. What the engine does not count stays uncounted."""
    rows = max(0, table.rows - change.gone) + change.come
    dead = table.dead
    if dead:
        count = dead.rows + change.gone
        removable = None if dead.removable is None else dead.removable + change.gone
        dead = dead._replace(rows=count, percent=100 * count / max(rows + count, 1), removable=removable)
    changed = None if table.changed is None else table.changed + change.gone + change.come
    inserted = None if table.inserted is None else table.inserted + change.come
    return table._replace(rows=rows, dead=dead, changed=changed, inserted=inserted)
