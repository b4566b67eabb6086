# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fact db_history: records turned into its dictionaries, and the module around it. Nothing is decided here."""

from __future__ import annotations

import time
import typing as t

from . import _history_parts as parts
from ._operations import history

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from ._past import Past
    from ._records import Ref

Facts = dict[str, t.Any]


def history_module() -> None:
    """The whole main() of db_history_facts."""
    from ._facts import facts_module

    def gather(module: AnsibleModule) -> Facts:
        from ._engines.addresses import addresses, databases
        from ._options import execution
        from ._run.history import read

        params = module.params
        execution(params)  # which options cannot be meant
        policy, own, takes = history.policy(params), addresses(params), databases(params)
        now = time.time()
        chosen = policy.servers.takes if policy.servers else own.__contains__
        found = read(params["journal"], chosen, since=now - policy.since, now=now)
        past = selected(found.past, policy, takes, params["databases"] != ["*"] or not policy.tables.everything)
        fact = {
            "engine": params["engine"],
            "server": {"address": own[0]},
            "journal": {"path": found.path, "why": found.why or None, "first_at": parts.moment(found.past.first)},
            "since": parts.moment(now - policy.since),
            "until": parts.moment(now),
            **whole(policy, past, params["max_results"]),
        }
        return {"db_history": fact}

    facts_module(history.OPTIONS, gather)


def selected(past: Past, policy: history.Policy, takes: t.Callable[[str], bool], some: bool) -> Past:
    """What the options take. With `some` databases or tables, only runs that had to do with them."""
    if not some:
        return past

    def ours(ref: Ref) -> bool:
        return bool(ref.database) and takes(ref.database) and policy.takes(ref)

    things = {number for number, thing in past.things.items() if ours(thing.ref)}
    steps = tuple(step for step in past.steps if step.thing in things)
    runs = {step.run for step in steps}
    return past._replace(
        steps=steps,
        runs=tuple(run for run in past.runs if run.id in runs),
        streaks=tuple(streak for streak in past.streaks if streak.thing in things),
        series=tuple(s for s in past.series if not s.ref.database or takes(s.ref.database)),
        backed=tuple(b for b in past.backed if takes(b.database)),
    )


def whole(policy: history.Policy, past: Past, most: int) -> Facts:
    """Everything in the fact that comes from the journal."""
    operations = {run.id: run.operation for run in past.runs}
    runs = parts.runs_of(past)
    growths = history.growths(policy, past.series)
    disks = history.disks(growths, past.series)
    databases = [g for g in growths if not g.ref.path]
    tables = [g for g in growths if g.ref.path]
    failures = sorted(past.streaks, key=lambda s: (-s.times, -s.last))
    return {
        "servers": [parts.known(k) for k in past.known[:most]],
        "runs": runs[:most],
        "steps": [parts.step(step, past, operations) for step in past.steps[: -most - 1 : -1]],
        "operations": parts.operations_of(past, operations),
        "failures": [parts.failure(streak, past) for streak in failures[:most]],
        "predictions": [parts.prediction(p) for p in history.predictions(past)],
        "databases": [parts.database(policy, g, tables, disks) for g in databases[:most]],
        "disks": [parts.disk(d) for d in disks[:most]],
        "performance": [parts.reading(r) for r in history.performance(past.series)[:most]],
        "backups": [parts.backed(b) for b in past.backed[:most]],
        "summary": {
            "runs": len(runs),
            "failed_runs": sum(r["status"] in ("failed", "interrupted") for r in runs),
            "steps": len(past.steps),
            "failed_steps": sum(s.status in ("failed", "interrupted") for s in past.steps),
            "failures": len(failures),
            "databases": len(databases),
            "tables": len(tables),
            "bytes_freed": sum(r["bytes_freed"] for r in runs),
            "rows": sum(r["rows"] for r in runs),
            "seconds": round(sum(r["seconds"] or 0.0 for r in runs), 3),
        },
    }
