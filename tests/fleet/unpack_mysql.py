# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Oracle's MySQL from Debian's unstable suite, unpacked into the cache beside the system; nothing is installed.

The programs bring the libraries and the loader of their own suite along, so they run on an older Debian. apt works in a
folder of its own here (its lists, its status, its configuration): the system's are only asked for the mirror.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from .cache import cache_dir, once, remove
from .errors import FleetError, Missing
from .installations import MYSQL_UNPACKED
from .processes import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = ("mysql-server-core", "mysql-client-core")
PROGRAMS = ("mysqld", "mysql", "mysqldump", "mysqladmin", "mysqlbinlog")
# Large, and used by scripts that are not run here.
LEFT_OUT = ("perl", "libperl", "libgdbm", "libdb5")
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
# The options that say which files of options to read must come first, so they stay before our own.
WRAPPER = """\
#!/bin/sh
case "$1" in --no-defaults|--defaults-*) first=$1; shift;; *) first=;; esac
case "$first$1" in --defaults-*--defaults-*) second=$1; shift;; *) second=;; esac
exec {loader} --argv0 {wrapper} --library-path {libraries} {program} \\
  ${{first:+"$first"}} ${{second:+"$second"}} {options} "$@"
"""


def unpack() -> Path:
    """Unpack MySQL unless the cache has it, and give its folder; Missing where that cannot be (no Debian)."""
    return once(MYSQL_UNPACKED, _build)


def _build(target: Path) -> None:
    mirror = _mirror()
    work, root = target / "apt", target / "root"
    root.mkdir(mode=0o755)
    try:
        for package in _download(work, mirror):
            run(["dpkg-deb", "-x", package, root])
    finally:
        remove(work)
    _open_to_all(root)
    _write_wrappers(target, cache_dir() / MYSQL_UNPACKED)
    loader, libraries = _loader(root)
    run([loader, "--library-path", libraries, root / "usr/sbin/mysqld", "--no-defaults", "--version"])


def _mirror() -> str:
    """Give the mirror of Debian's main archive from apt's own configuration."""
    if not KEYRING.exists():
        raise Missing("MySQL is unpacked from Debian's packages, and this is no Debian: set DBFLEET_MYSQLD to a mysqld")
    wanted = ("Identifier: Packages", "Origin: Debian", "Label: Debian")
    sites = run(["apt-get", "indextargets", "--format", "$(SITE)", *wanted]).split()
    if not sites:
        raise Missing(
            "apt knows no mirror of Debian (is `apt-get update` still to be run?), so MySQL cannot be unpacked"
        )
    return sites[0]


def _download(work: Path, mirror: str) -> list[Path]:
    """Fetch the packages and all they need; their signatures are checked by apt as ever."""
    for folder in ("none", "state/lists/partial", "cache/archives/partial", "log", "packages"):
        (work / folder).mkdir(mode=0o755, parents=True)
    # An empty status: nothing counts as installed, so the whole set of libraries is fetched.
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} unstable main\n")
    (work / "apt.conf").write_text(CONFIGURATION.format(folder=work))
    env = {"APT_CONFIG": str(work / "apt.conf")}
    _try(["apt-get", "-q", "update"], env)
    planned = run(["apt-get", "-s", "install", "--no-install-recommends", *PACKAGES], env=env)
    names = [line.split()[1] for line in planned.splitlines() if line.startswith("Inst ")]
    names = [name for name in names if not name.startswith(LEFT_OUT)]
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


def _loader(root: Path) -> tuple[Path, Path]:
    loaders = sorted(root.glob("usr/lib/*/ld-linux*.so.*"))
    if not loaders:
        raise FleetError(f"the unpacked suite has no loader in {root}/usr/lib")
    return loaders[0], loaders[0].parent


def _write_wrappers(target: Path, final: Path) -> None:
    """Write bin/<program>: the program through its own loader, told where its files are."""
    (target / "bin").mkdir(mode=0o755)
    loader, libraries = (final / path.relative_to(target) for path in _loader(target / "root"))
    usr = final / "root" / "usr"
    for name in PROGRAMS:
        found = [path for path in (usr / "sbin" / name, usr / "bin" / name) if _built(path, final, target).exists()]
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
        words = {"loader": loader, "wrapper": final / "bin" / name, "libraries": libraries, "program": found[0]}
        quoted = {key: shlex.quote(str(word)) for key, word in words.items()}
        path = target / "bin" / name
        path.write_text(WRAPPER.format(options=shlex.join(options), **quoted))
        path.chmod(0o755)


def _built(path: Path, final: Path, target: Path) -> Path:
    return target / path.relative_to(final)
