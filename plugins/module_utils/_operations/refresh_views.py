# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHICH materialized views are due for a refresh, in which order, and WHY. Pure: no SQL, no I/O, no clock."""

from __future__ import annotations

import typing as t

from .._errors import BadInput
from .._records import Database, Finding, Limit, Measured, Note, Plan, Ref, Server, Step, Wants
from .._selection import Patterns, names_of
from .._structure import View
from .._tasks import RefreshView
from .._tuples import NamedTuple
from .._units import duration, say_count, say_seconds

OPTIONS: dict[str, t.Any] = {
    "views": {"type": "list", "elements": "str", "default": ["*"]},
    "concurrent": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
    "stale_only": {"type": "bool", "default": True},
    "max_age": {"type": "str"},
}

KIND = "refresh"
ROOM = 10  # a view is weighed against the free space only where less than so many of it would fit
LISTED = 5  # views that one finding names


class Policy(NamedTuple):
    views: Patterns
    relations: Patterns  # the option `tables`, which takes views, too: only what both take is refreshed
    concurrent: str
    force: bool  # refresh what is not stale, too
    max_age: float | None
    max_replica_lag: float | None


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    age = None if params.get("max_age") is None else duration(params["max_age"], "max_age")
    if age is not None and age <= 0:
        raise BadInput(
            f"max_age: after {params['max_age']} every view would be due, every time",
            cure="Say stale_only: false for that, or give a longer time",
        )
    lag = params.get("max_replica_lag")
    return Policy(
        views=Patterns(params["views"], "views"),
        relations=Patterns(["*"] if params.get("tables") is None else params["tables"], "tables"),
        concurrent=params["concurrent"],
        force=not params["stale_only"],
        max_age=age,
        max_replica_lag=None if lag is None else duration(lag, "max_replica_lag"),
    )


def wants(policy: Policy, server: Server) -> Wants:
    """What must be measured: nothing where the engine has no materialized views. `activity` has the free space."""
    there = KIND not in server.lacks
    return Wants(views=there, activity=there)


def doubts(policy: Policy, measured: Measured) -> Wants:
    """Nothing: a view is read as it is."""
    return Wants()


def plan(policy: Policy, measured: Measured) -> Plan:
    """The views that are due, each after those that it reads, and the findings that no refresh can cure."""
    server = measured.server
    findings: list[Finding] = list(server.findings)
    if KIND in server.lacks:
        findings.append(Finding(3, "not_for_this_engine", Ref(""), f"nothing to refresh: {server.lacks[KIND]}"))
        return Plan((), tuple(findings))
    steps: list[Step] = []
    for database in measured.databases:
        findings += database.findings
        if not database.system:
            steps += _Planner(policy, measured, database, findings).steps()
    findings += _no_such_views(policy, measured)
    return Plan(tuple(steps), tuple(dict.fromkeys(findings)))


def _no_such_views(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    """A typing error would else do nothing, silently."""
    there = {name for d in measured.databases for view in d.views for name in names_of(view.ref)}
    for name in policy.views.literal:
        if name not in there:
            message = f"views: no selected database has a materialized view {name}, or this login may not see it"
            yield Finding(2, "no_such_view", Ref(""), message, fix="Mend the option views, or remove the name")


class _Planner:
    """Plans one database; what no step can cure goes to the findings."""

    def __init__(self, policy: Policy, measured: Measured, database: Database, findings: list[Finding]) -> None:
        self.policy, self.measured, self.database, self.findings = policy, measured, database, findings
        self.lacks = {**measured.server.lacks, **database.lacks}
        self.known = {view.ref: view for view in database.views}
        self.refused: dict[str, list[View]] = {}  # by the reason

    def steps(self) -> list[Step]:
        steps: dict[Ref, Step] = {}
        for view in in_order(self.database.views):
            if self.policy.views.takes(*names_of(view.ref)) and self.policy.relations.takes(*names_of(view.ref)):
                step = self._step(view, steps)
                if step:
                    steps[view.ref] = step
        for why, views in self.refused.items():
            self._refuse(why, views)
        return list(steps.values())

    def _find(self, priority: int, code: str, view: View, message: str, fix: str = "") -> None:
        self.findings.append(Finding(priority, code, view.ref, message, fix=fix))

    def _refuse(self, why: str, views: t.Sequence[View]) -> None:
        """One finding for all views that the login may not refresh."""
        some, more = views[:LISTED], " …" if len(views) > LISTED else ""
        message = f"{why}: {', '.join(str(v.ref) for v in some)}{more}"
        ref = views[0].ref if len(views) == 1 else Ref(self.database.name)
        fix = ";\n".join(dict.fromkeys(v.fix for v in views if v.fix))
        self.findings.append(Finding(2, "may_not_refresh", ref, message, fix=fix))

    def _step(self, view: View, before: t.Mapping[Ref, Step]) -> Step | None:
        """The step of this view, given those of the views that it may read; None where none is due or possible."""
        fresh = [ref for ref in view.reads if ref in before and ref != view.ref]
        note = self.measured.notes.get((KIND, view.ref))
        reason = self._reason(view, note, [ref for ref in fresh if not before[ref].skip])
        if view.unknown and self.policy.max_age is None and not self.policy.force:
            self._unseen(view)
        if not reason:
            return None
        if KIND in view.lacks:
            self.refused.setdefault(view.lacks[KIND], []).append(view)
            return None
        concurrently = view.populated and self.policy.concurrent != "never" and bool(view.unique)
        if view.populated and self.policy.concurrent == "always" and not view.unique:
            message = f"{reason}; a refresh would lock readers out: no unique index on plain columns covers all rows"
            fix = "CREATE UNIQUE INDEX on the columns that tell its rows apart, or set concurrent to auto"
            self._find(2, "no_concurrent_refresh", view, message, fix)
            return None
        return Step(
            RefreshView(view.ref, concurrently),
            reason,
            self._numbers(view, note),
            rank=self._rank(view, note),
            size=view.bytes,
            after=tuple((KIND, ref) for ref in fresh),
            limits=self._limits(view),
            skip=self._hindered(view, before),
        )

    def _reason(self, view: View, note: Note | None, fresh: t.Sequence[Ref]) -> str:
        """Why a refresh is due, or nothing."""
        if not view.populated:
            return "never filled: reading it is an error"
        if self.policy.force:
            return "asked for, stale or not"
        if note is None:
            # Where nothing can ever be seen, only an age makes it due: it would else be due without a journal for ever.
            return "no refresh is on record" if view.state is not None or self.policy.max_age is not None else ""
        if note.at == self.measured.server.now:
            return ""  # made in this very run: what has changed since then is the next run's
        if view.state is not None and view.state != note.text:
            tables = say_count(view.sources, "source table") if view.sources else "what it reads"
            return f"{tables} changed since the last refresh {say_seconds(self._age(note))} ago"
        if fresh:
            return f"it reads {', '.join(str(ref) for ref in fresh)}, refreshed before it"
        if self.policy.max_age is not None and self._age(note) >= self.policy.max_age:
            return f"last refresh {say_seconds(self._age(note))} ago, over {say_seconds(self.policy.max_age)}"
        return ""

    def _age(self, note: Note) -> float:
        return max(0.0, (self.measured.server.now - note.at).total_seconds())

    def _unseen(self, view: View) -> None:
        """It goes stale in a way that nobody sees, and no age was given."""
        seen = "changes of its tables make it due, but it also" if view.state is not None else "never due: it"
        message = f"{seen} {view.unknown}, which no counter shows"
        self._find(3, "staleness_unknown", view, message, "Set max_age to refresh it at least so often")

    def _hindered(self, view: View, before: t.Mapping[Ref, Step]) -> str:
        """On a server that cannot be written to, steps are shown and skipped; what reads an empty view cannot run."""
        why = next((self.lacks[name] for name in ("write", "session") if name in self.lacks), "")
        empty = [r for r in view.reads if r in self.known and not self.known[r].populated and r not in before]
        return why or (f"it reads {empty[0]}, which was never filled" if empty else "")

    def _numbers(self, view: View, note: Note | None) -> dict[str, t.Any]:
        found: dict[str, t.Any] = {"bytes": view.bytes, "sources": view.sources, "populated": view.populated}
        return {**found, "refreshed_seconds_ago": round(self._age(note))} if note else found

    def _rank(self, view: View, note: Note | None) -> tuple[int, float]:
        """Views that nobody can read first; then those that have waited longest for the time that they take."""
        return (0 if view.populated else 1, self._age(note) if note else 0.0)

    def _limits(self, view: View) -> tuple[Limit, ...]:
        found = []
        free = [space.free for space in self.database.spaces if space.free is not None]
        if free and min(free) < ROOM * view.bytes:
            found += [Limit("disk_missing", 0, "skip"), Limit("wal_missing", 0, "skip")]
        if self.policy.max_replica_lag is not None:
            found.append(Limit("replica_lag", self.policy.max_replica_lag, "wait"))
        return tuple(found)


def in_order(views: t.Sequence[View]) -> list[View]:
    """Each view after those that it reads. A circle, which replaced views can make, is cut where it closes."""
    known = {view.ref: view for view in views}
    placed: dict[Ref, View] = {}
    for first in sorted(known):
        path, seen = [first], {first}  # depth first without recursion: a chain may be longer than Python's stack
        while path:
            waits = [r for r in known[path[-1]].reads if r in known and r not in placed and r not in seen]
            if waits:
                seen.add(waits[0])
                path.append(waits[0])
            else:
                ref = path.pop()
                placed.setdefault(ref, known[ref])
    return list(placed.values())
