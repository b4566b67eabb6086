# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a dead run's last transaction: asked of the server, and of the rows. Taking rows is purge.py's."""

from __future__ import annotations

import re
import time
import typing as t

from ..._errors import Busy
from ..._retention import Pending
from .names import quoted
from .session import Session

# A number that the server has not given out yet is of a past that a restore has undone: those rows are back.
STATUS = """
SELECT CASE WHEN m.mark OPERATOR(pg_catalog.<) pg_catalog.pg_current_xact_id() THEN pg_catalog.pg_xact_status(m.mark)
            ELSE 'undone' END
  FROM (SELECT %s::pg_catalog.xid8 AS mark) m
"""
NAMES = """
SELECT n.nspname, c.relname, c.oid::pg_catalog.text
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
 WHERE c.oid OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.oid[])
"""
THERE = """
SELECT 1 FROM ONLY {} r WHERE r.ctid OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.tid[])
   AND pg_catalog.concat_ws(' ', r.ctid, r.xmin) OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.text[]) LIMIT 1
"""
DYING = 30.0  # seconds in which a session that died should be gone from the server


class Witness:
    """Knows what became of transactions, and takes nothing."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def committed(self, pending: Pending) -> bool:
        return committed(self.session, pending)


def committed(session: Session, pending: Pending) -> bool:
    """Whether a dead run's transaction was committed; where the server has forgotten it, its rows stay in the file.

    A crash loses numbers that no log on disk knew, and gives them out again: whatever became of the other transaction,
    a row that is still there in the version that was taken was not removed. Raises Busy while its session is dying.
    """
    if not re.fullmatch(r"[0-9]+", pending.mark):
        return True
    until, pause = time.monotonic() + DYING, 0.05
    while True:
        ((status,),) = session.rows(STATUS, (pending.mark,))
        if status != "in progress":
            return status not in ("aborted", "undone") and not _still_there(session, pending.keys)
        if time.monotonic() > until or session.stopped.is_set():
            raise Busy(
                f"transaction {pending.mark} of a run that died is still open",
                database=session.database,
                cure="End its session: pg_terminate_backend",
            )
        time.sleep(pause)
        pause = min(1.0, 2 * pause)


def _still_there(session: Session, keys: t.Iterable[str]) -> bool:
    """Whether one of the rows is there, at its place and in its version."""
    places: dict[str, list[tuple[str, str]]] = {}
    for oid, place, version in (key.split() for key in keys):
        places.setdefault(oid, []).append((place, version))
    for schema, name, oid in session.rows(NAMES, (list(places),)) if places else ():
        found = places[oid]
        values = ([place for place, version in found], [f"{place} {version}" for place, version in found])
        if session.rows(THERE.format(f"{quoted(schema)}.{quoted(name)}".replace("%", "%%")), values):
            return True
    return False
