# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies in another folder, such as a mounted share: each file is read again there before it is called one."""

from __future__ import annotations

import hashlib
import os
import typing as t
from contextlib import suppress

from .._backups import Backup, Stored
from .._errors import BadInput, Refused, Vanished
from . import backups, durable, unfinished
from .backup_manifest import MANIFEST, PARTIAL, Distrusted, path_of, read_manifest, write_manifest
from .pipeline import BLOCK
from .reader import compare, forget
from .underway import Progress

Bring = t.Callable[[Stored, str, Progress], None]  # one file, to be there whole


class Folder:
    """It has to be there: what is made where a share is not mounted would be no copy elsewhere."""

    def __init__(self, to: str) -> None:
        self._to = to

    def _place(self, backup: Backup) -> str:
        return os.path.join(self._to, unfinished.folder_name(backup.database))

    def ready(self, backup: Backup) -> None:
        place = self._place(backup)
        with durable.refusing(f"{place} cannot be written"):
            why_not = durable.why_not(self._to) if os.path.isdir(self._to) else f"{self._to} is not there"
            if why_not:
                raise Refused(f"copy_to: {why_not}", cure="Mount it, or make it, for the user that the module runs as")
            if os.path.realpath(place) == os.path.realpath(backup.folder):
                raise BadInput(f"copy_to: {self._to} is where the backups are")

    def holds(self, backup: Backup, progress: Progress) -> bool:
        place = self._place(backup)
        if not os.path.isdir(place):
            return False
        with durable.refusing(f"{place} cannot be read"):
            # What copies that died left there, also of older backups: nobody may ever copy those again.
            unfinished.sweep(place, backup.server, backup.database)
            return self._is_there(backup, place, progress)

    def copy(self, backup: Backup, progress: Progress) -> None:
        place = self._place(backup)
        with durable.refusing(f"{place} cannot be written"):
            durable.make_folder(place)
            self._copy(backup, place, progress)

    def _is_there(self, backup: Backup, place: str, progress: Progress) -> bool:
        """A copy that was changed is taken away, to be made again."""
        try:
            there = read_manifest(os.path.join(place, backup.id + MANIFEST))
        except FileNotFoundError:
            return False
        except Distrusted:
            durable.unlink(os.path.join(place, backup.id + MANIFEST))
            return False
        try:
            if there.files != backup.files:
                raise Refused("it holds other files")
            for stored in there.files:
                _verify(os.path.join(place, stored.name), stored, progress)
        except (Refused, FileNotFoundError):
            backups.remove(there)
            return False
        return True

    def _copy(self, backup: Backup, place: str, progress: Progress) -> None:
        try:
            told = read_manifest(path_of(backup))
        except Distrusted as error:
            raise Refused(f"{path_of(backup)} cannot be read: {error}") from error

        def bring(stored: Stored, path: str, progress: Progress) -> None:
            copy_file(os.path.join(backup.folder, stored.name), path, stored, progress)

        made(told._replace(copying=()), place, bring, progress)

    def remove(self, backup: Backup) -> int:
        place = self._place(backup)
        with durable.refusing(f"{place} cannot be removed"):
            if not os.path.isdir(self._to):
                raise Refused(f"copy_to: {self._to} is not there", cure="Mount it, so that the copy can be removed")
            freed = _clear(place, backup.id) if os.path.isdir(place) else 0
            with suppress(Vanished):
                freed += backups.remove(backup._replace(folder=place))
        return freed


def made(backup: Backup, place: str, bring: Bring, progress: Progress) -> None:
    """Its files in that folder, read again there, and then its manifest."""
    _clear(place, backup.id)
    marker = unfinished.Marker(place, backup.id, backup.server, backup.database)
    made, tops = False, list(dict.fromkeys(file.name.split("/")[0] for file in backup.files))
    try:
        for name in tops:
            marker.add(name)
        for stored in backup.files:
            path = os.path.join(place, _partial(stored.name))
            durable.make_folder(os.path.dirname(path))
            bring(stored, path, progress)
            _verify(path, stored, progress)
        for name in tops:
            os.rename(os.path.join(place, name + PARTIAL), os.path.join(place, name))
        durable.sync_folder(place)
        progress.go_on()
        write_manifest(backup._replace(folder=place))
        made = True
    finally:
        if not made:
            _drop(place, backup.id, tops)
        marker.drop()


def _clear(place: str, ident: str) -> int:
    """What an earlier copy that died left behind. Raises Busy, Refused."""
    if not os.path.lexists(os.path.join(place, ident + PARTIAL)):
        return 0
    return unfinished.clear(os.path.dirname(place), [os.path.join(os.path.basename(place), ident + PARTIAL)])


def _drop(place: str, ident: str, tops: t.Sequence[str]) -> None:
    """What cannot be removed now is found by whoever copies next: the marker names it."""
    with suppress(OSError):
        unfinished.take_away(place, [ident + MANIFEST], last="")
        unfinished.take_away(place, [name + tail for name in tops for tail in (PARTIAL, "")], last="")


def _partial(name: str) -> str:
    first, *inside = name.split("/")
    return "/".join([first + PARTIAL, *inside])


def copy_file(source: str, path: str, stored: Stored, progress: Progress) -> None:
    """Raises Refused where the backup itself is not what it was."""
    found, size = hashlib.sha256(), 0
    space = memoryview(bytearray(BLOCK))
    reading = durable.open_to_read(source)
    try:
        writing = durable.create(path)
        try:
            for count in iter(lambda: os.readv(reading, [space]), 0):
                found.update(space[:count])
                durable.write_all(writing, space[:count])
                size += count
                progress.more(count)
            os.fsync(writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    compare(source, stored, size, found.hexdigest())


def _verify(path: str, stored: Stored, progress: Progress) -> None:
    """Read again, from the disk. Raises Refused, OSError."""
    found, size = hashlib.sha256(), 0
    space = memoryview(bytearray(BLOCK))
    fd = durable.open_to_read(path)
    try:
        forget(fd)
        for count in iter(lambda: os.readv(fd, [space]), 0):
            found.update(space[:count])
            size += count
            progress.go_on()
    finally:
        os.close(fd)
    compare(path, stored, size, found.hexdigest())
