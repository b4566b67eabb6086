# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Materialized views: read with what they depend on, and refreshed."""

from __future__ import annotations

import typing as t

from ..._records import Server, Wants, Work
from ..._structure import View
from ..._tasks import RefreshView
from .connection import Session


def read(session: Session, wants: Wants, server: Server) -> tuple[View, ...]:
    return ()


def spell(task: RefreshView, server: Server) -> list[str]:
    raise NotImplementedError


def refresh(session: Session, task: RefreshView, server: Server, statements: t.Sequence[str]) -> Work:
    raise NotImplementedError
