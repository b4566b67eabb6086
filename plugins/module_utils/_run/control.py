# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a run has to end: the budget, the stop file, signals, and requests of playbooks/stop.yml. Knows no step."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import typing as t
from contextlib import suppress
from pathlib import Path

from .._records import Execution
from .host import alive, birth, make_private, replace_private, state_directories, write_private

if t.TYPE_CHECKING:
    from typing import Self

POLL_SECONDS = 0.2
PROGRESS = ".progress"  # the tail of the file beside a registration that progress.py writes
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


class Control:
    """A context manager: inside, signals ask for a clean stop instead of ending the process."""

    def __init__(
        self, execution: Execution, *, started: float | None = None, registration: Registration | None = None
    ) -> None:
        """`started` is time.monotonic() when the module began: the budget counts from there."""
        self.execution, self.registration = execution, registration
        self.started = time.monotonic() if started is None else started
        self.signalled = False
        self._stop, self._looked = "", 0.0
        self._handlers: dict[int, t.Any] = {}

    def left(self) -> float | None:
        """Seconds left of the time budget, 0 when it is over, None without a budget."""
        if self.execution.time_budget is None:
            return None
        return max(0.0, self.started + self.execution.time_budget - time.monotonic())

    def spent(self, grace: float = 0.0) -> bool:
        """Whether the time budget is over, for as many seconds as `grace` says."""
        budget = self.execution.time_budget
        return budget is not None and time.monotonic() >= self.started + budget + grace

    def stop(self, why: str) -> None:
        """Asks for a clean stop; from any thread and from a signal handler. The first reason stays."""
        self._stop = self._stop or why

    def stopped(self) -> str:
        """Why the run has to stop, or nothing. Looks at files at most five times a second."""
        now = time.monotonic()
        if not self._stop and now - self._looked >= POLL_SECONDS:
            self._looked = now
            if self.execution.stop_file and Path(self.execution.stop_file).exists():
                self.stop(f"stopped by the stop file {self.execution.stop_file}")
            elif self.registration and self.registration.requested():
                self.stop("stopped by a stop request")
        return self._stop

    def ending(self, grace: float = 0.0) -> str:
        """Why what runs has to be cancelled, or nothing: a stop, or the hard stop at the end of the budget."""
        return self.stopped() or (
            "the time budget ended while it ran" if self.execution.hard_stop and self.spent(grace) else ""
        )

    def sleep(self, seconds: float) -> None:
        """Waits, but not longer than until a stop or the end of the budget."""
        until = time.monotonic() + min(seconds, self.left() or seconds)
        while not self.stopped() and time.monotonic() < until:
            time.sleep(max(0.0, min(POLL_SECONDS, until - time.monotonic())))

    def __enter__(self) -> Self:
        if self.registration:
            self.registration.enter()
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name, None)
                # nohup and background jobs ignore signals on purpose; None was not set by Python and cannot be put back
                if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        if self.registration:
            self.registration.leave()

    def _on_signal(self, number: int, frame: object) -> None:
        del frame
        self.signalled = True
        self.stop(f"stopped by {signal.Signals(number).name}")


class Registration:
    """Says that a writing run is under way, so that a stop request can find it: `<state directory>/running/<pid>.json`.

    A request is a file `<pid>.stop` beside it. No secret is in either. Where no file can be made, the run goes on
    without, and `problem` says why.
    """

    def __init__(
        self, module: str, address: str, databases: t.Sequence[str] = (), *, places: t.Sequence[Path] = ()
    ) -> None:
        self.facts = {"pid": os.getpid(), "born": birth(os.getpid()), "started": time.time()}
        self.about = {"module": module, "address": address, "databases": list(databases)}
        self.problem = ""
        self._places = places or state_directories()
        self._file: Path | None = None

    def about_to(self, address: str, databases: t.Sequence[str]) -> None:
        """Says what is known by now."""
        self.about.update(address=address, databases=list(databases))
        if self._file is not None:
            try:
                replace_private(self._file, json.dumps({**self.facts, **self.about}))
            except OSError as error:
                self.problem = str(error)

    def enter(self) -> None:
        """Writes the file, and removes those of runs that were killed."""
        for place in self._places:
            if self._enter(place / "running"):
                return

    def _enter(self, place: Path) -> bool:
        target = place / f"{os.getpid()}.json"
        try:
            make_private(place.parent)
            make_private(place)
            sweep(place)
            _request(target).unlink(missing_ok=True)
            write_private(target, json.dumps({**self.facts, **self.about}))
        except OSError as error:
            self.problem = f"stop requests will not reach this run: {error}"
            return False
        self._file, self.problem = target, ""
        return True

    @property
    def progress(self) -> Path | None:
        """Where the run may tell how far it is."""
        return self._file and self._file.with_suffix(PROGRESS)

    def requested(self) -> bool:
        return self._file is not None and _request(self._file).exists()

    def leave(self) -> None:
        """Removes the file and the request."""
        if self._file is not None:
            try:
                self._file.unlink(missing_ok=True)
                _request(self._file).unlink(missing_ok=True)
            except OSError as error:
                self.problem = str(error)  # the next run sweeps it away
            self._file = None


def places_of(journal: str | None) -> tuple[Path, ...]:
    """Where a run registers that has this option: beside its journal, else where journals are by default."""
    try:
        return (Path(journal).expanduser().parent,) if journal and journal != "none" else state_directories()
    except RuntimeError:  # no such user: opening the journal says so
        return state_directories()


def running(directory: Path) -> list[dict[str, t.Any]]:
    """The writing runs under way that registered in this state directory."""
    found = []
    for file in sorted((directory / "running").glob("*.json")):
        facts = _read(file)
        if facts and alive(int(facts.get("pid", 0)), str(facts.get("born", ""))):
            found.append(facts)
    return found


def others_at(address: str, places: t.Sequence[Path]) -> list[dict[str, t.Any]]:
    """Other writing runs on that server that registered there, with what they say of how far they are."""
    found: list[dict[str, t.Any]] = []
    for place in places:
        with suppress(OSError):
            there = [facts for facts in running(place) if facts.get("address") == address]
            files = {facts["pid"]: place / "running" / f"{facts['pid']}{PROGRESS}" for facts in there}
            found += [{**f, **(_read(files[f["pid"]]) or {})} for f in there if f["pid"] != os.getpid()]
    return found


def request_stop(directory: Path) -> list[dict[str, t.Any]]:
    """Asks every writing run that registered in this state directory to stop; those that were asked. Raises OSError."""
    asked = running(directory)
    for facts in asked:
        write_private(directory / "running" / f"{facts['pid']}.stop", "")
    return asked


def sweep(directory: Path) -> None:
    """Removes what runs that are no more left in `running`. Raises OSError."""
    for file in directory.glob("*.json"):
        facts = _read(file)
        if file.stem.isdigit() and not alive(int(file.stem), str((facts or {}).get("born", ""))):
            for each in (file, _request(file), file.with_suffix(PROGRESS), file.with_suffix(f"{PROGRESS}.new")):
                each.unlink(missing_ok=True)


def _request(file: Path) -> Path:
    return file.with_suffix(".stop")


def _read(file: Path) -> dict[str, t.Any] | None:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None
