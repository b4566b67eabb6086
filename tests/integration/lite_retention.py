# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The retention room of the SQLite engine as its tests use it: rules by hand, planned and carried out. No test here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Database,
    Pace,
    Ref,
    Tick,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Archive, Expired, Expiry, Sought
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Purge, Settle, Task
from tests.integration.lite import engine_of

NOW = datetime(2026, 6, 1, 3, 0, 0, 500_000, tzinfo=UTC)
BEFORE = NOW - timedelta(days=90)


def rule(table: str = "t", column: str = "at", *, archive: Archive | None = None, **more: Any) -> Sought:
    """Rows older than 90 days leave."""
    own = {name: more.pop(name) for name in _EXPIRY & more.keys()}
    expiry = Expiry("old", table, own.pop("database", ""), column, more.pop("before", BEFORE), **own)
    return Sought(expiry, archive, **more)


_EXPIRY = {"since", "where", "unit", "zone", "database"}


class Room:
    """One file, and an engine that has greeted it."""

    def __init__(self, path: Path, *, lock_timeout: float = 0.3) -> None:
        self.path, self.engine = path, engine_of(path, lock_timeout=lock_timeout)
        self.server = self.engine.greet()

    @property
    def database(self) -> str:
        return str(self.path)

    def find(self, sought: Sought, **more: Any) -> Expired:
        (found,) = self.look(Wants(expired=(sought,), **more)).expired
        return found

    def look(self, wants: Wants) -> Database:
        with self.engine.session(self.database) as session:
            return self.engine.measure(session, wants, self.server)

    def purge(self, found: Expired, *, children: str = "fail", pace: int = 100, **more: Any) -> Purge:
        """As the planner makes it."""
        sought, (piece,) = found.sought, found.pieces
        archive = sought.archive
        kept = children == "archive" and archive is not None
        hanging = tuple(
            child._replace(
                archived=kept,
                to=Ref(self.database, (f"{child.table.path[-1]}_archive",))
                if kept and archive and archive.table
                else None,
            )
            for child in found.children
        )
        return Purge(
            piece.ref,
            found.ref,
            sought.expiry,
            piece.walk,
            hanging if children != "fail" else (),
            archive,
            found.depot.ref if found.depot else None,
            Pace(pace, 0.0),
            due=piece.rows,
            **more,
        )

    def run(self, sought: Sought, **more: Any) -> Amount:
        return self.carry_out(self.purge(self.find(sought), **more))

    def carry_out(self, task: Task, cursor: str | None = None) -> Amount:
        total = Amount()
        for tick in self.ticks(task, cursor):
            total = total.plus(tick.amount)
        return total

    def ticks(self, task: Task, cursor: str | None = None) -> list[Tick]:
        """Bites stay as large as the task says."""
        pace, ticks = getattr(task, "pace", Pace(100, 0.0)), []
        with self.engine.session(self.database) as session:
            work = self.engine.carry_out(session, task, self.server, cursor)
            tick = next(work, None)
            while tick is not None:
                ticks.append(tick)
                try:
                    tick = work.send(pace)
                except StopIteration:
                    tick = None
        return ticks

    def settle(self, sought: Sought) -> int:
        """Finishes what a dead run left. Returns how many files there were."""
        found = self.find(sought)
        files = found.files.unsettled if found.files else ()
        if files and sought.archive:
            self.carry_out(Settle(found.ref, sought.expiry, sought.archive, files))
        return len(files)
