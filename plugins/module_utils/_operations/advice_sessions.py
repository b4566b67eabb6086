# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who works too long or keeps others waiting: sessions, locks, connections, slow statements. Pure, as advice.py."""

from __future__ import annotations

import typing as t

from .._health import Backend, Health
from .._records import Finding, Measured, Ref
from .._tasks import EndPrepared, EndSession
from .._tuples import NamedTuple
from .._units import say_count, say_seconds
from .advice_policy import Policy

PREPARED = 0  # in `blocked_by`: a prepared transaction, which no session holds any more


class Chain(NamedTuple):
    """Sessions that wait, directly or through each other, for one that waits for nobody."""

    root: int
    waiting: tuple[Backend, ...]  # the longest wait first

    @property
    def longest(self) -> float | None:
        return max((b.wait_seconds for b in self.waiting if b.wait_seconds is not None), default=None)


def chains(health: Health | None) -> list[Chain]:
    """Every root and who waits for it; of sessions that wait for each other in a circle the first stands for all."""
    backends = (health.backends if health else None) or ()
    by_id = {b.id: b for b in backends if b.blocked_by}
    blockers = {b.id: b.blocked_by for b in by_id.values()}
    behind: dict[int, list[int]] = {}
    for session, ahead in blockers.items():
        for other in ahead:
            behind.setdefault(other, []).append(session)
    by_root = {root: _reached(root, behind) for root in behind if root not in blockers}
    left = set(blockers).difference(*by_root.values())
    while left:  # what waits for nobody but a circle
        ring = _circle(min(left), blockers)
        by_root[min(ring)] = _reached(min(ring), behind)
        left -= by_root[min(ring)] | ring
    found = [
        Chain(root, tuple(sorted((by_id[n] for n in all_ - {root}), key=lambda b: (-(b.wait_seconds or 0.0), b.id))))
        for root, all_ in by_root.items()
        if all_ - {root}
    ]
    return sorted(found, key=lambda c: (-len(c.waiting), c.root))


def _reached(session: int, edges: t.Mapping[int, t.Sequence[int]]) -> set[int]:
    """Everybody whom the edges lead to, the session itself too where they lead back to it."""
    seen, todo = set(), [session]
    while todo:
        for other in edges.get(todo.pop(), ()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def _circle(session: int, blockers: t.Mapping[int, tuple[int, ...]]) -> set[int]:
    """The sessions of the last circle that one who waits for no end waits for."""
    while True:
        ahead = _reached(session, blockers)
        further = next((n for n in sorted(ahead) if len(_reached(n, blockers)) < len(ahead)), None)
        if further is None:
            return ahead
        session = further


def _ref(database: str) -> Ref:
    return Ref(database)


def _who(backend: Backend) -> str:
    words = ", ".join(w for w in (backend.user, backend.application, backend.client, backend.state) if w)
    return f"session {backend.id} ({words})" if words else f"session {backend.id}"


def _said(backend: Backend) -> str:
    return f": {backend.statement}" if backend.statement else ""


def _ending(backend: Backend) -> tuple[EndSession | None, str]:
    """The cure; for what must not be ended, words instead of it."""
    if backend.keep:
        return None, f"Let it come to its end: it is {backend.keep}"
    return EndSession(_ref(backend.database), backend.id), ""


def long_work(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for backend in (measured.health.backends if measured.health else None) or ():
        cure, fix = _ending(backend)
        running, opened = backend.statement_seconds, backend.transaction_seconds
        if running is not None and running >= policy.long_query and not backend.blocked_by:
            message = f"{_who(backend)} has been at one statement for {say_seconds(running)}{_said(backend)}"
            yield Finding(2, "long_query", _ref(backend.database), message, cure, fix)
        elif opened is not None and opened >= policy.long_transaction:
            last = f"; its last statement{_said(backend)}" if backend.statement else ""
            message = f"{_who(backend)} has had a transaction open for {say_seconds(opened)}{last}"
            yield Finding(2, "long_transaction", _ref(backend.database), message, cure, fix)


def prepared(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for found in (measured.health.prepared if measured.health else None) or ():
        if found.seconds is None or found.seconds >= policy.long_transaction:
            since = f" for {say_seconds(found.seconds)}" if found.seconds is not None else ""
            owner = f" of {found.user}" if found.user else ""
            message = (
                f"the prepared transaction {found.name!r}{owner} has waited{since} for its end, and holds its locks"
            )
            cure = EndPrepared(_ref(found.database), found.name)
            if found.seconds is None:  # it may be that of a moment, on its way to be committed
                fix = "Ask its transaction manager what became of it, and end it as decided there"
                yield Finding(3, "prepared_transaction", _ref(found.database), message, fix=fix)
            else:
                yield Finding(2, "prepared_transaction", _ref(found.database), message, cure)


def blocked(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    """Each root once, with how many wait: ending the others would not help."""
    by_id = {b.id: b for b in (measured.health.backends if measured.health else None) or ()}
    for chain in chains(measured.health):
        if chain.longest is not None and chain.longest < policy.lock_wait:
            continue
        root = by_id.get(chain.root)
        count = say_count(len(chain.waiting), "session waits", "sessions wait")
        longest = f", the longest for {say_seconds(chain.longest)}" if chain.longest is not None else ""
        first = chain.waiting[0]
        sample = f", session {first.id} for {first.waits_for}" if first.waits_for else ""
        database = root.database if root else first.database
        priority = 1 if (chain.longest or 0.0) >= policy.long_query else 2
        if chain.root == PREPARED:
            message = f"{count} for a prepared transaction{longest}{sample}"
            fix = "End the prepared transaction: commit it, or roll it back"
            yield Finding(priority, "blocked", _ref(database), message, fix=fix)
            continue
        if root is None:  # gone meanwhile, or nobody that is seen: its number may be somebody else's by now
            message, cure, fix = f"{count} for session {chain.root}{longest}{sample}", None, "Look who that is"
        else:
            message = f"{count} for {_who(root)}{longest}{sample}{_said(root)}"
            cure, fix = _ending(root)
        yield Finding(priority, "blocked", _ref(database), message, cure, fix)


def connections(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    found = measured.health.connections if measured.health else None
    if found is None or found.most <= 0:
        return
    share = 100 * found.used / found.most
    if share < policy.connection_warning:
        return
    critical = share >= policy.connection_critical
    limit = policy.connection_critical if critical else policy.connection_warning
    idle = f", {found.idle} of them idle" if found.idle else ""
    message = f"{found.used} of {found.most} connections are taken ({share:.0f} %{idle}), over {limit:g} %"
    fix = "Use a connection pooler, let idle sessions end, or allow for more connections"
    yield Finding(1 if critical else 2, "connections", Ref(""), message, fix=fix)


def slow_statements(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for statement in (measured.health.statements if measured.health else None) or ():
        if statement.mean_seconds < policy.slow_statement_warning:
            continue
        critical = statement.mean_seconds >= policy.slow_statement_critical
        limit = policy.slow_statement_critical if critical else policy.slow_statement_warning
        calls = say_count(statement.calls, "call")
        message = (
            f"takes {say_seconds(statement.mean_seconds)} on average of {calls}, over {say_seconds(limit)}:"
            f" {statement.text}"
        )
        fix = "Look at its plan: an index, newer statistics or fewer rows may help"
        yield Finding(2 if critical else 3, "slow_statement", _ref(statement.database), message, fix=fix)
