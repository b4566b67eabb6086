# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far server processes of ours are, by the server's own views of progress. Changes nothing, decides nothing."""

from __future__ import annotations

import typing as t

from ..._records import Seen
from .connection import Connection
from .versions import has

# Each view shows who is at it now, so all of them are asked at once: REINDEX is in the one of CREATE INDEX, VACUUM FULL
# in that of CLUSTER (19 keeps it beside its new one). They are of the whole server; foreign sessions' rows are empty.
# What is done and of how much counts within a phase, since a later phase begins anew.
VIEWS = """
SELECT p.pid, p.phase,
       CASE p.phase WHEN 'scanning heap' THEN p.heap_blks_scanned WHEN 'vacuuming heap' THEN p.heap_blks_vacuumed
                    {indexes_done} END,
       CASE p.phase WHEN 'scanning heap' THEN p.heap_blks_total WHEN 'vacuuming heap' THEN p.heap_blks_total
                    {indexes} END,
       NULL::pg_catalog.int8
  FROM pg_catalog.pg_stat_progress_vacuum p WHERE p.pid = ANY (%(pids)s)
UNION ALL
SELECT p.pid, p.phase, p.sample_blks_scanned, p.sample_blks_total, NULL
  FROM pg_catalog.pg_stat_progress_analyze p WHERE p.pid = ANY (%(pids)s)
UNION ALL
SELECT p.pid, p.phase,
       CASE p.phase WHEN 'seq scanning heap' THEN p.heap_blks_scanned
                    WHEN 'writing new heap' THEN p.heap_tuples_written END,
       CASE p.phase WHEN 'seq scanning heap' THEN p.heap_blks_total
                    WHEN 'writing new heap' THEN p.heap_tuples_scanned END,
       p.heap_tuples_written
  FROM pg_catalog.pg_stat_progress_cluster p WHERE p.pid = ANY (%(pids)s)
UNION ALL
SELECT p.pid, p.phase,
       CASE WHEN p.phase LIKE 'waiting%%' THEN p.lockers_done
            WHEN p.tuples_total > 0 AND (p.blocks_total = 0 OR p.phase LIKE '%%tuples%%') THEN p.tuples_done
            ELSE p.blocks_done END,
       CASE WHEN p.phase LIKE 'waiting%%' THEN p.lockers_total
            WHEN p.tuples_total > 0 AND (p.blocks_total = 0 OR p.phase LIKE '%%tuples%%') THEN p.tuples_total
            ELSE p.blocks_total END,
       nullif(p.tuples_done, 0)
  FROM pg_catalog.pg_stat_progress_create_index p WHERE p.pid = ANY (%(pids)s)
"""
# pg_basebackup's own process, which is not one of our sessions: told by its name, and there is never more than one.
STREAMING = """
SELECT p.phase, p.backup_streamed, p.backup_total
  FROM pg_catalog.pg_stat_progress_basebackup p
  JOIN pg_catalog.pg_stat_activity a ON a.pid = p.pid
 WHERE a.application_name = %(ours)s
"""
INDEXES = "WHEN 'vacuuming indexes' THEN p.indexes_{0} WHEN 'cleaning up indexes' THEN p.indexes_{0}"


def seen(connection: Connection, pids: t.Mapping[int, int], major: int) -> dict[int, Seen]:
    """`pids`: server process -> step, as many as they have; steps that no view shows are left out."""
    counted = has("indexes in progress", major)
    words = VIEWS.format(
        indexes_done=INDEXES.format("processed") if counted else "",
        indexes=INDEXES.format("total") if counted else "",
    )
    rows = connection.rows(words, {"pids": list(pids)})
    return {pids[pid]: Seen(phase or "", _percent(done, total), rows=made) for pid, phase, done, total, made in rows}


def streaming(connection: Connection, application: str) -> Seen | None:
    """A base backup that is under way; its bytes are what the server has read, not what was written."""
    rows = connection.rows(STREAMING, {"ours": application})
    if len(rows) != 1:
        return None
    phase, done, total = rows[0]
    return Seen(phase or "", _percent(done, total), whole=True)


def _percent(done: int | None, total: int | None) -> float | None:
    return None if done is None or not total else min(100.0, 100 * done / total)
