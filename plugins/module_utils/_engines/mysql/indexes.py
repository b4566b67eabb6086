# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes as the dictionary describes them, with their scans."""

from __future__ import annotations

from ..._records import Server, Wants
from ..._structure import Index
from .connection import Link


def read(link: Link, wants: Wants, server: Server) -> tuple[Index, ...]:
    return ()
