# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills db_backup that has pgBackRest make backups, and looks at what is one then: in its repository and in our folder.

Whatever happens: what was kept before is whole, what is not complete is noted nowhere, no program works on and no lock
stays, what pgBackRest had made before the run could note it is taken up, and the next run leaves no trace.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Sheltered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backup_manifest import write_manifest
from tests.fleet import Fleet, Missing
from tests.integration.pg_backrest import Kept

from .backup_gates import ANY
from .backup_site_gates import arm
from .backup_site_servers import MAJOR
from .offspring import Offspring
from .process import Run, Stop
from .table import Broken, Cell, How

ENGINE = "repository"
KIND = "pgbackrest"
PATIENCE = 20.0  # seconds in which what a run that died has started must have ended
NOW, HOURLY = {"min_interval": "0s"}, {"min_interval": "1h"}
PHASES = ("asked", "at work", "ended", "unrecorded", "recorded", "manifest half", "verifying", "verified", ANY)
TWICE = ("asked", "at work", "ended", "recorded", "manifest half")  # when it is made, and when it is verified
WITH_CLIENT = ("at work", ANY)
FOREIGN = "20200101T000000Z-abcdef.dump"
SENDERS = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'pgBackRest%'"
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = '{}'"


class Repository:
    """A server, what pgBackRest keeps of it, and the folder of our manifests. All of it lasts from test to test."""

    def __init__(self, fleet: Fleet, how: How) -> None:
        for program in ("pgbackrest", "setpriv"):
            if shutil.which(program) is None:
                raise Missing(program)
        self._how, self._kept = how, Kept(fleet, MAJOR)
        # A busy machine archives late; and a program of several processes is more to be ended.
        self._kept.configure(archive_timeout=3 * PATIENCE, process_max=2)
        self._kept.server.sql("CREATE TABLE t AS SELECT i, repeat('x', 400) AS v FROM generate_series(1, 20000) i")
        self._case = fleet.folder("manifests")
        self._folder, self._traces = self._case / "backups", self._case / "traces"
        self._traces.mkdir()
        self._traces.chmod(0o711)
        self._seen = set[str]()  # labels of backups that were complete once
        self._offspring = Offspring()
        self._lasted = 3.0  # seconds, of a run that was not disturbed
        self._run("first", NOW).result()
        (self._folder / "_server" / FOREIGN).write_text("not ours")

    @property
    def version(self) -> str:
        return f"{self._kept.server.version}, {self._kept.call('version').strip()}"

    def cells(self) -> Iterator[Cell]:
        for phase in PHASES:
            yield Cell(ENGINE, KIND, phase, "killed")
            if phase in WITH_CLIENT:
                yield Cell(ENGINE, KIND, phase, "client killed")
            if phase == "at work":
                yield Cell(ENGINE, KIND, phase, "session ended")

    def recover(self) -> None:
        """A repository that is broken stays so: the next one begins with a full backup."""
        self._offspring.end()
        self._run("recovered", NOW).result()

    def hit(self, cell: Cell, number: int) -> bool:
        number += self._how.seed
        earlier = self._labels()[-1]
        more = {**NOW, **({"full_interval": "30d"} if number % 2 else {})}
        # Every other time pgBackRest would wait for the log for longer than we do: what works on is seen.
        with self._waiting() if cell[2:] == ("at work", "killed") and number % 2 else nullcontext():
            hit = self._first(cell, number, more)
            self._ended()
        kept = self._whole(earlier, "after the hit")
        self._next(kept, earlier, more)
        self._ended()
        kept = self._whole(earlier, "after the next run")
        # What pgBackRest has expired meanwhile is not ours to know any more.
        self._run("third", HOURLY).result()
        self._clean()
        if self._run("fourth", HOURLY, check=True).result()["changed"] or self._labels() != kept:
            raise Broken("the runs after the next one have something to do")
        return hit

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Nothing is archived meanwhile."""
        server = self._kept.server
        command = server.settings["archive_command"]
        server.settings["archive_command"] = "false pgbackrest"
        server.reload()
        try:
            yield
        finally:
            server.settings["archive_command"] = command
            server.reload()

    # ---- runs ----

    def _run(self, output: str, more: Mapping[str, str], stop: Stop | None = None, *, check: bool = False) -> Run:
        server = self._kept.server
        options = {**server.login(), "bin_dir": str(server.installation.bin_dir), "journal": "none"}
        options.update(method="pgbackrest", backup_dir=str(self._folder), pgbackrest_config=str(self._kept.config))
        mutant = self._how.mutant if stop else ""
        return Run(
            "db_backup",
            {**options, **more},
            self._case / output,
            arm=lambda gate: arm(gate, mutant),
            stop=stop,
            check=check,
            traces=self._traces,
        )

    def _first(self, cell: Cell, number: int, more: dict[str, str]) -> bool:
        dice = random.Random(f"{number} {cell}")
        run = self._run("first", more, Stop(cell.phase, 1 + (cell.phase in TWICE and number % 4 == 2)))
        try:
            hit = not run.ends(dice.uniform(0.02, self._lasted)) if cell.phase == ANY else run.stops(180)
            if cell.phase == "at work":  # it goes on while the run stands still
                time.sleep(dice.uniform(0, self._lasted / 2))
            if hit:
                hit = self._strike(cell.means, run, number)
                if cell.phase != ANY and cell.means != "killed":
                    run.go()
            run.end()
        finally:
            run.dispose()
        return hit

    def _strike(self, means: str, run: Run, number: int) -> bool:
        """Whether there was something to be killed."""
        if means == "killed":
            run.kill()
            return True
        if means == "client killed":
            return self._offspring.kill_one(run.pid, number)
        return bool(self._kept.server.sql(END.format("client backend")))

    def _next(self, kept: list[str], earlier: str, more: dict[str, str]) -> None:
        """What was made and not noted is verified; where nothing was made, another one is."""
        made = kept[-1] != earlier
        if made:  # what is young and verified would do
            for backup in self._manifests():
                if backup.about["label"] != kept[-1]:
                    write_manifest(backup._replace(level="", verified_at=None))
        began = time.monotonic()
        told = self._run("next", {**more, **(HOURLY if made else NOW)}).result()
        self._lasted = self._lasted if made else time.monotonic() - began
        labels = self._labels()
        if made and labels[-1] != kept[-1]:
            raise Broken(f"{kept[-1]} was not taken up: another backup was made, {labels[-1]}")
        if not made and labels[-1] == earlier:
            raise Broken("the next run has made no backup")
        newest = self._manifests()[-1]
        if newest.about["label"] != labels[-1] or newest.level != "decode":
            raise Broken(f"{labels[-1]} is not noted as verified: {newest.about['label']} is {newest.level}, {told}")

    # ---- what is there ----

    def _stanza(self) -> dict[str, Any]:
        (found,) = json.loads(self._kept.call("info", "--output=json"))
        return dict(found)

    def _labels(self) -> list[str]:
        """Of what pgBackRest calls a backup."""
        found = self._stanza()
        if found["status"]["code"] or found["status"]["lock"]["backup"]["held"]:
            raise Broken(f"pgBackRest says of its repository: {found['status']}")
        wrong = [each["label"] for each in found["backup"] if each.get("error")]
        if wrong:
            raise Broken(f"pgBackRest says of backups that they are damaged: {wrong}")
        labels = [str(each["label"]) for each in found["backup"]]
        self._seen.update(labels)
        return labels

    def _manifests(self) -> tuple[Backup, ...]:
        shelf = backups.look(Sheltered(str(self._folder)))
        if shelf.why_not or shelf.broken:
            raise Broken(f"not all manifests are whole: {shelf.why_not} {shelf.broken}")
        return shelf.backups

    def _ended(self) -> None:
        programs = self._offspring.gone(PATIENCE)
        if programs:
            raise Broken(f"still running after {PATIENCE:.0f} s: {[each.name for each in programs]}")
        until = time.monotonic() + PATIENCE
        while senders := self._kept.server.sql(SENDERS):
            if time.monotonic() > until:
                raise Broken(f"still on the server after {PATIENCE:.0f} s: {senders}")
            time.sleep(0.05)

    def _whole(self, earlier: str, when: str) -> list[str]:
        """What pgBackRest keeps; the run that verifies the newest of them looks through all of its repository."""
        labels = self._labels()
        if earlier not in labels:
            raise Broken(f"{when} the earlier backup {earlier} is gone: {labels}")
        for backup in self._manifests():
            if backup.about["label"] not in self._seen:
                raise Broken(f"{when} {backup.id} is called a backup, and {backup.about['label']} was never complete")
        if not (self._folder / "_server" / FOREIGN).is_file():
            raise Broken(f"{when} {FOREIGN} is gone, which is nobody's")
        return labels

    def _clean(self) -> None:
        """Nothing tells any more that a run has died; we know what pgBackRest keeps, and no more."""
        labels = set(self._labels())
        there = {path.name for path in (self._kept.repo / "backup" / self._kept.name).glob("2*")}
        noted = {backup.about["label"] for backup in self._manifests()}
        # Where pgBackRest was killed itself, the file of its lock stays, which nobody holds: see _labels().
        left = [*self._traces.iterdir(), *self._folder.rglob("*.tmp*")]
        if there != labels or not noted <= labels or left:
            raise Broken(f"left behind: {there - labels}, {noted - labels}, {left}")
