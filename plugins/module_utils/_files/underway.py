# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies that are made now, and those whose run died: each manifest tells where something of its backup may be.

A bucket knows no locks and no owners. So only what manifests here name is ever looked for there, or removed: two
servers may share a prefix.
"""

from __future__ import annotations

import os
import typing as t
from contextlib import contextmanager, suppress

from .._backups import Backup
from .._errors import Busy, Refused, Stopped
from . import durable
from .backup_manifest import MANIFEST, Distrusted, path_of, read_fields, read_manifest, text_of
from .pump import Pace


class Progress:
    """Between a copy that is made in a thread and whoever ticks for it."""

    def __init__(self, rate_limit: int | None) -> None:
        self.bytes, self.pace = 0, Pace(rate_limit)

    def more(self, size: int) -> None:
        """So much was copied. Raises Stopped."""
        self.bytes += size
        self.pace.keep(size)
        self.go_on()

    def go_on(self) -> None:
        """Raises Stopped."""
        if self.pace.halt.is_set():
            raise Stopped("stopped")


@contextmanager
def held(backup: Backup) -> t.Iterator[None]:
    """Whoever copies a backup has the lock of its first file: its manifest is amended meanwhile. Raises Busy, Refused.

    A backup that has no file (it is another program's, or lost it) has none.
    """
    fd = -1
    if backup.files:
        path = os.path.join(backup.folder, backup.files[0].name)
        with durable.refusing(f"{path} cannot be copied"), suppress(FileNotFoundError):
            fd = durable.open_again(path)
    try:
        if fd >= 0 and not durable.locked(fd):
            raise Busy(f"{path} is being copied by another run")
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def told(backup: Backup) -> bytes:
    """The manifest as it is by now, for a copy: where it is going itself is nothing that others have to look for.

    Raises Refused.
    """
    path = path_of(backup)
    with durable.refusing(f"{path} cannot be read"):
        try:
            return text_of({**read_fields(path), "copying": []})
        except Distrusted as error:
            raise Refused(f"{path} cannot be read: {error}") from error


def died(backup: Backup, to: str) -> list[Backup]:
    """Other backups of the same, of which something may be there that no run has finished. Never raises."""
    found: list[Backup] = []
    with suppress(OSError):
        for name in sorted(os.listdir(backup.folder)):
            if name.endswith(MANIFEST) and name != backup.id + MANIFEST:
                with suppress(OSError, Distrusted):
                    other = read_manifest(os.path.join(backup.folder, name))
                    if to in other.copying and other.server == backup.server:
                        found.append(other)
    return found
