# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The environments below .dev/: what is in them, when they are made again. Standard library only.

Each environment is a list of layers, each layer a requirements file. A stamp beside the packages remembers what was
installed, so that a run that finds everything in place costs nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT / ".dev"
COLLECTIONS = DEV / "collections"
# Of others: what the role alert sends mail with, and what sets AWX up. Without their tests.
COMPANIONS = ("awx/awx", "community/general")


class Layer(NamedTuple):
    """A requirements file and the environment that it goes into."""

    name: str
    environment: str

    @property
    def requirements(self) -> Path:
        """The file that lists what the layer holds."""
        return ROOT / "tests" / "dev" / f"requirements-{self.name}.txt"

    @property
    def stamp(self) -> Path:
        """The file that says what was installed."""
        return DEV / self.environment / f"{self.name}.stamp"


# galaxy-importer and the documentation tools ask for other versions of what the test tools need.
LAYERS = {
    "run": Layer("run", "venv"),
    "test": Layer("test", "venv"),
    "importer": Layer("importer", "venv-importer"),
    "docs": Layer("docs", "venv-docs"),
}


def python_of(environment: str) -> Path:
    """The interpreter of an environment below .dev/."""
    return DEV / environment / "bin" / "python"


def ensure(names: list[str]) -> None:
    """Make the named layers, in this order, unless they are there already."""
    DEV.mkdir(exist_ok=True)
    link_collection()
    with only_one("environment"):
        for name in names:
            layer = LAYERS[name]
            _ensure_environment(layer.environment)
            _ensure_layer(layer)
        if "test" in names:
            _ensure_companions()


def link_collection() -> None:
    """Give the checkout the path that Python, Ansible and mypy look for collections at."""
    link = COLLECTIONS / "ansible_collections" / "dbfleet" / "maintenance"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not (link.is_symlink() and link.resolve() == ROOT):
        link.unlink(missing_ok=True)
        link.symlink_to(ROOT, target_is_directory=True)


@contextlib.contextmanager
def only_one(what: str) -> Iterator[None]:
    """Two commands started at once must not install, or copy, into each other."""
    with (DEV / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ensure_environment(environment: str) -> None:
    """Make an empty environment, also when the Python or the checkout's place changed: scripts hold both."""
    stamp = DEV / environment / "python.stamp"
    identity = f"{os.path.realpath(sys.executable)}\n{sys.version}\n{ROOT}\n"
    if stamp.is_file() and stamp.read_text() == identity:
        return
    shutil.rmtree(stamp.parent, ignore_errors=True)
    _quietly(f"make .dev/{environment}", [sys.executable, "-m", "venv", str(stamp.parent)])
    stamp.write_text(identity)


def _ensure_layer(layer: Layer) -> None:
    digest = hashlib.sha256(layer.requirements.read_bytes()).hexdigest()
    if layer.stamp.is_file() and layer.stamp.read_text() == digest:
        return
    pip = [str(python_of(layer.environment)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _quietly(f"install {layer.requirements.relative_to(ROOT)}", [*pip, "--requirement", str(layer.requirements)])
    layer.stamp.write_text(digest)


def _ensure_companions() -> None:
    """Take the collections of others out of the package that has them, to where Ansible looks for ours."""
    requirements = ROOT / "tests" / "dev" / "requirements-collections.txt"
    digest = hashlib.sha256(requirements.read_bytes() + repr(COMPANIONS).encode()).hexdigest()
    stamp = COLLECTIONS / "companions.stamp"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    pip = [str(python_of("venv")), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory(dir=DEV) as folder:
        command = [*pip, "--only-binary=:all:", "--dest", folder, "--requirement", str(requirements)]
        _quietly("fetch collections of others", command)
        (package,) = Path(folder).glob("*.whl")
        for name in COMPANIONS:
            shutil.rmtree(COLLECTIONS / "ansible_collections" / name, ignore_errors=True)
            _unpack(package, f"ansible_collections/{name}/")
    stamp.write_text(digest)


def _unpack(package: Path, folder: str) -> None:
    with zipfile.ZipFile(package) as archive:
        inside = [name for name in archive.namelist() if name.startswith(folder)]
        wanted = [name for name in inside if not name.startswith((f"{folder}test/", f"{folder}tests/"))]
        if not wanted:
            raise SystemExit(f"{package.name} has no {folder}")
        archive.extractall(COLLECTIONS, wanted)


def _quietly(what: str, command: list[str]) -> None:
    """Run a command; say what and how long, and show its output only when it fails."""
    start = time.monotonic()
    print(f"-- {what} ", end="", file=sys.stderr, flush=True)
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print(f"({time.monotonic() - start:.0f} s)", file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed with {done.returncode}:\n{done.stdout}")


if __name__ == "__main__":
    ensure(sys.argv[1:])
