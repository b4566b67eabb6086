# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotation on real folders: what goes, what stays, and what a death in the middle leaves."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from . import lite
from .backups import aged, backed_up, codes, fact, files, kinds, laid, now, shelf
from .module_runner import Ran, run, start

DAY = timedelta(days=1)


def given(folder: Path, **more: Any) -> dict[str, Any]:
    return {"engine": "postgresql", "backup_dir": str(folder), "journal": "none", "keep_last": 2, **more}


def rotated(folder: Path, *, check: bool = False, fails: bool = False, **more: Any) -> Ran:
    return run("db_backup_rotate", given(folder, **more), check=check, fails=fails)


def test_check_lists_what_the_run_removes_and_what_stays(tmp_path: Path) -> None:
    made = [laid(tmp_path, now() - n * DAY) for n in range(5)]
    before = lite.fingerprint(tmp_path)
    check = rotated(tmp_path, check=True)
    assert lite.fingerprint(tmp_path) == before
    assert [k["id"] for k in fact(check)["kept"]] == [b.id for b in made[1::-1]]
    assert all(k["reasons"] for k in fact(check)["kept"])
    assert {s["object"] for s in fact(check)["steps"]} == {b.id for b in made[2:]}
    ran = rotated(tmp_path)
    assert [(s["object"], s["reason"], s["statements"]) for s in fact(ran)["steps"]] == [
        (s["object"], s["reason"], s["statements"]) for s in fact(check)["steps"]
    ]
    assert all(s["status"] == "done" and s["proven"] for s in fact(ran)["steps"])
    assert fact(ran)["summary"]["bytes_freed"] > sum(b.bytes for b in made[2:])
    assert {b.id for b in shelf(tmp_path).backups} == {b.id for b in made[:2]}
    again = rotated(tmp_path)
    assert not again.result["changed"]
    assert fact(again)["summary"]["kept"] == 2


def test_only_what_a_manifest_names_is_removed(tmp_path: Path) -> None:
    for n in range(4):
        laid(tmp_path, now() - n * DAY)
    (tmp_path / "shop" / "notes.txt").write_text("mine")
    (tmp_path / "20200101T000000Z-aaaaaa.dump").write_text("old")
    ran = rotated(tmp_path, keep_last=1)
    assert fact(ran)["summary"]["done"] == 3
    assert {"shop/notes.txt", "20200101T000000Z-aaaaaa.dump"} <= files(tmp_path)
    assert "foreign_files" in codes(ran)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "..", "sub/x"])
def test_a_manifest_that_lies_takes_nothing_with_it(tmp_path: Path, name: str) -> None:
    folder, outside = tmp_path / "backups", tmp_path / "outside"
    outside.write_text("precious")
    laid(folder, now())
    laid(folder, now() - DAY)
    old = laid(folder, now() - 9 * DAY)
    path = Path(old.folder) / f"{old.id}.manifest.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"files": [{"name": name, "bytes": 8, "sha256": "0" * 64}]})
    )
    rotated(folder, keep_last=1)
    assert outside.read_text() == "precious"
    assert Path("/etc/hostname").exists()
    assert path.exists()


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "backups", tmp_path / "outside"
    laid(folder, now())
    old = laid(folder, now() - 9 * DAY)
    stored = Path(old.folder) / old.files[0].name
    outside.write_bytes(stored.read_bytes())
    stored.unlink()
    stored.symlink_to(outside)
    rotated(folder, keep_last=1)
    assert outside.exists()


def test_incremental_ones_go_with_the_whole_one(tmp_path: Path) -> None:
    full = laid(tmp_path, now() - 9 * DAY, method="physical", database="")
    first = laid(tmp_path, now() - 8 * DAY, method="physical", database="", parent=full.id)
    laid(tmp_path, now() - 7 * DAY, method="physical", database="", parent=first.id)
    laid(tmp_path, now() - DAY, method="physical", database="")
    assert fact(rotated(tmp_path, keep_last=2))["summary"]["done"] == 0
    assert fact(rotated(tmp_path, keep_last=1))["summary"]["done"] == 3
    assert len(shelf(tmp_path).backups) == 1


def test_copies_go_along(tmp_path: Path) -> None:
    path, folder, share = lite.make(tmp_path / "shop.db", rows=10), tmp_path / "backups", tmp_path / "share"
    share.mkdir()
    for _n in range(3):
        backed_up(path, folder, min_interval="0s", copy_to=str(share))
        aged(folder, DAY)
    more: dict[str, Any] = {"engine": "sqlite", "databases": [str(path)]}
    assert len(files(share)) == 6
    left = rotated(folder, **more, check=True)
    assert "copies_left" in codes(left)
    rotated(folder, **more, keep_last=1, copy_to=str(share))
    assert len(files(share)) == 2
    assert {p.rpartition("/")[2] for p in files(share)} == {p.rpartition("/")[2] for p in files(folder)}


def test_refused_without_any_rule(tmp_path: Path) -> None:
    laid(tmp_path, now())
    ran = rotated(tmp_path, keep_last=None, fails=True)
    assert "keep_daily" in ran.result["msg"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    ran = rotated(tmp_path / "none")
    assert not ran.result["changed"]
    assert not (tmp_path / "none").exists()


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    for n in range(40):
        laid(tmp_path, now() - n * DAY)
    running = [start("db_backup_rotate", given(tmp_path, if_running="wait")) for _n in range(3)]
    ended = [r.wait() for r in running]
    assert all(not r.result.get("failed") for r in ended), [r.result.get("msg") for r in ended]
    assert len(shelf(tmp_path).backups) == 2


def test_many(tmp_path: Path) -> None:
    """A proof looks for one backup, not for all of them."""
    for n in range(1500):
        laid(tmp_path, now() - n * timedelta(hours=2), database=f"db{n % 10}")
    began = time.monotonic()
    ran = rotated(tmp_path, keep_last=100, jobs=4)
    assert fact(ran)["summary"]["done"] == 500
    assert kinds(ran)[0] == ("remove_backup", "done")
    assert time.monotonic() - began < 60
