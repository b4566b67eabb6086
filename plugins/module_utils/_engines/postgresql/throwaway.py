# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server for the time of a drill: in a private folder, reached by nobody else, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t
from pathlib import Path

from ..._errors import CannotConnect, DbFault, MissingMeans, Refused
from ..._process import Program
from .clients import client, private_folder
from .connection import Connection, Connector, Kind
from .options import Login

SUPERUSER = "dbfleet_drill"
# They outrank what ALTER SYSTEM has left in a copy of a server: nothing may go out from here, and little is needed.
SETTINGS: t.Mapping[str, str] = {
    "listen_addresses": "",
    "archive_mode": "off",
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "huge_pages": "off",
    "log_min_messages": "fatal",
    "logging_collector": "off",
    "maintenance_work_mem": "128MB",
    "max_locks_per_transaction": "1024",
    "max_logical_replication_workers": "0",  # subscriptions sleep
    "max_prepared_transactions": "100",
    "primary_conninfo": "",
    # One whose process was killed is of no use, and hangs when it is told to end while it begins anew. Measured: 18.4.
    "restart_after_crash": "off",
    "restore_command": "",
    "session_preload_libraries": "",
    "shared_buffers": "128MB",
    "shared_preload_libraries": "",
    "ssl": "off",
}
PATIENCE = 60.0  # seconds for a server to start that has nothing to recover
ENDING = 10.0  # seconds for one to end whose data is thrown away
UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL does not run as root


def unprivileged() -> tuple[int, int] | None:
    """Who the server runs as: ourselves (None), or somebody else where we are root."""
    if os.geteuid() != 0:
        return None
    import pwd

    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return found.pw_uid, found.pw_gid
    raise MissingMeans("no user is there to run a server as", cure="Create a user postgres")


def prefix(owner: tuple[int, int] | None) -> list[str]:
    """The server ends with us, however we end. Source: setpriv(1)."""
    if shutil.which("setpriv") is None:
        if owner:
            raise MissingMeans("setpriv is not there", cure="Install util-linux, or run as another user than root")
        return []
    words = ["setpriv", "--pdeathsig=QUIT"]
    return [*words, f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups"] if owner else words


@contextlib.contextmanager
def folder_of(owner: tuple[int, int] | None, needed: int) -> t.Iterator[Path]:
    """Raises Refused where it does not have room for so many bytes."""
    with private_folder() as folder:
        free = shutil.disk_usage(folder).free
        if free < needed:
            cure = "Make room there, or set TMPDIR to a folder of another file system"
            raise Refused(f"{folder.parent} has {free} bytes left, and the drill needs about {needed}", cure=cure)
        if owner:
            os.chown(folder, *owner)
        yield folder


def initdb(folder: Path, major: int, bin_dir: str, owner: tuple[int, int] | None) -> Path:
    """A fresh data directory. Raises MissingMeans, Refused."""
    tool, data = client("initdb", major, bin_dir), folder / "data"
    argv = [*prefix(owner), tool.path, f"--pgdata={data}", f"--username={SUPERUSER}", "--auth=trust", "--no-sync"]
    done = Program([*argv, "--encoding=UTF8", "--locale=C"], env=_env(folder)).wait(300)
    if done is None or done.code:
        said = " ".join(done.err.split()) if done else "it does not end"
        raise Refused(f"initdb: {said}", cure="A drill needs a server's programs, and a folder that others may enter")
    return data


def _env(folder: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**env, "LC_ALL": "C", "HOME": str(folder)}


def server_program(major: int, bin_dir: str, *, same: bool = False) -> str:
    """Its path. `same`: of no other version, for a directory that is there. Raises MissingMeans, Refused."""
    found = client("initdb", major, bin_dir)
    if same and found.major != major:
        cure = f"Install postgresql-{major}, or name the folder of its programs in bin_dir"
        raise MissingMeans(f"a server of PostgreSQL {major} is not there, only {found.version}", cure=cure)
    return os.path.join(os.path.dirname(found.path), "postgres")


@contextlib.contextmanager
def started(
    data: Path,
    major: int,
    bin_dir: str,
    settings: t.Mapping[str, str],
    *,
    patience: float = PATIENCE,
    user: str = SUPERUSER,
    owner: tuple[int, int] | None = None,
    sockets: Path | None = None,
    ending: float = ENDING,
) -> t.Iterator[Connector]:
    """The server over that directory, reached by a socket in the folder around it. Raises Refused, MissingMeans.

    `owner`: whose the directory is, where it is not the unprivileged user's. `sockets`: the folder of its socket, for
    which a long path leaves no room. `ending`: seconds for its end, which writes what the log had.
    """
    folder, postgres = sockets or data.parent, server_program(major, bin_dir)
    owner = owner or unprivileged()
    words = [f"-c{name}={value}" for name, value in {**SETTINGS, **settings}.items()]
    argv = [*prefix(owner), postgres, "-D", str(data), f"-cunix_socket_directories={folder}", "-p", "5432", *words]
    program = Program(argv, env=_env(folder))
    try:
        connector = Connector(Login({"host": str(folder), "port": 5432, "user": user}, "template1", "", "", "", ""))
        _ready(program, connector, patience)
        yield connector
    except BaseException:
        ending = min(ending, ENDING)  # what it would write is thrown away
        raise
    finally:
        program.stop(ending)


def _ready(program: Program, connector: Connector, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        done = program.wait(0.05)
        if done:
            raise Refused(f"the temporary server did not start: {' '.join(done.err.split())[-500:]}")
        try:
            connector.forget(connector.open("template1", Kind()))
        except CannotConnect as error:
            if time.monotonic() > until:
                raise Refused(f"the temporary server does not answer: {error.cause}") from None
        else:
            return


@contextlib.contextmanager
def speaking(connector: Connector, database: str) -> t.Iterator[Connection]:
    connection = connector.open(database, Kind(False, 0.0))
    try:
        yield connection
    finally:
        with contextlib.suppress(DbFault):
            connector.forget(connection)
