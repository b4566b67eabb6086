# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies that are looked at: which of them are gone, and which backups there are only there. How they go: copies.py."""

from __future__ import annotations

import os
import typing as t
from contextlib import suppress

from .._backups import Backup, Bucket, Shelf, Sheltered
from .._errors import DbFault
from .backup_manifest import MANIFEST, Distrusted, fields_of, parse, read_manifest
from .unfinished import folder_name

BUCKET = "s3://"
MOST = 500  # manifests of a database that are read from a bucket, the newest ones


def seen(shelf: Shelf, wanted: Sheltered) -> Shelf:
    """Without copies that are not there any more, and with backups that are only there. Never raises: see `unseen`."""
    try:
        if wanted.target:
            shelf = _without_vanished(shelf, wanted.target, wanted.bucket)
        if wanted.source:
            shelf = shelf._replace(elsewhere=tuple(_only_there(shelf, wanted)))
    except DbFault as fault:
        return shelf._replace(unseen=f"{fault.cause}. {fault.cure}".rstrip(". "))
    return shelf


def _without_vanished(shelf: Shelf, target: str, bucket: Bucket | None) -> Shelf:
    """Raises Refused, Gone, MissingMeans."""
    said = [backup for backup in shelf.backups if any(to.rstrip("/") == target for to in backup.copies)]
    if not said:
        return shelf
    if target.startswith(BUCKET):
        if bucket is None:
            return shelf
        from .s3_reading import Reading

        sizes = Reading(target, bucket).sizes()
        gone = {backup.id for backup in said if not _is_whole(backup, sizes)}
    elif os.path.isdir(target):
        gone = {
            b.id for b in said if not os.path.lexists(os.path.join(target, folder_name(b.database), b.id + MANIFEST))
        }
    else:
        return shelf
    left = [
        b._replace(copies=tuple([to for to in b.copies if to.rstrip("/") != target])) if b.id in gone else b
        for b in shelf.backups
    ]
    return shelf._replace(backups=tuple(left), vanished=tuple(sorted(gone)))


def _is_whole(backup: Backup, sizes: t.Mapping[str, int]) -> bool:
    """As far as names and sizes tell."""
    folder = folder_name(backup.database)
    files = all(sizes.get(f"{folder}/{file.name}") == file.bytes for file in backup.files)
    return files and f"{folder}/{backup.id}{MANIFEST}" in sizes


def _only_there(shelf: Shelf, wanted: Sheltered) -> list[Backup]:
    """Raises Refused, Gone, MissingMeans."""
    here = {backup.id for backup in shelf.backups}
    found = [b for name in wanted.databases for b in _of_database(wanted, name) if b.id not in here]
    return sorted(found, key=lambda backup: (backup.began, backup.id))


def _of_database(wanted: Sheltered, database: str) -> t.Iterator[Backup]:
    """As they will lie here. What is not to be trusted is none."""
    place = os.path.join(os.path.abspath(wanted.folder), folder_name(database))
    if not wanted.source.startswith(BUCKET):
        there = os.path.join(wanted.source, folder_name(database))
        with suppress(OSError):
            for name in sorted(os.listdir(there), reverse=True)[: 3 * MOST]:
                if name.endswith(MANIFEST):
                    with suppress(OSError, Distrusted):
                        yield read_manifest(os.path.join(there, name))._replace(folder=place)
        return
    from .s3_reading import Reading

    for ident, text in Reading(wanted.source, wanted.bucket or Bucket()).manifests(database, MOST):
        with suppress(Distrusted):
            backup = parse(fields_of(text), place)
            if backup.id == ident and backup.database == database:
                yield backup
