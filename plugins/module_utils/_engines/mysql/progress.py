# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far sessions of ours are, by what the server says of it. Changes nothing, decides nothing."""

from __future__ import annotations

import typing as t

from ..._records import Seen
from .capabilities import MARIADB

if t.TYPE_CHECKING:
    from .connection import Link

# https://mariadb.com/docs/server/reference/sql-statements/administrative-sql-statements/show/show-processlist
# An ALTER in place shows nothing there (10.11: only while it sorts, and then rarely); InnoDB counts its hundredths of a
# percent for the whole server, which says something where no other one is under way.
PROCESSES = """
SELECT ID, STATE, STAGE, MAX_STAGE, PROGRESS, INFO RLIKE '^ALTER'
       AND 1 = (SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO RLIKE '^ *(ALTER|CREATE|OPTIMIZE) '),
       (SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS
         WHERE VARIABLE_NAME = 'Innodb_onlineddl_pct_progress')
  FROM information_schema.PROCESSLIST WHERE ID IN ({ids})
"""
# Work that is done counts over all stages of an ALTER. Only where the consumer events_stages_current is on, which it is
# not by default: the server's settings are left as they are.
STAGES = """
SELECT t.PROCESSLIST_ID, s.EVENT_NAME, s.WORK_COMPLETED, s.WORK_ESTIMATED
  FROM performance_schema.events_stages_current s
  JOIN performance_schema.threads t ON t.THREAD_ID = s.THREAD_ID
 WHERE t.PROCESSLIST_ID IN ({ids})
"""


def seen(link: Link, ids: t.Mapping[int, int]) -> dict[int, Seen]:
    """`ids`: session -> step. Raises Refused where the login may not look."""
    listed = ", ".join(str(int(each)) for each in ids)
    if link.flavour.name == MARIADB:
        rows = link.rows(PROCESSES.format(ids=listed))
        return {ids[int(row[0])]: _stage(str(row[1] or ""), [float(number or 0) for number in row[2:]]) for row in rows}
    found = link.rows(STAGES.format(ids=listed))
    return {ids[int(id_)]: _event(str(name), done, total) for id_, name, done, total in found}


def _stage(state: str, numbers: t.Sequence[float]) -> Seen:
    """Each of the stages counts for as much as the others: how long they will take nobody knows."""
    stage, stages, percent, alone, hundredths = numbers
    if not stages:
        return Seen(state, min(100.0, hundredths / 100), whole=True) if alone and hundredths else Seen(state)
    return Seen(state, min(100.0, 100 * (stage - 1 + percent / 100) / stages), whole=True)


def _event(name: str, done: int | None, total: int | None) -> Seen:
    """`stage/innodb/alter table (flush)` is said without its first part."""
    words = name.rpartition("/")[2]
    return Seen(words, min(100.0, 100 * done / total), whole=True) if done is not None and total else Seen(words)
