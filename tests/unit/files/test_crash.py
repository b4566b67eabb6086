# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Killed, or without power, at every call that touches the disk: each row is in one place, and nothing is left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import finish, manifest, shelf
from tests.unit.files import scenario
from tests.unit.files.disk import CUTS, Disk, PowerCut

ROOT = Path(__file__).parents[3]
Deaf = Callable[[str], bool]


def hears_all(path: str) -> bool:
    return False


def accidents(base: Path, cut: str, deaf: Deaf = hears_all) -> Iterator[tuple[int, list[str]]]:
    """(call, what is wrong afterwards) for a power cut at each call of the step; at the end it is not cut."""
    stop = calls = 1
    while stop <= calls:
        folder, world = base / f"{cut}-{stop}", scenario.World(base / f"{cut}-{stop}.log")
        folder.mkdir()
        disk = Disk(folder, stop)
        disk.deaf, world.pause = deaf, disk.pause
        try:
            with disk.watched():
                scenario.step(folder, world)
        except PowerCut:
            calls = stop + 1
        disk.after(cut)
        for again in range(1, 40):  # the power fails in the next run, too: a call later each time
            disk = Disk(folder, again + stop % 3)
            disk.deaf = deaf
            try:
                with disk.watched():
                    scenario.recover(folder, world)
                break
            except PowerCut:
                disk.after(cut)
            except DbFault as fault:
                yield stop, [str(fault)]
                break
        yield stop, scenario.complaints(folder, world)
        stop += 1


@pytest.mark.parametrize("cut", CUTS)
def test_a_power_cut_at_every_call(tmp_path: Path, cut: str) -> None:
    seen = list(accidents(tmp_path, cut))
    assert len(seen) > 50
    assert [accident for accident in seen if accident[1]] == []


@pytest.mark.parametrize("left_out", [".partial", ".tmp", "archive"])
def test_a_flush_that_is_left_out_is_noticed(tmp_path: Path, left_out: str) -> None:
    """The mutants of the test above: no fsync of data, of notes and manifests, of the folder."""

    def deaf(path: str) -> bool:
        return path.endswith(left_out) or (left_out == "archive" and Path(path).is_dir())

    assert any(wrong for stop, wrong in accidents(tmp_path, "flushed", deaf))


def test_a_note_that_goes_before_the_manifest_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = finish.finish

    def mutant(pending: str, state: Any, *, verify: bool) -> None:
        Path(pending).unlink(missing_ok=True)
        real(pending, state, verify=verify)

    monkeypatch.setattr(shelf, "finish", mutant)
    assert any(wrong for stop, wrong in accidents(tmp_path, "killed"))


def test_a_note_that_is_sure_too_early_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settled before it is committed."""
    real = manifest.pending_text
    monkeypatch.setattr(shelf, "pending_text", lambda state: real(state.settled(last=True)))
    assert any(wrong for stop, wrong in accidents(tmp_path, "killed"))


@given(
    shapes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=5),
    stop=st.integers(1, 80),
    again=st.integers(1, 30),
    cut=st.sampled_from(CUTS),
)
def test_any_step_dies_anywhere(shapes: list[tuple[int, int, bool]], stop: int, again: int, cut: str) -> None:
    """Bites without rows, with children only, rolled back in any order; and the next run dies, too."""
    plan = {
        number: scenario.Bite(scenario.frames(number, orders, items), commits)
        for number, (orders, items, commits) in enumerate(shapes, start=1)
    }
    with tempfile.TemporaryDirectory() as base:
        folder, world = Path(base) / "archive", scenario.World(Path(base) / "log")
        folder.mkdir()
        disk = Disk(folder, stop)
        world.pause = disk.pause
        with disk.watched(), suppress(PowerCut):
            scenario.step(folder, world, plan)
        disk.after(cut)
        disk = Disk(folder, again)
        with disk.watched(), suppress(PowerCut):
            scenario.recover(folder, world)
        disk.after(cut)
        scenario.recover(folder, world)
        assert scenario.complaints(folder, world, plan) == []


def test_killed_at_every_call(tmp_path: Path) -> None:
    """By SIGKILL, and half of the time the next run, too."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.files.scenario", str(tmp_path / "base")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / '.dev' / 'collections'}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    assert len(seen) > 100 and seen[-1]["ended"]
    assert [accident for accident in seen if accident["complaints"]] == []
