# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of whole servers tried out: unpacked, started, every database looked into, thrown away. See drill.py."""

from __future__ import annotations

import os
import shutil
import tarfile
import typing as t
from pathlib import Path

from ..._backups import Backup, Decryption
from ..._errors import Refused, Stopped
from ..._records import Amount, Tick, Work
from . import incremental, throwaway
from .connection import Session
from .decoding import major, read
from .drill import amcheck, asleep
from .dumping import Room

DATABASES = "SELECT d.datname::pg_catalog.text FROM pg_catalog.pg_database d WHERE d.datallowconn"
HBA = "local all all trust\n"
RECOVERY = 3600.0  # seconds for a server to read its log to the end of the backup


def tried(session: Session, backup: Backup, decrypt: Decryption | None, room: Room) -> Work:
    """Unpacked, checked against its own manifest, started, and every database looked into."""
    from ..._files import durable

    owner, backups = throwaway.unprivileged(), incremental.chain(backup)
    for each in backups:
        for _more in read(session, each, decrypt, room.bin_dir, {}):
            yield Tick()
    needed = backup.source_bytes * min(2, len(backups)) + (512 << 20)
    with throwaway.folder_of(owner, needed) as folder:
        with durable.refusing(f"{folder} cannot be written"):
            if backup.whole:
                yield from unpacked(session, backup, decrypt, folder / "data", owner)
            else:
                yield from incremental.combined(session, backups, decrypt, folder, bin_dir=room.bin_dir, owner=owner)
        yield from looked_through(session, backup, folder, room, owner=owner)


def looked_through(
    session: Session,
    backup: Backup,
    folder: Path,
    room: Room,
    *,
    owner: tuple[int, int] | None,
    more: t.Mapping[str, str] | None = None,
) -> Work:
    """A server over `folder`/data, with none of its own settings: each database opens, each b-tree index is sound."""
    version, data = major(backup.version), folder / "data"
    ident = folder / "drill.ident"
    settings = {
        "config_file": str(folder / "drill.conf"),
        "hba_file": str(folder / "drill.hba"),
        "ident_file": str(ident),
        **asleep(version),
        **(more or {}),
    }
    for path, text in ((folder / "drill.conf", ""), (folder / "drill.hba", HBA), (ident, "")):
        path.write_text(text)
        path.chmod(0o644)
    user = backup.about.get("superuser", "postgres")
    with throwaway.started(data, version, room.bin_dir, settings, patience=RECOVERY, user=user, owner=owner) as there:
        yield Tick()
        with throwaway.speaking(there, "template1") as worker:
            names = [name for (name,) in worker.rows(DATABASES)]
        for name in names:
            with throwaway.speaking(there, name) as connection:
                connection.rows("SELECT pg_catalog.count(*) FROM pg_catalog.pg_class")
            yield from amcheck(session, there, name)
            if session.stopped.is_set():
                raise Stopped("stopped")
            yield Tick()


def unpacked(
    session: Session, backup: Backup, decrypt: Decryption | None, data: Path, owner: tuple[int, int] | None
) -> Work:
    """Only folders and plain files, and none outside. Raises Refused, Stopped."""
    from ..._files import reader

    (stored,) = (file for file in backup.files if file.what == "physical")
    data.mkdir(mode=0o700)
    made = [data]
    with reader.opened(backup, stored, decrypt) as source, tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if ".." in parts or not (member.isreg() or member.isdir()):
                raise Refused(f"{member.name} in the archive is no file of a data directory")
            path = data.joinpath(*parts)
            made.append(path)
            file = archive.extractfile(member) if member.isreg() else None
            if file is None:
                path.mkdir(mode=0o700, exist_ok=True)
                continue
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                shutil.copyfileobj(file, out, 1 << 20)
            yield Tick(Amount(written=member.size))
            if session.stopped.is_set():
                raise Stopped("stopped")
        for _rest in iter(lambda: source.read(1 << 20), b""):
            continue
    if owner:
        for path in made:
            os.chown(path, *owner)
