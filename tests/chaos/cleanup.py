# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills db_cleanup in each phase of a bite, by each means, and looks where every row is after the next run."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.fleet import Fleet, Server
from tests.integration.cleanup import Content, Row, content, rows_in_files

from .places import DUE, ROWS, Place, Shape, age, place_on
from .process import Run, Stop
from .table import Broken, Cell, How, What
from .victim import MUTANTS, PHASES, begin

ENGINES = ("postgresql", "mariadb", "mysql", "sqlite")
KINDS = ("delete", "table", "files")
MEANS = ("killed", "terminated", "session ended", "server stopped")
OF_FILES = ("written", "flushed", "settled", "named")
POSTGRESQL = 16


class Case(NamedTuple):
    """One test: the cell, and what varies from one to the next."""

    cell: Cell
    number: int
    mutant: str = ""

    @property
    def shape(self) -> Shape:
        return Shape(indexed=self.number // 2 % 2 == 0, children=self.number // 4 % 2 == 0)

    @property
    def journal(self) -> bool:
        return self.number % 2 == 0

    @property
    def stop(self) -> Stop:
        return Stop(self.cell.phase, 1 if self.cell.phase == "named" else 1 + self.number % 3)


class Test:
    """One case, from its tables to where its rows are in the end."""

    def __init__(self, case: Case, place: Place, folder: Path, seed: int) -> None:
        self.case, self.place, self.folder = case, place, folder
        self.dice = random.Random(f"{seed} {case}")
        self.archive = folder / "archive"
        self.rows: dict[int, Row] = {}
        self.fresh = 0
        self.hit = False

    def run(self) -> bool:
        """Whether it was stopped where it should be. Raises Broken."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.place.fill(self.case.shape)
        self.rows = {_id(row): row for row in self.place.rows("t")}
        children = self.place.rows("c")
        self._first()
        if self.case.number % 3:
            self._application()
        options = self._options()
        begin(options, self.folder / "next").result()
        self._check(children)
        again = begin(options, self.folder / "again").result()
        if again["changed"]:
            raise Broken(f"the second run did something: {_kinds(again)}")
        return self.hit

    def _options(self) -> dict[str, Any]:
        kind, shape = self.case.cell.kind, self.case.shape
        rule: dict[str, Any] = {"name": "old", "table": "t", "date_column": "at", "refuse_over_percent": 100}
        rule["delete_after" if kind == "delete" else "archive_after"] = "90d"
        if kind == "table":
            rule["archive_table"] = "t_archive"
        if kind == "files":
            formats = ("jsonl", "csv")
            rule |= {"archive_dir": str(self.archive), "archive_format": formats[self.case.number // 8 % 2]}
        if shape.children:
            rule["on_children"] = "delete" if kind == "delete" else "archive"
        journal = str(self.folder / "journal.sqlite") if self.case.journal else "none"
        return {**self.place.options(), "rules": [rule], "journal": journal}

    # ---- the run that dies ----

    def _first(self) -> None:
        run = begin(self._options(), self.folder / "first", stop=self.case.stop, mutant=self.case.mutant)
        try:
            self.hit = run.stops()
            if self.hit:
                if self.case.number % 2:
                    self._application()
                self._strike(run)
        finally:
            run.dispose()

    def _strike(self, run: Run) -> None:
        means, where = self.case.cell.means, self.place.where
        if means == "killed":
            run.kill()
        elif means == "terminated":
            run.kill(signal.SIGTERM)
            run.go()
        elif means == "session ended":
            self.place.end_sessions(open_only=bool(self.case.number % 2))
            run.go()
        elif isinstance(where, Server):
            where.kill()
            if self.case.number % 2:
                run.go()
                run.end()
            self.place.start()
            if not self.case.number % 2:
                run.go()
        run.end()

    def _application(self) -> None:
        """Changes a row that is due and one that stays, and adds one of each kind; where it is not locked out."""
        ids = sorted(self.rows)
        changed = [self.dice.choice([i for i in ids if self._due(i) is due]) for due in (True, False)]
        self.fresh += 2
        new = [1000 + self.fresh, 1001 + self.fresh]
        values = [f"({row}, {self.place.ago(days)}, 'new', 1.5)" for row, days in zip(new, (100, 10), strict=True)]
        said = [f"UPDATE t SET note = 'changed {self.fresh}' WHERE id = {row}" for row in changed]
        said += [f"INSERT INTO t (id, at, note, amount) VALUES {value}" for value in values]
        done = self.place.disturb(*said)
        there = {_id(row): row for row in self.place.rows("t")} if any(done) else {}
        for row, true in zip([*changed, *new], done, strict=True):
            if true:
                self.rows[row] = there[row]

    @staticmethod
    def _due(row: int) -> bool:
        return age(row) > 90 if row <= ROWS else row % 2 == 0

    # ---- where the rows are ----

    def _check(self, children: list[Row]) -> None:
        shape, kind = self.case.shape, self.case.cell.kind
        due = [row for i, row in self.rows.items() if self._due(i)]
        stay = [row for i, row in self.rows.items() if not self._due(i)]
        if len(due) < DUE:
            raise Broken("nothing was to be done")
        _same("t", content(self.place.rows("t")), content(stay))
        gone, left = _apart(children, lambda row: self._due(_id(row, "t_id")))
        if shape.children:
            _same("c", content(self.place.rows("c")), content(left))
        if kind != "delete":
            _same("the archive of t", content(self._archived("t")), content(due))
            _same("the archive of c", content(self._archived("c")), content(gone))
        left_over = self.place.clean(shape, kind)
        if left_over:
            raise Broken(f"left behind: {left_over}")

    def _archived(self, table: str) -> list[Row]:
        if self.case.cell.kind == "table":
            return self.place.rows(f"{table}_archive")
        return rows_in_files(self.archive, table)


def _id(row: Mapping[str, str], column: str = "id") -> int:
    """Numbers are written as #12e3 by the tests."""
    digits, _e, zeros = row[column].lstrip("#'").partition("e")
    return int(digits + int(zeros or 0) * "0")


def _apart(rows: list[Row], which: Any) -> tuple[list[Row], list[Row]]:
    return [row for row in rows if which(row)], [row for row in rows if not which(row)]


def _same(where: str, found: Content, wanted: Content) -> None:
    more, less = found - wanted, wanted - found
    if more or less:
        raise Broken(f"{where}: {more.total()} rows too many {_few(more)}, {less.total()} too few {_few(less)}")


def _few(rows: Counter[str]) -> list[str]:
    return sorted(rows.elements())[:3]


def _kinds(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(step["kind"], step["reason"]) for step in result["ansible_facts"]["db_cleanup"]["steps"]]


# ---- all of them -----------------------------------------------------------------------------------------------------


class Rows:
    """A place, and the tests on it."""

    def __init__(self, fleet: Fleet, engine: str, how: How) -> None:
        self._place, self._how = place_on(start(fleet, engine), engine), how
        self._work = fleet.folder("work")

    @property
    def version(self) -> str:
        return self._place.version

    def cells(self) -> Iterator[Cell]:
        """What can be hit on this engine."""
        for kind in KINDS:
            for phase in PHASES:
                if phase in OF_FILES and kind != "files":
                    continue
                for means in self._place.means:
                    # Where only the module dies, nobody waits for the answer.
                    if phase != "unanswered" or means in ("session ended", "server stopped"):
                        yield Cell(self._place.name, kind, phase, means)

    def hit(self, cell: Cell, number: int) -> bool:
        return Test(Case(cell, number, self._how.mutant), self._place, self._work / "case", self._how.seed).run()

    def recover(self) -> None:
        self._place.recover()


def start(fleet: Fleet, engine: str) -> Server | Path:
    """The server of this name, or a file."""
    if engine == "sqlite":
        return fleet.folder("sqlite") / "chaos.sqlite3"
    if engine == "postgresql":
        return fleet.postgresql(POSTGRESQL, settings={"log_statement": "none"})
    settings = {"general_log": "OFF"}
    return fleet.mysql(settings=settings) if engine == "mysql" else fleet.mariadb(settings=settings)


WHAT = What(ENGINES, KINDS, PHASES, MEANS, tuple(MUTANTS), Rows)
