# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes of earlier hours and days in the journal: kept sparingly, thinned as they get older, read for trends.

An hour's sample is kept for two days, then one a day for two months, then one a week; what did not change is written
down once a day. So 3,000 tables that are looked at every hour, and grow all the time, take some 30 MB in the end.
"""

from __future__ import annotations

import sqlite3
import typing as t
from datetime import datetime, timezone

from .._records import Ref, Sample
from .memory import read_ref, written

Size = tuple[Ref, int, t.Optional[int]]  # an object, its bytes, its rows
HOUR, DAY, WEEK = 3600.0, 24, 168  # seconds; hours
DENSE, DAILY = 2 * DAY, 60 * DAY  # hours: from these ages on one a day, one a week
RECENT = 30 * DAY  # hours: of these trends are made
MOST = 200  # objects beside databases that samples are read of: those that changed most

# What is more than a day ahead is of a clock that was put right since: else nothing would be kept until then.
LAST = """
SELECT o.ref, o.id, s.hour, s.bytes, s.rows
  FROM objects o
  LEFT JOIN sizes s ON s.object = o.id
       AND s.hour = (SELECT max(x.hour) FROM sizes x WHERE x.object = o.id AND x.hour <= :hour)
 WHERE o.address = :address AND o.kind = ''
"""
# Of each day or week the last one stays.
THIN = """
DELETE FROM sizes
 WHERE hour < :before
   AND EXISTS (SELECT 1 FROM sizes s
                WHERE s.object = sizes.object AND s.hour > sizes.hour AND s.hour < (sizes.hour / :span + 1) * :span)
"""
# Databases and what the server itself was read at are always among them; refs are written as JSON.
CHANGED = """
SELECT o.id, o.ref
  FROM objects o JOIN sizes s ON s.object = o.id
 WHERE o.address = ? AND o.kind = '' AND s.hour BETWEEN ? AND ?
 GROUP BY o.id
HAVING max(s.bytes) > min(s.bytes) OR o.ref LIKE '%, [], ""]' OR o.ref LIKE '["", %'
 ORDER BY o.ref LIKE '%, [], ""]' OR o.ref LIKE '["", %' DESC, max(s.bytes) - min(s.bytes) DESC
 LIMIT ?
"""
SAMPLES = "SELECT at, bytes, rows FROM sizes WHERE object = ? AND hour BETWEEN ? AND ? ORDER BY hour"


def keep(db: sqlite3.Connection, address: str, sizes: t.Sequence[Size], now: datetime, age: float) -> None:
    """Writes down what is new, at most once an hour, within the caller's transaction. Raises sqlite3.Error.

    Samples of an `age` of so many seconds are forgotten.
    """
    moment = now.timestamp()
    hour = int(moment // HOUR)
    found = {written(ref): (size, rows) for ref, size, rows in sizes}
    db.executemany(
        "INSERT OR IGNORE INTO objects (address, kind, ref) VALUES (?, '', ?)", [(address, ref) for ref in found]
    )
    new, newest = [], 0
    for ref, thing, last, size, rows in db.execute(LAST, {"address": address, "hour": hour + DAY}).fetchall():
        newest = max(newest, last or 0)
        same = ref in found and last is not None and found[ref] == (size, rows) and hour - last < DAY
        if ref in found and not same and (last is None or hour > last):
            new.append((thing, hour, moment, *found[ref]))
    db.executemany("INSERT OR IGNORE INTO sizes VALUES (?, ?, ?, ?, ?)", new)
    if newest // DAY != hour // DAY:
        thin(db, newest, int(age // HOUR))  # by the last time: a clock that jumps ahead makes nothing old


def thin(db: sqlite3.Connection, hour: int, age: int) -> None:
    """Once a day: what has got older is needed less exactly."""
    db.execute(THIN, {"before": hour - DENSE, "span": DAY})
    db.execute(THIN, {"before": hour - DAILY, "span": WEEK})
    db.execute("DELETE FROM sizes WHERE hour < ?", (hour - age,))


def recall(
    db: sqlite3.Connection, address: str, now: float, *, seconds: float = RECENT * HOUR
) -> dict[Ref, tuple[Sample, ...]]:
    """The samples of the last `seconds`, oldest first: of databases, and of what changed most. Raises sqlite3.Error.

    Those of a day to come are of a clock that was put right since; the server's may go before ours by less.
    """
    hours = (int((now - seconds) // HOUR), int(now // HOUR) + DAY)
    found = {}
    for thing, ref in db.execute(CHANGED, (address, *hours, MOST)).fetchall():
        found[read_ref(ref)] = tuple(
            Sample(datetime.fromtimestamp(at, timezone.utc), size, rows)
            for at, size, rows in db.execute(SAMPLES, (thing, *hours))
        )
    return found
