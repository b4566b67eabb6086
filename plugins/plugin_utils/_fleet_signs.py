# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a host may be worth a call: figures of its server, and what was measured. They are judged in _alarms.py."""

from __future__ import annotations

import typing as t

from ._night import DUE, FACTS

Data = dict[str, t.Any]
Vars = t.Mapping[str, t.Any]

STATEMENTS, TABLES = 5, 10  # of each host: the slowest, the largest
DIED = "run_died"  # a finding's code
OPERATIONS = {due: name for name, due in DUE.items()}
MODULES = {fact: name for name, fact in FACTS.items()}
LONGEST = 300  # characters of a statement
YOUNG = 50.0  # percent of the age of a forced freeze: younger databases are no news


def signs(due: Vars, stats: Vars, history: Vars, results: t.Mapping[str, Vars], findings: t.Sequence[Vars]) -> Data:
    """Of one host; empty lists and None where nobody knows. What was not measured is not in `measured`."""
    sizes, used = stats.get("sizes") or {}, stats.get("connections")
    return {
        "measured": sorted(_measured(due, stats, history, results)),
        "connections_percent": used["percent"] if used else None,
        "statements": _statements(stats),
        "tables": [
            {"database": one["database"], "object": one["object"], "bytes": one["total_bytes"]}
            for one in (sizes.get("tables") or ())[:TABLES]
        ],
        "transaction_ids": _ages(stats),
        "urgent": [_urgent(one, due, stats) for one in findings if one["priority"] == 1],
        "recommended": _recommended(stats, findings),
        "asked": _asked(due),
        "done": _done(history),
        "died": _died(due, history),
    }


def _measured(due: Vars, stats: Vars, history: Vars, results: t.Mapping[str, Vars]) -> t.Iterator[str]:
    """Who else looks at these figures has to know: what was not measured has not become better."""
    if due:
        yield "assessment"
        if due.get("bloat") is not None:
            yield "bloat"
        if due.get("backups") is not None:
            yield "backups"
    if stats:
        yield "statistics"
        for name in ("connections", "slow_statements"):
            if stats.get(name) is not None:
                yield name
    if history:
        yield "history"
    if history or stats:
        yield "growth"
    yield from (f"did {operation}" for operation in results)


def _asked(due: Vars) -> dict[str, bool] | None:
    """The operations that the host is to have, and whether there is something to do; None where nobody knows."""
    if not due:
        return None
    if any(one["code"] == "not_primary" for one in due["findings"]):
        return {}  # left alone on purpose
    found = {name: one for name, one in due.items() if isinstance(one, t.Mapping) and "steps" in one}
    return {OPERATIONS.get(name, name): bool(one["due"]) for name, one in found.items() if one.get("assessed")}


def _done(history: Vars) -> dict[str, str]:
    """By the journal, when a step of each operation last ended well. Statistics alone are no vacuum."""
    found: dict[str, str] = {}
    for one in history.get("operations") or ():
        name, at = _operation(one["operation"]), one.get("last_done_at")
        if at and (name, one["kind"]) != ("vacuum", "analyze"):
            found[name] = max(at, found.get(name, at))
    return found


def _died(due: Vars, history: Vars) -> list[Data]:
    """Runs whose process is gone: by the assessment, or where the server could not be asked by the journal."""
    if due:
        told = (one for one in due["findings"] if one["code"] == DIED)
        return [{"run": str(one["message"]).partition(" ")[0], "text": one["message"]} for one in told]
    newest: dict[tuple[str, str], Vars] = {}
    for one in history.get("runs") or ():  # the newest come first
        newest.setdefault((one["server"], one["operation"]), one)
    return [
        {"run": one["operation"], "text": f"{one['operation']} began at {one['at']} and died: its process is gone"}
        for one in newest.values()
        if one["status"] == "interrupted"
    ]


def _operation(module: str) -> str:
    """Of the playbooks, by the name of its module."""
    return MODULES.get(module, module.removeprefix("db_"))


def _statements(stats: Vars) -> list[Data]:
    found = sorted(stats.get("slow_statements") or (), key=lambda one: -one["mean_seconds"])[:STATEMENTS]
    return [
        {
            "database": one["database"],
            "statement": str(one["text"])[:LONGEST],
            "mean_seconds": one["mean_seconds"],
            "calls": one["calls"],
        }
        for one in found
    ]


def _ages(stats: Vars) -> list[Data]:
    """Percent of the age at which the server freezes by force: of the database, or of its oldest table."""
    found = stats.get("transaction_ids") or {}
    ages: dict[str, float] = dict(found.get("databases") or {})
    for one in found.get("oldest") or ():
        ages[one["database"]] = max(one["percent"], ages.get(one["database"], 0.0))
    return [{"database": name, "percent": age} for name, age in sorted(ages.items()) if age >= YOUNG]


def _urgent(finding: Vars, due: Vars, stats: Vars) -> Data:
    """With who made it: only who does so again can say that it is gone."""
    source = "an operation"
    if finding in (stats.get("recommendations") or ()):
        source = "statistics"
    elif finding in (due.get("findings") or ()):
        source = "assessment"
    kept = ("code", "database", "object", "message", "fix")
    return {**{key: finding[key] for key in kept}, "source": source}


def _recommended(stats: Vars, findings: t.Sequence[Vars]) -> dict[str, int]:
    """How many of the findings, by priority, are of the kind that only statistics tell."""
    keys = ("code", "database", "object", "message")
    known = {tuple(one[key] for key in keys) for one in stats.get("recommendations") or ()}
    priorities = [str(one["priority"]) for one in findings if tuple(one[key] for key in keys) in known]
    return {priority: priorities.count(priority) for priority in sorted(set(priorities))}
