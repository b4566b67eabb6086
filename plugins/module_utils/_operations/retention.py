# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHICH rows are due to leave, where to, and WHY. Pure: no SQL, no I/O, no clock, no engine's name.

What cannot be meant is refused in retention_rules.py, what must not be done in retention_refusals.py.
"""

from __future__ import annotations

import typing as t

from .._records import Database, Finding, Measured, Plan, Ref, Server, Step, Wants
from .._retention import Expired, Sought
from .._selection import names_of
from .._tasks import Purge
from .retention_backlog import backlog_grows
from .retention_options import OPTIONS
from .retention_refusals import NOTICES, REFUSALS, Case
from .retention_rules import Policy, Rule, Stage, policy, stages
from .retention_steps import Budget, drop_detached, settling, steps_of

if t.TYPE_CHECKING:
    from .._backups import Sheltered

__all__ = ["OPTIONS", "doubts", "plan", "policy", "wants"]


def wants(policy: Policy, server: Server) -> Wants:
    """What must be measured: nothing without a rule; the tables, where a purge can make vacuum or analyze due."""
    if not policy.rules:
        return Wants()
    return Wants(
        tables="vacuum" not in server.lacks or "analyze" not in server.lacks,
        expired=tuple(stage.sought for stage in stages(policy, server.now)),
        backups=_sheltered(policy.backup_dir) if policy.backup_dir else None,
    )


def _sheltered(folder: str) -> Sheltered:
    """Imported only where a backup is required."""
    from .._backups import Sheltered

    return Sheltered(folder)


def doubts(policy: Policy, measured: Measured) -> Wants:
    """Nothing: rows are counted exactly."""
    return Wants()


def plan(policy: Policy, measured: Measured) -> Plan:
    """The steps that are due, and the findings that no step can cure."""
    known = {stage.sought: stage for stage in stages(policy, measured.server.now)}
    steps: list[Step] = []
    findings: list[Finding] = list(measured.server.findings)
    for database in measured.databases:
        findings += database.findings
        if database.system:
            continue
        if _second_look(policy, database):
            from . import retention_after

            needed, told = retention_after.due(measured, database, gently=policy.duty < 1)
            steps += needed
            findings += told
        else:
            steps += _Planner(policy, measured, database, known, findings).steps()
    findings += _nowhere(policy, measured)
    return Plan(tuple(steps), tuple(dict.fromkeys(findings)))


def _second_look(policy: Policy, database: Database) -> bool:
    """Whether only the tables were measured: for the vacuum that came after a purge.

    In a first look each rule of the database finds its table, or says that there is none.
    """
    meant = any(rule.database in ("", database.name) for rule in policy.rules)
    return meant and not database.expired and not database.without and bool(database.tables)


def _nowhere(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    """A table or database that is nowhere: a typing error would else do nothing, silently."""
    readable = [d for d in measured.databases if not d.system]
    found = {e.sought.expiry.rule for d in readable for e in d.expired if e.sought.expiry.table == _table(policy, e)}
    missed = {m.sought.expiry.rule for d in readable for m in d.without}
    names = {d.name for d in readable}
    for rule in policy.rules:
        if rule.name in found:
            continue
        if rule.name in missed and not rule.optional:
            where = f"database {rule.database} has no" if rule.database else "no selected database has a"
            message = f"rule {rule.name}: {where} table {rule.table}, or this login may not see it"
            yield Finding(2, "no_such_table", Ref(rule.database), message, fix="Mend the rule's table, or remove it")
        elif rule.database and rule.database not in names and rule.name not in missed:
            message = f"rule {rule.name}: database {rule.database} is not there, or not selected"
            yield Finding(2, "no_such_database", Ref(""), message, fix="Mend the rule's database, or databases")


def _table(policy: Policy, expired: Expired) -> str:
    """The rule's own table: that of its archive does not stand for it."""
    return next((rule.table for rule in policy.rules if rule.name == expired.sought.expiry.rule), "")


class _Planner:
    """Plans one database; what no step can cure goes to the findings."""

    def __init__(
        self,
        policy: Policy,
        measured: Measured,
        database: Database,
        known: t.Mapping[Sought, Stage],
        findings: list[Finding],
    ) -> None:
        self.policy, self.measured, self.database, self.findings = policy, measured, database, findings
        self.lacks = {**measured.server.lacks, **database.lacks}
        found = [(known[e.sought], e) for e in database.expired if e.sought in known]
        # An archive is cleaned with the table whose rows it holds.
        sources = {stage.rule.name: expired.ref for stage, expired in found if not stage.of_archive}
        self.found = [(stage, e) for stage, e in found if self._takes(sources.get(stage.rule.name, e.ref))]

    def steps(self) -> list[Step]:
        steps: dict[t.Any, Step] = {}
        for cases in self._cases():
            for step in self._of_rule(cases):
                steps.setdefault(step.key, step)  # stages and rules of one table see the same wreckage
        planned = [self._hindered(step) for step in steps.values()]
        if any(not step.skip for step in planned) and not {"vacuum", "analyze"} <= self.lacks.keys():
            from . import retention_after

            gently = self.policy.duty < 1
            planned += retention_after.projected(self.measured, self.database, planned, gently=gently)
        return planned

    def _takes(self, ref: Ref) -> bool:
        return self.policy.relations.takes(*names_of(ref))

    def _cases(self) -> list[list[Case]]:
        """By rule: its table and the table that it archives into."""
        depots: dict[Ref, tuple[Rule, ...]] = {}
        rules: dict[str, dict[Ref, list[tuple[Stage, Expired]]]] = {}
        for stage, expired in self.found:
            rules.setdefault(stage.rule.name, {}).setdefault(expired.ref, []).append((stage, expired))
            if expired.depot:
                depots[expired.depot.ref] = (*depots.get(expired.depot.ref, ()), stage.rule)
        return [[self._case(ref, tables, depots) for ref in tables] for tables in rules.values()]

    def _case(
        self,
        ref: Ref,
        tables: t.Mapping[Ref, list[tuple[Stage, Expired]]],
        depots: t.Mapping[Ref, tuple[Rule, ...]],
    ) -> Case:
        beside = tuple(e for other, found in tables.items() if other != ref for _stage, e in found)
        return Case(tables[ref][0][0].rule, tuple(tables[ref]), self.policy, self.measured, depots, beside)

    def _of_rule(self, cases: list[Case]) -> t.Iterator[Step]:
        """What is refused for one of its tables is refused for both. Wreckage is cured whatever may be taken now."""
        refused = [finding for case in cases for refusal in REFUSALS for finding in refusal(case)]
        self.findings += refused
        self.findings += [finding for case in cases for notice in NOTICES for finding in notice(case)]
        settles = [step for case in cases for step in settling(case)]
        yield from settles
        budget = Budget(cases[0].rule.rows_per_run)
        for case in cases:
            if all(finding.code != "no_backup" for finding in refused):
                yield from self._detached(case)
            for step in () if refused else steps_of(case, budget, tuple(s.key for s in settles)):
                due = step.measured["rows"] if isinstance(step.task, Purge) else None
                self.findings += backlog_grows(case, step.task.ref, due, self.measured.notes.get(step.key))
                yield step

    def _detached(self, case: Case) -> t.Iterator[Step]:
        for expired in case.expired:
            for found in expired.detaching:
                if found.dead:
                    yield drop_detached(found, expired.ref)
                else:
                    message = f"{', '.join(found.names)} of {found.what} look left behind, but {found.why_not}"
                    self.findings.append(Finding(3, "leftover_in_use", found.ref, message))

    def _hindered(self, step: Step) -> Step:
        """Steps on a server that cannot or must not be written to are shown, and skipped."""
        why = next((self.lacks[name] for name in ("write", "session") if name in self.lacks), "")
        if not why and self.measured.server.role == "replica":
            # A login with all privileges may write there, read_only or not; the next change of such a row that comes
            # from the primary would stop replication.
            why = "this server is a replica: rows leave it when they leave its primary"
        return step._replace(skip=why) if why else step
