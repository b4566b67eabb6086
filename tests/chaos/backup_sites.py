# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills db_restore of a whole server into a new data directory, and looks at what is called one then.

Whatever happens: the directory is not there or whole, nothing of the run works on, what lies beside it is as it was,
and the next run makes the whole directory and leaves no trace of the one that died.
"""

from __future__ import annotations

import pwd
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Sheltered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, reader
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.sites import INSIDE
from tests.fleet import Fleet, Missing
from tests.fleet.processes import server_account
from tests.integration.cleanup import connection

from .backup_gates import ANY
from .backup_places import ROWS, WIDTH, Ground, ground
from .backup_site_gates import arm
from .offspring import Offspring
from .places import DATABASE
from .process import Run, Stop
from .table import Broken, Cell, How

KINDS = ("whole", "chain")
PATIENCE = 20.0  # seconds in which what a run that died has started must have ended
SITE, SPACES, FOREIGN = "new", "new.tablespaces", ("new.old", "new.tablespaces.old", f"{INSIDE}-theirs")
BEGUN, PROVEN = ("empty", "taken", "reading"), ("proven", "safe", "moving", "moved", ANY)
WITH_CLIENT = ("at work", "loading", "started", "comparing", ANY)
Rows = Callable[[str], list[Any]]  # what a query says on a server that runs for a while


class Before(NamedTuple):
    """What a run must not change."""

    shelf: dict[str, tuple[int, int]]  # the backups' files: bytes, time of the last change
    beside: dict[str, str]  # what is nobody's, and stands beside the new directory


class Sites:
    """A server, backups of it, and a folder for new data directories."""

    engine, source, keystone = "", "", ""
    phases: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("whole",)
    beside: tuple[str, ...] = ()  # what a run makes, but for the directory
    twice = 1  # directories are made
    more: Mapping[str, str] = {}  # options of the backups
    kept: tuple[Path, ...] = ()  # where else something of them lies

    def __init__(self, fleet: Fleet, how: How) -> None:
        if shutil.which("setpriv") is None:
            raise Missing("setpriv: apt-get install util-linux")
        self._how, self.ground = how, self.found(fleet)
        self._work = fleet.folder("sites")
        self._case, self._shelf = self._work / "case", self._work / "backups"
        self.place, self._traces = self._case / "place", self._case / "traces"
        self._lasted: dict[str, float] = {}  # seconds, of a run of the kind that was not disturbed
        self._shelf.mkdir(mode=0o700)
        self._back_up()
        self._backups = backups.look(Sheltered(str(self._shelf))).backups
        if [bool(backup.parent) for backup in self._backups] != [kind == "chain" for kind in self.kinds]:
            raise Missing("backups of all kinds")
        self._offspring = Offspring()

    def found(self, fleet: Fleet) -> Ground:
        return ground(fleet, self.source)

    @property
    def version(self) -> str:
        return self.ground.version

    def cells(self) -> Iterator[Cell]:
        for kind in self.kinds:
            for phase in self.phases:
                yield Cell(self.engine, kind, phase, "killed")
                if phase in WITH_CLIENT:
                    yield Cell(self.engine, kind, phase, "client killed")

    def recover(self) -> None:
        self._offspring.end()

    def hit(self, cell: Cell, number: int) -> bool:
        number += self._how.seed
        before = self._lay(made=number % 2 == 0)
        hit = self._first(cell, number, before)
        self._untouched(before, "after the hit")
        if (self.place / SITE / self.keystone).exists():
            self._refused(cell.kind)
            self._whole(cell.kind, "after the hit")
            before = self._lay(made=number % 2 == 0)
        began = time.monotonic()
        self._run(cell.kind, "next").result()
        self._lasted[cell.kind] = time.monotonic() - began
        self._ended()
        self._untouched(before, "after the next run")
        self._clean()
        self._whole(cell.kind, "after the next run")
        return hit

    # ---- what is there before ----

    def _back_up(self) -> None:
        """One for each kind, and the server tells them apart."""
        with connection(self.ground.where, DATABASE) as db:
            db.cursor().execute("CREATE TABLE marks (number int)")
        login = {k: v for k, v in self.ground.options().items() if k != "databases"}
        how = {"method": "physical", "min_interval": "0s", "backup_dir": str(self._shelf), "journal": "none"}
        for number, kind in enumerate(self.kinds):
            with connection(self.ground.where, DATABASE) as db:
                db.cursor().execute(f"INSERT INTO marks VALUES ({number})")
            more = {"full_interval": "7d"} if kind == "chain" else {}
            Run("db_backup", {**login, **how, **more, **self.more}, self._work / "made", arm=lambda gate: None).result()

    def backup(self, kind: str) -> Backup:
        return self._backups[self.kinds.index(kind)]

    def _lay(self, *, made: bool) -> Before:
        """`made`: the directory is there and empty, as a mount point is."""
        shutil.rmtree(self._case, ignore_errors=True)
        for path in (self._case, self.place, self._traces):
            path.mkdir()
            path.chmod(0o755)
        for name in FOREIGN:
            (self.place / name).mkdir()
            (self.place / name / self.keystone).write_text("not ours")
        if made:
            (self.place / SITE).mkdir(mode=0o750)
        return Before(self._stored(), self._foreign())

    def _stored(self) -> dict[str, tuple[int, int]]:
        paths = [path for place in (self._shelf, *self.kept) for path in place.rglob("*") if path.is_file()]
        found = {path: path.stat() for path in paths}
        return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}

    def _foreign(self) -> dict[str, str]:
        return {str(path): path.read_text() for path in self.place.glob(f"*/{self.keystone}") if self._theirs(path)}

    def _theirs(self, path: Path) -> bool:
        return path.parent.name in FOREIGN and path.is_file()

    # ---- runs ----

    def _run(self, kind: str, output: str, stop: Stop | None = None) -> Run:
        account, backup = server_account(), self.backup(kind)
        options = {"engine": backup.engine, "backup_dir": str(self._shelf), "which": backup.id, "journal": "none"}
        options["target_dir"] = str(self.place / SITE)
        if account:
            options["target_owner"] = pwd.getpwuid(account.uid).pw_name
        options.update({k: v for k, v in self.ground.options().items() if k == "bin_dir"})
        mutant = self._how.mutant if stop else ""
        return Run(
            "db_restore",
            options,
            self._case / output,
            arm=lambda gate: arm(gate, mutant),
            stop=stop,
            traces=self._traces,
        )

    def _passage(self, phase: str, number: int) -> int:
        if phase == "moving":
            return 1 + number * 5 % 12
        return 1 + number % self.twice if phase in ("empty", "taken", "reading", "safe", "moved") else 1

    def _first(self, cell: Cell, number: int, before: Before) -> bool:
        run = self._run(cell.kind, "first", Stop(cell.phase, self._passage(cell.phase, number)))
        after = random.Random(f"{number} {cell}").uniform(0.02, self._lasted.get(cell.kind, 2.0))
        try:
            hit = not run.ends(after) if cell.phase == ANY else run.stops(180)
            if cell.phase == "at work":  # it goes on while the run stands still
                time.sleep(after / 3)
            if hit and cell.means == "killed":
                run.kill()
            elif hit:
                hit = self._offspring.kill_one(run.pid, number)
                if cell.phase != ANY:
                    run.go()
            run.end()
        finally:
            run.dispose()
        self._ended()
        if cell.means != "killed":
            self._undone(run.told(), cell.kind, made=number % 2 == 0)
        return hit

    def _undone(self, told: dict[str, Any], kind: str, *, made: bool) -> None:
        """A run that could come to its end has made the whole directory, or nothing."""
        if told and not told.get("failed"):
            self._clean()
            self._whole(kind, "after a hit that the run calls harmless")
            return
        left = sorted(path.name for path in self.place.iterdir() if path.name not in FOREIGN)
        inside = sorted(path.name for path in (self.place / SITE).iterdir()) if made else []
        traces = [str(path) for path in self._traces.iterdir()]
        if left != ([SITE] if made else []) or inside or traces:
            raise Broken(f"the run that failed leaves {left}, {inside}, {traces}")
        if made and (self.place / SITE).stat().st_mode & 0o777 != 0o750:
            raise Broken("the directory has another mode than before")

    def _refused(self, kind: str) -> None:
        """It is complete, and a server may run on it by now."""
        run = self._run(kind, "again")
        run.end()
        if "is not empty" not in str(run.told().get("msg")):
            raise Broken(f"a whole directory is not refused: {run.told()}")

    # ---- what is there ----

    def _ended(self) -> None:
        programs = self._offspring.gone(PATIENCE)
        if programs:
            raise Broken(f"still running after {PATIENCE:.0f} s: {[each.name for each in programs]}")

    def _untouched(self, before: Before, when: str) -> None:
        if self._stored() != before.shelf:
            raise Broken(f"{when} the backups are not what they were")
        for backup in self._backups:
            for _more in reader.checksum(backup):
                pass
        if self._foreign() != before.beside or len(before.beside) != len(FOREIGN):
            raise Broken(f"{when} what is nobody's is not what it was")

    def _clean(self) -> None:
        """Nothing tells any more that a run has died."""
        there = {path.name for path in self.place.iterdir()} - set(FOREIGN)
        left = [str(path) for path in (*self.place.rglob(INSIDE), *self._traces.iterdir())]
        if there != {SITE, *self.beside} or left:
            raise Broken(f"left behind: {there}, {left}")

    def _whole(self, kind: str, when: str) -> None:
        """As a server says that is started there."""
        expected = [[number, number * WIDTH] for number in ROWS.values()]
        try:
            found = self.asked(self.backup(kind), self._counted)
        except Exception as error:
            raise Broken(f"{when} no server runs on the directory: {error}") from error
        if found != [*expected, [self.kinds.index(kind) + 1]]:
            raise Broken(f"{when} the directory is not whole: {found}")
        self._ended()

    def _counted(self, rows: Rows) -> list[list[int]]:
        queries = [f"SELECT count(*), sum(length(note)) FROM {self.schema}.{table}" for table in ROWS]
        queries.append(f"SELECT count(*) FROM {self.schema}.marks")
        return [[int(each) for each in rows(query)[0]] for query in queries]

    schema = ""

    def asked(self, backup: Backup, ask: Callable[[Rows], list[list[int]]]) -> list[list[int]]:
        """Of a server that is started there."""
        raise NotImplementedError
