# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore on a server whose disk becomes full: it waits for room in silence, for ever, rather than fail.

So it does with the binary log ("Disk is full … waiting for someone to free some space"), and with MyISAM and Aria.
Nothing is dropped and nobody killed then: DROP DATABASE is logged, too, and so would wait as well once it had removed
the tables, and MySQL ends itself where a session gives up what it was to log (binlog_error_action).
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ..._errors import DbFault, Refused
from ..._records import Server
from . import faults, space

FOLDERS = "SELECT @@GLOBAL.datadir, @@GLOBAL.log_bin_basename"
SIZE = """
    SELECT CAST(COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS UNSIGNED) FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s"""
STALL = 5.0  # seconds in which the server has taken nothing
LITTLE = 1 << 20  # bytes: a file system that has fewer is full
CURE = "Make room there: the server goes on by itself within a minute. Then restore again"

Moved = t.Generator[int, None, t.Any]


class Waiting(Refused):
    """The server waits for room, and goes on as soon as there is some."""


def folders(link: t.Any, server: Server) -> list[str]:
    """Where data and binary logs lie; nothing where that is not this machine."""
    if not space.local(link, server.settings):
        return []
    ((data, logs),) = link.rows(FOLDERS)
    return [str(data), *([os.path.dirname(str(logs))] if logs else [])]


def full(paths: t.Iterable[str]) -> str:
    """In words, for the first of them that is; "" where none is."""
    for path in paths:
        with contextlib.suppress(OSError):
            found = os.statvfs(path)
            free = found.f_bavail * found.f_frsize
            if free < LITTLE:
                return f"No space left on device: {path} has {free:,} bytes"
    return ""


def watched(work: Moved, fed: t.Any, paths: t.Sequence[str], database: str) -> Moved:
    """The work, until the server takes nothing any more and one of the paths is full. Raises Waiting.

    `fed`, the client program, is not told to end: it would have its query killed first.
    """
    moved = time.monotonic()
    with contextlib.closing(work):
        while True:
            try:
                more = next(work)
            except StopIteration as end:
                return end.value
            if more:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALL and full(paths):
                fed.stop(0.0)
                raise Waiting(f"the server waits for room. {full(paths)}", database=database, cure=CURE)
            yield more


def explained(fault: DbFault, paths: t.Sequence[str]) -> DbFault:
    """Some errors of a full disk have other words, such as "Operation not permitted" at a bulk load's COMMIT."""
    if fault.cure in ("", faults.CURES[faults.FULL[0]]) and full(paths):
        return Refused(f"{fault.cause}. {full(paths)}", database=fault.database, obj=fault.obj, cure=CURE)
    return fault


def assure(link: t.Any, server: Server, database: str, needed: int) -> None:
    """That what replaces a database will find room, before that one is dropped. Raises Refused."""
    paths = folders(link, server)
    if not paths:
        return
    found = os.statvfs(paths[0])
    free = found.f_bavail * found.f_frsize + int(link.rows(SIZE, (database,))[0][0])
    if needed > free:
        raise Refused(
            f"the database had {needed:,} bytes when it was backed up, and {free:,} are free in {paths[0]} without it",
            database=database,
            cure="Make room there, or restore it under another name on another server",
        )
