# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev demo`: a throwaway fleet of real servers, checked, maintained, and checked again. What fills it: shop.py."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import say_bytes
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._night import URGENT
from tests.fleet import Fleet, Server, available
from tests.playbook import ROOT, Call, Played, play, steps, variables, write_inventory

from . import aging
from .shop import fill, fill_file
from .table import table

FOLDER = ROOT / ".dev" / "demo"
WIDTH = 100
# The scale of the demo: the default of 100 MB would leave tables of this size alone.
RECLAIM_MIN_SIZE = "10MB"
REINDEX_MIN_SIZE = "1MB"
ARCHIVE = FOLDER / "archive"
REPORT = FOLDER / "report.html"
OPERATIONS = ("db_cleanup", "db_vacuum", "db_reindex", "db_refresh_views")
# What the fleet is given, by host: an invalid index, a bloated one, views that are stale or empty; and indexes that
# are unused, there twice, or missing, which nobody but their owner may touch.
MUST_BE_DONE = [
    (host, f"public.{name}")
    for host in ("pg16", "pg18")
    for name in ("customers_email", "logins_token", "revenue", "best_customers")
]
MUST_BE_SAID = [
    *(
        (host, code)
        for host in ("pg16", "pg18")
        for code in ("unused_index", "duplicate_index", "missing_foreign_key_index")
    ),
    *((host, "duplicate_index") for host in ("mariadb", "mysql")),
    *((host, "redundant_index") for host in ("sensors", "archive")),
]
# Rows that leave everywhere, as (kind, table); and a partition that goes whole where there are any.
MUST_LEAVE = [
    ("delete", "django_session"),
    ("archive", "audit_log"),
    ("archive", "sales_orders"),
    ("delete", "sales_orders"),
]
Hosts = dict[str, dict[str, Any]]


def main() -> int:
    """Runs the demo; 1 when a run failed, check and run differ, or the second run changed something."""
    began = time.monotonic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    journal = FOLDER / "journal.sqlite"
    for file in FOLDER.glob("*.sqlite*"):
        file.unlink()
    shutil.rmtree(ARCHIVE, ignore_errors=True)
    REPORT.unlink(missing_ok=True)
    with Fleet() as fleet:
        hosts = start(fleet)
        inventory = write_inventory(
            FOLDER / "inventory.yml",
            hosts,
            maintenance_journal=str(journal),
            vacuum_reclaim_min_size=RECLAIM_MIN_SIZE,
            reindex_min_size=REINDEX_MIN_SIZE,
            maintenance_statistics=True,
            statistics_unused_index_age="1s",
            **aging.variables(ARCHIVE),
        )
        heading(f"The fleet is up and churned ({time.monotonic() - began:.0f} s)")
        say(f"Inventory: {inventory.relative_to(ROOT)}. Some settings are the demo's own: reclaiming begins at")
        say(f"{RECLAIM_MIN_SIZE} (vacuum_reclaim_min_size, else 100MB), reindexing at {REINDEX_MIN_SIZE} (else")
        say("10MB), an index that nobody used for a second is called unused (statistics_unused_index_age,")
        say("else 30d), and the servers' own autovacuum and automatic statistics are off, so that the churn")
        say("is still there to be seen.")
        check = run("What would be done", inventory, "--check", "--diff")
        first = run("Do it", inventory, "--diff", "-e", f"report_path={REPORT.relative_to(ROOT)}")
        again = run("And again", inventory)
    return conclude(hosts, check, first, again, time.monotonic() - began)


def start(fleet: Fleet) -> Hosts:
    """Starts the servers that are on this machine, all at once, and fills them."""
    there = available()
    makers: dict[str, Callable[[], Server]] = {
        "pg16": lambda: fleet.postgresql(16),
        "pg18": lambda: fleet.postgresql(18),
    }
    if any(name.startswith("mariadb") for name in there):
        makers["mariadb"] = fleet.mariadb
    if any(name.startswith("mysql") for name in there):
        makers["mysql"] = fleet.mysql
    files = {name: FOLDER / f"{name}.sqlite3" for name in ("sensors", "archive")}
    heading(f"Starting {', '.join(makers)} and two SQLite files")
    with ThreadPoolExecutor() as pool:
        filled = [pool.submit(filled_file, file, incremental=name == "sensors") for name, file in files.items()]
        servers = dict(zip(makers, pool.map(started, makers.values()), strict=True))
        for job in filled:
            job.result()
    hosts: Hosts = {name: variables(server) for name, server in servers.items()}
    for host in hosts.values():
        host.update(aging.variables_of_servers())
    hosts["pg18"]["vacuum_reclaim_method"] = "exclusive"
    for name, file in files.items():
        hosts[name] = {"db_engine": "sqlite", "db_databases": [str(file)]}
    hosts["archive"]["vacuum_reclaim_method"] = "exclusive"
    for name, server in servers.items():
        say(f"{name:10}{type(server).__name__} {server.version}, database shop" + asked_for(hosts[name]))
    for name, file in files.items():
        say(f"{name:10}SQLite {sqlite3.sqlite_version}, {file.name}" + asked_for(hosts[name]))
    return hosts


def started(make: Callable[[], Server]) -> Server:
    server = make()
    fill(server)
    aging.age(server)
    return server


def filled_file(path: Path, *, incremental: bool) -> None:
    fill_file(path, incremental=incremental)
    aging.age_file(path)


def asked_for(host: dict[str, Any]) -> str:
    return "; writers may wait: vacuum_reclaim_method: exclusive" if "vacuum_reclaim_method" in host else ""


def run(title: str, inventory: Path, *arguments: str) -> Played:
    """One run of the playbook, shown as it is."""
    command = ["ansible-playbook", "-i", str(inventory.relative_to(ROOT)), "playbooks/maintenance.yml", *arguments]
    heading(title)
    say("$ " + " ".join(command))
    began = time.monotonic()
    env = {
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
        "ANSIBLE_FORCE_COLOR": "1" if sys.stdout.isatty() else "0",
        "XDG_STATE_HOME": str(FOLDER),
    }
    played = play("maintenance", inventory, *arguments, env=env, show=show)
    say(f"({time.monotonic() - began:.1f} s)")
    return played


def show(line: str) -> None:
    """A line of Ansible's output, wrapped where a terminal would cut it in the middle of a word."""
    recap = re.fullmatch(r"(\S+) +: (ok=.*unreachable=.*)", line)
    if recap:
        line = f"{recap[1]:10}: " + re.sub(" {2,}", "  ", recap[2]).rstrip()
    if len(line) <= WIDTH or "\x1b" in line:
        say(line)
        return
    margin = len(line) - len(line.lstrip(" -+"))
    for part in textwrap.wrap(line, WIDTH, subsequent_indent=" " * (margin + 4), break_long_words=False):
        say(part)


def conclude(hosts: Hosts, check: Played, first: Played, again: Played, seconds: float) -> int:
    """Shows the table, and what did not hold."""
    heading("What was due, and what was done")
    order = list(hosts)
    done = sorted(worked(first), key=lambda call: (order.index(call.host), OPERATIONS.index(call.module)))
    for line in table(done):
        say(line)
    for line in left(order, again):
        say(line)
    problems = judge(hosts, check, first, again)
    found = [step for call in done for step in call.fact.get("steps", ())]
    freed = sum(step["actual"].get("bytes_freed", 0) for step in found if "rows_remaining" not in step["actual"])
    say("")
    say(f"{len(found)} steps on {len({call.host for call in done})} hosts, {say_bytes(freed)} given back.")
    rows = sum(call.fact["summary"]["rows"] for call in first.of("db_cleanup").values())
    files = list(ARCHIVE.glob("*.manifest.json"))
    say(f"{rows:,} rows deleted or archived, {len(files)} archive files below {ARCHIVE.relative_to(ROOT)}.")
    for problem in problems:
        say(f"FAILED: {problem}")
    if not problems:
        say("The check had named exactly these steps and statements.")
        say(f"The second run found nothing due on {len(hosts)} of {len(hosts)} hosts, and changed nothing.")
    say(f"{seconds:.0f} s in all.")
    say(f"The report on the fleet: {REPORT.relative_to(ROOT)}")
    return 1 if problems else 0


def worked(played: Played) -> list[Call]:
    """The calls of the modules that may change something."""
    return [call for module in OPERATIONS for call in played.of(module).values()]


def judge(hosts: Hosts, check: Played, first: Played, again: Played) -> list[str]:
    """What a demo must show, and did not."""
    runs = {"the check": check, "the run": first, "the second run": again}
    problems = [f"{name} exited with {played.code}" for name, played in runs.items() if played.code]
    if steps(check.calls) != steps(first.calls):
        different = set(steps(check.calls)) ^ set(steps(first.calls))
        problems.append(f"check and run differ: {sorted(different)[:3]}")
    if set(first.of("db_vacuum")) != set(hosts):
        problems.append("nothing was due on " + ", ".join(sorted(set(hosts) - set(first.of("db_vacuum")))))
    problems += [f"{call.host}: the second run had something to do: {call.module}" for call in worked(again)]
    problems += [f"{call.host}: {step['kind']} of {step['object']} is {what}" for call, step, what in unhappy(first)]
    if not REPORT.is_file():
        problems.append(f"there is no report {REPORT.relative_to(ROOT)}")
    for host, name in MUST_BE_DONE:
        if host in hosts and name not in {
            s["object"] for c in worked(first) if c.host == host for s in c.fact["steps"]
        }:
            problems.append(f"{host}: {name} was not cured")
    problems += stayed(hosts, first)
    for host, code in MUST_BE_SAID:
        if host in hosts and code not in {f["code"] for f in again.of("db_assess_facts")[host].fact["findings"]}:
            problems.append(f"{host}: no finding {code}")
    return problems


def stayed(hosts: Hosts, first: Played) -> list[str]:
    """What should have left, and has not."""
    problems = []
    for host, given in hosts.items():
        left = [(s["kind"], s["object"]) for c in worked(first) if c.host == host for s in c.fact["steps"]]
        missing = {f"{kind} of {name}" for kind, name in MUST_LEAVE if (kind, name) not in _plain(left)}
        if given["db_engine"] != "sqlite" and "drop_partition" not in dict(left):
            missing.add("drop_partition of events")
        problems += [f"{host}: there was no {what}" for what in sorted(missing)]
    return problems


def _plain(steps: list[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(kind, name.removeprefix("public.")) for kind, name in steps}


def left(order: list[str], again: Played) -> list[str]:
    """What no step cured: findings that someone has to look at, and all recommendations."""
    lines = []
    for call in sorted(again.of("db_assess_facts").values(), key=lambda call: order.index(call.host)):
        stats = call.result["ansible_facts"]["db_stats"]
        advice = [(f["code"], f["object"]) for f in stats["recommendations"]]
        for finding in call.fact.get("findings", ()):
            if finding["priority"] <= URGENT or (finding["code"], finding["object"]) in advice:
                words = f"{call.host}: {finding['object']}: {finding['message']}"
                lines += textwrap.wrap(words, WIDTH, subsequent_indent="    ")
                lines += textwrap.wrap(finding["fix"] or "", WIDTH, initial_indent="    ", subsequent_indent="    ")
    return ["", "Left to you, with what would help:", *lines] if lines else []


def unhappy(first: Played) -> list[tuple[Call, dict[str, Any], str]]:
    """Steps that were not done, or that did not help."""
    return [
        (call, step, step["status"] if step["status"] != "done" else "not proven")
        for call in worked(first)
        for step in call.fact.get("steps", ())
        # MySQL and MariaDB may be faster to analyze a new archive.
        if (step["status"] != "done" or step["proven"] is not True) and step["error"] != "no longer due"
    ]


def heading(text: str) -> None:
    say("")
    say(f"== {text} ".ljust(WIDTH, "="))


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
