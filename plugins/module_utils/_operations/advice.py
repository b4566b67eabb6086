# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHAT is recommended to the people who run a server, and WHY: options, policy, and the plan. Pure; it plans no step.

Every finding that is made here is a recommendation; RECOMMENDED lists their codes:

- indexes (advice_indexes.py): unused_index, duplicate_index, redundant_index, invalid_index
- schema (advice_schema.py): missing_foreign_key_index, no_primary_key, counter_near_end, foreign_engine, large_table
- sessions (advice_sessions.py): long_query, long_transaction, prepared_transaction, blocked, connections,
  slow_statement
- server (advice_server.py): replication_broken, replica_lag, slot_stalled, slot_behind, archiver_failing,
  archiver_behind, logs_never_expire, purge_behind, wraparound
- trends (advice_growth.py): growth, disk_full

What was not counted, or may not be seen, recommends nothing: `unknown()` says why.
"""

from __future__ import annotations

import typing as t

from .._records import Finding, Measured, Plan, Server, Wants
from . import advice_growth, advice_indexes, advice_schema, advice_server, advice_sessions
from .advice_policy import OPTIONS, Policy, policy

__all__ = ["OPTIONS", "RECOMMENDED", "doubts", "plan", "policy", "unknown", "wants"]

Rule = t.Callable[[Policy, Measured], t.Iterable[Finding]]

RULES: t.Mapping[Rule, tuple[str, ...]] = {
    advice_indexes.findings: ("unused_index", "duplicate_index", "redundant_index", "invalid_index"),
    advice_schema.foreign_keys: ("missing_foreign_key_index",),
    advice_schema.keyless: ("no_primary_key",),
    advice_schema.counters: ("counter_near_end",),
    advice_schema.foreign_engines: ("foreign_engine",),
    advice_schema.large_tables: ("large_table",),
    advice_sessions.long_work: ("long_query", "long_transaction"),
    advice_sessions.prepared: ("prepared_transaction",),
    advice_sessions.blocked: ("blocked",),
    advice_sessions.connections: ("connections",),
    advice_sessions.slow_statements: ("slow_statement",),
    advice_server.replicas: ("replication_broken", "replica_lag"),
    advice_server.slots: ("slot_stalled", "slot_behind"),
    advice_server.archiver: ("archiver_failing", "archiver_behind"),
    advice_server.logs: ("logs_never_expire", "purge_behind"),
    advice_server.ages: ("wraparound",),
    advice_growth.findings: ("growth", "disk_full"),
}
RECOMMENDED = frozenset(code for codes in RULES.values() for code in codes)


def wants(policy: Policy, server: Server) -> Wants:
    return Wants(tables=True, indexes=True, structure=True, health=True, samples=True, activity=True)


def doubts(policy: Policy, measured: Measured) -> Wants:
    return Wants()


def plan(policy: Policy, measured: Measured) -> Plan:
    """No step: recommendations, and what hindered the measurement."""
    findings = [*measured.server.findings, *(f for d in measured.databases for f in d.findings)]
    for rule in RULES:
        findings += rule(policy, measured)
    return Plan(findings=tuple(dict.fromkeys(findings)))


def unknown(policy: Policy, measured: Measured) -> dict[str, str]:
    """What could not be judged, and why: nobody may take it for "none"."""
    found = dict(measured.health.unknown) if measured.health else {}
    for database in measured.databases:
        missing = database.structure.unknown if database.structure else {}
        found.update({f"{what} in {database.name}": why for what, why in missing.items()})
    found.update(advice_indexes.unknown(policy, measured))
    return found
