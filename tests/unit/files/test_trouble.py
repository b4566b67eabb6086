# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks that are full, broken or somebody else's: refused in words, nothing half-written left, rows roll back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import durable
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.manifest import PARTIAL, PENDING
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.shelf import Shelf, look, wrecks
from tests.unit.files import scenario
from tests.unit.files.disk import Disk
from tests.unit.files.scenario import IDENTITY, RULE, World, bite, shelf

NOBODY = 65534


def abandon(files: Shelf) -> None:
    """As if its process had died: what it had open is closed, and nothing else happens."""
    for data in files._data.values():
        os.close(data.fd)
    files._data.clear()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("fault", "faulty"),
    [
        (errno.ENOSPC, ("open", "write", "mkdir")),
        (errno.EDQUOT, ("open", "write", "mkdir")),
        (errno.EROFS, ("open", "write", "mkdir", "replace", "unlink", "ftruncate")),
        (errno.EIO, ("fsync",)),
        (errno.EIO, ("replace",)),
        (errno.EIO, ("write",)),
    ],
)
def test_an_error_at_every_call(tmp_path: Path, fault: int, faulty: tuple[str, ...]) -> None:
    """It is told, with a cure; and once the disk is well again, the next run leaves each row in one place."""
    told = stop = 0
    said: list[Refused] = []
    while told == stop:
        stop += 1
        folder, world = tmp_path / str(stop), World(tmp_path / f"{stop}.log")
        folder.mkdir()
        disk = Disk(folder, stop)
        disk.fault, disk.faulty = fault, faulty
        try:
            with disk.watched():
                scenario.step(folder, world)
        except Refused as error:
            said.append(error)
            told += 1
        assert bool(disk.failed) == (told == stop)
        if not world.committed and fault in (errno.ENOSPC, errno.EDQUOT):
            assert names(folder) == []
        scenario.recover(folder, world)
        assert scenario.complaints(folder, world) == []
    assert told > 20
    assert all(os.strerror(fault) in error.cause and error.cure for error in said)


def test_a_shelf_takes_nothing_after_an_error(tmp_path: Path) -> None:
    files = shelf(tmp_path / "archive")
    disk = Disk(tmp_path, 1)
    disk.fault, disk.faulty = errno.ENOSPC, ("write",)
    with disk.watched(), pytest.raises(Refused, match="No space left"):
        files.put(bite(1), "1")
    files.discard()
    with pytest.raises(Refused, match="takes no more rows"):
        files.put(bite(1), "1")
    files.close()
    assert names(tmp_path / "archive") == []


def test_a_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    folder, before = tmp_path / "new" / "archive", os.umask(0)
    try:
        files = shelf(folder)
        assert look(str(folder), IDENTITY, RULE, None).why_not == "" and not folder.parent.exists()
        files.put(bite(1), "1")
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
        files.settle()
        files.close()
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert len(names(folder)) == 4


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write everywhere."""
    if os.geteuid():
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """One that everybody may enter, which pytest's own are not."""
    opened = [
        path for path in (tmp_path, *tmp_path.parents) if path.owner() == Path.home().owner() and path != Path("/")
    ]
    modes = {path: path.stat().st_mode for path in opened}
    for path in opened:
        if not modes[path] & 0o001:
            path.chmod(modes[path] | 0o011)
    place = tmp_path / "archive"
    place.mkdir()
    yield place
    place.chmod(0o700)
    for path, mode in modes.items():
        if not mode & 0o001:
            path.chmod(mode)


def refused(folder: Path) -> str:
    files = shelf(folder)
    why_not = look(str(folder), IDENTITY, RULE, None).why_not
    with pytest.raises(Refused) as caught:
        files.put(bite(1), "1")
    files.discard()
    files.close()
    assert why_not and caught.value.cure
    return why_not


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    folder.chmod(0o555)
    with unprivileged():
        assert "may not write" in refused(folder)
        assert "may not write" in refused(folder / "below")
    assert names(folder) == []


def test_a_folder_that_everybody_can_change(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert "every user" in refused(tmp_path)
    tmp_path.chmod(0o1777)
    assert look(str(tmp_path), IDENTITY, RULE, None).why_not == ""


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("mine")
    assert "not a folder" in refused(tmp_path / "archive")
    assert "not a folder" in refused(tmp_path / "archive" / "below")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    assert "not a folder" in refused(tmp_path / "nowhere")
    assert (tmp_path / "archive").read_text() == "mine"


def test_a_relative_path_is_no_place() -> None:
    assert "absolute" in refused(Path("archive"))
    assert not Path("archive").exists()


def test_a_link_to_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files = shelf(tmp_path / "link")
    files.put(bite(2), "2")
    files.settle()
    files.close()
    assert len(names(tmp_path / "real")) == 2


def test_a_link_in_place_of_a_file_is_not(tmp_path: Path) -> None:
    files = shelf(tmp_path / "archive")
    files.put(bite(2), "2")
    abandon(files)
    (partial,) = (tmp_path / "archive").glob("*" + PARTIAL)
    target = partial.rename(tmp_path / "elsewhere")
    before = target.read_bytes()
    partial.symlink_to(target)
    with pytest.raises(Refused, match="cannot be read"):
        wrecks(str(tmp_path / "archive"), IDENTITY, RULE)
    assert target.read_bytes() == before


def settled_wreck(folder: Path) -> tuple[Path, Path]:
    """Two rows that are settled, and two in doubt: (data, note)."""
    files = shelf(folder)
    files.put(bite(2), "2")
    files.settle()
    files.put(bite(2), "2 again")
    abandon(files)
    (partial,), (note,) = folder.glob("*" + PARTIAL), folder.glob("*" + PENDING)
    return partial, note


@pytest.mark.parametrize("damage", ["gone", "shorter", "changed"])
def test_rows_that_are_lost_are_told(tmp_path: Path, damage: str) -> None:
    """Settled rows are nowhere else: every run says so until somebody has looked."""
    partial, note = settled_wreck(tmp_path)
    data = partial.read_bytes()
    if damage == "gone":
        partial.unlink()
    else:
        partial.write_bytes(data[:10] if damage == "shorter" else b"x" + data[1:])
    for _attempt in range(2):
        for wreck in wrecks(str(tmp_path), IDENTITY, RULE):
            with pytest.raises(Refused, match=r"2 rows that left public\.orders"):
                wreck.cut()
        assert note.exists()


def test_a_damaged_note(tmp_path: Path) -> None:
    partial, note = settled_wreck(tmp_path)
    data = partial.read_bytes()
    note.write_text('{"version": 1, "entries": [')
    with pytest.raises(Refused, match="cannot be read"):
        wrecks(str(tmp_path), IDENTITY, RULE)
    assert "cannot be read" in look(str(tmp_path), IDENTITY, RULE, None).why_not
    assert partial.read_bytes() == data


def test_a_note_names_no_file_elsewhere(tmp_path: Path) -> None:
    _partial, note = settled_wreck(tmp_path)
    note.write_text(note.read_text().replace('"name": "public', '"name": "../public'))
    with pytest.raises(Refused, match="another folder"):
        wrecks(str(tmp_path), IDENTITY, RULE)


def test_rows_without_a_note(tmp_path: Path) -> None:
    partial, note = settled_wreck(tmp_path)
    note.unlink()
    (wreck,) = wrecks(str(tmp_path), IDENTITY, RULE)
    with pytest.raises(Refused, match="nobody knows"):
        wreck.keep()
    assert partial.exists()


def test_replacing_keeps_the_old_until_the_new_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.replace(str(path), b"old")
    for faulty in ("write", "fsync", "replace"):
        disk = Disk(tmp_path, 1)
        disk.fault, disk.faulty = errno.EIO, (faulty,)
        with disk.watched(), pytest.raises(OSError, match=os.strerror(errno.EIO)):
            durable.replace(str(path), b"new")
        assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]
