# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the fact db_history: records turned into dictionaries. Nothing is decided here."""

from __future__ import annotations

import posixpath
import typing as t
from datetime import datetime, timezone

from ._operations import history, trend

if t.TYPE_CHECKING:
    from ._past import Backed, Known, Past, PastRun, PastStep, Streak
    from ._records import Sample

Facts = dict[str, t.Any]
COUNTED = ("done", "failed", "deferred", "skipped", "interrupted", "running")


def moment(at: float | None) -> str | None:
    """ISO 8601 in UTC; None for a time that no calendar has."""
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return None


# ---- what was done ---------------------------------------------------------------------------------------------------


def runs_of(past: Past) -> list[Facts]:
    """Runs with the sums of their steps, the newest first."""
    steps: dict[int, list[PastStep]] = {run.id: [] for run in past.runs}
    for step in past.steps:
        steps.setdefault(step.run, []).append(step)
    return [_run(run, steps[run.id], past) for run in reversed(past.runs)]


def _run(run: PastRun, steps: t.Sequence[PastStep], past: Past) -> Facts:
    counts = dict.fromkeys(COUNTED, 0)
    for step in steps:
        counts[step.status] = counts.get(step.status, 0) + 1
    failed = next((s for s in steps if s.status == "failed"), None)
    error = f"{past.things[failed.thing].ref}: {failed.error}" if failed and failed.error else None
    seconds = None if run.ended is None or run.ended < run.began else round(run.ended - run.began, 3)
    return {
        "run": run.id,
        "server": run.server,
        "at": moment(run.began),
        "operation": run.operation,
        "status": run.status,
        "changed": any(s.changed for s in steps),
        "seconds": seconds,
        "steps": len(steps),
        **{name: counts[name] for name in ("done", "failed", "deferred", "skipped")},
        **_sums(steps),
        "error": error,
    }


def _sums(steps: t.Sequence[PastStep]) -> Facts:
    return {
        "rows": sum(s.rows or 0 for s in steps),
        "bytes_freed": sum(s.freed or 0 for s in steps),
        "bytes_written": sum(s.written or 0 for s in steps),
    }


def _named(past: Past, number: int, operation: str) -> Facts:
    thing = past.things[number]
    return {
        "server": thing.server,
        "operation": operation,
        "kind": thing.kind,
        "rule": thing.rule or None,
        "database": thing.ref.database,
        "object": str(thing.ref),
    }


def step(found: PastStep, past: Past, operations: t.Mapping[int, str]) -> Facts:
    return {
        "run": found.run,
        "at": moment(found.began),
        **_named(past, found.thing, operations.get(found.run, "")),
        "status": found.status,
        "reason": found.reason,
        "seconds": rounded(found.seconds, 3),
        "expected_seconds": round(found.expected_seconds, 3),
        "rows": found.rows,
        "expected_rows": found.expected_rows,
        "bytes_freed": found.freed,
        "expected_bytes": found.expected_bytes,
        "bytes_before": found.bytes_before,
        "bytes_after": found.bytes_after,
        "proven": None if found.proven is None else bool(found.proven),
        "error": found.error or None,
    }


def operations_of(past: Past, operations: t.Mapping[int, str]) -> list[Facts]:
    """Counts and sums by operation and kind of step."""
    groups: dict[tuple[str, str], list[PastStep]] = {}
    for step in past.steps:
        groups.setdefault((operations.get(step.run, ""), past.things[step.thing].kind), []).append(step)
    return [
        {
            "operation": operation,
            "kind": kind,
            "steps": len(steps),
            **{status: sum(s.status == status for s in steps) for status in COUNTED},
            "seconds": round(sum(s.seconds or 0.0 for s in steps), 3),
            **_sums(steps),
            "last_done_at": _last(steps, "done"),
            "last_failed_at": _last(steps, "failed"),
        }
        for (operation, kind), steps in sorted(groups.items())
    ]


def _last(steps: t.Sequence[PastStep], status: str) -> str | None:
    return next((moment(s.began) for s in reversed(steps) if s.status == status), None)


def failure(streak: Streak, past: Past) -> Facts:
    return {
        **_named(past, streak.thing, streak.operation),
        "times": streak.times,
        "since": moment(streak.first),
        "last_at": moment(streak.last),
        "error": streak.error or None,
    }


def known(found: Known) -> Facts:
    return {"server": found.server, "runs": found.runs, "last_at": moment(found.last)}


def backed(found: Backed) -> Facts:
    return {
        "server": found.server,
        "database": found.database,
        "dumped_at": moment(found.dumped),
        "verified_at": moment(found.verified),
    }


def prediction(found: history.Prediction) -> Facts:
    return {
        "operation": found.operation,
        "kind": found.kind,
        "steps": found.steps,
        "seconds_ratio": _ratio(found.seconds),
        "bytes_ratio": _ratio(found.bytes),
        "rows_ratio": _ratio(found.rows),
    }


def _ratio(found: history.Ratio | None) -> Facts | None:
    if found is None:
        return None
    return {
        "steps": found.steps,
        "median": round(found.median, 3),
        "p10": round(found.low, 3),
        "p90": round(found.high, 3),
    }


# ---- what changes ----------------------------------------------------------------------------------------------------


def _spanned(samples: t.Sequence[Sample]) -> Facts:
    first, last = (samples[0].at, samples[-1].at) if samples else (None, None)
    return {
        "samples": len(samples),
        "first_at": first and moment(first.timestamp()),
        "last_at": last and moment(last.timestamp()),
    }


def _grown(growth: history.Growth, limit: int | None) -> Facts:
    last = growth.samples[-1] if growth.samples else None
    return {
        **_spanned(growth.samples),
        "bytes": last and last.bytes,
        "rows": last and last.rows,
        "bytes_per_day": growth.bytes and round(growth.bytes.per_day),
        "rows_per_day": growth.rows and round(growth.rows.per_day),
        "days_until_size": rounded(history.days_until(growth, limit), 1),
        "why": growth.why or None,
    }


def rounded(found: float | None, digits: int) -> float | None:
    return None if found is None else round(found, digits)


def database(
    policy: history.Policy,
    growth: history.Growth,
    tables: t.Sequence[history.Growth],
    disks: t.Sequence[history.Disk],
) -> Facts:
    own = [x for x in tables if (x.server, x.ref.database) == (growth.server, growth.ref.database)]
    points = trend.thinned([(s.at.timestamp(), s.bytes) for s in growth.samples], history.POINTS)
    return {
        "server": growth.server,
        "database": growth.ref.database,
        **_grown(growth, policy.until_database),
        "days_until_full": rounded(history.days_until_full(growth, disks), 1),
        "points": [[moment(at), int(size)] for at, size in points],
        "tables": [{"object": str(x.ref), **_grown(x, policy.until_table)} for x in own[: history.TABLES]],
    }


def disk(found: history.Disk) -> Facts:
    folders = [posixpath.dirname(file) for file in found.databases or ()]
    return {
        "server": found.server,
        "disk": posixpath.commonpath(folders) if folders else found.name,
        "free": found.last.bytes,
        "total": found.last.rows,
        "at": moment(found.last.at.timestamp()),
        "bytes_per_day": None if found.per_day is None else round(found.per_day),
        "days_until_full": rounded(found.days, 1),
        "why": found.why or None,
    }


def reading(found: history.Reading) -> Facts:
    return {
        "server": found.server,
        "metric": found.metric,
        **_spanned(found.samples),
        "first": rounded(found.first, 6),
        "last": rounded(found.last, 6),
        "per_day": rounded(found.per_day, 9),
        "most": found.most,
        "why": found.why or None,
    }
