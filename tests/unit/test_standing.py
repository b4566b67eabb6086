# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How databases stand: bloat and backups beside what is due."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils import _standing
from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Shelf
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Database, Measured

from .samples import GB, bloat, server, table

HOUR = 3600


def backup(database: str, hours: float, level: str = "decode", **more: Any) -> Backup:
    """One that began so many hours ago."""
    now = server().now
    began = now - timedelta(hours=hours)
    given: dict[str, Any] = {
        "id": f"{database} {hours}",
        "server": f"postgresql:{server().address}",
        "address": server().address,
        "engine": "postgresql",
        "version": "18",
        "database": database,
        "method": "dump",
        "tool": "",
        "arguments": (),
        "began": began,
        "ended": began,
        "files": (),
        "level": level,
        **more,
    }
    return Backup(**given)


def measured(*backups: Backup, databases: tuple[str, ...] = ("shop",)) -> Measured:
    found = tuple(Database(name) for name in databases)
    return Measured(server(), (*found, Database("template1", system=True)), shelf=Shelf("/backups", backups))


def ages(found: Measured) -> dict[str, tuple[int | None, int | None]]:
    return {one["database"]: (one["age_seconds"], one["verified_age_seconds"]) for one in _standing.backups(found)}


def test_the_newest_backup_and_the_newest_that_was_read() -> None:
    known = (backup("shop", 50), backup("shop", 30, "restore"), backup("shop", 2, "checksum"), backup("crm", 1))
    assert ages(measured(*known)) == {"shop": (2 * HOUR, 30 * HOUR)}


def test_databases_without_one_come_first() -> None:
    known = (backup("shop", 50), backup("crm", 1, ""))
    found = measured(*known, databases=("new", "shop", "crm"))
    assert ages(found) == {"crm": (HOUR, None), "new": (None, None), "shop": (50 * HOUR, 50 * HOUR)}
    assert list(ages(found)) == ["crm", "new", "shop"]


def test_a_backup_of_the_server_is_one_of_each_database() -> None:
    known = (backup("", 5, method="physical"), backup("shop", 9), backup("", 1, method="globals"))
    assert ages(measured(*known, databases=("shop", "crm"))) == {
        "shop": (5 * HOUR, 5 * HOUR),
        "crm": (5 * HOUR, 5 * HOUR),
    }


def test_backups_of_other_servers_are_none_of_ours() -> None:
    assert ages(measured(backup("shop", 1, server="postgresql:elsewhere"))) == {"shop": (None, None)}


def test_bloat_is_summed_over_all_databases_and_named_of_the_worst() -> None:
    names = [f"db{number:02}" for number in range(_standing.SHOWN + 3)]
    databases = [
        Database(name, tables=(table(bytes=GB, total_bytes=GB, bloat=bloat(number)),))
        for number, name in enumerate(names)
    ]
    databases.append(Database("template1", system=True, tables=(table(bytes=GB, total_bytes=GB, bloat=bloat(90)),)))
    fact = _standing.bloat(Measured(server(), tuple(databases)))
    assert fact["bytes"] == len(names) * GB
    assert fact["bloat_bytes"] == sum(x.bloat.bytes for d in databases[:-1] for x in d.tables if x.bloat)
    assert [one["database"] for one in fact["databases"]] == names[::-1][: _standing.SHOWN]
