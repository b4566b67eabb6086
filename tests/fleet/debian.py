# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of another of Debian's suites, unpacked into a folder beside the system. Nothing is installed here.

apt works in a folder of its own (its lists, its status, its configuration): the system's are only asked for the mirror.
Programs of a newer suite run through the loader and the libraries of that suite, those of an older one through the
system's: libraries of the C language understand programs that are older than they are.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .cache import remove
from .errors import FleetError, Missing
from .processes import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Large, and used by scripts that are not run here.
LEFT_OUT = ("perl", "libperl", "libgdbm", "libdb5", "libllvm", "systemd", "udev", "init", "galera", "rsync")
CONFIGURATION = """\
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "-";
Dir::Etc::Preferences "-";
Dir::Etc::PreferencesParts "{folder}/none";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Log "{folder}/log";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
"""
WRAPPER = """\
#!/bin/sh
{before}exec {loader} --argv0 {wrapper} --library-path {libraries} {program} \\
  {options}"$@"
"""
# The options that say which files of options to read must come first, so they stay before others.
FILES_OF_OPTIONS = """\
case "$1" in --no-defaults|--defaults-*) first=$1; shift;; *) first=;; esac
case "$first$1" in --defaults-*--defaults-*) second=$1; shift;; *) second=;; esac
"""


class Suite(NamedTuple):
    """One of Debian's suites; `beside` is what it is not complete without, `older` than the system's own."""

    name: str
    beside: str = ""
    older: bool = False


class Unpacked(NamedTuple):
    """Packages in `root`, below `target`, which will be renamed to `final` when all of it is there."""

    target: Path
    final: Path

    @property
    def root(self) -> Path:
        return self.target / "root"

    def later(self, path: Path) -> str:
        """Give a path as it will be."""
        ours = path.is_relative_to(self.target)
        return str(self.final / path.relative_to(self.target) if ours else path)


def unpack(target: Path, final: Path, suite: Suite, packages: Sequence[str]) -> Unpacked:
    """Fetch packages and all they need.

    Signatures are checked by apt as ever. Raises Missing where this is no Debian, FleetError when something fails.
    """
    mirror = _mirror()
    work, root = target / "apt", target / "root"
    root.mkdir(mode=0o755)
    try:
        for package in _download(work, mirror, suite, packages):
            run(["dpkg-deb", "-x", package, root])
    finally:
        remove(work)
    _open_to_all(root)
    return Unpacked(target, final)


def _mirror() -> str:
    """Give the mirror of Debian's main archive from apt's own configuration."""
    if not KEYRING.exists():
        raise Missing("servers are unpacked from Debian's packages, and this is no Debian")
    wanted = ("Identifier: Packages", "Origin: Debian", "Label: Debian")
    sites = run(["apt-get", "indextargets", "--format", "$(SITE)", *wanted]).split()
    if not sites:
        raise Missing("apt knows no mirror of Debian (is `apt-get update` still to be run?), so nothing is unpacked")
    return sites[0]


def _download(work: Path, mirror: str, suite: Suite, packages: Sequence[str]) -> list[Path]:
    for folder in ("none", "state/lists/partial", "cache/archives/partial", "log", "packages"):
        (work / folder).mkdir(mode=0o755, parents=True)
    # An empty status: nothing counts as installed, so the whole set of libraries is fetched.
    (work / "status").touch()
    lines = [f"deb [signed-by={KEYRING}] {mirror} {name} main\n" for name in (suite.name, suite.beside) if name]
    (work / "sources.list").write_text("".join(lines))
    (work / "apt.conf").write_text(CONFIGURATION.format(folder=work))
    env = {"APT_CONFIG": str(work / "apt.conf")}
    _try(["apt-get", "-q", "update"], env)
    planned = run(["apt-get", "-s", "install", "--no-install-recommends", *packages], env=env)
    # A line says what is to be installed: its name, then its version in parentheses with the suite.
    wanted = [line.split()[1:3] for line in planned.splitlines() if line.startswith("Inst ")]
    left_out = (*LEFT_OUT, "libc6") if suite.older else LEFT_OUT
    names = [f"{name}={version.strip('(')}" for name, version in wanted if not name.startswith(left_out)]
    # apt-get download writes into its working directory.
    script = f'cd {shlex.quote(str(work / "packages"))} && exec apt-get -q download "$@"'
    _try(["sh", "-c", script, "sh", *names], env)
    return sorted((work / "packages").glob("*.deb"))


def _try(argv: list[str], env: dict[str, str], *, attempts: int = 4) -> None:
    for attempt in range(1, attempts + 1):
        try:
            run(argv, env=env)
        except FleetError:
            if attempt == attempts:
                raise
            time.sleep(2 * attempt)
        else:
            return


def _open_to_all(root: Path) -> None:
    """Let the servers' user read it all, whatever the caller's umask."""
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o444))


def loader(root: Path) -> tuple[Path, list[Path]]:
    """Give what starts the unpacked programs, and the folders with their libraries."""
    found = [*sorted(root.glob("usr/lib/*/ld-linux*.so.*")), *sorted(Path("/").glob("lib*/ld-linux*.so.*"))]
    if not found:
        raise FleetError(f"neither {root} nor this system has a loader for programs")
    triplets = {path.name for path in root.glob("usr/lib/*-linux-gnu*")}
    return found[0], [root / usr / name for name in sorted(triplets) for usr in ("usr/lib", "lib")]


def write_wrapper(
    path: Path, program: Path, where: Unpacked, *, options: Sequence[str] = (), files: bool = False
) -> None:
    """Write a program at `path` that starts `program` with `options` before the caller's own.

    Options that name `files` of options stay in front of them.
    """
    with_loader, libraries = loader(where.root)
    ours = shlex.join(options)
    first = '${first:+"$first"} ${second:+"$second"} ' if files else ""
    path.write_text(
        WRAPPER.format(
            before=FILES_OF_OPTIONS if files else "",
            loader=shlex.quote(where.later(with_loader)),
            wrapper=shlex.quote(where.later(path)),
            libraries=shlex.quote(os.pathsep.join(where.later(folder) for folder in libraries)),
            program=shlex.quote(where.later(program)),
            options=first + (f"{ours} " if ours else ""),
        )
    )
    path.chmod(0o755)
