# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Steps that have ended well and are measured again later: which of them, and when. How is worker.py's.

Looking for rows right after they were deleted passes over each of them once more: PostgreSQL keeps dead rows and their
index entries until a vacuum. Where one comes anyway, the proof waits for it, and finds an index without them.
"""

from __future__ import annotations

import typing as t

from .._records import Outcome
from .worker import Job, Verdict, outcome_of

UNPROVEN = "done, but not measured again: "


class Unproven:
    """What was carried out and has no proof yet."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def put(self, job: Job) -> None:
        job.proving = True
        self._jobs[job.place] = job

    def ready(self, others: t.Iterable[Job]) -> list[Job]:
        """Those that no other step stands after any more."""
        awaited = {key for job in others if not job.proving for key in job.step.after}
        return [job for job in self._jobs.values() if job.key not in awaited]

    def take(self, job: Job) -> None:
        self._jobs.pop(job.place, None)


def waits_for_vacuum(job: Job, others: t.Iterable[Job]) -> bool:
    """Whether a step that this one makes due changes what its proof would have to look at."""
    return any(
        other.step.projected and job.key in other.step.after and other.step.task.ref == job.step.task.ref
        for other in others
    )


def amended(job: Job, outcome: Outcome, verdict: Verdict) -> Outcome:
    """The outcome of a step that was done, with what the second measurement says; done it stays."""
    error = verdict.error
    if verdict.proof is None and not error.startswith(UNPROVEN):
        error = UNPROVEN + error
    new = outcome_of(job, Verdict("done", error, verdict.proof), outcome.bytes_before or 0)
    return new._replace(bytes_before=outcome.bytes_before, attempts=outcome.attempts)
