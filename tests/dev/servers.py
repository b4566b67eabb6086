# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pytest without and with servers, molecule, and the record of which servers were really tested."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.fleet.cache import fleet_base
from tests.fleet.install import services_denied

from .environment import DEV, ROOT
from .steps import Counts, Log, StepFailed, StepSkipped, counts_of, failures_of

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
TESTED = Path(os.environ.get("DBFLEET_TESTED") or DEV / "tested-servers.txt")
# With CI=true each of these has to be in the record. The patterns leave open how a line goes on: 15, 15.18, and so on.
REQUIRED = {
    "postgresql-15": r"postgresql\W*15\b",
    "postgresql-16": r"postgresql\W*16\b",
    "postgresql-18": r"postgresql\W*18\b",
    "mariadb": r"mariadb\b",
    "mysql": r"mysql\b",
    "sqlite": r"sqlite\b",
}
# What the linters call, what backups pass through, what looks at the report, and what hosts are reached by: the package
# that has it.
PROGRAMS = {
    "shellcheck": "shellcheck",
    "zstd": "zstd",
    "pigz": "pigz",
    "gpg": "gnupg",
    "age": "age",
    "pgbackrest": "pgbackrest",
    "mariadb-backup": "mariadb-backup",
    "chromium-headless-shell": "chromium-headless-shell",
    "sshd": "openssh-server",
}
NOTHING_COLLECTED = "exited with 5"
# So many tests that failed are run a second time, alone. What is broken fails again; more of them are no accident.
SECOND_CHANCES = 3


def machine(log: Log) -> None:
    """As root on Debian: install the servers, and programs beside them. Services of the packages are never started."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise StepSkipped("not root on Debian: only what is installed is tested with")
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        apt = ["apt-get", "-qy", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        log.run(*apt, "update", env=env)
        with services_denied():
            log.run(*apt, "install", "--no-install-recommends", *missing, env=env)
    _need("tests/fleet/__main__.py")
    log.run(sys.executable, "-m", "tests.fleet", "install")


def unit(log: Log, *arguments: str) -> Counts:
    """What can be tested without a server."""
    return _pytest(log, "unit", *arguments)


def integration(log: Log, *arguments: str) -> Counts:
    """What needs real servers."""
    TESTED.parent.mkdir(parents=True, exist_ok=True)
    TESTED.unlink(missing_ok=True)
    return _pytest(log, "integration", *arguments)


def _pytest(log: Log, kind: str, *arguments: str) -> Counts:
    if not any((ROOT / "tests" / kind).rglob("test_*.py")):
        raise StepFailed(f"nothing was tested: tests/{kind} holds no tests")
    report = DEV / "reports" / f"{kind}.xml"
    report.unlink(missing_ok=True)
    where = [] if any(word.startswith("tests/") for word in arguments) else [f"tests/{kind}"]
    options = [f"--junitxml={report}", "-o", f"cache_dir={DEV}/pytest-{kind}"]
    env = {"DBFLEET_TESTED": str(TESTED)}
    scratch = ""
    if not arguments:
        # Beside the servers' files: in memory where there is room. Files that are flushed again and again would wait
        # for a disk that others are busy with, too.
        scratch = tempfile.mkdtemp(prefix=f"tests-{kind}-", dir=fleet_base())
        options += [f"--basetemp={scratch}", "-o", "tmp_path_retention_policy=failed"]
        # All cases on all servers take twice as long: tests/integration/matrix.py says which meets which.
        env["DBFLEET_MATRIX"] = os.environ.get("DBFLEET_MATRIX", "turns")
        options += [f"--numprocesses={_workers() if kind == 'integration' else 2}", "--dist=worksteal"]
    try:
        log.run(sys.executable, "-m", "pytest", *options, *where, *arguments, env=env)
    except StepFailed as failed:
        if NOTHING_COLLECTED in str(failed):
            raise StepFailed("nothing was tested: pytest collected no tests") from failed
        counts = counts_of(report)
        if not arguments and 0 < counts.failed <= SECOND_CHANCES and _passes_alone(log, kind, options, env):
            unsteady = ", ".join(failures_of(report))
            log.note = f"unsteady, passed when run alone: {unsteady}"
            return counts._replace(passed=counts.passed + counts.failed, failed=0)
        # Also a pytest that was killed, or could not start, is a failure.
        raise StepFailed(str(failed), counts._replace(failed=max(1, counts.failed))) from failed
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    return counts_of(report)


def _passes_alone(log: Log, kind: str, options: Sequence[str], env: Mapping[str, str]) -> bool:
    """Runs what failed once more, one after the other: does all of it pass?

    Tests that stop, kill and race real servers on a machine that others use, too, sometimes lose. One that fails twice
    fails the run; one that fails once is named at the end of it, since there is something to be found out.
    """
    report = DEV / "reports" / f"{kind}-again.xml"
    report.unlink(missing_ok=True)
    kept = [word for word in options if not word.startswith(("--junitxml=", "--numprocesses=", "--dist="))]
    again = ["--last-failed", "--last-failed-no-failures=none", f"--junitxml={report}"]
    log.say("once more, alone:")
    try:
        log.run(sys.executable, "-m", "pytest", *kept, *again, f"tests/{kind}", env=env)
    except StepFailed:
        return False
    counts = counts_of(report)
    return counts.passed > 0 and counts.failed == 0


def _workers() -> int:
    """Two more than processors: a third of it is waiting, for locks and for servers; as far as there is memory.

    Each worker has servers of its own, whose files lie in memory, too: three gigabytes at the end.
    """
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError):
        # What is free, and what the system would give back.
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        memory = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), memory)
    return max(2, min((os.cpu_count() or 1) + 2, memory // (3 * 1024**3)))


def molecule(log: Log) -> None:
    """The scenario that users of the roles would start from."""
    _need("molecule/default/molecule.yml")
    log.run("molecule", "test", "--scenario-name", "default", env={"ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1"})


def _need(name: str) -> None:
    if not (ROOT / name).is_file():
        if IN_CI:
            raise StepFailed(f"{name} is missing")
        raise StepSkipped(f"{name} is missing")


def tested_servers() -> list[str]:
    """The server versions that tests ran against, as the tests wrote them down."""
    if not TESTED.is_file():
        return []
    return sorted({line.strip() for line in TESTED.read_text(encoding="utf-8").splitlines() if line.strip()})


def missing_servers() -> list[str]:
    """The servers that have to be tested and were not."""
    lines = tested_servers()
    return [name for name, like in REQUIRED.items() if not any(re.match(like, line, re.IGNORECASE) for line in lines)]
