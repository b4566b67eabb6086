# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job that goes on alone, and who follows it: with a real shell and real processes, and no host but this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.host import birth
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._following import Follower, Job, job_of, line

SAID = {
    "stage": "working",
    "address": "localhost:5432",
    "steps": {"total": 5, "done": 2, "failed": 1},
    "running": [
        {
            "kind": "vacuum",
            "database": "shop",
            "object": "public.orders",
            "phase": "scanning heap",
            "percent": 43.21,
            "rows": 1204,
            "rows_planned": 2000,
            "seconds": 61.0,
            "seconds_left": 185.0,
            "left_at_least": True,
        },
        {"kind": "dump", "database": "shop", "object": "shop", "bytes": 3 << 20, "seconds": 7.2, "seconds_left": None},
    ],
}


class Lost(Exception):
    """The connection."""


def test_a_line_names_steps_phases_shares_rows_bytes_and_remaining_time() -> None:
    assert line(SAID) == (
        "3 of 5 steps (1 failed); vacuum of public.orders: scanning heap, 43 %, 1,204 of 2,000 rows, "
        "more than 3 min 5 s left; dump of shop: 3.0 MB, for 7 s"
    )
    assert line({"stage": "measuring"}) == "measuring"
    waiting = {"stage": "waiting", "note": "another run is at work here", "others": [{**SAID, "running": []}]}
    assert line(waiting) == "waiting: another run is at work here; 3 of 5 steps (1 failed)"


def test_a_job_is_known_by_what_the_module_says() -> None:
    facts = {"pid": 7, "born": "123", "result": "/a b/x.result", "progress": "/a b/7.progress"}
    said = "Welcome to this host!\n" + json.dumps({"changed": False, "dbfleet_job": facts}) + "\n"
    job = job_of(said)
    assert job == Job(7, "123", "/a b/x.result", "/a b/7.progress")
    for other in ("", '{"changed": false}', '{"dbfleet_job": 7}', '{"dbfleet_job": {"pid": 7, "born": "1; rm"}}'):
        assert job_of(other) is None


class Worker:
    """A process that ends when it is told, and its files."""

    def __init__(self, folder: Path) -> None:
        self.result, self.progress = folder / "a 'quoted' name.result", folder / "1.progress"
        self.result.touch()
        code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read()); sys.stdin.close()"
        self.process = subprocess.Popen([sys.executable, "-c", code, str(self.result)], stdin=subprocess.PIPE)
        self.job = Job(self.process.pid, birth(self.process.pid), str(self.result), str(self.progress))

    def end(self, said: str) -> None:
        """It is not waited for: nobody may bury the job for a while."""
        assert self.process.stdin
        self.process.stdin.write(said.encode())
        self.process.stdin.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    if made.process.stdin:
        made.process.stdin.close()


def asked(command: str) -> str:
    return subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True, text=True).stdout


def follower(job: Job, ask: Callable[[str], str] = asked, **more: Any) -> Follower:
    settings: dict[str, Any] = {"show": None, "every": 0.0, "lost": Lost, "patience": 60.0, "sleep": lambda _s: None}
    return Follower(job, ask=ask, **{**settings, **more})


def test_the_result_is_what_the_job_wrote_and_nothing_is_left(worker: Worker) -> None:
    worker.progress.write_text(json.dumps(SAID), encoding="utf-8")
    shown: list[Any] = []

    def show(said: Any) -> None:
        shown.append(said)
        worker.end('{"changed": true}\n')

    assert follower(worker.job, show=show).result() == '{"changed": true}', "and nobody has buried it"
    assert shown == [SAID]
    assert not worker.result.exists()
    assert not worker.progress.exists()


def test_a_job_that_was_killed_is_a_failure_that_says_what_it_was_at(worker: Worker) -> None:
    worker.progress.write_text(json.dumps(SAID), encoding="utf-8")
    found = json.loads(follower(worker.job, show=lambda _said: worker.process.kill()).result())
    assert (found["failed"], found["changed"]) == (True, True)
    assert f"process {worker.job.pid}" in found["msg"]
    assert "vacuum of public.orders" in found["msg"]


def test_another_process_with_its_number_is_not_the_job(worker: Worker) -> None:
    gone = worker.job._replace(born="1")
    assert json.loads(follower(gone).result())["failed"]


def test_a_host_that_is_out_of_reach_is_tried_again_and_the_job_picked_up(worker: Worker) -> None:
    times = iter(range(1, 5))
    resets: list[int] = []

    def ask(command: str) -> str:
        if next(times, None):
            raise Lost("no route to host")
        if worker.process.poll() is None and worker.process.stdin and not worker.process.stdin.closed:
            worker.end('{"changed": false}')
        return asked(command)

    assert follower(worker.job, ask, reset=lambda: resets.append(1)).result() == '{"changed": false}'
    assert len(resets) == 4


def test_patience_ends_and_says_where_the_result_will_be(worker: Worker) -> None:
    def ask(_command: str) -> str:
        raise Lost("no route to host")

    clock = iter(range(0, 1000, 25))
    with pytest.raises(Lost, match=rf"no route to host\. It goes on there as process {worker.job.pid}.*\.result"):
        follower(worker.job, ask, now=lambda: next(clock)).result()
