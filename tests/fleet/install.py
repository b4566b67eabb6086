# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing the servers to a Debian machine, without starting the packages' own services."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FleetError, Missing
from .installations import mysql
from .processes import run
from .unpack_mysql import unpack

# What shows that a package is there, without asking the package manager.
PACKAGES = {
    "postgresql-15": "/usr/lib/postgresql/15/bin/postgres",
    "postgresql-contrib": "/usr/share/postgresql/15/extension/pgstattuple.control",
    "postgresql-15-repack": "/usr/lib/postgresql/15/bin/pg_repack",
    "mariadb-server": "/usr/sbin/mariadbd",
    "pgbouncer": "/usr/sbin/pgbouncer",
    "openssl": "/usr/bin/openssl",
    "locales": "/usr/share/i18n/locales/fr_CA",
}
POLICY = Path("/usr/sbin/policy-rc.d")
DENIED = 101
ATTEMPTS = 4


def install() -> list[str]:
    """Install what is missing, as root on Debian; give what is still missing and why (nothing, as a rule)."""
    packages = [package for package, path in PACKAGES.items() if not Path(path).exists()]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return [*(f"package {package} (installed only as root on Debian)" for package in packages), *_unpacked()]
    problems = []
    try:
        if packages:
            _apt_update()
            with services_denied():
                _apt("install", "--yes", "--no-install-recommends", *packages)
    except FleetError as error:
        problems.append(str(error))
    return [*problems, *_unpacked()]


def _unpacked() -> list[str]:
    """Have a MySQL; it needs neither root nor the package manager's state."""
    try:
        mysql()
    except Missing:
        try:
            unpack()
        except FleetError as error:
            return [f"MySQL: {error}"]
        mysql.cache_clear()
    return []


def _apt_update() -> None:
    """Read the package lists again; mirrors fail now and then."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _apt("update")
        except FleetError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(3 * attempt)
        else:
            return


def _apt(*words: str) -> None:
    # Another process may be installing something: wait for it.
    patient = ("-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3")
    run(["apt-get", "-q", *patient, *words], env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=1200)


@contextmanager
def services_denied() -> Iterator[None]:
    """Let no package start its own service meanwhile.

    Debian asks /usr/sbin/policy-rc.d. Many images have one that denies everything already; else ours stands there for
    the time of the installation. One that allows is kept aside and put back.
    """
    if _denies():
        yield
        return
    aside = POLICY.with_name(f"{POLICY.name}.dbfleet-{os.getpid()}")
    was_there = POLICY.exists() or POLICY.is_symlink()
    if was_there:
        POLICY.rename(aside)
    try:
        POLICY.write_text(f"#!/bin/sh\n# Temporary: dbfleet's tests are installing servers.\nexit {DENIED}\n")
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink(missing_ok=True)
        if was_there:
            aside.rename(POLICY)


def _denies() -> bool:
    """Ask the policy in place, as Debian's packages would."""
    try:
        if not POLICY.stat().st_mode & stat.S_IXUSR:
            return False
        return subprocess.run([POLICY, "mariadb", "start"], check=False, capture_output=True).returncode == DENIED
    except OSError:
        return False
