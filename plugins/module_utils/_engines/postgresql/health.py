# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health of the whole server: who is at work, who waits, replication, archiving, statements."""

from __future__ import annotations

from ..._health import Health
from ..._records import Server
from .connection import Session


def read(session: Session, server: Server) -> Health:
    return Health()
