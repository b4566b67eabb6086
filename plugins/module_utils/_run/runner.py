# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which step runs when: ranks, lanes, `after`, the budget, retries, stops. What happens inside a step is worker.py."""

from __future__ import annotations

import queue
import random
import threading
import time
import typing as t

from .._protocols import Engine
from .._records import Execution, Finding, Key, Outcome, Plan, Ref, Server, Step, Tick
from .._tasks import lane_of
from .._units import say_seconds
from .control import POLL_SECONDS, Control
from .journal import Journal
from .observer import Observer
from .progress import Progress
from .proving import Unproven, amended, waits_for_vacuum
from .worker import Job, Prove, Replan, Verdict, Worker, outcome_of

BACKOFF_SECONDS = 0.2  # before the second attempt; doubled before each further one
# Seconds between cancels of a session that does not end. The first may fall between two statements and be lost; the
# later ones leave time for the act's own clean-up, which they could hit.
CANCEL_AGAIN = (1.0, 5.0, 15.0, 60.0)
GIVE_UP = 120.0  # seconds after which a session that does not end is left to itself: its server answers nobody

Message = tuple[Job, t.Union[Verdict, Tick], t.Optional[threading.Event]]


class Runner:
    """Carries a plan out. It never raises what a step raises, and returns an outcome for every step."""

    def __init__(
        self,
        engine: Engine,
        server: Server,
        journal: Journal,
        *,
        execution: Execution,
        control: Control,
        prove: Prove | None = None,
        replan: Replan | None = None,
        progress: Progress | None = None,
        warn: t.Callable[[str], None] | None = None,
    ) -> None:
        self.engine, self.server, self.journal = engine, server, journal
        self.execution, self.control = execution, control
        self.findings: list[Finding] = []  # what the proofs found
        self.abandoned = False  # a session was left to itself: closing it might wait for ever
        self._warn = warn or (lambda text: None)
        self._notes: list[str] = []  # warnings from other threads
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._worker = Worker(engine, server, control, prove=prove, replan=replan, tell=self._tell)
        self._waiting: dict[int, Job] = {}  # in plan order, which is the order of rank
        self._lanes: dict[t.Hashable, int] = {}  # how many wait in each lane
        self._running: dict[int, Job] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._sizes: dict[Ref, int] = {}  # what a step measured anew is what the next step of that object begins with
        self._undecided: dict[Key, int] = {}  # how many steps of this key have no outcome yet
        self._lost: dict[Key, Outcome] = {}  # what those that stand after it will not get
        self._unproven = Unproven()
        self.progress = progress or Progress(None, {})
        self._observer = Observer(engine, server, self.progress)

    def run(self, plan: Plan) -> list[Outcome]:
        """The outcomes in plan order. The plan is taken in its own order: forecast() gives it."""
        for place, step in enumerate(plan.steps):
            self._wait(Job(place, step, self.journal.cursor(step)))
            self._undecided[step.key] = self._undecided.get(step.key, 0) + 1
        self.progress.planned(len(plan.steps))
        try:
            changed = True
            while self._waiting or self._running or self._unproven:
                if changed:
                    self._start_what_can()
                changed = self._listen(self._patience())
                self._cancel_if_ending()
                self._observer.look({place: job.session for place, job in self._running.items()})
                self.progress.beat()
        finally:
            self._abandon()
            self.abandoned = self._observer.close() or self.abandoned
            for note in dict.fromkeys(self._notes):
                self._warn(note)
        return [self._outcomes[place] for place in range(len(plan.steps))]

    # ---- starting ----------------------------------------------------------------------------------------------------

    def _start_what_can(self) -> None:
        """Starts or decides every step that can be, until all workers are busy or nothing changes any more."""
        self._prove_what_can()
        decided = True
        while decided:
            decided = False
            lanes = {self._lane(job.step) for job in self._running.values()}
            for job in list(self._waiting.values()):
                if not (self._room(lanes) or self.control.stopped()):
                    return
                early = self._early(job)
                if early:
                    self._decide(job, early)
                    decided = True
                elif self._ready(job, lanes):
                    lanes.add(self._lane(job.step))
                    self._start(job)
            if not decided and self._waiting and not self._running and not self._can_move():
                self._cut_circle()
                decided = True
        self._prove_what_can()

    def _prove_what_can(self) -> None:
        """Before other steps: what is done is told as proven, whatever becomes of the rest."""
        for job in self._unproven.ready([*self._waiting.values(), *self._running.values()]):
            why = self.control.ending()
            if why:
                self._amend(job, Verdict("done", why))
            elif len(self._running) < max(1, self.execution.jobs):
                self._unproven.take(job)
                self._begin(job)

    def _wait(self, job: Job) -> None:
        self._waiting[job.place] = job
        lane = self._lane(job.step)
        self._lanes[lane] = self._lanes.get(lane, 0) + 1

    def _wait_no_more(self, job: Job) -> None:
        if self._waiting.pop(job.place, None):
            lane = self._lane(job.step)
            self._lanes[lane] -= 1
            if not self._lanes[lane]:
                del self._lanes[lane]

    def _room(self, lanes: t.AbstractSet[t.Hashable]) -> bool:
        """Whether a worker is free, and a lane where something waits: thousands may wait in the one lane of a file."""
        free = len(self._lanes) - sum(lane in self._lanes for lane in lanes)
        return free > 0 and len(self._running) < max(1, self.execution.jobs)

    def _early(self, job: Job) -> Verdict | None:
        """What is known of a step without starting it."""
        step = job.step
        if step.skip:
            return Verdict(step.unstarted, step.skip)
        for key in step.after:
            lost = self._lost.get(key)
            if lost:
                verb = "failed" if lost.status == "failed" else f"was {lost.status}"
                return Verdict("skipped", f"it comes after {key[0]} of {key[1]}, which {verb}: {lost.error}")
        stopped = self.control.stopped()
        if stopped:
            return Verdict("deferred", stopped)
        return None if any(self._undecided.get(key) for key in step.after) else self._no_time(job)

    def _no_time(self, job: Job) -> Verdict | None:
        """A step whose predicted seconds do not fit is not started: cut off, its work would be lost.

        One that goes on from a cursor, or takes bites (its task has a pace), stops between two bites without loss,
        and needs no more than something left.
        """
        left = self.control.left()
        if left is None:
            return None
        seconds = job.step.expected.seconds
        bites = job.cursor is not None or getattr(job.step.task, "pace", None)
        if left > 0 and (bites or seconds <= left):
            return None
        if left <= 0:
            said = "the time budget ended before it could start"
        else:
            said = f"it is expected to take {say_seconds(seconds)}, and {say_seconds(left)} of the time budget are left"
        return Verdict("deferred", f"{job.error}; {said}" if job.error else said)

    def _ready(self, job: Job, lanes: t.AbstractSet[t.Hashable]) -> bool:
        return (
            job.not_before <= time.monotonic()
            and self._lane(job.step) not in lanes
            and not any(self._undecided.get(key) for key in job.step.after)
        )

    def _lane(self, step: Step) -> t.Hashable:
        """Two steps in one lane never run at once."""
        ref = lane_of(step.task)
        return ref.database if self.engine.one_writer else (ref.database, ref.path)

    def _can_move(self) -> bool:
        """Whether some waiting step will start by and by: one that waits only for its next attempt."""
        return any(not any(self._undecided.get(key) for key in job.step.after) for job in self._waiting.values())

    def _cut_circle(self) -> None:
        job = next(iter(self._waiting.values()))
        names = ", ".join(f"{kind} of {ref}" for kind, ref in job.step.after if self._undecided.get((kind, ref)))
        self._decide(job, Verdict("skipped", f"it comes after {names}, and that after it"))

    def _start(self, job: Job) -> None:
        self._wait_no_more(job)
        job.attempts += 1
        job.proven_later = self._worker.prove is not None and waits_for_vacuum(job, self._waiting.values())
        if job.attempts == 1:
            self.journal.start(job.step, self._words(job.step))
        self.progress.start(job.place, job.step, job.done)
        self._begin(job)

    def _begin(self, job: Job) -> None:
        self._running[job.place] = job
        job.cancels, job.cancel_again, job.give_up = 0, 0.0, 0.0
        thread = threading.Thread(target=self._thread, args=(job,), name=f"dbfleet step {job.place}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads on this host
            self._inbox.put((job, Verdict("again", f"no thread: {error}"), None))

    def _words(self, step: Step) -> t.Sequence[str]:
        try:
            return self.engine.spell(step.task, self.server)
        except Exception as error:  # the act will say it better
            return [f"{type(error).__name__}: {error}"]

    def _thread(self, job: Job) -> None:
        verdict = Verdict("failed", "its thread ended early")
        try:
            verdict = self._worker.attempt(job)
        finally:
            self._inbox.put((job, verdict, None))

    def _tell(self, job: Job, tick: Tick, written: threading.Event | None) -> None:
        self._inbox.put((job, tick, written))

    # ---- listening ---------------------------------------------------------------------------------------------------

    def _patience(self) -> float:
        """Seconds until something may have to be done without any message."""
        now = time.monotonic()
        retries = [job.not_before - now for job in self._waiting.values() if job.not_before > now]
        left = self.control.left() or POLL_SECONDS
        return max(0.001, min([POLL_SECONDS, left, *retries]))

    def _listen(self, patience: float) -> bool:
        """Takes every message there is; whether anything may have changed for those that wait.

        The journal is written here, in the main thread.
        """
        if not (self._waiting or self._running):
            return bool(self._unproven)
        changed = False
        try:
            message = self._inbox.get(timeout=patience)
            while True:
                changed = changed or isinstance(message[1], Verdict)
                self._hear(*message)
                message = self._inbox.get_nowait()
        except queue.Empty:
            return changed or self._moment_came()

    def _moment_came(self) -> bool:
        """Whether time alone decides something: a stop, the end of the budget, a next attempt."""
        now = time.monotonic()
        due = any(0 < job.not_before <= now for job in self._waiting.values())
        return due or bool(self.control.stopped()) or self.control.spent()

    def _hear(self, job: Job, said: Verdict | Tick, written: threading.Event | None) -> None:
        if job.place in self._outcomes and (not job.proving or job.place not in self._running):  # given up before
            if written:
                written.set()
        elif isinstance(said, Tick):
            self.progress.tick(job.place, said.amount)
            try:
                self.journal.tick(job.step, said)
            finally:
                if written:
                    written.set()
        elif job.proving:
            self._amend(job, said)
        elif said.status == "again":
            self._again(job, said)
        else:
            self._decide(job, said)

    def _again(self, job: Job, verdict: Verdict) -> None:
        """Back among the waiting: meanwhile its worker takes another step."""
        job.error = verdict.error
        if job.attempts > self.execution.retries:
            tries = f" (tried {job.attempts} times)" if job.attempts > 1 else ""
            self._decide(job, Verdict("failed", f"{verdict.error}{tries}"))
            return
        del self._running[job.place]
        self.progress.end(job.place)
        wait = BACKOFF_SECONDS * 2 ** (job.attempts - 1) * random.uniform(0.75, 1.25)
        job.not_before = time.monotonic() + wait
        self._wait(job)
        # Before others of lower rank: dictionaries keep the order of insertion.
        self._waiting = dict(sorted(self._waiting.items()))

    def _decide(self, job: Job, verdict: Verdict) -> None:
        self._running.pop(job.place, None)
        self._wait_no_more(job)
        ref = job.step.task.ref
        outcome = outcome_of(job, verdict, self._sizes.get(ref, job.step.size))
        if outcome.bytes_after is not None:
            self._sizes[ref] = outcome.bytes_after
        self._outcomes[job.place] = outcome
        self._undecided[job.key] -= 1
        if outcome.status != "done":
            self._lost[job.key] = outcome
        self.findings.extend(job.found)
        if verdict.proof:
            self.findings.extend(verdict.proof.findings)
        self.progress.end(job.place, outcome.status)
        self.journal.close(outcome)
        if job.proven_later and outcome.status == "done":
            self._unproven.put(job)

    def _amend(self, job: Job, verdict: Verdict) -> None:
        """A step that is done has its proof, or will have none."""
        self._running.pop(job.place, None)
        self._unproven.take(job)
        outcome = amended(job, self._outcomes[job.place], verdict)
        self._outcomes[job.place] = outcome
        if verdict.proof:
            self.findings.extend(verdict.proof.findings)
        self.journal.amend(outcome)

    # ---- stopping ----------------------------------------------------------------------------------------------------

    def _cancel_if_ending(self) -> None:
        why = self.control.ending() if self._running else ""
        for job in list(self._running.values()) if why else ():
            session, now = job.session, time.monotonic()
            job.give_up = job.give_up or now + GIVE_UP
            if now > job.give_up:
                self._leave(job, why)
            elif session is not None and now >= job.cancel_again:
                job.cancel_again = now + CANCEL_AGAIN[min(job.cancels, len(CANCEL_AGAIN) - 1)]
                job.cancels += 1
                # In a thread: a cancel opens a connection, which may hang where the server does.
                threading.Thread(target=self._cancel, args=(session,), daemon=True).start()

    def _leave(self, job: Job, why: str) -> None:
        """Its thread stays in a call that does not return; what it may still say is not heard."""
        self.abandoned = True
        said = f"it did not end within {say_seconds(GIVE_UP)} of being cancelled: the server does not answer"
        end = self._amend if job.proving else self._decide
        end(job, Verdict("deferred", f"{why}; {said}"))

    def _cancel(self, session: t.Any) -> None:
        try:
            session.cancel()
        except Exception as error:
            self._notes.append(f"A session could not be cancelled: {error}")

    def _abandon(self) -> None:
        """Only after a fault of our own: nothing may run on behind the caller's back."""
        if self._running:
            self.control.stop("stopped by a fault of the runner")
        while self._running:
            self._cancel_if_ending()
            self._listen(POLL_SECONDS)
