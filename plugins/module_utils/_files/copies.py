# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of a backup elsewhere: in a folder (folder.py), or in a bucket (s3.py). Verified there, or not there."""

from __future__ import annotations

import os
import threading
import typing as t
from contextlib import suppress

from .._backups import Backup, Bucket
from .._errors import BadInput, Busy, Gone, Refused, Vanished
from . import backups, durable, folder, underway
from .backup_manifest import MANIFEST
from .pump import Worker
from .underway import Progress
from .unfinished import folder_name

BUCKET = "s3://"


def copy(
    backup: Backup,
    to: str,
    *,
    bucket: Bucket | None = None,
    stop: threading.Event | None = None,
    rate_limit: int | None = None,
) -> t.Generator[int, None, None]:
    """Copies, reads it again there and compares; then the manifest there, then `copies` of the manifest here.

    Before anything is there `copying` of the manifest here says so: whoever copies or rotates next cleans up after a
    run that died. What is there already, and whole, is verified only. Yields bytes since the last time, at least once
    a second. Raises BadInput, Busy, Refused, MissingMeans, Gone, Stopped: then no manifest is there, but for that of a
    copy which could not be looked at.
    """
    progress = Progress(rate_limit)
    there = _place(to, bucket)
    with underway.held(backup):
        yield from _worked(lambda: _copied(there, backup, to, progress), progress, stop)
        try:
            backups.amend(backup, copies=[to])
        except Vanished:
            there.remove(backup)  # it was rotated meanwhile: nobody would ever look for its copy
            raise


def _copied(there: Place, backup: Backup, to: str, progress: Progress) -> None:
    there.ready(backup)
    for left in underway.died(backup, to):
        # What cannot be settled now is found again by the next run.
        with suppress(Busy, Refused, Gone), underway.held(left):
            if there.holds(left, progress):
                backups.amend(left, copies=[to])
            else:
                there.remove(left)
                backups.amend(left, without=[to])
    # What cannot be looked at now may be whole: it stays.
    if there.holds(backup, progress):
        return
    backups.amend(backup, copying=[to])
    try:
        there.copy(backup, progress)
    except BaseException:
        # A place that does not answer now keeps what it has, which is no backup: as above, the next run finds it.
        with suppress(Exception):
            there.remove(backup)
            backups.amend(backup, without=[to])
        raise


def fetch(
    backup: Backup,
    source: str,
    *,
    bucket: Bucket | None = None,
    stop: threading.Event | None = None,
    rate_limit: int | None = None,
) -> t.Generator[int, None, None]:
    """The way back, into `backup.folder`: each file compared with its hash, the manifest last.

    Yields bytes since the last time, at least once a second. Raises BadInput, Busy, Refused, MissingMeans, Gone,
    Stopped: then no manifest is here.
    """
    progress, bring = Progress(rate_limit), _bringing(backup, source, bucket)
    told = backup._replace(copies=tuple(dict.fromkeys((*backup.copies, source))), copying=())
    yield from _worked(lambda: _fetched(told, bring, progress), progress, stop)


def _worked(
    work: t.Callable[[], None], progress: Progress, stop: threading.Event | None
) -> t.Generator[int, None, None]:
    """In a thread; yields bytes once a second."""
    told, worker = 0, Worker(work)
    try:
        for _second in worker.ticks(stop):
            now = progress.bytes
            yield now - told
            told = now
    finally:
        progress.pace.halt.set()
        worker.ended()
    yield progress.bytes - told


def _bringing(backup: Backup, source: str, bucket: Bucket | None) -> folder.Bring:
    if source.startswith(BUCKET):
        from .s3_reading import Reading

        reading = Reading(source, bucket or Bucket())
        return lambda stored, path, progress: reading.bring(backup, stored, path, progress)
    there = os.path.join(source, folder_name(backup.database))
    return lambda stored, path, progress: folder.copy_file(os.path.join(there, stored.name), path, stored, progress)


def _fetched(backup: Backup, bring: folder.Bring, progress: Progress) -> None:
    with durable.refusing(f"{backup.folder} cannot be written"):
        why_not = durable.why_not(os.path.dirname(backup.folder))
        if why_not or os.path.islink(backup.folder):
            raise Refused(why_not or f"{backup.folder} is a symbolic link", cure="Name another backup_dir")
        durable.make_folder(backup.folder)
        # What is left here of it is not whole, or it would not be fetched.
        left = os.path.join(backup.folder, backup.id + MANIFEST)
        if os.path.lexists(left):
            with suppress(Vanished):
                backups.remove(backup)
        folder.made(backup, backup.folder, bring, progress)


def remove(backup: Backup, to: str, *, bucket: Bucket | None = None) -> int:
    """Removes the copy there, so that half of it is never taken for one; bytes freed. Not there: 0.

    Raises BadInput, Busy, Refused, MissingMeans, Gone.
    """
    with underway.held(backup):
        freed = _place(to, bucket).remove(backup)
    with suppress(Vanished):
        backups.amend(backup, without=[to])
    return freed


class Place(t.Protocol):
    """Where copies are."""

    def ready(self, backup: Backup) -> None:
        """Raises where nothing can be copied to, before anything is said or done."""

    def holds(self, backup: Backup, progress: Progress) -> bool:
        """Whether all of it is there, verified."""

    def copy(self, backup: Backup, progress: Progress) -> None: ...

    def remove(self, backup: Backup) -> int: ...


def _place(to: str, bucket: Bucket | None) -> Place:
    if to.startswith(BUCKET):
        from .s3 import Store

        return Store(to, bucket or Bucket())
    if not os.path.isabs(to):
        raise BadInput(f"copy_to: {to!r} is neither an absolute path nor {BUCKET}bucket/prefix")
    return folder.Folder(to)
