# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows: how they are found, counted and taken."""

from __future__ import annotations

import typing as t

from ..._errors import Refused
from ..._records import Server, Work
from ..._tasks import Task
from .connection import Session


def carry_out(session: Session, task: Task, server: Server, words: t.Sequence[str], cursor: str | None) -> Work:
    raise Refused(f"{task.kind} is not known here", database=session.database, obj=str(task.ref))
