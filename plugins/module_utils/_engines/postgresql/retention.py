# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows: who is asked for what, and in which words. Finding and counting them is expired.py's, taking purge.py's."""

from __future__ import annotations

import typing as t

from ..._errors import Refused
from ..._records import Ref, Server, Tick, Work
from ..._retention import Child, Expired, Expiry, Missing
from ..._tasks import DropLeftover, DropPartition, Purge, RemoveFiles, Settle, Task
from ..._tuples import NamedTuple
from . import archives
from .due import both, due
from .names import literal, quoted, table_name
from .removal import Removal
from .session import Session
from .subject import Column, Subject, from_only

if t.TYPE_CHECKING:
    from ..._records import Wants
    from ..._retention import Depot
    from ..nibble import Wreck

BETWEEN = "…"  # where the ends of a bite stand


class Seen(NamedTuple):
    """What was measured of a table that rows leave: the words of its steps are made of it."""

    subject: Subject
    column: Column
    depot: Depot | None


Memory = dict[tuple[Expiry, Ref], Seen]


def read(
    session: Session, wants: Wants, server: Server, seen: Memory
) -> tuple[tuple[Expired, ...], tuple[Missing, ...]]:
    """What each rule finds in the session's database. Only reads."""
    from . import expired

    return expired.read(session, wants, server, seen)


# ---- the words -------------------------------------------------------------------------------------------------------


def spell(task: t.Any, server: Server, seen: t.Mapping[tuple[Expiry, Ref], Seen]) -> list[str]:
    """What check mode shows; the ends of each bite as `…`."""
    if isinstance(task, Purge):
        return _spell_purge(task, seen.get((task.expiry, task.ref)))
    if isinstance(task, (DropPartition, DropLeftover)):
        from . import detach

        return detach.spell(task, server)
    if isinstance(task, RemoveFiles):
        return [f"rm {name}" for name in task.files]
    return [f"finish {name}" for name in getattr(task, "files", ())]


def _spell_purge(task: Purge, seen: Seen | None) -> list[str]:
    alias = task.table.path[-1]
    if seen is None:
        before = literal(task.expiry.before.isoformat())
        return [f"DELETE FROM ONLY {table_name(task.ref)} WHERE {quoted(task.expiry.column)} < {before}"]
    words = archives.statements(seen.subject, task.to, seen.depot, seen.column.name) if task.to and seen.depot else []
    removal = Removal(
        seen.subject,
        task.table,
        from_only(task.ref, alias),
        alias,
        to=task.to,
        in_memory=bool(task.archive and task.archive.folder),
    )
    columns = ", ".join(f"{quoted(alias)}.{quoted(name)}" for name in task.walk or ("ctid",))
    bite = f"({columns}) BETWEEN {BETWEEN} AND {BETWEEN}"
    words += [_spell_child(child) for child in task.children]
    return [*words, removal.statement(both([bite, *due(seen.column, task.expiry, alias)]))]


def _spell_child(child: Child) -> str:
    columns = ", ".join(quoted(column) for column in child.columns)
    delete = f"DELETE FROM {table_name(child.table)} WHERE ({columns}) IN ({BETWEEN})"
    if not child.archived:
        return delete
    if child.to is None:
        return f"{delete} RETURNING *"
    return f"WITH gone AS ({delete} RETURNING *) INSERT INTO {table_name(child.to)} SELECT * FROM gone"


# ---- the work --------------------------------------------------------------------------------------------------------


def carry_out(session: Session, task: Task, server: Server, cursor: str | None, concurrent_wait: float) -> Work:
    """Raises Busy, Gone, Refused, Stopped, Vanished."""
    if isinstance(task, Purge):
        return _purge(session, task, server, cursor)
    if isinstance(task, Settle):
        return _settle(session, task, server)
    if isinstance(task, RemoveFiles):
        return _remove_files(task)
    from . import detach

    if isinstance(task, DropPartition):
        return detach.drop(session, task, server, concurrent_wait)
    if isinstance(task, DropLeftover):
        return detach.mend(session, task, server, concurrent_wait)
    raise Refused(f"{task.kind} is not known here", database=session.database, obj=str(task.ref))


def _purge(session: Session, task: Purge, server: Server, cursor: str | None) -> Work:
    from ..nibble import nibble
    from . import expired, purge, views

    user = str(server.settings["user"])
    found = purge.ground(session, task, user)
    bites = purge.Bites(session, task, found, user)
    yield Tick()
    bites.prepare()
    shelf = None
    if task.archive and task.archive.folder:
        from ..._files.shelf import Shelf

        who = expired.identity(session, server, task.table)
        _finish(session, task.archive.folder, who, task.rule)
        about = {"server": server.address, "version": server.version, "database": session.database}
        shelf = Shelf(task.archive.folder, who, task.rule, task.table, task.archive, about=about)
    yield from nibble(bites, task, shelf, cursor)
    views.publish(bites.connection, server)  # the vacuum that comes after it is asked for by these counters
    purge.let_pass(session)


def _finish(session: Session, folder: str, who: str, rule: str) -> int:
    """Files of dead runs, or of an attempt of this one whose connection was lost."""
    from ..._files import shelf
    from ..nibble import settle
    from .witness import Witness

    return settle(Witness(session), t.cast("t.Iterable[Wreck]", shelf.wrecks(folder, who, rule)))


def _settle(session: Session, task: Settle, server: Server) -> Work:
    from . import expired

    yield Tick()
    _finish(session, task.archive.folder, expired.identity(session, server, task.ref), task.rule)
    yield Tick()


def _remove_files(task: RemoveFiles) -> Work:
    from ..._files import shelf

    yield Tick()
    yield Tick(shelf.remove(task.files))
