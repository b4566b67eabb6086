# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module returns: records turned into the dictionaries of the public contract. Nothing is decided here."""

from __future__ import annotations

import typing as t

from ._protocols import Engine
from ._records import Database, Finding, Outcome, Server, Step, Table
from ._tasks import Purge
from ._units import say_bytes, say_count

if t.TYPE_CHECKING:
    from ._structure import Index
    from ._tasks import Task

Result = dict[str, t.Any]


def server_facts(server: Server) -> Result:
    return {"version": server.version, "address": server.address, "role": server.role}


def step_result(outcome: Outcome, engine: Engine, server: Server) -> Result:
    """One element of `steps`: the same shape in check mode and in the run."""
    step = outcome.step
    freed = _freed(outcome)
    ran = outcome.status == "done" or outcome.changed or outcome.actual.seconds > 0
    actual: Result = {
        "bytes_before": outcome.bytes_before,
        "bytes_after": outcome.bytes_after,
        "bytes_freed": freed,
        "rows": outcome.actual.rows,
        "seconds": round(outcome.actual.seconds, 3),
    }
    expected: Result = {
        "bytes_freed": step.expected.bytes,
        "rows": step.expected.rows,
        "seconds": round(step.expected.seconds, 3),
    }
    if isinstance(step.task, Purge):
        expected.update(rows=rows_expected(step), children=_children_expected(step.task, step))
        actual.update(_left(outcome, step.task))
    return {
        "database": step.task.ref.database,
        "object": str(step.task.ref),
        "kind": step.task.kind,
        "reason": step.reason,
        "statements": list(engine.spell(step.task, server)),
        "status": outcome.status,
        "measured": dict(step.measured),
        "expected": expected,
        "actual": actual if ran else {},
        "proven": outcome.proven,
        "error": outcome.error or None,
    }


def rows_expected(step: Step) -> int | None:
    """None where nobody could count them."""
    unknown = isinstance(step.task, Purge) and step.task.due is None
    return None if unknown else step.expected.rows


def _children_expected(task: Purge, step: Step) -> int | None:
    unknown = task.due is None or any(child.rows is None for child in task.children)
    return None if task.children and unknown else step.expected.children


def _left(outcome: Outcome, task: Purge) -> dict[str, int | None]:
    """What left besides the rows, and what stayed though it is due. What was not counted again is reckoned."""
    actual, left = outcome.actual, outcome.rows_left
    if left is None and task.due is not None:
        left = max(0, task.due - actual.rows)
    held: int | None = 0
    if task.rows is not None:
        held = None if left is None or task.due is None else min(left, max(0, task.due - task.rows))
    return {"children": actual.children, "batches": actual.bites, "rows_remaining": left, "rows_held_back": held}


def _freed(outcome: Outcome) -> int:
    if outcome.bytes_before is None or outcome.bytes_after is None:
        return outcome.actual.bytes
    return max(0, outcome.bytes_before - outcome.bytes_after)


def summary(outcomes: t.Sequence[Outcome], seconds: float) -> Result:
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "deferred", "failed")}
    return {
        "planned": sum(not o.step.skip for o in outcomes),
        **counts,
        "rows": sum(o.actual.rows for o in outcomes),
        "bytes_freed": sum(_freed(o) for o in outcomes if o.status != "planned"),
        "bytes_written": sum(o.actual.written for o in outcomes),
        "seconds": round(seconds, 3),
    }


def finding_result(finding: Finding, engine: Engine, server: Server) -> Result:
    fix = finding.fix or (";\n".join(engine.spell(finding.cure, server)) if finding.cure else "")
    return {
        "priority": finding.priority,
        "code": finding.code,
        "database": finding.ref.database,
        "object": str(finding.ref),
        "message": finding.message,
        "fix": fix or None,
    }


def ordered(findings: t.Iterable[Finding]) -> list[Finding]:
    """Each once, the urgent first."""
    unique = {(f.code, f.ref, f.message): f for f in findings}
    return sorted(unique.values(), key=lambda f: (f.priority, f.code, f.ref))


def worst_first(outcomes: t.Sequence[Outcome]) -> list[Outcome]:
    """What a capped list must not hide comes first; inside a status the order of the plan stays."""
    order = {"failed": 0, "deferred": 1, "done": 2, "planned": 2, "skipped": 3}
    return sorted(outcomes, key=lambda o: order[o.status])


def diff(outcomes: t.Sequence[Outcome], engine: Engine, server: Server) -> Result:
    """Before and after, in words a DBA reads."""
    before, after = [], []
    for outcome in outcomes:
        step = outcome.step
        name = f"{step.task.ref.database}: {step.task.ref}" if step.task.ref.path else str(step.task.ref)
        if not (outcome.changed or outcome.status == "planned"):
            continue
        purge = isinstance(step.task, Purge)  # its bytes are those of rows, not of the table
        size = "" if purge else f" ({say_bytes(step.size)})"
        before.append(f"{name}{size}: {step.reason}\n")
        if outcome.status == "planned":
            gain = "of rows" if purge else "to free"
            hope = f", about {say_bytes(step.expected.bytes)} {gain}" if step.expected.bytes else ""
            after.append(f"{name}: {_deed(step.task)}{hope}: {'; '.join(engine.spell(step.task, server))}\n")
        elif purge:
            after.append(f"{name}: {_said_of_rows(outcome)}\n")
        else:
            now = f" ({say_bytes(outcome.bytes_after)})" if outcome.bytes_after is not None else ""
            doubt = "" if outcome.proven is not False else ", but the need is still there"
            after.append(f"{name}{now}: {step.task.kind} {outcome.status}{doubt}\n")
    return {"before": "".join(before), "after": "".join(after)}


def _deed(task: Task) -> str:
    """`archive by rule audit log into /srv/archive`."""
    if not isinstance(task, Purge):
        return task.kind
    where = (task.to or task.archive.folder) if task.archive else ""
    return f"{task.kind} by rule {task.rule}" + (f" into {where}" if where else "")


def _said_of_rows(outcome: Outcome) -> str:
    """`delete by rule old orders done: 1,200 rows and 300 of other tables in 3 batches; 80 rows are still due`."""
    actual, task = outcome.actual, t.cast(Purge, outcome.step.task)
    left = _left(outcome, task)
    words = f"{_deed(task)} {outcome.status}: {say_count(actual.rows, 'row')}"
    words += f" and {actual.children:,} of other tables" if actual.children else ""
    words += f" in {say_count(actual.bites, 'batch', 'batches')}"
    remaining, held = left["rows_remaining"], left["rows_held_back"]
    if remaining:
        words += f"; {say_count(remaining, 'row')} still due"
    return words + (f", {held:,} of them held back by rows_per_run" if held else "")


def bloat_result(thing: Table | Index, threshold: float) -> Result:
    """One object of `db_bloat`."""
    bloat, table = thing.bloat, None if isinstance(thing, Table) else thing.table
    return {
        "database": thing.ref.database,
        "object": str(thing.ref),
        "kind": thing.kind if isinstance(thing, Table) else "index",
        "table": str(table) if table else None,
        "bytes": thing.bytes,
        "total_bytes": thing.total_bytes if isinstance(thing, Table) else thing.bytes,
        "rows": thing.rows,
        "bloat_bytes": bloat.bytes if bloat else None,
        "outside_bytes": bloat.outside if bloat else None,
        "bloat_percent": round(bloat.percent, 1) if bloat else None,
        "low": round(bloat.low, 1) if bloat else None,
        "high": round(bloat.high, 1) if bloat else None,
        "method": bloat.method if bloat else "unknown",
        "bloated": bool(bloat and bloat.low >= threshold),
    }


def totals(database: Database, least: int = 0) -> Result:
    """Sums of one database; what has no estimate is counted apart, never taken as zero; but what is under `least`.

    The bloat of indexes stands apart: a table's own rebuild frees both.
    """
    whole = [x for x in database.tables if x.kind == "file"]
    # A partition is contained in its table.
    objects = whole or [x for x in database.tables if x.kind != "index" and not x.ref.partition]
    # Small indexes are not looked at one by one.
    tables = [x for x in database.tables if x.kind not in ("file", "index") and not x.ref.partition]
    indexes = [x for x in database.indexes if not x.partitioned]
    catalogs = {x.ref for x in database.tables if x.kind == "catalog"}
    return {
        "objects": len(database.tables),
        "bytes": sum(x.total_bytes for x in objects),
        "bloat_bytes": sum(x.bloat.bytes for x in objects if x.bloat),
        "unknown": sum(not x.bloat and x.total_bytes >= least for x in objects),
        "indexes": sum(x.indexes for x in tables),
        "index_bytes": sum(max(0, x.total_bytes - x.bytes) for x in tables),
        "index_bloat_bytes": sum(x.bloat.bytes for x in indexes if x.bloat),
        "indexes_unknown": sum(not x.bloat and x.bytes >= least and x.table not in catalogs for x in indexes),
    }
