# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup folder: what lies there, and what may be taken away. How files are filled stands in store.py.

`<folder>/<database>/<id>.<ending>` and, written last, `<id>.manifest.json`; `<id>.partial` while it is written: whoever
writes holds its lock.
"""

from __future__ import annotations

import os
import typing as t
from contextlib import contextmanager, suppress
from datetime import datetime, timezone

from .._backups import LEVELS, Backup, Shelf, Sheltered, Unfinished
from .._errors import Busy, Refused, Vanished
from . import durable, unfinished
from .backup_manifest import (
    MANIFEST,
    PARTIAL,
    Distrusted,
    parse,
    path_of,
    read_fields,
    read_manifest,
    text_of,
    write_manifest,
)
from .looking import looked_at


def look(wanted: Sheltered) -> Shelf:
    """The folder as it is; changes nothing. Never raises: what is wrong is in `why_not`.

    A folder that does not answer in time (a share whose server is gone) is left to a thread that nobody waits for.
    """
    if wanted.timeout is None:
        return looked_at(wanted)
    from .pump import Worker

    found: list[Shelf] = []
    worker = Worker(lambda: found.append(looked_at(wanted)))
    if not worker.ended(wanted.timeout) or not found:
        return Shelf(wanted.folder, why_not=f"{wanted.folder} did not answer within {wanted.timeout:g} s")
    return found[0]


def newest(folder: str, *, server: str, database: str, methods: t.Sequence[str] = ()) -> Backup | None:
    """The youngest complete backup of that database at this moment; `methods`: only these. Raises Refused."""
    place = os.path.join(os.path.abspath(folder), unfinished.folder_name(database))
    with durable.refusing(f"{place} cannot be read"):
        try:
            names = sorted((name for name in os.listdir(place) if name.endswith(MANIFEST)), reverse=True)
        except FileNotFoundError:
            return None
    found: list[Backup] = []
    for name in names:
        with suppress(OSError, Distrusted):
            backup = read_manifest(os.path.join(place, name))
            wanted = (backup.server, backup.database) == (server, database)
            if wanted and (not methods or backup.method in methods) and not missing(backup):
                found.append(backup)
    return max(found, key=lambda backup: (backup.began, backup.id), default=None)


def missing(backup: Backup) -> str:
    """Which file is not there, or has another size; "": none. Raises OSError."""
    for file in backup.files:
        try:
            size = os.stat(os.path.join(backup.folder, file.name), follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{file.name} is missing"
        if size != file.bytes:
            return f"{file.name} has {size} bytes instead of {file.bytes}"
    return ""


def amend(
    backup: Backup,
    *,
    level: str = "",
    at: datetime | None = None,
    copies: t.Sequence[str] = (),
    copying: t.Sequence[str] = (),
    without: t.Sequence[str] = (),
    rows: t.Mapping[str, int] | None = None,
    sums: t.Mapping[str, str] | None = None,
    pin: bool | None = None,
) -> Backup:
    """Writes into the manifest as it is now: how far it was verified (never less than before), where copies are.

    `copying`: where something of it is about to be; `without`: where nothing of it is any more. What only a later
    version of the collection knows stays as it is. Raises Busy, Refused, Vanished.
    """
    path = path_of(backup)
    with durable.refusing(f"{path} cannot be changed"), _held(backup):
        try:
            fields = read_fields(path)
            now = parse(fields, backup.folder)
            if LEVELS.index(level) >= LEVELS.index(now.level) and level:
                fields["level"] = level
                fields["verified_at"] = (at or datetime.now(timezone.utc)).astimezone(timezone.utc).isoformat()
            fields["copies"] = [to for to in dict.fromkeys((*now.copies, *copies)) if to not in without]
            ended = (*copies, *without)
            fields["copying"] = [to for to in dict.fromkeys((*now.copying, *copying)) if to not in ended]
            fields["rows"] = now.rows if rows is None else dict(rows)
            fields["sums"] = now.sums if sums is None else dict(sums)
            fields["pin"] = now.pin if pin is None else pin
            changed = parse(fields, backup.folder)
            durable.replace(path, text_of(fields))
        except Distrusted as error:
            raise Refused(f"{path} cannot be changed: {error}") from error
    return changed


def record(backup: Backup, folder: str) -> Backup:
    """The manifest of a backup whose files lie elsewhere, in another program's repository; as it is by now.

    Raises Refused.
    """
    place = os.path.join(os.path.abspath(folder), unfinished.folder_name(backup.database))
    backup = backup._replace(folder=place)
    with durable.refusing(f"{place} cannot be written"):
        why_not = durable.why_not(os.path.abspath(folder)) or (os.path.islink(place) and f"{place} is a symbolic link")
        if why_not:
            raise Refused(why_not, cure="Name a folder of the backup's user: backup_dir")
        durable.make_folder(place)
        with suppress(FileNotFoundError, Distrusted):
            return read_manifest(path_of(backup))
        write_manifest(backup)
    return backup


@contextmanager
def _held(backup: Backup) -> t.Iterator[int]:
    """The lock of a manifest: who amends and who removes do not meet. Raises Busy, Vanished, OSError."""
    path = path_of(backup)
    try:
        fd = durable.open_again(path)
    except FileNotFoundError:
        raise Vanished(f"{path} is not there any more") from None
    try:
        # Who had it before may have put another file in its place.
        if not durable.locked(fd) or not _same(fd, path):
            raise Busy(f"{path} is being changed by another run")
        yield fd
    finally:
        os.close(fd)


def _same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def remove(backup: Backup) -> int:
    """Removes the files that the manifest names by now, and nothing else; bytes freed. Raises Busy, Refused, Vanished.

    The manifest becomes the marker of something unfinished first: whatever dies on the way is no backup, and is cleared
    away by the next run.
    """
    path = path_of(backup)
    marker = backup.id + PARTIAL
    with durable.refusing(f"{path} cannot be removed"), _held(backup):
        try:
            names = [file.name for file in read_manifest(path).files]
        except Distrusted as error:
            raise Refused(f"{path} cannot be removed: {error}", cure="Look at it, then remove it by hand") from error
        os.rename(path, os.path.join(backup.folder, marker))
        durable.sync_folder(backup.folder)
        freed = unfinished.take_away(backup.folder, [*names, backup.id + MANIFEST + durable.TEMPORARY], last="")
        unfinished.empty(backup.folder, names)
        return freed + unfinished.take_away(backup.folder, [marker], last=marker)


def clear(folder: str, left: Unfinished) -> int:
    """Removes what a backup that died left behind, unless somebody works on it; bytes freed. Raises Busy, Refused."""
    return unfinished.clear(os.path.abspath(folder), left.files)
