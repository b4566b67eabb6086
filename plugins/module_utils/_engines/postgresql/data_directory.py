# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup of a whole server becomes a new data directory. The directory itself: _files/sites.py. No drill."""

from __future__ import annotations

import typing as t

from ..._errors import Refused
from ..._records import Server, Work
from ..._tasks import Restore


def spell(task: Restore, server: Server) -> list[str]:
    """What a shell would be told."""
    raise Refused("PostgreSQL's data directories cannot be restored yet", cure="Unpack the backup by hand")


def carry_out(session: t.Any, task: Restore, server: Server) -> Work:
    """Raises Busy, Refused, MissingMeans, Stopped; what is half-restored is removed."""
    raise Refused("PostgreSQL's data directories cannot be restored yet", cure="Unpack the backup by hand")
