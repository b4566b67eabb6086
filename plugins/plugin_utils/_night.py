# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of the playbooks left behind on its hosts, in words. Pure: no variable is set here, nothing is decided."""

from __future__ import annotations

import typing as t

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import say_bytes, say_count, say_seconds

Vars = t.Mapping[str, t.Any]
Lines = list[str]

LISTED = 10  # steps or findings of one host: the rest is in the modules' results
URGENT = 2  # priority up to which findings are shown after maintenance


def trouble(host: Vars, operations: t.Iterable[str]) -> str:
    """What went wrong on a host, or nothing."""
    if "maintenance_error" in host:
        return str(host["maintenance_error"]).removeprefix("Task failed: ")
    for name in ("maintenance_assessed", *(f"{operation}_result" for operation in operations)):
        result = host.get(name)
        if result is not None and result.get("unreachable"):
            return f"out of reach: {result.get('msg', '')}".replace("Task failed: ", "")
    return ""


def report(hosts: t.Mapping[str, Vars], operations: t.Sequence[str], *, planned: bool, full: bool) -> Lines:
    """A few lines for each host. `planned`: check mode; `full`: what is due, and every finding."""
    lines: Lines = []
    for name, host in hosts.items():
        first, *more = _host(host, operations, planned, full)
        lines += [f"{name}: {first}", *(f"{name}:   {line}" for line in more)]
    return lines


def _host(host: Vars, operations: t.Sequence[str], planned: bool, full: bool) -> Lines:
    wrong = trouble(host, operations)
    results = {o: found for o in operations if (found := _fact(host, f"{o}_result", f"db_{o}"))}
    due = _fact(host, "maintenance_assessed", "db_due")
    words = [_done(o, fact, planned) for o, fact in results.items()]
    more = [line for fact in results.values() for line in _steps(fact)]
    if not results and due:
        words, more = [_due(due, operations)], _samples(due, operations) if full else []
    findings = _findings([due, *results.values()], 9 if full else URGENT)
    if wrong:
        words.insert(0, f"FAILED: {wrong}")
    return ["; ".join(words) or "not assessed", *more, *findings]


def _fact(host: Vars, result: str, fact: str) -> Vars:
    found = (host.get(result) or {}).get("ansible_facts", {}).get(fact)
    return found if isinstance(found, t.Mapping) else {}


def _due(due: Vars, operations: t.Sequence[str]) -> str:
    if not due["preflight"]["ok"]:
        return "not started: " + "; ".join(due["preflight"]["stopped_by"])
    words = [_amounts(o, due[o]["steps"], "due", due[o]) for o in operations if due[o]["due"]]
    return "; ".join(words) or "nothing due"


def _amounts(operation: str, steps: int, what: str, amount: Vars) -> str:
    size = f", about {say_bytes(amount['bytes'])} to free" if amount["bytes"] else ""
    return f"{operation}: {say_count(steps, 'step')} {what}{size}"


def _done(operation: str, fact: Vars, planned: bool) -> str:
    summary = fact["summary"]
    if planned:
        foreseen = [step for step in fact["steps"] if step["status"] == "planned"]
        freed = sum(step["expected"]["bytes_freed"] for step in foreseen)
        return _amounts(operation, summary["planned"], "planned", {"bytes": freed})
    words = [f"{operation}: {summary['done']} of {say_count(summary['planned'], 'step')} done"]
    words += [f"{summary[status]} {status}" for status in ("skipped", "deferred", "failed") if summary[status]]
    if summary["bytes_freed"]:
        words.append(f"{say_bytes(summary['bytes_freed'])} freed")
    return ", ".join([*words, say_seconds(summary["seconds"])])


def _steps(fact: Vars) -> Lines:
    """Steps that someone should know of: those that were not done, and those that did not help."""
    lines = []
    for step in fact["steps"]:
        named = f"{step['kind']} of {_name(step)}"
        if step["status"] in ("failed", "deferred", "skipped"):
            lines.append(f"{step['status']}: {named}: {step['error']}")
        elif step["proven"] is False:
            lines.append(f"not proven: {named}: still due after it was done")
    return _capped(lines, "steps")


def _samples(due: Vars, operations: t.Sequence[str]) -> Lines:
    lines = []
    for operation in operations:
        sample = due[operation]["sample"]
        lines += [f"due: {step['kind']} of {_name(step)}: {step['reason']}" for step in sample]
        if due[operation]["steps"] > len(sample):
            lines.append(f"and {due[operation]['steps'] - len(sample)} more steps")
    return lines


def _findings(facts: t.Iterable[Vars], least: int) -> Lines:
    """Each finding once, also when the assessment and an operation both made it."""
    found = {
        (f["code"], _name(f), f["message"]): f
        for fact in facts
        for f in fact.get("findings", ())
        if f["priority"] <= least and f["code"] not in ("outside_window", "not_primary")
    }
    lines = []
    for finding in sorted(found.values(), key=lambda f: f["priority"]):
        cure = f" | fix: {' '.join(finding['fix'].split())}" if finding["fix"] else ""
        where = f"{_name(finding)}: " if _name(finding) else ""
        lines.append(f"finding ({finding['priority']}): {where}{finding['message']}{cure}")
    return _capped(lines, "findings")


def _name(thing: Vars) -> str:
    """Database and object; an object that is the database itself is named once."""
    database, name = thing["database"], thing["object"]
    return f"{database} {name}" if database and name not in ("", database) else name or database


def _capped(lines: Lines, what: str) -> Lines:
    return lines if len(lines) <= LISTED else [*lines[:LISTED], f"and {len(lines) - LISTED} more {what}"]
