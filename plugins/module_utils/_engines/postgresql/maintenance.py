# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the server is told to vacuum, analyze and rebuild. No threshold; pg_repack stands in repack.py."""

from __future__ import annotations

import math
import re
import time
import typing as t

from ..._errors import Busy, Refused, Vanished
from ..._records import Ref, Server, Tick, Work
from ..._tasks import Analyze, Rebuild, Vacuum
from ..._tuples import NamedTuple
from .connection import Connection
from .names import table_name
from .session import Session
from .versions import has, major_of

PATIENCE = 2.0  # seconds until the server's counters must have moved
# Counted by the server itself, and only when the work was done: a WARNING with "skipping" is no error to it.
COUNTERS = """
SELECT pg_catalog.pg_stat_get_vacuum_count(c.oid), pg_catalog.pg_stat_get_analyze_count(c.oid), c.relfilenode,
       pg_catalog.current_setting('track_counts')::pg_catalog.bool
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s
"""
GONE = re.compile(r"relation no longer exists")
SKIPPED = re.compile(r"skipping|skipped|permission denied|only .* can (vacuum|analyze)", re.IGNORECASE)


class Counters(NamedTuple):
    vacuums: int
    analyzes: int
    file: int
    counted: bool


def counters(session: Session, ref: Ref) -> Counters:
    """Raises Vanished when the table is not there any more."""
    found = session.rows(COUNTERS, ref.path)
    if not found:
        raise Vanished("it is not there any more", database=ref.database, obj=str(ref))
    return Counters(*found[0])


# ---- the words -------------------------------------------------------------------------------------------------------


def spell_vacuum(task: Vacuum, server: Server) -> list[str]:
    """VACUUM of this table and its TOAST table, never of its children."""
    major = major_of(server)
    words = ["FREEZE"] * task.freeze + ["ANALYZE"] * task.analyze + ["TRUNCATE FALSE"] * (not task.truncate)
    # Freezing is for the database's own age, which this would leave as it is.
    words += ["SKIP_DATABASE_STATS"] * (has("skip database stats", major) and not task.freeze)
    first = [] if task.cost_delay is None else [f"SET vacuum_cost_delay = {task.cost_delay:g}"]
    return [*first, f"VACUUM {_options(words)}{_target(task.ref, major)}"]


def spell_analyze(task: Analyze, server: Server) -> list[str]:
    """ANALYZE of this table; of a partitioned one together with all its partitions, whatever the version.

    Only their counters tell what changed since: with ONLY (18) many small changes would make it due again every night.
    """
    return [f"ANALYZE {table_name(task.ref) if task.partitioned else _target(task.ref, major_of(server))}"]


def spell_full(task: Rebuild, server: Server) -> list[str]:
    """A rebuild, and the plain VACUUM that sets the visibility map and the counters which VACUUM FULL leaves alone."""
    major = major_of(server)
    return [f"VACUUM (FULL, ANALYZE) {_target(task.ref, major)}", *after_rebuild(task.ref, server)]


def after_rebuild(ref: Ref, server: Server) -> list[str]:
    return spell_vacuum(Vacuum(ref), server)


def _options(words: t.Sequence[str]) -> str:
    return f"({', '.join(words)}) " if words else ""


def _target(ref: Ref, major: int) -> str:
    return ("ONLY " if has("only", major) else "") + table_name(ref)


# ---- the work --------------------------------------------------------------------------------------------------------


def plain(session: Session, task: Vacuum | Analyze, server: Server, statements: t.Sequence[str]) -> Work:
    """VACUUM and ANALYZE: what check mode shows is what runs, by construction."""
    delay = task.cost_delay if isinstance(task, Vacuum) else None
    before = counters(session, task.ref)
    connection = session.worker(lock_timeout=patience_for_autovacuum(session, server), cost_delay=delay)
    yield Tick()
    said = run_all(connection, statements, task.ref)
    settle(session, task.ref, before, said, vacuum=isinstance(task, Vacuum), analyze=_analyzes(task))
    yield Tick()


def full(session: Session, task: Rebuild, server: Server, statements: t.Sequence[str]) -> Work:
    """VACUUM FULL: everybody else waits, so it waits no longer than lock_timeout to begin."""
    before = counters(session, task.ref)
    connection = session.worker(lock_timeout=session.lock_timeout)
    yield Tick()
    said = run_all(connection, statements[:1], task.ref)
    if counters(session, task.ref).file == before.file:
        raise Refused(
            f"the server left the table as it was. {' '.join(said)}", database=task.ref.database, obj=str(task.ref)
        )
    yield Tick()
    said = run_all(connection, statements[1:], task.ref)
    settle(session, task.ref, before, said, vacuum=True, analyze=True)
    yield Tick()


def _analyzes(task: Vacuum | Analyze) -> bool:
    return task.analyze if isinstance(task, Vacuum) else True


def patience_for_autovacuum(session: Session, server: Server) -> float:
    """Seconds to wait for the lock of VACUUM and ANALYZE, behind which neither readers nor writers queue.

    An autovacuum that is in the way is asked to end after deadlock_timeout: waiting less would never get past it.
    """
    return max(session.lock_timeout, math.ceil(float(server.settings["deadlock_timeout"]) + 500) / 1000)


def run_all(connection: Connection, statements: t.Sequence[str], ref: Ref) -> list[str]:
    """Executes each; what the server only warned of is an error where it means that nothing was done."""
    said: list[str] = []
    for statement in statements:
        try:
            said += connection.run(statement)
        except (Busy, Refused) as fault:
            fault.obj = fault.obj or str(ref)
            raise
    for notice in said:
        if GONE.search(notice):
            raise Vanished("it is not there any more", database=ref.database, obj=str(ref))
        if SKIPPED.search(notice):
            raise Refused(
                f"the server skipped it: {notice}",
                database=ref.database,
                obj=str(ref),
                cure="See the README for privileges",
            )
    return said


def settle(session: Session, ref: Ref, before: Counters, said: t.Sequence[str], *, vacuum: bool, analyze: bool) -> None:
    """Waits until the counters show the work, so that the proof sees it. Raises Refused for a warning instead of it."""
    deadline, pause = time.monotonic() + PATIENCE, 0.01
    while True:
        now = counters(session, ref)
        vacuumed = now.vacuums > before.vacuums or not vacuum
        analyzed = now.analyzes > before.analyzes or not analyze
        if not now.counted or (vacuumed and analyzed):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(pause)
        pause = min(0.1, 2 * pause)
    if said:
        raise Refused(f"the server did not do it: {' '.join(said)}", database=ref.database, obj=str(ref))
