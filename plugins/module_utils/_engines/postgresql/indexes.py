# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes and collations as the catalogs describe them. Their bloat stands in btree.py."""

from __future__ import annotations

from ..._records import Database, Server, Wants
from .connection import Session


def read(session: Session, wants: Wants, server: Server, found: Database) -> Database:
    """The database with its indexes and mismatched collations; with the bloat of indexes where that is wanted."""
    return found
