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
LISTED_FULL = 40
URGENT = 2  # priority up to which findings are shown after maintenance
LABEL = 12  # columns
OF_ROWS = "cleanup"  # the operation whose rows are worth a word
FACTS = {"rotate_backups": "db_backup_rotate"}  # of operations whose module is called otherwise
DUE = {"rotate_backups": "rotate"}  # their names in db_due
OUT_OF_REACH = "out of reach: "  # how the trouble of such a host begins
AFTERWARDS = ("vacuum", "freeze", "analyze")  # kinds of steps that it takes for what it leaves behind


def trouble(host: Vars, operations: t.Iterable[str]) -> str:
    """What went wrong on a host, or nothing."""
    if "maintenance_error" in host:
        return str(host["maintenance_error"]).removeprefix("Task failed: ")
    for name in ("maintenance_assessed", *(f"{operation}_result" for operation in operations)):
        result = host.get(name)
        if result is not None and result.get("unreachable"):
            return f"{OUT_OF_REACH}{result.get('msg', '')}".replace("Task failed: ", "")
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
    results = results_of(host, operations)
    due = fact_of(host, "maintenance_assessed", "db_due")
    stats = fact_of(host, "maintenance_assessed", "db_stats")
    words = outline(due, results, operations, planned=planned)
    more = [line for fact in results.values() for line in _steps(fact)]
    if not results and due:
        more = _samples(due, operations) if full else []
    if wrong:
        words = f"FAILED: {wrong}" + (f"; {words}" if words else "")
    found = findings(due, results, operations, least=None if full else URGENT)
    told = _told_lines(found, _advised(stats), full)
    return [words or "not assessed", *(_server(stats) if full else ()), *more, *told]


def results_of(host: Vars, operations: t.Iterable[str]) -> dict[str, Vars]:
    """What each operation returned on a host, by its name."""
    return {o: found for o in operations if (found := fact_of(host, f"{o}_result", FACTS.get(o, f"db_{o}")))}


def outline(due: Vars, results: t.Mapping[str, Vars], operations: t.Sequence[str], *, planned: bool) -> str:
    """What was done on a host, or else what is due there; empty where nobody knows."""
    if results:
        return "; ".join(_done(o, fact, planned) for o, fact in results.items())
    return _due(due, operations) if due else ""


def _labelled(label: str, words: str) -> str:
    return f"{label:<{LABEL}}{words}"


def fact_of(host: Vars, result: str, fact: str) -> Vars:
    """A fact in a registered result, also of a module that failed; empty where there is none."""
    found = (host.get(result) or {}).get("ansible_facts", {}).get(fact)
    return found if isinstance(found, t.Mapping) else {}


def _due(due: Vars, operations: t.Sequence[str]) -> str:
    if not due["preflight"]["ok"]:
        return "not started: " + "; ".join(due["preflight"]["stopped_by"])
    known = [(o, due[DUE.get(o, o)]) for o in operations]
    words = [_amounts(o, found["steps"], "due", found) for o, found in known if found["due"]]
    return "; ".join(words) or "nothing due"


def _amounts(operation: str, steps: int, what: str, amount: Vars) -> str:
    words = [f"{operation}: {say_count(steps, 'step')} {what}"]
    if operation == OF_ROWS and steps:
        rows = amount["rows"]
        words.append("an unknown number of rows" if rows is None else say_count(rows, "row"))
    if amount["bytes"]:
        words.append(f"about {say_bytes(amount['bytes'])} {'of them' if operation == OF_ROWS else 'to free'}")
    return ", ".join(words)


def _done(operation: str, fact: Vars, planned: bool) -> str:
    summary = fact["summary"]
    if planned:
        foreseen = [step for step in fact["steps"] if step["status"] == "planned"]
        freed = sum(step["expected"]["bytes_freed"] for step in foreseen)
        rows = _rows(foreseen) if operation == OF_ROWS else 0
        return _amounts(operation, summary["planned"], "planned", {"bytes": freed, "rows": rows})
    words = [f"{operation}: {summary['done']} of {say_count(summary['planned'], 'step')} done"]
    words += [f"{summary[status]} {status}" for status in ("skipped", "deferred", "failed") if summary[status]]
    if operation == OF_ROWS and summary["planned"]:
        words.append(f"{say_count(summary['rows'], 'row')} ({say_bytes(summary['bytes_freed'])}) removed")
    elif summary["bytes_freed"]:
        words.append(f"{say_bytes(summary['bytes_freed'])} freed")
    return ", ".join([*words, say_seconds(summary["seconds"])])


def _rows(steps: t.Iterable[Vars]) -> int | None:
    """That would leave; None where some could not be counted."""
    rows = [step["expected"]["rows"] for step in steps if step["kind"] not in AFTERWARDS]
    return None if None in rows else sum(rows)


def _steps(fact: Vars) -> Lines:
    """Steps that someone should know of: those that were not done, and those that did not help."""
    lines = []
    for step in fact["steps"]:
        named = f"{step['kind']} of {name_of(step)}"
        if step["status"] in ("failed", "deferred", "skipped"):
            lines.append(_labelled(step["status"], f"{named}: {step['error']}"))
        elif step["proven"] is False:
            lines.append(_labelled("not proven", f"{named}: still due after it was done"))
    return _capped(lines, "steps", LISTED)


def _samples(due: Vars, operations: t.Sequence[str]) -> Lines:
    lines = []
    for operation in operations:
        found = due[DUE.get(operation, operation)]
        sample = found["sample"]
        lines += [_labelled("due", f"{step['kind']} of {name_of(step)}: {step['reason']}") for step in sample]
        if found["steps"] > len(sample):
            lines.append(_labelled("", f"and {found['steps'] - len(sample)} more steps of {operation}"))
    return lines


def _told(due: Vars, results: t.Sequence[Vars], operations: t.Sequence[str]) -> set[tuple[str, str]]:
    """Database and statement of the steps that are shown as due, planned or done: no finding has to ask for them."""
    steps = [s for fact in results for s in fact["steps"] if s["status"] in ("planned", "done")]
    if not results and due:
        steps = [s for operation in operations for s in due[DUE.get(operation, operation)]["sample"]]
    return {(step["database"], statement) for step in steps for statement in step["statements"]}


def _advised(stats: Vars) -> set[tuple[str, str]]:
    return {(f["code"], name_of(f)) for f in stats.get("recommendations", ())}


def findings(
    due: Vars, results: t.Mapping[str, Vars], operations: t.Sequence[str], *, least: int | None = None
) -> list[Vars]:
    """Each finding of a host once, also when the assessment and an operation both made it, the urgent first.

    But for those that ask for what a step does, and, with `least`, those of a lower priority.
    """
    found = {
        (f["code"], name_of(f), f["message"]): f
        for fact in (due, *results.values())
        for f in fact.get("findings", ())
        if (least is None or f["priority"] <= least) and f["code"] not in ("outside_window", "not_primary")
    }
    told = _told(due, list(results.values()), operations)
    ordered = sorted(found.items(), key=lambda item: (item[1]["priority"], item[0]))
    return [f for _key, f in ordered if (f["database"], " ".join((f["fix"] or "").split())) not in told]


def _told_lines(found: t.Iterable[Vars], advised: t.Container[t.Any], full: bool) -> Lines:
    """Below each finding what helps."""
    lines = []
    for finding in found:
        fix, name = " ".join((finding["fix"] or "").split()), name_of(finding)
        kind = "advice" if (finding["code"], name) in advised else "finding"
        where = f"{name}: " if name else ""
        lines.append(_labelled(f"{kind} ({finding['priority']})", f"{where}{finding['message']}"))
        if fix:
            lines[-1] += f"\n{_labelled('  fix', fix)}"
    shown = _capped(lines, "findings", LISTED_FULL if full else LISTED)
    return [part for line in shown for part in line.split("\n")]


def _server(stats: Vars) -> Lines:
    """What the server is, how full and how busy. What it does not tell is left out."""
    if not stats:
        return []
    server, sums, health = stats["server"], stats["summary"], stats["performance"]
    words = [f"{stats['engine']} {server['version']}, {server['role']}"]
    if server["uptime_seconds"] is not None:
        words.append(f"up {say_seconds(server['uptime_seconds'])}")
    if stats["connections"]:
        used = stats["connections"]
        words.append(f"{used['used']} of {used['most']} connections ({used['percent']:.0f} %)")
    if health["cache_hit_percent"] is not None:
        words.append(f"cache hits {health['cache_hit_percent']:.1f} %")
    data = [
        f"{say_bytes(sums['bytes'])} in {say_count(sums['databases'], 'database')}",
        say_count(sums["tables"], "table"),
        say_count(sums["indexes"], "index", "indexes"),
    ]
    data += [f"{say_bytes(disk['free'])} free for {name}" for name, disk in (stats["sizes"]["disks"] or {}).items()]
    if stats["growth"]["bytes_per_day"] is not None:
        data.append(f"growing by {say_bytes(stats['growth']['bytes_per_day'])} a day")
    lines = [_labelled("server", "; ".join(words)), _labelled("data", "; ".join(data))]
    if stats["maintenance"]["seconds"]:
        lines.append(_labelled("work due", f"about {say_seconds(stats['maintenance']['seconds'])}"))
    return lines


def name_of(thing: Vars) -> str:
    """Database and object; an object that is the database itself is named once."""
    database, name = thing["database"], thing["object"]
    return f"{database} {name}" if database and name not in ("", database) else name or database


def _capped(lines: Lines, what: str, most: int) -> Lines:
    return lines if len(lines) <= most else [*lines[:most], _labelled("", f"and {len(lines) - most} more {what}")]
