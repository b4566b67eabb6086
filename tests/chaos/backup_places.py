# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is backed up in a chaos test: some megabytes on a server or in a file, and what no run may leave there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.fleet import Fleet, Server
from tests.fleet.processes import give_away
from tests.integration.cleanup import connection

from . import places
from .places import DATABASE

SPREAD = "tablespaces"  # PostgreSQL once more: pg_basebackup writes files itself there
TARGET = f"{DATABASE}_again"
POSTGRESQL = 18  # the first with incremental backups that is tested
# More than all the pipes of a run hold, so that programs still run wherever it is stopped.
ROWS = {"a": 9000, "b": 6000, "c": 20}
WIDTH = 400


def rows(table: str) -> list[tuple[int, str]]:
    dice = random.Random(table)
    return [(number, dice.randbytes(WIDTH // 2).hex()) for number in range(ROWS[table])]


class Ground(places.Place):
    """A place with a database that is not changed, and another one that is restored."""

    def fill_up(self) -> None:
        """Once."""
        with connection(self.where, DATABASE) as db:
            cursor = db.cursor()
            for table in ROWS:
                cursor.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, note {self.type})")
                found = rows(table)
                for at in range(0, len(found), 500):
                    values = ", ".join(f"({number}, '{text}')" for number, text in found[at : at + 500])
                    cursor.execute(f"INSERT INTO {table} VALUES {values}")
                if self.analyze:
                    cursor.execute(f"{self.analyze} {table}")

    type = "varchar(1000)"
    analyze = ""

    def backup_options(self) -> dict[str, Any]:
        return {**self.options(), "globals": False}

    def restore_options(self) -> dict[str, Any]:
        return {**{k: v for k, v in self.options().items() if k != "databases"}, "database": DATABASE, "target": TARGET}

    def restored(self) -> str:
        """What is wrong with the database that was restored; "" where it is whole, "none" where it is not there."""
        if not self.is_there(TARGET):
            return "none"
        for table, number in ROWS.items():
            asked = f"SELECT count(*), sum(length(note)) FROM {table}"
            found = self.counted(asked) if self.holds(table) else []
            if [int(each) for each in found] != [number, number * WIDTH]:
                return f"{table}: {found}"
        return ""

    def is_there(self, name: str) -> bool:
        raise NotImplementedError

    def holds(self, table: str) -> bool:
        """Whether the restored database has it."""
        raise NotImplementedError

    def counted(self, query: str) -> list[Any]:
        """Its first row, asked there."""
        with connection(self.where, TARGET) as db:
            cursor = db.cursor()
            cursor.execute(query)
            return [each or 0 for each in cursor.fetchone()]

    def forget(self) -> None:
        """What was restored is removed."""
        raise NotImplementedError

    def held(self) -> list[str]:
        """Sessions and locks of runs, of which none must be there when nothing runs."""
        return self.left()

    def scratch(self) -> list[str]:
        """Databases that were made for a while."""
        raise NotImplementedError

    def let_go(self, seconds: float, found: Callable[[], list[str]]) -> list[str]:
        """What is still there after so long."""
        until = time.monotonic() + seconds
        while (left := found()) and time.monotonic() < until:
            time.sleep(0.05)
        return left

    def recover(self) -> None:
        super().end_sessions(open_only=False)
        self.forget()


class PostgreSQL(Ground, places.PostgreSQL):
    analyze = "VACUUM ANALYZE"
    _others = " FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type IN ('client backend', 'walsender')"

    def options(self) -> dict[str, Any]:
        more = {"bin_dir": str(self.where.installation.bin_dir)} if isinstance(self.where, Server) else {}
        return {**super().options(), **more}

    def is_there(self, name: str) -> bool:
        return bool(self._asked(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"))

    def holds(self, table: str) -> bool:
        return bool(self.counted(f"SELECT count(to_regclass('{table}'))")[0])

    def forget(self) -> None:
        for name in (TARGET, *self.scratch()):
            self._asked_nothing(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def scratch(self) -> list[str]:
        return [str(row[0]) for row in self._asked("SELECT datname FROM pg_database WHERE datname LIKE 'dbfleet%'")]

    def left(self) -> list[str]:
        slots = "SELECT 'slot ' || slot_name FROM pg_replication_slots"
        return [*super().left(), *(str(row[0]) for row in self._asked(slots))]

    def _asked_nothing(self, statement: str) -> None:
        with connection(self.where, DATABASE) as db:
            db.cursor().execute(statement)


class MySQL(Ground, places.MySQL):
    analyze = "ANALYZE TABLE"

    def options(self) -> dict[str, Any]:
        """MySQL's own programs lie beside the system's."""
        own = isinstance(self.where, Server) and self.where.engine == "mysql"
        more = {"bin_dir": str(self.where.installation.bin_dir)} if own and isinstance(self.where, Server) else {}
        return {**super().options(), **more}

    def is_there(self, name: str) -> bool:
        return bool(self._asked(f"SELECT 1 FROM information_schema.schemata WHERE schema_name = '{name}'"))

    def holds(self, table: str) -> bool:
        scope = f"table_schema = '{TARGET}' AND table_name = '{table}'"
        return bool(self._asked(f"SELECT 1 FROM information_schema.tables WHERE {scope}"))

    def forget(self) -> None:
        for name in (TARGET, *self.scratch()):
            self._asked(f"DROP DATABASE IF EXISTS `{name}`")

    def scratch(self) -> list[str]:
        asked = "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE 'dbfleet%'"
        return [str(row[0]) for row in self._asked(asked)]

    def held(self) -> list[str]:
        """Also what no view shows: that nobody keeps others from committing."""
        return self.left() or self._writes()

    def _writes(self) -> list[str]:
        with connection(self.where, DATABASE) as db:
            cursor = db.cursor()
            try:
                cursor.execute("SET lock_wait_timeout = 5")
                cursor.execute("UPDATE c SET note = concat(note, '') WHERE id = 1")
                cursor.execute("CREATE TABLE IF NOT EXISTS passing (a int)")
                cursor.execute("DROP TABLE passing")
            except Exception as error:
                return [f"a lock that keeps writers out: {error}"]
        return []


class SQLite(Ground, places.SQLite):
    means = ("killed",)
    type = "text"

    @property
    def target(self) -> Path:
        return Path(str(self.where)).with_name("again.sqlite3")

    def backup_options(self) -> dict[str, Any]:
        return self.options()

    def restore_options(self) -> dict[str, Any]:
        return {"engine": "sqlite", "database": str(self.where), "target": str(self.target)}

    def is_there(self, name: str) -> bool:
        return self.target.exists()

    def holds(self, table: str) -> bool:
        return bool(self.counted(f"SELECT count(*) FROM sqlite_schema WHERE name = '{table}'")[0])

    def counted(self, query: str) -> list[Any]:
        with connection(self.target) as db:
            return [each or 0 for each in db.execute(query).fetchone()]

    def forget(self) -> None:
        self.target.unlink(missing_ok=True)

    def scratch(self) -> list[str]:
        """Files that stand beside the database."""
        folder, known = self.target.parent, {Path(str(self.where)).name, self.target.name}
        return sorted(path.name for path in folder.iterdir() if path.name not in known)


def ground(fleet: Fleet, engine: str) -> Ground:
    """The server of this name, or a file, filled. Raises Missing."""
    where: Server | Path
    if engine == "sqlite":
        where = fleet.folder("sqlite") / "chaos.sqlite3"
    elif engine in ("postgresql", SPREAD):
        where = fleet.postgresql(POSTGRESQL, settings={"log_statement": "none", "summarize_wal": "on"})
    else:
        settings = {"general_log": "OFF"}
        where = fleet.mysql(settings=settings) if engine == "mysql" else fleet.mariadb(settings=settings)
    return filled(where, engine)


def filled(where: Server | Path, engine: str) -> Ground:
    """Once."""
    kinds: Mapping[str, type[Ground]] = {"mysql": MySQL, "mariadb": MySQL, "sqlite": SQLite}
    if isinstance(where, Server):
        where.sql(f"CREATE DATABASE {DATABASE}")
    found = kinds.get(engine, PostgreSQL)(where, engine)
    found.fill_up()
    if engine == SPREAD and isinstance(where, Server):
        folder = where.home / "far"
        folder.mkdir(mode=0o700)
        give_away(folder)
        where.sql(f"CREATE TABLESPACE far LOCATION '{folder}'")
        where.sql("CREATE TABLE distant TABLESPACE far AS SELECT 1 AS id", database=DATABASE)
    return found
