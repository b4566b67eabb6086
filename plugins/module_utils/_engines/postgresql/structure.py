# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys, primary keys, sequences: what the schema says beside its tables and indexes."""

from __future__ import annotations

from ..._records import Server, Wants
from ..._structure import Structure
from .connection import Session


def read(session: Session, wants: Wants, server: Server) -> Structure:
    return Structure()
