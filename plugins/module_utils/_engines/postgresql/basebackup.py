# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole servers by pg_basebackup: one stream, or a file for each tablespace. What is in them: tarballs.py."""

from __future__ import annotations

import functools
import os
import shlex
import typing as t
from datetime import datetime, timezone

from ..._backups import Backup, Manner
from ..._errors import DbFault, MissingMeans, Refused
from ..._records import Amount, Server, Tick, Work
from ..._tasks import Dump
from . import incremental
from .clients import Client, environment, private_folder, target
from .connection import Kind
from .dumping import APPLICATION, LEVEL, Room, judge, packed
from .file_list import LIST, MANIFEST
from .session import Session
from .tarballs import READ, check, ended, listed
from .versions import has, major_of

if t.TYPE_CHECKING:
    from ..._files.store import Part

SERVER_FOLDER = "_server"  # of its backups. Source: _files/unfinished.py, which only a run that writes needs

GZIP = 1  # as pigz and zlib are told by default
ENCRYPTED = "tablespaces have files of their own, which pg_basebackup writes itself: unencrypted"
# What a restore needs to know.
ABOUT = """
SELECT (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(s.oid::pg_catalog.text, s.spcname,
                                                               pg_catalog.pg_tablespace_location(s.oid),
                                                               pg_catalog.pg_tablespace_size(s.oid))
                                   ORDER BY s.oid)::pg_catalog.text
          FROM pg_catalog.pg_tablespace s WHERE s.spcname NOT IN ('pg_default', 'pg_global')),
       pg_catalog.pg_get_userbyid(10)::pg_catalog.text,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_database),
       (SELECT pg_catalog.sum(pg_catalog.pg_tablespace_size(s.oid)) FROM pg_catalog.pg_tablespace s)
"""


def words(task: Dump, server: Server, room: Room, *, to: str = "-", since: str = "") -> list[str]:
    """The command line; no secret in it.

    `to`: the folder of its files, where they are several; `since`: the manifest that an incremental one builds on.
    """
    where = [word for word in target(room.connector, "", plain=True) if not word.startswith("--dbname")]
    # One stream holds the log, too, which the server has to keep until its end: wal_keep_size.
    return [
        *(room.path("pg_basebackup", server), *where, f"--pgdata={to}", "--format=tar", "--wal-method=fetch"),
        *("--checkpoint=fast", "--manifest-checksums=SHA256", f"--label={APPLICATION}"),
        *([] if to == "-" else [*_packing(task.manner), "--no-sync"]),  # they are flushed by us
        *([f"--incremental={since}"] if since else []),
    ]


def _packing(manner: Manner) -> list[str]:
    """Files that it writes itself it packs itself, too."""
    rate = [f"--max-rate={max(32, manner.rate_limit >> 10)}"] if manner.rate_limit else []
    level = manner.compression_level
    if manner.compression == "gzip":
        return [*rate, f"--compress={GZIP if level is None else level}"]
    if manner.compression == "zstd":
        return [*rate, f"--compress=client-zstd:level={LEVEL if level is None else max(1, level)}"]
    return rate


def _suited(task: Dump, program: str, major: int) -> Dump:
    """By gzip, which every one knows, where the program was built without zstd, or is too old."""
    if task.manner.compression != "zstd" or (has("basebackup packs by zstd", major) and _knows_zstd(program)):
        return task
    return task._replace(manner=task.manner._replace(compression="gzip", compression_level=None))


@functools.lru_cache(maxsize=8)
def _knows_zstd(program: str) -> bool:
    """It says that before it looks at anything else, and writes nothing where no folder can be."""
    from ..._process import Program

    argv = [program, "--format=tar", "--compress=client-zstd:level=1", f"--pgdata={os.devnull}/none"]
    try:
        done = Program(argv, env={"LC_ALL": "C"}).wait(20)
    except MissingMeans:
        return True  # the step will say so
    return done is None or "does not support compression" not in done.err


def spell(task: Dump, server: Server, room: Room) -> list[str]:
    since = f"{task.parent.folder}/{incremental.listed(task.parent).name}" if task.parent else ""
    if not server.settings.get("tablespaces"):
        return [shlex.join(words(task, server, room, since=since))]
    task = _suited(task, room.path("pg_basebackup", server), major_of(server))
    return [shlex.join(words(task, server, room, to=f"{task.manner.folder}/{SERVER_FOLDER}/…", since=since))]


def take(session: Session, task: Dump, server: Server, room: Room) -> Work:
    """All of the server. Raises Busy, Gone, Refused, MissingMeans, Stopped."""
    tool = room.client("pg_basebackup", server)
    ((spaces, superuser, databases, size),) = session.rows(ABOUT)
    about = {"superuser": str(superuser), "databases": str(databases)}
    write = functools.partial(_taken, tool=tool, about=about, size=int(size or 0))
    if not spaces:
        yield from write(session, task, server, room)
        return
    if task.manner.encryption:  # before anything is there
        raise Refused(ENCRYPTED, cure="Use pgBackRest, or method dump")
    about["tablespaces"] = spaces
    yield from write(session, _suited(task, tool.path, tool.major), server, room)


def _taken(
    session: Session, task: Dump, server: Server, room: Room, *, tool: Client, about: t.Mapping[str, str], size: int
) -> Work:
    from ..._files.pipeline import ProgramFailed
    from ..._files.store import part

    with part(packed(task)) as new, private_folder() as folder:
        to = new.place("tar") if "tablespaces" in about else "-"
        since = incremental.unpacked_list(task.parent, folder) if task.parent else ""
        argv = words(task, server, room, to=to, since=since)
        env = environment(room.connector, folder, Kind(), APPLICATION)
        env["PGOPTIONS"] = room.connector.login.options  # a replication connection knows no role and no search_path
        yield Tick()
        writing = _streamed(session, task, server, new, argv=argv, env=env)
        if to != "-":
            writing = new.spread(argv, env, what="physical", place=to, stop=session.stopped, named={MANIFEST: LIST})
        try:
            for more in writing:
                yield Tick(Amount(written=more))
        except ProgramFailed as error:
            raise _fault(judge(error, room), task) from None
        made = Backup(
            id=new.id,
            server=task.manner.identity or str(server.settings["identity"]),
            address=server.address,
            engine=server.engine,
            version=server.version,
            database="",
            method="physical",
            tool=tool.version,
            arguments=tuple(argv[1:]),
            began=new.began,
            ended=datetime.now(timezone.utc),
            files=(),
            format="tar",
            source_bytes=size,
            parent=task.parent.id if task.parent else "",
            about=about,
        )
        if task.decode:
            made = made._replace(level="decode", verified_at=made.ended)
        sealed = new.seal(made)
    yield Tick(note=sealed.id)


def _streamed(
    session: Session, task: Dump, server: Server, new: Part, *, argv: t.Sequence[str], env: t.Mapping[str, str]
) -> t.Iterator[int]:
    """One file, and the list of its files once more where something may build on it."""
    listing = "incremental" not in server.lacks and not task.manner.encryption
    reading = Checking(thorough=task.decode) if task.decode or listing else None
    try:
        taps = [reading] if reading else []
        yield from new.run([argv], env, what="physical", ext="tar", stop=session.stopped, taps=taps)
    finally:
        if reading:
            reading.stop()
    if reading and listing:
        yield from new.feed([reading.manifest], what=LIST, ext=MANIFEST, stop=session.stopped)


def _fault(fault: DbFault, task: Dump) -> DbFault:
    """What the server forgets of its log, it forgets by a setting."""
    if task.parent is None or "summar" not in fault.cause:
        return fault
    cure = "The next run makes a full one; raise wal_summary_keep_time, and keep the log for summaries to be made"
    return Refused(f"{fault.cause} (it was to build on {task.parent.id})", cure=cure)


# ---- read to the end -------------------------------------------------------------------------------------------------


class Checking:
    """A tap that reads the archive in a thread of its own, out of a pipe."""

    def __init__(self, *, thorough: bool = True) -> None:
        import threading

        self.manifest = b""  # after end()
        self._thorough = thorough

        source, drain = os.pipe()
        self._out, self._in = os.fdopen(drain, "wb", READ), os.fdopen(source, "rb", READ)
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with self._in:
                if not self._thorough:
                    self.manifest = listed(self._in)
                    return
                self.manifest = ended(check(self._in))
        except BaseException as error:
            self._fault = error

    def feed(self, data: bytes) -> None:
        try:
            self._out.write(data)
        except BrokenPipeError:
            self.end()

    def end(self) -> None:
        self.stop()
        if self._fault is not None:
            raise self._fault

    def stop(self) -> None:
        import contextlib

        with contextlib.suppress(OSError):
            self._out.close()
        self._thread.join(60)
