# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The four stages around every module: measure, plan, apply, prove. Neither SQL nor thresholds live here."""

from __future__ import annotations

import typing as t

from ._errors import BadInput, CannotConnect, DbFault
from ._protocols import Engine, Operation, Session
from ._records import (
    Attempt,
    Database,
    DatabaseInfo,
    Execution,
    Finding,
    Key,
    Measured,
    Note,
    Plan,
    Proof,
    Ref,
    Sample,
    Server,
    Step,
    Wants,
)
from ._remains import rows_left, shelf_after, size_of
from ._selection import Patterns, names_of
from ._tasks import Analyze, DropLeftover, Task, Vacuum
from ._tuples import NamedTuple

if t.TYPE_CHECKING:
    from ._backups import Shelf
    from ._health import Health

Asked = t.Mapping[str, tuple[Operation, t.Any]]  # name of an operation -> (planner, policy)


class Memory(NamedTuple):
    """What the journal knows; empty where there is none."""

    past: t.Mapping[Key, Attempt] = {}
    overdue: frozenset[Key] = frozenset()
    owned: t.Mapping[Key, tuple[str, ...]] = {}
    notes: t.Mapping[Key, Note] = {}
    samples: t.Mapping[Ref, tuple[Sample, ...]] = {}


class Stages:
    """Measurement and planning for one operation (an action module) or for all of them (the assessment)."""

    def __init__(self, engine: Engine, server: Server, asked: Asked, databases: Patterns, execution: Execution) -> None:
        self.engine, self.server, self.asked, self.execution = engine, server, asked, execution
        self.wants = Wants()
        self.shelf: Shelf | None = None
        self.verified: dict[Key, Attempt] = {}  # backups: a proof is refused what the plan was refused
        for operation, policy in asked.values():
            self.wants = self.wants.merge(operation.wants(policy, server))
        self.chosen, self.findings = choose(server, databases, self.wants)

    def measure(self, memory: Memory) -> Measured:
        """Wants, doubts, exact: what the planners need, measured once for all of them."""
        self.verified = {key: past for key, past in memory.past.items() if key[0] == "verify"}
        found = self._look(self.chosen, self.wants)
        databases = _readable(self.chosen, found)
        read = [d for d, f in zip(databases, found) if not isinstance(f, DbFault)]
        self.shelf = self._shelf()
        measured = self._measured(databases, memory)._replace(health=self._health(read), shelf=self.shelf)
        closer = Wants()
        for operation, policy in self.asked.values():
            closer = closer.merge(operation.doubts(policy, measured))
        if not closer.exact:
            return measured
        doubtful = {ref.database for ref in closer.exact}
        wants = self.wants._replace(exact=closer.exact, only=closer.exact, scan_budget=closer.scan_budget)
        infos = [i for i in self.chosen if i.name in doubtful]
        again = dict(zip((i.name for i in infos), self._look(infos, wants)))
        return measured._replace(databases=tuple(_overlay(d, again.get(d.name)) for d in measured.databases))

    def plans(self, memory: Memory, counting: str = "exact") -> tuple[Measured, dict[str, Plan]]:
        """Every planner's plan. Steps that a limit would stop now are planned again as skipped, with the reason."""
        self.wants = self.wants._replace(counting=counting)
        measured = self.measure(memory)._replace(glimpsed=counting == "any")
        plans = self._plan(measured)
        blocked = self._blocked(plans)
        if blocked:
            measured = measured._replace(blocked=blocked)
            plans = self._plan(measured)
        return measured, plans

    def _plan(self, measured: Measured) -> dict[str, Plan]:
        out = {}
        for name, (operation, policy) in self.asked.items():
            plan = operation.plan(policy, measured)
            out[name] = plan._replace(findings=(*self.findings, *plan.findings, *_unknown_tables(policy, measured)))
        return out

    def _measured(self, databases: t.Sequence[Database], memory: Memory) -> Measured:
        return Measured(
            self.server,
            tuple(databases),
            past=memory.past,
            overdue=memory.overdue,
            owned=memory.owned,
            notes=memory.notes,
            samples=memory.samples,
        )

    def _shelf(self, task: Task | None = None) -> Shelf | None:
        """The backup folder is the host's own: no engine is asked. After a task, as far as the task is about."""
        if self.wants.backups is None:
            return None
        from ._files.backups import look

        return look(self.wants.backups) if task is None else shelf_after(task, self.shelf, self.wants.backups)

    def _health(self, databases: t.Sequence[Database]) -> Health | None:
        """Asked once, where the first readable database is; a server without any has none that we could ask in."""
        readable = {d.name for d in databases}
        for info in self.chosen if self.wants.health else ():
            if info.name in readable and not info.why_not:
                with self.engine.session(info.name) as session:
                    return self.engine.health(session, self.server)
        return None

    def _look(self, infos: t.Sequence[DatabaseInfo], wants: Wants) -> list[Database | DbFault]:
        """Each database measured, or why it could not be."""
        if len(infos) > 1 and self.execution.jobs > 1:
            from ._run.watch import side_by_side

            return side_by_side(lambda info: self._look_at(info, wants), infos, self.execution.jobs)
        return [self._look_at(info, wants) for info in infos]

    def _look_at(self, info: DatabaseInfo, wants: Wants) -> Database | DbFault:
        try:
            with self.engine.session(info.name) as session:
                return self.engine.measure(session, wants, self.server)._replace(system=info.system)
        except BadInput:
            raise
        except DbFault as fault:
            return fault

    def _blocked(self, plans: t.Mapping[str, Plan]) -> dict[Key, str]:
        """Which steps a limit of the kind `skip` would stop at this moment: check mode must say so, too."""
        from ._run.limits import breach

        limited: dict[str, list[Step]] = {}
        for plan in plans.values():
            for step in plan.steps:
                if not step.skip and any(x.otherwise == "skip" for x in step.limits):
                    limited.setdefault(step.task.ref.database, []).append(step)
        blocked = {}
        for database, steps in limited.items():
            try:
                with self.engine.session(database) as session:
                    found = {step.key: breach(self.engine, session, step, otherwise="skip") for step in steps}
            except DbFault as fault:  # the database went away meanwhile: none of its limits can be known
                found = {step.key: f"its limits cannot be read: {fault.cause}" for step in steps}
            blocked.update({key: why for key, why in found.items() if why})
        return blocked

    def prover(self, name: str, plan: Plan) -> t.Callable[[Session, Step, str], Proof]:
        """Proven: the same planner, shown the new measurement of this object, asks for nothing more of it.

        What the step noted for the next one is shown to it, too.
        """
        operation, policy = self.asked[name]
        if getattr(policy, "force", False):
            policy = policy._replace(force=False)
        keys = {s.key for s in plan.steps}
        blocked = {s.key: s.skip for s in plan.steps if s.skip}  # so that needs are not folded into what does not run
        known = {(f.code, f.ref) for f in plan.findings}

        def prove(session: Session, step: Step, note: str) -> Proof:
            again = self._again(session, step.task, operation, policy)._replace(blocked=blocked)
            if note:
                again = again._replace(notes={step.key: Note(self.server.now, note)})
            new = operation.plan(policy, again)
            asks = [s for s in new.steps if s.task.ref == step.task.ref and (s.key == step.key or s.key not in keys)]
            finds = [f for f in new.findings if f.ref == step.task.ref and (f.code, f.ref) not in known]
            if asks and not finds:
                due = "still" if asks[0].key == step.key else f"{asks[0].task.kind} now"
                message = f"measured again after the {step.task.kind}: {due} due, {asks[0].reason}"
                finds = [Finding(2, "not_proven", step.task.ref, message)]
            return Proof(not asks and not finds, size_of(again, step), tuple(finds), rows_left(again, step))

        return prove

    def replanner(self, name: str) -> t.Callable[[Session, Step], Step | None]:
        """The planner asked again before a projected step starts; None: it is due no more."""
        operation, policy = self.asked[name]

        def replan(session: Session, step: Step) -> Step | None:
            new = operation.plan(policy, self._again(session, step.task, operation, policy))
            return next((s for s in new.steps if s.key == step.key), None)

        return replan

    def _again(self, session: Session, task: Task, operation: Operation, policy: t.Any) -> Measured:
        ref = task.ref
        system = any(i.system for i in self.chosen if i.name == ref.database)
        wants = operation.wants(policy, self.server)._replace(only=(ref,), health=False, shared=True)
        if isinstance(task, (Vacuum, Analyze)):  # neither removes wreckage nor leaves any
            wants = wants._replace(leftovers=False)
        if not isinstance(task, DropLeftover):  # the others' rows need not be counted again
            rule = getattr(task, "rule", "")
            wants = wants._replace(expired=tuple(s for s in wants.expired if s.expiry.rule == rule))
        found = self.engine.measure(session, wants, self.server)._replace(system=system)
        memory = Memory(past=self.verified)
        measured = self._measured([found], memory)._replace(shelf=self._shelf(task))
        if operation.doubts(policy, measured).exact:
            closer = self.engine.measure(session, wants._replace(exact=(ref,)), self.server)
            measured = measured._replace(databases=(_overlay(found, closer),))
        return measured


def _overlay(database: Database, closer: Database | DbFault | None) -> Database:
    """The second look takes the place of the first, object by object."""
    if closer is None:
        return database
    if isinstance(closer, DbFault):
        message = f"no exact measurement, the estimates stand: {closer.cause}"
        finding = Finding(3, "not_measured_exactly", Ref(database.name), message, fix=closer.cure)
        return database._replace(findings=(*database.findings, finding))
    exact = {table.ref: table for table in closer.tables}
    indexes = {index.ref: index for index in closer.indexes}
    return database._replace(
        tables=tuple(exact.get(table.ref, table) for table in database.tables),
        indexes=tuple(indexes.get(index.ref, index) for index in database.indexes),
        findings=tuple(dict.fromkeys((*database.findings, *closer.findings))),
    )


def _readable(infos: t.Sequence[DatabaseInfo], found: t.Sequence[Database | DbFault]) -> list[Database]:
    """What cannot be read becomes a finding. Raises the first fault where nothing could be looked at."""
    faults = [f for f in found if isinstance(f, DbFault)]
    if faults and len(faults) == len(found):
        raise faults[0]
    return [_unreadable(i, f) if isinstance(f, DbFault) else f for i, f in zip(infos, found)]


def _unknown_tables(policy: t.Any, measured: Measured) -> list[Finding]:
    """Tables that were named, and are in none of the databases: a typing error that would else do nothing, silently."""
    named = getattr(getattr(policy, "tables", None), "literal", ())
    if not named:
        return []
    there = {name for d in measured.databases for ref in _tables_of(d) for name in names_of(ref)}
    said = "tables: no selected database has a table {}, or this login may not see it"
    return [
        Finding(2, "no_such_table", Ref(""), said.format(name), fix="Mend the option tables, or remove the name")
        for name in named
        if name not in there
    ]


def _tables_of(database: Database) -> t.Iterator[Ref]:
    """The tables that a measurement shows, be it only by their indexes."""
    yield from (table.ref for table in database.tables)
    yield from (index.table for index in database.indexes)


def _unreadable(info: DatabaseInfo, fault: DbFault) -> Database:
    finding = Finding(2, "database_unreadable", Ref(info.name), fault.cause, fix=fault.cure)
    return Database(info.name, system=info.system, findings=(finding,))


def choice(params: t.Mapping[str, t.Any], engine: Engine) -> Patterns:
    """The databases asked for; an engine whose databases are files has selected them already."""
    return Patterns(["*"] if engine.selects else params["databases"], "databases")


def choose(server: Server, databases: Patterns, wants: Wants) -> tuple[list[DatabaseInfo], list[Finding]]:
    """The databases to look at. Raises BadInput for a named one that is not there, CannotConnect where none can be."""
    names = {info.name for info in server.databases}
    missing = [name for name in databases.literal if name not in names]
    if missing:
        raise BadInput(
            f"databases: there is no database {', '.join(missing)} on {server.address}",
            cure=f"There are: {', '.join(sorted(names)[:20]) or 'none'}{', …' if len(names) > 20 else ''}",
        )
    chosen, findings = [], []
    for info in server.databases:
        old = wants.freeze_from is not None and databases.everything and (info.freeze_percent or 0) >= wants.freeze_from
        picked = databases.takes(info.name) and (not info.system or info.name in databases.literal)
        if info.why_not and (picked or old):
            age = f"; its transaction ids are at {info.freeze_percent:.0f} % of a forced freeze" if old else ""
            urgent = 1 if (info.freeze_percent or 0) >= 100 else 2
            findings.append(Finding(urgent, "database_unreadable", Ref(info.name), info.why_not + age))
        elif picked:
            chosen.append(info._replace(system=False))
        elif old:
            chosen.append(info._replace(system=True))
    unreadable = [i for i in server.databases if i.why_not and databases.takes(i.name)]
    if not chosen and unreadable:
        raise CannotConnect(unreadable[0].why_not, database=unreadable[0].name)
    if not chosen and not findings:
        findings.append(Finding(3, "nothing_selected", Ref(""), "no database is selected", fix="See option databases"))
    return chosen, findings
