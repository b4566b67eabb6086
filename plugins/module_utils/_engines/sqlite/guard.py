# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One writing run at a time on a database file: a lock on the file itself. No SQL.

Not a lock file beside it: nothing is made, so nothing is left behind; the lock ends with its holder, however that dies;
and root's cron and the application's user see the same lock, which a state directory of each would not give. It is an
open file description lock on a byte that SQLite does not use (it locks 512 bytes from 1 GiB on), so neither those
nor the closing of SQLite's descriptors touch it; it works for a file that is mounted into containers, too. Where the
system has no such locks, flock() takes its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
import typing as t
from contextlib import ExitStack, contextmanager

from ..._errors import Held
from .activity import holders_of_guard

_BYTE = 0x40000000 - 0xDBF
_POLL = 0.1  # seconds


@contextmanager
def guard(databases: t.Sequence[str], wait: float) -> t.Iterator[None]:
    """Holds the locks; raises Held after `wait` seconds. Closing the descriptors drops SQLite's locks of this process:

    it must be left after the last session.
    """
    until = time.monotonic() + wait
    with ExitStack() as stack:
        for path in sorted(set(databases)):  # in one order: two runs cannot wait for each other
            stack.enter_context(_locked(path, until))
        yield


@contextmanager
def _locked(path: str, until: float) -> t.Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # This run cannot write to it either: its steps are refused one by one, and the other databases go on.
        yield
        return
    try:
        while not _take(descriptor):
            if time.monotonic() >= until:
                who = holders_of_guard(path)
                raise Held("another run is at work" + (f": {who}" if who else ""), database=path)
            time.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    command = getattr(fcntl, "F_OFD_SETLK", None)
    try:
        if command is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            # struct flock: type, whence, start, length, pid (must be 0)
            fcntl.fcntl(descriptor, command, struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
