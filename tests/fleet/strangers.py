# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions that users have and the tests do not meet each time, from Debian's suites, in the cache.

`python -m tests.fleet unpack NAME` says how to run the tests with one of them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import debian
from .cache import cache_dir, once
from .errors import FleetError
from .processes import run

ELF = b"\x7fELF"
MARIADB_WORDS = ("mariadb", "mariabackup", "mysql", "mbstream", "my_print_defaults", "resolveip")


class Stranger(NamedTuple):
    """Where a version comes from, and what it is made of."""

    suite: debian.Suite
    packages: tuple[str, ...]


OLD, NEW = debian.Suite("bullseye", older=True), debian.Suite("trixie")
COMING = debian.Suite("experimental", beside="unstable")
STRANGERS = {
    "postgresql-13": Stranger(OLD, ("postgresql-13", "patchelf")),
    "postgresql-17": Stranger(NEW, ("postgresql-17", "postgresql-17-repack", "patchelf")),
    "postgresql-19": Stranger(COMING, ("postgresql-19", "libpq5=19*", "patchelf")),
    "mariadb-10.5": Stranger(OLD, ("mariadb-server-10.5", "mariadb-backup")),
    "mariadb-11.8": Stranger(NEW, ("mariadb-server", "mariadb-client", "mariadb-backup")),
}


def unpack(name: str) -> dict[str, str]:
    """Unpack one of STRANGERS unless the cache has it; give the environment in which tests meet it instead."""
    product, _dash, major = name.partition("-")
    stranger, build = STRANGERS[name], _postgresql if product == "postgresql" else _mariadb
    folder = once(name, _builder(name, stranger, build))
    if product == "postgresql":
        bin_dir = folder / "root/usr/lib/postgresql" / major / "bin"
        words = {"DBFLEET_POSTGRESQL": major, f"DBFLEET_PG_BIN_{major}": str(bin_dir)}
    else:
        bin_dir = folder / "bin"
        words = {"DBFLEET_MARIADBD": str(folder / "sbin/mariadbd")}
    # Client programs are looked for on PATH, servers are not.
    return {**words, "PATH": f"{bin_dir}:$PATH"}


def _builder(name: str, stranger: Stranger, build: Callable[[debian.Unpacked], None]) -> Callable[[Path], None]:
    def made(target: Path) -> None:
        build(debian.unpack(target, cache_dir() / name, stranger.suite, stranger.packages))

    return made


def _postgresql(where: debian.Unpacked) -> None:
    """The programs themselves name their loader and libraries: started through a loader, they would be called after it.

    They look for each other, and for what lies below share, from the folder that they are in.
    """
    loader, libraries = debian.loader(where.root)
    folders = os.pathsep.join(str(each) for each in libraries)
    patch = [str(loader), "--library-path", folders, str(where.root / "usr/bin/patchelf")]
    interpreter, paths = where.later(loader), os.pathsep.join(where.later(each) for each in libraries)
    for folder in where.root.glob("usr/lib/postgresql/*/bin"):
        for program in sorted(folder.iterdir()):
            if not program.is_symlink() and _is_elf(program):
                run([*patch, "--set-interpreter", interpreter, "--force-rpath", "--set-rpath", paths, program])


def _mariadb(where: debian.Unpacked) -> None:
    """A folder that looks like an installation: bin, sbin, lib and share."""
    usr = where.root / "usr"
    bin_dir = where.target / "bin"
    bin_dir.mkdir(mode=0o755)
    (where.target / "sbin").symlink_to("bin")
    for name in ("lib", "share"):
        (where.target / name).symlink_to(f"root/usr/{name}")
    share = next((name for name in ("mariadb", "mysql") if (usr / "share" / name / "charsets").is_dir()), "")
    if not share:
        raise FleetError(f"what was unpacked in {where.target} has no character sets")
    here = where.final
    for program in (*(usr / "sbin").iterdir(), *(usr / "bin").iterdir()):
        if not program.name.startswith(MARIADB_WORDS) or not program.exists():
            continue
        path = bin_dir / program.name
        if program.resolve().name == "mariadb-install-db":
            words = (
                f'exec /bin/sh {shlex.quote(where.later(program.resolve()))} "$@" --basedir={shlex.quote(str(here))}'
            )
            path.write_text(f"#!/bin/sh\n{words}\n")
            path.chmod(0o755)
        elif _is_elf(program):
            server = program.resolve().name == "mariadbd"
            texts = [f"--lc-messages-dir={here}/share/{share}", f"--character-sets-dir={here}/share/{share}/charsets"]
            options = [f"--basedir={here}", f"--plugin-dir={here}/lib/mysql/plugin", *texts] if server else []
            debian.write_wrapper(path, program.resolve(), where, options=options, files=True)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as program:
        return program.read(len(ELF)) == ELF
