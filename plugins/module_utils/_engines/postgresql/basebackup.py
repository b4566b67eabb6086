# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole servers by pg_basebackup, and their archives read to the end against the manifest that lies in them."""

from __future__ import annotations

import hashlib
import json
import shlex
import tarfile
import typing as t
from datetime import datetime, timezone

from ..._backups import Backup
from ..._errors import DbFault, Refused, Stopped
from ..._records import Amount, Server, Tick, Work
from ..._tasks import Dump
from . import incremental
from .clients import environment, private_folder, target
from .connection import Kind, Session
from .dumping import APPLICATION, Room, judge, packed

READ = 1 << 20  # bytes at once
MANIFEST = "backup_manifest"
OWN = (MANIFEST, "postgresql.auto.conf", "standby.signal", "recovery.signal")  # that no manifest names
# What lies outside of the data directory cannot go into one stream. The rest is what a drill needs to know.
ABOUT = """
SELECT (SELECT pg_catalog.string_agg(s.spcname::pg_catalog.text, ', ' ORDER BY s.spcname)
          FROM pg_catalog.pg_tablespace s WHERE s.spcname NOT IN ('pg_default', 'pg_global')),
       pg_catalog.pg_get_userbyid(10)::pg_catalog.text,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_database),
       (SELECT pg_catalog.sum(pg_catalog.pg_tablespace_size(s.oid)) FROM pg_catalog.pg_tablespace s)
"""


def words(server: Server, room: Room, since: str = "") -> list[str]:
    """The command line; no secret in it. `since`: the file with the manifest that an incremental one builds on."""
    where = [word for word in target(room.connector, "", plain=True) if not word.startswith("--dbname")]
    # One stream holds the log, too, which the server has to keep until its end: wal_keep_size.
    return [
        *(room.path("pg_basebackup", server), *where, "--pgdata=-", "--format=tar", "--wal-method=fetch"),
        *("--checkpoint=fast", "--manifest-checksums=SHA256", f"--label={APPLICATION}"),
        *([f"--incremental={since}"] if since else []),
    ]


def spell(task: Dump, server: Server, room: Room) -> list[str]:
    since = f"{task.parent.folder}/{incremental.listed(task.parent).name}" if task.parent else ""
    return [shlex.join(words(server, room, since))]


def take(session: Session, task: Dump, server: Server, room: Room) -> Work:
    """All of the server, as one stream. Raises Busy, Gone, Refused, MissingMeans, Stopped."""
    from ..._files.pipeline import ProgramFailed
    from ..._files.store import part

    tool = room.client("pg_basebackup", server)
    ((elsewhere, superuser, databases, size),) = session.rows(ABOUT)
    if elsewhere:
        cure = "Use method dump, or pgBackRest"
        raise Refused(f"tablespaces ({elsewhere}) lie outside of the data directory: no single stream", cure=cure)
    listing = "incremental" not in server.lacks and not task.manner.encryption
    reading = Checking(thorough=task.decode) if task.decode or listing else None
    with part(packed(task)) as new, private_folder() as folder:
        argv = words(server, room, incremental.unpacked_list(task.parent, folder) if task.parent else "")
        env = environment(room.connector, folder, Kind(), APPLICATION)
        env["PGOPTIONS"] = room.connector.login.options  # a replication connection knows no role and no search_path
        yield Tick()
        try:
            taps = [reading] if reading else []
            for more in new.run([argv], env, what="physical", ext="tar", stop=session.stopped, taps=taps):
                yield Tick(Amount(written=more))
        except ProgramFailed as error:
            raise _fault(judge(error, room), task) from None
        finally:
            if reading:
                reading.stop()
        if reading and listing:
            for _more in new.feed([reading.manifest], what=incremental.LIST, ext=MANIFEST, stop=session.stopped):
                yield Tick()
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
            source_bytes=int(size or 0),
            parent=task.parent.id if task.parent else "",
            about={"superuser": str(superuser), "databases": str(databases)},
        )
        if task.decode:
            made = made._replace(level="decode", verified_at=made.ended)
        sealed = new.seal(made)
    yield Tick(note=sealed.id)


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
        import os
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
                kept: list[bytes] = []
                for _more in check(self._in, keep=kept):
                    pass
                self.manifest = kept[0]
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


def listed(source: t.BinaryIO) -> bytes:
    """The manifest that lies in the archive, and nothing else of it. Raises Refused."""
    manifest = b""
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=READ) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.removeprefix("./") == MANIFEST else None
                manifest = file.read() if file else manifest
    except (tarfile.TarError, EOFError) as error:
        raise Refused(f"the archive cannot be read: {error}") from None
    for _data in _slices(source):
        continue
    if not manifest:
        raise Refused(f"no {MANIFEST} is in the archive")
    return manifest


def check(source: t.BinaryIO, session: Session | None = None, keep: list[bytes] | None = None) -> t.Iterator[int]:
    """Each file of the archive against the manifest, and the log that a start needs. Raises Refused, Stopped."""
    found: dict[str, tuple[int, str]] = {}
    manifest = b""
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=READ) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                if file is None:
                    continue
                name = member.name.removeprefix("./")
                if name == MANIFEST:
                    manifest = file.read()
                    continue
                hashed, size = hashlib.sha256(), 0
                for data in _slices(file):
                    hashed.update(data)
                    size += len(data)
                    yield len(data)
                    if session and session.stopped.is_set():
                        raise Stopped("stopped")
                found[name] = size, hashed.hexdigest()
    except (tarfile.TarError, EOFError) as error:
        raise Refused(f"the archive cannot be read: {error}") from None
    for _data in _slices(source):  # its last read says that all of it is as it was written
        yield 0
    if keep is not None:
        keep.append(manifest)
    wrong = list(_faults(manifest, found))
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise Refused(f"the archive is not what its manifest says: {'; '.join(wrong[:5])}{more}")


def _slices(file: t.IO[bytes]) -> t.Iterator[bytes]:
    return iter(lambda: file.read(READ), b"")


def is_whole(manifest: bytes) -> bool:
    """By the checksum of itself that is its last line."""
    hashed = manifest[: manifest.rfind(b"\n", 0, manifest.rfind(b"\n")) + 1]
    try:
        return bool(json.loads(manifest)["Manifest-Checksum"] == hashlib.sha256(hashed).hexdigest())
    except (ValueError, KeyError, TypeError):
        return False


def _faults(manifest: bytes, found: t.Mapping[str, tuple[int, str]]) -> t.Iterator[str]:
    """Source: the manual, Backup Manifest Format."""
    if not manifest:
        yield f"no {MANIFEST} is in it"
        return
    try:
        said = json.loads(manifest)
        files = {_path(each): (int(each["Size"]), str(each["Checksum"]).lower()) for each in said["Files"]}
        ranges = [
            (int(each["Timeline"]), _lsn(each["Start-LSN"]), _lsn(each["End-LSN"])) for each in said["WAL-Ranges"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        yield f"{MANIFEST} cannot be read: {error}"
        return
    if not is_whole(manifest):
        yield f"{MANIFEST} has another checksum"
    for name, (size, digest) in sorted(files.items()):
        if name not in found:
            yield f"{name} is missing"
        elif found[name] != (size, digest):
            yield f"{name} is another file"
    for name in sorted(found.keys() - files.keys()):
        if name not in OWN and not name.startswith("pg_wal/"):
            yield f"{name} is not in the manifest"
    yield from (f"{name} is missing" for name in _segments(ranges, found) if name not in found)


def _path(entry: t.Mapping[str, str]) -> str:
    return entry["Path"] if "Path" in entry else bytes.fromhex(entry["Encoded-Path"]).decode("utf-8", "surrogateescape")


def _lsn(text: str) -> int:
    high, _slash, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _segments(ranges: t.Sequence[tuple[int, int, int]], found: t.Mapping[str, tuple[int, str]]) -> t.Iterator[str]:
    """The files of the log without which no start is possible. All of them have one size."""
    sizes = {size for name, (size, _digest) in found.items() if name.startswith("pg_wal/0") and len(name) == 31}
    if len(sizes) != 1:
        yield "pg_wal"
        return
    (size,) = sizes
    for timeline, first, last in ranges:
        for number in range(first // size, max(first, last - 1) // size + 1):
            high, low = divmod(number, (1 << 32) // size)
            yield f"pg_wal/{timeline:08X}{high:08X}{low:08X}"
