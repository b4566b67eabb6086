# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files and folders for a while: gone when they are not needed, swept up when their process died, never others'."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import private


def dying(work: Callable[[], object]) -> None:
    """In a process that is killed in the middle of it."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_there_for_a_while(tmp_path: Path) -> None:
    with private.folder(str(tmp_path)) as path:
        assert Path(path).stat().st_mode & 0o777 == 0o700
        with private.folder(str(tmp_path)) as other:
            assert names(tmp_path) == sorted((Path(path).name, Path(other).name))
    assert names(tmp_path) == []


def test_what_the_dead_left_goes_with_the_next(tmp_path: Path) -> None:
    def work() -> None:
        made = private.Private(str(tmp_path), "dbfleet-drill-")
        Path(made.path, "pgpass").write_text("secret")
        Path(made.path, "data", "deep").mkdir(parents=True)
        private.file(str(tmp_path))

    dying(work)
    assert len(names(tmp_path)) == 2
    with private.folder(str(tmp_path)) as path:
        assert names(tmp_path) == [Path(path).name]


@pytest.mark.parametrize("what", ["folder", "file"])
@pytest.mark.parametrize("moment", ["mkdir", "open", "flock", "rename"])
def test_who_dies_before_it_is_locked_leaves_nothing(
    tmp_path: Path, moment: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, module = str(tmp_path), fcntl if moment == "flock" else os
    real = getattr(module, moment)

    def last(*words: Any, **more: Any) -> None:
        real(*words, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        monkeypatch.setattr(module, moment, last)
        private.Private(place, "dbfleet-drill-") if what == "folder" else private.file(place)

    dying(work)
    assert names(tmp_path)
    private.sweep(place)
    assert names(tmp_path) == []


@pytest.mark.parametrize("moment", ["mkdir", "open", "flock", "rename"])
def test_who_lives_is_not_disturbed_by_a_sweep_in_between(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one is made; a lock that is held is never swept."""
    place, module, left = str(tmp_path), fcntl if moment == "flock" else os, [3]
    real = getattr(module, moment)

    def sweep() -> None:
        monkeypatch.undo()
        private.sweep(place)

    def swept(*words: Any, **more: Any) -> Any:
        done = real(*words, **more)
        left[0] -= 1
        if left[0] >= 0:
            dying(sweep)
        return done

    monkeypatch.setattr(module, moment, swept)
    made = private.Private(place)
    path, fd = private.file(place)
    assert left[0] < 3
    try:
        assert names(tmp_path) == sorted((Path(made.path).name, Path(path).name))
        assert names(Path(made.path)) == ["lock"]
    finally:
        os.close(fd)
        made.end()


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    for make in (private.Private, private.file):
        with pytest.raises(FileNotFoundError):
            make(str(tmp_path / "missing"))


def test_what_lives_is_left_alone(tmp_path: Path) -> None:
    made, (path, fd) = private.Private(str(tmp_path)), private.file(str(tmp_path))
    try:
        dying(lambda: private.sweep(str(tmp_path)))
        assert names(tmp_path) == sorted((Path(made.path).name, Path(path).name))
    finally:
        os.close(fd)
        made.end()


@pytest.mark.parametrize(
    "what", ["a folder without a lock", "an empty folder", "a file of another name", "a link", "somebody else's"]
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, what: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").write_text("")
    place = tmp_path / "place"
    place.mkdir()
    folder = place / "dbfleet-x"
    if what == "a link":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
    if what not in ("a link", "an empty folder"):
        (folder / "kept").write_text("x")
    if what == "a file of another name":
        (place / ".dbfleet-0123456789abcdeg.tmp").write_text("x")
    if what == "somebody else's":
        if os.geteuid() != 0:
            pytest.skip("root, to give a file away")
        (folder / "lock").write_text("")
        os.chown(folder / "lock", 65534, 65534)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    private.sweep(str(place))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
