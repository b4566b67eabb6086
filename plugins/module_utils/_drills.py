# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill does not try out, whether one is asked for or belongs to a backup. The drills are the engines'."""

from __future__ import annotations

import json
import typing as t

from ._backups import Backup, Elsewhere
from ._records import Finding, Ref

LISTED = 10


def not_tried(backup: Backup, on: str | Elsewhere) -> t.Iterator[Finding]:
    """Views that need databases which are not in the backup, as its dump has noted them: they are elsewhere not."""
    views = _foreign(backup) if on != "same_server" else []
    if views:
        shown = ", ".join(views[:LISTED]) + (f" and {len(views) - LISTED} more" if len(views) > LISTED else "")
        message = f"a drill elsewhere does not try views that need other databases: {shown}"
        fix = "Try them with drill_on: same_server"
        yield Finding(2, "views_not_tried", Ref(backup.database), message, fix=fix)


def _foreign(backup: Backup) -> list[str]:
    try:
        return [str(name) for name in json.loads(backup.about.get("foreign") or "[]")]
    except (TypeError, ValueError):
        return []
