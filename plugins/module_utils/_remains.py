# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a second measurement says of a step: bytes and rows that are still there. Whether it is proven: _frame.py."""

from __future__ import annotations

import os
import typing as t

from ._records import Measured, Step
from ._tasks import CopyBackup, DropLeftover, DropPartition, Dump, Purge, RemoveBackup, Restore, Task, Verify

if t.TYPE_CHECKING:
    from ._backups import Shelf, Sheltered
    from ._structure import Index, View


def size_of(measured: Measured, step: Step) -> int | None:
    """Bytes of what the step was about: of the object, or of the wreckage that is still there."""
    task = step.task
    if isinstance(task, (Purge, DropPartition)):  # they say themselves how much they took; the table keeps its size
        return None
    if isinstance(task, DropLeftover):
        return sum(x.bytes for d in measured.databases for x in d.leftovers if (x.ref, x.what) == (task.ref, task.what))
    for database in measured.databases:
        for table in database.tables:
            if table.ref == task.ref:
                return table.total_bytes
        things: tuple[Index | View, ...] = (*database.indexes, *database.views)
        for thing in things:
            if thing.ref == task.ref:
                return thing.bytes
    return None


def shelf_after(task: Task, before: Shelf | None, wanted: Sheltered) -> Shelf:
    """The backup folder after a step. Where one of many backups was removed, only that is looked for again."""
    from ._files.backups import look

    # A bucket is slow, and what was copied was compared there.
    wanted = wanted._replace(bucket=None, source="")
    if before is None or isinstance(task, (Dump, Verify, CopyBackup, Restore, DropLeftover)):
        return look(wanted)
    if not isinstance(task, RemoveBackup):
        return before
    gone = task.backup
    place = os.path.join(gone.folder, gone.id + ".manifest.json")
    group = (gone.server, gone.database, gone.method)
    kept = tuple(
        b
        for b in before.backups
        if (b.server, b.database, b.method) == group and (b.id != gone.id or os.path.lexists(place))
    )
    broken = tuple(b for b in before.broken if b.backup and b.backup.id == gone.id and os.path.lexists(place))
    return before._replace(backups=kept, broken=broken)


def rows_left(measured: Measured, step: Step) -> int | None:
    """Rows that a rule still finds due in the table that the step took them from; None: unknown, or no such step."""
    task = step.task
    if not isinstance(task, Purge):
        return None
    found = [e for d in measured.databases for e in d.expired if e.sought.expiry == task.expiry and e.ref == task.table]
    # A table in which nothing is due any more need not be among the pieces.
    counts = [piece.rows for e in found for piece in e.pieces if piece.ref == task.ref] or [0 for e in found]
    unknown = None in counts or not found or all(e.rows is None and not e.pieces for e in found)
    return None if unknown else sum(c for c in counts if c is not None)
