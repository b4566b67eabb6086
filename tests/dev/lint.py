# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The linters: style, types, YAML, Ansible's own rules, licences, changelog fragments."""

from __future__ import annotations

import shutil

from .environment import ROOT
from .steps import Log, StepSkipped

PLUGINS = "ansible_collections.dbfleet.maintenance.plugins"


def ruff(log: Log) -> None:
    """Rules, and the complexity of functions."""
    log.run("ruff", "check", "--no-cache", "--output-format", "concise", ".")


def ruff_format(log: Log) -> None:
    """One way to lay code out."""
    log.run("ruff", "format", "--no-cache", "--check", "--diff", ".")


def mypy(log: Log) -> None:
    """Types, strictly, of the collection and of its tests."""
    packages = ["--package", "tests"]
    if any((ROOT / "plugins").rglob("*.py")):
        packages += ["--package", PLUGINS]
    log.run("mypy", *packages)


def shellcheck(log: Log) -> None:
    """The shell scripts that ansible-test does not recognise: their names have no ending."""
    if shutil.which("shellcheck") is None:
        raise StepSkipped("shellcheck is not installed")
    log.run("shellcheck", "dev", ".ci/run")


def yamllint(log: Log) -> None:
    """YAML, wherever it lies."""
    log.run("yamllint", "--strict", ".")


def ansible_lint(log: Log) -> None:
    """Profile production; no rule is skipped."""
    log.run("ansible-lint", "--offline", "--strict", "--nocolor")


def reuse(log: Log) -> None:
    """Every file says whose it is and under which licence."""
    log.run("reuse", "lint", "--lines")


def changelog(log: Log) -> None:
    """Fragments that antsibull-changelog can make a changelog of."""
    log.run("antsibull-changelog", "lint")
