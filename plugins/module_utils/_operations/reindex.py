# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHAT is due to be reindexed, which wreckage goes, and WHY. Pure: no SQL, no I/O, no clock, no engine's name."""

from __future__ import annotations

import typing as t

from .._records import Amount, Database, Finding, Leftover, Limit, Measured, Plan, Ref, Server, Step, Table, Wants
from .._selection import names_of
from .._structure import Collation, Index
from .._tasks import Cure, DropLeftover, RefreshCollation, Reindex
from .._units import say_bytes, say_count
from .experience import gained_little
from .reindex_needs import NEEDS, OPTIONS, Need, Policy, due_from, policy, rebuilt

__all__ = ["OPTIONS", "doubts", "plan", "policy", "wants"]

REINDEX = "reindex"  # the kind of wreckage that is ours
SINGLE = "single rebuild"
ATTACH = (
    "Build it on each partition that lacks it (CREATE INDEX CONCURRENTLY) and attach it there"
    " (ALTER INDEX … ATTACH PARTITION): it becomes valid with the last one"
)


def wants(policy: Policy, server: Server) -> Wants:
    """What must be measured; where indexes are rebuilt with their table, that too."""
    return Wants(
        tables=SINGLE in server.lacks,
        indexes=True,
        index_bloat="bloated" in policy.reasons or policy.force,
        index_bloat_min_bytes=0 if policy.force else policy.min_size,
        leftovers=True,
    )


def doubts(policy: Policy, measured: Measured) -> Wants:
    """Indexes whose bloat may lie on either side of the threshold, where it matters."""
    if "bloated" not in policy.reasons or policy.force:
        return Wants()
    means = _means(policy)
    return Wants(
        exact=tuple(
            index.ref
            for database in measured.databases
            for index in _selected(policy, database)
            if index.bloat
            and index.bytes >= policy.min_size
            and index.bloat.low < due_from(index, policy) <= index.bloat.high
            and means not in index.lacks
            and not gained_little(measured.past.get(("reindex", index.ref)), index.bytes)
        )
    )


def plan(policy: Policy, measured: Measured) -> Plan:
    """The steps that are due, and the findings that no step can cure."""
    steps: list[Step] = []
    findings: list[Finding] = [*measured.server.findings, *_unknown(policy, measured)]
    for database in measured.databases:
        findings += database.findings
        if not database.system:
            steps += _Planner(policy, measured, database, findings).steps()
    return Plan(tuple(steps), tuple(dict.fromkeys(findings)))


def _means(policy: Policy) -> str:
    return "online rebuild" if policy.online else "exclusive rebuild"


def _selected(policy: Policy, database: Database) -> t.Iterator[Index]:
    """The indexes asked for. What belongs to a partitioned index is taken with it."""
    if database.system:
        return
    known = {index.ref: index for index in database.indexes}
    for index in database.indexes:
        family, parent = [index], known.get(index.partition_of or index.ref)
        while parent and parent not in family:
            family.append(parent)
            parent = known.get(parent.partition_of or parent.ref)
        names = [name for x in family for name in names_of(x.ref)]
        tables = [name for x in family for name in names_of(x.table)]
        if policy.indexes.takes(*names) and policy.tables.takes(*tables):
            yield index


def _unknown(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    """Indexes that were named and are nowhere: a typing error that would else do nothing, silently."""
    there = {name for d in measured.databases for x in d.indexes for name in names_of(x.ref)}
    for name in policy.indexes.literal:
        if name not in there:
            message = f"indexes: no selected database has an index {name}, or this login may not see it"
            fix = "Mend the option indexes, or remove the name"
            yield Finding(2, "no_such_index", Ref(""), message, fix=fix)


class _Planner:
    """Plans one database; what no step can cure goes to the findings."""

    def __init__(self, policy: Policy, measured: Measured, database: Database, findings: list[Finding]) -> None:
        self.policy, self.measured, self.database, self.findings = policy, measured, database, findings
        self.lacks = {**measured.server.lacks, **database.lacks}
        self.leftovers = [x for x in database.leftovers if x.what == REINDEX]
        self.tables = {table.ref: table for table in database.tables}
        self.indexes = tuple(_selected(policy, database))

    def steps(self) -> list[Step]:
        drops = self._wreckage()
        rebuilds = self._rebuilds({s.task.ref for s in drops})
        refreshes = self._collations(rebuilds) if "collation" in self.policy.reasons else []
        return [self._hindered(step) for step in (*drops, *rebuilds, *refreshes)]

    def _find(self, priority: int, code: str, ref: Ref, message: str, cure: Cure | None = None) -> None:
        self.findings.append(Finding(priority, code, ref, message, cure))

    def _hindered(self, step: Step) -> Step:
        """Steps on a server that cannot or must not be written to are shown, and skipped."""
        names = ["write", "session"] + (["rewrite"] if isinstance(step.task, Reindex) else [])
        why = next((self.lacks[name] for name in names if name in self.lacks), "")
        return step._replace(skip=why) if why else step

    # ---- what interrupted rebuilds left behind -----------------------------------------------------------------------

    def _wreckage(self) -> list[Step]:
        """Drops what is provably ours or, where the user says so, provably dead. One step an index."""
        mine: dict[Ref, list[Leftover]] = {}
        for found in self.leftovers:
            if not self._takes(found):
                continue
            names = ", ".join(found.names)
            owned = set(found.marks) & set(self.measured.owned.get((REINDEX, found.ref), ()))
            if not found.dead:
                self._find(3, "leftover_in_use", found.ref, f"{names} is invalid, but {found.why_not}")
            elif owned or (self.policy.adopt_leftovers and not found.why_not):
                mine.setdefault(found.ref, []).append(found)
            else:
                unknown = "this journal does not know it as its own: adopt_leftovers would drop it"
                message = (
                    f"{names} ({say_bytes(found.bytes)}) was left behind by an interrupted reindex and slows down"
                    f" every change of the table; {found.why_not or unknown}"
                )
                self._find(2, "foreign_leftover", found.ref, message, _drop([found]))
        return [_dropping(several) for several in mine.values()]

    def _takes(self, found: Leftover) -> bool:
        indexes, tables = self.policy.indexes, self.policy.tables
        return indexes.takes(*names_of(found.ref)) and tables.takes(*names_of(found.table or found.ref))

    # ---- rebuilding --------------------------------------------------------------------------------------------------

    def _rebuilds(self, dropped: t.Collection[Ref]) -> list[Step]:
        wrecks = {x.ref._replace(path=(*x.ref.path[:-1], name)) for x in self.leftovers for name in x.names}
        in_use = {x.ref for x in self.leftovers if not x.dead}
        due: list[tuple[Index, list[Need]]] = []
        for index in self.indexes:
            if index.partitioned:
                self._parent(index)
            elif index.ref not in wrecks | in_use:
                needs = self._needs(index)
                due += [(index, needs)] if needs else []
        if SINGLE in self.lacks:
            return self._by_table(due)
        return [step for index, needs in due for step in self._by_index(index, needs, index.ref in dropped)]

    def _needs(self, index: Index) -> list[Need]:
        if self.policy.force:
            return [Need("forced", "forced", {"forced": True})]
        found = [rule(index, self.policy, self.measured) for rule in NEEDS]
        return [need for need in found if need and need.what in self.policy.reasons]

    def _parent(self, index: Index) -> None:
        """What has no storage of its own is valid when all of its parts are."""
        if not index.valid and "invalid" in self.policy.reasons:
            message = "invalid: some partition has no valid index that belongs to it"
            self.findings.append(Finding(2, "invalid_partitioned_index", index.ref, message, fix=ATTACH))

    def _by_index(self, index: Index, needs: list[Need], after_drop: bool) -> list[Step]:
        task = Reindex(index.ref, index.table, self.policy.online)
        reason = "; ".join(n.reason for n in needs)
        if self._no_means(task, reason, index.lacks, needs) or self._gained_little(index.ref, needs, index.bytes):
            return []
        expected = Amount(bytes=index.bloat.bytes if index.bloat else 0)
        after = (("drop_leftover", index.ref),) if after_drop else ()
        measured: dict[str, t.Any] = {"bytes": index.bytes, "rows": index.rows}
        return [self._step(task, reason, needs, measured, expected)._replace(after=after)]

    def _by_table(self, due: list[tuple[Index, list[Need]]]) -> list[Step]:
        """One rebuild of the table for all of its indexes. The bloat of a primary key is the table's: left out."""
        together: dict[Ref, list[tuple[Index, list[Need]]]] = {}
        for index, needs in due:
            if not index.primary or self.policy.force:
                together.setdefault(index.table, []).append((index, needs))
        return [step for ref, several in sorted(together.items()) for step in self._of_table(ref, several)]

    def _of_table(self, ref: Ref, several: list[tuple[Index, list[Need]]]) -> list[Step]:
        table = self.tables.get(ref, Table(ref))
        task = Reindex(ref, ref, self.policy.online)
        needs = [need for index, each in several for need in each]
        named = [f"{index.ref.path[-1]}: {'; '.join(n.reason for n in each)}" for index, each in sorted(several)]
        reason = "forced" if self.policy.force else "; ".join(named)
        lacks = {**table.lacks, **{k: v for index, each in several for k, v in index.lacks.items()}}
        if self._no_means(task, reason, lacks, needs) or self._replicated(task, reason, table):
            return []
        if self._gained_little(ref, needs, table.total_bytes):
            return []
        expected = Amount(bytes=sum(index.bloat.bytes for index, each in several if index.bloat))
        names = sorted(index.ref.path[-1] for index, each in several)
        measured: dict[str, t.Any] = {"bytes": table.total_bytes, "rows": table.rows, "indexes": names}
        return [self._step(task, reason, needs, measured, expected)]

    def _step(
        self, task: Reindex, reason: str, needs: list[Need], measured: dict[str, t.Any], expected: Amount
    ) -> Step:
        size = int(measured["bytes"])
        for need in needs:
            measured.update(need.measured)
        rank = (max(n.safety for n in needs), float(expected.bytes))
        blocked = self.measured.blocked.get((task.kind, task.ref), "")
        return Step(task, reason, measured, expected, rank, size=size, limits=_limits(self.policy), skip=blocked)

    def _no_means(self, task: Reindex, reason: str, lacks: t.Mapping[str, str], needs: list[Need]) -> bool:
        """Whether it cannot be rebuilt in the way that is asked for; then a finding says so."""
        known, means = {**self.lacks, **lacks}, _means(self.policy)
        if means not in known:
            return False
        other = task.online and "exclusive rebuild" not in known
        hint = "a rebuild would lock writers out" if other else "it cannot be rebuilt"
        priority = 1 if any(n.what == "collation" for n in needs) else 2
        cure = task._replace(online=False) if other else None
        self._find(priority, f"no_{means.replace(' ', '_')}", task.ref, f"{reason}; {hint}: {known[means]}", cure)
        return True

    def _replicated(self, task: Reindex, reason: str, table: Table) -> bool:
        why = {**self.lacks, **table.lacks}.get("local rebuild", "")
        if not why or self.policy.force or table.total_bytes <= self.policy.replicated_max_size:
            return False
        self._find(2, "replicated_rebuild", task.ref, f"{reason}; a rebuild is left to you: {why}", task)
        return True

    def _gained_little(self, ref: Ref, needs: list[Need], size: int) -> bool:
        """Only bloat can wait."""
        if any(n.what != "bloated" for n in needs):
            return False
        message = gained_little(self.measured.past.get((REINDEX, ref)), size)
        if message:
            self._find(3, "natural_size", ref, message)
        return bool(message)

    # ---- collations --------------------------------------------------------------------------------------------------

    def _collations(self, rebuilds: list[Step]) -> list[Step]:
        """A collation's version is refreshed after all that sorts by it: from then on the server warns no more."""
        coming = {step.task.ref: step.key for step in rebuilds}
        known = {index.ref: index for index in self.database.indexes}
        steps = []
        for changed in self.database.collations:
            stored = [ref for ref in changed.dependents if not (ref in known and known[ref].partitioned)]
            due = [ref for ref in stored if not (ref in known and rebuilt(known[ref], self.measured))]
            left = [str(ref) for ref in due if ref not in coming]
            if left or changed.others:
                self._waits(changed, left)
            else:
                steps.append(_refresh(changed, [coming[ref] for ref in due], len(stored)))
        return steps

    def _waits(self, changed: Collation, left: list[str]) -> None:
        """Refreshing would silence the server's warning while something may still be in the wrong order."""
        some = ", ".join([*left, *changed.others][:5])
        more = "" if len(left) + len(changed.others) <= 5 else ", …"
        why = "are not rebuilt" if not changed.others else "depend on it, and only you can check what is no index"
        message = f"{_mismatch(changed)}; it is not refreshed, since these {why}: {some}{more}"
        self._find(1, "collation_mismatch", changed.ref, message, RefreshCollation(changed.ref))


def _mismatch(changed: Collation) -> str:
    name = f"collation {changed.ref}" if changed.ref.path else "the database's collation"
    return f"{name} was version {changed.recorded}, is {changed.actual}"


def _refresh(changed: Collation, after: list[tuple[str, Ref]], number: int) -> Step:
    reason = f"{_mismatch(changed)}, and all that sorts by it is rebuilt ({say_count(number, 'index', 'indexes')})"
    measured = {"recorded": changed.recorded, "actual": changed.actual, "indexes": number}
    return Step(RefreshCollation(changed.ref), reason, measured, rank=(9, 0.0), after=tuple(after))


def _drop(several: list[Leftover]) -> DropLeftover:
    names = tuple(dict.fromkeys(name for found in several for name in found.names))
    return DropLeftover(several[0].ref, REINDEX, names, several[0].table)


def _dropping(several: list[Leftover]) -> Step:
    task = _drop(several)
    size = sum(found.bytes for found in several)
    reason = f"left behind by an interrupted reindex: {', '.join(task.names)}"
    return Step(task, reason, {"leftovers": list(task.names)}, Amount(bytes=size), (8, float(size)), size=size)


def _limits(policy: Policy) -> tuple[Limit, ...]:
    found = [Limit(f"{what}_missing", 0, "skip") for what in ("disk", "wal", "tmp")]
    if policy.online:
        found.append(Limit("oldest_snapshot", policy.max_snapshot_age, "skip"))
    if policy.max_replica_lag is not None:
        found.append(Limit("replica_lag", policy.max_replica_lag, "wait"))
    return tuple(found)
