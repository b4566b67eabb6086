# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A purge is measured again after the vacuum that it made due, and at once where none comes; whatever goes wrong."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Execution,
    Outcome,
    Proof,
    Step,
    Tick,
    Work,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.control import Control
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import open_journal
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Vacuum

from .engines import Clockwork, carry_out, table

PURGE = Step(Analyze(table("orders")), "due rows")  # the runner looks at a task's kind and object only
AFTER = Step(Vacuum(table("orders")), "dead rows", after=(PURGE.key,), projected=True)
ELSEWHERE = Step(Vacuum(table("lines")), "dead rows", after=(PURGE.key,), projected=True)


class Seen:
    """What happened, in its order."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def act(self, name: str, *, fail: bool = False) -> Callable[[Any], Work]:
        def work(session: Any) -> Work:
            self.order.append(name)
            yield Tick(Amount(rows=1))
            if fail:
                raise Refused("no")

        return work

    def prove(self, session: Any, step: Step, note: str) -> Proof:
        self.order.append(f"proof of {step.task.kind}")
        return Proof(proven=True, rows_left=0)


def outcomes(seen: Seen, *steps: Step, fail: bool = False, **more: Any) -> list[Outcome]:
    acts = iter([seen.act("purge"), *(seen.act("vacuum", fail=fail) for _step in steps[1:])])

    def following(session: Any) -> Work:
        return next(acts)(session)

    engine = Clockwork(acts={"orders": following, "lines": following})
    return carry_out(engine, *steps, **{"prove": seen.prove, "jobs": 1, **more})


def test_the_proof_of_a_purge_waits_for_its_vacuum() -> None:
    seen = Seen()
    purged, vacuumed = outcomes(seen, PURGE, AFTER)
    assert seen.order == ["purge", "vacuum", "proof of vacuum", "proof of analyze"]
    assert (purged.status, purged.proven, purged.rows_left, purged.error) == ("done", True, 0, "")
    assert (vacuumed.status, vacuumed.proven) == ("done", True)
    assert purged.actual.rows == 1 and purged.attempts == 1


@pytest.mark.parametrize("steps", [(PURGE,), (PURGE, ELSEWHERE), (PURGE, AFTER._replace(projected=False))])
def test_nothing_that_concerns_it_comes_and_it_is_proven_at_once(steps: tuple[Step, ...]) -> None:
    seen = Seen()
    assert outcomes(seen, *steps)[0].proven
    assert seen.order[:2] == ["purge", "proof of analyze"]


def test_a_vacuum_that_fails_is_no_loss_for_the_proof() -> None:
    seen = Seen()
    purged, vacuumed = outcomes(seen, PURGE, AFTER, fail=True)
    assert (purged.status, purged.proven, vacuumed.status) == ("done", True, "failed")


def test_a_vacuum_that_is_due_no_more_neither() -> None:
    seen = Seen()
    purged, vacuumed = outcomes(seen, PURGE, AFTER, replan=lambda session, step: None)
    assert seen.order == ["purge", "proof of analyze"]
    assert (purged.proven, vacuumed.status) == (True, "skipped")


def test_done_is_done_where_the_run_is_stopped_before_the_proof() -> None:
    seen, how = Seen(), Execution(jobs=1)
    control = Control(how)

    def stopping(session: Any) -> Work:
        yield Tick(Amount(rows=1))
        control.stop("asked to stop")

    engine = Clockwork(acts={"orders": stopping})
    purged, vacuumed = carry_out(engine, PURGE, AFTER, prove=seen.prove, control=control, jobs=1)
    assert (purged.status, purged.proven, purged.actual.rows) == ("done", None, 1)
    assert purged.error == "done, but not measured again: asked to stop"
    assert vacuumed.status == "deferred"


def test_a_proof_that_cannot_be_had_is_told() -> None:
    def prove(session: Any, step: Step, note: str) -> Proof:
        if step.key == PURGE.key:
            raise Refused("permission denied")
        return Proof(proven=True)

    purged, vacuumed = carry_out(Clockwork(), PURGE, AFTER, prove=prove, jobs=1)
    assert (purged.status, purged.proven) == ("done", None)
    assert purged.error.startswith("done, but not measured again: ") and "permission denied" in purged.error
    assert vacuumed.proven


def test_a_stop_reaches_a_proof_under_way() -> None:
    how, begun = Execution(jobs=1), threading.Event()
    control = Control(how)

    def prove(session: Any, step: Step, note: str) -> Proof:
        if step.key == PURGE.key:
            begun.set()
            if session.cancelled.wait(30):
                raise Refused("cancelled")
        return Proof(proven=True)

    def stop() -> None:
        begun.wait(30)
        control.stop("asked to stop")

    threading.Thread(target=stop, daemon=True).start()
    purged, _vacuumed = carry_out(Clockwork(), PURGE, AFTER, prove=prove, control=control, jobs=1)
    assert (purged.status, purged.proven) == ("done", None) and "cancelled" in purged.error


def test_the_journal_knows_a_late_proof(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with open_journal(str(path), "db1:5432", readonly=False) as journal:
        journal.begin_run("db_cleanup")
        outcomes(Seen(), PURGE, AFTER, journal=journal)
        journal.end_run("done")
    db = sqlite3.connect(path)
    try:
        found = db.execute("SELECT status, proven FROM steps ORDER BY id").fetchall()
    finally:
        db.close()
    assert found == [("done", 1), ("done", 1)]
