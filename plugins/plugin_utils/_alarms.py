# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong in a fleet by the data of its report: one alarm a thing, with its level. Pure: no clock, no state.

An alarm that stands already ends only well below its limit, so that a figure around the limit does not call all day.
Whom to tell, and who knows already: _calls.py.
"""

from __future__ import annotations

import json
import typing as t
from datetime import datetime

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import (
    duration,
    say_bytes,
    say_count,
    say_seconds,
)

from ._fleet import WRONG
from ._night import name_of

Data = t.Mapping[str, t.Any]

WARNING, CRITICAL = "warning", "critical"
CALM = 0.9  # of a limit: what stands ends below this
AGAIN = 3  # nights in a row from which on a failing step is critical
NAMED = 80  # characters of a statement that it is known by
# By the order in which they are told.
KINDS = (
    *("unreachable", "missing", "failed", "overdue", "urgent", "backup", "transaction_ids", "connections", "disk"),
    *("statements", "growth", "bloat", "table"),
)
# Findings whose figure is judged by a limit of ours.
# After how long without one an operation is overdue, in the words of the option. The usual plan rebuilds once a week.
MAX_AGES = {
    "backup": "26h",
    "cleanup": "26h",
    "vacuum": "26h",
    "reindex": "8d",
    "refresh_views": "26h",
    "rotate_backups": "26h",
}
MAX_SECONDS = {operation: duration(age, operation) for operation, age in MAX_AGES.items()}
TOLD_BY_FIGURES = ("connections", "slow_statement", "wraparound", "growth", "disk_full", "large_table")
CONTACT, RAN, KNOWN = "contact", "ran", "known"  # evidence beside what signs() calls measured


class Limits(t.NamedTuple):
    """From when on something is an alarm: warning and critical. 0 is never."""

    kinds: tuple[str, ...] = KINDS
    connections: tuple[float, float] = (80.0, 95.0)  # percent
    statements: tuple[float, float] = (2.0, 5.0)  # seconds
    backup: tuple[float, float] = (93600.0, 180000.0)  # seconds
    transaction_ids: tuple[float, float] = (100.0, 150.0)  # percent of the age of a forced freeze
    disk: tuple[float, float] = (30.0, 7.0)  # days until it is full
    bloat: tuple[float, float] = (30.0, 0.0)  # percent
    bloat_min_size: int = 1 << 30  # bytes
    growth: tuple[float, float] = (float(100 << 20), 0.0)  # bytes a day
    table: tuple[float, float] = (float(1 << 30), 0.0)  # bytes
    overdue: float = 93600.0  # seconds
    operations: t.Mapping[str, float] = MAX_SECONDS


class Alarm(t.NamedTuple):
    kind: str
    host: str
    subject: str  # database and object, or whatever tells it from others of its kind on its host
    level: str
    text: str
    fix: str | None = None
    needs: tuple[str, ...] = (KNOWN,)  # any of these has to be known of its host before it can be said to be over

    @property
    def key(self) -> str:
        return json.dumps([self.kind, self.host, self.subject])


class Known(t.NamedTuple):
    """What earlier runs left: levels of what stands, by key, with its beginning; when each host was last well."""

    levels: t.Mapping[str, str]
    since: t.Mapping[str, datetime]
    well: t.Mapping[str, datetime]
    did: t.Mapping[str, t.Mapping[str, datetime]] = {}  # of each host, the operations that it has, as well()


def evidence(data: Data, ran: t.Collection[str]) -> dict[str, set[str]]:
    """What is known of each host: only that can end an alarm. `ran`: operations that this run has carried out."""
    found = {}
    for host in data["hosts"]:
        known = {KNOWN, *host["signs"]["measured"]}
        if host["state"] not in ("unreachable", "silent"):
            known.add(CONTACT)
        if ran and went_well(host):
            known |= {RAN, *(f"did {operation}" for operation in ran)}
        found[host["host"]] = known
    return found


def went_well(host: Data) -> bool:
    """Whether a run came to its end there; one that was not its time to run did."""
    return host["state"] not in (*WRONG, "stopped")


def alarms(data: Data, limits: Limits, known: Known, ran: t.Collection[str], now: datetime) -> dict[str, Alarm]:
    """Everything that is wrong, by key."""
    judge = _Judge(limits, known, ran, now)
    found: list[Alarm | None] = []
    for host in data["hosts"]:
        found += [*judge.host(host), *judge.server(host)]
    for failure in _by_operation(data["failures"]):
        found.append(judge.failure(failure))
    databases = data["databases"]
    found += [judge.backup(one) for one in databases["backups"]]
    found += [judge.bloat(one) for one in databases["bloat"]]
    found += [judge.growth(one) for one in databases["growth"]]
    return {alarm.key: alarm for alarm in found if alarm and alarm.kind in limits.kinds}


def _by_operation(failures: t.Iterable[Data]) -> list[dict[str, t.Any]]:
    """A host whose two hundred tables all failed has failed once."""
    found: dict[tuple[str, str], dict[str, t.Any]] = {}
    for one in failures:
        first = found.setdefault((one["host"], one["operation"]), {**one, "count": 0})
        first["count"] += 1
        first["times"] = max(first["times"], one["times"])
    return list(found.values())


class _Judge:
    def __init__(self, limits: Limits, known: Known, ran: t.Collection[str], now: datetime) -> None:
        self.limits, self.known, self.ran, self.now = limits, known, ran, now

    def _judged(self, alarm: Alarm, value: float, limits: tuple[float, float]) -> Alarm | None:
        """With the level that its value deserves."""
        before = self.known.levels.get(alarm.key)
        warning, critical = limits
        if critical and value >= critical * (CALM if before == CRITICAL else 1):
            return alarm._replace(level=CRITICAL)
        if warning and value >= warning * (CALM if before else 1):
            return alarm._replace(level=WARNING)
        return None

    # ---- hosts ---------------------------------------------------------------------------------------------------

    def host(self, host: Data) -> t.Iterator[Alarm | None]:
        name, state = host["host"], host["state"]
        if state == "unreachable":
            text = str(host["error"] or "").removeprefix("out of reach: ")
            yield Alarm("unreachable", name, "", CRITICAL, f"out of reach: {text}", needs=(CONTACT,))
        if state == "silent":
            yield Alarm("missing", name, "", CRITICAL, "was expected and did not report", needs=(CONTACT,))
        late = self._overdue(host)
        yield late
        for alarm in self._operations(name):
            # Where nothing runs at all that is said once.
            if not late or alarm.key in self.known.levels:
                yield alarm
        for one in host["signs"].get("died", ()):
            # Not the words, which have a time: nobody is called twice for a night.
            needs = ("assessment", "history")
            yield Alarm("failed", name, f"{one['run']} died", WARNING, one["text"], needs=needs)

    def _overdue(self, host: Data) -> Alarm | None:
        if self.ran and went_well(host):
            return None
        last = self.known.well.get(host["host"])
        age = (self.now - last).total_seconds() if last else 0.0
        if not self.limits.overdue or age < self.limits.overdue:
            return None
        return Alarm("overdue", host["host"], "", CRITICAL, f"no run without errors for {say_seconds(age)}")

    def _operations(self, host: str) -> t.Iterator[Alarm]:
        """What a run has carried out there before, and none does any more, beside others that do."""
        for operation, last in self.known.did.get(host, {}).items():
            age, limit = (self.now - last).total_seconds(), self.limits.operations.get(operation, 0.0)
            if limit and age >= max(limit, self.limits.overdue):
                text = f"no run without errors for {say_seconds(age)}"
                yield Alarm("overdue", host, operation.replace("_", " "), WARNING, text)

    def failure(self, one: Data) -> Alarm | None:
        """An error of the host itself, or all that failed in one operation."""
        if one["state"] == "unreachable" and not one["operation"]:
            return None
        if not one["operation"]:
            needs = (RAN,) if self.ran else ("assessment",)
            return Alarm("failed", one["host"], "", CRITICAL, str(one["error"]), needs=needs)
        times = f", {say_count(one['times'], 'time')} in a row" if one["times"] > 1 else ""
        others = f"; and {one['count'] - 1} more" if one["count"] > 1 else ""
        text = f"{one['kind']} of {one['name']} failed{times}: {one['error']}{others}"
        level = CRITICAL if one["times"] >= AGAIN else WARNING
        return Alarm("failed", one["host"], one["operation"], level, text, needs=(f"did {one['operation']}", "history"))

    # ---- servers -------------------------------------------------------------------------------------------------

    def server(self, host: Data) -> t.Iterator[Alarm | None]:
        name, signs = host["host"], host["signs"]
        share = signs["connections_percent"]
        if share is not None:
            text = f"{share:.0f} % of the connections are taken"
            fix = "Use a connection pooler, let idle sessions end, or allow for more connections"
            alarm = Alarm("connections", name, "", "", text, fix, ("connections",))
            yield self._judged(alarm, share, self.limits.connections)
        days = host["days_until_full"]
        if days is not None:
            alarm = Alarm("disk", name, "", "", f"the disk is full in {days:,.0f} days", "Add space", ("growth",))
            warning, critical = (1 / limit if limit else 0.0 for limit in self.limits.disk)
            yield self._judged(alarm, 1 / days if days > 0 else float("inf"), (warning, critical))
        for one in signs["statements"]:
            words = " ".join(one["statement"].split())
            text = f"{say_seconds(one['mean_seconds'])} on average of {say_count(one['calls'], 'call')}: {words}"
            subject = f"{one['database']} {words[:NAMED]}"
            fix = "Look at its plan: an index, newer statistics or fewer rows may help"
            alarm = Alarm("statements", name, subject, "", text, fix, ("slow_statements",))
            yield self._judged(alarm, one["mean_seconds"], self.limits.statements)
        yield from self._objects(name, signs)

    def _objects(self, name: str, signs: Data) -> t.Iterator[Alarm | None]:
        for one in signs["tables"]:
            alarm = Alarm("table", name, name_of(one), "", f"takes {say_bytes(one['bytes'])}", None, ("statistics",))
            yield self._judged(alarm, one["bytes"], self.limits.table)
        for one in signs["transaction_ids"]:
            text = f"transaction ids are at {one['percent']:.0f} % of the age of a forced freeze"
            alarm = Alarm("transaction_ids", name, one["database"], "", text, "db_vacuum freezes", ("statistics",))
            yield self._judged(alarm, one["percent"], self.limits.transaction_ids)
        for one in signs["urgent"]:
            if one["code"] not in TOLD_BY_FIGURES:
                needs = (RAN if one["source"] == "an operation" else one["source"],)
                subject = f"{one['code']} {name_of(one)}".rstrip()
                yield Alarm("urgent", name, subject, CRITICAL, one["message"], one["fix"], needs)

    # ---- databases -----------------------------------------------------------------------------------------------

    def backup(self, one: Data) -> Alarm | None:
        age = one["age_seconds"]
        text = "has no backup that was read to its end"
        alarm = Alarm("backup", one["host"], one["database"], "", text, None, ("backups",))
        if age is not None:
            alarm = alarm._replace(text=f"the last backup that was read to its end is {say_seconds(age)} old")
            return self._judged(alarm, age, self.limits.backup)
        # A database of today cannot have one yet: it is late from today on.
        since = self.known.since.get(alarm.key, self.now)
        stood = (self.now - since).total_seconds()
        return self._judged(alarm, self.limits.backup[0] + stood, self.limits.backup)

    def bloat(self, one: Data) -> Alarm | None:
        wasted = one["bloat_bytes"] + one["index_bloat_bytes"]
        share = 100 * wasted / max(one["bytes"], 1)
        if one["bytes"] < self.limits.bloat_min_size:
            return None
        text = f"{share:.0f} % of {say_bytes(one['bytes'])} are bloat: a rebuild would give {say_bytes(wasted)} back"
        fix = "db_vacuum with reclaim, and db_reindex, rebuild what is worth it"
        alarm = Alarm("bloat", one["host"], one["database"], "", text, fix, ("bloat",))
        return self._judged(alarm, share, self.limits.bloat)

    def growth(self, one: Data) -> Alarm | None:
        text = f"grows by {say_bytes(one['bytes_per_day'])} a day"
        fix = "Keep only what is needed (db_cleanup), or plan for the space"
        alarm = Alarm("growth", one["host"], one["database"], "", text, fix, ("growth",))
        return self._judged(alarm, one["bytes_per_day"], self.limits.growth)
