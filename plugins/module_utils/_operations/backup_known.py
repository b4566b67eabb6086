# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other operations ask of the backups that there are. When a backup is due: backup.py."""

from __future__ import annotations

import typing as t

from .backup_options import identity_of
from .rotation_law import is_verified

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._records import Measured


def last_verified(measured: Measured, folder: str, database: str) -> datetime | None:
    """When the newest backup of it began that was read to its end; None: there is none, or nobody looked there."""
    shelf, server = measured.shelf, measured.server
    if shelf is None or shelf.folder != folder:
        return None
    whose = {identity_of(server, database), identity_of(server)}
    what = {("dump", database), ("physical", ""), ("pgbackrest", "")}
    found = [b.began for b in shelf.backups if b.server in whose and (b.method, b.database) in what and is_verified(b)]
    return max((began for began in found if began <= server.now), default=None)
