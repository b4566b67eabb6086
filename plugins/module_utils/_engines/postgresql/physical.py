# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of whole servers tried out: unpacked, started, every database looked into, thrown away. See drill.py.

What a restore has in common with that, too. Its directory: data_directory.py.
"""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

from ..._backups import Backup, Decryption
from ..._errors import Stopped
from ..._records import Tick, Work
from . import incremental, tarballs, throwaway
from .clients import private_folder
from .decoding import major
from .drill import amcheck
from .dumping import Room
from .quiet import asleep
from .session import Session

DATABASES = "SELECT d.datname::pg_catalog.text FROM pg_catalog.pg_database d WHERE d.datallowconn"
HBA = "local all all trust\n"
SIGNALS = ("standby.signal", "recovery.signal")  # pg_basebackup takes a standby's along
RECOVERY = 3600.0  # seconds for a server to read its log to the end of the backup


def tried(session: Session, backup: Backup, decrypt: Decryption | None, room: Room) -> Work:
    """Unpacked, checked against its own manifest, started, and every database looked into."""
    owner, backups = throwaway.unprivileged(), incremental.chain(backup)
    needed = backup.source_bytes * min(2, len(backups)) + (512 << 20)
    with throwaway.folder_of(owner, needed) as folder:
        where = {space.oid: folder / "spaces" / space.oid for space in tarballs.spaces(backup)}
        yield from filled(session, backups, decrypt, folder, where, bin_dir=room.bin_dir, owner=owner)
        alone(folder / "data")
        yield from looked_through(session, backup, folder / "data", room.bin_dir, owner=owner)


def alone(data: Path) -> None:
    """A copy of a standby follows nobody: it reads the log that came with it, and is a server of its own."""
    for name in SIGNALS:
        (data / name).unlink(missing_ok=True)


def filled(
    session: Session,
    backups: t.Sequence[Backup],
    decrypt: Decryption | None,
    folder: Path,
    where: t.Mapping[str, Path],
    *,
    bin_dir: str,
    owner: tuple[int, int] | None,
) -> Work:
    """`folder`/data as the last backup of the chain has it, and its tablespaces where their oids say.

    Raises Refused, MissingMeans, Stopped.
    """
    from ..._files import durable

    with durable.refusing(f"{folder} cannot be written"):
        if len(backups) == 1:
            yield from tarballs.laid(session, backups[0], decrypt, folder / "data", where, owner=owner)
        else:
            yield from incremental.combined(session, backups, decrypt, folder, where, bin_dir=bin_dir, owner=owner)


def looked_through(
    session: Session,
    backup: Backup,
    data: Path,
    bin_dir: str,
    *,
    owner: tuple[int, int] | None,
    more: t.Mapping[str, str] | None = None,
    checked: bool = True,
    patience: float = throwaway.ENDING,
) -> Work:
    """A server over that directory, with none of its own settings: each database opens.

    `checked`: each b-tree index is sound, too, which may need an extension to be made. `patience`: seconds for its end.
    Raises Refused, MissingMeans, Stopped.
    """
    version = major(backup.version)
    throwaway.server_program(version, bin_dir, same=True)
    with private_folder() as folder:
        settings = {**_configured(folder), **asleep(version), **(more or {})}
        if owner:
            os.chown(folder, *owner)
        with throwaway.started(
            data,
            version,
            bin_dir,
            settings,
            patience=RECOVERY,
            user=backup.about.get("superuser", "postgres"),
            owner=owner,
            sockets=folder,
            ending=patience,
        ) as there:
            yield Tick()
            with throwaway.speaking(there, "template1") as worker:
                names = [name for (name,) in worker.rows(DATABASES)]
            for name in names:
                with throwaway.speaking(there, name) as connection:
                    connection.rows("SELECT pg_catalog.count(*) FROM pg_catalog.pg_class")
                if checked:
                    yield from amcheck(session, there, name)
                if session.stopped.is_set():
                    raise Stopped("stopped")
                yield Tick()


def _configured(folder: Path) -> dict[str, str]:
    """Settings that name the files with all the others: nobody else can read them, or say anything in them."""
    settings = {}
    for name, text in (("config_file", ""), ("hba_file", HBA), ("ident_file", "")):
        path = folder / name
        path.write_text(text)
        path.chmod(0o644)
        settings[name] = str(path)
    return settings
