# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What indexes are needed for though nobody scans them, and since when scans of each are counted. Only reads."""

from __future__ import annotations

import bisect
import typing as t
from datetime import datetime

from .halfbuilt import HERE
from .session import Session

if t.TYPE_CHECKING:
    from .indexes import Row

FOREIGN_KEYS = """
SELECT f.conrelid, f.conname::pg_catalog.text, f.conkey
  FROM pg_catalog.pg_constraint f
 WHERE f.contype = 'f'
 ORDER BY f.conname
"""
# An index that is being built is invalid until the end: who builds it holds locks that readers and writers do not take.
TIES = f"""
SELECT f.conindid, 'referred to by foreign key ' || f.conname
  FROM pg_catalog.pg_constraint f
 WHERE f.contype = 'f' AND f.conparentid = 0 AND f.conindid <> 0
 UNION ALL
SELECT i.indexrelid, 'of the extension ' || e.extname
  FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
  JOIN pg_catalog.pg_index i ON i.indrelid = d.objid
 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'
   AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
 UNION ALL
SELECT i.indexrelid, 'being built'
  FROM pg_catalog.pg_index i
 WHERE NOT i.indisvalid
   AND (i.indexrelid IN (SELECT p.index_relid FROM pg_catalog.pg_stat_progress_create_index p WHERE p.datid = {HERE})
        OR EXISTS (SELECT FROM pg_catalog.pg_locks l
                    WHERE l.locktype = 'relation' AND l.database = {HERE} AND l.relation IN (i.indexrelid, i.indrelid)
                      AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
                                     'ExclusiveLock', 'AccessExclusiveLock')))
"""
# Where the database's own counters were never reset, they are as old as those of the whole server, which begin anew
# when a crash has lost all of them.
COUNTED_SINCE = """
SELECT coalesce(pg_catalog.pg_stat_get_db_stat_reset_time(d.oid), pg_catalog.pg_stat_get_bgwriter_stat_reset_time())
  FROM pg_catalog.pg_database d
 WHERE d.datname = pg_catalog.current_database()
"""
# The server does not say when an index was made. Each analyze says which transaction it was, and when: an index whose
# transaction came later was made after it. An analyze that met no row wrote nothing.
ANALYZED = """
SELECT p.age, p.time
  FROM (SELECT pg_catalog.min(pg_catalog.age(s.xmin)) AS age,
               greatest(pg_catalog.pg_stat_get_last_analyze_time(s.starelid),
                        pg_catalog.pg_stat_get_last_autoanalyze_time(s.starelid)) AS time
          FROM pg_catalog.pg_statistic s
          JOIN pg_catalog.pg_class c ON c.oid = s.starelid AND c.reltuples > 0
         GROUP BY s.starelid) p
 WHERE p.time IS NOT NULL
 ORDER BY p.age
"""
UNDATED = "when it was made is not known: this login may not read pg_statistic"


def reasons(session: Session, rows: t.Sequence[Row]) -> dict[int, str]:
    """Why each index is needed though nobody scans it, by oid; empty for none."""
    found: dict[int, list[str]] = {row.oid: [*_own(row)] for row in rows}
    for oid, reason in session.rows(TIES):
        if oid in found and reason not in found[oid]:
            found[oid].append(reason)
    for oid, names in _supported(session, rows).items():
        found[oid] += names
    return {oid: ", ".join(its) for oid, its in found.items()}


def counted_since(session: Session, rows: t.Sequence[Row]) -> tuple[dict[int, datetime | None], str]:
    """Since when the uses of each index are counted, by oid; and why that may be too early."""
    ((since,),) = session.rows(COUNTED_SINCE)
    if not session.sees_statistics():
        return {row.oid: since for row in rows}, UNDATED
    ages: list[int] = []
    times: list[datetime] = []
    for age, time in session.rows(ANALYZED):
        ages.append(age)
        times.append(time)
    for place in range(len(times) - 2, -1, -1):  # the latest of all that are at least as old in transactions
        times[place] = max(times[place], times[place + 1])
    found: dict[int, datetime | None] = {}
    for row in rows:
        older = bisect.bisect_right(ages, row.age)
        made_after = times[older] if older < len(times) else None
        found[row.oid] = max(since, made_after) if since and made_after else since
    return found, ""


def _own(row: Row) -> t.Iterator[str]:
    if row.primary:
        yield "primary key"
    elif row.exclusion:
        yield f"exclusion constraint {row.constraint}".rstrip()
    elif row.unique:
        yield "unique"
    if row.identity:
        yield "replica identity"
    if row.clustered:
        yield "clustered"
    if row.persistence == "t":
        yield "of a temporary table"
    if 0 in row.columns[: row.keys]:
        yield "supplies statistics of an expression"


def _supported(session: Session, rows: t.Sequence[Row]) -> dict[int, list[str]]:
    """By oid of the index: the foreign keys whose columns, in any order, it begins with."""
    keys: dict[int, list[tuple[str, frozenset[int]]]] = {}
    for table, name, columns in session.rows(FOREIGN_KEYS):
        keys.setdefault(table, []).append((name, frozenset(columns)))
    found: dict[int, list[str]] = {}
    for row in rows:
        for name, columns in keys.get(row.table_oid, ()):
            if _supports(row, columns):
                found.setdefault(row.oid, []).append(f"supports foreign key {name}")
    return found


def _supports(row: Row, columns: frozenset[int]) -> bool:
    """A partial index is of use for all that is not null only, which is what a foreign key looks for."""
    key = row.columns[: row.keys]
    first = [name for name, number in zip(row.names, key) if number in columns]
    whole = row.where == "" or (len(first) == 1 and row.where == f"{first[0]} IS NOT NULL")
    return whole and row.method in ("btree", "hash") and frozenset(key[: len(columns)]) == columns
