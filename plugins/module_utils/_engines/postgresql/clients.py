# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client programs: where those of a fitting version are, and how they connect. What they are to do is elsewhere."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import typing as t
from pathlib import Path
from types import MappingProxyType

from ..._errors import MissingMeans, Refused
from ..._tuples import NamedTuple
from .connection import Connector, Kind
from .names import conninfo_value, option_value

PACKAGE = "postgresql-client-%s (Debian), postgresql%s (RPM)"
# Where Debian, the RPMs of the PostgreSQL project, and a build of one's own put them: often outside PATH.
FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
)
# Debian's wrapper picks a version by the host's own clusters: never what is wanted here.
WRAPPER = "pg_wrapper"
PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
# What pg_dump and pg_restore take from the database, and do not set: bytes are written in two ways, and with
# array_nulls off an element that is NULL is read as the text "NULL".
AS_DUMPED = "-c bytea_output=hex -c array_nulls=on"
# What libpq would set in the session after all options.
BENDING = ("PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGGEQO")
# libpq's keywords and the variables that stand for them, for a program whose command line others can read.
VARIABLES = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "krbsrvname": "PGKRBSRVNAME",
    "passfile": "PGPASSFILE",
    "requirepeer": "PGREQUIREPEER",
    "require_auth": "PGREQUIREAUTH",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "hostaddr": "PGHOSTADDR",
    "service": "PGSERVICE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


class Client(NamedTuple):
    """One program of one version."""

    path: str
    major: int
    version: str  # "pg_dump 16.14"


@functools.lru_cache(maxsize=64)
def _asked(path: str) -> Client | None:
    from ..._process import Program

    with contextlib.suppress(MissingMeans, OSError):
        said = Program([path, "--version"], env={"LC_ALL": "C"}).wait(20)
        version = re.match(r"(\S+) \(PostgreSQL\) ((\d+)\S*)", said.out) if said else None
        if version:
            return Client(path, int(version.group(3)), f"{version.group(1)} {version.group(2)}")
    return None


def clients(name: str, bin_dir: str = "") -> list[Client]:
    """The programs of this name on this host: in `bin_dir` where given, else on PATH, then in the usual places."""
    folders = [bin_dir] if bin_dir else os.environ.get("PATH", os.defpath).split(os.pathsep)
    folders += [] if bin_dir else sorted(folder for pattern in FOLDERS for folder in glob.glob(pattern))
    paths = (os.path.join(folder, name) for folder in dict.fromkeys(folders) if folder)
    there = [p for p in paths if os.access(p, os.X_OK) and os.path.basename(os.path.realpath(p)) != WRAPPER]
    return [client for client in map(_asked, there) if client]


def client(name: str, major: int, bin_dir: str = "") -> Client:
    """Of the server's major version, else of the next newer one. Raises MissingMeans, Refused for older ones."""
    found = clients(name, bin_dir)
    cure = f"Install {PACKAGE % (major, major)} on the host where the module runs"
    cure += f", or correct bin_dir {bin_dir}" if bin_dir else ", or name its folder in bin_dir"
    if not found:
        raise MissingMeans(f"the program {name} is not there", cure=cure)
    fitting = [each for each in found if each.major >= major]
    if not fitting:
        newest = max(found, key=lambda each: each.major)
        raise Refused(f"{newest.path} ({newest.version}) is older than the server's version {major}", cure=cure)
    return min(fitting, key=lambda each: each.major)


def target(connector: Connector, database: str, *, plain: bool = False) -> list[str]:
    """Where to connect to, for a command line: no secret in it, and no prompt."""
    keywords = connector.login.keywords
    words = ["--no-password"]
    for option, keyword in (("--host", "host"), ("--port", "port"), ("--username", "user")):
        words += [f"{option}={keywords[keyword]}"] if keyword in keywords else []
    # A name with "=" in it would be taken for a whole connection string, where programs take one.
    plain = plain or PLAIN.fullmatch(database) is not None
    return [*words, f"--dbname={database if plain else 'dbname=' + conninfo_value(database)}"]


@contextlib.contextmanager
def private_folder(where: str | None = None) -> t.Iterator[Path]:
    """Mode 0700; gone at the end, or when the next one is made."""
    from ..._files import private

    with private.folder(where) as folder:
        yield Path(folder)


def environment(
    connector: Connector,
    folder: Path,
    kind: Kind,
    application: str,
    about: t.Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The caller's, with our connection's options; the password in a file that nobody else can read.

    `about`: of what database a dump is, or is to be. The program speaks its encoding, and writes and reads amounts of
    money as they are written there, whatever the caller's environment, the role and the database say.
    """
    login = connector.login
    env = {**os.environ, "LC_ALL": "C", "PGAPPNAME": application}
    # The programs set their own, short waits for locks.
    env["PGOPTIONS"] = f"{connector.options(kind)} {AS_DUMPED}"
    if about.get("monetary"):
        env["PGOPTIONS"] += f" -c lc_monetary={option_value(about['monetary'])}"
    for name in BENDING:
        env.pop(name, None)
    if about.get("encoding"):
        env["PGCLIENTENCODING"] = about["encoding"]
    env.update({name: str(login.keywords[key]) for key, name in VARIABLES.items() if key in login.keywords})
    if login.password:
        path = folder / "pgpass"
        secret = login.password.replace("\\", "\\\\").replace(":", "\\:")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as passfile:
            passfile.write(f"*:*:*:*:{secret}\n")
        env.pop("PGPASSWORD", None)
        env["PGPASSFILE"] = str(path)
    return env
