# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The read-only modules: one measurement, the planners asked, facts returned and nothing else. Never a write."""

from __future__ import annotations

import gc
import time
import typing as t

from ._errors import DbFault
from ._frame import Memory, Stages, choice
from ._options import CONNECTION, EXECUTION, SELECTION, asked_for, execution
from ._protocols import Engine, Operation
from ._records import Execution, Measured, Plan, Server

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ._past import Died

Facts = dict[str, t.Any]
READING = {
    name: EXECUTION[name]
    for name in ("jobs", "lock_timeout", "journal", "journal_keep", "allow_untested", "max_results")
}
OPERATIONS = ("vacuum", "reindex", "refresh_views", "cleanup", "backup", "rotate")
PLANNERS = ("vacuum", "reindex", "refresh_views", "cleanup", "backup", "rotate", "preflight")
SAMPLE = 10  # steps an operation in db_due: a fleet's results cost memory on the controller


def facts_module(spec: t.Mapping[str, t.Any], gather: t.Callable[[AnsibleModule], Facts]) -> None:
    """The whole main() of a module that returns facts: its options, errors and exit."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(argument_spec={**CONNECTION, **SELECTION, **READING, **spec}, supports_check_mode=True)
    gc.disable()  # a fifth of the time where there are thousands of objects, all of which live until the end
    try:
        module.exit_json(changed=False, ansible_facts=gather(module))
    except DbFault as fault:
        module.fail_json(msg=str(fault))
    finally:
        gc.enable()


def look(
    module: AnsibleModule, asked: t.Mapping[str, tuple[Operation, t.Any]], how: Execution, memory: bool
) -> tuple[Engine, Measured, dict[str, Plan]]:
    """One measurement and the plan of every operation; with what the journal remembers, where `memory` is wanted."""
    from ._engines import open_engine
    from ._run.watch import Watch

    # Whoever connects looks for client programs, too: where backups are assessed, in the folder that they would take.
    programs = (module.params.get("backup") or {}).get("bin_dir")
    engine = open_engine({**module.params, "bin_dir": programs}, how)
    address = asked_for(module.params)
    watch = Watch(engine, patience=2.0 * module.params["connect_timeout"])
    try:
        chosen = choice(module.params, engine)
        server = watch.run(engine.greet)
        address = server.address
        stages = Stages(engine, server, asked, chosen, how)
        known, rates, died = _remembered(module, address, stages.wants.samples) if memory else (Memory(), {}, ())
        measured, plans = watch.run(lambda: stages.plans(known))
    except DbFault as fault:
        raise type(fault)(
            f"{address}: {fault.cause}" if address else fault.cause,
            database=fault.database,
            obj=fault.obj,
            cure=fault.cure,
        ) from fault
    finally:
        watch.close()
    if memory:
        from ._run.forecast import forecast

        plans = {n: forecast(p, known.past, rates, known.overdue, server.now) for n, p in plans.items()}
    if died:
        from ._operations.died import findings

        plans["journal"] = Plan(findings=findings(died))
    return engine, measured, plans


def _remembered(
    module: AnsibleModule, address: str, samples: bool
) -> tuple[Memory, t.Mapping[str, float], t.Sequence[Died]]:
    from ._run.journal import open_journal

    with open_journal(module.params["journal"], address, readonly=True, warn=module.warn) as journal:
        sizes = journal.samples() if samples else {}
        memory = Memory(journal.past(), journal.overdue(), journal.owned(), journal.notes(), sizes)
        return memory, journal.rates(), journal.died()


# ---- db_bloat_facts --------------------------------------------------------------------------------------------------


def bloat_module() -> None:
    """The whole main() of db_bloat_facts."""
    from ._operations import bloat

    def gather(module: AnsibleModule) -> Facts:
        from ._report import bloat_result, finding_result, ordered, server_facts, totals

        policy = bloat.policy(module.params)
        engine, measured, plans = look(module, {"bloat": (bloat, policy)}, execution(module.params), False)
        server, most = measured.server, module.params["max_results"]
        objects = sorted(bloat.selected(policy, measured), key=lambda x: x.bloat.bytes if x.bloat else -1, reverse=True)
        databases = {d.name: totals(d, policy.min_size) for d in measured.databases}
        bloated = [x for x in objects if x.bloat and x.bloat.low >= policy.bloat_percent]
        fact = {
            "engine": server.engine,
            "server": server_facts(server),
            "objects": [bloat_result(x, policy.bloat_percent) for x in objects[:most]],
            "databases": databases,
            "findings": [finding_result(f, engine, server) for f in ordered(plans["bloat"].findings)[:most]],
            "summary": {
                "objects": len(objects),
                "bloated": len(bloated),
                "unknown": sum(x.bloat is None for x in objects),
                "bloat_bytes": sum(d["bloat_bytes"] for d in databases.values()),
                "index_bloat_bytes": sum(d["index_bloat_bytes"] for d in databases.values()),
            },
        }
        return {"db_bloat": fact}

    facts_module(bloat.OPTIONS, gather)


# ---- db_assess_facts -------------------------------------------------------------------------------------------------


def assess_options() -> dict[str, t.Any]:
    """A dictionary of that module's own options for every operation that can be assessed, and the preflight's."""
    from ._operations import (
        advice_policy,
        backup_options,
        preflight,
        refresh_views,
        reindex_needs,
        retention_options,
        rotation_options,
        vacuum_needs,
    )

    return {
        "statistics": {"type": "bool", "default": True},
        "statistics_options": {"type": "dict", "options": advice_policy.OPTIONS},
        "vacuum": {"type": "dict", "options": vacuum_needs.OPTIONS},
        "reindex": {"type": "dict", "options": reindex_needs.OPTIONS},
        "refresh_views": {"type": "dict", "options": refresh_views.OPTIONS},
        "cleanup": {"type": "dict", "options": retention_options.OPTIONS},
        "backup": {"type": "dict", "options": backup_options.OPTIONS},
        "rotate": {"type": "dict", "options": rotation_options.OPTIONS},
        "count_timeout": {"type": "str", "default": "30s"},
        "preflight": {"type": "dict", "options": preflight.OPTIONS},
    }


def assess_module() -> None:
    """The whole main() of db_assess_facts."""

    def gather(module: AnsibleModule) -> Facts:
        began, params = time.monotonic(), module.params
        how = execution(params)
        planners = {name: _planner(name) for name in PLANNERS if params[name] is not None}
        shared = {name: params[name] for name in (*SELECTION, "count_timeout")}
        asked = {n: (p, p.policy({**params[n], **shared})) for n, p in planners.items()}
        if params["statistics"]:
            asked["advice"] = _advice(params)
        engine, measured, plans = look(module, asked, how, True)
        facts: Facts = {"db_due": _due(engine, measured, plans, params["max_results"], time.monotonic() - began)}
        if params["statistics"]:
            from . import _stats

            _stats.keep(module, measured)
            facts["db_stats"] = _stats.fact(asked["advice"][1], engine, measured, plans, params["max_results"])
        return facts

    facts_module(assess_options(), gather)


def _planner(name: str) -> Operation:
    """Imported only when it is asked for. By names of its own, so that Ansible packs it."""
    if name == "reindex":
        from ._operations import reindex

        return reindex
    if name == "refresh_views":
        from ._operations import refresh_views

        return refresh_views
    if name == "cleanup":
        from ._operations import retention

        return retention
    if name == "backup":
        from ._operations import backup

        return backup
    if name == "rotate":
        from ._operations import rotation

        return rotation
    if name == "preflight":
        from ._operations import preflight

        return preflight
    from ._operations import vacuum

    return vacuum


def _advice(params: t.Mapping[str, t.Any]) -> tuple[Operation, t.Any]:
    """The recommendations by the options given, and by their defaults."""
    from ._operations import advice

    given = params["statistics_options"] or {name: spec["default"] for name, spec in advice.OPTIONS.items()}
    return advice, advice.policy({**given, **{name: params[name] for name in SELECTION}})


def _due(engine: Engine, measured: Measured, plans: t.Mapping[str, Plan], most: int, seconds: float) -> Facts:
    from . import _standing
    from ._operations import preflight
    from ._report import finding_result, ordered, server_facts

    server = measured.server
    # What this engine has no use for is no news where all operations are asked at once.
    findings = [f for p in plans.values() for f in p.findings if f.code != "not_for_this_engine"]
    flight = plans.get("preflight", Plan())
    stops = preflight.stopping(flight.findings)
    fact: Facts = {
        "engine": server.engine,
        "server": server_facts(server),
        "databases": [d.name for d in measured.databases],
        "preflight": {"assessed": "preflight" in plans, "ok": not stops, "stopped_by": [f.message for f in stops]},
        "findings": [finding_result(f, engine, server) for f in ordered(findings)[:most]],
        "bloat": _standing.bloat(measured) if plans.keys() & {"vacuum", "reindex"} else None,
        "backups": _standing.backups(measured) if measured.shelf else None,
        "seconds": round(seconds, 3),
    }
    for name in OPERATIONS:
        fact[name] = _operation_due(name in plans, plans.get(name, Plan()), engine, server)
    fact["due"] = any(fact[name]["due"] for name in OPERATIONS)
    waits = any(f.code in ("outside_window", "not_primary") for f in findings)
    fact["idle"] = waits or (not stops and not fact["due"])
    return fact


def _operation_due(assessed: bool, plan: Plan, engine: Engine, server: Server) -> Facts:
    from ._report import rows_expected

    due = [s for s in plan.steps if not s.skip]
    rows = [rows_expected(s) for s in due if not s.projected]  # a vacuum of what will be dead then counts none twice
    sample = [
        {
            "database": s.task.ref.database,
            "object": str(s.task.ref),
            "kind": s.task.kind,
            "reason": s.reason,
            "statements": list(engine.spell(s.task, server)),
        }
        for s in due[:SAMPLE]
    ]
    return {
        "assessed": assessed,
        "due": bool(due),
        "steps": len(due),
        "skipped": len(plan.steps) - len(due),
        "bytes": sum(s.expected.bytes for s in due),
        "rows": None if None in rows else sum(n for n in rows if n is not None),
        "seconds": round(sum(s.expected.seconds for s in due), 3),
        "sample": sample,
    }
