# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the schema lets grow into trouble: foreign keys, missing keys, counters, large tables. Pure, as advice.py."""

from __future__ import annotations

import typing as t

from .._records import Database, Finding, Measured, Ref
from .._structure import Counter, ForeignKey, Structure
from .._tasks import AddKey, ConvertEngine, CreateIndex, Widen
from .._units import say_bytes, say_count
from .advice_policy import Policy

LOOKED_THROUGH = 10_000  # rows: looking through fewer at each change of the parent costs about as much as an index
URGENT = 95.0  # percent of a counter
WIDEST = 2**63 - 1  # the last value of the widest signed type; nothing is wider


def foreign_keys(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for database, structure in _structures(measured):
        partitioned = {table.ref for table in database.tables if table.kind == "partitioned"}
        seen: set[tuple[Ref, frozenset[str]]] = set()
        for key in structure.foreign_keys:
            known = (key.table, frozenset(key.columns))
            if key.indexed or known in seen or not _costs(key) or not policy.takes(key.table):
                continue
            seen.add(known)
            cure = CreateIndex(key.table, key.columns, key.table in partitioned)
            yield Finding(2, "missing_foreign_key_index", key.table, _without_index(key), cure)


def _costs(key: ForeignKey) -> bool:
    """Whether the missing index makes itself felt: the parent changes, or there is much to look through."""
    return bool(key.parent_changes) or key.rows >= LOOKED_THROUGH


def _without_index(key: ForeignKey) -> str:
    changes = f", {say_count(key.parent_changes, 'time')} so far" if key.parent_changes else ""
    return (
        f"no index on {', '.join(key.columns)} supports the foreign key {key.name}: whenever a row of {key.parent} is"
        f" deleted or gets another key{changes}, {say_count(key.rows, 'row')} are looked through"
    )


def keyless(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    message = "no primary key: rows cannot be told apart, by logical replication, tools or a repair"
    for database, structure in _structures(measured):
        partitioned = {table.ref for table in database.tables if table.kind == "partitioned"}
        for ref in structure.keyless:
            if ref in partitioned and policy.takes(ref):
                fix = "Add a primary key that has the columns by which it is partitioned in it"
                yield Finding(3, "no_primary_key", ref, message, fix=fix)
            elif policy.takes(ref):
                yield Finding(3, "no_primary_key", ref, message, AddKey(ref, structure.free_columns.get(ref, "")))


def counters(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for _database, structure in _structures(measured):
        for counter in structure.counters:
            wanted = policy.takes(counter.ref) or (counter.table is not None and policy.takes(counter.table))
            if counter.cycles or counter.percent < policy.counter_percent or not wanted:
                continue
            priority = 1 if counter.percent >= URGENT else 2
            message = _used_up(counter)
            if counter.most >= WIDEST:
                fix = "Nothing is wider: begin anew with numbers that are free"
                yield Finding(priority, "counter_near_end", counter.ref, message, fix=fix)
            else:
                sequence = counter.ref if counter.kind != "auto_increment" else None
                cure = Widen(counter.table or counter.ref, counter.column, sequence)
                message += _referring(counter, structure)
                if counter.hindered:
                    fix = "Give it a larger type, after what hinders that has been seen to"
                    message += f"; its type cannot change as it is: {counter.hindered}"
                    yield Finding(priority, "counter_near_end", counter.ref, message, fix=fix)
                elif counter.chosen:
                    fix = "Set a later end, if whoever takes its numbers takes larger ones; else begin anew"
                    message += "; somebody chose this end"
                    yield Finding(priority, "counter_near_end", counter.ref, message, fix=fix)
                else:
                    rewritten = "; the table is written anew, and nobody writes it meanwhile"
                    message += rewritten * bool(counter.column)
                    yield Finding(priority, "counter_near_end", counter.ref, message, cure)


def _used_up(counter: Counter) -> str:
    column = f" of {counter.table}.{counter.column}" if counter.table and counter.column else ""
    kind = {"auto_increment": "AUTO_INCREMENT"}.get(counter.kind, counter.kind)
    typed = f" ({counter.column_type})" if counter.column_type else ""
    left = max(0, counter.most - counter.used)
    return (
        f"the {kind}{column}{typed} has used {counter.percent:.1f} % of {counter.most:,}:"
        f" {say_count(left, 'value')} left"
    )


def _referring(counter: Counter, structure: Structure) -> str:
    keys = [
        f"{key.table}.{column}"
        for key in structure.foreign_keys
        for column, parent in zip(key.columns, key.parent_columns)
        if key.parent == counter.table and parent == counter.column
    ]
    return f"; {', '.join(keys)} refer to it, and must take its values" if keys else ""


def foreign_engines(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for _database, structure in _structures(measured):
        for ref, engine in structure.foreign_engines:
            if policy.takes(ref):
                message = f"its storage engine {engine} knows no transactions: a crash may lose or tear its rows"
                yield Finding(3, "foreign_engine", ref, message, ConvertEngine(ref))


def large_tables(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for database in measured.databases if policy.large_table else ():
        for table in database.tables if not database.system else ():
            stored = table.kind in ("table", "matview", "partition", "file") and not table.ref.partition
            if stored and table.total_bytes >= policy.large_table and policy.takes(table.ref):
                message = f"{say_bytes(table.total_bytes)} with indexes, {say_count(table.rows, 'row')}"
                message += f": over large_table {say_bytes(policy.large_table)}"
                fix = "Keep only what is needed (db_cleanup), or part it by ranges"
                yield Finding(3, "large_table", table.ref, message, fix=fix)


def _structures(measured: Measured) -> t.Iterator[tuple[Database, Structure]]:
    for database in measured.databases:
        if not database.system and database.structure is not None:
            yield database, database.structure
