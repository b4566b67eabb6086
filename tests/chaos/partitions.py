# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills db_cleanup after each statement by which a large partition of MySQL or MariaDB leaves; bites: cleanup.py."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import exchange, partitions
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.connection import Link
from tests.fleet import Fleet, Server
from tests.integration.cleanup import Row, content, rows_in_files

from .cleanup import start
from .places import DATABASE, Place, place_on
from .process import Gate, Run, Stop, put
from .table import Broken, Cell, How, What

KINDS = ("delete", "files")
# By how the statement begins, or what it does.
PHASES = {
    "made": "CREATE TABLE",
    "locked": "LOCK TABLES",
    "exchanged": "EXCHANGE PARTITION",
    "dropped": "DROP PARTITION",
    "released": "UNLOCK TABLES",
    "removed": "DROP TABLE",
}
MEANS = ("killed", "terminated", "session ended", "server stopped")
OLD, YOUNG = range(1, 13), range(21, 29)
MAKE = f"""
    DROP TABLE IF EXISTS t;
    CREATE TABLE t (id int NOT NULL, at datetime NOT NULL, note varchar(50), PRIMARY KEY (id, at))
      PARTITION BY RANGE COLUMNS (at) (PARTITION p0 VALUES LESS THAN ('2001-01-01'),
        PARTITION p1 VALUES LESS THAN ('2002-01-01'), PARTITION new VALUES LESS THAN MAXVALUE);
    INSERT INTO t VALUES {", ".join(f"({n}, '200{n % 2}-05-{n:02}', 'old {n}')" for n in OLD)};
    INSERT INTO t VALUES {", ".join(f"({n}, utc_timestamp() - INTERVAL {n} DAY, 'young {n}')" for n in YOUNG)};
"""
LATE = "INSERT INTO t VALUES ({row}, '{year}-08-01', 'added {row}')"
NEW = "INSERT INTO t VALUES ({row}, utc_timestamp(), 'added {row}')"
YOUNGER = "'2010"
PARTS = f"""
    SELECT PARTITION_NAME FROM information_schema.PARTITIONS
     WHERE TABLE_SCHEMA = '{DATABASE}' AND TABLE_NAME = 't' ORDER BY 1"""


def arm(gate: Gate, mutant: str) -> None:
    """Only ever in a child: whatever has rows counts as large."""
    run = Link.run

    def passing(link: Link, statement: str, **more: Any) -> Any:
        found = run(link, statement, **more)
        for phase, words in PHASES.items():
            if words in statement and (words != "LOCK TABLES" or statement.startswith(words)):
                gate.passes(phase)
        return found

    put(Link, run=passing)
    put(partitions, LARGE=0)
    if mutant:
        MUTANTS[mutant]()


# ---- mutants ---------------------------------------------------------------------------------------------------------


def _unseen() -> None:
    """What came since it was archived is not looked for."""
    put(partitions, assure=lambda _link, _task: None)


def _unmarked() -> None:
    """The table beside does not say whose it is."""
    put(exchange.Mark, words=lambda _mark: "")


MUTANTS = {"unseen": _unseen, "unmarked": _unmarked}


class Test:
    """One case, from its table to where its rows are in the end."""

    def __init__(self, cell: Cell, number: int, place: Place, server: Server, *, folder: Path, mutant: str) -> None:
        self.cell, self.number, self.place, self.server = cell, number, place, server
        self.folder, self.mutant = folder, mutant
        self.archive = folder / "archive"
        self.came: list[Row] = []

    def run(self) -> bool:
        """Whether it was stopped where it should be. Raises Broken."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.server.script(MAKE, database=DATABASE)
        before = self.place.rows("t")
        hit = self._first()
        result = self._begin("next").result()
        unproven = [s["reason"] for s in result["ansible_facts"]["db_cleanup"]["steps"] if s["proven"] is False]
        if unproven:
            raise Broken(f"not proven: {unproven}")
        self._check([*before, *self.came])
        again = self._begin("again").result()
        if again["changed"]:
            raise Broken("the second run did something")
        return hit

    def _begin(self, name: str, stop: Stop | None = None) -> Run:
        rule: dict[str, Any] = {"name": "old", "table": "t", "date_column": "at", "refuse_over_percent": 100}
        rule["delete_after" if self.cell.kind == "delete" else "archive_after"] = "90d"
        if self.cell.kind == "files":
            rule["archive_dir"] = str(self.archive)
        journal = str(self.folder / "journal.sqlite") if self.number % 2 else "none"
        options = {**self.place.options(), "rules": [rule], "journal": journal}
        return Run("db_cleanup", options, self.folder / name, arm=lambda gate: arm(gate, self.mutant), stop=stop)

    def _first(self) -> bool:
        run = self._begin("first", Stop(self.cell.phase, 1 + self.number // 2 % 2))
        try:
            hit = run.stops()
            if hit:
                self._application(100)
                self._strike(run)
        finally:
            run.dispose()
        if self.number % 3:
            self._application(200)
        return hit

    def _strike(self, run: Run) -> None:
        if self.cell.means == "killed":
            run.kill()
        elif self.cell.means == "terminated":
            run.kill(signal.SIGTERM)
            run.go()
        elif self.cell.means == "session ended":
            self.place.end_sessions(open_only=False)
            run.go()
        else:
            self.server.kill()
            if self.number % 2:
                run.go()
                run.end()
            self.place.start()
            if not self.number % 2:
                run.go()
        run.end()

    def _application(self, row: int) -> None:
        """Adds old rows to each partition, and one that stays; where it is not locked out."""
        said = [LATE.format(row=row, year=2000), LATE.format(row=row + 1, year=2001), NEW.format(row=row + 2)]
        done = self.place.disturb(*said)
        notes = [f"'added {row + n}" for n, true in enumerate(done) if true]
        self.came += [found for found in self.place.rows("t") if found["note"] in notes] if notes else []

    # ---- where the rows are ----

    def _check(self, rows: list[Row]) -> None:
        stay = [row for row in rows if row["at"] > YOUNGER]
        self._same("t", self.place.rows("t"), stay)
        if self.cell.kind == "files":
            self._same("the archive", rows_in_files(self.archive, "t"), [row for row in rows if row not in stay])
        left = [*self.place.left(), *(f"table {name}" for name in self.place.tables() - {"t"})]
        parts = self.server.sql(PARTS)
        if left or parts != [["new"]]:
            raise Broken(f"left behind: {left}, partitions {parts}")

    @staticmethod
    def _same(where: str, found: list[Row], wanted: list[Row]) -> None:
        more, less = content(found) - content(wanted), content(wanted) - content(found)
        if more or less:
            raise Broken(f"{where}: {sorted(more)[:3]} too many, {sorted(less)[:3]} too few")


class Partitions:
    """A server, and the tests on it."""

    def __init__(self, fleet: Fleet, engine: str, how: How) -> None:
        self._server, self._how = start(fleet, engine), how
        self._place = place_on(self._server, engine)
        self._work = fleet.folder("work")

    @property
    def version(self) -> str:
        return self._place.version

    def cells(self) -> Iterator[Cell]:
        for kind in KINDS:
            for phase in PHASES:
                for means in MEANS:
                    yield Cell(self._place.name, kind, phase, means)

    def hit(self, cell: Cell, number: int) -> bool:
        if not isinstance(self._server, Server):
            raise Broken("there is no server")
        folder = self._work / "case"
        return Test(cell, number, self._place, self._server, folder=folder, mutant=self._how.mutant).run()

    def recover(self) -> None:
        self._place.recover()


WHAT = What(("mariadb", "mysql"), KINDS, tuple(PHASES), MEANS, tuple(MUTANTS), Partitions)
