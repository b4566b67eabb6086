# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups for the tests of files: made by real programs and pipes, of no database. No test lives here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Manner, Shelf, Sheltered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, reader
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.store import Part, part
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump

IDENTITY = "postgresql:7301234567890123456"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LINES = b"".join(b"%d\tsome words of row %d\t%d\n" % (n, n * 7919 % 100_003, n * n % 65_537) for n in range(40_000))


def record(ident: str = "", **more: Any) -> Backup:
    """What an engine says of a backup when it seals it."""
    fields: dict[str, Any] = {
        "id": ident,
        "server": IDENTITY,
        "address": "db1:5432",
        "engine": "postgresql",
        "version": "16.14",
        "database": "shop",
        "method": "dump",
        "tool": "pg_dump 16.14",
        "arguments": ("--format=custom", "shop"),
        "began": NOON,
        "ended": NOON,
        "files": (),
        "rows": {"public.orders": 820_113},
        "about": {"owner": "shop"},
        **more,
    }
    return Backup(**fields)


def task(folder: Path, database: str = "shop", **manner: Any) -> Dump:
    return Dump(Ref(database), "dump", Manner(str(folder), **{"identity": IDENTITY, **manner}))


def fill(new: Part, script: str = "", data: bytes = LINES, env: dict[str, str] | None = None, **more: Any) -> list[int]:
    """One file, by a program; what it yields."""
    if not script:
        return list(
            new.feed([data[n : n + 100_000] for n in range(0, len(data), 100_000)], what="dump", ext="sql", **more)
        )
    return list(new.run([["sh", "-c", script]], env or dict(os.environ), what="dump", ext="sql", **more))


def make(folder: Path, database: str = "shop", data: bytes = LINES, **manner: Any) -> Backup:
    """A backup, sealed."""
    with part(task(folder, database, **manner)) as new:
        fill(new, data=data)
        return new.seal(record(new.id, database=database))


def look(folder: Path, **more: Any) -> Shelf:
    return backups.look(Sheltered(str(folder), **more))


def plain(backup: Backup, **more: Any) -> bytes:
    """What was backed up."""
    with reader.opened(backup, backup.files[0], **more) as file:
        return file.read()


def sound(backup: Backup) -> bool:
    """All of it is on the disk as the manifest says; raises where it is not."""
    return sum(reader.checksum(backup)) == backup.bytes


def names(folder: Path) -> Sequence[str]:
    """All files below, with their folders."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
