# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How indexes are built anew, and what a dead build left behind is dropped."""

from __future__ import annotations

import typing as t

from ..._records import Server, Work
from ..._tasks import DropLeftover, RefreshCollation, Reindex
from .connection import Session


def spell(task: Reindex | RefreshCollation | DropLeftover, server: Server) -> list[str]:
    raise NotImplementedError


def carry_out(
    session: Session,
    task: Reindex | RefreshCollation | DropLeftover,
    server: Server,
    statements: t.Sequence[str],
    concurrent_wait: float,
) -> Work:
    raise NotImplementedError
