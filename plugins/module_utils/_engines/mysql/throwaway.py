# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that is started for a while from the binaries at hand, for a drill or a proof. Restores nothing itself."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import time
import typing as t

from ..._errors import MissingMeans, Refused, Stopped
from ..._files import durable, private
from ..._tuples import NamedTuple
from . import clients
from .capabilities import MARIADB, flavour_of
from .options import Login

if t.TYPE_CHECKING:
    import threading

    from ..._backups import Backup
    from ..._process import Program

ACCOUNTS = ("mysql", "nobody")  # as one of them it runs where we are root: the servers refuse to be root
INSTALL = ("mariadb-install-db", "mysql_install_db")
PREFIX = f"{private.PREFIX}drill-"
READY_SECONDS = 120
MEMORY = "/dev/shm"  # for MariaDB's log of definitions: it is flushed ten times for each table that is made
KEYS = 100  # numbers of keys that tables may ask for, from 1 on
ROOM_BYTES = 300 << 20  # that an empty server takes, its logs and temporary files included
# Of the backup's server: what its tables rely on, and what cannot be changed later.
KEPT = ("lower_case_table_names", "innodb_page_size", "character_set_server", "collation_server")
# Nobody will miss what a crash loses; and no event may ever fire.
SETTINGS = (
    "skip-networking",
    "skip-log-bin",
    "event-scheduler=OFF",
    "skip-name-resolve",
    "max-allowed-packet=1G",
    "innodb-buffer-pool-size=128M",
    "innodb-flush-log-at-trx-commit=0",
    "innodb-doublewrite=OFF",
    "innodb-strict-mode=OFF",
    "performance-schema=OFF",
)
# Of a server whose accounts came with its files, and which may have been a replica.
COPIED = ("skip-grant-tables", "skip-slave-start")
# Of one whose data stays: nothing is left in it that was not there, and a crash loses nothing.
STAYS = (
    "innodb-flush-log-at-trx-commit=1",
    "innodb-doublewrite=ON",
    "innodb-buffer-pool-dump-at-shutdown=OFF",
)
FLAVOUR_SETTINGS = {MARIADB: ("sync-frm=OFF",), "mysql": ("mysqlx=OFF", "secure-file-priv=NULL")}


class At(NamedTuple):
    """Data that stays when the server goes."""

    data: str  # the folder
    account: tuple[str, str] | None  # user and group that it belongs to, or their numbers; None: this user
    serves: bool = True  # a server is going to be started on it


class Throwaway:
    """A server of the backup's series in a private folder, reached by a socket there; its data there, or `at`."""

    def __init__(self, backup: Backup, bin_dir: str = "", *, at: At | None = None, where: str = "") -> None:
        """`where`: the folder that it lies in. Raises MissingMeans, Refused."""
        self._at = at
        self._program = program(backup, bin_dir) if at is None or at.serves else None
        self._kept = [f"{name.replace('_', '-')}={backup.about[name]}" for name in KEPT if backup.about.get(name)]
        self._encrypts = bool(backup.about.get("encrypted")) and backup.engine == MARIADB
        self._defaults = "--no-defaults"
        self._server: Program | None = None
        self._account = at.account if at else _account()
        place = where or _place(self._account)
        private.sweep(place)
        self._private = private.Private(place, PREFIX)
        self._folder = self._private.path
        self._memory: private.Private | None = None
        try:
            _room(self._folder, 0 if at else 2 * backup.source_bytes + ROOM_BYTES)
            if at is None and self.program.flavour == MARIADB and os.access(MEMORY, os.W_OK | os.X_OK):
                private.sweep(MEMORY)
                self._memory = private.Private(MEMORY, PREFIX)
            more = (self._memory.path,) if self._memory else ()
            for path in (*more, self._folder, *(self._path(name) for name in ("data", "tmp"))):
                os.makedirs(path, 0o700, exist_ok=True)
                if self._account:
                    shutil.chown(path, *(int(each) if each.isdigit() else each for each in self._account))
        except BaseException:
            self.end()
            raise
        # Not even the user's own option file has a say here.
        arguments: dict[str, t.Any] = {"user": "root", "password": "", "unix_socket": self._path("s"), "port": 0}
        arguments.update(connect_timeout=30, charset="utf8mb4", autocommit=True, ssl_disabled=True)
        self.login = Login(arguments, self._path("s"), False, "", {"mode": "disable"})

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    @property
    def program(self) -> clients.Client:
        """The server's. Raises MissingMeans where none was looked for."""
        if self._program is None:
            raise MissingMeans("no server is to be started there")
        return self._program

    @property
    def data(self) -> str:
        """The folder of the server's files: empty until it is started, or filled."""
        return self._at.data if self._at else self._path("data")

    @property
    def tmp(self) -> str:
        """A folder for temporary files of the server's account."""
        return self._path("tmp")

    def start(self, stop: threading.Event, prepared: str = "") -> t.Generator[None, None, None]:
        """Yields at least once a second. `prepared`: a file of settings, where all files are there already.

        Raises MissingMeans, Refused, Stopped.
        """
        if prepared:
            self._defaults = f"--defaults-file={prepared}"
        else:
            yield from self.run(self._install(), stop)
        from ..._process import Program

        files = [f"--socket={self._path('s')}", f"--pid-file={self._path('pid')}"]
        more = (*FLAVOUR_SETTINGS[self.program.flavour], *(COPIED if prepared else ()), *(STAYS if self._at else ()))
        if self._memory:
            more = (*more, f"log-ddl-recovery={self._memory.path}/ddl.log")
        settings = [f"--{setting}" for setting in (*SETTINGS, *more, *(self._keys() if self._encrypts else ()))]
        self._server = Program([*self._begin(), *settings, *files], env=clients.environment())
        until = time.monotonic() + READY_SECONDS
        while not self._answers():
            done = self._server.wait(0.2)
            if done is not None or time.monotonic() > until:
                why = " ".join(done.err.split())[-600:] if done else f"it did not answer in {READY_SECONDS} s"
                raise Refused(f"the server that was to try out the backup did not start: {why}")
            _go_on(stop)
            yield

    def _keys(self) -> list[str]:
        """Keys of its own, for tables that want to be encrypted: nothing of theirs is older than the drill."""
        path = self._path("keys")
        with open(durable.create(path), "w", encoding="ascii") as file:
            file.writelines(f"{number};{secrets.token_hex(32)}\n" for number in range(1, KEYS + 1))
        if self._account:
            shutil.chown(path, *self._account)
        return ["plugin-load-add=file_key_management", f"file-key-management-filename={path}"]

    def _answers(self) -> bool:
        """It greets whoever connects; no session is opened, since the driver leaves those that fail lying about."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(1.0)
            try:
                asked.connect(self._path("s"))
                return bool(asked.recv(1))
            except OSError:
                return False

    def _install(self) -> list[str]:
        flavour = self.program.flavour
        if flavour != MARIADB:
            return [*self._begin(), "--initialize-insecure", *(f"--{s}" for s in FLAVOUR_SETTINGS[flavour])]
        beside = os.path.dirname(self.program.path)
        near = (beside, os.path.join(os.path.dirname(beside), "bin"), os.path.join(os.path.dirname(beside), "scripts"))
        places = os.pathsep.join((*near, os.environ.get("PATH", os.defpath), *clients.FOLDERS))
        script = next((path for path in (shutil.which(name, path=places) for name in INSTALL) if path), None)
        if script is None:
            raise MissingMeans(f"the program {INSTALL[0]} is not there", cure="Install the package mariadb-server")
        own = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        return [*self.as_account(), script, *self._begin()[len(self.as_account()) + 1 :], *own]

    def _begin(self) -> list[str]:
        folders = [f"--datadir={self.data}", f"--tmpdir={self.tmp}"]
        return [
            *self.as_account(),
            self.program.path,
            self._defaults,
            *folders,
            *(f"--{each}" for each in self._kept),
        ]

    def as_account(self) -> list[str]:
        """As somebody who is not root; and the kernel ends it with us, however we end, where there is such a means."""
        words = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        if not self._account:
            return words
        if not words:
            raise MissingMeans("root starts no server, and setpriv is not there", cure="Install the package util-linux")
        user, group = self._account
        return [*words, "--reuid", user, "--regid", group, "--clear-groups"]

    def run(self, argv: t.Sequence[str], stop: threading.Event) -> t.Generator[None, None, str]:
        """A program that works on the server's files; what it said. Raises MissingMeans, Refused, Stopped."""
        from ..._process import Program

        program = Program(argv, env=clients.environment())
        done = None
        try:
            while done is None:
                done = program.wait(0.5)
                _go_on(stop)
                yield
        finally:
            if done is None:
                program.stop(0.0)
        if done.code:
            said = " ".join(f"{done.out} {done.err}".split())[-600:]
            what = os.path.basename(argv[len(self.as_account())])
            raise Refused(f"{what} could not make the data of a server: {said}")
        return done.out + done.err

    def shut_down(self, stop: threading.Event) -> t.Generator[None, None, None]:
        """The server has been told to go, and goes as it should. Raises Refused, Stopped."""
        server, until = self._server, time.monotonic() + READY_SECONDS
        while server is not None:
            done = server.wait(0.5)
            if done is not None and not done.code:
                self._server = None
                return
            if done is not None or time.monotonic() > until:
                why = " ".join(done.err.split())[-600:] if done else f"it did not go in {READY_SECONDS} s"
                raise Refused(f"the server on the restored data did not shut down: {why}")
            _go_on(stop)
            yield

    def end(self) -> None:
        """It is gone, and its files with it; never raises."""
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.stop(0.0)
        self._private.end()
        if self._memory:
            self._memory.end()


def program(backup: Backup, bin_dir: str = "") -> clients.Client:
    """The server's: servers lie elsewhere than client programs often enough. Raises MissingMeans, Refused."""
    flavour = flavour_of(backup.version, backup.engine)
    there = bin_dir if bin_dir and clients.every("server", flavour.name, bin_dir) else ""
    return clients.client("server", flavour.name, flavour.number, there)


def _account() -> tuple[str, str] | None:
    if os.geteuid() != 0:
        return None
    import grp
    import pwd

    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return name, grp.getgrgid(found.pw_gid).gr_name
    raise MissingMeans("there is no account mysql or nobody that a throwaway server could run as", cure="Add one")


def _place(account: tuple[str, str] | None) -> str:
    """A folder for temporary files that the server's account can get to."""
    every = (tempfile.gettempdir(), "/var/tmp", "/tmp")
    reached = [place for place in every if os.path.isdir(place) and (not account or _open(place))]
    return (reached or every)[0]


def _open(place: str) -> bool:
    """Everybody may pass through it and whatever it lies in."""
    path = os.path.realpath(place)
    while os.stat(path).st_mode & 0o001:
        if path == os.path.dirname(path):
            return True
        path = os.path.dirname(path)
    return False


def _room(folder: str, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Refused(
            f"a drill needs {needed:,} bytes in {os.path.dirname(folder)}, where {free:,} are free",
            cure="Make room there, or set TMPDIR to a folder with more of it",
        )


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped("stopped")
