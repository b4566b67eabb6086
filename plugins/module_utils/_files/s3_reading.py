# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in a bucket: listed, and brought back. How it got there: s3.py."""

from __future__ import annotations

import hashlib
import os
import typing as t

from .._backups import Backup, Stored
from .._errors import Refused
from . import durable
from .backup_manifest import ID, MANIFEST
from .pipeline import BLOCK
from .reader import compare
from .s3 import Store
from .unfinished import folder_name

if t.TYPE_CHECKING:
    from .underway import Progress

LARGEST_MANIFEST = 1 << 26


class Reading(Store):
    """The same place, read."""

    def sizes(self, database: str | None = None) -> dict[str, int]:
        """All that is there by its name below the prefix, in pages of a thousand. Raises Refused, Gone."""
        prefix = "".join(
            f"{part}/" for part in (self._prefix, folder_name(database) if database is not None else "") if part
        )
        below = len(self._prefix) + 1 if self._prefix else 0
        found: dict[str, int] = {}
        with self._said():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                found.update({each["Key"][below:]: int(each["Size"]) for each in page.get("Contents", ())})
        return found

    def manifests(self, database: str, most: int) -> t.Iterator[tuple[str, bytes]]:
        """Ids and texts of that database's newest backups by name. Raises Refused, Gone."""
        folder = folder_name(database)
        found = {name: size for name, size in self.sizes(database).items() if name.endswith(MANIFEST)}
        names = {name[len(folder) + 1 : -len(MANIFEST)]: size for name, size in found.items()}
        idents = sorted((each for each in names if ID.fullmatch(each)), reverse=True)
        for ident in idents[:most]:
            if names[ident] <= LARGEST_MANIFEST:
                with self._said():
                    text = self._get("/".join(part for part in (self._prefix, folder, ident + MANIFEST) if part))
                if text is not None:
                    yield ident, text

    def bring(self, backup: Backup, stored: Stored, path: str, progress: Progress) -> None:
        """One file, which is there afterwards whole and flushed. Raises Refused, Gone, Stopped."""
        key = self._key(backup, stored.name)
        where, found, size = f"{self._to.rstrip('/')}: {key}", hashlib.sha256(), 0
        with self._said():
            if self._head(key) is None:
                raise Refused(f"{where} is not there", cure="Take another backup")
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
            with durable.refusing(f"{path} cannot be written"):
                writing = durable.create(path)
                try:
                    for data in body.iter_chunks(BLOCK):
                        found.update(data)
                        durable.write_all(writing, data)
                        size += len(data)
                        progress.more(len(data))
                    os.fsync(writing)
                finally:
                    os.close(writing)
        compare(where, stored, size, found.hexdigest())
