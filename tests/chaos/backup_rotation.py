# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills db_backup_rotate between any two of its deeds, and looks at what is a backup then. No server is needed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Sheltered, Stored
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, reader
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backup_manifest import write_manifest
from tests.fleet import Fleet
from tests.integration.backups import laid, now

from .backup_gates import arm
from .offspring import Offspring
from .process import Run, Stop
from .table import Broken, Cell, How

KINDS = ("rotate", "rotate copies")
PHASES = {"rotate": ("marked", "deleted", "emptied"), "rotate copies": ("marked", "deleted", "emptied", "copy gone")}
MADE, KEPT = 6, 2
FOREIGN = "20200101T000000Z-abcdef.dump"


class Rotations:
    """Folders of some backups, and the tests on them."""

    def __init__(self, fleet: Fleet, how: How) -> None:
        self._how, self._case = how, fleet.folder("work") / "case"
        self._offspring = Offspring()
        self._folder, self._copies = self._case / "backups", self._case / "copies"

    @property
    def version(self) -> str:
        return ""

    def cells(self) -> Iterator[Cell]:
        for kind, phases in PHASES.items():
            for phase in phases:
                yield Cell("files", kind, phase, "killed")

    def recover(self) -> None:
        self._offspring.end()

    def hit(self, cell: Cell, number: int) -> bool:
        number += self._how.seed
        made = self._lay(copied=cell.kind == "rotate copies")
        # Anywhere in the removal of the first, second or third of them, here or there.
        run = self._run("first", Stop(cell.phase, 1 + (number * 3 % 18 if cell.phase == "deleted" else number % 4)))
        try:
            hit = run.stops()
            if hit:
                run.kill()
            run.end()
        finally:
            run.dispose()
        self._whole(made, "after the hit")
        self._run("next").result()
        self._whole(made, "after the next run")
        left = backups.look(Sheltered(str(self._folder)))
        if [each.id for each in left.backups] != [each.id for each in made[-KEPT:]]:
            raise Broken(f"the next run kept {len(left.backups)}")
        names = [str(path) for path in self._case.rglob("*.partial")]
        if names or (cell.kind == "rotate copies" and len(list(self._copies.rglob("*.manifest.json"))) != KEPT):
            raise Broken(f"left behind: {names}, {len(list(self._copies.rglob('*.json')))} copies")
        if self._run("third", check=True).result()["changed"]:
            raise Broken("the run after the next one has something to do")
        return hit

    def _run(self, output: str, stop: Stop | None = None, *, check: bool = False) -> Run:
        to = {"copy_to": str(self._copies)} if self._copies.exists() else {}
        options = {"engine": "postgresql", "backup_dir": str(self._folder), "keep_last": KEPT, "journal": "none", **to}
        mutant = self._how.mutant if stop else ""
        return Run(
            "db_backup_rotate", options, self._case / output, arm=lambda g: arm(g, mutant), stop=stop, check=check
        )

    def _lay(self, *, copied: bool) -> list[Backup]:
        """Backups of several files, some of them in a folder of their own."""
        shutil.rmtree(self._case, ignore_errors=True)
        self._case.mkdir()
        made = []
        for number in range(MADE):
            backup = laid(self._folder, now() - timedelta(days=MADE - number))
            more = [_file(backup, name) for name in ("data1.dump", "data/one", "data/two")]
            backup = backup._replace(files=(*backup.files, *more), copies=(str(self._copies),) if copied else ())
            write_manifest(backup)
            made.append(backup)
        (Path(made[0].folder) / FOREIGN).write_text("not ours")
        if copied:
            shutil.copytree(self._folder, self._copies)
        return made

    def _whole(self, made: list[Backup], when: str) -> None:
        """What is called a backup is one, here and there; those to be kept are among them."""
        for place in (self._folder, *([self._copies] if self._copies.exists() else [])):
            found = backups.look(Sheltered(str(place)))
            if found.broken:
                raise Broken(f"{when} broken: {[(each.name, each.why) for each in found.broken]}")
            for backup in found.backups:
                for _more in reader.checksum(backup):
                    pass
            if not {each.id for each in made[-KEPT:]} <= {each.id for each in found.backups}:
                raise Broken(f"{when} a backup that is kept is gone")
            if not (place / "shop" / FOREIGN).is_file():
                raise Broken(f"{when} a file is gone that is nobody's")


def _file(backup: Backup, name: str) -> Stored:
    path = Path(backup.folder) / f"{backup.id}.{name}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(path.name.encode())
    digest = hashlib.sha256(path.name.encode()).hexdigest()
    return Stored(f"{backup.id}.{name}", len(path.name), digest, "data", len(path.name))
