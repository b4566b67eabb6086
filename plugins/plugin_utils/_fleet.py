# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on a whole fleet as plain data: what the JSON file holds and the page shows. Pure: no clock, no file."""

from __future__ import annotations

import typing as t

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import say_bytes, say_count

from . import _night
from ._fleet_host import COUNTED, Asked, Host, read

Data = dict[str, t.Any]
Vars = t.Mapping[str, t.Any]

FORMAT = 1  # of the data, for whoever reads it by program
LARGEST = 20  # steps that are named one by one: each host's own result has them all
# The worst first.
STATES = ("failed", "unreachable", "silent", "stopped", "due", "unfinished", "done", "waiting", "healthy")
WRONG = STATES[:3]


def fleet(hosts: t.Mapping[str, Vars], asked: Asked) -> Data:
    """The whole report. `hosts` are those that were expected; of one that is not known the variables are empty."""
    known = [read(name, found, asked) for name, found in hosts.items()]
    known.sort(key=lambda host: (STATES.index(host.state), -host.urgent, -host.bytes_freed, host.name))
    findings, failures = _findings(known), _failures(known)
    return {
        "format": FORMAT,
        "title": asked.title,
        "at": asked.at.isoformat(timespec="seconds"),
        "planned": asked.planned,
        "history_seconds": asked.history if any(host.past for host in known) else None,
        "summary": _summary(known, findings, failures, asked),
        "hosts": [host.shown for host in known],
        "missing": [host.name for host in known if host.state == "silent"],
        "failures": failures,
        "findings": findings,
        "operations": _operations(known, asked),
        "steps": _largest(known),
        "databases": _databases(known, asked),
    }


# ---- sums ------------------------------------------------------------------------------------------------------------


def _summary(known: t.Sequence[Host], findings: t.Sequence[Data], failures: t.Sequence[Data], asked: Asked) -> Data:
    counts = {state: sum(host.state == state for host in known) for state in STATES}
    summary: Data = {
        "hosts": len(known),
        "states": counts,
        "due": sum(_has_work(host, asked) for host in known),
        "bytes_freed": sum(host.bytes_freed for host in known),
        "rows": sum(host.rows for host in known),
        "bytes": sum(host.shown["bytes"] or 0 for host in known),
        "bytes_per_day": _sum(host.shown["bytes_per_day"] for host in known),
        "bloat_bytes": _sum(host.shown["bloat_bytes"] for host in known),
        "urgent": sum(one["priority"] == 1 for one in findings),
        "findings": len(findings),
        "failures": len(failures),
        "late_backups": sum(host.late for host in known),
    }
    summary["trouble"] = _trouble(summary)
    summary["text"] = _said(summary, asked)
    return summary


def _has_work(host: Host, asked: Asked) -> bool:
    """Whether a run would do something there; in check mode also where something else went wrong."""
    return host.state == "due" or (asked.planned and any(one["planned"] for one in host.shown["operations"]))


def _sum(values: t.Iterable[float | None]) -> float | None:
    """None where nobody knows any of them."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _trouble(summary: Data) -> str:
    """Of hosts; empty where there is none."""
    words = (("failed", "failed"), ("unreachable", "out of reach"), ("silent", "did not report"))
    counts = summary["states"]
    return ", ".join(f"{counts[state]} of {summary['hosts']} {said}" for state, said in words if counts[state])


def _said(summary: Data, asked: Asked) -> str:
    """One line, trouble first."""
    states, hosts = summary["states"], summary["hosts"]
    good = hosts - sum(states[state] for state in WRONG)
    words = (
        [summary["trouble"], f"{good} without errors"] if summary["trouble"] else [f"{good} of {hosts} without errors"]
    )
    if summary["urgent"]:
        words.append(say_count(summary["urgent"], "urgent finding"))
    if summary["late_backups"]:
        words.append(f"{say_count(summary['late_backups'], 'database')} without a backup in time")
    foreseen = asked.planned or not any(states[state] for state in ("done", "unfinished"))
    if foreseen and states["due"]:
        words.append(f"something is due on {states['due']}")
    if summary["bytes_freed"]:
        words.append(f"{say_bytes(summary['bytes_freed'])} {'to free' if asked.planned else 'freed'}")
    if summary["rows"]:
        words.append(f"{say_count(summary['rows'], 'row')} {'to remove' if asked.planned else 'removed'}")
    return "; ".join(words)


def _operations(known: t.Sequence[Host], asked: Asked) -> list[Data]:
    """Sums by operation."""
    ran: dict[str, Data] = {}
    for host in known:
        for one in host.shown["operations"]:
            into = ran.setdefault(one["operation"], dict.fromkeys(("hosts", *COUNTED), 0))
            into["hosts"] += 1
            for key in COUNTED:
                into[key] += one[key]
    order = {name: number for number, name in enumerate(asked.operations)}
    names = sorted(ran, key=lambda name: (order.get(name, len(order)), name))
    return [{"operation": name, **ran[name], "seconds": round(ran[name]["seconds"], 1)} for name in names]


def _largest(known: t.Sequence[Host]) -> list[Data]:
    """The steps that gave most back, or removed the most rows."""
    steps = [step for host in known for step in host.steps if step["bytes_freed"] or step["rows"]]
    steps.sort(key=lambda s: (-s["bytes_freed"], -(s["rows"] or 0), s["host"], s["database"], s["object"]))
    return steps[:LARGEST]


def _databases(known: t.Sequence[Host], asked: Asked) -> Data:
    """What the charts are drawn from: databases by bloat, growth and age of their last good backup, worst first."""
    bloat = [one for host in known for one in host.bloat if one["bloat_bytes"] + one["index_bloat_bytes"]]
    growth = [one for host in known for one in host.growth if one["bytes_per_day"] > 0]
    backups = [one for host in known for one in host.backups]
    return {
        "bloat": sorted(bloat, key=lambda x: (-x["bloat_bytes"] - x["index_bloat_bytes"], x["host"], x["database"])),
        "growth": sorted(growth, key=lambda x: (-x["bytes_per_day"], x["host"], x["database"])),
        "backups": sorted(backups, key=lambda x: (-_or_never(x["age_seconds"]), x["host"], x["database"])),
        "backup_max_age_seconds": asked.backup_max_age,
    }


def _or_never(age: float | None) -> float:
    return float("inf") if age is None else age


# ---- lists -----------------------------------------------------------------------------------------------------------


def _failures(known: t.Sequence[Host]) -> list[Data]:
    """Hosts by their error, then steps; those that fail night after night first."""
    found = [failure for host in known for failure in host.failures]
    return sorted(
        found,
        key=lambda one: (STATES.index(one["state"]), one["object"] != "", -one["times"], one["host"], one["object"]),
    )


def _findings(known: t.Sequence[Host]) -> list[Data]:
    """By priority; what is the same on several hosts is there once, with their names, the commonest first."""
    groups: dict[tuple[t.Any, ...], Data] = {}
    for host in known:
        for one in host.findings:
            key = (one["priority"], one["code"], one["database"], one["object"], one["message"], one["fix"])
            if key not in groups:
                groups[key] = {**one, "name": _night.name_of(one), "hosts": []}
            groups[key]["hosts"].append(host.name)
    order = sorted(groups, key=lambda key: (key[0], key[1], -len(groups[key]["hosts"]), *map(str, key[2:])))
    return [groups[key] for key in order]
