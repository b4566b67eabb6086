# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills: a backup is restored where it harms nobody, compared, and thrown away; its manifest then says so."""

from __future__ import annotations

from datetime import datetime, timezone

from ..._backups import Backup, Decryption, Elsewhere
from ..._errors import Refused, Stopped
from ..._records import Finding, Ref, Server, Tick, Work
from ..._tasks import Restore, Verify
from . import belongings, founding, options, roles, throwaway
from .connection import Connection, Connector
from .decoding import major, read
from .dumping import Room
from .interim import founded
from .matching import matched
from .names import quoted
from .quiet import asleep, quiet
from .restoring import Place, labelled, poured, refuse
from .session import Session
from .versions import major_of

AMCHECK = """
SELECT pg_catalog.bool_or(r.rolsuper OR e.trusted OR NOT e.superuser)
  FROM pg_catalog.pg_available_extension_versions e, pg_catalog.pg_roles r
 WHERE e.name = 'amcheck' AND r.rolname = CURRENT_USER HAVING pg_catalog.count(*) > 0
"""
SCHEMA = """
SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'
"""
BTREES = """
SELECT c.oid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am a ON a.oid = c.relam
 WHERE i.indexrelid >= 16384 AND i.indisvalid AND i.indisready
   AND a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'
"""
THERE = """
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000
"""
UNCHECKED = Finding(
    3,
    "indexes_not_checked",
    Ref(""),
    "the drill did not check b-tree indexes: only superusers create the extension amcheck",
    fix="Try it out on a temporary server (drill_on: throwaway), or let a superuser do it",
)
# Whoever provides security labels is a library of the server's own.
ALONE = ("--no-tablespaces", belongings.NO_LABELS)
# No database with a subscription is dropped, and a slot elsewhere may hang on it.
UNSUBSCRIBED = ("--no-subscriptions",)
BARE = (*UNSUBSCRIBED, *ALONE, "--no-owner", "--no-privileges")
AT_ONCE = 20  # indexes checked by one query


def verify(session: Session, task: Verify, backup: Backup, server: Server, room: Room) -> Work:
    """Raises Refused, MissingMeans, Stopped, what the server says."""
    yield from _prove(session, backup, task.decrypt, server, room._replace(on=task.on))


def carry_out(session: Session, task: Restore, server: Server, room: Room) -> Work:
    """The same, as a step of its own."""
    yield from _prove(session, task.backup, task.decrypt, server, room._replace(on=task.on))


def _prove(session: Session, backup: Backup, decrypt: Decryption | None, server: Server, room: Room) -> Work:
    from ..._files import backups

    if backup.engine != "postgresql" or backup.method not in ("dump", "physical", "globals"):
        raise Refused(f"backup {backup.id} ({backup.engine}, {backup.method}) cannot be tried out here")
    yield Tick()
    rows: dict[str, int] = {}
    sums: dict[str, str] = {}
    if backup.method == "dump" and (backup.rows is None or backup.sums is None):
        # What it is compared with.
        for _more in read(session, backup, decrypt, room.bin_dir, rows, sums=sums):
            yield Tick()
        backup = backup._replace(rows=rows, sums=sums)
    if backup.method == "physical":
        from . import physical

        yield from physical.tried(session, backup, decrypt, room)
    elif backup.method == "globals":
        yield from _globals(session, backup, decrypt, room)
    elif room.on == "same_server":
        yield from _beside(session, backup, decrypt, server, room)
    elif isinstance(room.on, Elsewhere):
        yield from _there(session, backup, decrypt, room, room.on)
    else:
        yield from _apart(session, backup, decrypt, room)
    backups.amend(backup, level="restore", at=datetime.now(timezone.utc), rows=rows or None, sums=sums or None)
    yield Tick(note=backup.id)


def _beside(session: Session, backup: Backup, decrypt: Decryption | None, server: Server, room: Room) -> Work:
    """In a database of its own on the same server."""
    refuse(backup, server)
    name = founding.interim(f"drill {backup.id}")
    worker = session.worker(lock_timeout=session.lock_timeout)
    room = room._replace(connector=quiet(worker, room.connector))
    with founded(worker, room.connector, name, backup, version=major_of(server), keep=False):
        place, lacking = labelled(worker, room, backup, Place(name, options=UNSUBSCRIBED))
        if lacking:
            yield Tick(found=belongings.without_labels(Ref(backup.database), lacking))
        yield from poured(session, backup, decrypt, room, place)
        yield from _compared(session, backup, decrypt, room, place=place, version=major_of(server))
        yield from amcheck(session, room.connector, name)
        yield from _belongs(worker, room, backup, place, major_of(server))
        session.leave(name)


def _there(session: Session, backup: Backup, decrypt: Decryption | None, room: Room, on: Elsewhere) -> Work:
    """In a database of its own on another server that runs. Roles and tablespaces need not be there.

    Raises CannotConnect, Refused, what that server says.
    """
    patience = room.connector.login.keywords.get("connect_timeout")
    there = options.login({**on.options, "login_password": on.password, "connect_timeout": patience})
    connector, name = Connector(there), founding.interim(f"drill {backup.id}")
    with throwaway.speaking(connector, there.database) as worker:
        ((standby, version),) = worker.rows(THERE)
        if standby or version < major(backup.version):
            why = "is a standby" if standby else f"has version {version}, older than the backup's {backup.version}"
            raise Refused(f"{there.address} {why}: no drill is done there", cure="Name another server in drill_on")
        yield Tick()
        connector = quiet(worker, connector)
        room = room._replace(connector=connector)
        with founded(worker, connector, name, backup, version=version, keep=False):
            place = Place(name, options=BARE)
            yield from poured(session, backup, decrypt, room, place)
            yield from _compared(session, backup, decrypt, room, place=place, version=version)
            yield from amcheck(session, connector, name)


def _apart(session: Session, backup: Backup, decrypt: Decryption | None, room: Room) -> Work:
    """On a server of its own, of the backup's version where its programs are at hand."""
    version, owner = major(backup.version), throwaway.unprivileged()
    with throwaway.folder_of(owner, backup.source_bytes + (256 << 20)) as folder:
        data = throwaway.initdb(folder, version, room.bin_dir, owner)
        yield Tick()
        more = {"wal_level": "minimal", "max_wal_senders": "0", **asleep(version)}
        with throwaway.started(data, version, room.bin_dir, more) as connector:
            there = room._replace(connector=connector)
            with throwaway.speaking(connector, "template1") as worker:
                _people(worker, backup)
                with founded(worker, connector, "drill", backup, version=connector.major):
                    place = Place("drill", options=ALONE)
                    yield from poured(session, backup, decrypt, there, place)
                    yield from _compared(session, backup, decrypt, there, place=place, version=connector.major)
                    yield from amcheck(session, connector, "drill")
                    yield from _belongs(worker, there, backup, place, connector.major)


def _compared(
    session: Session, backup: Backup, decrypt: Decryption | None, room: Room, *, place: Place, version: int
) -> Work:
    """Rows, and where this server has the version that was backed up, what describes them. Raises Refused."""
    yield from matched(session, backup, room, version, place.name)
    if version == major(backup.version):
        from . import definitions

        yield from definitions.same(session, backup, decrypt, room, place.name, options=place.options)


def _belongs(worker: Connection, room: Room, backup: Backup, place: Place, version: int) -> Work:
    """What no dump holds is given to the database, too, and where the version is the same, compared. Raises Refused."""
    labels = belongings.NO_LABELS not in place.options
    ref = Ref(backup.database)
    whole = yield from belongings.given(worker, room.connector, place.name, ref, backup.about, labels=labels)
    if version == major(backup.version):
        but = [*([] if whole else ["settings"]), *([] if labels else ["labels"])]
        belongings.compared(worker, backup, place.name, but)


def _globals(session: Session, backup: Backup, decrypt: Decryption | None, room: Room) -> Work:
    """All roles made on a server that has none; folders of tablespaces are not there."""
    version, owner = major(backup.version), throwaway.unprivileged()
    with throwaway.folder_of(owner, 128 << 20) as folder:
        data = throwaway.initdb(folder, version, room.bin_dir, owner)
        yield Tick()
        started = throwaway.started(data, version, room.bin_dir, {})
        with started as connector, throwaway.speaking(connector, "template1") as worker:
            yield from roles.replay(worker, backup, decrypt, drill=True)


def _people(worker: Connection, backup: Backup) -> None:
    """Owners of anything whatever: some things have to belong to superusers."""
    there = {name for (name,) in worker.rows(belongings.ROLES)}
    for name in founding.roles(backup.about):
        if name not in there:
            worker.rows(f"CREATE ROLE {quoted(name)} SUPERUSER")


def amcheck(session: Session, connector: Connector, database: str) -> Work:
    """Every b-tree, where the extension is at hand. Raises Refused, what the server says."""
    with throwaway.speaking(connector, database) as connection:
        there = connection.rows(AMCHECK)
        if not there:
            return
        if not there[0][0]:
            yield Tick(found=UNCHECKED)
            return
        if not connection.rows(SCHEMA):
            connection.rows("CREATE EXTENSION amcheck SCHEMA pg_catalog")
        check = f"{quoted(connection.rows(SCHEMA)[0][0])}.bt_index_check"
        found = [oid for (oid,) in connection.rows(BTREES)]
        for at in range(0, len(found), AT_ONCE):
            few = found[at : at + AT_ONCE]
            connection.rows(f"SELECT {check}(i::pg_catalog.regclass) FROM pg_catalog.unnest(%s) AS i", (few,))
            if session.stopped.is_set():
                raise Stopped("stopped")
            yield Tick()
