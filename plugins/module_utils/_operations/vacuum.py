# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHAT is due for vacuum, analyze, freeze and reclaim, and WHY. Pure: no SQL, no I/O, no clock, no engine's name."""

from __future__ import annotations

import typing as t

from .._errors import BadInput
from .._records import Amount, Database, Finding, Key, Leftover, Limit, Measured, Plan, Server, Step, Table, Wants
from .._selection import names_of
from .._tasks import Analyze, DropLeftover, Rebuild, Task, Vacuum
from .._units import say_bytes
from .experience import gained_little
from .vacuum_needs import ACTIONS, NEEDED_BY, NEEDS, OPTIONS, Need, Policy, dead_rows, policy, whole

__all__ = ["OPTIONS", "doubts", "plan", "policy", "wants"]

REINDEX = "reindex"  # wreckage of indexes is db_reindex's
WORTH_FREEZING = 5.0  # percent of the age of a forced freeze


def wants(policy: Policy, server: Server) -> Wants:
    """What must be measured. Raises BadInput for what this engine can never do though it was asked for."""
    asked = policy.actions != frozenset(ACTIONS)
    for action in sorted(policy.actions & {"vacuum", "freeze"}) if asked else ():
        if action in server.lacks:
            raise BadInput(f"actions: {action} is not for {server.engine}: {server.lacks[action]}", cure="Leave it out")
    if policy.vacuum_cost_delay is not None and "cost delay" in server.lacks:
        raise BadInput(
            f"vacuum_cost_delay is not for {server.engine}: {server.lacks['cost delay']}", cure="Leave it out"
        )
    reclaim = "reclaim" in policy.actions
    return Wants(
        tables=True,
        bloat=reclaim,
        bloat_min_bytes=0 if policy.force else policy.reclaim_min_size,
        leftovers=reclaim,
        freeze_from=policy.freeze_age_percent if "freeze" in policy.actions and policy.tables.everything else None,
    )


def doubts(policy: Policy, measured: Measured) -> Wants:
    """Tables whose bloat may lie on either side of the threshold, where it matters."""
    if "reclaim" not in policy.actions or policy.force:
        return Wants()
    return Wants(
        exact=tuple(
            table.ref
            for table in tables_of(policy, measured)
            if table.bloat
            and policy.reclaim_min_size <= table.total_bytes <= policy.reclaim_max_size
            and table.bloat.low * whole(table) < policy.reclaim_percent <= table.bloat.high * whole(table)
        )
    )


def tables_of(policy: Policy, measured: Measured) -> t.Iterator[Table]:
    """The tables whose space may be reclaimed."""
    for database in measured.databases:
        for table in database.tables if not database.system else ():
            lacking = "reclaim" in table.lacks or "reclaim" not in NEEDED_BY.get(table.kind, ())
            if not lacking and policy.tables.takes(*names_of(table.ref)):
                yield table


def plan(policy: Policy, measured: Measured) -> Plan:
    """The steps that are due, and the findings that no step can cure."""
    steps: list[Step] = []
    findings: list[Finding] = list(measured.server.findings)
    for database in measured.databases:
        findings += database.findings
        steps += _Planner(policy, measured, database, findings).steps()
    return Plan(tuple(steps), tuple(dict.fromkeys(findings)))


class _Planner:
    """Plans one database; what no step can cure goes to the findings."""

    def __init__(self, policy: Policy, measured: Measured, database: Database, findings: list[Finding]) -> None:
        self.policy, self.measured, self.database, self.findings = policy, measured, database, findings
        self.lacks = {**measured.server.lacks, **database.lacks}
        self.drops: set[Key] = set()

    def steps(self) -> list[Step]:
        drops = self._wreckage()
        self.drops = {s.key for s in drops}
        steps = [*drops]
        for table in self.database.tables:
            if self.policy.tables.takes(*names_of(table.ref)):
                steps += self._fold(table, self._needs(table))
        return [self._hindered(step) for step in steps]

    def _find(self, priority: int, code: str, table: Table, message: str, cure: Task | None = None) -> None:
        self.findings.append(Finding(priority, code, table.ref, message, cure))

    def _hindered(self, step: Step) -> Step:
        """Steps on a server that cannot or must not be written to are shown, and skipped."""
        names = ["write", "session"] + (["rewrite"] if isinstance(step.task, Rebuild) else [])
        why = next((self.lacks[name] for name in names if name in self.lacks), "")
        return step._replace(skip=why) if why else step

    def _wreckage(self) -> list[Step]:
        steps: list[Step] = []
        wanted = "reclaim" in self.policy.actions and not self.database.system
        for found in _merged(self.database.leftovers) if wanted else ():
            if found.what == REINDEX or not self.policy.tables.takes(*names_of(found.ref)):
                continue
            names = ", ".join(found.names)
            if not found.dead:
                message = f"{names} of {found.what} look left behind, but {found.why_not or 'may be in use'}"
                self.findings.append(Finding(3, "leftover_in_use", found.ref, message))
            elif any(s.task.ref == found.ref for s in steps):
                message = f"{names} of {found.what} are left behind, too: the next run removes them"
                self.findings.append(Finding(3, "leftover_waits", found.ref, message))
            else:
                steps.append(_drop(found))
        return steps

    def _needs(self, table: Table) -> dict[str, list[Need]]:
        """What the table needs and a step can help, by action."""
        actions = self.policy.actions & NEEDED_BY.get(table.kind, frozenset()) - set(table.lacks) - set(self.lacks)
        if self.database.system:
            actions &= {"freeze"}
        if self.policy.force:
            found = [Need(a, "forced", {}) for a in sorted(actions) if a != "reclaim" or table.bytes]
        else:
            found = [n for rule in NEEDS if (n := rule(table, self.policy, self.measured)) and n.what in actions]
        needs: dict[str, list[Need]] = {}
        for need in found:
            if not self._in_vain(need, table):
                needs.setdefault(need.what, []).append(need)
        return needs

    def _in_vain(self, need: Need, table: Table) -> bool:
        """Whether the step could not help; then a finding takes its place."""
        if need.what == "vacuum" and "dead_rows" in need.measured and self._pinned(table):
            message = f"{need.reason}, but vacuum cannot remove them: {table.pinned_by}"
            self._find(2, "horizon_pinned", table, message)
            return True
        if need.what == "freeze" and self._freezes_in_vain(table):
            who = table.pinned_by or "something as old keeps them from being frozen"
            self._find(1, "horizon_pinned", table, f"{need.reason}, but freezing cannot help: {who}")
            return True
        return need.what == "reclaim" and self._no_rebuild(need, table)

    def _freezes_in_vain(self, table: Table) -> bool:
        """Whether it would be due again at once, and no younger. What gets younger is frozen: age is safety."""
        gain = (table.freeze_percent or 0.0) - table.freeze_floor
        return table.freeze_floor >= self.policy.freeze_age_percent and gain < WORTH_FREEZING

    def _pinned(self, table: Table) -> bool:
        """Whether the rows that a vacuum could remove now would not make it due."""
        if not table.pinned_by or not table.dead or table.dead.removable is None:
            return False
        share = table.dead.removable / max(table.dead.rows, 1)
        fewer = table.dead._replace(rows=table.dead.removable, percent=table.dead.percent * share)
        return dead_rows(table._replace(dead=fewer), self.policy, self.measured) is None

    def _no_rebuild(self, need: Need, table: Table) -> bool:
        policy, lacks = self.policy, {**self.lacks, **table.lacks}
        means = "online rebuild" if policy.online else "exclusive rebuild"
        cure: Task | None = Rebuild(table.ref, policy.online)
        if means in lacks:
            other = policy.online and "exclusive rebuild" not in lacks
            cure = Rebuild(table.ref, False) if other else None
            hint = "a rebuild would lock writers out" if other else "it cannot be rebuilt"
            self._find(2, f"no_{means.replace(' ', '_')}", table, f"{need.reason}; {hint}: {lacks[means]}", cure)
        elif policy.force:
            return False
        elif table.total_bytes > policy.reclaim_max_size:
            sizes = f"{say_bytes(table.total_bytes)} are over reclaim_max_size {say_bytes(policy.reclaim_max_size)}"
            self._find(3, "too_large_to_reclaim", table, f"{need.reason}; {sizes}", cure)
        elif "local rebuild" in lacks and table.total_bytes > policy.reclaim_replicated_max_size:
            message = f"{need.reason}; a rebuild is left to you: {lacks['local rebuild']}"
            self._find(2, "replicated_rebuild", table, message, cure)
        else:
            return self._gained_little(table)
        return True

    def _gained_little(self, table: Table) -> bool:
        message = gained_little(self.measured.past.get(("reclaim", table.ref)), table.total_bytes)
        if message:
            self._find(3, "natural_size", table, message)
        return bool(message)

    def _fold(self, table: Table, needs: dict[str, list[Need]]) -> list[Step]:
        """The fewest steps that meet all needs of a table: a rebuild vacuums and analyzes, VACUUM (ANALYZE) does both.

        A freeze is never left to a rebuild, which a limit may stop; nor is anything else when the rebuild is stopped
        now, or not allowed here at all.
        """
        after = tuple(k for k in self.drops if k[1] == table.ref)
        blocked = self.lacks.get("rewrite", "") or self.measured.blocked.get(("reclaim", table.ref), "")
        alone = "reclaim" in needs and (blocked or "freeze" in needs)
        rebuild = []
        if "reclaim" in needs:
            merged = needs["reclaim"] if alone else [n for what in needs.values() for n in what]
            bloat = int(needs["reclaim"][0].measured.get("bloat_bytes", 0))
            step = _step(Rebuild(table.ref, self.policy.online), merged, table, Amount(bytes=bloat), float(bloat))
            rebuild = [step._replace(after=after, limits=_limits(self.policy), skip=blocked)]
            if not alone:
                return rebuild
        first = self._vacuum(table, needs)
        return [*first, *(s._replace(after=(*s.after, *(f.key for f in first))) for s in rebuild)]

    def _vacuum(self, table: Table, needs: dict[str, list[Need]]) -> list[Step]:
        merged = [n for what in ("freeze", "vacuum", "analyze") for n in needs.get(what, ())]
        if "vacuum" in needs or "freeze" in needs:
            task = Vacuum(
                table.ref,
                freeze="freeze" in needs,
                analyze="analyze" in needs,
                truncate="truncate" not in self.lacks and "truncate" not in table.lacks,
                cost_delay=self.policy.vacuum_cost_delay,
            )
            dead = table.dead.rows if table.dead else 0
            gain = table.bytes * (table.dead.percent / 100 if table.dead else 0.01)
            return [_step(task, merged, table, Amount(rows=dead), gain)]
        if "analyze" in needs:
            return [_step(Analyze(table.ref, table.kind == "partitioned"), merged, table, Amount(), table.bytes / 100)]
        return []


def _merged(leftovers: t.Sequence[Leftover]) -> list[Leftover]:
    """What one kind of work left on one object is removed by one step."""
    out: dict[tuple[t.Any, ...], Leftover] = {}
    for found in leftovers:
        key = (found.ref, found.what, found.dead, found.why_not)
        known = out.get(key, found._replace(names=(), bytes=0))
        names = tuple(dict.fromkeys(known.names + found.names))
        out[key] = found._replace(names=names, bytes=known.bytes + found.bytes)
    return list(out.values())


def _drop(found: Leftover) -> Step:
    reason = f"left behind by an interrupted {found.what}: {', '.join(found.names)}"
    return Step(
        DropLeftover(found.ref, found.what, found.names),
        reason,
        {"leftovers": list(found.names)},
        Amount(bytes=found.bytes),
        (8, float(found.bytes)),
        size=found.bytes,
    )


def _step(task: Task, needs: list[Need], table: Table, expected: Amount, gain: float) -> Step:
    measured: dict[str, t.Any] = {"bytes": table.total_bytes, "rows": table.rows}
    for need in needs:
        measured.update(need.measured)
    reason = "; ".join(dict.fromkeys(n.reason for n in needs))
    rank = (max(n.safety for n in needs), gain)
    return Step(task, reason, measured, expected, rank, size=table.total_bytes)


def _limits(policy: Policy) -> tuple[Limit, ...]:
    found = [
        Limit("disk_missing", 0, "skip"),
        Limit("wal_missing", 0, "skip"),
        Limit("tmp_missing", 0, "skip"),
        Limit("oldest_snapshot", policy.reclaim_max_snapshot_age, "skip"),
    ]
    if policy.max_replica_lag is not None:
        found.append(Limit("replica_lag", policy.max_replica_lag, "wait"))
    return tuple(found)
