# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHAT a backup builds on, and what pgBackRest keeps beside the folder. Pure; when a backup is due: backup.py."""

from __future__ import annotations

import typing as t

from .._backups import LEVELS, Backup, Repository, Shelf
from .._records import Amount, Finding, Ref, Step
from .._tasks import RemoveBackup
from .._tuples import NamedTuple
from .._units import say_seconds
from .rotation_law import level_of

if t.TYPE_CHECKING:
    from datetime import datetime

    from .._records import Attempt
    from .backup_options import Policy

PGBACKREST = "pgbackrest"
MANIFEST = "manifest"  # Stored.what: the list of its files that the next one is compared with


class Basis(NamedTuple):
    """What the next backup is."""

    type: str = "full"  # full, incr (on the one before), diff (on the last full one)
    parent: Backup | None = None
    why: str = ""


def is_full(backup: Backup) -> bool:
    return backup.whole and backup.format not in ("incr", "diff")


def basis(policy: Policy, known: t.Sequence[Backup], now: datetime, last: Attempt | None = None) -> Basis:
    """Full, unless `full_interval` lets it build on another one. `known`: of one subject, oldest first.

    It builds on nothing that is not verified as far as is asked for: after a bad backup the next one is full.
    """
    fulls = [b for b in known if is_full(b)]
    if policy.full_interval is None:
        return Basis()
    if not fulls:
        return Basis(why="a full one, for there is none yet")
    age, least = (now - fulls[-1].began).total_seconds(), say_seconds(policy.full_interval)
    if age >= policy.full_interval:
        return Basis(why=f"a full one, for the last is {say_seconds(age)} old, over {least}")
    parent = fulls[-1] if policy.differential else known[-1]
    missing = "" if policy.stanza else _broken_chain(parent, known)
    if not policy.stanza and last is not None and not last.ok and last.at >= known[-1].ended:
        missing = "the last attempt failed"  # the server may have forgotten what changed since
    if missing:
        return Basis(why=f"a full one, for {missing}")
    if level_of(parent) < LEVELS.index(policy.verify):
        return Basis(why=f"a full one, for {'the last full' if policy.differential else 'the last'} is not verified")
    whole = f"the full one of {say_seconds(age)} ago, under {least}"
    if policy.differential or parent is fulls[-1]:
        return Basis("diff" if policy.differential else "incr", parent, f"on {whole}")
    back = say_seconds((now - parent.began).total_seconds())
    return Basis("incr", parent, f"on the one of {back} ago, and {whole}")


def _broken_chain(backup: Backup, known: t.Sequence[Backup]) -> str:
    """Why nothing can build on it; "": something can."""
    if not any(file.what == MANIFEST for file in backup.files):
        return "the last has no list of its files"
    there = {b.id: b for b in known}
    for _link in range(len(known)):
        if not backup.parent:
            return ""
        if backup.parent not in there:
            break
        backup = there[backup.parent]
    return f"{backup.parent}, which the last builds on, is not there"


# ---- what pgBackRest keeps -------------------------------------------------------------------------------------------


def kept(repository: Repository, shelf: Shelf) -> list[Backup]:
    """With what their manifests say of how far they were verified: what has none was made by somebody else."""
    manifests = {b.id: b for b in shelf.backups if b.method == PGBACKREST}
    out = []
    for backup in repository.backups:
        told = manifests.get(backup.id, backup)
        out.append(backup._replace(level=told.level, verified_at=told.verified_at, folder=told.folder))
    return out


def expired(repository: Repository, shelf: Shelf, identity: str) -> t.Iterator[Step]:
    """Manifests of what pgBackRest has expired: nothing must count that is not there."""
    there = {b.id for b in repository.backups}
    for backup in shelf.backups:
        ours = backup.method == PGBACKREST and backup.server == identity
        if ours and backup.id not in there and backup.about.get("stanza") == repository.stanza.name:
            # A backup is an object of its own: steps of one server's backups must not be taken for each other.
            ref = Ref("", (backup.id,))
            reason = f"pgBackRest does not keep {backup.about.get('label')} any more"
            yield Step(RemoveBackup(ref, backup), reason, {"id": backup.id}, Amount(seconds=0.05), (8, 0.0))


def told(backups: t.Iterable[Backup]) -> list[dict[str, t.Any]]:
    """pgBackRest's info, as it is returned: the newest first."""
    return [
        {
            "label": b.about["label"],
            "stanza": b.about["stanza"],
            "repo": int(b.about["repo"]),
            "type": b.about["type"],
            "prior": b.about["prior"] or None,
            "began": b.began.isoformat(timespec="seconds"),
            "ended": b.ended.isoformat(timespec="seconds"),
            "source_bytes": b.source_bytes,
            "bytes": int(b.about["bytes"]),
            "wal_start": b.about["wal_start"],
            "wal_stop": b.about["wal_stop"],
            "level": b.level or None,
            "verified_at": b.verified_at.isoformat(timespec="seconds") if b.verified_at else None,
        }
        for b in reversed(list(backups))
    ]


def unusable(repository: Repository) -> Finding:
    return Finding(1, "pgbackrest_unusable", Ref(""), repository.why_not, fix=repository.cure)
