# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Since which version PostgreSQL has what: the one table of version gates. No SQL."""

from __future__ import annotations

import typing as t

from ..._records import Server

OLDEST = 13
NEWEST_TESTED = 18

# What a gate opens -> the first major version that has it. Source: the release notes of each version.
SINCE: t.Mapping[str, int] = {
    "wait start": 14,  # pg_locks.waitstart
    "log statistics": 14,  # pg_stat_wal
    "idle session timeout": 14,  # else a guard that only holds a lock is thrown out by the login's own setting
    "tid range": 14,  # a range of pages is read by itself: `ctid > '(7,0)'` no longer reads the whole table
    "detach concurrently": 14,
    "statistics of parents": 15,  # pg_statistic_ext_data.stxdinherit
    "statistics at once": 15,  # kept in shared memory; before, a collector process wrote them down up to 0.5 s later
    "version of the default collation": 15,  # pg_database.datcollversion
    "nulls not distinct": 15,  # pg_index.indnullsnotdistinct
    "basebackup packs by zstd": 15,  # pg_basebackup --compress=client-zstd
    "last scan": 16,  # pg_stat_all_indexes.last_idx_scan
    "skip database stats": 16,  # VACUUM (SKIP_DATABASE_STATS): else each table's VACUUM updates pg_database
    "incremental backups": 17,  # pg_basebackup --incremental, by summaries of the log
    "maintain": 17,  # the privilege MAINTAIN and the role pg_maintain
    "transaction timeout": 17,
    "indexes in progress": 17,  # pg_stat_progress_vacuum.indexes_total
    "event triggers off": 17,  # the setting event_triggers
    "inactive since": 17,  # pg_replication_slots.inactive_since
    "only": 18,  # VACUUM and ANALYZE take the children of a table along unless ONLY is said
    "all frozen pages": 18,  # pg_class.relallfrozen; autovacuum scales its threshold for inserts by the rest
    "combine by links": 18,  # pg_combinebackup --link
    "repack": 19,  # REPACK (CONCURRENTLY)
}


def has(capability: str, major: int) -> bool:
    """Whether servers of this major version have what SINCE calls `capability`."""
    return major >= SINCE[capability]


def major_of(server: Server) -> int:
    return server.number[0]
