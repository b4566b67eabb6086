# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole MariaDB servers by mariadb-backup, against a real one: what is in the stream, and what is found out."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault, Refused, Stopped
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Verify
from tests.fleet import Server

from .conftest import Pool, missing
from .module_runner import run
from .my_backup import Shelter, furnish


@pytest.fixture(scope="module")
def maria(pool: Pool) -> Server:
    if shutil.which("mariadb-backup") is None:
        missing("mariadb-backup")
    return pool.get("mariadb")


@pytest.fixture
def shelter(maria: Server, tmp_path: Path) -> Shelter:
    return Shelter(maria, tmp_path / "backups")


def write(shelter: Shelter, **more: Any) -> Any:
    shelter.carry_out(Dump(Ref(""), "physical", shelter.manner, **more))
    return shelter.newest("")


def test_a_whole_server_is_copied_read_to_its_end_and_started(maria: Server, database: Any, shelter: Shelter) -> None:
    name = database(maria)
    furnish(maria, name)
    maria.sql("CREATE USER IF NOT EXISTS keeper@localhost IDENTIFIED BY 'x'")
    backup = write(shelter, jobs=2)
    assert (backup.method, backup.database, backup.format, backup.files[0].what) == (
        "physical", "", "xbstream", "physical",
    )  # fmt: skip
    assert backup.about["position"].startswith("binlog.") and backup.about["gtid"] and int(backup.about["lsn"]) > 0
    assert backup.source_bytes > 10 << 20 and backup.level == ""
    assert shelter.verify("", "decode").level == "decode"
    assert shelter.verify("", "restore").level == "restore"
