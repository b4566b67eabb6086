# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup folders as the tests of backups use them. No test lives here."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Shelf, Sheltered, Stored
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backup_manifest
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backups import look
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.unfinished import folder_name

from . import lite
from .module_runner import Ran, run


def options(path: Path | str, folder: Path, **more: Any) -> dict[str, Any]:
    return {"engine": "sqlite", "databases": [str(path)], "backup_dir": str(folder), "journal": "none", **more}


def backed_up(path: Path, folder: Path, *, check: bool = False, fails: bool = False, **more: Any) -> Ran:
    return run("db_backup", options(path, folder, **more), check=check, fails=fails)


def fact(ran: Ran) -> dict[str, Any]:
    (found,) = ran.result["ansible_facts"].values()
    return dict(found)


def kinds(ran: Ran) -> list[tuple[str, str]]:
    return [(s["kind"], s["status"]) for s in fact(ran)["steps"]]


def codes(ran: Ran) -> set[str]:
    return {f["code"] for f in fact(ran)["findings"]}


def shelf(folder: Path) -> Shelf:
    return look(Sheltered(str(folder)))


def content(path: Path) -> list[str]:
    """Every row and every object, as SQL."""
    with lite.closing(path) as db:
        return list(db.iterdump())


def laid(folder: Path, began: datetime, **fields: Any) -> Backup:
    """A backup of the shop in the folder, with a small file that is what its manifest says."""
    place = folder / folder_name(fields.get("database", "shop"))
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    id_ = backup_manifest.new_id(began)
    body = id_.encode()
    file = place / f"{id_}.dump"
    file.write_bytes(body)
    file.chmod(0o600)
    stored = Stored(file.name, len(body), hashlib.sha256(body).hexdigest(), "dump", len(body))
    whole: dict[str, Any] = {
        "id": id_,
        "server": "postgresql:7",
        "address": "db1:5432",
        "engine": "postgresql",
        "version": "18.4",
        "database": "shop",
        "method": "dump",
        "tool": "pg_dump 18.4",
        "arguments": (),
        "began": began,
        "ended": began + timedelta(seconds=5),
        "files": (stored,),
        "level": "decode",
        "folder": str(place),
        **fields,
    }
    backup = Backup(**whole)
    backup_manifest.write_manifest(backup)
    return backup


def aged(folder: Path, by: timedelta) -> None:
    """Every backup is that much older; the names of its files stay."""
    for backup in shelf(folder).backups:
        at = backup.verified_at and backup.verified_at - by
        backup_manifest.write_manifest(
            backup._replace(began=backup.began - by, ended=backup.ended - by, verified_at=at)
        )


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def now() -> datetime:
    return datetime.now(UTC)


def rows(path: Path, table: str = "t") -> int:
    with lite.closing(path) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def manifest(folder: Path) -> dict[str, Any]:
    """The only one there is."""
    (path,) = folder.rglob("*.manifest.json")
    return dict(json.loads(path.read_text()))
