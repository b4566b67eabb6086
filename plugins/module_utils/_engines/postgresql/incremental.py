# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of whole servers that build on others: the list that a new one is compared with, and the way back to one."""

from __future__ import annotations

import os
import shutil
import typing as t
from pathlib import Path

from ..._backups import Backup, Decryption, Stored
from ..._errors import DbFault, Refused, Stopped
from ..._records import Tick, Work
from . import tarballs, throwaway
from .clients import client
from .file_list import LIST, is_whole
from .session import Session
from .versions import has

MOST = 1 << 31  # bytes of a list: some hundred for each file of the server
LONGEST = 1000  # links of a chain


def listed(backup: Backup) -> Stored:
    """Its list of files. Raises Refused."""
    found = next((file for file in backup.files if file.what == LIST), None)
    if found is None:
        raise Refused(f"backup {backup.id} has no list of its files: nothing can build on it", cure="Make a full one")
    return found


def unpacked_list(parent: Backup, folder: Path) -> str:
    """The list as pg_basebackup takes it: a plain file in that private folder. Raises Refused, what reading raises."""
    from ..._files import reader

    path = folder / "backup_manifest"
    with reader.opened(parent, listed(parent), None) as source:
        text = _read(source)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
    return str(path)


def _read(source: t.BinaryIO) -> bytes:
    text = b"".join(iter(lambda: source.read(1 << 20), b""))
    if len(text) > MOST or not is_whole(text):
        raise Refused("the list of a backup's files is damaged", cure="Make a full backup")
    return text


# ---- the way back ----------------------------------------------------------------------------------------------------


def chain(backup: Backup) -> list[Backup]:
    """The full one that it begins with, and all that follow, in their order. Raises Refused where one is missing."""
    from ..._files import backups
    from ..._files.backup_manifest import MANIFEST, Distrusted, read_manifest

    found = [backup]
    while found[0].parent:
        wanted = found[0].parent
        cure = "It restores nothing without that one: make a full backup"
        try:
            parent = read_manifest(os.path.join(backup.folder, wanted + MANIFEST))
            missing = backups.missing(parent)
        except (OSError, Distrusted) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise Refused(f"backup {found[0].id} builds on {wanted}, which is not there: {why}", cure=cure) from None
        if missing or parent.server != backup.server or len(found) > LONGEST:
            why = missing or "it is another server's"
            raise Refused(f"backup {found[0].id} builds on {wanted}, which is broken: {why}", cure=cure)
        found.insert(0, parent)
    return found


def combined(
    session: Session,
    backups: t.Sequence[Backup],
    decrypt: Decryption | None,
    folder: Path,
    where: t.Mapping[str, Path],
    *,
    bin_dir: str,
    owner: tuple[int, int] | None,
) -> Work:
    """`folder`/data as the last of them has it, by pg_combinebackup, and its tablespaces where their oids say.

    Raises Refused, MissingMeans, Stopped.
    """
    from ..._process import Program
    from .decoding import major

    version = max(major(backup.version) for backup in backups)
    tool = client("pg_combinebackup", version, bin_dir)
    places = [folder / backup.id for backup in backups]
    apart: dict[str, Path] = {}
    for backup, place in zip(backups, places):
        apart = {space.oid: folder / f"{backup.id}.spaces" / space.oid for space in tarballs.spaces(backup)}
        yield from tarballs.laid(session, backup, decrypt, place, apart, owner=owner)
    how = ["--link"] if has("combine by links", tool.major) else []
    argv = [*throwaway.prefix(owner), tool.path, *how, "--no-sync", f"--output={folder / 'data'}"]
    argv += [f"--tablespace-mapping={_mapped(apart[oid])}={_mapped(where[oid])}" for oid in apart]
    program, done = Program([*argv, *map(str, places)], env={**os.environ, "LC_ALL": "C"}), None
    try:
        while done is None:
            done = program.wait(1.0)
            if done is None and session.stopped.is_set():
                raise Stopped("stopped")
            yield Tick()
    finally:
        if done is None:
            program.stop()
    if done.code:
        raise _fault(backups, done.err)
    for place in (*places, *(folder / f"{backup.id}.spaces" for backup in backups)):
        shutil.rmtree(place, ignore_errors=True)
        yield Tick()


def _mapped(path: Path) -> str:
    """Source: the manual, pg_combinebackup --tablespace-mapping."""
    return str(path).replace("=", "\\=")


def _fault(backups: t.Sequence[Backup], said: str) -> DbFault:
    names = ", ".join(backup.id for backup in backups)
    return Refused(f"pg_combinebackup cannot put {names} together: {' '.join(said.split())[-500:]}")
