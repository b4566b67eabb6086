# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of nothing but memory for the planner of cleanup: rows that are counted, and that leave. No test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.retention_rules import Policy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Database,
    Finding,
    Measured,
    Note,
    Plan,
    Ref,
    Step,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import (
    Child,
    Depot,
    Expired,
    Files,
    Missing,
    Part,
    Piece,
    Sought,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropPartition, Purge, RemoveFiles

from ..samples import NOW, defaults, server

ROW_BYTES = 100


def policy(*rules: dict[str, Any], **options: Any) -> Policy:
    """Rules with what they cannot do without, unless it is given."""
    whole = [{"name": "old", "table": "events", "date_column": "at", **rule} for rule in rules]
    return retention.policy(defaults(retention.OPTIONS, rules=whole, **options))


def rule(**fields: Any) -> dict[str, Any]:
    return {"refuse_over_percent": 100.0, **fields}


def ref(name: str) -> Ref:
    return Ref("shop", ("public", name))


class Row(NamedTuple):
    id: int
    at: datetime | None
    picked: bool = True  # the user's condition holds


class World:
    """One table with its archive; partitioned where there are bounds between its partitions."""

    def __init__(self, rows: Sequence[Row], bounds: Sequence[datetime] = (), **fields: Any) -> None:
        self.rows, self.bounds, self.fields = list(rows), sorted(bounds), fields
        self.partitions = list(range(len(self.bounds) + 1))  # those that are there
        self.archived: list[Row] = []
        self.files: list[Row] = []
        self.deleted: list[Row] = []
        self.notes: dict[Any, Note] = {}

    # ---- measured ----------------------------------------------------------------------------------------------------

    def measured(self, asked: Policy, **more: Any) -> Measured:
        wants = retention.wants(asked, server())
        found = tuple(x for sought in wants.expired for x in [self._look(sought)] if isinstance(x, Expired))
        without = tuple(x for sought in wants.expired for x in [self._look(sought)] if isinstance(x, Missing))
        database = Database("shop", expired=found, without=without)
        return Measured(server(), (database,), notes=self.notes)._replace(**more)

    def _look(self, sought: Sought) -> Expired | Missing:
        if sought.expiry.table == "events":
            return self._source(sought)
        if not self.archived:
            return Missing(sought, "shop")
        rows = due(sought, self.archived)
        pieces = (Piece(ref(sought.expiry.table), len(rows), ROW_BYTES * len(rows), ("at", "id"), True),)
        return Expired(sought, ref(sought.expiry.table), len(rows), len(self.archived), pieces)

    def _source(self, sought: Sought) -> Expired:
        rows = due(sought, self.rows)
        parts = [p for p in self.partitions[:-1] if self._whole(sought, p)]
        pieces = []
        for place in self.partitions:
            mine = [row for row in rows if self.place(row) == place]
            if mine and (place not in parts or sought.archive):
                piece = Piece(self.stored(place), len(mine), ROW_BYTES * len(mine), ("at", "id"), True, "", ROW_BYTES)
                pieces.append(piece)
        counted = tuple(self._part(p) for p in parts)
        depot = files = None
        if sought.archive and sought.archive.table:
            depot = Depot(ref(sought.archive.table), bool(self.archived))
        elif sought.archive:
            outdated = [r for r in self.files if sought.files_before and r.at and r.at < sought.files_before]
            files = Files((), tuple(f"/a/{r.id}" for r in outdated), len(outdated), len(outdated))
        expired = Expired(
            sought, ref("events"), len(rows), len(self.rows), tuple(pieces), counted, depot=depot, files=files
        )
        return expired._replace(**self.fields)

    def place(self, row: Row) -> int:
        return sum(bound <= row.at for bound in self.bounds) if row.at else len(self.bounds)

    def stored(self, place: int) -> Ref:
        return ref(f"events_{place}") if self.bounds else ref("events")

    def _part(self, place: int) -> Part:
        count = sum(self.place(row) == place for row in self.rows)
        return Part(self.stored(place), count, ROW_BYTES * count, True)

    def _whole(self, sought: Sought, place: int) -> bool:
        """All of its rows are due, whatever they are."""
        expiry = sought.expiry
        lower = self.bounds[place - 1] if place else None
        if not sought.partitions or expiry.where or self.bounds[place] > expiry.before:
            return False
        return expiry.since is None or (lower is not None and lower >= expiry.since)

    # ---- carried out -------------------------------------------------------------------------------------------------

    def run(self, steps: Sequence[Step]) -> None:
        for step in steps:
            task = step.task
            if isinstance(task, Purge):
                self._purge(step, task)
            elif isinstance(task, DropPartition):
                self._drop(task)
            elif isinstance(task, RemoveFiles):
                names = set(task.files)
                self.deleted += [row for row in self.files if f"/a/{row.id}" in names]
                self.files = [row for row in self.files if f"/a/{row.id}" not in names]

    def _purge(self, step: Step, task: Purge) -> None:
        place = self.archived if task.expiry.table != "events" else self.rows
        sought = Sought(task.expiry)
        rows = [r for r in due(sought, place) if place is self.archived or self.stored(self.place(r)) == task.ref]
        rows = sorted(rows, key=lambda r: (r.at, r.id))[: task.rows]
        to = self.deleted if task.archive is None else self.archived if task.archive.table else self.files
        to += rows
        for row in rows:
            place.remove(row)
        words = json.dumps({"due": task.due, "removed": len(rows), "allowed": task.rows})
        self.notes[step.key] = Note(NOW, words)

    def _drop(self, task: DropPartition) -> None:
        (place,) = [p for p in self.partitions if self.stored(p) == task.ref]
        mine = [row for row in self.rows if self.place(row) == place]
        assert not (task.empty and mine), "a partition is dropped before its rows are archived"
        assert place != self.partitions[-1], "the last partition"
        self.deleted += mine
        self.rows = [row for row in self.rows if row not in mine]
        self.partitions.remove(place)


def due(sought: Sought, rows: Sequence[Row]) -> list[Row]:
    expiry = sought.expiry
    return [
        row
        for row in rows
        if row.at
        and row.at < expiry.before
        and (expiry.since is None or row.at >= expiry.since)
        and (not expiry.where or row.picked)
    ]


def expired(sought: Sought, rows: int | None = 10, of_rows: int | None = 100, **fields: Any) -> Expired:
    """One table, walked by an index on its date."""
    table = ref(sought.expiry.table)
    pieces = (Piece(table, rows, (rows or 0) * ROW_BYTES, ("at", "id"), True, "", ROW_BYTES),)
    return Expired(sought, table, rows, of_rows, pieces)._replace(**fields)


def child(rows: int | None = 3, **fields: Any) -> Child:
    return Child(ref("items"), ("event_id",), ref("events"), ("id",), "cascade", rows)._replace(**fields)


def seen(asked: Policy, *, tables: Any = (), more: Any = None, **fields: Any) -> Measured:
    """Every stage finds the same number of rows; `fields` of what it finds."""
    found = tuple(expired(sought, **fields) for sought in retention.wants(asked, server()).expired)
    database = Database("shop", expired=found, tables=tuple(tables))
    return Measured(server(), (database,))._replace(**(more or {}))


# ---- one plan -------------------------------------------------------------------------------------------------------

RULE = {"delete_after": "90d"}
ARCHIVE = {"archive_after": "90d"}
BOTH = {"archive_after": "90d", "delete_after": "900d"}


def made(rule: dict[str, Any] | None = None, options: dict[str, Any] | None = None, **found: Any) -> Plan:
    asked = policy(rule or RULE, **(options or {}))
    return retention.plan(asked, seen(asked, **found))


def codes(plan: Plan) -> set[str]:
    return {finding.code for finding in plan.findings}


def finding(plan: Plan, code: str) -> Finding:
    (found,) = {f for f in plan.findings if f.code == code}
    return found


def purges(plan: Plan) -> list[Purge]:
    return [step.task for step in plan.steps if isinstance(step.task, Purge)]
