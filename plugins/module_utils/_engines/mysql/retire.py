# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of retention: their words, and carrying them out. Each verb of a bite is purge.py's."""

from __future__ import annotations

import typing as t

from ..._errors import Refused, Vanished
from ..._records import Ref, Server, Tick, Work
from ..._retention import Expiry
from ..._tasks import DropLeftover, DropPartition, Purge, RemoveFiles, Settle, Task
from .. import nibble
from . import archives, offspring, old_rows, partitions, purge, purge_session, stores, targets
from .connection import Link
from .crew import Crew
from .names import quoted, table_of
from .retention import TRIGGERS, identity
from .stores import Store, Way, names_sql

Stores = t.Mapping[Ref, Store]


def spell(task: Task, server: Server, known: Stores) -> list[str]:
    """The words of a step; a bite's with its whole condition, its own range of keys left out."""
    if isinstance(task, (DropPartition, DropLeftover)):
        return _leaving_words(task, server, known)
    if isinstance(task, Settle):
        return [f"finish {file}" for file in task.files]
    if isinstance(task, RemoveFiles):
        return [f"remove {file}" for file in task.files]
    if isinstance(task, Purge) and task.table in known:
        return list(_purge_words(task, server, known[task.table]))
    return []


def _leaving_words(task: DropPartition | DropLeftover, server: Server, known: Stores) -> list[str]:
    made_of = ""
    if isinstance(task, DropPartition):
        made_of = known[task.table].definition if task.concurrently and task.table in known else ""
        if not made_of:
            return partitions.spell_drop(task, server)
    from . import exchange

    return exchange.spell(task, server, made_of)


def _purge_words(task: Purge, server: Server, store: Store) -> t.Iterator[str]:
    field = store.field(task.expiry.column)
    if field is None:
        return
    expiry = task.expiry._replace(column=field.name)
    part = f" PARTITION ({quoted(task.ref.partition)})" if task.ref.partition else ""
    where = old_rows.dates(field.data_type, expiry)
    where += f" AND {old_rows.wrapped(expiry.where)}" if expiry.where else ""
    along = f" /* in bites along {', '.join(quoted(c) for c in task.walk)} */"
    names = names_sql(store.fields)
    if task.to is not None:
        yield archives.create_sql(store, task.to, field.name, server.engine).replace(
            "CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1
        )
        into = f"INSERT INTO {table_of(task.to)} ({names})"
        yield f"{into} SELECT {names} FROM {store.sql}{part} WHERE {where} FOR UPDATE{along}"
    elif task.archive:
        yield f"SELECT {names} FROM {store.sql}{part} WHERE {where} FOR UPDATE{along}"
    for child in task.children:
        for chain in offspring.chains(child, task.children, task.table) if not child.circular else ():
            key = ", ".join(f"`d0`.{quoted(c)}" for c in (store.key or Way("", task.walk)).columns)
            yield f"DELETE `d{len(chain)}` FROM {offspring.joined(store.sql, chain)} WHERE ({key}) IN (…)"
    yield f"DELETE FROM {store.sql}{part} WHERE {where}{along}"


def carry_out(link: Link, task: Task, server: Server, cursor: str | None, crew: Crew) -> Work:
    if isinstance(task, Purge):
        return take(link, task, server, cursor, crew)
    if isinstance(task, DropPartition) and not task.concurrently:
        return partitions.drop(link, task, server, cursor)
    if isinstance(task, (DropPartition, DropLeftover)):
        from . import exchange

        return exchange.leave(link, task, server)
    if isinstance(task, Settle):
        return settle(link, task, server)
    if isinstance(task, RemoveFiles):
        return remove(task)
    raise Refused(f"{task.kind} is not known here", obj=str(task.ref))


def remove(task: RemoveFiles) -> Work:
    from ..._files import shelf

    yield Tick(shelf.remove(task.files))


def settle(link: Link, task: Settle, server: Server) -> Work:
    """Asks the table which rows of the last bite are still there."""
    from ..._files import shelf

    store = _store(link, task.ref)
    bites = _bites(link, Purge(task.ref, task.ref, task.expiry, (), archive=task.archive), store, server)
    nibble.settle(bites, shelf.wrecks(task.archive.folder, identity(link, task.ref), task.rule))
    yield Tick()


def take(link: Link, task: Purge, server: Server, cursor: str | None, crew: Crew) -> Work:
    """Bite by bite; what a dead run, or an attempt before this one, left in files is settled first."""
    store = _store(link, task.table)
    if store.key is None:
        raise Refused(
            "it has no key by which its rows could be told apart", database=task.ref.database, obj=str(task.ref)
        )
    bites, box = _bites(link, task, store, server, crew if task.pace.duty >= 1 else None), None
    if task.archive and task.archive.folder:
        from ..._files import shelf

        name = identity(link, task.table)
        nibble.settle(bites, shelf.wrecks(task.archive.folder, name, task.rule))
        about = _about(task.expiry, server)
        box = shelf.Shelf(task.archive.folder, name, task.rule, task.table, task.archive, about=about)
    with crew.working():
        yield from nibble.nibble(bites, task, box, cursor)


def _about(expiry: Expiry, server: Server) -> dict[str, str]:
    return {
        "server": server.address,
        "version": f"{server.engine} {server.version}",
        "date_column": expiry.column,
        "before": expiry.before.isoformat(),
        "where": expiry.where,
    }


def _store(link: Link, ref: Ref) -> Store:
    found = stores.read(link, ref.database, [ref.path[0]]).get(ref.path[0])
    if found is None:
        raise Vanished("the table is not there any more", database=ref.database, obj=str(ref))
    return found


def _bites(link: Link, task: Purge, store: Store, server: Server, crew: Crew | None = None) -> purge.Bites:
    """Makes archive tables as they are needed, before any transaction: the server would commit one for that."""
    field = store.field(task.expiry.column)
    if field is None:
        raise Refused(f"there is no column {task.expiry.column}", database=task.ref.database, obj=str(task.ref))
    if task.archive and not store.transactional:
        raise Refused(f"its storage engine {store.engine} knows no transactions", obj=str(task.ref))
    task = task._replace(expiry=task.expiry._replace(column=field.name))
    gaps = purge_session.prepare(link, strict=task.to is not None)
    # What a trigger does for one session, the other may wait for.
    if crew and (gaps or link.rows(TRIGGERS, (store.ref.database, store.ref.path[0]))):
        crew = None
    children: dict[Ref, targets.Target] = {}
    for child in task.children:
        if child.archived and child.table not in children:
            children[child.table] = _target(link, _store(link, child.table), child.to, "")
    family = offspring.family(store, task.children, offspring.edges(link), children)
    goes = _target(link, store, task.to, field.name) if task.archive else None
    key = store.key or Way("PRIMARY", (field.name,))
    galera = str(server.settings.get("wsrep_on", "OFF")).upper() in ("ON", "1")
    way = store.way(task.walk, field.name) or key
    now = server.now.timestamp()
    return purge.Bites(link, task, store, way, goes=goes, family=family, now=now, galera=galera, crew=crew)


def _target(link: Link, source: Store, to: Ref | None, date: str) -> targets.Target:
    """Where the rows of a table go; what the archive computes by itself is left to it."""
    if to is None:
        return targets.Target(source, source.fields)
    found = archives.ready(link, source, to, date)
    return targets.Target(source, tuple(f for f in source.fields if not _computed(found, f.name)), found)


def _computed(store: Store, name: str) -> bool:
    field = store.field(name)
    return field is not None and field.generated
