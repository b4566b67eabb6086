# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps by pg_dump, and of what belongs to no database by pg_dumpall: their words and their writing. None is read."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import typing as t
from datetime import datetime, timezone

from ..._backups import Backup
from ..._errors import Busy, DbFault, Gone, Refused
from ..._records import Amount, Server, Tick, Work
from ..._tasks import Dump
from ..._tuples import NamedTuple
from .clients import Client, client, environment, private_folder, target
from .connection import MOST, Connection, Connector, Kind
from .names import quoted
from .session import Session
from .versions import major_of

if t.TYPE_CHECKING:
    from ..._backups import Elsewhere
    from ..._files.pipeline import ProgramFailed
    from ..._files.store import Part

APPLICATION = "dbfleet"
LEVEL = 1
EXPORT = "SELECT pg_catalog.pg_export_snapshot()"
# What a new database needs beside the dump: pg_dump keeps it for databases of the same name only.
# The row of pg_database is taken whole, since its columns differ from version to version.
ABOUT = """
SELECT pg_catalog.to_jsonb(d)::pg_catalog.text,
       pg_catalog.pg_encoding_to_char(d.encoding)::pg_catalog.text,
       pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text,
       (SELECT s.spcname::pg_catalog.text FROM pg_catalog.pg_tablespace s WHERE s.oid = d.dattablespace),
       pg_catalog.shobj_description(d.oid, 'pg_database'),
       (SELECT pg_catalog.to_jsonb(r.setconfig)::pg_catalog.text FROM pg_catalog.pg_db_role_setting r
         WHERE r.setdatabase = d.oid AND r.setrole = 0),
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(g.rolname, r.setconfig)
                                    ORDER BY g.rolname)::pg_catalog.text
          FROM pg_catalog.pg_db_role_setting r JOIN pg_catalog.pg_roles g ON g.oid = r.setrole
         WHERE r.setdatabase = d.oid),
       CASE WHEN d.datacl IS NOT NULL THEN coalesce(
         (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(coalesce(g.rolname, 'public'), g.oid IS NULL,
                                                                   a.privilege_type, a.is_grantable))::pg_catalog.text
            FROM pg_catalog.aclexplode(d.datacl) a LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee), '[]') END,
       (SELECT pg_catalog.jsonb_agg(DISTINCT r.rolname)::pg_catalog.text FROM pg_catalog.pg_roles r
         WHERE r.oid = 10 OR r.oid IN (SELECT s.refobjid FROM pg_catalog.pg_shdepend s WHERE s.dbid = d.oid
                                          AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass)),
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(l.provider, l.label)
                                    ORDER BY l.provider)::pg_catalog.text
          FROM pg_catalog.pg_shseclabel l
         WHERE l.objoid = d.oid AND l.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass),
       (SELECT pg_catalog.jsonb_agg(DISTINCT l.provider)::pg_catalog.text FROM pg_catalog.pg_seclabel l),
       pg_catalog.pg_database_size(d.oid)
  FROM pg_catalog.pg_database d WHERE d.datname = %s
"""
SECRETS = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')"
TRAILER = b"-- PostgreSQL database cluster dump complete"
# What pg_dump and its kin say; they speak English here. The first that fits is meant.
SAID: tuple[tuple[str, type[DbFault], str], ...] = (
    # --lock-wait-timeout is a timeout of statements for as long as locks are taken, and of none afterwards.
    ("due to (lock|statement) timeout|could not obtain lock|deadlock", Busy, "Somebody holds a lock on a table"),
    ("server closed the connection|connection to (the )?server|terminating connection|SSL SYSCALL", Gone, ""),
    ("terminated by user|shutting down|snapshot .* does not exist|unexpected termination", Gone, ""),
    ("permission denied", Refused, "GRANT pg_read_all_data TO the login, or let the owner or a superuser back up"),
    ("row-level security", Refused, "ALTER ROLE … BYPASSRLS for the login: else rows would be left out in silence"),
    ("server version mismatch", Refused, "Install the client programs of the server's version"),
    ("replication role|must be superuser or replication", Refused, "ALTER ROLE … REPLICATION for the login"),
    ("no pg_hba.conf entry for replication", Refused, "Add a line for database replication to pg_hba.conf"),
)


def packed(task: Dump) -> Dump:
    """Where nobody has chosen a level: zstd's lowest one beats pg_dump's gzip in size and time."""
    manner = task.manner
    if manner.compression != "zstd" or manner.compression_level is not None:
        return task
    return task._replace(manner=manner._replace(compression_level=LEVEL))


class Room(NamedTuple):
    """What all of this needs of a run."""

    connector: Connector
    patience: float  # seconds that a lock is waited for: nobody queues behind a reader
    bin_dir: str = ""
    on: str | Elsewhere = ""  # where a drill is done: throwaway, same_server, another server

    def client(self, name: str, server: Server) -> Client:
        """Raises MissingMeans, Refused."""
        return client(name, major_of(server), self.bin_dir)

    def path(self, name: str, server: Server) -> str:
        """For what is only shown: a step that cannot be carried out is shown, too."""
        try:
            return self.client(name, server).path
        except DbFault:
            return name


# ---- the words -------------------------------------------------------------------------------------------------------


def words(task: Dump, server: Server, room: Room) -> list[str]:
    """The command line; no secret in it."""
    login = room.connector.login
    if task.method == "globals":
        # pg_dumpall has no option for a plain name.
        where = [w.replace("--dbname=", "--database=") for w in target(room.connector, login.database, plain=True)]
        return [room.path("pg_dumpall", server), *where, "--globals-only"]
    patience = milliseconds(room.patience)
    return [
        room.path("pg_dump", server),
        *target(room.connector, task.ref.database),
        # Compressed outside of it: by several threads, and by what compresses better in less time.
        *("--format=custom", "--compress=0", f"--lock-wait-timeout={patience}"),
        *(f"--exclude-table-data={pattern(each)}" for each in task.exclude),
    ]


def milliseconds(seconds: float) -> int:
    return min(MOST, math.ceil(seconds * 1000))


def spell(task: Dump, server: Server, room: Room) -> list[str]:
    if task.streams:
        from . import streams

        return streams.spell(task, server, room)
    return [shlex.join(words(task, server, room))]


def pattern(ours: str) -> str:
    """A pattern of ours as psql's kind: quoted, but for `*`, `?` and the dot between schema and table."""
    schema, dot, table = ours.partition(".")
    parts = (schema, table) if dot else ("*", schema)
    return ".".join("".join(p if p in "*?" else quoted(p) for p in _pieces(part)) for part in parts)


def _pieces(part: str) -> t.Iterator[str]:
    plain = ""
    for char in part:
        if char in "*?":
            yield from [plain] if plain else []
            plain = ""
            yield char
        else:
            plain += char
    yield from [plain] if plain else []


# ---- the work --------------------------------------------------------------------------------------------------------


def dump(session: Session, task: Dump, server: Server, room: Room) -> Work:
    """One database. Raises Busy, Gone, Refused, MissingMeans, Stopped."""
    from . import streams

    return streams.dump(session, task, server, room)


def dump_globals(session: Session, task: Dump, server: Server, room: Room) -> Work:
    """Roles and tablespaces; without passwords where the login may not read them, and the manifest says so."""
    from ..._files.pipeline import ProgramFailed
    from ..._files.store import part

    tool = room.client("pg_dumpall", server)
    argv = words(task, server, room)
    ((secrets,),) = session.rows(SECRETS)
    ((encoding,),) = session.rows("SELECT pg_catalog.current_setting('server_encoding')")
    argv += [] if secrets else ["--no-role-passwords"]
    with part(task) as new, private_folder() as folder:
        env = environment(room.connector, folder, Kind(True, room.patience), APPLICATION, {"encoding": encoding})
        yield Tick()
        end = Trailer(TRAILER)
        try:
            for more in new.run([argv], env, what="globals", ext="sql", stop=session.stopped, taps=[end]):
                yield Tick(Amount(written=more))
        except ProgramFailed as error:
            raise judge(error, room, task.ref.database) from None
        backup = made(new, task, server, tool, argv)
        backup = backup._replace(format="sql", about={"passwords": "yes" if secrets else "no"})
        if task.decode:
            backup = backup._replace(level="decode", verified_at=backup.ended)
        sealed = new.seal(backup)
    yield Tick(note=sealed.id)


def made(new: Part, task: Dump, server: Server, tool: Client, argv: t.Sequence[str]) -> Backup:
    return Backup(
        id=new.id,
        server=task.manner.identity or str(server.settings["identity"]),
        address=server.address,
        engine=server.engine,
        version=server.version,
        database=task.ref.database,
        method=task.method,
        tool=tool.version,
        arguments=tuple(argv[1:]),
        began=new.began,
        ended=datetime.now(timezone.utc),
        files=(),
    )


@contextlib.contextmanager
def snapshot(session: Session, lock: str, patience: float) -> t.Iterator[str]:
    """What pg_dump sees, our own queries see, too. `lock`: what is to be locked first, for so many seconds at most."""
    session.rows("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        if lock:  # takes no snapshot yet; nobody queues behind such a lock but who wants the table for himself
            session.rows(f"SET LOCAL lock_timeout = {milliseconds(patience)}")
            session.rows(lock)
        ((name,),) = session.rows(EXPORT)
        yield str(name)
    finally:
        with contextlib.suppress(DbFault):
            session.rows("ROLLBACK")


def about_of(session: Session | Connection, name: str) -> tuple[dict[str, str], int]:
    """What a restore of that database needs beside the dump, and how large it is, in bytes.

    Providers of labels of what is in it are those of the database that the session is in.
    """
    rows = session.rows(ABOUT, (name,))
    ((row, encoding, owner, tablespace, comment, settings, role_settings, acl, roles, labels, providers, size),) = rows
    found = json.loads(row)
    about = {
        "encoding": encoding,
        "owner": owner,
        "tablespace": tablespace,
        "collate": found["datcollate"],
        "ctype": found["datctype"],
        "provider": found.get("datlocprovider") or "c",  # since 15
        "locale": found.get("datlocale") or found.get("daticulocale"),  # since 17; 15 and 16
        "rules": found.get("daticurules"),
        "limit": str(found["datconnlimit"]),
        "comment": comment,
        "settings": settings,
        "role_settings": role_settings,
        "template": "yes" if found["datistemplate"] else "",
        "acl": acl,
        "roles": roles,
        "labels": labels,  # of the database itself: those of what is in it stand in the dump
        "labellers": providers,
    }
    return {name: str(value) for name, value in about.items() if value}, int(size)


class Trailer:
    """A tap: the text has to end as its program ends it."""

    def __init__(self, wanted: bytes) -> None:
        self._wanted, self._end = wanted, b""

    def feed(self, data: bytes) -> None:
        self._end = (self._end + data)[-400:]

    def end(self) -> None:
        if self._wanted not in self._end:
            raise Refused(f"it does not end with {self._wanted.decode()!r}: it is not complete")


def judge(error: ProgramFailed, room: Room, database: str = "") -> DbFault:
    """What a program of PostgreSQL's said, as one of our errors."""
    import re

    if not error.program.startswith("pg_"):
        return error
    said, password = error.said, room.connector.login.password
    if password:
        said = said.replace(password, "********")
    message = f"{error.program} (exit {error.code}): {said.strip() or 'it does not say why'}"
    for expression, kind, cure in SAID:
        if re.search(expression, said):
            return kind(message, database=database, cure=cure)
    if error.code < 0:
        return Gone(message, database=database, cure="Somebody ended it")
    return Refused(message, database=database)
