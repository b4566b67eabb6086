# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killed before each call to the system: earlier backups survive, no half is called a backup, and all is tidied up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, copies
from tests.unit.files import dying
from tests.unit.files.backing import LINES, look, make, names, plain, sound

ROOT = Path(__file__).parents[3]
PARENT: list[subprocess.Popen[str]] = []
EVERY = 1 if os.environ.get("CI") else 3  # each call where there is time, every third one otherwise


@pytest.fixture(scope="module", autouse=True)
def mortals() -> Iterator[None]:
    """The process whose children die."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/.dev/collections"}
    command = [sys.executable, "-m", "tests.unit.files.dying"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True) as process:
        PARENT.append(process)
        yield
        PARENT.clear()
        process.communicate(timeout=10)
    assert process.returncode == 0


def die(deed: str, number: int, folder: Path) -> int:
    """0: it was killed; else the calls that it made."""
    (parent,) = PARENT
    assert parent.stdin and parent.stdout
    parent.stdin.write(json.dumps([deed, number, str(folder)]) + "\n")
    parent.stdin.flush()
    status, count = json.loads(parent.stdout.readline())
    if status == -signal.SIGKILL:
        return 0
    assert status == 0  # what it was is on standard error
    return int(count)


def calls(deed: str, folder: Path) -> list[int]:
    """The numbers of the calls to die before."""
    most = die(deed, -1, folder)
    assert most >= 10
    return [*range(1, most + 1, EVERY)]


def prepared(tmp_path: Path, number: int) -> Path:
    place = tmp_path / str(number)
    (place / "there").mkdir(parents=True)
    make(place / "here")
    return place / "here"


def tidy(folder: Path) -> None:
    """The next run."""
    dying.clear(folder)
    shelf = look(folder)
    assert (shelf.broken, shelf.unfinished, shelf.foreign) == ((), (), ())
    for backup in shelf.backups:
        assert sound(backup) and plain(backup)
        assert backups.amend(backup, level="checksum").level in ("checksum", "decode")
    left = {f"shop/{b.id}.manifest.json" for b in shelf.backups} | {
        f"shop/{f.name}" for b in shelf.backups for f in b.files
    }
    # What an amendment had not renamed yet is overwritten by the next one.
    assert set(names(folder)) == left


def test_a_backup_that_dies(tmp_path: Path) -> None:
    sealed = survived = 0
    for number in calls("write", prepared(tmp_path, 0)):
        folder = prepared(tmp_path, number)
        (earlier,) = look(folder).backups
        # Pipes hand over now more and now less at once: the last of the calls may not be reached each time.
        survived += bool(die("write", number, folder))
        shelf = look(folder)
        assert shelf.backups[-1].id == earlier.id or shelf.backups[0].id == earlier.id
        assert not shelf.broken and not shelf.foreign
        assert sound(earlier) and plain(earlier) == LINES
        sealed += len(shelf.backups) - 1
        tidy(folder)
    assert survived <= 8 < len(list(tmp_path.iterdir()))
    assert sealed > survived  # it was killed behind the manifest, too


@pytest.mark.parametrize("deed", ["amend", "remove"])
def test_a_change_that_dies(tmp_path: Path, deed: str) -> None:
    dying.write(prepared(tmp_path, 0))
    for number in calls(deed, tmp_path / "0" / "here"):
        folder = prepared(tmp_path, number)
        dying.write(folder)
        earlier, last = look(folder).backups
        assert die(deed, number, folder) == 0
        shelf = look(folder)
        assert not shelf.broken and not shelf.foreign
        left = {backup.id for backup in shelf.backups}
        assert left == {earlier.id, last.id} or (deed == "remove" and left == {earlier.id})
        tidy(folder)


def test_clearing_up_that_dies(tmp_path: Path) -> None:
    def wreck(number: int) -> Path:
        folder = prepared(tmp_path, number)
        assert die("write", 60, folder) == 0
        assert look(folder).unfinished
        return folder

    for number in calls("clear", wreck(0)):
        folder = wreck(number)
        assert die("clear", number, folder) == 0
        tidy(folder)
        assert len(look(folder).backups) == 1


def test_a_copy_that_dies(tmp_path: Path) -> None:
    for number in calls("copy", prepared(tmp_path, 0)):
        folder = prepared(tmp_path, number)
        there = folder.parent / "there"
        (backup,) = look(folder).backups
        assert die("copy", number, folder) == 0
        shelf = look(there)
        assert not shelf.broken and not shelf.foreign
        for copied in shelf.backups:
            assert sound(copied)
        if look(folder).backups[0].copies:
            assert shelf.backups
        list(copies.copy(backup, str(there)))
        tidy(there)
        assert plain(look(there).backups[0]) == LINES and look(folder).backups[0].copies == (str(there),)
