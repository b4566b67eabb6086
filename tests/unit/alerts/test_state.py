# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of the state: there as a whole or not at all, for its owner alone, and of one run at a time."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils import _alert_state as store
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Held


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "state.json"


def test_what_was_saved_is_read_by_the_next_run(path: Path) -> None:
    assert store.claim(path, "one", wait=0) is None
    store.save(path, "one", "first\n", end=False)
    store.save(path, "one", "second\n", end=True)
    assert store.claim(path, "two", wait=0) == "second\n"
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == {
        "state.json": "0o600",
        "state.json.lock": "0o600",
    }
    assert oct(path.parent.stat().st_mode & 0o777) == "0o700"


def test_a_second_run_waits_until_the_first_has_said_what_it_sent(path: Path) -> None:
    store.claim(path, "one", wait=0)
    began = threading.Event()
    read: list[str | None] = []

    def second() -> None:
        began.set()
        read.append(store.claim(path, "two", wait=60))

    thread = threading.Thread(target=second)
    thread.start()
    began.wait()
    assert not read
    store.save(path, "one", "told\n", end=True)
    thread.join(60)
    assert read == ["told\n"]


def test_who_has_waited_long_enough_says_so(path: Path) -> None:
    store.claim(path, "one", wait=0)
    with pytest.raises(Held, match="another run is sending"):
        store.claim(path, "two", wait=0)
    store.claim(path, "one", wait=0)  # its own claim is in nobody's way


def test_a_run_that_died_holds_nobody_up_for_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.claim(path, "died", wait=0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + store.LEASE + 1)
    store.claim(path, "two", wait=0)
    with pytest.raises(Held, match="another run has taken"):
        store.save(path, "died", "late\n", end=True)
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "x", "run yesterday", "\x00\xff", "one 99999999999999", "one nan", "one -5"])
def test_a_claim_that_makes_no_sense_holds_nobody_up(path: Path, content: str) -> None:
    path.parent.mkdir()
    Path(f"{path}.lock").write_text(content, encoding="latin-1")
    assert store.claim(path, "two", wait=0) is None


def test_a_full_disk_leaves_the_old_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.claim(path, "one", wait=0)
    store.save(path, "one", "old\n", end=False)

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(path, "one", "new\n", end=True)
    assert sorted(file.name for file in path.parent.iterdir()) == ["state.json", "state.json.lock"]
    assert path.read_text(encoding="utf-8") == "old\n"


def test_what_is_damaged_is_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe{")
    assert store.claim(path, "one", wait=0) is not None
    store.save(path, "one", "new\n", end=True, aside=True)
    kept = [file for file in path.parent.iterdir() if ".damaged-" in file.name]
    assert [file.read_bytes() for file in kept] == [b"\xff\xfe{"]
    assert path.read_text(encoding="utf-8") == "new\n"


def test_a_link_stays_one_but_not_to_the_claim(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere.json")
    store.save(path, "one", "new\n", end=True)
    assert path.is_symlink() and (tmp_path / "elsewhere.json").read_text(encoding="utf-8") == "new\n"
    Path(f"{path}.lock").unlink()
    Path(f"{path}.lock").symlink_to(tmp_path / "trap")
    with pytest.raises(OSError, match="symbolic"):
        store.claim(path, "one", wait=0)


def test_looking_leaves_no_trace(path: Path) -> None:
    assert store.peek(path) is None
    assert not path.parent.exists()
