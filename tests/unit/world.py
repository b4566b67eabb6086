# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine of nothing but memory, for the frame's logic: what is done to a table shows at the next look. No test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault, Held
from ansible_collections.dbfleet.maintenance.plugins.module_utils._health import Health
from ansible_collections.dbfleet.maintenance.plugins.module_utils._protocols import Session
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Database,
    DatabaseInfo,
    Ref,
    Server,
    Step,
    Table,
    Tick,
    Wants,
    Work,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropLeftover

from . import samples


class Visit:
    """A session."""

    def __init__(self, database: str) -> None:
        self.database = database

    def cancel(self) -> None:
        pass


class World:
    """Databases in memory. What goes wrong is set by the test."""

    def __init__(self, *tables: Table, **fields: Any) -> None:
        found = samples.measured(*tables, **fields)
        self.selects, self.one_writer = False, False
        self.databases = {d.name: d for d in found.databases}
        infos = tuple(DatabaseInfo(name) for name in self.databases)
        self.server: Server = found.server._replace(databases=found.server.databases or infos)
        self.locked: dict[str, DbFault] = {}  # databases that refuse sessions
        self.exact: dict[Ref, Table | DbFault] = {}  # what a closer look sees
        self.gauges: dict[str, float | None] = {}
        self.lazy: set[str] = set()  # kinds of steps that succeed and do nothing
        self.failing: dict[str, DbFault] = {}  # tables whose steps fail
        self.held = False
        self.looks: list[tuple[str, Wants]] = []
        self.ran: list[str] = []
        self.closed = 0

    def greet(self) -> Server:
        return self.server

    def close(self) -> None:
        self.closed += 1

    def silence(self) -> float:
        return 0.0

    def answers(self) -> bool:
        return True

    def cancel(self) -> None:
        pass

    @contextmanager
    def guard(self, databases: Sequence[str], wait: float) -> Iterator[None]:
        if self.held:
            raise Held("another run is at work: pid 7")
        yield

    @contextmanager
    def session(self, database: str) -> Iterator[Session]:
        if database in self.locked:
            raise self.locked[database]
        yield Visit(database)

    def measure(self, session: Any, wants: Wants, server: Server) -> Database:
        self.looks.append((session.database, wants))
        found = self.databases[session.database]
        if wants.only:
            found = found._replace(tables=tuple(x for x in found.tables if x.ref in wants.only))
        return found._replace(tables=tuple(self._closer(x) if x.ref in wants.exact else x for x in found.tables))

    def _closer(self, table: Table) -> Table:
        seen = self.exact.get(table.ref, table)
        if isinstance(seen, DbFault):
            raise seen
        return seen

    def health(self, session: Any, server: Server) -> Health:
        return Health()

    def gauge(self, session: Any, name: str, step: Step) -> float | None:
        return self.gauges.get(name, 0.0)

    def spell(self, task: Any, server: Server) -> Sequence[str]:
        return [f"{task.kind.upper()} {task.ref}"]

    def carry_out(self, session: Any, task: Any, server: Server, cursor: str | None) -> Work:
        self.ran += self.spell(task, server)
        if task.ref.path[-1] in self.failing:
            raise self.failing[task.ref.path[-1]]
        yield Tick(Amount(rows=1))
        if task.kind not in self.lazy:
            world = samples.measured()._replace(databases=(self.databases[session.database],))
            (self.databases[session.database],) = samples.after(world, [Step(task, "")]).databases

    def left(self) -> list[DropLeftover]:
        """The wreckage that is there."""
        return [DropLeftover(x.ref, x.what, x.names) for d in self.databases.values() for x in d.leftovers]
