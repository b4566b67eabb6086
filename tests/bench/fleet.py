# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Healthy fleets' whole maintenance.yml against one trivial module task on the same hosts: README.md beside this."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tests.demo.shop import fill_file
from tests.fleet import Fleet, Server, available
from tests.playbook import ROOT, environment, play, variables, write_inventory

HOSTS = [int(word) for word in os.environ.get("BENCH_HOSTS", "50 200 1000").split()]
ROUNDS = [int(word) for word in os.environ.get("BENCH_ROUNDS", "5 2 1").split()]  # of each fleet; the last goes on
FORKS = int(os.environ.get("BENCH_FORKS", "5"))
DATABASES = int(os.environ.get("BENCH_DATABASES", "50"))
TABLES = 20
TRIVIAL = """
- name: Trivial
  hosts: all
  gather_facts: false
  strategy: ansible.builtin.host_pinned
  tasks:
    - name: One module
      ansible.builtin.ping:
"""
WANTED = 2.5
TICK = os.sysconf("SC_CLK_TCK")
Hosts = dict[str, dict[str, Any]]


def databases_of(fleet: Fleet, folder: Path) -> list[dict[str, Any]]:
    """What hosts have: databases over a few servers and files in turn, as many as the largest fleet has use for."""
    servers: list[Server] = [fleet.postgresql(16), fleet.postgresql(18)]
    if any(name.startswith("mariadb") for name in available()):
        servers.append(fleet.mariadb())
    found: list[dict[str, Any]] = []
    for number in range(min(max(HOSTS), DATABASES)):
        name = f"db{number:03}"
        if number % (len(servers) + 1) == len(servers):
            file = folder / f"{name}.sqlite3"
            fill_file(file, incremental=True)
            found.append({"db_engine": "sqlite", "db_databases": [str(file)]})
        else:
            server = servers[number % (len(servers) + 1)]
            fill(server, name)
            found.append({**variables(server), "db_databases": [name]})
    return found


def fill(server: Server, database: str) -> None:
    """TABLES small tables with statistics."""
    server.sql(f"CREATE DATABASE {database}")
    rows = "(1, 'one'), (2, 'two'), (3, 'three')"
    text = "".join(
        f"CREATE TABLE t{n} (id int PRIMARY KEY, note varchar(20)); INSERT INTO t{n} VALUES {rows};"
        for n in range(TABLES)
    )
    analyze = "".join(f"ANALYZE TABLE t{n};" for n in range(TABLES))
    server.script(text + ("ANALYZE;" if server.engine == "postgresql" else analyze), database=database)


class Cost(NamedTuple):
    """Of one ansible-playbook: seconds of the clock, and of processors without the servers' share."""

    wall: float
    cpu: float
    main: float  # the main process's own
    memory: float  # megabytes of the main process at its peak


def cost(words: Sequence[str], out: Path) -> Cost:
    """What it costs to run this to its end; what it prints goes into a file. SystemExit when it fails."""
    began = time.monotonic()
    with out.open("wb") as file:
        process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, **environment()}, stdout=file)
    peak = own = 0.0
    # The figures of one process go with it, and what waits for it gets those of its children, too: it is looked at.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak, own = max(peak, resident(process.pid)), max(own, seconds(process.pid))
        time.sleep(0.1)
    own = max(own, seconds(process.pid))
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{out.read_text(errors='replace')[-3000:]}")
    return Cost(time.monotonic() - began, used.ru_utime + used.ru_stime, own, peak)


def resident(pid: int) -> float:
    """Megabytes of memory at the peak so far (VmHWM); 0 of a process that is just ending."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def seconds(pid: int) -> float:
    """Of processors, without those of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Bench:
    """A fleet's folder, and the two playbooks."""

    def __init__(self, folder: Path, databases: Sequence[dict[str, Any]]) -> None:
        self._folder, self._databases = folder, databases
        self._trivial, self._out = folder / "trivial.yml", folder / "out.txt"
        self._trivial.write_text(TRIVIAL, encoding="utf-8")

    def inventory(self, count: int) -> Path:
        """Of so many hosts, all of one journal, which take turns with the databases where they are more."""
        hosts = {f"host{number:04}": self._databases[number % len(self._databases)] for number in range(count)}
        journal = str(self._folder / "journal.sqlite")
        return write_inventory(self._folder / f"{count}.yml", hosts, maintenance_journal=journal)

    def heal(self) -> None:
        """Nothing is due in any database afterwards: two runs, since what is new is analyzed by the first."""
        where, count = self.inventory(len(self._databases)), len(self._databases)
        for _attempt in range(2):
            healthy = play("maintenance", where, f"--forks={FORKS}")
        if healthy.code or healthy.of("db_vacuum") or len(healthy.of("db_assess_facts")) != count:
            raise SystemExit(f"the fleet is not healthy:\n{healthy.text[-3000:]}")

    def measure(self, count: int, rounds: int) -> dict[str, Cost]:
        """Medians of both playbooks."""
        where = self.inventory(count)
        page = self._folder / "report.html"
        command = [sys.executable, "-m", "ansible", "playbook", "-i", str(where), f"--forks={FORKS}"]
        books = {
            "trivial": [str(self._trivial)],
            "maintenance": [str(ROOT / "playbooks" / "maintenance.yml"), "-e", f"report_path={page}"],
        }
        found: dict[str, list[Cost]] = {what: [] for what in books}
        for _round in range(rounds):
            for what, words in books.items():
                page.unlink(missing_ok=True)
                found[what].append(cost([*command, *words], self._out))
            said = self._out.read_text(errors="replace")
            if said.count(": nothing due") != count or not page.exists():
                raise SystemExit(f"not all of {count} hosts were healthy:\n{said[-3000:]}")
        return {what: Cost(*map(statistics.median, zip(*costs, strict=True))) for what, costs in found.items()}


def show(count: int, rounds: int, trivial: Cost, whole: Cost) -> None:
    """A line of the curve."""
    print(
        f"{count:6} {rounds:6} {trivial.wall:9.2f} {whole.wall:8.2f} {whole.wall / trivial.wall:6.2f} "
        f"{trivial.cpu:9.2f} {whole.cpu:8.2f} {whole.cpu / trivial.cpu:6.2f} "
        f"{trivial.main:9.2f} {whole.main:8.2f} {trivial.memory:9.0f} {whole.memory:8.0f}",
        flush=True,
    )


def main() -> None:
    """Prints both sides and their ratio for each size of the fleet; fails where a host was not healthy."""
    with Fleet() as fleet, tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), databases_of(fleet, Path(name)))
        bench.heal()
        servers = ", ".join(sorted({f"{type(s).__name__} {s.version}" for s in fleet.servers}))
        print(f"{FORKS} forks; databases on {servers} and SQLite")
        print("one trivial task | maintenance.yml, a report written by it | their ratio")
        print("              seconds of the clock     seconds of processors         main process's   its megabytes")
        print(" hosts rounds   trivial    whole  ratio   trivial    whole  ratio   trivial    whole   trivial    whole")
        curve: dict[int, tuple[Cost, Cost]] = {}
        for number, count in enumerate(HOSTS):
            times = ROUNDS[min(number, len(ROUNDS) - 1)]
            found = bench.measure(count, times)
            curve[count] = found["trivial"], found["maintenance"]
            show(count, times, *curve[count])
    worst = max(whole.wall / trivial.wall for trivial, whole in curve.values())
    print(f"at most {worst:.2f} times one trivial task; wanted: {WANTED}{'' if worst <= WANTED else ', NOT REACHED'}")
    linear(curve)


def linear(curve: dict[int, tuple[Cost, Cost]]) -> None:
    """What one more host costs, between one size and the next: the same everywhere where it grows linearly."""
    sizes = sorted(curve)
    for less, more in pairwise(sizes):
        before, after = curve[less][1], curve[more][1]
        each = [(b - a) / (more - less) * 1000 for a, b in zip(before, after, strict=True)]
        print(
            f"a host more, from {less} to {more}: {each[0]:.0f} ms of the clock, {each[1]:.0f} ms of processors, "
            f"{each[2]:.0f} ms of the main process, {each[3]:.0f} kB of its memory"
        )


if __name__ == "__main__":
    main()
