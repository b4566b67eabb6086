# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What other operations ask of the backups that there are. When a backup is due: backup.py."""

from __future__ import annotations

import typing as t

from .backup_options import identity_of
from .rotation_law import READABLE, level_of

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._backups import Backup
    from .._records import Measured


def last_verified(measured: Measured, folder: str, database: str) -> datetime | None:
    """When the newest backup of it began that was read to its end; None: there is none, or nobody looked there."""
    shelf, server = measured.shelf, measured.server
    if shelf is None or shelf.folder != folder:
        return None
    whose = {identity_of(server, database), identity_of(server)}
    what = {("dump", database), ("physical", ""), ("pgbackrest", "")}
    mine = [b for b in shelf.backups if b.server in whose and (b.method, b.database) in what]
    by_id = {b.id: b for b in mine}
    found = [b.began for b in mine if _is_verified(b, by_id)]
    return max((began for began in found if began <= server.now), default=None)


def _is_verified(backup: Backup, there: t.Mapping[str, Backup]) -> bool:
    """Read to its end, and so is each one that it builds on."""
    for _link in range(len(there)):
        if level_of(backup) < READABLE:
            return False
        if backup.whole:
            return True
        if backup.parent not in there:
            return False
        backup = there[backup.parent]
    return False
