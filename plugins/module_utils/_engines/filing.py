# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with backups as files, the same for every engine: copied, removed, cleared away. No SQL."""

from __future__ import annotations

import os
import shlex
import typing as t

from .._errors import Refused
from .._records import Amount, Tick, Work
from .._tasks import CopyBackup, Cure, DropLeftover, RemoveBackup

if t.TYPE_CHECKING:
    from .._backups import Backup


def is_filing(task: Cure) -> bool:
    """Whether the task is one of those that stand here."""
    return isinstance(task, (CopyBackup, RemoveBackup)) or (isinstance(task, DropLeftover) and bool(task.folder))


def spell(task: Cure) -> list[str]:
    """What happens, as a shell would be told."""
    if isinstance(task, CopyBackup) and task.source and task.backup:
        return [f"fetch {task.backup.id} from {task.source} into {task.backup.folder}, and compare"]
    if isinstance(task, CopyBackup):
        what = f"{task.backup.folder}/{task.backup.id}.*" if task.backup else f"{task.manner.folder}: the newest backup"
        return [f"copy {what} to {task.to}, and compare"]
    if isinstance(task, RemoveBackup):
        names = [*(file.name for file in task.backup.files), f"{task.backup.id}.manifest.json"]
        paths = " ".join(shlex.quote(os.path.join(task.backup.folder, name)) for name in names)
        return [f"rm {paths}", *(f"rm {shlex.quote(to)}: {task.backup.id}" for to in task.copies)]
    if isinstance(task, DropLeftover):
        return ["rm " + " ".join(shlex.quote(os.path.join(task.folder, name)) for name in task.names)]
    raise Refused(f"{task.kind} is nothing that is done with files")


def carry_out(session: t.Any, task: Cure) -> Work:
    """Raises Busy, Refused, Stopped, Gone, MissingMeans."""
    if isinstance(task, CopyBackup):
        return _copy(session, task)
    if isinstance(task, RemoveBackup):
        return _remove(task)
    if isinstance(task, DropLeftover):
        return _clear(task)
    raise Refused(f"{task.kind} is nothing that is done with files")


def newest(task: t.Any) -> Backup:
    """The backup that the task names, or the newest of that database at this moment. Raises Refused."""
    if task.backup is not None:
        backup: Backup = task.backup
        return backup
    from .._files import backups

    found = backups.newest(task.manner.folder, server=task.manner.identity, database=task.ref.database)
    if found is None:
        raise Refused("there is no backup of it", database=task.ref.database, cure="Look at the step before this one")
    return found


def _copy(session: t.Any, task: CopyBackup) -> Work:
    from .._files import copies

    backup = newest(task)
    stop = getattr(session, "stopped", None)
    if task.source:
        bringing = copies.fetch(backup, task.source, bucket=task.bucket, stop=stop, rate_limit=task.manner.rate_limit)
        for more in bringing:
            yield Tick(Amount(written=more))
        yield Tick(note=backup.id)
        return
    for more in copies.copy(backup, task.to, bucket=task.bucket, stop=stop, rate_limit=task.manner.rate_limit):
        yield Tick(Amount(written=more))
    yield Tick(note=backup.id)


def _remove(task: RemoveBackup) -> Work:
    """The copies first: what is still here can be asked for them again."""
    from .._files import backups, copies

    for to in task.copies:
        copies.remove(task.backup, to, bucket=task.bucket)
        yield Tick()
    yield Tick(Amount(bytes=backups.remove(task.backup)))


def _clear(task: DropLeftover) -> Work:
    from .._backups import Unfinished
    from .._files import backups

    yield Tick(Amount(bytes=backups.clear(task.folder, Unfinished(task.ref.database, task.names, 0))))
