# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action module from its options to its exit: one operation, carried out. Every error is caught here."""

from __future__ import annotations

import os
import time
import typing as t
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from ._errors import DbFault, Held, Stopped
from ._frame import Memory, Stages, choice
from ._options import CONNECTION, EXECUTION, SELECTION, asked_for, execution, journal_keep
from ._protocols import Engine, Operation
from ._records import Execution, Finding, Measured, Outcome, Plan, Ref, Server

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ._run.control import Control
    from ._run.journal import Journal
    from ._run.progress import Progress
    from ._run.watch import Watch
    from ._window import Window


GUARD_SLICE = 2.0  # seconds
JOB = "DBFLEET_JOB"  # set by the action plugin: "detach", or "silent" where nobody wants to know how far it is
NICENESS = 10  # of a run that leaves most of the time to others: also where it runs beside the server
GRACE = 10.0  # seconds beyond the time budget that measuring may take: what is due is told, and comes first next time


def action_module(name: str, operation: Operation) -> None:
    """The whole main() of an action module. `name` is the module's, and of the fact that it returns."""
    from ansible.module_utils.basic import AnsibleModule

    spec = {**CONNECTION, **SELECTION, **EXECUTION, **operation.OPTIONS}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if os.environ.get(JOB) == "detach" and not module.check_mode:
        from ._detached import detach
        from ._run.control import places_of

        detach(places_of(module.params["journal"]))
    run = None
    try:
        run = Action(name, operation, module)
        result = run.result()
    except DbFault as fault:
        address = run.address if run else ""
        module.fail_json(msg=f"{address}: {fault}" if address else str(fault), changed=False)
    failed = [o for o in run.outcomes if o.status == "failed"]
    if failed:
        named = "; ".join(_failure(o) for o in failed[:5])
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        count = f"{len(failed)} of {len(run.outcomes)} steps failed"
        module.fail_json(msg=f"{run.address}: {count}: {named}{more}", **result)
    module.exit_json(**result)


def _failure(outcome: Outcome) -> str:
    """Which step, where, and why; the database once."""
    task = outcome.step.task
    where = f" in {task.ref.database}" if task.ref.path and task.ref.database not in outcome.error else ""
    return f"{task.kind} of {task.ref}{where}: {outcome.error}"


class Action:
    """One run of an action module."""

    def __init__(self, name: str, operation: Operation, module: AnsibleModule) -> None:
        self.began = time.monotonic()
        self.name, self.operation, self.module = name, operation, module
        self.check = bool(module.check_mode)
        self.address = ""  # empty until the options are known to be meant
        self.outcomes: list[Outcome] = []
        self.plan = Plan()
        self.findings: list[Finding] = []  # beside those of the plan
        self.control: Control
        self.watch: Watch
        self.progress: Progress

    def result(self) -> dict[str, t.Any]:
        """Runs, and returns what the module returns. Raises DbFault."""
        from ._engines import open_engine
        from ._run.watch import Watch

        params = self.module.params
        how, policy, opening = execution(params), self.operation.policy(params), self._window()
        self.address = asked_for(params)
        if getattr(policy, "duty", 1.0) < 1:  # others come first: half of a short run is its own start
            os.nice(NICENESS)
        own = getattr(self.operation, "engine_for", None)
        engine = open_engine(params, how, own(params) if own else getattr(self.operation, "ENGINE", ""))
        with self._control(how) as control:
            # What was asked for before the run began keeps it from starting steps, and not from saying which are due.
            early = control.stopped()

            def ending() -> str:  # asked several times a second
                self.progress.beat()
                why = control.ending(GRACE)
                return why if why != early or control.signalled else ""

            watch = Watch(engine, patience=2.0 * params["connect_timeout"], ending=ending)
            self.control, self.watch, self.progress = control, watch, self._progress(control)
            try:
                chosen = choice(params, engine)
                server = watch.run(engine.greet)
                self.address = server.address
                stages = Stages(engine, server, {self.name: (self.operation, policy)}, chosen, how)
                how = self._within_window(how, server, opening)
                self._run(stages, how)
                return self._report(engine, server)
            finally:
                watch.close()
                self.progress.close()

    def _control(self, how: Execution) -> Control:
        """Stops reach a run from here on. One that writes says that it is there; stop.yml looks beside its journal."""
        from ._run.control import Control, Registration, places_of

        if self.check:
            return Control(how, started=self.began)
        registration = Registration(self.name, self.address, places=places_of(self.module.params["journal"]))
        return Control(how, started=self.began, registration=registration)

    def _progress(self, control: Control) -> Progress:
        """Beside the registration; the run without one keeps it to itself."""
        from ._run.progress import Progress

        registration = control.registration
        facts = {**registration.facts, **registration.about} if registration else {}
        told = os.environ.get(JOB) != "silent"
        return Progress(registration.progress if registration and told else None, facts)

    def _window(self) -> Window | None:
        if not self.module.params["window"]:
            return None
        from ._window import window

        return window(self.module.params["window"], self.module.params["window_timezone"])

    def _within_window(self, how: Execution, server: Server, opening: Window | None) -> Execution:
        """The window's end is a budget: what does not fit before it is left for the next night."""
        if opening is None:
            return how
        left = opening.left(server.now)
        if left <= 0:
            message = f"outside the maintenance window {opening.text}: nothing is started"
            self.findings.append(Finding(3, "outside_window", Ref(""), message))
        return how._replace(time_budget=left if how.time_budget is None else min(left, how.time_budget))

    def _run(self, stages: Stages, how: Execution) -> None:
        from ._run.journal import open_journal

        params = self.module.params
        closed = how.time_budget is not None and how.time_budget <= 0
        if not closed:
            self.control.execution = how
        where, keep = params["journal"], journal_keep(params)
        journal = open_journal(where, self.address, readonly=self.check, warn=self.module.warn, keep=keep)
        with journal:
            try:
                # A run counts once, under the guard: before it one row is enough to know that there is something to do.
                runs = not self.check and not closed and stages.wants.expired
                plan = self._plan(stages, journal, "any" if runs else "exact")
            except Stopped as stop:
                message = f"{stop.cause}, before it was known what is due"
                self.findings.append(Finding(2, "not_measured", Ref(""), message, fix="Run it again"))
                return
            if self.check or closed or not any(not s.skip for s in plan.steps):
                self.outcomes = self._foreseen(plan, how, stages.engine)
                journal.put_off([o for o in self.outcomes if o.status == "deferred"])
                if not (self.check or closed) and any(run.module == self.name for run in journal.died()):
                    journal.begin_run(self.name)  # what it died over is no more to be done
                    journal.end_run("done")
            else:
                self._apply(stages, how, journal, plan)

    def _foreseen(self, plan: Plan, how: Execution, engine: Engine) -> list[Outcome]:
        """What check mode says of each step, and what a run says that has nothing to start."""
        from ._run.foresee import foresee

        why = "outside the maintenance window" if any(f.code == "outside_window" for f in self.findings) else ""
        if how.stop_file and Path(how.stop_file).exists():
            why = why or f"stopped by the stop file {how.stop_file}"
        if why:
            return _put_off(plan, why)
        return foresee(plan.steps, jobs=how.jobs, budget=how.time_budget, one_writer=engine.one_writer)

    def _plan(self, stages: Stages, journal: Journal, counting: str) -> Plan:
        """Measures and plans, in the order in which the runner will work."""
        from ._run.forecast import forecast

        memory = Memory(journal.past(), journal.overdue(), journal.owned(), journal.notes())
        measured, plans = self.watch.run(lambda: stages.plans(memory, counting))
        if counting == "any" and _uncounted(measured) and all(s.skip for s in plans[self.name].steps):
            measured, plans = self.watch.run(lambda: stages.plans(memory))  # what is told without a run is told exactly
        plan = forecast(plans[self.name], memory.past, journal.rates(), memory.overdue, measured.server.now)
        self.plan = plan
        return plan

    def _apply(self, stages: Stages, how: Execution, journal: Journal, plan: Plan) -> None:
        """Under the guard, and measured anew under it: another run may have done the work meanwhile."""
        databases = sorted({s.task.ref.database for s in plan.steps if not s.skip})
        registration = self.control.registration
        if registration:
            registration.about_to(self.address, databases)
            if registration.problem:
                self.module.warn(registration.problem)
        try:
            with ExitStack() as stack:
                there = {info.name for info in stages.server.databases}  # what is restored need not be
                self._enter_guard(stack, stages.engine, [d for d in databases if d and d in there], how)
                plan = _only_in(databases, self._plan(stages, journal, "enough"))
                self._carry_out(stages, how, journal, plan)
        except Stopped as stop:
            self.outcomes = _put_off(plan, stop.cause)
            journal.put_off([o for o in self.outcomes if o.status == "deferred"])
        except Held as held:
            if how.if_running != "skip":
                raise
            self.findings.append(Finding(3, "already_running", Ref(""), str(held)))
            self.outcomes = [Outcome(step, "skipped", error=step.skip or str(held)) for step in plan.steps]

    def _enter_guard(self, stack: ExitStack, engine: Engine, databases: list[str], how: Execution) -> None:
        """Waits in slices where it may wait, so that a stop reaches it. Raises Held."""
        from ._run.control import others_at, places_of

        until = time.monotonic() + (86400.0 if how.if_running == "wait" else 0.0)
        while True:
            left = max(0.0, until - time.monotonic())
            entering = partial(stack.enter_context, engine.guard(databases, min(left, GUARD_SLICE)))
            try:
                self.watch.run(entering)
                return
            except Held as held:
                if left <= 0 or self.control.stopped() or self.control.spent():
                    raise
                others = others_at(self.address, places_of(self.module.params["journal"]))
                self.progress.stage("waiting", held.cause, others=others)

    def _carry_out(self, stages: Stages, how: Execution, journal: Journal, plan: Plan) -> None:
        from ._run.runner import Runner

        journal.begin_run(self.name)
        status = "failed"
        runner = Runner(
            stages.engine,
            stages.server,
            journal,
            execution=how,
            prove=stages.prover(self.name, plan),
            replan=stages.replanner(self.name),
            control=self.control,
            progress=self.progress,
            warn=self.module.warn,
        )
        try:
            self.outcomes = runner.run(plan)
            self.findings += runner.findings
            failed = any(o.status == "failed" for o in self.outcomes)
            status = "stopped" if self.control.stopped() else "failed" if failed else "done"
        finally:
            self.watch.abandoned = runner.abandoned
            journal.end_run(status)

    def _report(self, engine: Engine, server: Server) -> dict[str, t.Any]:
        from . import _report as report

        most = self.module.params["max_results"]
        shown = self.outcomes if len(self.outcomes) <= most else report.worst_first(self.outcomes)[:most]
        summary = report.summary(self.outcomes, time.monotonic() - self.began)
        findings = report.ordered((*self.findings, *self.plan.findings))
        fact: dict[str, t.Any] = {
            "engine": server.engine,
            "server": report.server_facts(server),
            "steps": [report.step_result(o, engine, server) for o in shown],
            "findings": [report.finding_result(f, engine, server) for f in findings[:most]],
            **{name: list(things[:most]) for name, things in self.plan.shown.items()},
            "summary": {**summary, "findings": len(findings), **{n: len(s) for n, s in self.plan.shown.items()}},
        }
        changed = any(o.changed or o.status == "planned" for o in self.outcomes)
        result = {"changed": changed, "ansible_facts": {self.name: fact}, "summary": fact["summary"]}
        if getattr(self.module, "_diff", False):
            result["diff"] = report.diff(shown, engine, server)
        return result


def _uncounted(measured: Measured) -> bool:
    """Whether some rows were only glimpsed; what is refused whatever their number is none of these."""
    found = (expired for database in measured.databases for expired in database.expired)
    return any(e.rows is None and not e.why_not and not e.ambiguous for e in found)


def _put_off(plan: Plan, why: str) -> list[Outcome]:
    return [Outcome(s, "skipped" if s.skip else "deferred", error=s.skip or why) for s in plan.steps]


def _only_in(databases: t.Collection[str], plan: Plan) -> Plan:
    """What became due in another database meanwhile is not under the guard: the next run does it."""
    why = "it became due only just now: the next run does it"
    kept = (s if s.skip or s.task.ref.database in databases else s._replace(skip=why) for s in plan.steps)
    return plan._replace(steps=tuple(kept))
