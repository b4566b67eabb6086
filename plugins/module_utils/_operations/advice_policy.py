# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From which figures on something is recommended: options and policy. What they judge stands in advice.py."""

from __future__ import annotations

import typing as t

from .._errors import BadInput
from .._records import Ref
from .._selection import Patterns, names_of
from .._tuples import NamedTuple
from .._units import duration, percentage, say_seconds, size

OPTIONS: dict[str, t.Any] = {
    "long_query": {"type": "str", "default": "5m"},
    "long_transaction": {"type": "str", "default": "15m"},
    "lock_wait": {"type": "str", "default": "10s"},
    "slow_statement_warning": {"type": "str", "default": "2s"},
    "slow_statement_critical": {"type": "str", "default": "5s"},
    "connection_warning": {"type": "float", "default": 80.0},
    "connection_critical": {"type": "float", "default": 95.0},
    "large_table": {"type": "str", "default": "1GB"},
    "growth_alert": {"type": "str", "default": "100MB"},
    "unused_index_age": {"type": "str", "default": "30d"},
    "counter_percent": {"type": "float", "default": 80.0},
    "replica_lag": {"type": "str", "default": "5m"},
    "slot_retained": {"type": "str", "default": "1GB"},
    "slot_inactive": {"type": "str", "default": "1d"},
}


class Policy(NamedTuple):
    """Durations in seconds, sizes in bytes, shares in percent."""

    tables: Patterns
    long_query: float
    long_transaction: float
    lock_wait: float
    slow_statement_warning: float
    slow_statement_critical: float
    connection_warning: float
    connection_critical: float
    large_table: int
    growth_alert: int  # a day
    unused_index_age: float
    counter_percent: float
    replica_lag: float
    slot_retained: int
    slot_inactive: float

    def takes(self, ref: Ref) -> bool:
        """Whether the table is among those asked for."""
        return self.tables.everything or self.tables.takes(*names_of(ref))


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    seconds = {
        name: duration(params[name], name)
        for name in (
            *("long_query", "long_transaction", "lock_wait", "slow_statement_warning", "slow_statement_critical"),
            *("unused_index_age", "replica_lag", "slot_inactive"),
        )
    }
    shares = {
        name: percentage(params[name], name, zero=False)
        for name in ("connection_warning", "connection_critical", "counter_percent")
    }
    for low, high in (("slow_statement_warning", "slow_statement_critical"),):
        _ascending(low, seconds[low], high, seconds[high], say_seconds)
    _ascending(
        "connection_warning",
        shares["connection_warning"],
        "connection_critical",
        shares["connection_critical"],
        lambda share: f"{share:g} %",
    )
    return Policy(
        tables=Patterns(["*"] if params.get("tables") is None else params["tables"], "tables"),
        large_table=size(params["large_table"], "large_table"),
        growth_alert=size(params["growth_alert"], "growth_alert"),
        slot_retained=size(params["slot_retained"], "slot_retained"),
        **seconds,
        **shares,
    )


def _ascending(low: str, least: float, high: str, most: float, say: t.Callable[[float], str]) -> None:
    if least > most:
        raise BadInput(f"{low} {say(least)} is over {high} {say(most)}", cure="The warning has to come first")
