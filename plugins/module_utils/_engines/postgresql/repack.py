# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rebuilding a table while it is used, by the client program pg_repack: its words, its work and its end."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
import time
import typing as t
from datetime import datetime

from ..._errors import Busy, DbFault, Refused, Stopped
from ..._process import Completed, Program
from ..._records import Ref, Server, Tick, Work
from ..._tasks import DropLeftover, Rebuild
from . import activity, leftovers, maintenance
from .clients import environment, private_folder
from .connection import Connector, Kind
from .means import PACKAGE, Means
from .names import conninfo_value, table_name
from .session import Session
from .versions import has, major_of

# Before, pg_repack made one connection string of its options as they were. Source: reorg/pg_repack#384.
UNGLUED = (1, 5, 1)
FEWEST_SECONDS = 10  # that pg_repack tries to lock the table, at most a second at a time, before it gives up


# ---- the words -------------------------------------------------------------------------------------------------------


def argv(ref: Ref, connector: Connector, found: Means, lock_timeout: float) -> list[str]:
    """The command line: -D, since pg_repack would else cancel and then kill whoever holds a lock. No secret in it."""
    keywords = connector.login.keywords
    words = [found.client or "pg_repack", "--no-kill-backend", "--no-password"]
    words += ["--wait-timeout", str(max(FEWEST_SECONDS, math.ceil(10 * lock_timeout)))]
    words += [] if found.superuser else ["--no-superuser-check"]
    glued = tuple(int(part) for part in re.findall(r"\d+", found.version)) < UNGLUED
    for option, keyword in (("--host", "host"), ("--port", "port"), ("--username", "user")):
        value = str(keywords.get(keyword, ""))
        words += [option, _plain(value) if glued else value] if keyword in keywords else []
    name = _plain(ref.database) if glued else _named(ref.database)
    return [*words, "--dbname", name, "--table", table_name(ref)]


def _plain(value: str) -> str:
    """Put into a connection string as it is: quoted like a value there, where need be."""
    return value if re.fullmatch(r"[A-Za-z0-9_.,:/-]+", value) else conninfo_value(value)


def _named(database: str) -> str:
    """Taken for a whole connection string where it looks like one, as every client program does."""
    return f"dbname={conninfo_value(database)}" if re.search(r"=|^postgres(ql)?://", database) else database


def spell(words: t.Sequence[str], ref: Ref, server: Server) -> list[str]:
    """The command line as a shell would take it, and the VACUUM that sets what a new file does not have."""
    if has("repack", major_of(server)):
        return [f"REPACK (CONCURRENTLY, ANALYZE) {table_name(ref)}", *maintenance.after_rebuild(ref, server)]
    return [shlex.join(words), *maintenance.after_rebuild(ref, server)]


# ---- the work --------------------------------------------------------------------------------------------------------


def repack(session: Session, task: Rebuild, server: Server, words: t.Sequence[str], connector: Connector) -> Work:
    """Ticks each second, so that a stop or a limit reaches it. Raises Busy, Refused, Stopped; leaves nothing behind."""
    before, ref = maintenance.counters(session, task.ref), task.ref
    since = activity.clock(session)
    yield Tick()
    with private_folder() as folder:
        # As the command line is written; no row comes to the client.
        env = environment(connector, folder, Kind(False, 0.0), leftovers.REPACK, {"encoding": "UTF8"})
        program = Program(words, env=env, package=PACKAGE)
        done: Completed | None = None
        try:
            while done is None:
                done = program.wait(1.0)
                if session.stopped.is_set():
                    raise Stopped("stopped", database=ref.database, obj=str(ref))
                if done is None:
                    yield Tick()
        finally:
            if done is None:
                program.stop()
                sweep(session, ref, server, since)
    if maintenance.counters(session, ref).file == before.file:
        raise judge(done, ref)
    yield Tick()
    worker = session.worker(lock_timeout=maintenance.patience_for_autovacuum(session, server))
    said = maintenance.run_all(worker, maintenance.after_rebuild(ref, server), ref)
    maintenance.settle(session, ref, before, said, vacuum=True, analyze=False)
    yield Tick()


def by_statement(session: Session, task: Rebuild, server: Server, statements: t.Sequence[str]) -> Work:
    """REPACK (CONCURRENTLY), since version 19: tried on its first release candidate."""
    before = maintenance.counters(session, task.ref)
    connection = session.worker(lock_timeout=session.lock_timeout)
    yield Tick()
    said = maintenance.run_all(connection, statements, task.ref)
    maintenance.settle(session, task.ref, before, said, vacuum=True, analyze=True)
    yield Tick()


def judge(done: Completed, ref: Ref) -> DbFault:
    """pg_repack ends with 0 also when it has skipped the table: what it said tells why."""
    lines = [line.strip() for line in f"{done.err}\n{done.out}".splitlines()]
    said = " ".join(line for line in lines if line and not line.startswith("INFO: repacking"))
    message = f"pg_repack (exit {done.code}) left the table as it was: {said or 'it does not say why'}"
    where = {"database": ref.database, "obj": str(ref)}
    if re.search(r"timed out|timeout|[Uu]nable to obtain|could not obtain|[Aa]nother pg_repack|deadlock", said):
        return Busy(message, **where, cure="Somebody holds a lock on it")
    return Refused(message, **where)


CANCEL = "SELECT pg_catalog.pg_cancel_backend(%s)"
PATIENCE = 15.0  # seconds for server processes whose client is gone to end


def sweep(session: Session, ref: Ref, server: Server, since: datetime) -> None:
    """After a client that did not come to its end: its server processes are cancelled, and what it made is dropped.

    What cannot be removed now is found by the next measurement, and is a step of its own then.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(DbFault):  # a late cancellation of our own may hit a query of this loop
            mine = next((wreck for wreck in leftovers.wrecks(session) if wreck.ref == ref), None)
            if mine is None:
                return
            for pid in leftovers.at_work(session, mine, since):
                session.rows(CANCEL, (pid,))
            if not leftovers.at_work(session, mine):
                task = DropLeftover(ref, leftovers.REPACK, mine.names)
                for _tick in leftovers.drop(session, task, server, leftovers.spell_drop(task, server)):
                    pass
        time.sleep(0.1)
