# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archives of a whole server: which part each holds, read to its end against their manifest, unpacked. No server.

One archive holds all of it where everything lies in the data directory; else each tablespace has one of its own, and
the manifest is a file beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import typing as t
from pathlib import Path

from ..._backups import Backup, Decryption, Stored
from ..._errors import Refused, Stopped
from ..._records import Amount, Tick, Work
from ..._tuples import NamedTuple
from .file_list import LIST, MANIFEST, Found, assure, is_whole
from .session import Session

READ = 1 << 20  # bytes at once
SPACES = "pg_tblspc"  # in the data directory: a link for each tablespace, called by its oid
MAP = "tablespace_map"  # the same, for whoever unpacks the archives; the server makes the links anew from it
APART = re.compile(r"(\d+)\.tar(\..*)?")  # the archive of a tablespace
LINK = re.compile(SPACES + r"/\d+")


class Space(NamedTuple):
    """A tablespace outside of the data directory, when the backup was made."""

    oid: str
    name: str
    location: str
    bytes: str


def spaces(backup: Backup) -> list[Space]:
    """Raises Refused."""
    try:
        return [Space(*map(str, each)) for each in json.loads(backup.about.get("tablespaces") or "[]")]
    except (ValueError, TypeError) as error:
        raise Refused(f"the manifest's tablespaces cannot be read: {error}") from None


def tarballs(backup: Backup) -> list[tuple[Stored, str]]:
    """Each archive, and the oid of the tablespace that it holds; "": the data directory, which comes first."""
    found = []
    for stored in backup.files:
        if stored.what == "physical":
            apart = APART.fullmatch(os.path.basename(stored.name))
            found.append((stored, apart.group(1) if apart else ""))
    found.sort(key=lambda each: each[1])
    if [space for _stored, space in found[:2]] not in ([""], *([["", space] for _stored, space in found[1:2]])):
        raise Refused(f"backup {backup.id} has no archive of the data directory, or several")
    return found


# ---- read ------------------------------------------------------------------------------------------------------------


def read(session: Session, backup: Backup, decrypt: Decryption | None) -> t.Generator[int, None, None]:
    """All of them, and what their manifest says of each file. Yields bytes. Raises Refused, Stopped."""
    yield from _passed(session, backup, decrypt, None, {})


def unpacked(
    session: Session, backup: Backup, decrypt: Decryption | None, data: Path, where: t.Mapping[str, Path]
) -> Work:
    """The same, and each file is written: into `data`, which is empty, and each tablespace where its oid says.

    Only folders and plain files, and none outside; links to tablespaces as they are now. Raises Refused, Stopped.
    """
    for more in _passed(session, backup, decrypt, data, where):
        yield Tick(Amount(written=more))
    for oid, place in where.items():
        link(data, oid, place)
    if where:
        # It would lead the server back to where they were.
        (data / MAP).unlink(missing_ok=True)


def laid(
    session: Session,
    backup: Backup,
    decrypt: Decryption | None,
    data: Path,
    where: t.Mapping[str, Path],
    *,
    owner: tuple[int, int] | None,
) -> Work:
    """The same, into folders that are made for it where they are not there; all of it `owner`'s."""
    for place in (data, *where.values()):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield from unpacked(session, backup, decrypt, data, where)
    for place in (data, *where.values()):
        given(place, owner)
    for place in {place.parent for place in where.values()}:
        if owner:
            os.chown(place, *owner)
    yield Tick()


def link(data: Path, oid: str, place: Path) -> None:
    """Anew, where there is one."""
    path = data / SPACES / oid
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(place)


def given(folder: Path, owner: tuple[int, int] | None) -> None:
    """All of it is theirs; no link is followed."""
    if owner is None:
        return
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(place, name), *owner, follow_symlinks=False)
    os.chown(folder, *owner, follow_symlinks=False)


def _passed(
    session: Session, backup: Backup, decrypt: Decryption | None, data: Path | None, where: t.Mapping[str, Path]
) -> t.Generator[int, None, None]:
    from ..._files import reader

    found: Found = {}
    manifest = b""
    for stored, space in tarballs(backup):
        into = data
        if data is not None and space:
            if space not in where:
                raise Refused(f"backup {backup.id} does not say which tablespace {space} is")
            into = where[space]
        with reader.opened(backup, stored, decrypt) as source:
            inside = yield from through(source, found, space=space, into=into, stop=session.stopped)
        manifest = inside or manifest
    for stored in backup.files:
        if stored.what == LIST:
            with reader.opened(backup, stored, None) as source:
                beside = b"".join(_slices(source))
            if not is_whole(beside):
                raise Refused(f"{stored.name} is damaged", cure="Make a full backup")
            if data is not None and not manifest:
                yield from _written(data / MANIFEST, [beside])
            manifest = manifest or beside
    assure(manifest, found)


def ended(work: t.Generator[int, None, bytes]) -> bytes:
    """What it returns, run to its end."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: bytes = end.value
            return found


def check(source: t.BinaryIO) -> t.Generator[int, None, bytes]:
    """One archive that holds all of it; its manifest. Raises Refused."""
    found: Found = {}
    manifest = yield from through(source, found)
    assure(manifest, found)
    return manifest


def through(
    source: t.BinaryIO, found: Found, *, space: str = "", into: Path | None = None, stop: t.Any = None
) -> t.Generator[int, None, bytes]:
    """Each file of an archive hashed, and written below `into` where there is such a folder; the manifest inside.

    Raises Refused, Stopped.
    """
    manifest, prefix = b"", f"{SPACES}/{space}/" if space else ""
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=READ) as archive:
            for member in archive:
                name = _name(member)
                file = archive.extractfile(member) if member.isreg() else None
                if file is None:
                    if into is not None and member.isdir():
                        (into / name).mkdir(mode=0o700, exist_ok=True)
                    continue
                if name == MANIFEST and not space:
                    manifest = file.read()
                    if into is not None:
                        yield from _written(into / name, [manifest])
                    continue
                sha256 = hashlib.sha256()
                slices = _hashed(file, sha256, stop)
                size = 0
                for more in _written(into / name, slices) if into is not None else map(len, slices):
                    size += more
                    yield more
                found[prefix + name] = size, sha256.hexdigest()
    except (tarfile.TarError, EOFError) as error:
        raise Refused(f"the archive cannot be read: {error}") from None
    for _data in _slices(source):  # its last read says that all of it is as it was written
        yield 0
    return manifest


def _name(member: tarfile.TarInfo) -> str:
    """Raises Refused for what has no place in a data directory."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    name = "/".join(parts)
    plain = member.isreg() or member.isdir() or (member.issym() and LINK.fullmatch(name))
    if ".." in parts or member.name.startswith("/") or not plain:
        raise Refused(f"{member.name} in the archive is no file of a data directory")
    return name


def _slices(file: t.IO[bytes]) -> t.Iterator[bytes]:
    return iter(lambda: file.read(READ), b"")


def _hashed(file: t.IO[bytes], sha256: t.Any, stop: t.Any) -> t.Iterator[bytes]:
    for data in _slices(file):
        sha256.update(data)
        yield data
        if stop is not None and stop.is_set():
            raise Stopped("stopped")


def _written(path: Path, slices: t.Iterable[bytes]) -> t.Iterator[int]:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
        for data in slices:
            out.write(data)
            yield len(data)


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
