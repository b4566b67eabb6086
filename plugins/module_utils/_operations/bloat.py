# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which objects are bloated: the read-only operation behind db_bloat_facts. It plans no step. Pure."""

from __future__ import annotations

import typing as t

from .._records import Measured, Plan, Ref, Server, Table, Wants
from .._selection import Patterns, names_of
from .._tuples import NamedTuple
from .._units import percentage, size

if t.TYPE_CHECKING:
    from .._structure import Index

    Thing = t.Union[Table, Index]

OPTIONS: dict[str, t.Any] = {
    "method": {"type": "str", "choices": ["auto", "estimate", "exact"], "default": "auto"},
    "scan_budget": {"type": "str", "default": "1GB"},
    "min_size": {"type": "str", "default": "1MB"},
    "bloat_percent": {"type": "float", "default": 10.0},
}


class Policy(NamedTuple):
    tables: Patterns
    method: str
    scan_budget: int
    min_size: int
    bloat_percent: float


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    return Policy(
        Patterns(["*"] if params.get("tables") is None else params["tables"], "tables"),
        params["method"],
        size(params["scan_budget"], "scan_budget"),
        size(params["min_size"], "min_size"),
        percentage(params["bloat_percent"], "bloat_percent"),
    )


def wants(policy: Policy, server: Server) -> Wants:
    return Wants(
        bloat=True,
        bloat_min_bytes=policy.min_size,
        index_bloat=True,
        index_bloat_min_bytes=policy.min_size,
    )


def doubts(policy: Policy, measured: Measured) -> Wants:
    """What is worth an exact look: everything when asked to, else what may lie on either side of the threshold.

    The largest doubt first; what is over the scan budget keeps its estimate.
    """
    if policy.method == "estimate":
        return Wants()
    doubtful = [x for x in selected(policy, measured) if policy.method == "exact" or _straddles(x, policy)]
    exact: list[Ref] = []
    left = policy.scan_budget
    for thing in sorted(doubtful, key=lambda x: x.bytes, reverse=True):
        if thing.bytes <= left:
            exact.append(thing.ref)
            left -= thing.bytes
    return Wants(exact=tuple(exact), scan_budget=policy.scan_budget)


def _straddles(thing: Thing, policy: Policy) -> bool:
    return bool(thing.bloat and thing.bloat.low < policy.bloat_percent <= thing.bloat.high)


def plan(policy: Policy, measured: Measured) -> Plan:
    """No step, only what hindered the measurement."""
    return Plan(findings=(*measured.server.findings, *(f for d in measured.databases for f in d.findings)))


def selected(policy: Policy, measured: Measured) -> t.Iterator[Thing]:
    """The tables and indexes to report on, catalogs left out. An index is selected by its table."""
    for database in measured.databases:
        catalogs = {table.ref for table in database.tables if table.kind == "catalog"}
        for table in database.tables:
            large = table.total_bytes >= policy.min_size
            if large and table.kind not in ("catalog", "partitioned") and policy.tables.takes(*names_of(table.ref)):
                yield table
        for index in database.indexes:
            large = index.bytes >= policy.min_size and not index.partitioned
            if large and index.table not in catalogs and policy.tables.takes(*names_of(index.table)):
                yield index
