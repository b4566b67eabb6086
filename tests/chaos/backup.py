# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills db_backup and db_restore in each phase, by each means, and looks at what is a backup then, and what is left.

Whatever happens: the backup before it is whole, nothing half-written is called a backup, nothing works on behind the
scenes, foreign files stay, and the next run succeeds and leaves no trace of the one that died.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import LEVELS, Backup, Sheltered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, reader
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backup_manifest import write_manifest
from tests.fleet import Fleet, Missing

from . import backup_bucket, backup_repository, backup_site_gates, backup_site_servers, backup_sites
from .backup_gates import ANY, COPIED, DUMPED, MUTANTS, PHASES, RESTORED, VERIFIED, arm
from .backup_places import SPREAD, Ground, ground
from .backup_rotation import KINDS as ROTATIONS
from .backup_rotation import Rotations
from .offspring import Offspring
from .process import Run, Stop
from .table import Broken, Cell, Field, How, What

OTHERS = (backup_bucket.ENGINE, *backup_site_servers.ENGINES, backup_repository.ENGINE)  # fields of their own
ENGINES = ("postgresql", "mariadb", "mysql", "sqlite", SPREAD, "files", *OTHERS)
MEANS = ("killed", "client killed", "session ended")
PATIENCE = 20.0  # seconds in which what a run that died has started must have ended
DAYS = timedelta(days=2)
# Where programs run, and where sessions are needed. Elsewhere only the module itself can be killed.
WITH_CLIENT = ("writing", "reading", "loading", "started")
WITH_SESSION = ("moment", "begun", "writing", "written", "renamed", "reading", "made", "loading", "comparing")
UNPACKED = ("drill physical", "loading")  # by the module itself, but for MariaDB
RECIPIENT = "chaos@example.com"
FOREIGN = ("foreign.txt", "20200101T000000Z-abcdef.dump", "notes.partial")


class Kind(NamedTuple):
    """What is run, and where it can be stopped."""

    module: str
    options: Mapping[str, Any]
    phases: tuple[str, ...]
    of: str = ""  # the kind whose backups are restored
    journal: bool = False  # with one


BACKUP = (*DUMPED[2:], *VERIFIED, *COPIED)
# What comes after the writing is the same for them; and what is encrypted nobody here can read.
WRITTEN = (*DUMPED[2:], "verifying")
APART = ("folder", "loading", "started", "comparing", "verifying", "verified")


def kinds(engine: str, key: str) -> dict[str, Kind]:
    """By their names in the table; `key`: the recipient of encrypted ones."""
    locked, streams = {"encrypt": {"age_recipient": [key]}}, {"jobs": 3}
    gpg, unlocked = {"encrypt": {"gpg_recipient": [RECIPIENT]}}, {"decrypt": {"gpg_passphrase": ""}}
    physical = {"method": "physical"}
    drill = {"drill": True}
    proof = {"verify": "restore", "min_interval": "30d"}
    proven = Kind("db_backup", {**physical, **proof}, PREPARED.get(engine, APART[1:]), "physical")
    restore = ("founded", "made", "loading", "comparing", "complete")
    if engine == "sqlite":
        return {
            "dump": Kind("db_backup", {}, ("scratch file", *BACKUP)),
            "encrypted": Kind("db_backup", locked, WRITTEN),
            "gpg": Kind("db_backup", gpg, WRITTEN),
            "restore": Kind("db_restore", {}, ("reading", "comparing", "complete"), "dump"),
            "gpg restore": Kind("db_restore", unlocked, ("reading", "comparing", "complete"), "gpg"),
            "drill": Kind("db_restore", drill, ("scratch file", "reading", "verifying", "verified"), "dump"),
        }
    if engine == SPREAD:
        return {"physical": Kind("db_backup", physical, (*WRITTEN, "reading", "copying")), "drill physical": proven}
    first = ("moment",) if engine == "postgresql" else ()
    found = {
        "dump": Kind("db_backup", {}, (*first, *BACKUP)),
        "encrypted": Kind("db_backup", locked, (*first, *WRITTEN)),
        "gpg": Kind("db_backup", gpg, (*first, *WRITTEN)),
        # What died before it could mark what it was making is known by the journal alone.
        "restore": Kind("db_restore", {}, restore, "dump", journal=engine != "postgresql"),
        "gpg restore": Kind("db_restore", unlocked, ("loading", "comparing"), "gpg", journal=engine != "postgresql"),
        "drill": Kind("db_restore", drill, APART, "dump"),
        "drill beside": Kind("db_restore", {**drill, "drill_on": "same_server"}, (*restore[:-1], "verifying"), "dump"),
    }
    if engine != "mysql":
        found["streams"] = Kind("db_backup", streams, ("moment", *BACKUP))
        found["locked streams"] = Kind("db_backup", {**locked, **streams}, ("moment", *WRITTEN))
        found["physical"] = Kind("db_backup", physical, BACKUP)
        found["drill physical"] = proven
    if engine == "postgresql":
        found["incremental"] = Kind("db_backup", {**physical, "full_interval": "7d"}, (*WRITTEN, "reading"))
    return found


PREPARED = {"mariadb": (*APART, "preparing")}
KINDS = (
    *("dump", "streams", "encrypted", "gpg", "locked streams", "physical", "incremental"),
    *("restore", "gpg restore", "drill", "drill beside", "drill physical", *ROTATIONS, *backup_bucket.KINDS),
    *(*backup_sites.KINDS, backup_repository.KIND),
)


def _gpg(home: Path) -> None:
    """A key there, and gpg told where; its agent runs from now on, as it does on hosts."""
    if shutil.which("gpg") is None:
        raise Missing("gpg: apt-get install gnupg")
    home.mkdir(mode=0o700)
    os.environ["GNUPGHOME"] = str(home)
    gpg = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", RECIPIENT, "rsa2048", "encr", "never"], check=True, capture_output=True)


def field(fleet: Fleet, engine: str, how: How) -> Field:
    if engine == backup_bucket.ENGINE:
        return backup_bucket.Buckets(fleet, how)
    if engine in backup_site_servers.ENGINES:
        return backup_site_servers.field(fleet, engine, how)
    if engine == backup_repository.ENGINE:
        return backup_repository.Repository(fleet, how)
    return Rotations(fleet, how) if engine == "files" else Backups(fleet, engine, how)


class Backups:
    """A server or a file, and the tests on it."""

    def __init__(self, fleet: Fleet, engine: str, how: How) -> None:
        if shutil.which("age-keygen") is None:
            raise Missing("age: apt-get install age")
        self._how, self.engine = how, engine
        self.ground: Ground = ground(fleet, engine)
        self.work = fleet.folder("work")
        (self.work / "case").mkdir()
        key = self.work / "age.key"
        subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
        said = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True, text=True)
        _gpg(self.work / "gnupg")
        self.kinds = kinds(engine, said.stdout.strip())
        self.lasted: dict[str, float] = {}  # seconds, of a run of the kind that was not disturbed
        self.offspring = Offspring()

    @property
    def version(self) -> str:
        return self.ground.version

    def cells(self) -> Iterator[Cell]:
        for name, kind in self.kinds.items():
            for phase in (*kind.phases, ANY):
                for means in self._means(name, phase):
                    yield Cell(self.engine, name, phase, means)

    def _means(self, kind: str, phase: str) -> Iterator[str]:
        yield "killed"
        if phase in WITH_CLIENT and (self.engine == "mariadb" or (kind, phase) != UNPACKED):
            yield "client killed"
        if phase in WITH_SESSION and "session ended" in self.ground.means:
            yield "session ended"

    def hit(self, cell: Cell, number: int) -> bool:
        return Test(self, cell, number + self._how.seed, self._how.mutant).run()

    def recover(self) -> None:
        self.offspring.end()
        self.ground.recover()


class Test:
    """One case, from the backup before it to the run after it."""

    def __init__(self, field: Backups, cell: Cell, number: int, mutant: str) -> None:
        self.field, self.ground, self.cell, self.number, self.mutant = field, field.ground, cell, number, mutant
        self.kind = field.kinds[cell.kind]
        self.case = field.work / "case"
        self.folder, self.copies, self.traces = (self.case / name for name in ("backups", "copies", "traces"))
        self.earlier: Backup | None = None
        self.dice = random.Random(f"{number} {cell}")

    def run(self) -> bool:
        """Whether it was hit where it should be. Raises Broken."""
        self._lay()
        hit = self._first()
        self._ended()
        self._whole("after the hit")
        if self.kind.module == "db_backup" and not self.kind.of:
            if self.number % 4 == 1:
                self._rotated()
            self._again()
        else:
            self._restored_again()
        self._ended()
        self._whole("after the next run")
        self._clean()
        return hit

    # ---- what is there before ----

    def _lay(self) -> None:
        """The folders with one backup of two days ago and its copy, and files that are nobody's."""
        template = self.field.work / f"template {self.kind.of or self.cell.kind}"
        if not template.exists():
            self._empty()
            kind = self.field.kinds[self.kind.of or self.cell.kind]
            self._run(kind, {}, "template").result()
            (made,) = self._look()
            if "streams" in self.cell.kind and len(made.files) < 2:
                raise Broken("one program wrote all")
            at = made.verified_at and made.verified_at - DAYS
            older = made._replace(began=made.began - DAYS, ended=made.ended - DAYS, verified_at=at)
            write_manifest(older)
            for place in (self.folder, Path(made.folder), self.copies):
                for name in FOREIGN:
                    (place / name).write_text("not ours")
            shutil.rmtree(self.traces)
            self.case.rename(template)
        self._empty()
        for name in ("backups", "copies"):
            shutil.copytree(template / name, self.case / name, copy_function=os.link, dirs_exist_ok=True)
        (self.earlier,) = self._look()

    def _empty(self) -> None:
        shutil.rmtree(self.case, ignore_errors=True)
        for path in (self.case, self.folder, self.copies, self.traces):
            path.mkdir(mode=0o700)
        for path in (self.case, self.traces):
            path.chmod(0o711)  # throwaway servers of root run as somebody else

    def _look(self) -> tuple[Backup, ...]:
        shelf = backups.look(Sheltered(str(self.folder)))
        if shelf.why_not or shelf.broken:
            raise Broken(f"not all in the folder are whole: {shelf.why_not} {[(b.name, b.why) for b in shelf.broken]}")
        return shelf.backups

    # ---- runs ----

    def _run(
        self, kind: Kind, more: Mapping[str, Any], output: str, stop: Stop | None = None, *, check: bool = False
    ) -> Run:
        options = {**kind.options, "backup_dir": str(self.folder), "journal": self._journal(kind), **more}
        if kind.module == "db_backup":
            options = {**self.ground.backup_options(), "copy_to": str(self.copies), **options}
        else:
            options = {**self.ground.restore_options(), **options}
            if options.get("drill"):
                options.pop("target")
        mutant = self.mutant if stop else ""
        return Run(
            kind.module,
            options,
            self.case / output,
            arm=lambda gate: arm(gate, mutant),
            stop=stop,
            check=check,
            traces=self.traces,
        )

    def _journal(self, kind: Kind) -> str:
        return str(self.case / "journal.sqlite3") if kind.journal else "none"

    def _passage(self) -> int:
        phase, kind = self.cell.phase, self.cell.kind
        if phase == "writing" and self.field.engine != SPREAD:
            return 1 + self.number % 3
        if phase == "manifest half":
            return 1 + self.number % 4  # of the backup, when it is verified, of the copy, and when that is noted
        if phase in ("begun", "written", "flushed", "renamed") and "streams" in kind:
            return 1 + self.number % 2
        if phase == "reading" and self.field.engine == "postgresql" and kind in ("dump", "streams"):
            return 1 + self.number % 2
        if phase == "loading" and self.field.engine == "postgresql" and kind.startswith("drill") and "p" not in kind:
            return 2  # it is read first, for what it is to be compared with
        return 1

    def _first(self) -> bool:
        # A program that writes files itself is still at work when all else is looked at.
        slow = {"rate_limit": "1MB"} if (self.field.engine, self.cell.phase) == (SPREAD, "writing") else {}
        run = self._run(self.kind, slow, "first", Stop(self.cell.phase, self._passage()))
        try:
            if self.cell.phase == ANY:
                hit = not run.ends(self.dice.uniform(0.02, self.field.lasted.get(self.cell.kind, 1.0)))
                if hit:
                    run.kill()
            else:
                hit = run.stops(180) and self._strike(run)
            run.end()
            if hit and self.cell.phase == "writing" and not (run.told() or {"failed": True}).get("failed"):
                # It tries again where somebody has ended a program or a session.
                self._verified("the run that was hit says that all went well")
        finally:
            run.dispose()
        return hit

    def _strike(self, run: Run) -> bool:
        """Whether there was something to be killed."""
        if self.cell.means == "killed":
            run.kill()
            return True
        if self.cell.means == "client killed":
            programs = self.field.offspring.of(run.pid)
            if programs:
                with suppress(ProcessLookupError):
                    os.kill(programs[self.number % len(programs)].pid, signal.SIGKILL)
            run.go()
            return bool(programs)
        ended = self.ground.end_sessions(open_only=False)
        run.go()
        return ended > 0

    def _next(self, more: Mapping[str, Any]) -> None:
        began = time.monotonic()
        self._run(self.kind, more, "next").result()
        self.field.lasted[self.cell.kind] = max(0.1, time.monotonic() - began)

    def _again(self) -> None:
        """The next run: what is missing of the last backup is done, or another one is made."""
        more = {"min_interval": "0s"} if self.number % 2 else {}
        self._next(more)
        self._verified("the next run says that all went well")
        if self.number % 3 == 0 and self._run(self.kind, {}, "third", check=True).result()["changed"]:
            raise Broken("the run after the next one has something to do")

    def _verified(self, who: str) -> None:
        newest = self._look()[-1]
        if newest == self.earlier or LEVELS.index(newest.level) < LEVELS.index("decode"):
            raise Broken(f"{who}, and {newest.id} is {newest.level or 'not verified'}")
        if newest.copies != (str(self.copies),):
            raise Broken(f"{who}, and {newest.id} is not copied")

    def _restored_again(self) -> None:
        drill = "drill" in self.cell.kind
        if not drill:
            state = self.ground.restored()
            if state == "":
                self.ground.forget()  # it came to its end: else the next one would rightly not touch it
        self._next({})
        if drill and self._look()[-1].level != "restore":
            raise Broken("the next drill proves nothing")
        if not drill and self.ground.restored():
            raise Broken(f"what the next run restored is not whole: {self.ground.restored()}")
        self.ground.forget() if not drill else None

    def _rotated(self) -> None:
        """Only as much as counts for something is kept, and never less."""
        sound = [each for each in self._look() if LEVELS.index(each.level) >= LEVELS.index("decode")]
        options = {"backup_dir": str(self.folder), "copy_to": str(self.copies), "keep_last": 1, "journal": "none"}
        options["engine"] = "postgresql" if self.field.engine == SPREAD else self.field.engine
        Run("db_backup_rotate", options, self.case / "rotated", arm=lambda gate: None, traces=self.traces).result()
        kept = self._look()
        if sound[-1].id not in [each.id for each in kept]:
            raise Broken(f"rotation removed the newest backup that is verified, {sound[-1].id}")
        if self.earlier and self.earlier.id not in [each.id for each in kept]:
            self.earlier = None

    # ---- what is there ----

    def _ended(self) -> None:
        programs = self.field.offspring.gone(PATIENCE)
        if programs:
            raise Broken(f"still running after {PATIENCE:.0f} s: {[each.name for each in programs]}")
        held = self.ground.let_go(PATIENCE, self.ground.held)
        if held:
            raise Broken(f"still on the server after {PATIENCE:.0f} s: {held}")

    def _whole(self, when: str) -> None:
        """All that is called a backup is one, here and there, the earlier one among them; and nobody's files stay."""
        found = self._look()
        if self.earlier and self.earlier.id not in [each.id for each in found]:
            raise Broken(f"{when} the earlier backup is gone")
        copied = backups.look(Sheltered(str(self.copies)))
        if copied.broken:
            raise Broken(f"{when} not all copies are whole: {copied.broken}")
        for backup in (*found, *copied.backups):
            try:
                for _more in reader.checksum(backup):
                    pass
            except DbFault as fault:
                raise Broken(f"{when} {backup.folder}/{backup.id}: {fault}") from fault
        for place in (self.folder, self.copies, *([Path(self.earlier.folder)] if self.earlier else [])):
            for name in FOREIGN:
                if not (place / name).is_file():
                    raise Broken(f"{when} {place / name} is gone, which is nobody's")

    def _clean(self) -> None:
        """Nothing tells any more that a run has died."""
        paths = [path for place in (self.folder, self.copies) for path in place.rglob("*") if path.name not in FOREIGN]
        traces = re.compile(r"\.?dbfleet-.*|.*\.partial|.*\.tmp(\.new)?")
        left = [str(path) for path in paths if traces.fullmatch(path.name)]
        left += [str(path) for path in self.traces.iterdir()]
        left += self.ground.scratch()
        if left:
            raise Broken(f"left behind: {left}")


MORE = (*(phase for found in backup_bucket.PHASES.values() for phase in found), *backup_site_gates.PHASES)
ALL_PHASES = tuple(dict.fromkeys((*PHASES, *MORE)))
ALL_MUTANTS = (*MUTANTS, *backup_bucket.MUTANTS, *backup_site_gates.MUTANTS)
WHAT = What(ENGINES, KINDS, ALL_PHASES, MEANS, ALL_MUTANTS, field)
__all__ = ["RESTORED", "WHAT"]
