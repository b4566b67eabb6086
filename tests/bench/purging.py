# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks of db_cleanup have in common: running it as a process of its own. Nothing is measured here."""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.fleet import Server

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
DATABASE = "bench"
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "log_statement": "none", "maintenance_work_mem": "128MB"}
Result = dict[str, Any]


class Cleaned(NamedTuple):
    """A run of db_cleanup."""

    steps: list[Result]
    seconds: float  # of the process, start-up and vacuum afterwards included
    peak: int  # bytes of resident memory

    def taken(self, *kinds: str) -> float:
        """Seconds of the steps of these kinds."""
        return float(sum(s["actual"].get("seconds", 0) for s in self.steps if s["kind"] in kinds))

    def rows(self, *kinds: str) -> int:
        return int(sum(s["actual"].get("rows", 0) for s in self.steps if s["kind"] in kinds))

    @property
    def purging(self) -> float:
        """Seconds of the whole process without the vacuum and analyze that it did afterwards."""
        return self.seconds - self.taken("vacuum", "analyze", "freeze")


def options(server: Server, *rules: Mapping[str, Any], **more: Any) -> Result:
    """For a run without a journal: each begins anew."""
    found = {"name": "old", "table": "t", "date_column": "at", "refuse_over_percent": 100}
    given = [{**found, **rule} for rule in rules]
    return {**server.login(), "databases": [DATABASE], "rules": given, "journal": "none", **more}


def clean(given: Mapping[str, Any], stop: threading.Event | None = None) -> Cleaned:
    """Runs it to its end, or until it is told to stop; SystemExit where it failed."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.module_runner", "db_cleanup"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    ) as child:
        words = {"ANSIBLE_MODULE_ARGS": {**given, "_ansible_remote_tmp": "/tmp"}}
        if child.stdin:
            child.stdin.write(json.dumps(words))
            child.stdin.close()
            child.stdin = None
        peak, stopped, ended = 0, False, os.pidfd_open(child.pid)
        # Nothing is read meanwhile: what it says fits into a pipe. Looking more often would take from what is measured.
        while child.poll() is None:
            peak = max(peak, _peak(child.pid))
            select.select([ended], [], [], 0.025 if stop is None else 0.1)
            if stop is not None and stop.is_set() and not stopped:
                stopped = True
                child.send_signal(signal.SIGTERM)
        took = time.monotonic() - began
        os.close(ended)
        text = child.stdout.read() if child.stdout else ""
    if stopped and not text.strip().startswith("{"):
        return Cleaned([], took, peak)  # it was not told what to do yet
    result = json.loads(text.strip().splitlines()[-1]) if text.strip().startswith("{") else {}
    if result.get("failed", True) and not result.get("ansible_facts"):
        raise SystemExit(f"db_cleanup failed: {text[-3000:]}")
    steps = result["ansible_facts"]["db_cleanup"]["steps"]
    bad = [s for s in steps if s["status"] not in (("done", "skipped", "deferred") if stopped else ("done", "skipped"))]
    if bad or not (steps or stop):
        raise SystemExit(f"not done: {bad or result['ansible_facts']['db_cleanup']['findings']}")
    return Cleaned(steps, took, peak)


def _peak(pid: int) -> int:
    """The most memory that the process has had since it began; its own, not that of whoever started it."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("VmHWM")), 0)


def seconds(act: Callable[[], Any]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def told(name: str, values: list[float], unit: str) -> float:
    """Prints and returns the median."""
    middle = statistics.median(values)
    print(f"{name:34} median {middle:12,.2f} {unit}   ({min(values):,.2f} to {max(values):,.2f})", flush=True)
    return middle
