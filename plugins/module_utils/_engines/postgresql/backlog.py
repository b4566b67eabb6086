# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WAL that waits: for the archive, or for who reads a replication slot. How much is too much is said elsewhere."""

from __future__ import annotations

import typing as t

from ..._errors import Refused
from .session import Session

SLOTS = """
SELECT coalesce(pg_catalog.max(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)), 0)
                ::pg_catalog.float8
  FROM pg_catalog.pg_replication_slots s
 WHERE s.restart_lsn IS NOT NULL AND s.wal_status IS DISTINCT FROM 'lost'
"""
READY = """
SELECT pg_catalog.count(*) FROM pg_catalog.pg_ls_archive_statusdir() f WHERE f.name LIKE '%.ready'
"""
# Of the last file that was archived, the timeline left out: 8 digits of its number, 8 of the segment within 4 GB.
ARCHIVED = """
SELECT pg_catalog.substring(a.last_archived_wal, 9, 16),
       pg_catalog.substring(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 9, 16)
  FROM pg_catalog.pg_stat_archiver a
"""
WHOLE = 1 << 32  # bytes that one number of 8 digits covers


def read(session: Session, settings: t.Mapping[str, t.Any]) -> float | None:
    """Bytes not archived yet, or kept for a slot, whichever is more; None where the server does not tell."""
    ((slots,),) = session.rows(SLOTS)
    if settings["archive_mode"] == "off":
        return max(0.0, float(slots))
    waiting = _unarchived(session, int(settings["wal_segment_size"]))
    return None if waiting is None else max(0.0, float(slots), waiting)


def _unarchived(session: Session, segment: int) -> float | None:
    try:
        ((files,),) = session.rows(READY)
        return float(files * segment)
    except Refused:  # not for this login: by what the archiver says of itself
        pass
    ((archived, current),) = session.rows(ARCHIVED)
    if not archived:
        return None
    # Up to the file before the one that is being written.
    return max(0.0, float(_number(current, segment) - _number(archived, segment) - 1)) * segment


def _number(name: str, segment: int) -> int:
    return int(name[:8], 16) * (WHOLE // segment) + int(name[8:16], 16)
