# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How databases stand beside what is due: space that a rebuild would give back, age of backups. Nothing is decided."""

from __future__ import annotations

import typing as t

from ._records import Measured, Server

if t.TYPE_CHECKING:
    from ._backups import Backup

Facts = dict[str, t.Any]
SHOWN = 10  # databases: the sums have all of them


def bloat(measured: Measured) -> Facts:
    """Sums over all databases, and those with the most bloat. Only what the planners asked for is estimated."""
    from ._report import totals

    found = [{"database": d.name, **totals(d)} for d in measured.databases if not d.system]
    kept = ("bytes", "bloat_bytes", "index_bloat_bytes")
    found.sort(key=lambda one: (-one["bloat_bytes"] - one["index_bloat_bytes"], one["database"]))
    return {
        **{key: sum(one[key] for one in found) for key in kept},
        "databases": [{key: one[key] for key in ("database", *kept)} for one in found[:SHOWN]],
    }


def backups(measured: Measured) -> list[Facts]:
    """The newest backup of each database, and the newest one that was read to its end; the oldest of these first."""
    from ._operations.backup_options import identity_of

    server = measured.server
    by_owner: dict[tuple[str, str], list[Backup]] = {}
    for backup in measured.shelf.backups if measured.shelf else ():
        if backup.method != "globals":
            by_owner.setdefault((backup.server, backup.database), []).append(backup)
    repository = [d.repository.backups for d in measured.databases if d.repository]
    of_server = [*by_owner.get((identity_of(server), ""), ()), *(repository[0] if repository else ())]
    names = [d.name for d in measured.databases if not d.system and d.name]
    facts = [_of(name, [*of_server, *by_owner.get((identity_of(server, name), name), ())], server) for name in names]
    return sorted(facts, key=lambda fact: (-_age(fact), fact["database"]))


def _of(name: str, known: t.Sequence[Backup], server: Server) -> Facts:
    from ._operations.rotation_law import READABLE, level_of

    newest = max(known, key=lambda backup: backup.began, default=None)
    good = max((b for b in known if level_of(b) >= READABLE), key=lambda backup: backup.began, default=None)
    return {
        "database": name,
        "at": newest.began.isoformat() if newest else None,
        "age_seconds": round((server.now - newest.began).total_seconds()) if newest else None,
        "verified_age_seconds": round((server.now - good.began).total_seconds()) if good else None,
        "level": (newest.level or None) if newest else None,
        "bytes": newest.bytes if newest else None,
    }


def _age(fact: Facts) -> float:
    age = fact["verified_age_seconds"]
    return float("inf") if age is None else float(age)
