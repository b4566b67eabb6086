# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a step is, how it runs, and what it leaves: a log, a result, counts."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Literal, NamedTuple, NoReturn
from xml.etree import ElementTree as ET

from .environment import DEV, ROOT

LOGS = DEV / "logs"
# A step that hangs would otherwise be cut off without a word by whoever runs the tests.
TIMEOUT = 3000.0
_RUNNING: set[subprocess.Popen[str]] = set()


class StepFailed(Exception):
    """A step found what it looks for; its log says what."""


class StepSkipped(Exception):
    """A step could not run here, and may be left out here."""


class Counts(NamedTuple):
    """Tests, where a step can tell them apart."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0


class Result(NamedTuple):
    """How a step ended."""

    name: str
    status: Literal["ok", "failed", "skipped"]
    seconds: float
    counts: Counts
    note: str = ""


class Log:
    """The output of one step: kept in a file, shown at once or as one piece at the end."""

    def __init__(self, name: str, *, live: bool) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.path = LOGS / f"{name}.log"
        self.note = ""  # of a step that is ok all the same: stands beside its figures at the end
        self._live = live
        self._file = self.path.open("w", encoding="utf-8", buffering=1)

    def say(self, text: str) -> None:
        """Add a line."""
        self._file.write(text + "\n")
        if self._live:
            print(text, flush=True)

    def run(
        self, *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT, quiet: bool = False
    ) -> str:
        """Run a command, return what it printed, and raise StepFailed when it exits with anything but 0.

        What is `quiet` prints for programs: people see it only when it failed.
        """
        words = [str(word) for word in command]
        self.say("$ " + " ".join(words))
        code, output = self._stream(words, {**os.environ, **(env or {})}, cwd, quiet=quiet)
        if code:
            if quiet:
                self.say(output)
            raise StepFailed(f"{Path(words[0]).name} exited with {code}")
        return output

    def _stream(self, words: Sequence[str], env: Mapping[str, str], cwd: Path, *, quiet: bool) -> tuple[int, str]:
        lines = []
        with subprocess.Popen(
            words,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            timer = threading.Timer(TIMEOUT, process.terminate)
            timer.start()
            _RUNNING.add(process)
            try:
                for line in process.stdout or ():
                    lines.append(line)
                    if not quiet:
                        self.say(line.rstrip("\n"))
            finally:
                timer.cancel()
                _RUNNING.discard(process)
        return process.returncode, "".join(lines)

    def finish(self) -> str:
        """Close the log and return what has not been shown yet."""
        self._file.close()
        return "" if self._live else self.path.read_text(encoding="utf-8")


class Step(NamedTuple):
    """One tool, or one way of testing."""

    name: str
    part: str  # what `./dev test` calls it
    lane: Literal["first", "servers", "code"]
    act: Callable[[Log], Counts | None]


def run_step(step: Step, *, live: bool) -> tuple[Result, str]:
    """Carry a step out; return how it ended and the output that is still to be shown."""
    log = Log(step.name, live=live)
    start = time.monotonic()
    status: Literal["ok", "failed", "skipped"] = "ok"
    counts, note = Counts(passed=1), ""
    try:
        counts = step.act(log) or counts
        note = log.note
    except StepSkipped as skipped:
        status, counts, note = "skipped", Counts(skipped=1), str(skipped)
    except StepFailed as failed:
        status, counts, note = "failed", Counts(failed=1), str(failed)
        if len(failed.args) > 1 and isinstance(failed.args[1], Counts):
            counts, note = failed.args[1], str(failed.args[0])
    except Exception as fault:  # a fault in the tools of the tests is a failed step too, and the others still run
        status, counts, note = "failed", Counts(failed=1), f"{type(fault).__name__}: {fault}"
    if note:
        log.say(note)
    return Result(step.name, status, time.monotonic() - start, counts, note), log.finish()


def stop_on_sigterm() -> None:
    """Pass SIGTERM on: tests that are told to stop take their servers along, tests that are left alone do not."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for process in tuple(_RUNNING):
            process.terminate()
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    # Shells start what runs in their background so that it ignores Ctrl-C, and all that it starts would, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def counts_of(report: Path) -> Counts:
    """The counts in pytest's JUnit report."""
    if not report.is_file():
        return Counts(failed=1)
    total = failed = skipped = 0
    for suite in ET.parse(report).getroot().iter("testsuite"):
        total += int(suite.get("tests", "0"))
        failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        skipped += int(suite.get("skipped", "0"))
    return Counts(total - failed - skipped, failed, skipped)


def failures_of(report: Path) -> list[str]:
    """The names of the tests that failed, or could not start, in pytest's JUnit report."""
    cases = ET.parse(report).getroot().iter("testcase")
    failed = [case for case in cases if any(found.tag in {"failure", "error"} for found in case)]
    return list(dict.fromkeys(f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}" for case in failed))
