# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module that goes on alone is waited for, and how what it says of itself reads. Knows nothing of Ansible."""

from __future__ import annotations

import json
import shlex
import time
import typing as t
from contextlib import suppress
from functools import partial

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import say_bytes, say_count, say_seconds

Data = dict[str, t.Any]
T = t.TypeVar("T")
MARK = "dbfleet_job"  # what _detached.py says
RUNS, ENDED = "dbfleet: the job runs", "dbfleet: the job has ended"
PAUSES = (1.0, 2.0, 5.0, 10.0)  # seconds between two attempts to reach it; the last one again and again
# How often one question looks whether it has ended, and after how many seconds each time: short jobs are not made long.
LOOKS = ((10, 0.1), (10, 0.2), (6, 0.5), (10, 0.5))
# A process that has the number is the job if it was born then (proc(5): starttime, the 20th field after the name); one
# that nobody has buried yet has ended.
QUESTION = (
    "n=0; alive() {{ kill -0 {pid} 2>/dev/null || return 1;"
    " {{ read -r s < /proc/{pid}/stat; }} 2>/dev/null || return 0;"
    ' set -- ${{s##*) }}; [ "$1" != Z ] && [ "$1" != X ] && {born}; }};'
    " while alive && [ $n -lt {rounds} ]; do sleep {nap} 2>/dev/null || sleep 1; n=$((n+1)); done;"
    " if alive; then echo '{runs}'; cat {progress} 2>/dev/null; else echo '{ended}'; cat {result}; fi; true"
)


class Job(t.NamedTuple):
    """A process on a host, its birth (empty: unknown there), and its files."""

    pid: int
    born: str
    result: str
    progress: str

    def question(self, rounds: int, nap: float) -> str:
        """For a shell: waits for its end, though not for long, then says what there is."""
        return QUESTION.format(
            pid=self.pid,
            born=f'[ "${{20}}" = {self.born} ]' if self.born else "true",
            rounds=rounds,
            nap=nap,
            runs=RUNS,
            ended=ENDED,
            progress=shlex.quote(self.progress),
            result=shlex.quote(self.result),
        )

    def cleaning(self) -> str:
        return f"rm -f {shlex.quote(self.result)} {shlex.quote(self.progress)}"


def job_of(said: str) -> Job | None:
    """The job that a module has said to be, if it has."""
    for each in said.splitlines() if MARK in said else ():
        try:
            facts = json.loads(each)[MARK]
            pid, born = int(facts["pid"]), str(facts["born"])
            if born.isdigit() or not born:
                return Job(pid, born, str(facts["result"]), str(facts["progress"]))
        except (ValueError, LookupError, TypeError):
            continue
    return None


class Follower:
    """Waits for one job. `ask` runs a command for the job's host and user, and raises `lost` when it cannot.

    `every`: seconds between two lines; `patience`: seconds for which the host may be out of reach.
    """

    def __init__(
        self,
        job: Job,
        *,
        ask: t.Callable[[str], str],
        show: t.Callable[[Data | str], None] | None,
        every: float,
        lost: type[Exception],
        patience: float,
        reset: t.Callable[[], object] = lambda: None,
        now: t.Callable[[], float] = time.monotonic,
        sleep: t.Callable[[float], None] = time.sleep,
    ) -> None:
        self._job, self._ask, self._every, self._lost, self._reset = job, ask, every, lost, reset
        self._patience = patience
        self._show = show or (lambda said: None)
        self._now, self._sleep = now, sleep
        self._said: Data = {}  # the last that it has said of itself
        self._shown = now() - every + LOOKS[0][0] * LOOKS[0][1]

    def result(self) -> str:
        """What the module has returned; what it was at, as a module returns it, where it returned nothing."""
        asked = 0
        while True:
            ended, text = self.reaching(partial(self._answer, *LOOKS[min(asked, len(LOOKS) - 1)]))
            if ended:
                break
            self._take(text)
            asked += 1
        found = text if "{" in text else json.dumps(self._killed())
        with suppress(self._lost):  # it is swept away in a week
            self._ask(self._job.cleaning())
        return found

    def _answer(self, rounds: int, nap: float) -> tuple[bool, str]:
        """Whether it has ended, and what there was to read."""
        said = self._ask(self._job.question(rounds, nap))
        for mark in (ENDED, RUNS):
            if mark in said:
                return mark == ENDED, said.partition(mark)[2].strip()
        raise self._lost("the host's shell did not answer the question")

    def reaching(self, work: t.Callable[[], T]) -> T:
        """What `work` returns, however often the host must be reached anew. Raises what it has raised last."""
        since, tried = -1.0, 0
        while True:
            try:
                return work()
            except self._lost as error:
                since = since if tried else self._now()
                if tried and self._now() - since >= self._patience:
                    raise self._lost(f"{error}. {self._goes_on()}") from error
                self._show(f"cannot be reached, and goes on as process {self._job.pid}: trying again")
            self._sleep(PAUSES[min(tried, len(PAUSES) - 1)])
            tried += 1
            with suppress(Exception):
                self._reset()  # what is left of the old connection

    def _goes_on(self) -> str:
        return (
            f"It goes on there as process {self._job.pid}, and its result will be in {self._job.result}."
            " Run it again with if_running: wait, or ask it to end by the playbook stop"
        )

    def _take(self, text: str) -> None:
        try:
            said = json.loads(text)
        except ValueError:
            return  # not there yet
        self._said = said if isinstance(said, dict) else {}
        if self._said and self._now() - self._shown >= self._every:
            self._shown = self._now()
            self._show(self._said)

    def _killed(self) -> Data:
        said = self._said
        steps = said.get("steps") or {}
        at = f" It was last heard of: {line(said)}." if said else ""
        return {
            "failed": True,
            "changed": bool(said.get("running") or steps.get("done")),
            "msg": f"the job (process {self._job.pid}) ended without a result: somebody killed it, or the host started"
            f" anew.{at} The journal knows what was done, and the next run goes on from there.",
        }


def line(said: t.Mapping[str, t.Any]) -> str:
    """`2 of 5 steps; vacuum of public.orders: scanning heap, 43 %, 1,204 rows, 3 min left`."""
    stage, steps = said.get("stage"), said.get("steps") or {}
    if stage != "working":
        note = f": {said['note']}" if said.get("note") else ""
        return f"{stage}{note}" + "".join(f"; {line(other)}" for other in said.get("others") or ())
    ended = sum(int(number) for name, number in steps.items() if name != "total")
    words = [f"{ended} of {say_count(int(steps.get('total', 0)), 'step')}"]
    failed = int(steps.get("failed", 0))
    words[0] += f" ({failed} failed)" if failed else ""
    return "; ".join([*words, *(_step(step) for step in said.get("running") or ())])


def _step(step: t.Mapping[str, t.Any]) -> str:
    words = [str(step["phase"])] if step.get("phase") else []
    if step.get("percent") is not None:
        words.append(f"{step['percent']:.0f} %")
    if step.get("rows"):
        of = f" of {int(step['rows_planned']):,}" if step.get("rows_planned") else ""
        words.append(f"{int(step['rows']):,}{of} rows")
    elif step.get("bytes"):
        words.append(say_bytes(step["bytes"]))
    if step.get("seconds_left") is not None:
        least = "more than " if step.get("left_at_least") else ""
        words.append(f"{least}{_round(step['seconds_left'])} left")
    else:
        words.append(f"for {_round(step['seconds'])}")
    return f"{step['kind']} of {step['object']}: {', '.join(words)}"


def _round(seconds: float) -> str:
    """A forecast has no hundredths."""
    return say_seconds(seconds) if seconds >= 10 else f"{seconds:.0f} s"
