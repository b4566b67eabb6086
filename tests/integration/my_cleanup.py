# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of cleanup on MySQL and MariaDB, planned and carried out bite by bite. No test lives here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Database,
    Execution,
    Measured,
    Pace,
    Plan,
    Step,
    Tick,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Purge
from tests.fleet import Server
from tests.integration.my import Used, fill, use

DEFAULTS = {name: option.get("default") for name, option in retention.OPTIONS.items()}
OF_RULE = {name: field.get("default") for name, field in retention.OPTIONS["rules"]["options"].items()}
Hook = Callable[[Tick], Any]


class Done(NamedTuple):
    """What a run did, by kind of step and object."""

    amounts: dict[tuple[str, str], Amount]

    def rows(self, kind: str) -> int:
        return sum(amount.rows for (of, _name), amount in self.amounts.items() if of == kind)

    @property
    def children(self) -> int:
        return sum(amount.children for amount in self.amounts.values())


class Cleaner:
    """Rules on one database; the moment from which ages count stays the same."""

    def __init__(self, used: Used, database: str, *rules: dict[str, Any], **params: Any) -> None:
        self.used, self.database = used, database
        filled = [{**OF_RULE, "name": f"r{n}", **rule} for n, rule in enumerate(rules)]
        self.policy = retention.policy({**DEFAULTS, "rules": filled, **params})

    def measure(self) -> Database:
        return self.used.measure(self.database, retention.wants(self.policy, self.used.server))

    def plan(self) -> Plan:
        return retention.plan(self.policy, Measured(self.used.server, (self.measure(),)))

    def steps(self) -> list[Step]:
        """Of retention itself."""
        return [s for s in self.plan().steps if s.task.kind not in ("analyze", "vacuum")]

    def codes(self) -> set[str]:
        return {f.code for f in self.plan().findings}

    def said(self, code: str) -> str:
        """The messages of the findings of one code."""
        return "\n".join(f"{f.message} {f.fix}" for f in self.plan().findings if f.code == code)

    def run(self, hook: Hook | None = None, *, pace: Pace | None = None) -> Done:
        """Carries everything out, safest first, each step after those it waits for."""
        amounts: dict[tuple[str, str], Amount] = {}
        waiting = sorted(self.steps(), key=lambda s: s.rank, reverse=True)
        while waiting:
            keys = {s.key for s in waiting}
            step = next(s for s in waiting if not keys & set(s.after))
            waiting.remove(step)
            amounts[step.task.kind, str(step.task.ref)] = self.carry_out(step, hook, pace=pace)
        return Done(amounts)

    def carry_out(self, step: Step, hook: Hook | None = None, *, pace: Pace | None = None) -> Amount:
        total, task = Amount(), step.task
        if pace and isinstance(task, Purge):
            task = task._replace(pace=pace)
        with self.used.engine.session(task.ref.database) as session:
            work = self.used.engine.carry_out(session, task, self.used.server, None)
            try:
                tick = next(work, None)
                while tick is not None:
                    total = total.plus(tick.amount)
                    if hook:
                        hook(tick)
                    try:
                        tick = work.send(pace or Pace(500, 0.2))
                    except StopIteration:
                        break
            finally:
                work.close()
        return total

    def statements(self) -> list[str]:
        return [w for s in self.steps() for w in self.used.engine.spell(s.task, self.used.server)]


COLUMNS = "id int primary key, at datetime null, note varchar(60), kind int"
TEN_DAYS = {"table": "t", "date_column": "at", "delete_after": "10d", "refuse_over_percent": 100.0}
ARCHIVED = {**TEN_DAYS, "delete_after": None, "archive_after": "10d"}
SEED = "INSERT INTO seed WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 900) SELECT * FROM s"

MakeDatabase = Callable[[Server], str]


@contextmanager
def cleaner(server: Server, database: str, *rules: dict[str, Any], **params: Any) -> Iterator[Cleaner]:
    with use(server, Execution()) as used:
        yield Cleaner(used, database, *rules, **params)


def days_ago(days: float | str) -> str:
    """SQL for a moment in UTC; `days` may be SQL."""
    return f"UTC_TIMESTAMP() - INTERVAL ROUND(({days}) * 86400) SECOND"


# Ten minutes between two rows, and never near a day's end.
AGES = f"i, {days_ago('(i - 0.5) / 144')}, CONCAT('row ', i), i % 7"
OLD = f"at < {days_ago(10)}"


def make(server: Server, name: str, columns: str = COLUMNS, values: str = AGES, rows: int = 2000) -> None:
    fill(server, name, "t", columns, values, rows)


def counted(server: Server, name: str, table: str, where: str = "TRUE") -> int:
    return int(server.sql(f"SELECT COUNT(*) FROM {table} WHERE {where}", database=name)[0][0])
