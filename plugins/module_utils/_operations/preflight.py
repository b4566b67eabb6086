# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether maintenance may start here and now: window, role, long transactions, connections, free space. Pure."""

from __future__ import annotations

import typing as t
from datetime import timezone

from .._errors import BadInput
from .._records import Activity, Database, Finding, Measured, Plan, Ref, Server, Wants
from .._tuples import NamedTuple
from .._units import duration, percentage, say_bytes, say_seconds

if t.TYPE_CHECKING:
    from .._window import Window

OPTIONS: dict[str, t.Any] = {
    "window": {"type": "str"},
    "window_timezone": {"type": "str"},
    "max_transaction_age": {"type": "str", "default": "1h"},
    "min_free_percent": {"type": "float", "default": 10.0},
    "max_connections_percent": {"type": "float", "default": 95.0},
    "role": {"type": "str", "choices": ["any", "primary"], "default": "any"},
}


STOPS = frozenset(["outside_window", "not_primary", "connections", "free_space"])


class Policy(NamedTuple):
    window: Window | None
    max_transaction_age: float
    min_free_percent: float
    max_connections_percent: float
    role: str


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    if params.get("window_timezone") and not params.get("window"):
        raise BadInput("window_timezone is given without a window", cure="Give window as 22:00-06:00")
    return Policy(
        _opening(params["window"], params.get("window_timezone")) if params.get("window") else None,
        duration(params["max_transaction_age"], "max_transaction_age"),
        percentage(params["min_free_percent"], "min_free_percent"),
        percentage(params["max_connections_percent"], "max_connections_percent"),
        params["role"],
    )


def _opening(text: str, timezone: str | None) -> Window:
    """Imported only where there is one: most servers have none."""
    from .._window import window

    return window(text, timezone)


def wants(policy: Policy, server: Server) -> Wants:
    return Wants(activity=True)


def doubts(policy: Policy, measured: Measured) -> Wants:
    return Wants()


def plan(policy: Policy, measured: Measured) -> Plan:
    """No step. Priority 1 says that maintenance must not start now; the rest is worth knowing."""
    found: dict[t.Hashable, Finding] = {f.code: f for f in (*_window(policy, measured), *_role(policy, measured))}
    for database in measured.databases:
        # Every database is asked, and most of this is the server's: said once.
        for key, finding in (*_activity(policy, database), *_spaces(policy, database)):
            found.setdefault(key, finding)
    return Plan(findings=tuple(found.values()))


def _activity(policy: Policy, database: Database) -> t.Iterator[tuple[t.Hashable, Finding]]:
    activity = database.activity or Activity()
    if activity.oldest_seconds is not None and activity.oldest_seconds >= policy.max_transaction_age:
        age, most = say_seconds(activity.oldest_seconds), say_seconds(policy.max_transaction_age)
        who = activity.oldest_who or "whose, this login may not see"
        message = f"a transaction is open for {age}, over {most}: {who}"
        key = ("long_transaction", activity.oldest_who or database.name)
        yield key, Finding(2, "long_transaction", Ref(database.name), message)
    if activity.connections is not None and activity.max_connections:
        share = 100 * activity.connections / activity.max_connections
        if share >= policy.max_connections_percent:
            message = f"{activity.connections} of {activity.max_connections} connections are taken"
            message += f", over {policy.max_connections_percent:g} %"
            yield "connections", Finding(1, "connections", Ref(""), message)


def _spaces(policy: Policy, database: Database) -> t.Iterator[tuple[t.Hashable, Finding]]:
    for space in database.spaces:
        if space.free is not None and space.total and 100 * space.free < policy.min_free_percent * space.total:
            message = f"{say_bytes(space.free)} of {say_bytes(space.total)} are free for {space.name}"
            message += f", under {policy.min_free_percent:g} %"
            yield (space.name, space.total), Finding(1, "free_space", Ref(""), message)


def _window(policy: Policy, measured: Measured) -> list[Finding]:
    if policy.window is None or policy.window.left(measured.server.now) > 0:
        return []
    clock = measured.server.now.astimezone(policy.window.zone or timezone.utc).strftime("%H:%M")
    message = f"it is {clock} there, outside the maintenance window {policy.window.text}"
    return [Finding(1, "outside_window", Ref(""), message)]


def _role(policy: Policy, measured: Measured) -> list[Finding]:
    if policy.role == "any" or measured.server.role == "primary":
        return []
    return [Finding(1, "not_primary", Ref(""), f"the server is a {measured.server.role}")]


def stopping(findings: t.Iterable[Finding]) -> list[Finding]:
    """Why maintenance must not start, among findings of whatever origin."""
    return [f for f in findings if f.priority == 1 and f.code in STOPS]
