# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run would do with a plan, if every step took exactly what is predicted. Pure: check mode's answer."""

from __future__ import annotations

import typing as t

from .._records import Key, Outcome, Step
from .._tasks import lane_of
from .._tuples import NamedTuple
from .._units import say_seconds


class _Busy(NamedTuple):
    ends: float
    lane: t.Hashable
    key: Key


def foresee(steps: t.Sequence[Step], *, jobs: int, budget: float | None, one_writer: bool) -> list[Outcome]:
    """An outcome for every step, in the order of the plan: planned, skipped, failed, or deferred (budget: seconds)."""
    run = _Run(steps, jobs, budget, one_writer)
    return run.outcomes()


class _Run:
    def __init__(self, steps: t.Sequence[Step], jobs: int, budget: float | None, one_writer: bool) -> None:
        self.steps, self.jobs, self.budget, self.one_writer = steps, jobs, budget, one_writer
        self.now = 0.0
        self.waiting = dict(enumerate(steps))
        self.busy: list[_Busy] = []
        self.found: dict[int, Outcome] = {}
        self.lost: dict[Key, str] = {}

    def outcomes(self) -> list[Outcome]:
        while self.waiting:
            self._start()
            if self.busy:
                self.now = min(b.ends for b in self.busy)
                self.busy = [b for b in self.busy if b.ends > self.now]
            elif self.waiting:  # steps that stand after each other: the runner says so
                place, step = next(iter(self.waiting.items()))
                self._decide(place, step, "skipped", "it comes after a step that comes after it")
        return [self.found[place] for place in range(len(self.steps))]

    def _start(self) -> None:
        for place, step in list(self.waiting.items()):
            lane = self._lane(step)
            waits = {self.steps[p].key for p in self.waiting if p != place} | {b.key for b in self.busy}
            lost = next((self.lost[k] for k in step.after if k in self.lost), "")
            if step.skip or lost:
                self._decide(place, step, step.unstarted if step.skip else "skipped", step.skip or lost)
            elif not waits & set(step.after) and lane not in {b.lane for b in self.busy} and len(self.busy) < self.jobs:
                self._try(place, step, lane)

    def _try(self, place: int, step: Step, lane: t.Hashable) -> None:
        seconds = step.expected.seconds
        left = None if self.budget is None else max(0.0, self.budget - self.now)
        bites = getattr(step.task, "pace", None)  # stops between two of them without loss
        if left is not None and (left <= 0 or (seconds > left and not bites)):
            expected, rest = say_seconds(seconds), say_seconds(left)
            why = f"it is expected to take {expected}, and {rest} of the time budget would be left"
            self._decide(place, step, "deferred", why)
            return
        self._decide(place, step, "planned", "")
        self.busy.append(_Busy(self.now + max(seconds, 1e-6), lane, step.key))

    def _decide(self, place: int, step: Step, status: str, why: str) -> None:
        del self.waiting[place]
        if status != "planned":
            would = "fail" if status == "failed" else f"be {status}"
            self.lost[step.key] = f"it comes after {step.task.kind} of {step.task.ref}, which would {would}"
        self.found[place] = Outcome(step, status, bytes_before=step.size, error=why)

    def _lane(self, step: Step) -> t.Hashable:
        ref = lane_of(step.task)
        return ref.database if self.one_writer else (ref.database, ref.path)
