# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A healthy fleet's whole maintenance.yml against one trivial module task on the same hosts: README.md beside this."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.demo.shop import fill_file
from tests.fleet import Fleet, Server, available
from tests.playbook import environment, play, variables, write_inventory

HOSTS = int(os.environ.get("BENCH_HOSTS", "50"))
FORKS = int(os.environ.get("BENCH_FORKS", "5"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
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
Hosts = dict[str, dict[str, Any]]


def hosts_of(fleet: Fleet, folder: Path) -> Hosts:
    """HOSTS inventory hosts over a few servers and files, each with a database of its own."""
    servers: list[Server] = [fleet.postgresql(16), fleet.postgresql(18)]
    if any(name.startswith("mariadb") for name in available()):
        servers.append(fleet.mariadb())
    hosts: Hosts = {}
    for number in range(HOSTS):
        name = f"host{number:02}"
        if number % (len(servers) + 1) == len(servers):
            file = folder / f"{name}.sqlite3"
            fill_file(file, incremental=True)
            hosts[name] = {"db_engine": "sqlite", "db_databases": [str(file)]}
        else:
            server = servers[number % (len(servers) + 1)]
            fill(server, name)
            hosts[name] = {**variables(server), "db_databases": [name]}
    return hosts


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
    """Seconds of the clock, and of the processors: the servers' share is not in it."""

    wall: float
    cpu: float


def cost(act: Callable[[], None]) -> Cost:
    """What it costs to run another program to its end."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    act()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def show(found: dict[str, list[Cost]]) -> None:
    """Medians, and their ratios."""
    medians = {what: Cost(*map(statistics.median, zip(*costs, strict=True))) for what, costs in found.items()}
    for what, costs in found.items():
        walls = [c.wall for c in costs]
        median = medians[what]
        print(f"{what:12} {median.wall:6.2f} s ({min(walls):.2f} to {max(walls):.2f}), {median.cpu:6.2f} s of CPU")
    wall, cpu = (medians["maintenance"][i] / medians["trivial"][i] for i in (0, 1))
    print("a healthy fleet's maintenance.yml against one trivial task (to be at most 2 times, aim 1.5):")
    print(f"{wall:.2f} times the time, {cpu:.2f} times the CPU")


def main() -> None:
    """Prints both medians and their ratio; fails where a host was not healthy."""
    with Fleet() as fleet, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hosts = hosts_of(fleet, folder)
        where = write_inventory(folder / "inventory.yml", hosts, maintenance_journal=str(folder / "journal.sqlite"))
        trivial = folder / "trivial.yml"
        trivial.write_text(TRIVIAL, encoding="utf-8")
        forks = f"--forks={FORKS}"
        command = [sys.executable, "-m", "ansible", "playbook", "-i", str(where), forks]
        env = {**os.environ, **environment()}

        def run(playbook: str) -> None:
            subprocess.run([*command, playbook], env=env, check=True, stdout=subprocess.DEVNULL)

        for _attempt in range(2):
            healthy = play("maintenance", where, forks)
        if healthy.code or healthy.of("db_vacuum") or len(healthy.of("db_assess_facts")) != HOSTS:
            raise SystemExit(f"the fleet is not healthy:\n{healthy.text[-3000:]}")
        servers = ", ".join(sorted({f"{type(s).__name__} {s.version}" for s in fleet.servers}))
        print(f"{HOSTS} hosts on {servers} and SQLite, {FORKS} forks, {ROUNDS} rounds", flush=True)
        found: dict[str, list[Cost]] = {"trivial": [], "maintenance": []}
        for _round in range(ROUNDS):
            found["trivial"].append(cost(lambda: run(str(trivial))))
            found["maintenance"].append(cost(lambda: run("playbooks/maintenance.yml")))
    show(found)


if __name__ == "__main__":
    main()
