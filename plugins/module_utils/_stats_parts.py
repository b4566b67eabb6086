# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the fact db_stats: records turned into dictionaries. Nothing is decided here; the whole is _stats.py."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ._health import CONNECTIONS, STATEMENTS
from ._operations import advice_growth, advice_sessions, trend
from ._operations.advice_policy import Policy
from ._records import Database, Finding, Measured, Plan, Ref, Sample, Table

if t.TYPE_CHECKING:
    from ._health import Backend, Health
    from ._structure import Counter, Index

Facts = dict[str, t.Any]
SHOWN = 20  # of each kind of list; recommendations and findings are capped by max_results
OLD = 50.0  # percent of the age of a forced freeze: younger tables are no news


def stored(tables: t.Sequence[Table]) -> list[Table]:
    """What has bytes of its own: a partition is contained in its table, or the other way round."""
    whole = [x for x in tables if x.kind == "file"]
    return whole or [x for x in tables if x.kind not in ("index", "partitioned") and not x.ref.partition]


def own_indexes(database: Database) -> list[Index]:
    """Those of the user's tables: the catalogs have more than a hundred in every database."""
    catalogs = {x.ref for x in database.tables if x.kind == "catalog"}
    return [i for i in database.indexes if i.table not in catalogs]


def of(health: Health | None, name: str) -> t.Any:
    return getattr(health, name) if health else None


def rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def _plain(record: t.Any) -> t.Any:
    """A record as a dictionary of what JSON knows."""
    found: Facts = {}
    for name, value in record._asdict().items():
        if isinstance(value, datetime):
            found[name] = value.isoformat()
        elif isinstance(value, float):
            found[name] = rounded(value)
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _plains(records: t.Iterable[t.Any] | None) -> list[t.Any] | None:
    return None if records is None else [_plain(record) for record in records]


# ---- the server ------------------------------------------------------------------------------------------------------


def health_facts(policy: Policy, measured: Measured, unknown: t.Mapping[str, str]) -> Facts:
    health = measured.health
    replicas, slots = of(health, "replicas"), of(health, "slots")
    known = health is not None and health.backends is not None and "backends" not in unknown
    backends: t.Sequence[Backend] = (health.backends if health else None) or ()
    long = sorted((b for b in backends if _long(policy, b)), key=lambda b: b.transaction_seconds or 0.0, reverse=True)
    slow = None if health is None or health.statements is None else health.statements[:SHOWN]
    return {
        "connections": _connections(health),
        "replication": {"role": measured.server.role, "replicas": _plains(replicas)},
        "slots": _plains(slots),
        "archiving": None if of(health, "archiver") is None else _plain(of(health, "archiver")),
        "logs": None if of(health, "logs") is None else _plain(of(health, "logs")),
        "long_queries": _plains(long[:SHOWN]) if known else None,
        "prepared_transactions": _plains(of(health, "prepared")),
        "slow_statements": _plains(slow),
        "blocking": None if health is None or health.backends is None else _blocking(health),
    }


def _long(policy: Policy, backend: Backend) -> bool:
    running, opened = backend.statement_seconds, backend.transaction_seconds
    return (running or 0.0) >= policy.long_query or (opened or 0.0) >= policy.long_transaction


def _connections(health: Health | None) -> Facts | None:
    found = health.connections if health else None
    return None if found is None else {**_plain(found), "percent": round(100 * found.used / max(found.most, 1), 1)}


def _blocking(health: Health) -> list[Facts]:
    """Who waits for nobody and is waited for, with those that wait."""
    by_id = {b.id: b for b in health.backends or ()}
    return [
        {
            "root": _plain(by_id[chain.root]) if chain.root in by_id else {"id": chain.root},
            "waiting": len(chain.waiting),
            "longest_seconds": rounded(chain.longest),
            "sessions": [_plain(b) for b in chain.waiting[:SHOWN]],
        }
        for chain in advice_sessions.chains(health)[:SHOWN]
    ]


def ages(measured: Measured) -> Facts:
    """Percent of the age at which the server freezes by force; nothing where the engine has no such thing."""
    aged = [x for d in measured.databases for x in d.tables if (x.freeze_percent or 0.0) >= OLD]
    oldest = sorted(aged, key=lambda x: x.freeze_percent or 0.0, reverse=True)[:SHOWN]
    percents = {i.name: round(i.freeze_percent, 2) for i in measured.server.databases if i.freeze_percent is not None}
    return {
        "databases": percents,
        "oldest": [{**_named(x.ref), "percent": round(x.freeze_percent or 0.0, 2)} for x in oldest],
    }


# ---- its objects -----------------------------------------------------------------------------------------------------


def _named(ref: Ref) -> Facts:
    return {"database": ref.database, "object": str(ref)}


def sizes(measured: Measured) -> Facts:
    databases = {}
    largest: list[Table] = []
    for database in measured.databases:
        tables = stored(database.tables)
        if database.system:
            continue
        databases[database.name] = {
            "bytes": sum(x.total_bytes for x in tables),
            "table_bytes": sum(x.bytes for x in tables),
            "index_bytes": sum(x.total_bytes - x.bytes for x in tables),
            "tables": sum(x.kind not in ("catalog", "index", "file") for x in database.tables),
            "indexes": len(own_indexes(database)),
        }
        largest += [x for x in tables if x.kind != "catalog"]
    largest.sort(key=lambda x: (-x.total_bytes, x.ref))
    shown = [
        {
            **_named(x.ref),
            "bytes": x.bytes,
            "total_bytes": x.total_bytes,
            "rows": x.rows,
            "dead_rows": x.dead.rows if x.dead else None,
        }
        for x in largest[:SHOWN]
    ]
    spaces = {s.name: {"free": s.free, "total": s.total} for d in measured.databases for s in d.spaces}
    return {"databases": databases, "tables": shown, "disks": spaces}


def indexes(measured: Measured, recommended: t.Sequence[Finding], unknown: t.Mapping[str, str]) -> Facts:
    """What is recommended about indexes, by name. Unused ones are None where nobody may say that there are none."""
    by_code: dict[str, list[Facts]] = {}
    for finding in recommended:
        by_code.setdefault(finding.code, []).append(_named(finding.ref))
    unused = by_code.get("unused_index", [])
    blind = any(what.startswith("unused_indexes") for what in unknown)
    own = [i for d in measured.databases if not d.system for i in own_indexes(d)]
    return {
        "count": len(own),
        "bytes": sum(i.bytes for i in own),
        "unused": unused[:SHOWN] if unused or not blind else None,
        "duplicate": by_code.get("duplicate_index", [])[:SHOWN],
        "redundant": by_code.get("redundant_index", [])[:SHOWN],
        "invalid": by_code.get("invalid_index", [])[:SHOWN],
        "missing_on_foreign_key": by_code.get("missing_foreign_key_index", [])[:SHOWN],
    }


def counters(measured: Measured) -> list[Facts]:
    """Those that are nearest to their end."""
    found = [c for d in measured.databases if d.structure for c in d.structure.counters]
    found.sort(key=lambda c: (-c.percent, c.ref))
    return [_counter(c) for c in found[:SHOWN]]


def _counter(counter: Counter) -> Facts:
    return {
        **_named(counter.ref),
        "table": str(counter.table) if counter.table else None,
        "column": counter.column or None,
        "used": counter.used,
        "most": counter.most,
        "percent": round(counter.percent, 2),
    }


# ---- time ------------------------------------------------------------------------------------------------------------


def _trend(found: trend.Trend) -> Facts:
    return {
        "bytes": int(found.last),
        "bytes_per_day": round(found.per_day),
        "points": found.points,
        "seconds": round(found.seconds),
    }


def growth(policy: Policy, measured: Measured) -> Facts:
    """Databases and tables that have a trend, and how long the disk lasts; empty under seven samples."""
    growths = advice_growth.growths(policy, measured)
    per_day, days = advice_growth.whole(policy, measured)
    tables = [g for g in growths if g.ref.path]
    return {
        "bytes_per_day": round(per_day) if any(not g.ref.path for g in growths) else None,
        "days_to_full": rounded(days, 1),
        "databases": {g.ref.database: _trend(g.bytes) for g in growths if not g.ref.path},
        "tables": [{**_named(g.ref), **_trend(g.bytes)} for g in tables[:SHOWN]],
    }


def performance(measured: Measured) -> Facts:
    health = measured.health
    since = of(health, "counted_since")
    return {
        "cache_hit_percent": rounded(of(health, "cache_hit_percent"), 2),
        "deadlocks": of(health, "deadlocks"),
        "temporary_bytes": of(health, "temporary_bytes"),
        "purge_pending": of(health, "purge_pending"),
        "counted_since": since.isoformat() if since else None,
        "statements": _mean(measured.samples.get(STATEMENTS, ())),
        "connections": _used(measured.samples.get(CONNECTIONS, ())),
    }


def _mean(samples: t.Sequence[Sample]) -> Facts | None:
    """How the mean time of all statements changes, between one sample and the next."""
    found = trend.of_ratio(samples)
    if found is None:
        return None
    return {
        "mean_seconds": round(found.last / 1e6, 6),
        "seconds_per_day": round(found.per_day / 1e6, 9),
        "points": found.points,
    }


def _used(samples: t.Sequence[Sample]) -> Facts | None:
    found = trend.of_bytes(samples)
    return (
        None if found is None else {"used": int(found.last), "per_day": rounded(found.per_day), "points": found.points}
    )


def maintenance(measured: Measured, plans: t.Mapping[str, Plan]) -> Facts:
    """What each operation that is due would take, by what the journal learned of this server; one after the other."""
    learned = {kind for kind, _ref in measured.past}
    found = {}
    for name, plan in plans.items():
        due = [s for s in plan.steps if not s.skip]
        if name not in ("advice", "preflight", "journal"):  # they plan no step
            found[name] = {
                "steps": len(due),
                "seconds": round(sum(s.expected.seconds for s in due), 3),
                "bytes": sum(s.expected.bytes for s in due),
                "learned": bool(due) and all(s.task.kind in learned for s in due),
            }
    return {"operations": found, "seconds": round(sum(x["seconds"] for x in found.values()), 3)}
