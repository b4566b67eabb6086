# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two engines to run plans on: a small real one over SQLite files, and one that only keeps time, for scheduling."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, CannotConnect, Refused, Stopped
from ansible_collections.dbfleet.maintenance.plugins.module_utils._health import Health
from ansible_collections.dbfleet.maintenance.plugins.module_utils._protocols import Session
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Database,
    Execution,
    Limit,
    Outcome,
    Pace,
    Plan,
    Proof,
    Ref,
    Server,
    Step,
    Tick,
    Wants,
    Work,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.control import Control
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import Journal
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.runner import Runner
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Vacuum

SERVER = Server("test", "1.0", (1, 0), "localhost:1", "primary", datetime.now(UTC))


class Purge(NamedTuple):
    """Deletes every row, a bite at a time."""

    ref: Ref
    pace: Pace = Pace(100, 0.05)

    @property
    def kind(self) -> str:
        return "delete"


class Grind(NamedTuple):
    """One statement that runs until it is cancelled."""

    ref: Ref

    @property
    def kind(self) -> str:
        return "grind"


class Files:
    """SQLite files, for real: what is committed is committed, what is locked is locked."""

    selects, one_writer = False, True

    def __init__(self, wait: float = 0.05) -> None:
        self.wait, self.readings = wait, list[float | None]()
        self.on_bite: Callable[[int], None] = lambda number: None
        self.sessions, self.paces, self.cursors = 0, list[Pace](), list[str | None]()

    def greet(self) -> Server:
        return SERVER

    def close(self) -> None:
        pass

    @contextmanager
    def guard(self, databases: Sequence[str], wait: float) -> Iterator[None]:
        yield

    @contextmanager
    def session(self, database: str) -> Iterator[Session]:
        if not Path(database).exists():
            raise CannotConnect("there is no such file", database=database)
        session = FileSession(database, self.wait)
        self.sessions += 1
        try:
            yield session
        finally:
            session.db.close()

    def measure(self, session: Any, wants: Wants, server: Server) -> Database:
        return Database(session.database)

    def health(self, session: Any, server: Server) -> Health:
        return Health()

    def silence(self) -> float:
        return 0.0

    def answers(self) -> bool:
        return True

    def cancel(self) -> None:
        pass

    def gauge(self, session: Any, name: str, step: Step) -> float | None:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def spell(self, task: Any, server: Server) -> Sequence[str]:
        return [f"{task.kind} {task.ref}"]

    def carry_out(self, session: Any, task: Any, server: Server, cursor: str | None) -> Work:
        self.cursors.append(cursor)
        acts: dict[str, Callable[..., Work]]
        acts = {"vacuum": self._vacuum, "delete": self._delete, "grind": self._grind}
        return acts[task.kind](session, task, cursor)

    def _vacuum(self, session: FileSession, task: Vacuum, cursor: str | None) -> Work:
        yield Tick(owns=f"copy of {task.ref}")
        session.execute("VACUUM")

    def _grind(self, session: FileSession, task: Grind, cursor: str | None) -> Work:
        session.execute("BEGIN IMMEDIATE")
        try:
            session.execute("DELETE FROM orders")
            session.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n")
        finally:
            session.db.execute("ROLLBACK")
        yield Tick()

    def _delete(self, session: FileSession, task: Purge, cursor: str | None) -> Work:
        pace, done = task.pace, int(cursor or 0)
        while True:
            self.paces.append(pace)
            began = time.monotonic()
            (edge,) = session.execute(
                f"SELECT max(id) FROM (SELECT id FROM orders WHERE id > {done} ORDER BY id LIMIT {pace.rows})"
            ).fetchone()
            if edge is None:
                return
            rows = session.execute(f"DELETE FROM orders WHERE id > {done} AND id <= {edge}").rowcount
            done = edge
            self.on_bite(len(self.paces))
            pace = yield Tick(Amount(rows=rows, seconds=time.monotonic() - began), str(done))


class FileSession:
    def __init__(self, database: str, wait: float) -> None:
        self.database = database
        self.db = sqlite3.connect(database, timeout=wait, isolation_level=None, check_same_thread=False)

    def cancel(self) -> None:
        self.db.interrupt()

    def execute(self, statement: str) -> sqlite3.Cursor:
        try:
            return self.db.execute(statement)
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                raise Stopped("cancelled") from error
            if "locked" in str(error):
                raise Busy(str(error), database=self.database) from error
            raise Refused(str(error), database=self.database) from error


def make_file(path: Path, rows: int = 1000) -> str:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO orders (note) VALUES (?)", [("x" * 50,)] * rows)
    db.execute("COMMIT")
    db.close()
    return str(path)


def count(path: str) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute("SELECT count(*) FROM orders").fetchone()[0])
    finally:
        db.close()


class Clockwork:
    """Steps that do nothing but take time, or fail as told; it keeps a record of what ran beside what."""

    def __init__(self, acts: dict[str, Callable[[Any], Work]] | None = None, *, one_writer: bool = False) -> None:
        self.selects, self.one_writer, self.acts = False, one_writer, acts or {}
        self.lock = threading.Lock()
        self.running: list[Step | Any] = []
        self.order: list[str] = []  # names of tables, as their steps began
        self.most = 0
        self.collisions: list[tuple[Any, ...]] = []

    def greet(self) -> Server:
        return SERVER

    def close(self) -> None:
        pass

    @contextmanager
    def guard(self, databases: Sequence[str], wait: float) -> Iterator[None]:
        yield

    @contextmanager
    def session(self, database: str) -> Iterator[Session]:
        yield Quiet(database)

    def measure(self, session: Any, wants: Wants, server: Server) -> Database:
        return Database(session.database)

    def health(self, session: Any, server: Server) -> Health:
        return Health()

    def silence(self) -> float:
        return 0.0

    def answers(self) -> bool:
        return True

    def cancel(self) -> None:
        pass

    def gauge(self, session: Any, name: str, step: Step) -> float | None:
        return 0.0

    def spell(self, task: Any, server: Server) -> Sequence[str]:
        return [f"{task.kind} {task.ref}"]

    def carry_out(self, session: Any, task: Any, server: Server, cursor: str | None) -> Work:
        lane = task.ref.database if self.one_writer else (task.ref.database, task.ref.path)
        with self.lock:
            self.collisions += [(lane, other) for other in self.running if other == lane]
            self.running.append(lane)
            self.order.append(task.ref.path[-1])
            self.most = max(self.most, len(self.running))
        try:
            yield from self.acts.get(task.ref.path[-1], once)(session)
        finally:
            with self.lock:
                self.running.remove(lane)


class Quiet:
    def __init__(self, database: str) -> None:
        self.database, self.cancelled = database, threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


def once(session: Any) -> Work:
    yield Tick(Amount(rows=1))


def table(name: str, database: str = "shop") -> Ref:
    return Ref(database, ("public", name))


def step(name: str, database: str = "shop", **fields: Any) -> Step:
    return Step(Vacuum(table(name, database)), "dead rows", **fields)


def carry_out(
    engine: Any,
    *steps: Step,
    journal: Journal | None = None,
    control: Control | None = None,
    prove: Callable[[Any, Step, str], Proof] | None = None,
    replan: Callable[[Any, Step], Step | None] | None = None,
    **execution: Any,
) -> list[Outcome]:
    how = Execution(**execution)
    runner = Runner(
        engine,
        SERVER,
        journal or Journal(),
        execution=how,
        control=control or Control(how),
        prove=prove,
        replan=replan,
    )
    return runner.run(Plan(steps))


def anything(task: Any) -> Any:
    """Tasks of the tests' own are not in the union of tasks; the runner takes what has a kind and a ref."""
    return task


def limit(otherwise: str, worst: float = 5.0, gauge: str = "replica_lag") -> Limit:
    return Limit(gauge, worst, otherwise)
