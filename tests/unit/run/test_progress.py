# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run tells of itself while it works: the file, shares, remaining time, and how often a server is asked."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Amount, Ref, Seen, Step
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run import observer as observer_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.observer import EVERY, LONG, Observer
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.progress import Progress, left, share_of
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Rebuild, Vacuum

from .engines import SERVER, Clockwork, Quiet

ORDERS = Ref("shop", ("public", "orders"))


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_file_is_written_once_a_second_and_says_what_is_done(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "7.progress"
    progress = Progress(path, {"pid": 7, "module": "db_vacuum"}, now=clock)
    progress.planned(3)
    progress.start(0, Step(Rebuild(ORDERS), "", expected=Amount(bytes=1000)), Amount())
    progress.tick(0, Amount(bytes=250))
    progress.beat()
    assert not path.exists(), "a run that ends within a second writes nothing"
    clock.at += 4
    progress.beat()
    said = read(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (said["pid"], said["module"], said["stage"], said["seconds"]) == (7, "db_vacuum", "working", 4.0)
    assert said["steps"]["total"] == 3
    (running,) = said["running"]
    assert (running["object"], running["kind"], running["percent"], running["bytes"]) == (
        "public.orders",
        "reclaim",
        25.0,
        250,
    )
    assert running["seconds_left"] == 12.0, "a quarter took four seconds"
    progress.end(0, "done")
    clock.at += 0.5
    progress.beat()
    assert read(path) == said, "not twice within a second"
    clock.at += 0.5
    progress.beat()
    assert (read(path)["running"], read(path)["steps"]["done"]) == ([], 1)
    progress.close()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    clock = Clock()
    progress = Progress(tmp_path / "gone" / "7.progress", {}, now=clock)
    clock.at += 2
    progress.beat()
    assert progress.path is None
    progress.close()


def test_an_attempt_that_is_repeated_goes_on_counting_where_it_was(tmp_path: Path) -> None:
    clock = Clock()
    progress = Progress(tmp_path / "7.progress", {}, now=clock)
    step = Step(Rebuild(ORDERS), "", expected=Amount(bytes=100))
    progress.start(0, step, Amount())
    progress.end(0)
    progress.start(0, step, Amount(bytes=50))
    assert progress.said(clock())["running"][0]["percent"] == 50.0
    assert sum(progress.said(clock())["steps"].values()) == 0


def test_the_share_of_a_step_whose_ticks_say_nothing_is_unknown() -> None:
    assert share_of(Step(Vacuum(ORDERS), ""), Amount()) is None
    assert share_of(Step(Vacuum(ORDERS), "", expected=Amount(written=10)), Amount(written=40)) == 1.0


@given(st.floats(0.1, 1e6), st.floats(2, 100), st.floats(0, 1e6))
def test_remaining_time_falls_with_the_percentage(seconds: float, percent: float, expected: float) -> None:
    there = left(seconds, percent, expected)
    assert there is not None and there >= 0
    later = left(seconds, min(100.0, percent + 1), expected)
    assert later is not None and later <= there


def test_without_a_percentage_experience_says_what_is_left_and_then_nothing() -> None:
    assert left(10, None, 60) == 50
    assert left(10, 0.5, 60) == 50, "half a percent says nothing of the rest"
    assert left(70, None, 60) is None


class Asked(Clockwork):
    """An engine that counts the questions."""

    def __init__(self) -> None:
        super().__init__()
        self.questions, self.stuck = 0, False
        self.began, self.answer = threading.Event(), threading.Event()

    def progress(self, sessions: Mapping[int, Any], server: Any) -> dict[int, Seen]:
        self.questions += 1
        self.began.set()
        if self.stuck:
            self.answer.wait(30)
        return dict.fromkeys(sessions, Seen("scanning heap", 40.0))


def look(observer: Observer) -> None:
    """Looks, and waits for the answer rather than for a while."""
    observer.look({0: Quiet("shop")})
    asked = observer._asked
    if asked:
        assert asked.done.wait(30)
        observer.look({0: Quiet("shop")})


def test_a_server_is_asked_where_a_step_is_long_and_not_more_often(tmp_path: Path) -> None:
    clock, engine = Clock(), Asked()
    progress = Progress(tmp_path / "7.progress", {}, now=clock)
    observer = Observer(engine, SERVER, progress, now=clock)
    progress.start(0, Step(Vacuum(ORDERS), ""), Amount())
    clock.at += LONG - 0.1
    look(observer)
    assert engine.questions == 0, "a fast night asks nothing"
    clock.at += 0.1
    look(observer)
    look(observer)
    assert engine.questions == 1
    running = progress.said(clock())["running"][0]
    assert (running["phase"], running["percent"]) == ("scanning heap", 40.0)
    assert (running["seconds_left"], running["left_at_least"]) == (4.5, True), "of this phase, which began with it"
    clock.at += EVERY
    look(observer)
    assert engine.questions == 2
    running = progress.said(clock())["running"][0]
    assert running["seconds_left"] == 9.0, "it has come no further"
    progress.under[0].see(Seen("vacuuming heap", 10.0), clock())
    assert progress.said(clock())["running"][0]["seconds_left"] is None, "nobody knows yet"
    progress.under[0].see(Seen("vacuuming heap", 55.0), clock() + 5)
    assert progress.said(clock() + 5)["running"][0]["seconds_left"] == 5.0
    assert observer.close() is False


def test_a_question_that_is_never_answered_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer_module, "FAREWELL", 0.01)
    clock, engine = Clock(), Asked()
    engine.stuck = True
    progress = Progress(tmp_path / "7.progress", {}, now=clock)
    observer = Observer(engine, SERVER, progress, now=clock)
    progress.start(0, Step(Vacuum(ORDERS), ""), Amount())
    clock.at += LONG
    observer.look({0: Quiet("shop")})
    assert engine.began.wait(30)
    clock.at += EVERY
    observer.look({0: Quiet("shop")})
    assert engine.questions == 1, "not a second one beside it"
    assert observer.close() is True
    engine.answer.set()
