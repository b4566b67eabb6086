# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host left behind, for the fleet's report: read leniently, for a host may have failed at any point. Pure."""

from __future__ import annotations

import typing as t
from datetime import datetime

from . import _night
from ._fleet_signs import signs

Data = dict[str, t.Any]
Vars = t.Mapping[str, t.Any]

BACKUP = "backup"  # the operation that makes them
STATUSES = ("done", "skipped", "deferred", "failed")
COUNTED = ("planned", *STATUSES, "unproven", "rows", "bytes_freed", "bytes_written", "seconds")
FACTS = ("db_due", "db_stats", "db_history", "db_bloat")


class Asked(t.NamedTuple):
    """What the report is to be like. Durations in seconds."""

    title: str
    at: datetime
    operations: tuple[str, ...]
    planned: bool = False  # a run in check mode
    history: float = 86400.0  # how far back the journals are looked into, where they were read
    backup_max_age: float = 93600.0


class Host(t.NamedTuple):
    name: str
    state: str
    shown: Data  # its element of `hosts`
    findings: list[Vars]
    failures: list[Data]
    steps: list[Data]
    bloat: list[Data]
    growth: list[Data]
    backups: list[Data]
    urgent: int = 0
    bytes_freed: int = 0
    rows: int = 0
    late: int = 0  # databases whose last good backup is too old
    past: bool = False  # what it did is told by its journal, and was not this run's


class _Read(t.NamedTuple):
    """The facts of a host; empty ones where it has none."""

    due: Vars
    stats: Vars
    history: Vars
    bloat: Vars
    results: dict[str, Vars]
    wrong: str
    lost: bool

    @property
    def silent(self) -> bool:
        return not (self.wrong or self.due or self.stats or self.history or self.bloat or self.results)


def variables(host: Vars, operations: t.Iterable[str]) -> Vars:
    """What `read` looks at, each taken once: Ansible makes the whole of a variable anew each time it is asked for."""
    registered = ("maintenance_assessed", "maintenance_error", "maintenance_history")
    names = (*registered, *(f"{operation}_result" for operation in operations))
    found = {name: host[name] for name in names if name in host}
    return found or {name: host[name] for name in ("ansible_facts",) if name in host}


def gathered(
    variables_of: t.Mapping[str, Vars], names: t.Iterable[str], operations: t.Sequence[str]
) -> dict[str, Vars]:
    """What each of these hosts left, out of `hostvars`; of one that Ansible does not know nothing."""
    known = set(variables_of)  # of others it would hand out something undefined
    return {name: variables(variables_of[name], operations) if name in known else {} for name in dict.fromkeys(names)}


def read(name: str, host: Vars, asked: Asked) -> Host:
    """Never raises over what is missing."""
    found = _facts_of(host, asked)
    ran = [_counted(operation, fact) for operation, fact in found.results.items()]
    past = [] if ran else _past(found, asked)
    operations = ran or past
    findings = _night.findings(found.due or found.stats, found.results, asked.operations)
    steps = _steps(name, found, asked)
    backups = _backups(name, found, asked)
    growth, bloat = _growth(name, found), _bloat(name, found)
    ages = [one["age_seconds"] for one in backups]
    state = _state(found, ran, asked)
    urgent = sum(finding["priority"] == 1 for finding in findings)
    late = sum(age is None or age > asked.backup_max_age for age in ages)
    shown = {
        "host": name,
        "state": state,
        "text": _night.outline(found.due, found.results, asked.operations, planned=asked.planned),
        "error": found.wrong or None,
        **_server(found),
        "bytes_per_day": sum(one["bytes_per_day"] for one in growth) if growth else None,
        "bloat_bytes": _bloat_bytes(found),
        "days_until_full": _days_until_full(found),
        "backup_age_seconds": max((age for age in ages if age is not None), default=None) if ages else None,
        "databases_without_backup": sum(age is None for age in ages) if backups else None,
        "late_backups": late,
        "urgent": urgent,
        "findings": len(findings),
        "operations": operations,
        "signs": signs(found.due, found.stats, found.history, found.results, findings),
    }
    return Host(
        name,
        state,
        shown,
        list(findings),
        _failures(name, state, found),
        steps,
        bloat,
        growth,
        backups,
        urgent,
        sum(one["bytes_freed"] for one in operations),
        sum(one["rows"] for one in operations if one["operation"] == _night.OF_ROWS),
        late,
        bool(past),
    )


def _facts_of(host: Vars, asked: Asked) -> _Read:
    results = _night.results_of(host, asked.operations)
    due, stats = (_night.fact_of(host, "maintenance_assessed", fact) for fact in ("db_due", "db_stats"))
    history = _night.fact_of(host, "maintenance_history", "db_history")
    wrong = _night.trouble(host, asked.operations)
    bloat: Vars = {}
    if not (results or due or stats or history or wrong):
        # A playbook of somebody's own: then its facts count. Where ours ran they may be those of an earlier run.
        facts = host.get("ansible_facts") or {}
        due, stats, history, bloat = ((facts.get(name) or {}) for name in FACTS)
        names = {o: _night.FACTS.get(o, f"db_{o}") for o in asked.operations}
        results = {operation: facts[fact] for operation, fact in names.items() if facts.get(fact)}
    lost = wrong.startswith(_night.OUT_OF_REACH)
    return _Read(due, stats, history, bloat, results, wrong, lost)


# ---- how it is -------------------------------------------------------------------------------------------------------


def _state(found: _Read, operations: t.Sequence[Data], asked: Asked) -> str:
    if found.wrong:
        return "unreachable" if found.lost else "failed"
    if found.silent:
        return "silent"
    if any(one["failed"] for one in operations):
        return "failed"
    if found.due and not found.due["preflight"]["ok"] and not found.due["idle"]:
        return "stopped"
    if any(one["deferred"] or one["unproven"] for one in operations) and not asked.planned:
        return "unfinished"
    if any(one["planned"] for one in operations):
        return "due" if asked.planned else "done"
    if found.due.get("due"):
        return "waiting" if found.due["idle"] else "due"
    return "healthy"


def _server(found: _Read) -> Data:
    fact = found.due or found.stats or found.bloat or next(iter(found.results.values()), {})
    server = fact.get("server") or {}
    sums = found.stats.get("summary") or {}
    bloat = found.due.get("bloat") or {}
    databases = found.due.get("databases")
    return {
        "engine": fact.get("engine"),
        "version": server.get("version"),
        "role": server.get("role"),
        "address": server.get("address"),
        "databases": sums.get("databases", len(databases) if databases is not None else None),
        "bytes": sums.get("bytes", bloat.get("bytes")),
    }


def _days_until_full(found: _Read) -> float | None:
    days = [disk.get("days_until_full") for disk in found.history.get("disks") or ()]
    days.append((found.stats.get("growth") or {}).get("days_to_full"))
    return min((day for day in days if day is not None), default=None)


def _counted(operation: str, fact: Vars) -> Data:
    summary = fact.get("summary") or {}
    counts = {key: summary.get(key) or 0 for key in ("planned", *STATUSES)}
    foreseen = [step for step in fact.get("steps", ()) if step["status"] == "planned"]
    expected = [step["expected"] for step in foreseen]
    return {
        "operation": operation,
        **counts,
        "unproven": sum(step["proven"] is False for step in fact.get("steps", ())),
        "rows": summary.get("rows") or sum(one.get("rows") or 0 for one in expected),
        # A purge frees bytes inside of its table: what the vacuum after it gives back is counted there.
        "bytes_freed": 0 if operation == _night.OF_ROWS else _freed(summary, expected),
        "bytes_written": summary.get("bytes_written") or 0,
        "seconds": summary.get("seconds") or 0.0,
    }


def _past(found: _Read, asked: Asked) -> list[Data]:
    """As _counted, of what the journal tells of the last hours."""
    by_operation: dict[str, Data] = {}
    for step in found.history.get("steps") or ():
        if not _within(step["at"], asked):
            continue
        name = str(step["operation"]).removeprefix("db_")
        sums = by_operation.setdefault(name, {"operation": name, **dict.fromkeys(COUNTED, 0)})
        sums["planned"] += 1
        if step["status"] in STATUSES:
            sums[step["status"]] += 1
        sums["unproven"] += step.get("proven") is False
        sums["rows"] += step.get("rows") or 0
        sums["bytes_freed"] += 0 if name == _night.OF_ROWS else step.get("bytes_freed") or 0
        sums["seconds"] += step.get("seconds") or 0
    return list(by_operation.values())


def _freed(summary: Vars, expected: t.Sequence[Vars]) -> int:
    return int(summary.get("bytes_freed") or sum(one.get("bytes_freed") or 0 for one in expected))


# ---- what it did -----------------------------------------------------------------------------------------------------


def _steps(name: str, found: _Read, asked: Asked) -> list[Data]:
    """Of this run, or where nothing ran what the journal tells of the last hours."""
    steps = [
        _step(name, operation, step, step["actual"] or step["expected"])
        for operation, fact in found.results.items()
        for step in fact.get("steps", ())
        if step["status"] in ("done", "planned")
    ]
    if steps:
        return steps
    return [
        _step(name, str(step["operation"]).removeprefix("db_"), step, step)
        for step in found.history.get("steps") or ()
        if step["status"] == "done" and _within(step["at"], asked)
    ]


def _step(name: str, operation: str, step: Vars, amount: Vars) -> Data:
    return {
        "host": name,
        "operation": operation,
        "kind": step["kind"],
        "database": step["database"],
        "object": step["object"],
        "name": _night.name_of(step),
        "reason": step["reason"],
        "bytes_freed": 0 if operation == _night.OF_ROWS else amount.get("bytes_freed") or 0,
        "rows": amount.get("rows") if operation == _night.OF_ROWS else None,
        "seconds": amount.get("seconds"),
    }


def _within(at: t.Any, asked: Asked) -> bool:
    try:
        return (asked.at - datetime.fromisoformat(str(at))).total_seconds() <= asked.history
    except (ValueError, TypeError):  # no moment, or one without a zone
        return False


def _failures(name: str, state: str, found: _Read) -> list[Data]:
    """The host's own error, each step that failed, and what failed night after night by the journal."""
    known = {
        (one.get("database"), one.get("object"), one.get("kind")): one for one in found.history.get("failures") or ()
    }
    failures = []
    for operation, fact in found.results.items():
        for step in fact.get("steps", ()):
            if step["status"] == "failed":
                again = known.pop((step["database"], step["object"], step["kind"]), {})
                failures.append(_failure(name, state, operation, step, again))
    for one in known.values():
        operation = str(one.get("operation") or "").removeprefix("db_")
        failures.append(_failure(name, state, operation, one, one))
    # A module that failed names what has failed: then there is nothing new in the error of its host.
    if found.wrong and not (failures and all(str(one["error"]) in found.wrong for one in failures)):
        nothing = {"database": "", "object": "", "kind": "", "error": found.wrong}
        failures.insert(0, _failure(name, state, "", nothing, {}))
    return failures


def _failure(name: str, state: str, operation: str, step: Vars, again: Vars) -> Data:
    return {
        "host": name,
        "state": state,
        "operation": operation,
        "kind": step["kind"],
        "database": step["database"],
        "object": step["object"],
        "name": _night.name_of(step),
        "error": step["error"] or "it was killed",
        "times": again.get("times") or 1,
        "since": again.get("since"),
    }


# ---- its databases ---------------------------------------------------------------------------------------------------


def _bloat_bytes(found: _Read) -> int | None:
    sums = found.due.get("bloat") or found.bloat.get("summary")
    return sums["bloat_bytes"] + sums["index_bloat_bytes"] if sums else None


def _bloat(name: str, found: _Read) -> list[Data]:
    databases = (found.due.get("bloat") or {}).get("databases")
    if databases is None:
        databases = [{"database": key, **one} for key, one in (found.bloat.get("databases") or {}).items()]
    kept = ("database", "bytes", "bloat_bytes", "index_bloat_bytes")
    return [{"host": name, **{key: one[key] for key in kept}} for one in databases]


def _growth(name: str, found: _Read) -> list[Data]:
    """By the journal; what has no trend yet is left out."""
    if found.history:
        known = [one for one in found.history.get("databases") or () if one.get("bytes_per_day") is not None]
    else:
        growth = found.stats.get("growth") or {}
        known = [{"database": key, **one} for key, one in (growth.get("databases") or {}).items()]
    return [
        {
            "host": name,
            "database": one["database"],
            "bytes": one.get("bytes"),
            "bytes_per_day": one["bytes_per_day"],
            "days_until_full": one.get("days_until_full"),
            "points": [list(point) for point in one.get("points") or ()] if found.history else [],
        }
        for one in known
    ]


def _backups(name: str, found: _Read, asked: Asked) -> list[Data]:
    """Age of the last good backup, as the assessment found it; or 0 where this run has made a better one.

    `at` is when the newest of all began, and nothing where this run has made it.
    """
    known = found.due.get("backups")
    if known is None:
        return []
    steps = (found.results.get(BACKUP) or {}).get("steps", ())
    made = {s["database"] for s in steps if s["kind"] in ("dump", "verify") and s["status"] == "done" and s["proven"]}
    # A server as a whole, whose backup all databases share. What belongs to none is backed up beside its databases.
    whole = made == {""} and len({one["age_seconds"] for one in known}) == 1
    return [
        {
            "host": name,
            "database": one["database"],
            "age_seconds": 0 if whole or one["database"] in made else one["verified_age_seconds"],
            "newest_age_seconds": 0 if whole or one["database"] in made else one["age_seconds"],
            "at": None if whole or one["database"] in made else one["at"],
        }
        for one in known
    ]
