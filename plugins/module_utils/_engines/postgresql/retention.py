# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows: who is asked for what. Finding and counting them is expired.py's, taking them purge.py's."""

from __future__ import annotations

import typing as t

from ..._errors import Refused
from ..._records import Server, Work
from ..._tasks import Purge, Task
from ..nibble import nibble
from . import purge
from .connection import Session


def carry_out(session: Session, task: Task, server: Server, words: t.Sequence[str], cursor: str | None) -> Work:
    """Raises Busy, Gone, Refused, Stopped, Vanished."""
    if isinstance(task, Purge):
        return _purge(session, task, server, cursor)
    raise Refused(f"{task.kind} is not known here", database=session.database, obj=str(task.ref))


def _purge(session: Session, task: Purge, server: Server, cursor: str | None) -> Work:
    found = purge.ground(session, task, str(server.settings["user"]))
    yield from nibble(purge.Bites(session, task, found), task, None, cursor)
