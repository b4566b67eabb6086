# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backup folder, looked at and tidied: what counts, what is broken, what died, and what is somebody else's."""

from __future__ import annotations

import fcntl
import json
import os
import random
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Shelf, Sheltered, Unfinished
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, DbFault, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, copies, looking
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backup_manifest import path_of
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.store import part
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.unfinished import folder_name
from tests.unit.files.backing import IDENTITY, LINES, NOON, fill, look, make, names, plain, record, sound, task

HOSTILE = [
    "",
    "_server",
    "..",
    "../x",
    "a/b",
    "-rf",
    "x" * 300,
    "ü\udc80",
    "Shop",
    "shop",
    ".hidden",
    "a b\n",
    "%2E",
    "~",
]


def test_every_database_has_a_folder_of_its_own(tmp_path: Path) -> None:
    made = {make(tmp_path, database, b"x").id: database for database in HOSTILE}
    shelf = look(tmp_path)
    assert {backup.id: backup.database for backup in shelf.backups} == made
    assert len({folder_name(database) for database in HOSTILE}) == len(HOSTILE)
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / folder_name(name) for name in HOSTILE}
    for database in HOSTILE:
        found = backups.newest(str(tmp_path), server=IDENTITY, database=database)
        assert found is not None and made[found.id] == database


def test_where_there_is_nothing_yet(tmp_path: Path) -> None:
    shelf = look(tmp_path / "a" / "b")
    assert (shelf.backups, shelf.why_not, shelf.foreign) == ((), "", ()) and shelf.free and shelf.device
    assert not (tmp_path / "a").exists()
    assert backups.newest(str(tmp_path / "a"), server=IDENTITY, database="shop") is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "not a folder" in look(tmp_path / "file").why_not
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "every user" in look(tmp_path / "open").why_not
    assert "absolute" in look(Path("backups")).why_not
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "shop").symlink_to(tmp_path / "open")
    for folder in (tmp_path / "file", tmp_path / "open", tmp_path / "linked"):
        with pytest.raises(Refused), part(task(folder)):
            pass
    assert names(tmp_path) == ["file"]


def test_missing_and_cut_files_make_a_backup_broken(tmp_path: Path) -> None:
    gone, cut, longer, good = (make(tmp_path, compression="none") for _number in range(4))
    files = {backup.id: tmp_path / "shop" / backup.files[0].name for backup in (gone, cut, longer)}
    files[gone.id].unlink()
    os.truncate(files[cut.id], 1000)
    os.truncate(files[longer.id], len(LINES) + 1)
    shelf = look(tmp_path)
    assert shelf.backups == (good,)
    whys = {broken.backup.id: broken.why for broken in shelf.broken if broken.backup}
    assert (
        "missing" in whys[gone.id] and "1000 bytes instead of" in whys[cut.id] and "bytes instead of" in whys[longer.id]
    )
    assert backups.newest(str(tmp_path), server=IDENTITY, database="shop") == good


def test_a_manifest_in_the_folder_of_another_database_does_not_count(tmp_path: Path) -> None:
    backup = make(tmp_path)
    (tmp_path / "shop").rename(tmp_path / "sold")
    shelf = look(tmp_path)
    assert shelf.backups == () and "another folder" in shelf.broken[0].why
    (tmp_path / "sold").rename(tmp_path / "shop")
    assert look(tmp_path).backups == (backup,)


def test_foreign_files_are_mentioned_and_stay(tmp_path: Path) -> None:
    backup = make(tmp_path)
    foreign = {
        "README": b"mine",
        "shop/dump.sql": b"mine",
        "shop/old.manifest.json": b"{}",
        f"shop/{backup.id}.notes": b"mine",
        "shop/20200101T000000Z-aaaaaa.sql": b"no manifest, no marker",
        "other/deep/file": b"mine",
    }
    for name, data in foreign.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    shelf = look(tmp_path)
    assert set(shelf.foreign) == {*foreign, "other/deep"} - {"other/deep/file"}
    assert shelf.backups == (backup,) and not shelf.broken and not shelf.unfinished
    backups.remove(backup)
    assert names(tmp_path) == sorted(foreign)
    for name in foreign:
        with pytest.raises(Refused):
            backups.clear(str(tmp_path), Unfinished("shop", ("../" + name,), 0))
    backups.clear(str(tmp_path), Unfinished("shop", (f"shop/{backup.id}.partial",), 0))
    assert names(tmp_path) == sorted(foreign)


def test_who_is_at_work_is_left_alone_and_who_died_is_not(tmp_path: Path) -> None:
    earlier = make(tmp_path)
    with part(task(tmp_path)) as new:
        fill(new)
        (tmp_path / "shop" / f"{new.id}.notes").write_bytes(b"mine")
        shelf = look(tmp_path)
        assert (shelf.backups, shelf.unfinished) == ((earlier,), ())
        alive = Unfinished("shop", (f"shop/{new.id}.sql.zst.partial",), 0)
        with pytest.raises(Busy):
            backups.clear(str(tmp_path), alive)
        os.close(new._marker._fd)  # as if its process had died
        new._marker._fd = -1
        (dead,) = look(tmp_path).unfinished
        assert dead.database == "shop" and dead.server == IDENTITY and dead.bytes > 100
        assert set(dead.files) == {f"shop/{new.id}.sql.zst.partial", f"shop/{new.id}.partial"}
        assert look(tmp_path).backups == (earlier,)
        assert backups.clear(str(tmp_path), dead) == dead.bytes
        assert look(tmp_path).unfinished == ()
        assert (tmp_path / "shop" / f"{new.id}.notes").read_bytes() == b"mine"
    assert sound(earlier)


def test_a_removal_that_died_is_nothing_that_counts_and_is_cleared(tmp_path: Path) -> None:
    backup = make(tmp_path)
    folder = tmp_path / "shop"
    Path(path_of(backup)).rename(folder / f"{backup.id}.partial")
    (dead,) = look(tmp_path).unfinished
    assert dead.server == IDENTITY and len(dead.files) == 2 and dead.removed
    assert look(tmp_path).backups == ()
    backups.clear(str(tmp_path), dead)
    assert names(tmp_path) == []


def test_half_of_a_manifest_that_was_to_be_amended_is_cleared(tmp_path: Path) -> None:
    backup = make(tmp_path)
    half = Path(f"{path_of(backup)}.tmp")
    half.write_text("{")
    with Path(path_of(backup)).open("rb+") as manifest:  # somebody is about to amend it
        fcntl.flock(manifest, fcntl.LOCK_EX)
        assert (look(tmp_path).unfinished, look(tmp_path).foreign) == ((), ())
        with pytest.raises(Busy):
            backups.clear(str(tmp_path), Unfinished("shop", (f"shop/{half.name}",), 1))
    (dead,) = look(tmp_path).unfinished
    assert (dead.files, dead.server, dead.removed) == ((f"shop/{half.name}",), IDENTITY, False)
    backups.clear(str(tmp_path), dead)
    assert look(tmp_path).backups == (backup,) and not half.exists() and sound(backup)


def test_an_empty_marker_goes_when_the_next_backup_comes(tmp_path: Path) -> None:
    """Nobody can tell whose it was."""
    folder = tmp_path / "shop"
    folder.mkdir(mode=0o700)
    dead, alive = (folder / f"20261122T120000Z-{n}a1b2c.partial" for n in (0, 1))
    for path in (dead, alive):
        path.touch()
    with alive.open("rb+") as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        make(tmp_path)
        assert alive.exists() and not dead.exists()


def test_a_torn_marker_names_what_only_we_call_so(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    ident = "20261122T120000Z-0a1b2c"
    for name in ("partial", "sql.partial", "sql"):
        (folder / f"{ident}.{name}").write_bytes(b'{"server": "x"')
    shelf = look(tmp_path)
    assert shelf.unfinished[0].files == (f"shop/{ident}.partial", f"shop/{ident}.sql.partial")
    assert shelf.foreign == (f"shop/{ident}.sql",)
    backups.clear(str(tmp_path), shelf.unfinished[0])
    assert names(tmp_path) == [f"shop/{ident}.sql"]


def test_nobody_waits_for_a_named_pipe(tmp_path: Path) -> None:
    backup, other = make(tmp_path), make(tmp_path)
    data = tmp_path / "shop" / backup.files[0].name
    data.unlink()
    Path(path_of(other)).unlink()
    for path in (data, Path(path_of(other)), tmp_path / "shop" / "20261122T120000Z-0a1b2c.partial"):
        os.mkfifo(path)
    shelf = look(tmp_path)
    assert shelf.backups == () and len(shelf.broken) == 2
    with pytest.raises(Refused):
        sound(backup)
    with pytest.raises(Refused):
        plain(backup)


def test_a_folder_that_does_not_answer_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, data=b"x", compression="none")
    answers = threading.Event()

    def slowly(wanted: Sheltered) -> Shelf:
        answers.wait(60)
        return looking.looked_at(wanted)

    monkeypatch.setattr(backups, "looked_at", slowly)
    late = look(tmp_path, timeout=0.01)
    assert late.backups == () and "did not answer within" in late.why_not
    answers.set()
    assert len(look(tmp_path, timeout=60).backups) == 1


def test_oldest_first_by_what_the_manifest_says(tmp_path: Path) -> None:
    made = []
    for hours in (3, 1, 2):
        with part(task(tmp_path)) as new:
            fill(new, "echo x")
            made.append(new.seal(record(new.id, began=NOON + timedelta(hours=hours))))
    assert look(tmp_path).backups == (made[1], made[2], made[0])
    assert backups.newest(str(tmp_path), server=IDENTITY, database="shop") == made[0]
    assert backups.newest(str(tmp_path), server="mysql:x", database="shop") is None
    assert backups.newest(str(tmp_path), server=IDENTITY, database="shop", methods=["physical"]) is None


def test_fifty_flips_and_twenty_cuts_are_all_caught(tmp_path: Path) -> None:
    backup = make(tmp_path)
    path = tmp_path / "shop" / backup.files[0].name
    whole = path.read_bytes()
    dice = random.Random(5)
    missed = []
    for number in range(70):
        place = dice.randrange(len(whole))
        flipped = bytes([whole[place] ^ 1 << dice.randrange(8)])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :] if number < 50 else whole[:place])
        for read in (sound, plain):
            try:
                read(backup)
            except DbFault as error:
                if "was changed" in str(error) or "bytes instead of" in str(error):
                    continue
            missed.append((read, place))
    assert missed == []
    path.write_bytes(whole)
    assert sound(backup) and plain(backup) == LINES


def test_a_copy_in_a_folder(tmp_path: Path) -> None:
    backup, there = make(tmp_path / "here"), tmp_path / "there"
    with pytest.raises(Refused, match="not there"):
        list(copies.copy(backup, str(there)))
    there.mkdir(0o755)
    assert sum(copies.copy(backup, str(there))) == backup.bytes
    (copied,) = look(there).backups
    assert copied.files == backup.files and sound(copied) and plain(copied) == LINES
    (now,) = look(tmp_path / "here", target=str(there)).backups
    assert now.copies == (str(there),)
    assert sum(copies.copy(now, str(there))) == 0
    assert copies.remove(now, str(there)) > backup.bytes and names(there) == []
    assert look(tmp_path / "here").backups[0].copies == ()
    assert copies.remove(now, str(there)) == 0


def test_a_copy_clears_away_what_older_ones_left(tmp_path: Path) -> None:
    """Nobody copies a backup any more when there is a newer one."""
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    first = make(here)
    list(copies.copy(first, str(there)))
    dead = there / "shop" / "20200101T000000Z-abcdef"
    told = {"server": IDENTITY, "database": "shop", "names": [f"{dead.name}.sql"]}
    Path(f"{dead}.partial").write_text(json.dumps(told))
    Path(f"{dead}.sql.partial").write_text("half")
    other = there / "shop" / "20200101T000000Z-fedcba.partial"
    other.write_text(json.dumps({**told, "server": "postgresql:8"}))
    Path(there / "shop" / "20200101T000000Z-000000.partial").touch()  # it died before it said a word
    Path(f"{path_of(first._replace(folder=str(there / 'shop')))[: -len('.manifest.json')]}.partial").write_text("{}")
    second = make(here)
    list(copies.copy(second, str(there)))
    assert [path.name for path in (there / "shop").iterdir() if path.name.startswith("2020")] == [other.name]
    assert len(look(there).backups) == 2


def test_a_copy_that_vanished_is_none(tmp_path: Path) -> None:
    backup, there = make(tmp_path / "here"), tmp_path / "there"
    there.mkdir()
    list(copies.copy(backup, str(there)))
    (there / "shop" / f"{backup.id}.manifest.json").unlink()
    assert look(tmp_path / "here").backups[0].copies == (str(there),)
    assert look(tmp_path / "here", target=str(there)).backups[0].copies == ()
    list(copies.copy(backup, str(there)))
    assert look(tmp_path / "here", target=str(there)).backups[0].copies == (str(there),)


def test_a_copy_that_rotted_is_made_again(tmp_path: Path) -> None:
    backup, there = make(tmp_path / "here"), tmp_path / "there"
    there.mkdir()
    list(copies.copy(backup, str(there)))
    path = there / "shop" / backup.files[0].name
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes([data[1000] ^ 4]) + data[1001:])
    assert sum(copies.copy(backup, str(there))) == backup.bytes
    assert sound(look(there).backups[0])


def test_no_copy_is_made_of_a_backup_that_rotted(tmp_path: Path) -> None:
    backup, there = make(tmp_path / "here"), tmp_path / "there"
    there.mkdir()
    path = tmp_path / "here" / "shop" / backup.files[0].name
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes([data[1000] ^ 4]) + data[1001:])
    with pytest.raises(Refused, match="was changed"):
        list(copies.copy(backup, str(there)))
    assert names(there) == []
    assert look(tmp_path / "here").backups[0].copies == ()
