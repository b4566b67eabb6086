# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One attempt at one step, in a worker's thread: session, limits, ticks, proof. Which step when is the runner's."""

from __future__ import annotations

import threading
import time
import typing as t

from .._errors import Busy, CannotConnect, DbFault, Gone, Refused, Vanished
from .._protocols import Engine, Session
from .._records import Amount, Finding, Outcome, Pace, Proof, Server, Step, Tick, Work
from .._tuples import NamedTuple
from .._units import say_seconds
from .control import Control
from .limits import reading

FIRST_PACE = Pace(1000, 0.2)
MOST_ROWS = 1_000_000
MUCH = 0.7  # of the rows: so much smaller a bite has to be shorter, by half of that at least
POLL_FIRST, POLL_MOST = 0.05, 1.0  # seconds between two readings of a limit that is waited for

Prove = t.Callable[[t.Any, Step, str], Proof]
Replan = t.Callable[[t.Any, Step], t.Optional[Step]]
Tell = t.Callable[["Job", Tick, t.Optional[threading.Event]], None]


class Verdict(NamedTuple):
    """How an attempt ended: an outcome's status, or `again`."""

    status: str
    error: str = ""
    proof: Proof | None = None


NONE_YET = Verdict("failed", "its session ended without a word")


class Job:
    """A step on its way through its attempts. The main thread has it between two attempts, a worker during one."""

    def __init__(self, place: int, step: Step, cursor: str | None) -> None:
        self.place, self.step, self.cursor = place, step, cursor
        self.key = step.key
        self.done = Amount()
        self.committed = False  # a bite with something in it was committed
        self.attempts = 0
        self.seconds = 0.0  # of work and of rests between bites, without the waits for limits
        self.note = ""  # for the next step of its kind on its object
        self.found: dict[Finding, None] = {}  # what its work came upon, in whichever attempt
        self.error = ""  # of the last attempt
        self.not_before = 0.0  # time.monotonic() of the next attempt
        self.tried = (0, 0.0)  # rows and seconds of a bite that later ones are compared with
        self.pace: Pace = getattr(step.task, "pace", None) or FIRST_PACE
        self.session: Session | None = None  # while one is open: the main thread may cancel it
        self.cancels = 0
        self.cancel_again = 0.0
        self.give_up = 0.0  # time.monotonic() when a session that does not end is left to itself
        self.proven_later = False  # once what stands after it has ended, too: see proving.py
        self.proving = False  # it is done, and only its proof is missing
        self.lost = ""  # why its last session was lost, in words


class Worker:
    """Carries out single attempts; one for all threads, since it keeps nothing of its own."""

    def __init__(
        self,
        engine: Engine,
        server: Server,
        control: Control,
        *,
        prove: Prove | None,
        replan: Replan | None,
        tell: Tell,
    ) -> None:
        self.engine, self.server, self.control = engine, server, control
        self.prove, self.replan, self.tell = prove, replan, tell

    def attempt(self, job: Job) -> Verdict:
        """Never raises what a step may raise: a failing step must not take the others along."""
        verdict = NONE_YET
        try:
            # Some work is done in another database than it is about: one that is only to come to be.
            home, task = getattr(self.engine, "home", None), job.step.task
            with self.engine.session(home(task) if home else task.ref.database) as session:
                job.session = session
                try:
                    verdict = self._in_session(job, session)
                finally:
                    job.session = None
        except Exception as error:
            # What goes wrong while a session ends does not change how the step ended.
            verdict = self._judge(job, error) if verdict is NONE_YET else verdict
        return verdict

    def _judge(self, job: Job, error: Exception) -> Verdict:
        said = str(error) if isinstance(error, DbFault) else f"{type(error).__name__}: {error}"
        if isinstance(error, Vanished):
            return Verdict("skipped", said)
        why = self.control.ending()
        if why and not isinstance(error, Refused):
            return Verdict("deferred", why if isinstance(error, DbFault) else f"{why} ({said})")
        if isinstance(error, Gone):
            job.lost = said
        elif isinstance(error, CannotConnect) and job.lost:
            said = f"{job.lost}; since then: {said}"  # a server that has died lets nobody in who asks why
        if isinstance(error, (Busy, Gone, CannotConnect)):
            job.pace = job.pace._replace(rows=max(1, job.pace.rows // 2))
            return Verdict("again", said)
        return Verdict("failed", said)

    def _in_session(self, job: Job, session: Session) -> Verdict:
        if job.proving:
            return self._proven(job, session)
        if job.step.projected and self.replan and job.attempts == 1:
            again = self.replan(session, job.step)
            if again is None or again.key != job.key:
                return Verdict("skipped", "no longer due")
            if not again.expected.seconds:
                again = again._replace(expected=again.expected._replace(seconds=job.step.expected.seconds))
            job.step = again
        barred = self._barred(job, session)
        if barred:
            return barred
        why = self.control.ending()
        if why:
            return Verdict("deferred", why)
        halted = self._act(job, session)
        return halted or (Verdict("done") if job.proven_later else self._proven(job, session))

    def _act(self, job: Job, session: Session) -> Verdict | None:
        """Drives the act tick by tick; a verdict when it was halted before its end."""
        act = self.engine.carry_out(session, _paced(job), self.server, job.cursor)
        began = time.monotonic()
        try:
            tick = next(act, None)
            while tick is not None:
                self._take(job, tick)
                self._rest(job.pace, tick)
                job.seconds += time.monotonic() - began
                began = 0.0
                halted = self._halted(job, session, tick)
                began = time.monotonic()
                if halted:
                    return halted
                job.pace = _adapted(job, tick)
                tick = _onward(act, job.pace)
        finally:
            # Rollback and removal of what is half-done live in the act's own `finally`.
            act.close()
            job.seconds += time.monotonic() - began if began else 0.0
        return None

    def _rest(self, pace: Pace, tick: Tick) -> None:
        """In proportion to the bite: one that was slow, since others were at work or held locks, is followed by more.

        At cursors only: all is committed there, and nothing locked.
        """
        if tick.cursor is not None and pace.duty < 1 and not self.control.spent():
            self.control.sleep(tick.amount.seconds * (1 / pace.duty - 1))

    def _take(self, job: Job, tick: Tick) -> None:
        job.done = job.done.plus(tick.amount)
        if tick.cursor is not None:
            job.cursor = tick.cursor
            job.committed = job.committed or tick.touched or any(tick.amount._replace(seconds=0.0))
        job.note = tick.note or job.note
        if tick.found:
            job.found[tick.found] = None
        if not tick.owns:
            self.tell(job, tick, None)
            return
        written = threading.Event()
        self.tell(job, tick, written)
        written.wait()

    def _halted(self, job: Job, session: Session, tick: Tick) -> Verdict | None:
        """Whether the step has to end here.

        Limits are read at cursors only: there all is committed and the session idle. In between, pausing would hold
        locks, the session may be busy in the act, and space that the act itself took would be counted against it.
        """
        why = self.control.ending()
        if not why and tick.cursor is not None and self.control.spent():
            why = "the time budget ended"
        if why:
            return Verdict("deferred", why)
        if tick.cursor is None:
            return None
        barred = self._barred(job, session)
        return barred and barred._replace(status="deferred")

    def _barred(self, job: Job, session: Session) -> Verdict | None:
        """None when every limit holds, now or after a wait; unknown is too much."""
        for limit in job.step.limits:
            pause, began = POLL_FIRST, time.monotonic()
            while True:
                said = reading(self.engine, session, job.step, limit)
                if not said:
                    break
                if limit.otherwise == "skip":
                    return Verdict("skipped", said)
                why = self.control.stopped() or (self.control.spent() and "the time budget ended")
                if why:
                    return Verdict("deferred", f"{said}; waited {say_seconds(time.monotonic() - began)}: {why}")
                self.control.sleep(pause)
                pause = min(POLL_MOST, pause * 2)
        return None

    def _proven(self, job: Job, session: Session) -> Verdict:
        """Done is done: what goes wrong while it is proven is told, and does not undo it."""
        if self.prove is None:
            return Verdict("done")
        try:
            return Verdict("done", proof=self.prove(session, job.step, job.note))
        except Exception as error:
            said = str(error) if isinstance(error, DbFault) else f"{type(error).__name__}: {error}"
            return Verdict("done", f"done, but not measured again: {said}")


def outcome_of(job: Job, verdict: Verdict, size: int) -> Outcome:
    """What was done to an object of `size` bytes; freed is what the act reported, else the difference of the sizes."""
    done, proof = verdict.status == "done", verdict.proof
    began = done or job.seconds > 0
    before = size if began else None
    after = proof.bytes_after if proof else None
    actual = job.done._replace(seconds=job.seconds)
    if done and not actual.bytes and after is not None:
        actual = actual._replace(bytes=max(0, size - after))
    return Outcome(
        step=job.step,
        status=verdict.status,
        actual=actual,
        bytes_before=before,
        bytes_after=after,
        changed=job.committed or (done and not _took_nothing(job)),
        proven=proof.proven if proof else None,
        error=verdict.error,
        attempts=max(1, job.attempts),
        rows_left=proof.rows_left if proof else None,
    )


def _took_nothing(job: Job) -> bool:
    """Whether all that the step does is to take rows, and none left: others were there first, or a trigger kept them.

    One that archives into a table may have made that one.
    """
    task: t.Any = job.step.task
    bites = bool(getattr(task, "pace", None)) and getattr(task, "to", None) is None
    return bites and not any(job.done._replace(seconds=0.0))


def _paced(job: Job) -> t.Any:
    """The task; where it takes bites, with a pace that earlier attempts taught, and without the rows that they took."""
    task: t.Any = job.step.task
    if not getattr(task, "pace", None):
        return task
    if getattr(task, "rows", None) is not None:
        task = task._replace(rows=max(0, task.rows - job.done.rows))
    return task._replace(pace=job.pace)


def _onward(act: Work, pace: Pace) -> Tick | None:
    try:
        return act.send(pace)
    except StopIteration:
        return None


def _adapted(job: Job, tick: Tick) -> Pace:
    """Larger or smaller bites, at most twice or half as large, so that one takes `pace.seconds`.

    Its commit is not counted, and what much smaller ones do not make shorter is not made smaller still: where a disk, a
    standby or a busy machine takes its time for each of them, bites would shrink to nothing, and the purge never end.
    """
    pace, seconds = job.pace, tick.amount.seconds - tick.waited
    if tick.cursor is None or pace.seconds <= 0 or seconds <= 0:
        return pace
    rows, before = job.tried
    part = pace.rows / rows if rows else 1.0
    if part >= 1:
        job.tried = (pace.rows, seconds)
    elif part <= MUCH:
        if seconds > before * (1 + part) / 2 and seconds > pace.seconds:
            return pace._replace(rows=rows)
        job.tried = (pace.rows, seconds)
    factor = min(2.0, max(0.5, pace.seconds / seconds))
    # Never beyond what a bite may have: what is not taken says nothing of its time.
    most = min(MOST_ROWS, getattr(job.step.task, "most", MOST_ROWS))
    return pace._replace(rows=min(most, max(1, int(pace.rows * factor))))
