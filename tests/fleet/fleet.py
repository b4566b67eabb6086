# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of throwaway servers in one folder: making them, and leaving nothing behind. No product's details."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self, TypeVar

from . import installations, tls
from .cache import fleet_base, remove
from .mysql import MariaDB, MySQL
from .pgbouncer import PgBouncer
from .postgresql import PostgreSQL, Standby
from .processes import born
from .server import Server, end_recorded

OWNER = "fleet.json"
# A folder without a word about its owner is being made by someone, unless it is older than this (seconds).
UNOWNED_FOR = 600
Settings = Mapping[str, str | None]
AnyServer = TypeVar("AnyServer", bound=Server)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. Handled like Ctrl-C, so that `with` blocks and pytest's fixtures clean up."""


class Fleet:
    """Real servers on loopback, stopped and removed at the end of the `with` block.

    `keep` leaves servers running and files in place for a closer look; `python -m tests.fleet stop FOLDER` ends that.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.servers: list[Server] = []
        self._password = secrets.token_urlsafe(18)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._certificates: tls.Certificates | None = None
        self._closed = False
        self._handles_sigterm = False
        base = fleet_base()
        sweep(base)
        # Unix sockets lie below, and their paths may have 107 bytes.
        self.path = Path(tempfile.mkdtemp(prefix=f"dbfleet-{os.geteuid()}-", dir=base))
        self.path.chmod(0o755)
        owner = {"pid": self._pid, "born": born(self._pid), "namespace": _namespace(), "keep": keep}
        (self.path / OWNER).write_text(json.dumps(owner))
        atexit.register(self.close)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)
            self._handles_sigterm = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop all servers and remove all files. A forked child does nothing here: they are its parent's."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self.keep:
            print(f"kept: {self.path} (end it with: python -m tests.fleet stop {self.path})")
            return
        for server in self.servers:
            server.drop()
        for server in self.servers:
            server.dropped()
        _discard(self.path)
        if self._handles_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def folder(self, name: str) -> Path:
        """Make a folder that belongs to the caller."""
        path = self.path / name
        path.mkdir(mode=0o755)
        return path

    def postgresql(
        self, major: int, *, settings: Settings | None = None, tls: bool = False, name: str | None = None
    ) -> PostgreSQL:
        """Start a PostgreSQL server; `settings` override the fleet's own, None leaves one to the server's default."""
        installation = installations.postgresql(major)
        certificates = self._tls() if tls else None
        name, home = self._home(name or f"pg{major}")
        server = PostgreSQL(
            name=name,
            home=home,
            installation=installation,
            password=self._password,
            settings=settings,
            tls=certificates,
        )
        return self._started(server, server.create)

    def postgresql_standby(
        self, primary: PostgreSQL, *, settings: Settings | None = None, name: str | None = None
    ) -> Standby:
        """Start a hot standby that streams from `primary`."""
        name, home = self._home(name or f"{primary.name}-standby")
        server = Standby(primary, name=name, home=home, settings=settings)
        return self._started(server, server.create)

    def pgbouncer(self, upstream: PostgreSQL, *, pool_mode: str = "transaction", name: str | None = None) -> PgBouncer:
        """Start a PgBouncer in front of a PostgreSQL server."""
        name, home = self._home(name or f"{upstream.name}-pgbouncer")
        server = PgBouncer(upstream, name=name, home=home, pool_mode=pool_mode)
        return self._started(server, server.create)

    def mysql(self, *, settings: Settings | None = None, tls: bool = False, name: str | None = None) -> MySQL:
        """Start a MySQL server; a setting of None is left to the server's default, one of "" is a bare option."""
        installation = installations.mysql()
        certificates = self._tls() if tls else None
        name, home = self._home(name or "mysql")
        server = MySQL(
            name=name,
            home=home,
            installation=installation,
            password=self._password,
            settings=settings,
            tls=certificates,
        )
        return self._started(server, server.create)

    def mariadb(self, *, settings: Settings | None = None, tls: bool = False, name: str | None = None) -> MariaDB:
        """Start a MariaDB server; settings as for `mysql()`."""
        installation = installations.mariadb()
        certificates = self._tls() if tls else None
        name, home = self._home(name or "mariadb")
        server = MariaDB(
            name=name,
            home=home,
            installation=installation,
            password=self._password,
            settings=settings,
            tls=certificates,
        )
        return self._started(server, server.create)

    def mysql_replica(self, primary: MySQL, *, settings: Settings | None = None, name: str | None = None) -> MySQL:
        """Start a MySQL server that replicates all of `primary`, whose binary log must be on; it is read-only."""
        replica = self.mysql(settings=_replica_settings(settings), name=name or f"{primary.name}-replica")
        replica.follow(primary)
        replica.mark_log()
        return replica

    def mariadb_replica(
        self, primary: MariaDB, *, settings: Settings | None = None, name: str | None = None
    ) -> MariaDB:
        """Start a MariaDB server that replicates all of `primary`, whose binary log must be on; it is read-only."""
        replica = self.mariadb(settings=_replica_settings(settings), name=name or f"{primary.name}-replica")
        replica.follow(primary)
        replica.mark_log()
        return replica

    def _started(self, server: AnyServer, create: Callable[[], None]) -> AnyServer:
        # Known before its start, so that what a failed start left running is ended, too.
        with self._lock:
            self.servers.append(server)
        create()
        return server

    def _home(self, name: str) -> tuple[str, Path]:
        """Make a server's folder; a name that is taken gets a number."""
        number = 1
        while True:
            tried = name if number == 1 else f"{name}-{number}"
            try:
                (self.path / tried).mkdir(mode=0o755)
            except FileExistsError:
                number += 1
            else:
                return tried, self.path / tried

    def _tls(self) -> tls.Certificates:
        with self._lock:
            if self._certificates is None:
                self._certificates = tls.create(self.path / "tls")
            return self._certificates


def _replica_settings(settings: Settings | None) -> Settings:
    return {"read_only": "ON", "report_host": "127.0.0.1", **(settings or {})}


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    # Once: the clean-up that this begins must not be cut short by a second signal.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _namespace() -> str:
    """Name the pid namespace: a container that shares our folder counts its own pids."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def end(folder: Path) -> None:
    """Stop the servers of a fleet that its own process left behind, and remove its files."""
    for record in folder.glob("*/server.json"):
        end_recorded(record.parent)
    _discard(folder)


def _discard(folder: Path) -> None:
    """Remove a fleet's files, and last the word about its owner: who is killed meanwhile leaves what sweep() finds."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            remove(path)
    remove(folder)


def sweep(base: Path) -> None:
    """End fleets whose process is gone without having done so (it was killed hard)."""
    for folder in base.glob(f"dbfleet-{os.geteuid()}-*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            owner = json.loads((folder / OWNER).read_text())
            stale = (
                not owner["keep"] and owner["namespace"] == _namespace() and born(int(owner["pid"])) != owner["born"]
            )
        except FileNotFoundError:
            # Only an empty one: what is in any other folder of such a name is not ours.
            if _age(folder) > UNOWNED_FOR:
                with suppress(OSError):
                    folder.rmdir()
            continue
        except (OSError, ValueError, KeyError):
            continue
        if stale:
            end(folder)


def _age(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:
        return 0.0
