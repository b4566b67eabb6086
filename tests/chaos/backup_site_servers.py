# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers that become new data directories in a chaos test: how each is backed up, and started there. No test."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import data_directory as my_directory
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.connection import Link
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.throwaway import At, Throwaway
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import data_directory, throwaway
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution
from tests.fleet import Fleet, Missing
from tests.fleet.processes import give_away, server_account
from tests.integration.pg_backrest import Kept

from .backup_places import SPREAD, Ground, filled
from .backup_sites import BEGUN, KINDS, PROVEN, SITE, SPACES, Rows, Sites
from .places import DATABASE
from .table import Broken, Field, How

MAJOR = 15  # the newest that every pgBackRest knows


class OfPostgreSQL(Sites):
    """With a tablespace, and an incremental backup."""

    engine, source, keystone = "pg site", SPREAD, data_directory.KEYSTONE
    phases: tuple[str, ...] = (*BEGUN, "filled", "checked", "started", *PROVEN)
    kinds: tuple[str, ...] = KINDS
    beside, twice, schema = (SPACES,), 2, "public"

    def asked(self, backup: Backup, ask: Callable[[Rows], list[list[int]]]) -> list[list[int]]:
        account, hba = server_account(), self._case / "hba"
        hba.write_text("local all all trust\n")
        hba.chmod(0o644)
        with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as name:
            sockets = Path(name)
            give_away(sockets)
            started = throwaway.started(
                self.place / SITE,
                int(backup.version.partition(".")[0]),
                str(self.ground.options().get("bin_dir", "")),
                {"hba_file": str(hba)},
                user=backup.about.get("superuser", "postgres"),
                owner=account and (account.uid, account.gid),
                sockets=sockets,
            )
            with started as there, throwaway.speaking(there, DATABASE) as found:
                if [list(row) for row in found.rows("SELECT id FROM public.distant")] != [[1]]:
                    raise Broken("the tablespace is not there")
                return ask(found.rows)


class OfMariaDB(Sites):
    engine, source, keystone = "maria site", "mariadb", my_directory.KEYSTONE
    phases = (*BEGUN, "folder", "loading", "preparing", "filled", "started", "comparing", *PROVEN)
    schema = DATABASE

    def asked(self, backup: Backup, ask: Callable[[Rows], list[list[int]]]) -> list[list[int]]:
        site, account = self.place / SITE, server_account()
        server = Throwaway(backup, at=At(str(site), account and (str(account.uid), str(account.gid))))
        try:
            for _second in server.start(threading.Event(), str(site / "backup-my.cnf")):
                pass
            with closing(Link(server.login, Execution())) as link:
                return ask(link.rows)
        finally:
            server.end()


class OfPgBackRest(OfPostgreSQL):
    """What pgBackRest keeps of a server, which it restores itself."""

    engine, kinds = "kept site", ("whole",)
    phases = (*BEGUN[:2], "at work", "filled", "started", *PROVEN)

    def found(self, fleet: Fleet) -> Ground:
        if shutil.which("pgbackrest") is None:
            raise Missing("pgbackrest: apt-get install pgbackrest")
        kept = Kept(fleet, MAJOR)
        kept.configure(archive_timeout=60, process_max=2)
        self.more = {"method": "pgbackrest", "pgbackrest_config": str(kept.config)}
        self.kept = (kept.repo / "backup",)
        return filled(kept.server, SPREAD)


ALL: tuple[type[Sites], ...] = (OfPostgreSQL, OfMariaDB, OfPgBackRest)
ENGINES = tuple(each.engine for each in ALL)


def field(fleet: Fleet, engine: str, how: How) -> Field:
    (found,) = (each for each in ALL if each.engine == engine)
    return found(fleet, how)
