# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup folder, looked at: names and sizes, manifests, what is nobody's. Changes nothing and raises nothing."""

from __future__ import annotations

import os
import re
import stat
import typing as t
from contextlib import suppress
from functools import lru_cache

from .._backups import Backup, Broken, Shelf, Sheltered, Unfinished
from . import durable
from .backup_manifest import ID, MANIFEST, PARTIAL, Distrusted, read_manifest
from .unfinished import belongings, folder_name, held, told

TEMPORARY = re.compile(ID.pattern + re.escape(MANIFEST + durable.TEMPORARY))


def looked_at(wanted: Sheltered) -> Shelf:
    """The folder as it is. Never raises: what is wrong is in `why_not`."""
    folder = os.path.abspath(wanted.folder)
    look = _Look(folder)
    why_not = ""
    try:
        why_not = durable.why_not(wanted.folder)
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False):
                look.into(entry.name)
            else:
                look.foreign.append(entry.name)
    except OSError as error:
        why_not = why_not or f"{error.filename or folder}: {error.strerror}"
    free, device = _space(folder)
    shelf = Shelf(
        folder=wanted.folder,
        backups=tuple(sorted(look.backups, key=lambda b: (b.began, b.id))),
        broken=tuple(look.broken),
        unfinished=tuple(look.unfinished),
        foreign=tuple(look.foreign),
        free=free,
        device=device,
        why_not=why_not,
    )
    if wanted.site:
        from .sites import look as look_at_site

        site = look_at_site(wanted.site)
        spaces = look_at_site(wanted.spaces, site) if wanted.spaces else None
        shelf = shelf._replace(site=site, spaces=spaces)
    if wanted.target or wanted.source:
        from .elsewhere import seen

        return seen(shelf, wanted)
    return shelf


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _space(folder: str) -> tuple[int | None, int | None]:
    """Free bytes and the device of the file system that the folder is, or will be, on."""
    while not os.path.lexists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    try:
        space = os.statvfs(folder)
        return space.f_bavail * space.f_frsize, os.stat(folder).st_dev
    except OSError:
        return None, None


class _Look:
    """What is found, folder by folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.backups: list[Backup] = []
        self.broken: list[Broken] = []
        self.unfinished: list[Unfinished] = []
        self.foreign: list[str] = []

    def into(self, name: str) -> None:
        """One database's folder."""
        folder = os.path.join(self._folder, name)
        try:
            present = {entry.name: entry for entry in _entries(folder)}
        except OSError as error:
            self.foreign.append(f"{name}: {error.strerror}")
            return
        known: set[str] = set()
        alive: set[str] = set()
        for manifest in [each for each in present if each.endswith(MANIFEST)]:
            if ID.fullmatch(manifest[: -len(MANIFEST)]):
                known.add(manifest)
                self._backup(name, manifest, present, known)
        for ident in sorted({each[:23] for each in present if PARTIAL in each and ID.match(each)}):
            self._left(name, ident, present, known, alive)
        for each in [each for each in present if each not in known and TEMPORARY.fullmatch(each)]:
            self._half(name, each, present, alive)
        self.foreign += [
            f"{name}/{each}"
            for each in present
            if each not in known and each[:23] not in alive and not TEMPORARY.fullmatch(each)
        ]

    def _backup(self, name: str, manifest: str, present: t.Mapping[str, os.DirEntry[str]], known: set[str]) -> None:
        folder = os.path.join(self._folder, name)
        backup: Backup | None = None
        try:
            backup = read_manifest(os.path.join(folder, manifest))
            known.update([file.name.split("/", 1)[0] for file in backup.files])
            why = _why_broken(backup, name, present)
        except FileNotFoundError:  # it was removed a moment ago
            return
        except Distrusted as error:
            why = str(error)
        except OSError as error:
            why = error.strerror or str(error)
        if why and not os.path.lexists(os.path.join(folder, manifest)):
            return  # it has been removed meanwhile
        if why or backup is None:
            self.broken.append(Broken(f"{name}/{manifest}", why, backup))
        else:
            self.backups.append(backup)

    def _left(
        self, name: str, ident: str, present: t.Mapping[str, os.DirEntry[str]], known: set[str], alive: set[str]
    ) -> None:
        """A backup that is being written, or was when somebody died."""
        folder = os.path.join(self._folder, name)
        if _held(folder, ident, was=ident + PARTIAL in present):
            alive.add(ident)
            return
        said = told(folder, ident)
        if ident + MANIFEST in present:
            files = [each for each in (ident + PARTIAL,) if each in present]
        else:
            files = belongings(present, ident, said.names)
        known.update(files)
        if files:
            sizes = sum(_bytes(present[each]) for each in files)
            names = tuple([f"{name}/{each}" for each in files])
            self.unfinished.append(Unfinished(said.database, names, sizes, said.server, said.removed))

    def _half(self, name: str, half: str, present: t.Mapping[str, os.DirEntry[str]], alive: set[str]) -> None:
        """What was to become the manifest of a backup when who amended it died."""
        ident, folder = half[:23], os.path.join(self._folder, name)
        found = [b for b in self.backups if b.id == ident and b.folder == folder]
        if not found or ident in alive or _held(folder, ident, was=True, tail=MANIFEST):
            return
        whose = found[0]
        self.unfinished.append(Unfinished(whose.database, (f"{name}/{half}",), _bytes(present[half]), whose.server))


def _held(folder: str, ident: str, *, was: bool, tail: str = PARTIAL) -> bool:
    """Also who had a marker when the folder was read, and has none any more: that one has just come to its end."""
    try:
        # Asked in this order: a marker goes before its lock does, and may go while we ask.
        return held(folder, ident, tail) or (was and not os.path.lexists(os.path.join(folder, ident + tail)))
    except OSError:  # another user's: then not ours to call dead
        return True


@lru_cache(maxsize=16)
def is_folder_of(database: str, name: str) -> bool:
    """Whether that is where the database's backups belong; thousands of manifests ask, one after the other."""
    return folder_name(database) == name


def _bytes(entry: os.DirEntry[str]) -> int:
    with suppress(OSError):
        if not entry.is_dir(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_size
        with os.scandir(entry.path) as inside:
            return sum(_bytes(each) for each in inside)
    return 0


def _why_broken(backup: Backup, name: str, present: t.Mapping[str, os.DirEntry[str]]) -> str:
    """Which file is not there, or has another size; "" when all are as they should be. Raises OSError."""
    if not is_folder_of(backup.database, name):
        return f"it is of database {backup.database!r}, which belongs in another folder"
    for file in backup.files:
        try:
            found = _stat(backup.folder, file.name, present)
        except (FileNotFoundError, NotADirectoryError):
            return f"{file.name} is missing"
        if not stat.S_ISREG(found.st_mode):
            return f"{file.name} is no file"
        if found.st_size != file.bytes:
            return f"{file.name} has {found.st_size} bytes instead of {file.bytes}"
    return ""


def _stat(folder: str, name: str, present: t.Mapping[str, os.DirEntry[str]]) -> os.stat_result:
    first, *inside = name.split("/")
    if not inside:
        entry = present.get(first)  # renamed while the folder was read: then it is in no list
        return entry.stat(follow_symlinks=False) if entry else os.lstat(os.path.join(folder, first))
    for depth in range(len(inside)):  # no symbolic link leads out of the folder
        if not stat.S_ISDIR(os.lstat(os.path.join(folder, first, *inside[:depth])).st_mode):
            raise NotADirectoryError(name)
    return os.lstat(os.path.join(folder, name))
