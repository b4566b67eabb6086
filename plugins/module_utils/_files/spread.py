# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of many files that a program writes itself: watched while it does, hashed and flushed afterwards."""

from __future__ import annotations

import os
import stat
import threading
import time
import typing as t
from contextlib import suppress

from .._backups import Stored
from .._errors import Refused
from . import durable
from .backup_manifest import PARTIAL
from .pipeline import Chain, blocks
from .pump import Worker


class Program:
    """What it writes to its standard output is read and forgotten."""

    def __init__(self, chain: Chain, place: str) -> None:
        self._chain, self._place = chain, place
        self.said: dict[str, str] = {}

    def run(self, stop: threading.Event | None) -> t.Generator[int, None, None]:
        """Yields by how much the place has grown. Leaving it ends the program. Raises ProgramFailed, Stopped."""
        worker, told, looked = Worker(self._work), 0, 0.0
        try:
            for _second in worker.ticks(stop):
                began, now = time.monotonic(), told
                if began >= looked:
                    now = _size(self._place)
                    # A place with very many files is looked into less often: that is a twentieth of the time.
                    looked = began + 20 * (time.monotonic() - began)
                yield max(now - told, 0)
                told = max(now, told)
            yield max(_size(self._place) - told, 0)
        finally:
            self._chain.stop()
            worker.ended()

    def _work(self) -> None:
        try:
            for _block in blocks(self._chain.output):
                pass
        finally:
            os.close(self._chain.output)
        self.said = self._chain.finish()


def _size(place: str) -> int:
    size = 0
    for folder, _folders, files in os.walk(place):
        for name in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(folder, name)).st_size
    return size


def take(place: str, what: str, named: t.Mapping[str, str] | None = None) -> list[Stored]:
    """Each file in the place, hashed and flushed, mode 0600; as it is called when the place is. Raises Refused.

    `named`: what files of these names are instead.
    """
    found: list[Stored] = []
    with durable.refusing(f"{place} could not be finished"):
        for folder, folders, files in os.walk(place):
            os.chmod(folder, 0o700)
            for name in sorted(files):
                path = os.path.join(folder, name)
                found.append(_stored(path, (named or {}).get(name, what), place))
            folders.sort()
            durable.sync_folder(folder)
    if not found:
        raise Refused(f"{place} is empty: the program ended well and wrote nothing")
    return found


def _stored(path: str, what: str, place: str) -> Stored:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise Refused(f"{path} is no file: such a thing is not backed up")
    fd = durable.open_again(path)
    try:
        os.fchmod(fd, 0o600)
        os.fsync(fd)
        size = os.fstat(fd).st_size
    finally:
        os.close(fd)
    inside = os.path.relpath(path, place)
    final = os.path.basename(place)[: -len(PARTIAL)]
    return Stored(f"{final}/{inside}", size, durable.digest(path), what)
