# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner on real SQLite files: what is committed, retried, limited, proven and stopped inside a step."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import CannotConnect, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Execution,
    Finding,
    Outcome,
    Pace,
    Proof,
    Ref,
    Step,
    Tick,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.control import Control
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import Journal, open_journal
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Vacuum

from .engines import SERVER, Files, Grind, Purge, anything, carry_out, count, limit, make_file


@pytest.fixture
def shop(tmp_path: Path) -> str:
    return make_file(tmp_path / "shop.sqlite")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(str(tmp_path / "state" / "journal.sqlite"), SERVER.address, readonly=False) as opened:
        opened.begin_run("db_vacuum")
        yield opened


def purge(database: str, **fields: Any) -> Step:
    return Step(anything(Purge(Ref(database, ("orders",)))), "old rows", **fields)


def the(outcomes: list[Outcome]) -> Outcome:
    (only,) = outcomes
    return only


def test_bites_are_carried_out_and_counted(shop: str) -> None:
    outcome = the(carry_out(Files(), purge(shop, size=4096)))
    assert (outcome.status, outcome.actual.rows, outcome.changed, outcome.error) == ("done", 1000, True, "")
    assert outcome.actual.seconds > 0
    assert count(shop) == 0


def test_fast_bites_grow(shop: str) -> None:
    engine = Files()
    carry_out(engine, Step(anything(Purge(Ref(shop, ("orders",)), Pace(100, 60.0))), "old"))
    assert [pace.rows for pace in engine.paces] == [100, 200, 400, 800, 1600]


@contextmanager
def locked(path: str, seconds: float) -> Iterator[None]:
    """Another program holds the file's write lock."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        held.set()
        done.wait(seconds)
        db.execute("ROLLBACK")
        db.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_lock_holder_is_waited_out_with_new_sessions(shop: str) -> None:
    engine = Files()
    with locked(shop, 0.4):
        outcome = the(carry_out(engine, purge(shop)))
    assert outcome.status == "done"
    assert 2 <= outcome.attempts <= 4
    assert engine.sessions == outcome.attempts
    rows = [pace.rows for pace in engine.paces]
    assert rows[: outcome.attempts] == [100 // 2**n for n in range(outcome.attempts)]


def test_a_lock_holder_who_stays_fails_the_step_and_no_other(shop: str, tmp_path: Path) -> None:
    other = make_file(tmp_path / "other.sqlite")
    with locked(shop, 60):
        began = time.monotonic()
        held, free = carry_out(Files(), purge(shop), purge(other), retries=2)
        took = time.monotonic() - began
    assert (held.status, held.changed, held.attempts) == ("failed", False, 3)
    assert "locked" in held.error
    assert "tried 3 times" in held.error
    assert shop in held.error
    assert (free.status, count(other), count(shop)) == ("done", 0, 1000)
    assert took < 3


def test_while_one_waits_for_its_next_attempt_its_worker_does_another(shop: str, tmp_path: Path) -> None:
    other = make_file(tmp_path / "other.sqlite")
    ended: list[str] = []

    def prove(session: Any, step: Step, note: str) -> Proof:
        ended.append(step.task.ref.database)
        return Proof(True)

    with locked(shop, 0.3):
        outcomes = carry_out(Files(), purge(shop), purge(other), jobs=1, prove=prove)
    assert [o.status for o in outcomes] == ["done", "done"]
    assert ended == [other, shop]


def test_a_failed_step_after_committed_bites_says_that_it_changed_something(shop: str) -> None:
    db = sqlite3.connect(shop)
    db.execute("CREATE TRIGGER no BEFORE DELETE ON orders WHEN old.id = 250 BEGIN SELECT raise(ABORT, 'kept'); END")
    db.close()

    class Strict(Files):
        def _delete(self, session: Any, task: Purge, cursor: str | None) -> Any:
            try:
                yield from super()._delete(session, task, cursor)
            except sqlite3.IntegrityError as error:
                raise Refused(str(error)) from error

    step = Step(anything(Purge(Ref(shop, ("orders",)), Pace(100, 0.0))), "old")
    outcome = the(carry_out(Strict(), step))
    assert (outcome.status, outcome.changed, outcome.actual.rows) == ("failed", True, 200)
    assert outcome.error == "kept"
    assert count(shop) == 800


def test_an_unexpected_error_takes_no_other_step_along(shop: str, tmp_path: Path) -> None:
    other = make_file(tmp_path / "other.sqlite")

    class Broken(Files):
        def carry_out(self, session: Any, task: Any, server: Any, cursor: str | None) -> Any:
            if session.database == shop:
                raise ZeroDivisionError("of ours")
            return super().carry_out(session, task, server, cursor)

    bad, good = carry_out(Broken(), purge(shop), purge(other))
    assert (bad.status, bad.error, bad.changed) == ("failed", "ZeroDivisionError: of ours", False)
    assert good.status == "done"


def test_a_session_that_cannot_be_opened_is_tried_again(shop: str) -> None:
    class Crowded(Files):
        refusals = 2

        @contextmanager
        def session(self, database: str) -> Iterator[Any]:
            if self.refusals:
                self.refusals -= 1
                raise CannotConnect("too many clients")
            with super().session(database) as session:
                yield session

    outcome = the(carry_out(Crowded(), purge(shop)))
    assert (outcome.status, outcome.attempts) == ("done", 3)


def test_an_error_while_the_session_closes_does_not_undo_what_was_done(shop: str) -> None:
    class Rude(Files):
        @contextmanager
        def session(self, database: str) -> Iterator[Any]:
            with super().session(database) as session:
                yield session
            raise OSError("broken pipe")

    assert the(carry_out(Rude(), purge(shop))).status == "done"


def test_an_act_that_is_halted_cleans_up_while_its_session_is_open(shop: str) -> None:
    said: list[str] = []

    class Keeping(Files):
        def _vacuum(self, session: Any, task: Vacuum, cursor: str | None) -> Any:
            try:
                yield Tick(cursor="1")
                said.append("went on")
            finally:
                said.append(str(session.execute("SELECT 'cleaned'").fetchone()[0]))

        def carry_out(self, session: Any, task: Any, server: Any, cursor: str | None) -> Any:
            self.kept = super().carry_out(session, task, server, cursor)  # so that no garbage collector closes it
            return self.kept

    engine = Keeping()
    engine.readings = [1.0, 9.0]
    outcome = the(carry_out(engine, Step(Vacuum(Ref(shop)), "bloat", limits=(limit("skip"),))))
    assert (outcome.status, outcome.changed, said) == ("deferred", False, ["cleaned"])


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reading", "word"), [(9.0, "9.00 s"), (None, "unknown")])
def test_a_limit_skips_and_says_why(shop: str, reading: float | None, word: str) -> None:
    engine = Files()
    engine.readings = [reading]
    outcome = the(carry_out(engine, purge(shop, limits=(limit("skip", gauge="oldest_snapshot"),))))
    assert (outcome.status, outcome.changed, count(shop)) == ("skipped", False, 1000)
    assert "oldest snapshot" in outcome.error
    assert word in outcome.error
    assert "5.00 s" in outcome.error


def test_a_limit_is_waited_for(shop: str) -> None:
    engine = Files()
    engine.readings = [9.0, None, 9.0, 1.0]
    assert the(carry_out(engine, purge(shop, limits=(limit("wait"),)))).status == "done"
    assert count(shop) == 0


def test_a_wait_that_outlasts_the_budget_defers(shop: str) -> None:
    engine = Files()
    engine.readings = [9.0]
    began = time.monotonic()
    outcome = the(carry_out(engine, purge(shop, limits=(limit("wait"),)), time_budget=0.5))
    assert 0.4 < time.monotonic() - began < 10
    assert (outcome.status, outcome.changed) == ("deferred", False)
    assert "the lag of the replicas is 9.00 s" in outcome.error


def test_limits_hold_between_bites(shop: str) -> None:
    engine = Files()
    engine.readings = [1.0, 1.0, 9.0]
    outcome = the(carry_out(engine, purge(shop, limits=(limit("skip"),))))
    assert (outcome.status, outcome.changed) == ("deferred", True)
    assert 0 < count(shop) < 1000


# ---- proof -----------------------------------------------------------------------------------------------------------


def test_the_proof_is_in_the_outcome(shop: str) -> None:
    finding = Finding(2, "not_proven", Ref(shop), "still due")
    outcome = the(carry_out(Files(), purge(shop, size=9000), prove=lambda s, t, n: Proof(False, 1000, (finding,))))
    assert (outcome.status, outcome.proven, outcome.bytes_before, outcome.bytes_after) == ("done", False, 9000, 1000)
    assert outcome.actual.bytes == 8000


def test_a_proof_that_fails_leaves_the_step_done(shop: str) -> None:
    def prove(session: Any, step: Step, note: str) -> Proof:
        raise Refused("permission denied")

    outcome = the(carry_out(Files(), purge(shop), prove=prove))
    assert (outcome.status, outcome.proven, outcome.changed) == ("done", None, True)
    assert "permission denied" in outcome.error


# ---- projected steps -------------------------------------------------------------------------------------------------


def test_a_projected_step_is_asked_for_again(shop: str) -> None:
    asked: list[Step] = []

    def replan(session: Any, step: Step) -> Step | None:
        asked.append(step)
        return None

    cause, effect = (
        purge(shop),
        Step(Vacuum(Ref(shop)), "projected", projected=True, after=(purge(shop).key,)),
    )
    first, second = carry_out(Files(), cause, effect, replan=replan)
    assert (first.status, second.status, second.error) == ("done", "skipped", "no longer due")
    assert asked == [effect]


def test_a_projected_step_takes_the_new_numbers(shop: str) -> None:
    step = Step(Vacuum(Ref(shop)), "projected", projected=True)
    outcome = the(carry_out(Files(), step, replan=lambda s, old: old._replace(reason="measured", size=77)))
    assert (outcome.status, outcome.step.reason, outcome.bytes_before) == ("done", "measured", 77)


# ---- stops, cursors and the journal ----------------------------------------------------------------------------------


def test_the_hard_stop_cancels_cleanly_and_defers(shop: str) -> None:
    grind = Step(anything(Grind(Ref(shop, ("orders",)))), "endless")
    began = time.monotonic()
    outcome = the(carry_out(Files(), grind, time_budget=0.5))
    assert time.monotonic() - began < 15
    assert (outcome.status, outcome.changed, outcome.error) == ("deferred", False, "the time budget ended while it ran")
    assert count(shop) == 1000


def test_a_stop_defers_and_the_next_run_goes_on_from_the_cursor(shop: str, journal: Journal) -> None:
    control = Control(Execution())
    stopping = Files()
    stopping.on_bite = lambda number: control.stop("stopped by SIGTERM") if number == 3 else None
    step = Step(anything(Purge(Ref(shop, ("orders",)), Pace(100, 0.0))), "old")
    first = the(carry_out(stopping, step, control=control, journal=journal))
    assert (first.status, first.changed, first.actual.rows) == ("deferred", True, 300)
    assert first.error == "stopped by SIGTERM"
    journal.shut()
    with open_journal(str(journal.path), SERVER.address, readonly=False) as again:
        assert again.overdue() == {step.key}
        again.begin_run("db_cleanup")
        engine = Files()
        second = the(carry_out(engine, step, journal=again))
        assert (second.status, second.actual.rows, engine.cursors) == ("done", 700, ["300"])
    with open_journal(str(journal.path), SERVER.address, readonly=True) as after:
        assert after.overdue() == frozenset()
        assert after.cursor(step) is None


def test_what_a_step_owns_is_in_the_journal_before_it_goes_on(shop: str, journal: Journal) -> None:
    seen: list[Any] = []

    class Watching(Files):
        def _vacuum(self, session: Any, task: Vacuum, cursor: str | None) -> Any:
            yield Tick(owns="_ccnew")
            with open_journal(str(journal.path), SERVER.address, readonly=True) as other:
                seen.append(dict(other.owned()))

    step = Step(Vacuum(Ref(shop)), "bloat")
    assert the(carry_out(Watching(), step, journal=journal)).status == "done"
    assert seen == [{step.key: ("_ccnew",)}]
    with open_journal(str(journal.path), SERVER.address, readonly=True) as after:
        assert after.owned() == {}
