# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client programs: where those that fit the server are, and how they connect. What they are to do is elsewhere."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import typing as t

from ..._errors import MissingMeans, Refused
from ..._records import Server
from ..._tuples import NamedTuple
from .capabilities import MARIADB, MYSQL

# A file that holds the secret, by a path that is the same in every run: the programs are started in its folder.
LOGIN_FILE = "login.cnf"
# Where servers and clients lie, though PATH of a plain user or of cron may not say so.
FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/local/mysql/bin", "/usr/libexec")
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "dump": {MARIADB: ("mariadb-dump", "mysqldump"), MYSQL: ("mysqldump",)},
    "client": {MARIADB: ("mariadb", "mysql"), MYSQL: ("mysql",)},
    "server": {MARIADB: ("mariadbd", "mysqld"), MYSQL: ("mysqld",)},
    "hot": {MARIADB: ("mariadb-backup", "mariabackup")},
}
PACKAGES = {
    MARIADB: {"server": "mariadb-server-core", "hot": "mariadb-backup"},
    MYSQL: {"server": "mysql-server-core (or MySQL's own mysql-community-server-core)"},
}
CLIENT_PACKAGES = {MARIADB: "mariadb-client", MYSQL: "mysql-client-core (or MySQL's own mysql-community-client)"}
# `mysqldump  Ver 9.7.4 for Linux`, `Ver 10.19 Distrib 10.11.19-MariaDB`, `from 11.8.9-MariaDB, client 10.19`,
# `mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu`
VERSION = re.compile(r"(?:Distrib|from|Ver|MariaDB server) (\d+)\.(\d+)(?:\.(\d+))?(?=[-, )\s])")
SSL_MODES = {"disable": "DISABLED", "prefer": "PREFERRED", "verify-ca": "VERIFY_CA", "verify-full": "VERIFY_IDENTITY"}


class Client(NamedTuple):
    """A program of one version."""

    path: str
    name: str  # mariadb-dump
    flavour: str
    number: tuple[int, ...]

    @property
    def title(self) -> str:
        return f"{self.name} {'.'.join(str(n) for n in self.number)}"


@functools.lru_cache(maxsize=64)
def _asked(path: str) -> Client | None:
    from ..._process import Program

    with contextlib.suppress(MissingMeans, OSError):
        done = Program([path, "--version"], env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")}).wait(20)
        found = done and (VERSION.findall(done.out) or VERSION.findall(done.err))
        if done and found:
            # The last one: a distribution's version stands behind the program's own.
            number = tuple(int(part or 0) for part in found[-1 if "Distrib" in done.out else 0])
            flavour = MARIADB if MARIADB in (done.out + done.err).lower() else MYSQL
            return Client(path, os.path.basename(path), flavour, number)
    return None


def every(what: str, flavour: str, bin_dir: str = "") -> list[Client]:
    """The programs of this kind on this host: in `bin_dir` where given, else on PATH, then in the usual places."""
    folders = (bin_dir,) if bin_dir else (*os.environ.get("PATH", os.defpath).split(os.pathsep), *FOLDERS)
    names = NAMES[what][flavour]
    paths = (os.path.join(folder, name) for name in names for folder in dict.fromkeys(folders) if folder)
    found = [_asked(path) for path in paths if os.access(path, os.X_OK) and os.path.isfile(path)]
    return [client for client in found if client and client.flavour == flavour]


def client(what: str, flavour: str, number: tuple[int, ...], bin_dir: str = "") -> Client:
    """Of the server's series (10.11, 9.7), else of a newer one. Raises MissingMeans, and Refused for older ones.

    MySQL and MariaDB have gone apart: a program of one of them is not taken for a server of the other.
    """
    found = every(what, flavour, bin_dir)
    name = NAMES[what][flavour][0]
    package = PACKAGES[flavour].get(what, CLIENT_PACKAGES[flavour])
    cure = f"Install {package}, of version {number[0]}.{number[1]} or newer, on the host where the module runs"
    cure += f", or correct bin_dir {bin_dir}" if bin_dir else ", or name its folder in bin_dir"
    if not found:
        raise MissingMeans(f"the program {name} of {flavour} is not there", cure=cure)
    fitting = [each for each in found if each.number[:2] >= number[:2]]
    if not fitting:
        newest = max(found, key=lambda each: each.number)
        series = f"{number[0]}.{number[1]}"
        raise Refused(f"{newest.path} ({newest.title}) is older than the server's version {series}", cure=cure)
    return min(fitting, key=lambda each: each.number[:2])


def of(server: Server, what: str) -> Client:
    """As client(), for this server."""
    return client(what, server.engine, server.number, str(server.settings.get("bin_dir") or ""))


def private_folder(where: str | None = None) -> t.ContextManager[str]:
    """Mode 0700; gone at the end, or when the next one is made."""
    from ..._files import private

    return private.folder(where)


def environment(folder: str = "") -> dict[str, str]:
    """The caller's, without what would choose another server, account or behaviour than our own options do."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MYSQL_", "MARIADB_"))}
    # ~/.mylogin.cnf is read even where --defaults-file says that nothing else is, and the last word is its own.
    return {**env, "LC_ALL": "C", "MYSQL_TEST_LOGIN_FILE": os.path.join(folder, "none")}


def write_login(folder: str, login: t.Any, program: Client, *, encrypted: bool) -> None:
    """The program's own file of options, mode 0600: with --defaults-file it reads no other, whose settings bend it.

    `encrypted`: whether our own session is: what `ssl_mode: prefer` came to.
    """
    arguments = login.arguments
    words = {"user": arguments.get("user") or "", "password": arguments.get("password") or ""}
    if arguments.get("unix_socket"):
        words.update(protocol="socket", socket=str(arguments["unix_socket"]))
    else:
        words.update(protocol="tcp", host=str(arguments.get("host") or "localhost"), port=str(arguments["port"]))
    words = {key: value for key, value in words.items() if value}
    words.update(_tls(login.tls, program, encrypted=encrypted))
    lines = ["[client]", *(f"{key}={_value(str(value))}" for key, value in words.items()), ""]
    path = os.path.join(folder, LOGIN_FILE)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join(lines))


def role_of(link: t.Any) -> str:
    """The role that our session has taken on, and which a program may not be able to.

    mariadb-dump and mariadb-backup know no such option (10.11): without a role's privileges they would leave out what
    they do not see, triggers and events, and say nothing. Raises Refused where the login does not have it by itself.
    """
    role = str(link.login.role)
    if role and link.flavour.name == MARIADB:
        from .connection import Link

        with contextlib.closing(Link(link.login._replace(role=""), link.execution)) as other:
            ((own, account),) = other.rows("SELECT CURRENT_ROLE(), CURRENT_USER()")
        if own != role:
            raise Refused(
                f"MariaDB's programs take on no role, and {role} is not what the login has by itself",
                cure=f"SET DEFAULT ROLE {role} FOR {account}",
            )
    return role


def _tls(asked: t.Mapping[str, str], program: Client, *, encrypted: bool) -> dict[str, str]:
    mode = asked.get("mode", "prefer")
    files = {f"ssl-{key}": path for key, path in asked.items() if key != "mode"}
    if mode in ("disable", "prefer", "allow"):
        mode = "require" if encrypted and mode != "disable" else "disable"
    if program.flavour == MYSQL:
        return {"ssl-mode": SSL_MODES.get(mode, "REQUIRED"), **(files if mode != "disable" else {})}
    if mode == "disable":
        return {"ssl": "0"}
    # From 11.4 on MariaDB's programs verify unless they are told not to.
    verify = {"ssl-verify-server-cert": "1" if mode == "verify-full" else "0"}
    return {"ssl": "1", **verify, **files}


def _value(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(sign, sign) for sign in text) + '"'
