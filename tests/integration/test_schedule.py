# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role schedule: what it puts where, that it is removed again, and that what it wrote runs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.playbook import ROOT, Played, environment, play

from .playing import churned, said, write_hosts

# The crontab of whoever runs the tests is left alone: this one keeps its lines in a file.
CRONTAB = """\
#!/bin/sh
case "$1" in
    -l) cat "$CRONTAB_FILE" 2>/dev/null || { echo "no crontab for $(id -un)" >&2; exit 1; } ;;
    -r) rm -f "$CRONTAB_FILE" ;;
    -) cat >"$CRONTAB_FILE" ;;
    *) cat "$1" >"$CRONTAB_FILE" ;;
esac
"""
OTHERS = "# somebody else's\n5 4 * * * /usr/local/bin/other --percent 100\\%\n"
SECRET = "correct horse"
# A part of the usual plan: each job costs time.
STATISTICS = {"name": "statistics", "playbook": "dbfleet.maintenance.assess", "at": "15 */4 * * *"}
NIGHT = {"name": "night", "playbook": "dbfleet.maintenance.maintenance", "at": "0 2 * * sun", "lock": "maintenance"}
DRILL = {"name": "drill", "playbook": "dbfleet.maintenance.restore_drill", "at": "0 10 * * sat"}


class Desk:
    """A control node whose crontab, units, scripts and logs lie in one folder."""

    def __init__(self, folder: Path, inventory: Path) -> None:
        self.folder, self.inventory = folder, inventory
        self.jobs, self.units, self.logs = folder / "jobs 100%", folder / "units", folder / "logs"
        self.crontab, self.given = folder / "crontab.txt", folder / "given.json"
        programs = folder / "bin"
        programs.mkdir()
        (programs / "crontab").write_text(CRONTAB)
        (programs / "ansible-playbook").write_text(f'#!/bin/sh\nexec {sys.executable} -m ansible playbook "$@"\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        self.env = {"PATH": f"{programs}:{os.environ['PATH']}", "CRONTAB_FILE": str(self.crontab)}

    def schedule(self, *arguments: str, **variables: object) -> Played:
        given = {
            "schedule_dir": str(self.jobs),
            "schedule_unit_dir": str(self.units),
            "schedule_log_dir": str(self.logs),
            "schedule_project": str(ROOT),
            "schedule_activate": False,
            "schedule_random_delay": 0,
            "schedule_plan": [STATISTICS, NIGHT],
            "schedule_jobs": [{"name": "statistics", "vars": {"some_password": SECRET}}],
            **variables,
        }
        self.given.write_text(json.dumps(given))
        words = ("--diff", "-vv", "-e", f"@{self.given}", *arguments)
        env = {**self.env, "ANSIBLE_ACTION_PLUGINS": str(ROOT / "tests" / "playbook" / "in_process")}
        played = play("schedule", self.inventory, *words, env=env)
        assert SECRET not in played.text
        return played

    def lines(self) -> list[str]:
        return self.crontab.read_text().splitlines() if self.crontab.exists() else []

    def files(self) -> dict[str, bytes]:
        """All that is below the folder, but logs and what the role is given."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and self.logs not in path.parents)
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found if path != self.given}

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **environment(), **self.env}
        return subprocess.run([self.jobs / f"{name}.sh"], env=env, check=False, capture_output=True, text=True)


@pytest.fixture
def desk(tmp_path: Path, lite: Callable[[str], Path]) -> Desk:
    return Desk(tmp_path, write_hosts(tmp_path, churned(lite, "file")))


def test_the_crontab_is_kept_and_timers_take_its_place(desk: Desk) -> None:
    """One thing after the other on one desk: each run of the role costs seconds."""
    desk.crontab.write_text(OTHERS)
    before = desk.files()
    checked = desk.schedule("--check")
    assert checked.code == 0 and checked.recap("localhost")["changed"], said(checked)
    assert desk.files() == before
    assert desk.schedule().code == 0
    own = [line for line in desk.lines() if "/jobs" in line]
    assert len(own) == 2
    (night,) = [line for line in own if line.endswith("night.sh'")]
    assert night.startswith("0 2 * * sun '/") and "100\\%/" in night
    for path in desk.jobs.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.suffix == ".sh" else 0o600)
    after = desk.files()
    again = desk.schedule()
    assert again.recap("localhost")["changed"] == 0, said(again)
    assert desk.files() == after
    # Another kind, and one job less: nothing else goes.
    assert desk.schedule(schedule_with="systemd", schedule_jobs=[{"name": "statistics", "enabled": False}]).code == 0
    assert desk.crontab.read_text() == OTHERS
    assert [path.name for path in desk.jobs.glob("*.sh")] == ["night.sh"]
    assert sorted(path.name for path in desk.units.iterdir()) == ["dbfleet-night.service", "dbfleet-night.timer"]
    assert "OnCalendar=Sun *-*-* 02:00:00" in (desk.units / "dbfleet-night.timer").read_text()
    if shutil.which("systemd-analyze"):
        env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{desk.units}:"}
        command = ["systemd-analyze", "verify", *(str(path) for path in desk.units.iterdir())]
        done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
        assert done.returncode == 0 and "dbfleet" not in done.stderr, done.stderr
    assert desk.schedule(schedule_with="systemd", schedule_state="absent").code == 0
    assert list(desk.units.iterdir()) == list(desk.jobs.iterdir()) == []
    assert desk.crontab.read_text() == OTHERS


def test_what_it_wrote_runs(desk: Desk) -> None:
    assert desk.schedule(schedule_plan=[STATISTICS, NIGHT, DRILL]).code == 0
    ran = desk.run("statistics")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    (log,) = desk.logs.glob("statistics-*.log")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "PLAY RECAP" in log.read_text() and "file " in log.read_text()
    # A job of its kind is at work: it does not begin; the others do.
    with (desk.logs / "locks" / "maintenance.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ran = desk.run("night")
        assert ran.returncode == 75 and "still at work" in ran.stderr
    assert not list(desk.logs.glob("night-*.log"))
    # A run that fails says so, and where to look.
    ran = desk.run("drill")
    (log,) = desk.logs.glob("drill-*.log")
    assert ran.returncode not in (0, 75) and str(log) in ran.stderr


def test_a_host_gets_jobs_for_itself(desk: Desk) -> None:
    assert desk.schedule(schedule_where="host").code == 0
    assert "--connection local --limit file" in (desk.jobs / "night.sh").read_text()


def test_a_wrong_job_is_refused_before_anything_is_touched(desk: Desk) -> None:
    before = desk.files()
    played = desk.schedule(schedule_jobs=[{"name": "night", "att": "0 5 * * *"}])
    assert played.code and "0 5 * * *" in played.text
    assert desk.files() == before
