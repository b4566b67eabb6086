# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server whose log and backups go to pgBackRest, as tests use it. No test lives here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.fleet import Fleet
from tests.fleet.postgresql import PostgreSQL
from tests.fleet.processes import give_away, run

from .conftest import missing

# pgBackRest takes no password: on hosts it logs in as the user of the server, by the socket.
HBA = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


class Kept:
    """The server, its stanza and its repository."""

    name = "shop"

    def __init__(self, fleet: Fleet, major: int) -> None:
        if shutil.which("pgbackrest") is None:
            missing("pgBackRest: apt-get install pgbackrest")
        self.home = fleet.folder(f"backrest-{major}")
        give_away(self.home)
        self.config, self.repo = self.home / "pgbackrest.conf", self.home / "repo"
        push = f"pgbackrest --config={self.config} --stanza={self.name} archive-push %p"
        settings = {"archive_mode": "on", "archive_command": push, "archive_timeout": "0", "port": None}
        self.server: PostgreSQL = fleet.postgresql(major, settings=settings, name=f"backrest-pg{major}")
        (self.server.data_dir / "pg_hba.conf").write_text(HBA)
        self.server.reload()
        self.configure()
        self.call("stanza-create")

    def configure(self, **more: Any) -> None:
        """As an administrator writes it; `more`: of the global section."""
        wanted: dict[str, Any] = {
            "repo1-path": self.repo,
            "log-path": self.home,
            "lock-path": self.home / "lock",
            "spool-path": self.home / "spool",
            "repo1-retention-full": 2,
            "start-fast": "y",
            "archive-timeout": 5,
            "compress-type": "lz4",
            "job-retry": 0,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        server = {
            "pg1-path": self.server.data_dir,
            "pg1-port": self.server.port,
            "pg1-socket-path": self.server.socket,
            "pg1-user": self.server.user,
        }
        told = [("global", wanted), (self.name, server)]
        self.config.write_text(
            "".join(f"[{section}]\n" + "".join(f"{k}={v}\n" for k, v in values.items()) for section, values in told)
        )
        self.config.chmod(0o644)

    def call(self, command: str, *words: str) -> str:
        """As the server's user. FleetError with what it says where it fails."""
        argv = ["pgbackrest", f"--config={self.config}", f"--stanza={self.name}", *words, command]
        return run(argv, as_server=True)

    def info(self) -> list[dict[str, Any]]:
        """The backups."""
        (stanza,) = json.loads(self.call("info", "--output=json"))
        return list(stanza["backup"])

    def copy_of(self, name: str) -> Path:
        """A file of the newest backup."""
        found = sorted(self.repo.glob(f"backup/{self.name}/2*/pg_data/{name}"))
        return found[-1]
