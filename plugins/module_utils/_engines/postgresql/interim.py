# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database that a dump is restored into until it is complete: there, and gone again. Its words: founding.py."""

from __future__ import annotations

import contextlib
import typing as t

from ..._backups import Backup
from ..._errors import DbFault, Refused
from . import founding
from .connection import Connection, Connector, Kind
from .names import literal, quoted

THERE = """
SELECT pg_catalog.shobj_description(d.oid, 'pg_database'),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid AND a.pid <> ALL (%s)),
       d.datistemplate
  FROM pg_catalog.pg_database d WHERE d.datname = %s
"""
TABLESPACES = """
SELECT s.spcname::pg_catalog.text FROM pg_catalog.pg_tablespace s WHERE s.spcname NOT IN ('pg_default', 'pg_global')
"""
SUBSCRIPTIONS = """
SELECT s.subname::pg_catalog.text FROM pg_catalog.pg_subscription s
  JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = %s
"""
LARGEST = """
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid >= 16384 AND c.relkind = 'r'
 ORDER BY pg_catalog.pg_total_relation_size(c.oid) DESC LIMIT 100
"""
PATIENCE = 5.0  # seconds for the sessions of a pg_restore that has failed to let go of their tables


@contextlib.contextmanager
def founded(
    worker: Connection, connector: Connector, name: str, backup: Backup, *, version: int, keep: bool = True
) -> t.Iterator[None]:
    """An empty database; gone again where what comes fails, or it was a drill's. A dead run's is removed first."""
    drop(worker, connector, name)
    spaces = [space for (space,) in worker.rows(TABLESPACES)]
    worker.rows(founding.create(name, backup.about, version, spaces))
    try:
        worker.rows(f"COMMENT ON DATABASE {quoted(name)} IS {literal(founding.MARK)}")
        yield
    except BaseException as error:
        try:
            if isinstance(error, Refused):
                _empty(connector, name)
            drop(worker, connector, name)
        except DbFault as fault:  # a server that has crashed, or whose full disk takes no checkpoint
            if isinstance(error, DbFault) and founding.INTERIM.fullmatch(name):
                left = (
                    f"The half-restored {name} is still there ({fault.cause.rstrip('. ')}): the next restore drops it"
                )
                error.cure = f"{error.cure}. {left}" if error.cure else left
        raise
    if not keep:  # a drill that leaves its database behind is none that went well
        drop(worker, connector, name)


def _empty(connector: Connector, name: str) -> None:
    """Gives the largest tables' room back: DROP DATABASE begins with a checkpoint, and where the restore has filled the

    server's only disk that one ends in a PANIC. Never raises. Measured: 18.4, at pg_logical/replorigin_checkpoint.tmp.
    """
    with contextlib.suppress(DbFault):
        connection = connector.open(name, Kind(False, PATIENCE))
        try:
            for (table,) in connection.rows(LARGEST):
                with contextlib.suppress(Refused):  # gone with another one, or an extension's
                    connection.rows(f"DROP TABLE {table} CASCADE")
        finally:
            connector.forget(connection)


def drop(worker: Connection, connector: Connector, name: str) -> None:
    """Only what bears the mark of a restore; its sessions are those of a pg_restore that was ended.

    Or what has not got it yet: a run may die between the two statements, and nobody else calls a database so.
    """
    found = worker.rows(THERE, ([], name))
    if not found:
        return
    if found[0][0] != founding.MARK and (found[0][0] or not founding.INTERIM.fullmatch(name)):
        raise Refused("a database of that name is there, and no restore has made it", database=name)
    if found[0][2]:  # no template is dropped
        worker.rows(f"ALTER DATABASE {quoted(name)} IS_TEMPLATE false")
    subscriptions = [quoted(each) for (each,) in worker.rows(SUBSCRIPTIONS, (name,))]
    if subscriptions:
        _unsubscribe(connector, name, subscriptions)
    worker.rows(f"DROP DATABASE {quoted(name)} WITH (FORCE)")


def _unsubscribe(connector: Connector, name: str, subscriptions: t.Sequence[str]) -> None:
    """No database with one is dropped. The slot on the other side stays: the database that is restored goes on with it.

    Source: the manual, DROP SUBSCRIPTION.
    """
    connection = connector.open(name, Kind(False, 0.0))
    try:
        for each in subscriptions:
            for words in ("ALTER {} DISABLE", "ALTER {} SET (slot_name = NONE)", "DROP {}"):
                connection.rows(words.format(f"SUBSCRIPTION {each}"))
    finally:
        connector.forget(connection)
