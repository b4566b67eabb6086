# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHEN a table needs vacuum, analyze, freeze or reclaim: options, policy, thresholds. What is done: vacuum.py."""

from __future__ import annotations

import typing as t

from .._errors import BadInput
from .._records import Measured, Table
from .._selection import Patterns
from .._tuples import NamedTuple
from .._units import duration, percentage, say_bytes, say_count, say_seconds, size

ACTIONS = ["vacuum", "analyze", "freeze", "reclaim"]

OPTIONS: dict[str, t.Any] = {
    "actions": {"type": "list", "elements": "str", "choices": ACTIONS, "default": ACTIONS},
    "dead_percent": {"type": "float", "default": 10.0},
    "min_dead_rows": {"type": "int", "default": 1000},
    "max_dead_rows": {"type": "int", "default": 10000000},
    "changed_percent": {"type": "float", "default": 10.0},
    "min_changed_rows": {"type": "int", "default": 50},
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

# What a table of this kind may need. A partitioned parent stores no rows; catalogs are the server's own business but
# for the age of their transaction ids; a file is rebuilt whole.
NEEDED_BY = {
    "table": frozenset(ACTIONS),
    "matview": frozenset(ACTIONS),
    "partition": frozenset(ACTIONS),
    "partitioned": frozenset(["analyze"]),
    "catalog": frozenset(["freeze"]),
    "file": frozenset(["reclaim", "vacuum"]),
}


class Policy(NamedTuple):
    tables: Patterns
    actions: frozenset[str]
    dead_percent: float
    min_dead_rows: int
    max_dead_rows: int
    changed_percent: float
    min_changed_rows: int
    analyze_max_age: float
    freeze_age_percent: float
    vacuum_cost_delay: float | None
    reclaim_percent: float
    reclaim_min_size: int
    reclaim_max_size: int
    reclaim_replicated_max_size: int
    reclaim_max_snapshot_age: float
    online: bool
    force: bool
    max_replica_lag: float | None


class Need(NamedTuple):
    what: str  # vacuum, analyze, freeze, reclaim
    reason: str
    measured: dict[str, t.Any]
    safety: int = 0


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    for name in ("min_dead_rows", "max_dead_rows", "min_changed_rows"):
        if params[name] < 0:
            raise BadInput(f"{name}: {params[name]} is negative", cure="Give a number of rows")
    delay = params.get("vacuum_cost_delay")
    if delay is not None and not 0 <= delay <= 100:
        raise BadInput(f"vacuum_cost_delay: {delay:g} is out of range", cure="Give milliseconds from 0 to 100")
    if not params["actions"]:
        raise BadInput("actions: the list is empty", cure=f"Name some of {', '.join(ACTIONS)}")
    tables = Patterns(["*"] if params.get("tables") is None else params["tables"], "tables")
    if params["force"] and not tables.named:
        raise BadInput("force would take every table", cure="Name the tables that you mean in the option tables")
    smallest, largest = (size(params[f"reclaim_{end}_size"], f"reclaim_{end}_size") for end in ("min", "max"))
    if smallest > largest and "reclaim" in params["actions"]:
        raise BadInput(
            f"reclaim_min_size {say_bytes(smallest)} is over reclaim_max_size {say_bytes(largest)}",
            cure="No table could ever be reclaimed; mend one of them, or take reclaim out of actions",
        )
    lag = params.get("max_replica_lag")
    return Policy(
        tables=tables,
        actions=frozenset(params["actions"]),
        dead_percent=percentage(params["dead_percent"], "dead_percent"),
        min_dead_rows=params["min_dead_rows"],
        max_dead_rows=params["max_dead_rows"],
        changed_percent=percentage(params["changed_percent"], "changed_percent", most=1e6),
        min_changed_rows=params["min_changed_rows"],
        analyze_max_age=duration(params["analyze_max_age"], "analyze_max_age"),
        freeze_age_percent=percentage(params["freeze_age_percent"], "freeze_age_percent", most=1000, zero=False),
        vacuum_cost_delay=delay,
        reclaim_percent=percentage(params["reclaim_percent"], "reclaim_percent", zero=False),
        reclaim_min_size=smallest,
        reclaim_max_size=largest,
        reclaim_replicated_max_size=size(params["reclaim_replicated_max_size"], "reclaim_replicated_max_size"),
        reclaim_max_snapshot_age=duration(params["reclaim_max_snapshot_age"], "reclaim_max_snapshot_age"),
        online=params["reclaim_method"] == "online",
        force=params["force"],
        max_replica_lag=None if lag is None else duration(lag, "max_replica_lag"),
    )


# ---- one function a threshold. To add one: an option, a field of Policy, a function here, its name in NEEDS ---------


def own(table: Table, policy: Policy, name: str) -> float:
    """The object's own setting where it has one, else the policy's."""
    return float(table.own.get(name, getattr(policy, name)))


def dead_rows(table: Table, policy: Policy, measured: Measured) -> Need | None:
    if not table.dead:
        return None
    rows, percent, limit = table.dead.rows, table.dead.percent, own(table, policy, "dead_percent")
    facts = {"dead_rows": rows, "dead_percent": round(percent, 1)}
    if rows and rows >= policy.max_dead_rows:
        return Need("vacuum", f"dead rows {rows:,} over {policy.max_dead_rows:,}", facts)
    if rows and rows >= own(table, policy, "min_dead_rows") and percent >= limit:
        return Need("vacuum", f"dead rows {percent:.0f} % ({rows:,}) over {limit:g} %", facts)
    return None


def many_inserts(table: Table, policy: Policy, measured: Measured) -> Need | None:
    if table.insert_limit is None or not table.inserted or table.inserted <= table.insert_limit:
        return None
    why = f"{table.inserted:,} rows inserted since the last vacuum, over the server's {table.insert_limit:,.0f}"
    return Need("vacuum", why, {"inserted": table.inserted})


def stale_statistics(table: Table, policy: Policy, measured: Measured) -> Need | None:
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
        return Need("analyze", f"{say_count(table.changed, 'row')} changed, and no analyze is on record", facts)
    age = (measured.server.now - table.analyzed).total_seconds()
    if age >= policy.analyze_max_age:
        changed = f"{say_count(table.changed, 'row')} changed since the last analyze"
        why = f"{changed} {say_seconds(age)} ago, over {say_seconds(policy.analyze_max_age)}"
        return Need("analyze", why, {**facts, "analyzed_seconds_ago": round(age)})
    return None


def old_transaction_ids(table: Table, policy: Policy, measured: Measured) -> Need | None:
    if table.freeze_percent is None or table.freeze_percent < policy.freeze_age_percent:
        return None
    why = (
        f"transaction ids at {table.freeze_percent:.0f} % of the age of a forced freeze,"
        f" over {policy.freeze_age_percent:g} %"
    )
    return Need("freeze", why, {"freeze_percent": round(table.freeze_percent, 1)}, safety=9)


def whole(table: Table) -> float:
    """Which part of the table's own storage the bloat's percentages speak of: out-of-line values may be most of it."""
    if not table.bloat or table.bloat.percent <= 0 or not table.bytes:
        return 1.0
    return min(1.0, 100 * table.bloat.bytes / (table.bloat.percent * table.bytes))


def dead_space(table: Table, policy: Policy) -> Need | None:
    """Where bloat cannot be estimated, for want of statistics: what a vacuum empties would be bloat in the next run."""
    if not table.dead or not table.missing_statistics or table.dead.percent < policy.reclaim_percent:
        return None
    share = table.dead.percent
    why = f"dead rows {share:.0f} %: a vacuum would leave as much bloat, over {policy.reclaim_percent:g} %"
    return Need("reclaim", why, {"bloat_percent": round(share, 1), "bloat_bytes": int(table.bytes * share / 100)})


def bloated(table: Table, policy: Policy, measured: Measured) -> Need | None:
    if table.total_bytes < policy.reclaim_min_size:
        return None
    if not table.bloat:
        return dead_space(table, policy)
    if table.bloat.low * whole(table) < policy.reclaim_percent:
        return None
    why = (
        f"bloat {table.bloat.percent:.0f} % ({say_bytes(table.bloat.bytes)}) over {policy.reclaim_percent:g} %,"
        f" by {table.bloat.method}"
    )
    return Need("reclaim", why, {"bloat_percent": round(table.bloat.percent, 1), "bloat_bytes": table.bloat.bytes})


NEEDS: tuple[t.Callable[[Table, Policy, Measured], Need | None], ...] = (
    old_transaction_ids,
    dead_rows,
    many_inserts,
    stale_statistics,
    bloated,
)
