# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of one rule on one table: what leaves, in which order, and why. Whether it may: retention_refusals.py."""

from __future__ import annotations

import typing as t

from .._records import Amount, Key, Leftover, Limit, Pace, Ref, Step
from .._retention import Archive, Child, Expired, Expiry, Files, Part, Piece
from .._tasks import DropLeftover, DropPartition, Purge, RemoveFiles, Settle
from .._tuples import NamedTuple
from .._units import say_bytes, say_count, say_seconds
from .retention_backlog import noted
from .retention_refusals import Case, say_moment, say_share
from .retention_rules import Policy, Stage

SAFETY, WRECKAGE = 3, 8  # ranks
FIRST_BITE = 1000  # rows
MOST_ROWS = 50_000  # of a bite
# Of a bite that passes through memory, where a row takes several times its size: the module's own size stays the same
# however many rows there are. What a file costs for each bite (three times until it is on the disk) is little by then.
MOST_ROWS_IN_MEMORY = 5_000
MOST_BYTES = 2 << 20
# Of a bite between rests: others wait for a processor, a flush or a lock no longer than that. Measured in tests/bench:
# shorter ones gain nothing, since what a bite costs by itself grows.
GENTLE_SECONDS = 0.02


class Place(NamedTuple):
    """What one stage of a rule finds in one table."""

    case: Case
    stage: Stage
    expired: Expired

    @property
    def archive(self) -> Archive | None:
        return self.expired.sought.archive

    @property
    def facts(self) -> dict[str, t.Any]:
        """What every step of this stage says of itself."""
        expiry = self.expired.sought.expiry
        since = {"since": expiry.since.isoformat()} if expiry.since else {}
        return {"rule": self.case.rule.name, "before": expiry.before.isoformat(), **since}


class Budget:
    """Rows that one rule may still take in this run of one database; None: all."""

    def __init__(self, rows: int | None) -> None:
        self.rows = rows

    def take(self, wanted: int | None) -> int | None:
        """How many of these it may take; where their number is unknown, all that is left."""
        if self.rows is None:
            return None
        granted = self.rows if wanted is None else min(self.rows, wanted)
        self.rows -= granted
        return granted


def limits(policy: Policy) -> tuple[Limit, ...]:
    """Read before a step and between its bites; none of them loses anything by waiting."""
    found = (
        ("replica_lag", policy.max_replica_lag),
        ("oldest_snapshot", policy.max_snapshot_age),
        ("wal_backlog", policy.max_wal_backlog),
    )
    return tuple(Limit(gauge, worst, "wait") for gauge, worst in found if worst is not None)


def steps_of(case: Case, budget: Budget, first: tuple[Key, ...]) -> t.Iterator[Step]:
    """All that leaves the table of a case, after the steps `first`."""
    for place in (Place(case, stage, expired) for stage, expired in case.found):
        expired = place.expired
        if expired.files and expired.files.outdated:
            yield _remove_files(place, expired.files)
        counts = [p.rows for p in expired.pieces]
        purged: dict[Ref, Step] = {}
        for piece in expired.pieces:
            step = _purge(place, piece, budget, _share(piece, counts)) if piece.rows != 0 else None
            if step:
                purged[piece.ref] = step._replace(after=first)
        yield from purged.values()
        yield from _partitions(place, purged, first)


def _share(piece: Piece, counts: list[int | None]) -> float:
    """Which part of the children hangs from this piece: estimated by rows."""
    known = sum(c for c in counts if c is not None)
    return 1.0 if len(counts) == 1 else (piece.rows or 0) / max(known, 1)


# ---- rows ------------------------------------------------------------------------------------------------------------


def _purge(place: Place, piece: Piece, budget: Budget, share: float) -> Step | None:
    """None where this run has taken its rows, or may take none of these."""
    case, expired, archive = place.case, place.expired, place.archive
    most = _most_rows(piece, archive)
    task = Purge(
        ref=piece.ref,
        table=expired.ref,
        expiry=expired.sought.expiry,
        walk=piece.walk,
        children=_children(place),
        archive=archive,
        to=expired.depot.ref if expired.depot and archive and archive.table else None,
        pace=_pace(case.policy, archive, most),
        most=most,
        due=piece.rows,
    )
    step = Step(task, "", limits=limits(case.policy))
    if _had_its_rows(case, step):
        return None
    granted = budget.take(piece.rows)
    if granted == 0:
        return None
    taken = (piece.rows or 0) if granted is None or piece.rows is None else granted
    part = taken / piece.rows if piece.rows else 1.0
    children = round(sum(c.rows or 0 for c in task.children) * share * part)
    return step._replace(
        task=task._replace(rows=granted),
        reason=_reason(place, piece, granted),
        measured=_numbers(place, piece, granted),
        expected=Amount(bytes=int(piece.bytes * part), rows=taken, children=children),
        rank=(SAFETY, float(taken)),
        size=piece.bytes,
    )


def _pace(policy: Policy, archive: Archive | None, most: int) -> Pace:
    """Each bite into a file waits for the disk three times: many small ones would be no help."""
    seconds = policy.batch_seconds
    if policy.duty < 1 and not (archive and archive.folder):
        seconds = min(seconds, GENTLE_SECONDS)
    return Pace(min(FIRST_BITE, most), seconds, policy.duty)


def _had_its_rows(case: Case, step: Step) -> bool:
    """What was taken in this very run, and all that it was allowed: the rest is held back on purpose."""
    note = case.measured.notes.get(step.key)
    before = noted(note)
    if note is None or before is None or before.allowed is None or case.rule.rows_per_run is None:
        return False
    return note.at == case.measured.server.now and before.removed >= before.allowed


def _most_rows(piece: Piece, archive: Archive | None) -> int:
    if archive is None or not archive.folder:
        return MOST_ROWS
    if piece.row_bytes <= 0:
        return MOST_ROWS_IN_MEMORY
    return max(1, min(MOST_ROWS_IN_MEMORY, MOST_BYTES // piece.row_bytes))


def _children(place: Place) -> tuple[Child, ...]:
    """What leaves with the rows, and where it goes."""
    archive, on_children = place.archive, place.case.rule.on_children
    if on_children == "fail":
        return ()
    if archive is None or on_children == "delete":
        return tuple(child._replace(archived=False, to=None) for child in place.expired.children)
    return tuple(
        child._replace(archived=True, to=(child.to or archive_of(child.table)) if archive.table else None)
        for child in place.expired.children
    )


def archive_of(table: Ref) -> Ref:
    """Where rows of a child go: beside it."""
    return table._replace(path=(*table.path[:-1], f"{table.path[-1]}_archive"))


def _reason(place: Place, piece: Piece, granted: int | None) -> str:
    expired, expiry = place.expired, place.expired.sought.expiry
    rows = "an unknown number of rows" if piece.rows is None else say_count(piece.rows, "row")
    words = f"{rows} older than {say_seconds(place.stage.age)} ({_span(expiry)})"
    if piece.rows is None:
        words += ": counting took too long"
    elif expired.of_rows and piece.ref == expired.ref:
        words += f", {say_share(piece.rows, expired.of_rows)} of the table"
    if granted is not None and granted != piece.rows:
        words += f"; this run takes {granted:,}"
    return words


def _span(expiry: Expiry) -> str:
    before = f"before {say_moment(expiry.before)}"
    return f"{before}, not before {say_moment(expiry.since)}" if expiry.since else before


def _numbers(place: Place, piece: Piece, granted: int | None) -> dict[str, t.Any]:
    expired = place.expired
    found = {**place.facts, "rows": piece.rows, "of_rows": expired.of_rows, "bytes": piece.bytes}
    found["indexed"] = piece.indexed
    if piece.ref != expired.ref:
        found["table"] = str(expired.ref)
    if granted is not None and piece.rows is not None:
        found["rows_held_back"] = piece.rows - granted
    if expired.children:
        found["children"] = _by_table(expired.children)
    if expired.triggers:
        found["triggers"] = list(expired.triggers)
    if expired.depot and expired.depot.missing:
        found["archive_columns_added"] = [name for name, _kind in expired.depot.missing]
    return found


def _by_table(children: t.Sequence[Child]) -> dict[str, int | None]:
    """Rows of the children; None where any of them could not be counted."""
    found: dict[str, int | None] = {}
    for child in children:
        known = found.get(str(child.table), 0)
        found[str(child.table)] = None if child.rows is None or known is None else known + child.rows
    return found


# ---- partitions ------------------------------------------------------------------------------------------------------


def _partitions(place: Place, purged: t.Mapping[Ref, Step], first: tuple[Key, ...]) -> t.Iterator[Step]:
    """Whole partitions go; where the rule archives, once all of their rows have gone into the archive."""
    for part in place.expired.parts if place.case.policy.partitions else ():
        before = purged.get(part.ref)
        if place.archive is not None and part.rows != 0 and (before is None or _limited(before)):
            continue
        yield _drop(place, part)._replace(after=(*first, before.key) if before else first)


def _limited(step: Step) -> bool:
    """Whether rows stay that are due."""
    task = step.task
    return isinstance(task, Purge) and task.rows is not None and (task.due is None or task.rows < task.due)


def _drop(place: Place, part: Part) -> Step:
    expired, archived = place.expired, place.archive is not None
    what = f"older than {say_seconds(place.stage.age)} ({_span(expired.sought.expiry)})"
    if part.rows == 0:
        reason = f"an empty partition whose rows would all be {what}"
    else:
        rows = "all" if part.rows is None else f"all {part.rows:,}"
        reason = f"{rows} rows of the partition are {what}" + (", and in the archive by then" if archived else "")
    measured = {**place.facts, "rows": part.rows, "bytes": part.bytes, "table": str(expired.ref)}
    return Step(
        DropPartition(
            part.ref,
            expired.ref,
            place.case.rule.name,
            part.concurrently,
            empty=archived,
            rows=0 if archived else part.rows,
            undated=part.undated,
        ),
        reason,
        {**measured, "partitions": len(expired.parts)},
        Amount(bytes=part.bytes, rows=0 if archived else part.rows or 0),
        (SAFETY, float(part.rows or 0)),
        size=part.bytes,
        limits=limits(place.case.policy),
    )


# ---- files and wreckage ----------------------------------------------------------------------------------------------


def _remove_files(place: Place, files: Files) -> Step:
    rows, size = files.outdated_rows, files.outdated_bytes
    count, age = say_count(len(files.outdated), "archive file"), say_seconds(place.case.rule.delete_after or 0)
    folder = place.archive.folder if place.archive else ""
    return Step(
        RemoveFiles(place.expired.ref, place.case.rule.name, folder, files.outdated),
        f"{count} ({say_bytes(size)}) with {say_count(rows, 'row')}, all older than {age}",
        {"rule": place.case.rule.name, "files": len(files.outdated), "rows": rows, "bytes": size},
        Amount(bytes=size, rows=rows),
        (SAFETY, float(rows)),
        size=size,
    )


def settling(case: Case) -> t.Iterator[Step]:
    """What a dead run left between the table and the archive files; due even when no row is."""
    for _stage, expired in case.found:
        archive, files = expired.sought.archive, expired.files
        if archive and files and files.unsettled:
            count = say_count(len(files.unsettled), "archive file")
            measured = {"rule": case.rule.name, "files": list(files.unsettled)}
            task = Settle(expired.ref, expired.sought.expiry, archive, files.unsettled)
            yield Step(task, f"left unfinished by an interrupted run: {count}", measured, rank=(WRECKAGE, 0.0))


def drop_detached(found: Leftover, table: Ref) -> Step:
    """A partition whose detaching, or dropping afterwards, was interrupted."""
    names = ", ".join(found.names)
    return Step(
        DropLeftover(found.ref, found.what, found.names, found.table or table),
        f"left behind by an interrupted {found.what}: {names}",
        {"leftovers": list(found.names)},
        Amount(bytes=found.bytes),
        (WRECKAGE, float(found.bytes)),
        size=found.bytes,
    )
