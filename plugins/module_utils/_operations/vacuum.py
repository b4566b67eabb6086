# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHAT is due for vacuum, analyze, freeze and reclaim, and WHY. Pure: no SQL, no I/O, no clock, no engine's name."""

from __future__ import annotations

import typing as t

from .._records import (
    Amount,
    Analyze,
    BadInput,
    Database,
    DropLeftover,
    Finding,
    Key,
    Leftover,
    Limit,
    Measured,
    Plan,
    Rebuild,
    Ref,
    Server,
    Step,
    Table,
    Task,
    Vacuum,
    Wants,
)
from .._selection import Patterns, names_of
from .._units import duration, percentage, say_bytes, say_count, say_seconds, size

ACTIONS = ["vacuum", "analyze", "freeze", "reclaim"]

OPTIONS: dict[str, t.Any] = {
    "actions": {"type": "list", "elements": "str", "choices": ACTIONS, "default": ACTIONS},
    "dead_percent": {"type": "float", "default": 10.0},
    "min_dead_rows": {"type": "int", "default": 1000},
    "max_dead_rows": {"type": "int", "default": 10000000},
    "changed_percent": {"type": "float", "default": 10.0},
    "analyze_max_age": {"type": "str", "default": "7d"},
    "freeze_age_percent": {"type": "float", "default": 50.0},
    "vacuum_cost_delay": {"type": "float"},
    "reclaim_percent": {"type": "float", "default": 30.0},
    "reclaim_min_size": {"type": "str", "default": "100MB"},
    "reclaim_max_size": {"type": "str", "default": "50GB"},
    "reclaim_replicated_max_size": {"type": "str", "default": "1GB"},
    "reclaim_max_snapshot_age": {"type": "str", "default": "10m"},
    "reclaim_method": {"type": "str", "choices": ["online", "exclusive"], "default": "online"},
    "force": {"type": "bool", "default": False},
}

# What a table of this kind may need. A partitioned parent stores no rows; catalogs are the server's own business but for
# the age of their transaction ids; a file is rebuilt whole.
NEEDED_BY = {
    "table": frozenset(ACTIONS),
    "matview": frozenset(ACTIONS),
    "partition": frozenset(ACTIONS),
    "partitioned": frozenset(["analyze"]),
    "catalog": frozenset(["freeze"]),
    "file": frozenset(["reclaim", "vacuum"]),
    "index": frozenset(),
}


class Policy(t.NamedTuple):
    tables: Patterns
    actions: frozenset[str]
    dead_percent: float
    min_dead_rows: int
    max_dead_rows: int
    changed_percent: float
    min_changed_rows: int
    analyze_max_age: float
    freeze_age_percent: float
    vacuum_cost_delay: t.Optional[float]
    reclaim_percent: float
    reclaim_min_size: int
    reclaim_max_size: int
    reclaim_replicated_max_size: int
    reclaim_max_snapshot_age: float
    online: bool
    force: bool
    max_replica_lag: t.Optional[float]


class Need(t.NamedTuple):
    what: str  # vacuum, analyze, freeze, reclaim
    reason: str
    measured: dict[str, t.Any]
    safety: int = 0


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    for name in ("min_dead_rows", "max_dead_rows"):
        if params[name] < 0:
            raise BadInput(f"{name}: {params[name]} is negative", cure="Give a number of rows")
    delay = params.get("vacuum_cost_delay")
    if delay is not None and not 0 <= delay <= 100:
        raise BadInput(f"vacuum_cost_delay: {delay:g} is out of range", cure="Give milliseconds from 0 to 100")
    tables = params.get("tables") or ["*"]
    if params["force"] and Patterns(tables, "tables").everything:
        raise BadInput("force would take every table", cure="Name the tables that you mean in the option tables")
    smallest, largest = (size(params[f"reclaim_{end}_size"], f"reclaim_{end}_size") for end in ("min", "max"))
    if smallest > largest:
        raise BadInput(
            f"reclaim_min_size {say_bytes(smallest)} is over reclaim_max_size {say_bytes(largest)}",
            cure="No table could ever be reclaimed; mend one of them, or take reclaim out of actions",
        )
    lag = params.get("max_replica_lag")
    return Policy(
        tables=Patterns(tables, "tables"),
        actions=frozenset(params["actions"]),
        dead_percent=percentage(params["dead_percent"], "dead_percent"),
        min_dead_rows=params["min_dead_rows"],
        max_dead_rows=params["max_dead_rows"],
        changed_percent=percentage(params["changed_percent"], "changed_percent", most=1e6),
        min_changed_rows=0,
        analyze_max_age=duration(params["analyze_max_age"], "analyze_max_age"),
        freeze_age_percent=percentage(params["freeze_age_percent"], "freeze_age_percent", most=1000),
        vacuum_cost_delay=delay,
        reclaim_percent=percentage(params["reclaim_percent"], "reclaim_percent"),
        reclaim_min_size=smallest,
        reclaim_max_size=largest,
        reclaim_replicated_max_size=size(params["reclaim_replicated_max_size"], "reclaim_replicated_max_size"),
        reclaim_max_snapshot_age=duration(params["reclaim_max_snapshot_age"], "reclaim_max_snapshot_age"),
        online=params["reclaim_method"] == "online",
        force=params["force"],
        max_replica_lag=None if lag is None else duration(lag, "max_replica_lag"),
    )


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
    """Tables whose bloat may lie on either side of the threshold."""
    if "reclaim" not in policy.actions or policy.force:
        return Wants()
    return Wants(
        exact=tuple(
            table.ref
            for table in tables_of(policy, measured)
            if table.bloat
            and policy.reclaim_min_size <= table.total_bytes <= policy.reclaim_max_size
            and table.bloat.low < policy.reclaim_percent <= table.bloat.high
        )
    )


def tables_of(policy: Policy, measured: Measured) -> t.Iterator[Table]:
    for database in measured.databases:
        for table in database.tables:
            if policy.tables.takes(*names_of(table.ref)):
                yield table


# ---- one function a threshold. To add one: an option, a field of Policy, a function here, its name in NEEDS -----------


def own(table: Table, policy: Policy, name: str) -> float:
    """The object's own setting where it has one, else the policy's."""
    return float(table.own.get(name, getattr(policy, name)))


def dead_rows(table: Table, policy: Policy, measured: Measured) -> t.Optional[Need]:
    if not table.dead:
        return None
    rows, percent, limit = table.dead.rows, table.dead.percent, own(table, policy, "dead_percent")
    facts = {"dead_rows": rows, "dead_percent": round(percent, 1)}
    if rows >= policy.max_dead_rows:
        return Need("vacuum", f"dead rows {rows:,} over {policy.max_dead_rows:,}", facts)
    if rows and rows >= own(table, policy, "min_dead_rows") and percent >= limit:
        return Need("vacuum", f"dead rows {percent:.0f} % ({rows:,}) over {limit:g} %", facts)
    return None


def many_inserts(table: Table, policy: Policy, measured: Measured) -> t.Optional[Need]:
    if table.insert_limit is None or not table.inserted or table.inserted <= table.insert_limit:
        return None
    why = f"{table.inserted:,} rows inserted since the last vacuum, over the server's {table.insert_limit:,.0f}"
    return Need("vacuum", why, {"inserted": table.inserted})


def stale_statistics(table: Table, policy: Policy, measured: Measured) -> t.Optional[Need]:
    if table.missing_statistics:
        why = f"no statistics for {table.missing_statistics}"
        return Need("analyze", why, {"missing_statistics": table.missing_statistics})
    if not table.changed:
        return None
    share = 100 * table.changed / max(table.rows, 1)
    limit, facts = own(table, policy, "changed_percent"), {"changed_rows": table.changed}
    if share >= limit and table.changed >= own(table, policy, "min_changed_rows"):
        return Need("analyze", f"{share:.0f} % of the rows changed since the last analyze, over {limit:g} %", facts)
    if table.analyzed is None:
        return Need("analyze", f"{say_count(table.changed, 'row')} changed, and not known to be analyzed", facts)
    age = (measured.server.now - table.analyzed).total_seconds()
    if age >= policy.analyze_max_age:
        why = f"changed since the last analyze {say_seconds(age)} ago, over {say_seconds(policy.analyze_max_age)}"
        return Need("analyze", why, facts)
    return None


def old_transaction_ids(table: Table, policy: Policy, measured: Measured) -> t.Optional[Need]:
    if table.freeze_percent is None or table.freeze_percent < policy.freeze_age_percent:
        return None
    why = (
        f"transaction ids at {table.freeze_percent:.0f} % of the age of a forced freeze,"
        f" over {policy.freeze_age_percent:g} %"
    )
    return Need("freeze", why, {"freeze_percent": round(table.freeze_percent, 1)}, safety=9)


def bloated(table: Table, policy: Policy, measured: Measured) -> t.Optional[Need]:
    if not table.bloat or table.total_bytes < policy.reclaim_min_size or table.bloat.low < policy.reclaim_percent:
        return None
    why = (
        f"bloat {table.bloat.percent:.0f} % ({say_bytes(table.bloat.bytes)}) over {policy.reclaim_percent:g} %,"
        f" by {table.bloat.method}"
    )
    return Need("reclaim", why, {"bloat_percent": round(table.bloat.percent, 1), "bloat_bytes": table.bloat.bytes})


NEEDS: tuple[t.Callable[[Table, Policy, Measured], t.Optional[Need]], ...] = (
    old_transaction_ids,
    dead_rows,
    many_inserts,
    stale_statistics,
    bloated,
)


# ---- from needs to steps ---------------------------------------------------------------------------------------------


def plan(policy: Policy, measured: Measured) -> Plan:
    """The steps that are due, and the findings that no step can cure."""
    steps: list[Step] = []
    findings: list[Finding] = list(measured.server.findings)
    for database in measured.databases:
        findings += database.findings
        drops = wreckage(policy, database, findings)
        steps += drops
        for table in database.tables:
            if policy.tables.takes(*names_of(table.ref)):
                steps += _steps(table, policy, measured, findings, database.system, {s.key for s in drops})
    lacks = measured.server.lacks
    hindered = {d.name: d.lacks for d in measured.databases}
    return Plan(tuple(_hinder(s, {**lacks, **hindered[s.task.ref.database]}) for s in steps), tuple(findings))


def wreckage(policy: Policy, database: Database, findings: list[Finding]) -> list[Step]:
    if "reclaim" not in policy.actions:
        return []
    steps = []
    for found in database.leftovers:
        if not policy.tables.takes(*names_of(found.ref)):
            continue
        if found.dead:
            steps.append(_drop(found))
        else:
            message = f"{', '.join(found.names)} of {found.what} look left behind, but {found.why_not}"
            findings.append(Finding(3, "leftover_in_use", found.ref, message))
    return steps


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


def _steps(
    table: Table, policy: Policy, measured: Measured, findings: list[Finding], system: bool, drops: set[Key]
) -> list[Step]:
    actions = policy.actions & NEEDED_BY.get(table.kind, frozenset()) - set(table.lacks)
    if system:
        actions &= {"freeze"}
    if policy.force:
        found = [Need(a, "forced", {}) for a in sorted(actions) if _can(a, table, measured.server)]
    else:
        found = [n for rule in NEEDS if (n := rule(table, policy, measured)) and n.what in actions]
    needs: dict[str, list[Need]] = {}
    for need in found:
        if not _in_vain(need, table, policy, measured, findings):
            needs.setdefault(need.what, []).append(need)
    return _fold(table, needs, policy, measured, drops)


def _can(action: str, table: Table, server: Server) -> bool:
    return action not in server.lacks and action not in table.lacks and not (action == "reclaim" and not table.bytes)


def _in_vain(need: Need, table: Table, policy: Policy, measured: Measured, findings: list[Finding]) -> bool:
    """Whether the step could not help; then a finding takes its place."""
    if need.what == "vacuum" and table.pinned_by and table.dead and table.dead.removable is not None:
        share = table.dead.removable / max(table.dead.rows, 1)
        fewer = table.dead._replace(rows=table.dead.removable, percent=table.dead.percent * share)
        if "dead_rows" in need.measured and dead_rows(table._replace(dead=fewer), policy, measured) is None:
            message = f"{need.reason}, but vacuum cannot remove them: {table.pinned_by}"
            findings.append(Finding(2, "horizon_pinned", table.ref, message))
            return True
    if need.what == "freeze" and table.freeze_floor >= policy.freeze_age_percent:
        message = f"{need.reason}, but freezing cannot help: {table.pinned_by}"
        findings.append(Finding(1, "horizon_pinned", table.ref, message))
        return True
    return need.what == "reclaim" and _no_rebuild(need, table, policy, measured, findings)


def _no_rebuild(need: Need, table: Table, policy: Policy, measured: Measured, findings: list[Finding]) -> bool:
    ref, lacks = table.ref, {**measured.server.lacks, **table.lacks}
    if policy.force:
        means = "online rebuild" if policy.online else "exclusive rebuild"
        if means in lacks:
            findings.append(Finding(2, f"no_{means.replace(' ', '_')}", ref, f"cannot be rebuilt: {lacks[means]}"))
        return means in lacks
    if table.total_bytes > policy.reclaim_max_size:
        message = f"{need.reason}; its {say_bytes(table.total_bytes)} are over reclaim_max_size"
        findings.append(Finding(3, "too_large_to_reclaim", ref, message, Rebuild(ref, policy.online)))
    elif "local rebuild" in lacks and table.total_bytes > policy.reclaim_replicated_max_size:
        message = f"{need.reason}; a rebuild is left to you: {lacks['local rebuild']}"
        findings.append(Finding(2, "replicated_rebuild", ref, message, Rebuild(ref, policy.online)))
    elif policy.online and "online rebuild" in lacks:
        cure = None if "exclusive rebuild" in lacks else Rebuild(ref, False)
        message = f"{need.reason}; not without locking writers out: {lacks['online rebuild']}"
        findings.append(Finding(2, "no_online_rebuild", ref, message, cure))
    elif not policy.online and "exclusive rebuild" in lacks:
        findings.append(Finding(2, "no_exclusive_rebuild", ref, f"{need.reason}; {lacks['exclusive rebuild']}"))
    else:
        return _gained_little(table, measured, findings)
    return True


def _gained_little(table: Table, measured: Measured, findings: list[Finding]) -> bool:
    """A rebuild that gained less than half of what was expected shows the natural size: wait for 20 % of growth."""
    last = measured.past.get(("reclaim", table.ref))
    if not last or not last.ok or 2 * (last.bytes_before - last.bytes_after) >= last.expected_bytes:
        return False
    if table.total_bytes > 1.2 * last.bytes_after:
        return False
    message = (
        f"looks bloated, but its last rebuild freed {say_bytes(last.bytes_before - last.bytes_after)} of"
        f" {say_bytes(last.expected_bytes)} expected: left alone until it has grown by 20 %"
    )
    findings.append(Finding(3, "natural_size", table.ref, message))
    return True


def _fold(
    table: Table, needs: dict[str, list[Need]], policy: Policy, measured: Measured, drops: set[Key]
) -> list[Step]:
    """The fewest steps that meet all needs of one table: a rebuild vacuums and analyzes, VACUUM (ANALYZE) does both.

    A freeze is never left to a rebuild, which a limit may stop; nor is anything else when a limit stops it now.
    """
    steps = []
    after = tuple(k for k in drops if k[1] == table.ref)
    blocked = measured.blocked.get(("reclaim", table.ref), "")
    if "reclaim" in needs:
        alone = blocked or "freeze" in needs
        merged = needs["reclaim"] if alone else [n for what in needs.values() for n in what]
        bloat = table.bloat.bytes if table.bloat else 0
        rebuild = _step(Rebuild(table.ref, policy.online), merged, table, Amount(bytes=bloat), float(bloat))
        steps.append(rebuild._replace(after=after, limits=_limits(policy), skip=blocked))
        if not alone:
            return steps
    if "vacuum" in needs or "freeze" in needs:
        merged = [n for what in ("freeze", "vacuum", "analyze") for n in needs.get(what, ())]
        task = Vacuum(
            table.ref,
            freeze="freeze" in needs,
            analyze="analyze" in needs,
            truncate="truncate" not in measured.server.lacks,
            cost_delay=policy.vacuum_cost_delay,
        )
        dead = table.dead.rows if table.dead else 0
        gain = table.bytes * (table.dead.percent / 100 if table.dead else 0.01)
        steps.insert(0, _step(task, merged, table, Amount(rows=dead), gain))
        if len(steps) > 1:
            steps[1] = steps[1]._replace(after=(*after, steps[0].key))
    elif "analyze" in needs:
        gain = table.bytes / 100
        steps.insert(
            0, _step(Analyze(table.ref, table.kind == "partitioned"), needs["analyze"], table, Amount(), gain)
        )
    return steps


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


def _hinder(step: Step, lacks: t.Mapping[str, str]) -> Step:
    """Steps on a server that cannot or must not be written to are shown, and skipped."""
    names = ["write", "session"] + (["rewrite"] if isinstance(step.task, Rebuild) else [])
    why = next((lacks[name] for name in names if name in lacks), "")
    return step._replace(skip=why) if why else step


def object_names(measured: Measured) -> t.Iterator[tuple[str, ...]]:
    """Every way to write each table, for the check that a named table exists."""
    for database in measured.databases:
        for table in database.tables:
            yield names_of(table.ref)


def sized(measured: Measured) -> dict[Ref, int]:
    """Bytes of every object that was measured."""
    return {table.ref: table.total_bytes for d in measured.databases for table in d.tables}
