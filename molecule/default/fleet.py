# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the scenario's servers, churns them and writes their inventory. They run until destroy.yml stops them."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.demo import aging
from tests.demo.shop import fill, fill_file
from tests.fleet import Fleet, Server, available
from tests.playbook import variables, write_inventory


def main() -> None:
    """The argument is the scenario's own folder."""
    own = Path(sys.argv[1])
    fleet = Fleet(keep=True)
    # First of all, so that destroy.yml finds what a failed start left running.
    (own / "fleet").write_text(str(fleet.path), encoding="utf-8")
    there = {name.partition("-")[0] for name in available()}
    makers = {"pg16": lambda: fleet.postgresql(16), "pg18": lambda: fleet.postgresql(18)}
    makers |= {name: getattr(fleet, name) for name in ("mariadb", "mysql") if name in there}
    with ThreadPoolExecutor() as pool:
        servers: dict[str, Server] = dict(zip(makers, pool.map(lambda make: make(), makers.values()), strict=True))
        list(pool.map(fill, servers.values()))
        list(pool.map(aging.age, servers.values()))
    file = fleet.folder("files") / "shop.sqlite3"
    fill_file(file, incremental=True)
    aging.age_file(file)
    hosts = {name: variables(server) | aging.variables_of_servers() for name, server in servers.items()}
    hosts["file"] = {"db_engine": "sqlite", "db_databases": [str(file)]}
    write_inventory(
        own / "inventory" / "fleet.yml",
        hosts,
        maintenance_journal=str(fleet.path / "journal.sqlite"),
        vacuum_reclaim_min_size="10MB",
        reindex_min_size="1MB",
        **aging.variables(fleet.path / "archive"),
    )


if __name__ == "__main__":
    main()
