# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fact db_stats: records turned into its dictionaries, and the module around it. Nothing is decided here."""

from __future__ import annotations

import typing as t

from . import _stats_parts as parts
from ._errors import BadInput
from ._health import CACHE_HITS, CONNECTIONS, DISK, STATEMENTS
from ._operations import advice
from ._operations.advice_policy import Policy
from ._protocols import Engine
from ._records import Measured, Plan, Ref
from ._report import finding_result, ordered, server_facts

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

Facts = dict[str, t.Any]
WORTH_A_SAMPLE = 1 << 20  # bytes: smaller tables fill nobody's disk


def stats_module() -> None:
    """The whole main() of db_stats_facts."""
    from ._facts import facts_module, look
    from ._operations import reindex, vacuum
    from ._options import SELECTION, execution

    def gather(module: AnsibleModule) -> Facts:
        params = module.params
        policy = advice.policy(params)
        asked: dict[str, t.Any] = {"advice": (advice, policy)}
        for name, operation in (("vacuum", vacuum), ("reindex", reindex)):  # what would be due, and take its time
            own = {option: spec.get("default") for option, spec in operation.OPTIONS.items()}
            asked[name] = (operation, operation.policy({**own, **{option: params[option] for option in SELECTION}}))
        engine, measured, plans = look(module, asked, execution(params), True)
        keep(module, measured)
        return {"db_stats": fact(policy, engine, measured, plans, params["max_results"])}

    facts_module(advice.OPTIONS, gather)


def keep(module: AnsibleModule, measured: Measured) -> None:
    """Writes sizes and readings into the journal for trends: at most one an hour, none in check mode."""
    if module.check_mode:
        return
    from ._options import journal_keep
    from ._run.journal import open_journal

    path, address, age = module.params["journal"], measured.server.address, journal_keep(module.params)
    try:
        journal = open_journal(path, address, readonly=False, warn=module.warn, keep=age)
    except BadInput as refused:  # who only reads may do so without a place to write to
        module.warn(f"No sizes are kept for trends: {refused.cause}")
        return
    with journal:
        journal.sample_all(sizes(measured), measured.server.now)


def sizes(measured: Measured) -> list[tuple[Ref, int, int | None]]:
    """What is kept: each database, its larger tables, and what the server was read at."""
    found: list[tuple[Ref, int, int | None]] = []
    for database in measured.databases:
        tables = parts.stored(database.tables)
        if database.system or not tables:
            continue
        found.append((Ref(database.name), sum(x.total_bytes for x in tables), sum(x.rows for x in tables)))
        large = [x for x in tables if x.ref.path and x.kind != "catalog" and x.total_bytes >= WORTH_A_SAMPLE]
        found += [(x.ref, x.total_bytes, x.rows) for x in large]
    health = measured.health
    if health and health.statement_calls is not None and health.statement_seconds is not None:
        found.append((STATEMENTS, int(health.statement_seconds * 1e6), health.statement_calls))
    if health and health.connections:
        found.append((CONNECTIONS, health.connections.used, health.connections.most))
    if health and health.cache_hits is not None and health.cache_asked is not None:
        found.append((CACHE_HITS, health.cache_hits, health.cache_asked))
    return [*found, *_disks(measured)]


def _disks(measured: Measured) -> list[tuple[Ref, int, int | None]]:
    """Free and total bytes of the disk of the data; of files, of each one's: they may lie on several."""
    devices = measured.server.settings.get("device") or {}
    found: dict[Ref, tuple[int, int | None]] = {}
    for database in measured.databases:
        for space in database.spaces:
            if space.free is None or space.name not in ("data", "the file"):
                continue
            file = database.name if space.name == "the file" else ""
            name = (str(devices.get(file)), file) if file else (space.name,)
            found[Ref("", (DISK, *name))] = (space.free, space.total)
    return [(ref, *sizes) for ref, sizes in found.items()]


def fact(policy: Policy, engine: Engine, measured: Measured, plans: t.Mapping[str, Plan], most: int) -> Facts:
    """The fact. `plans` has that of the advice, and of every operation whose time is to be foretold."""
    server = measured.server
    findings = ordered(plans["advice"].findings)
    recommended = [f for f in findings if f.code in advice.RECOMMENDED]
    others = [f for f in findings if f.code not in advice.RECOMMENDED]
    unknown = advice.unknown(policy, measured)
    user = [d for d in measured.databases if not d.system]
    return {
        "engine": server.engine,
        "server": {
            **server_facts(server),
            "uptime_seconds": parts.rounded(parts.of(measured.health, "uptime_seconds")),
        },
        **parts.health_facts(policy, measured, unknown),
        "transaction_ids": parts.ages(measured),
        "sizes": parts.sizes(measured),
        "rows": {d.name: sum(x.rows for x in d.tables if x.kind in ("table", "matview")) for d in user},
        "indexes": parts.indexes(measured, recommended, unknown),
        "counters": parts.counters(measured),
        "growth": parts.growth(policy, measured),
        "performance": parts.performance(measured),
        "maintenance": parts.maintenance(measured, plans),
        "recommendations": [finding_result(f, engine, server) for f in recommended[:most]],
        "findings": [finding_result(f, engine, server) for f in others[:most]],
        "unknown": unknown,
        "summary": {
            "databases": len(user),
            "tables": sum(x.kind not in ("catalog", "index", "file") for d in user for x in d.tables),
            "indexes": sum(len(parts.own_indexes(d)) for d in user),
            "bytes": sum(x.total_bytes for d in user for x in parts.stored(d.tables)),
            "recommendations": len(recommended),
            "urgent": sum(f.priority == 1 for f in recommended),
            "findings": len(others),
        },
    }
