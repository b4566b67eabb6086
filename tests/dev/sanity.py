# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-test sanity, without an ignore file, on a copy of what users get, at the path that ansible-test wants."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from . import pip_cache
from .environment import DEV, ROOT, only_one
from .steps import Log, StepFailed

COPY = DEV / "ansible-test" / "ansible_collections" / "dbfleet" / "maintenance"
INTERPRETERS = DEV / "interpreters"
MINORS = range(8, 16)
SETTINGS = Path("tests/config.yml")


def sanity(log: Log) -> None:
    """Every sanity test on every Python that is found here and that ansible-test knows."""
    with only_one("ansible-test"):
        refresh_copy()
        log.say("Pythons: " + ", ".join(link_interpreters()))
        pip_cache.prepare(log)
        output = log.run("ansible-test", "sanity", "--color", "no", env={"PATH": search_path()}, cwd=COPY)
    if "All targets skipped" in output:
        raise StepFailed("nothing was tested: ansible-test found no files")


def refresh_copy() -> Path:
    """Make the copy equal to what git would take of the checkout, and return where it is.

    It stays between runs, with ansible-test's own output in it; a symlink would be resolved, and refused.
    """
    wanted = set(_files())
    COPY.mkdir(parents=True, exist_ok=True)
    if not (COPY / ".git").is_dir():
        # Otherwise ansible-test would ask the checkout's own git, which ignores everything below .dev.
        subprocess.run(["git", "init", "--quiet", str(COPY)], check=True)
    for path in sorted(COPY.rglob("*"), reverse=True):
        name = path.relative_to(COPY)
        if name.parts[0] == ".git" or name.parts[:2] == ("tests", "output"):
            continue
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in wanted:
            path.unlink()
    for name in wanted:
        target = COPY / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()  # a copy does not replace it
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return COPY


def _files() -> list[Path]:
    """What git tracks, or would track: never what .gitignore names; of tests only what tells ansible-test about ours.

    Tests are as long as what they test, are in no release, and are ruff's and mypy's.
    """
    # A checkout that belongs to somebody else is still the one that is tested.
    git = ["git", "-c", "safe.directory=*"]
    command = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = (Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file())
    return [path for path in found if path.parts[0] != "tests" or path == SETTINGS]


def link_interpreters() -> list[str]:
    """Put every Python that really runs into one directory, as python3.N.

    ansible-test takes the first python3.N on PATH, also one that a version manager only pretends to have.
    """
    shutil.rmtree(INTERPRETERS, ignore_errors=True)
    INTERPRETERS.mkdir(parents=True)
    found = []
    for minor in MINORS:
        name = f"python3.{minor}"
        for candidate in _candidates(name):
            if _runs(candidate, minor):
                (INTERPRETERS / name).symlink_to(candidate)
                found.append(name)
                break
    return found


def _candidates(name: str) -> list[Path]:
    managed = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    listed = sorted(managed.glob(f"{name.removeprefix('python')}*/bin/{name}"), reverse=True)
    return listed + [Path(folder) / name for folder in os.get_exec_path() if (Path(folder) / name).is_file()]


def _runs(python: Path, minor: int) -> bool:
    """Whether it is the version that its name says, and can make environments (ansible-test needs both)."""
    wrong = f"sys.version_info[:2] != (3, {minor}) or sys.prefix != sys.base_prefix"
    return _exits_well(python, f"import ensurepip, sys, venv; sys.exit({wrong})")


def _exits_well(python: Path, code: str) -> bool:
    quiet = subprocess.DEVNULL
    return subprocess.run([python, "-c", code], check=False, stdin=quiet, stdout=quiet, stderr=quiet).returncode == 0


def search_path() -> str:
    """PATH with the real interpreters first and without the directories that hold pretended ones."""
    kept = [str(DEV / "venv" / "bin"), str(INTERPRETERS)]
    kept += [folder for folder in os.get_exec_path() if folder not in kept and not _pretends(Path(folder))]
    return os.pathsep.join(kept)


def _pretends(folder: Path) -> bool:
    named = [folder / f"python3.{minor}" for minor in MINORS]
    return any(python.is_file() and not _exits_well(python, "") for python in named)
