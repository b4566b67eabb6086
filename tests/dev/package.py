# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tarball: built, looked into, installed, its documentation read back, and judged as Galaxy would."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from .environment import DEV, ROOT, ensure, only_one, python_of
from .sanity import refresh_copy
from .steps import Log, StepFailed

PACKAGE = DEV / "package"
INSTALLED = PACKAGE / "installed"
# What users get. Anything else at the top of the tarball was forgotten in build_ignore, or has to be added here.
SHIPPED = {
    "CHANGELOG.md",
    "CHANGELOG.rst",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "LICENSES",
    "MANIFEST.json",
    "README.md",
    "REUSE.toml",
    "changelogs",
    "docs",
    "examples",
    "meta",
    "playbooks",
    "plugins",
    "requirements.txt",
    "roles",
}
# Ansible looks for collections along PYTHONPATH too, and would find the checkout there.
FROM_TARBALL = {"ANSIBLE_COLLECTIONS_PATH": str(INSTALLED), "PYTHONPATH": ""}
IMPORTER_CONFIG = """[galaxy-importer]
RUN_ANSIBLE_TEST=False
RUN_ANSIBLE_DOC=True
CHECK_REQUIRED_TAGS=True
"""


def package(log: Log) -> None:
    """Build and install the collection and read every plugin's documentation from where it was installed."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    tarball = build(log)
    _check_contents(tarball)
    log.run("ansible-galaxy", "collection", "install", tarball, "--offline", env=FROM_TARBALL)
    for kind, folder in (("module", "modules"), ("filter", "filter")):
        _check_documentation(log, kind, _plugins(folder))
    _check_links()
    _check_documentation(log, "role", [path.name for path in sorted((ROOT / "roles").glob("*")) if path.is_dir()])


def build(log: Log) -> Path:
    """Build the tarball and return where it is."""
    with only_one("ansible-test"):
        source = refresh_copy()
        log.run("ansible-galaxy", "collection", "build", source, "--output-path", PACKAGE, "--force")
    return next(PACKAGE.glob("dbfleet-maintenance-*.tar.gz"))


def _check_contents(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    strange = sorted({name.split("/", maxsplit=1)[0] for name in names} - SHIPPED)
    if strange:
        raise StepFailed(f"the tarball holds what users do not need: {', '.join(strange)}")


def _check_links() -> None:
    """A role whose files are other roles' files has them also where it was installed."""
    found = {path: path.resolve() for path in INSTALLED.rglob("roles/policies/*/main/*.yml")}
    astray = [str(path) for path, file in found.items() if not file.is_file() or not file.is_relative_to(INSTALLED)]
    if astray or not found:
        raise StepFailed(f"links that lead nowhere: {', '.join(astray) or 'there are none'}")


def _plugins(folder: str) -> list[str]:
    found = (path.stem for path in sorted((ROOT / "plugins" / folder).glob("*.py")))
    return [name for name in found if not name.startswith("_")]


def _check_documentation(log: Log, kind: str, names: list[str]) -> None:
    """ansible-doc exits with 0 also for what it found no documentation of."""
    if not names:
        log.say(f"no {kind} yet")
        return
    full = [f"dbfleet.maintenance.{name}" for name in names]
    output = log.run("ansible-doc", "--json", "--type", kind, *full, env=FROM_TARBALL, quiet=True)
    known = json.loads(output[output.index("{") :])
    missing = [name for name in full if not known.get(name) or "error" in known[name]]
    if missing:
        raise StepFailed(f"ansible-doc finds nothing about {', '.join(missing)}")


def importer(log: Log) -> None:
    """galaxy-importer, which exits with 0 also when it printed errors."""
    ensure(["importer"])
    config = PACKAGE / "galaxy-importer.cfg"
    PACKAGE.mkdir(parents=True, exist_ok=True)
    config.write_text(IMPORTER_CONFIG)
    tarball = build(log)
    python = python_of("venv-importer")
    where = {
        "GALAXY_IMPORTER_CONFIG": str(config),
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": "",
    }
    output = log.run(python, "-m", "galaxy_importer.main", tarball, env=where, cwd=PACKAGE)
    complaints = [line for line in output.splitlines() if line.startswith(("ERROR", "WARNING"))]
    if complaints:
        raise StepFailed("galaxy-importer complains:\n" + "\n".join(complaints))
