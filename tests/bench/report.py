# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of fleets of 50, 200 and 1,000 hosts: seconds, memory and bytes of its task. README.md beside this."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.playbook import environment
from tests.playbook.results import mixed

HOSTS = [int(word) for word in os.environ.get("BENCH_HOSTS", "50 200 1000").split()]
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
# What each host has registered comes from files, as it would come from its tasks.
PLAYBOOK = """
- name: Report
  hosts: all
  gather_facts: false
  tasks:
    - name: {name}
      {action}
      run_once: true
"""
WRITE = "dbfleet.maintenance.db_report: {path: '%s'}"
NOTHING = "ansible.builtin.debug: {msg: nothing}"


# In a process of its own: the peak of memory is that of all children so far.
MEASURE = """
import json, resource, subprocess, sys, time
began = time.monotonic()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


class Cost(NamedTuple):
    """Of one ansible-playbook: seconds of the clock and of the processors, and megabytes at its peak."""

    wall: float
    cpu: float
    memory: float


def fleet(folder: Path, count: int) -> Path:
    """An inventory whose hosts have the variables that a night leaves."""
    hosts = {name: {**found, "ansible_connection": "local"} for name, found in mixed(count).items()}
    path = folder / f"{count}.yml"
    path.write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    return path


def run(inventory: Path, playbook: Path) -> Cost:
    """One run of a playbook."""
    words = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), str(playbook)]
    env = {**os.environ, **environment()}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words], check=True, env=env, stdout=subprocess.PIPE, text=True
    )
    return Cost(*json.loads(done.stdout))


def main() -> None:
    """Prints what the task adds to a playbook with the same hosts that writes nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = folder / "report.html"
        books = {}
        for what, action in (("Report", WRITE % page), ("Nothing", NOTHING)):
            books[what] = folder / f"{what}.yml"
            books[what].write_text(PLAYBOOK.format(name=what, action=action), encoding="utf-8")
        for count in HOSTS:
            inventory = fleet(folder, count)
            costs: dict[str, list[Cost]] = {what: [] for what in books}
            for _round in range(ROUNDS):
                for what, book in books.items():
                    page.unlink(missing_ok=True)
                    costs[what].append(run(inventory, book))
                    if what == "Report":
                        sizes = (page.stat().st_size, page.with_suffix(".json").stat().st_size)
            whole, nothing = (Cost(*map(statistics.median, zip(*costs[what], strict=True))) for what in books)
            added = ", ".join(f"{a - b:.2f}" for a, b in ((whole.wall, nothing.wall), (whole.cpu, nothing.cpu)))
            print(
                f"{count:5} hosts: {added} s (clock, CPU) more than {nothing.wall:.2f}, {nothing.cpu:.2f} without it; "
                f"{whole.memory:.0f} MB at the peak ({nothing.memory:.0f}); "
                f"{sizes[0] / 1024:.0f} kB page, {sizes[1] / 1024:.0f} kB data",
                flush=True,
            )


if __name__ == "__main__":
    main()
