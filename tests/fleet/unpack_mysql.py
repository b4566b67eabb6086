# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Oracle's MySQL from Debian's unstable suite, in the cache. How packages are unpacked is debian.py's part."""

from __future__ import annotations

from pathlib import Path

from . import debian
from .cache import cache_dir, once
from .installations import MYSQL_UNPACKED
from .processes import run

SUITE = debian.Suite("unstable")
PACKAGES = ("mysql-server-core", "mysql-client-core")
PROGRAMS = ("mysqld", "mysql", "mysqldump", "mysqladmin", "mysqlbinlog")


def unpack() -> Path:
    """Unpack MySQL unless the cache has it, and give its folder; Missing where that cannot be (no Debian)."""
    return once(MYSQL_UNPACKED, _build)


def _build(target: Path) -> None:
    where = debian.unpack(target, cache_dir() / MYSQL_UNPACKED, SUITE, PACKAGES)
    _write_wrappers(where)
    loader, libraries = debian.loader(where.root)
    run([loader, "--library-path", libraries[0], where.root / "usr/sbin/mysqld", "--no-defaults", "--version"])


def _write_wrappers(where: debian.Unpacked) -> None:
    """Write bin/<program>: the program through its own loader, told where its files are."""
    (where.target / "bin").mkdir(mode=0o755)
    usr = where.final / "root" / "usr"
    for name in PROGRAMS:
        found = [path for path in (where.root / "usr/sbin" / name, where.root / "usr/bin" / name) if path.exists()]
        if not found:
            continue
        options = [f"--character-sets-dir={usr}/share/mysql/charsets"]
        if name == "mysqld":
            # The folder compiled in for LOAD DATA is not there, and the X protocol would want a port of its own.
            options += [
                f"--basedir={usr}",
                f"--lc-messages-dir={usr}/share/mysql",
                "--secure-file-priv=NULL",
                "--mysqlx=OFF",
            ]
        debian.write_wrapper(where.target / "bin" / name, found[0], where, options=options, files=True)
