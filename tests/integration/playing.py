# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for the playbooks: inventories, churned files, what a failed build leaves. No test lives here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server
from tests.fleet.errors import FleetError
from tests.playbook import Played, write_inventory

from .churn import churn_file

Hosts = dict[str, dict[str, Any]]
Inventory = Callable[..., Path]
# What the small test databases need to be worth anything.
SMALL = {"vacuum_reclaim_min_size": "100kB", "vacuum_min_dead_rows": 100}
SERVERS = ("postgresql-16", "mariadb", "mysql")
# What a failed CREATE UNIQUE INDEX CONCURRENTLY leaves behind; it is in nobody's way once the twin is gone.
TWINS = "CREATE TABLE twins (id int); INSERT INTO twins VALUES (1), (1)"
INVALID = "CREATE UNIQUE INDEX CONCURRENTLY twins_id ON twins (id)"
GONE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9, "db_engine": "postgresql"}


def write_hosts(folder: Path, hosts: Hosts, **shared: Any) -> Path:
    """Writes an inventory whose hosts share a journal in this folder."""
    own = {"maintenance_journal": str(folder / "journal.sqlite"), **SMALL, **shared}
    return write_inventory(folder / "inventory.yml", hosts, **own)


def churned(lite: Callable[[str], Path], *names: str) -> Hosts:
    """Makes churned SQLite files, each a host."""
    for name in names:
        churn_file(lite(name))
    exclusive = {"db_engine": "sqlite", "vacuum_reclaim_method": "exclusive"}
    return {name: {**exclusive, "db_databases": [str(lite(name))]} for name in names}


def leave_an_invalid_index(server: Server, name: str) -> None:
    server.sql(TWINS, database=name)
    with pytest.raises(FleetError, match="could not create unique index"):
        server.sql(INVALID, database=name)
    server.sql("DELETE FROM twins WHERE ctid = '(0,1)'", database=name)


def said(played: Played) -> str:
    """What the playbook printed, for the message of a failed assertion and for looking into."""
    return played.text
