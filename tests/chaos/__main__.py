# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev chaos cleanup`, `partitions` or `backup`: runs killed everywhere, tabulated; 1 where something was lost."""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fleet import Fleet, Missing

from .table import Cell, How, Score, What, attack, sparse

WHATS = ("cleanup", "partitions", "backup")


def main() -> int:
    """Do what the command line says and give the exit status."""
    first = argparse.ArgumentParser(prog="./dev chaos", add_help=False)
    first.add_argument("what", choices=WHATS)
    named, rest = first.parse_known_args()
    what: What = importlib.import_module(f".{named.what}", __package__).WHAT
    parser = argparse.ArgumentParser(prog=f"./dev chaos {named.what}", description=__doc__)
    choices = {"engine": what.engines, "kind": what.kinds, "phase": what.phases, "means": what.means}
    for name, words in choices.items():
        parser.add_argument(f"--{name}", choices=words, action="append", default=[])
    parser.add_argument("--cell", action="append", default=[], help="kind/phase/means; only these")
    parser.add_argument("--hits", type=int, default=int(os.environ.get("CHAOS_HITS", "6")), help="of each cell")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("DBFLEET_SEED", "2026")))
    parser.add_argument("--sparse", action="store_true", help="each phase of each kind by one of the means, in turn")
    parser.add_argument("--mutant", choices=what.mutants, default="", help="made wrong on purpose: this must fail")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(rest)
    asked.what = named.what
    if asked.report:
        return _one(what, asked)
    return _all(what, asked)


def _one(what: What, asked: argparse.Namespace) -> int:
    """One engine, in this process, which forks its victims."""
    (engine,) = asked.engine
    with Fleet() as fleet:
        try:
            field = what.field(fleet, engine, How(asked.seed, asked.mutant))
        except Missing as why:
            asked.report.write_text(json.dumps({"missing": str(why)}))
            return 0
        found = list[list[object]]()
        wanted = [cell for cell in field.cells() if _wanted(what, asked, cell)]
        # What is there now stays: victims that looked through it would copy it.
        gc.collect()
        gc.freeze()
        for cell in sparse(what, wanted) if asked.sparse else wanted:
            score = attack(field, cell, asked.hits)
            found.append([*cell, score.hits, score.failures])
            said = f"{score.hits} hits, {len(score.failures)} failures"
            print(f"{', '.join(cell)}: {said}", file=sys.stderr, flush=True)
            # What was found stands there whatever becomes of this process.
            asked.report.write_text(json.dumps({"version": field.version, "cells": found}))
    return 0


def _wanted(what: What, asked: argparse.Namespace, cell: Cell) -> bool:
    if asked.cell:
        return "/".join(cell[1:]) in asked.cell
    return (
        cell.kind in (asked.kind or what.kinds)
        and cell.phase in (asked.phase or what.phases)
        and cell.means in (asked.means or what.means)
    )


def _all(what: What, asked: argparse.Namespace) -> int:
    """Two engines at a time: most of the time something is waited for."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos") as folder, ThreadPoolExecutor(what.together) as pool:
        reports = [Path(folder) / f"{engine}.json" for engine in asked.engine or what.engines]
        if len(reports) == 1:
            _one(what, argparse.Namespace(**{**vars(asked), "engine": [reports[0].stem], "report": reports[0]}))
        else:
            list(pool.map(lambda report: _beside(report, asked), reports))
        found = {report.stem: json.loads(report.read_text()) if report.exists() else {} for report in reports}
    scores: dict[Cell, Score] = {}
    bad = 0
    for engine, said in found.items():
        if "cells" not in said:
            print(f"{engine}: NOT TESTED: {said.get('missing', 'its process died')}")
            bad += "missing" not in said or os.environ.get("CI") == "true"
            continue
        print(f"{engine} {said['version']}")
        for *words, hits, failures in said["cells"]:
            score = scores[Cell(*words)] = Score()
            score.hits, score.failures = hits, failures
    bad += _show(what, scores, asked.hits)
    for name in set(asked.cell) - {"/".join(cell[1:]) for cell in scores}:
        print(f"NO SUCH CELL {name}")
        bad += 1
    print(f"{sum(s.hits for s in scores.values())} hits in {time.monotonic() - began:.0f} s, seed {asked.seed}")
    return 1 if bad or not scores else 0


def _beside(report: Path, asked: argparse.Namespace) -> None:
    words = [asked.what, f"--engine={report.stem}", f"--hits={asked.hits}", f"--seed={asked.seed}"]
    words += [f"--{name}={value}" for name in ("kind", "phase", "means", "cell") for value in getattr(asked, name)]
    words += [f"--mutant={asked.mutant}"] if asked.mutant else []
    words += ["--sparse"] if asked.sparse else []
    subprocess.run([sys.executable, "-m", "tests.chaos", *words, f"--report={report}"], check=False)


def _show(what: What, scores: dict[Cell, Score], least: int) -> int:
    """Prints hits/failures of each cell; how many cells are bad."""
    means = [each for each in what.means if any(cell.means == each for cell in scores)]
    print(f"\n{'engine':<11} {'kind':<15} {'phase':<15}" + "".join(f"{each:>16}" for each in means))
    for engine, kind, phase in dict.fromkeys(cell[:3] for cell in scores):
        row = [scores.get(Cell(engine, kind, phase, each)) for each in means]
        shown = ["-" if score is None else f"{score.hits}/{len(score.failures)}" for score in row]
        print(f"{engine:<11} {kind:<15} {phase:<15}" + "".join(f"{text:>16}" for text in shown))
    for cell, score in scores.items():
        for failure in score.failures:
            print(f"FAILED {', '.join(cell)}, {failure}")
        if score.hits < least:
            print(f"NOT HIT {', '.join(cell)}: {score.hits} of {least} times")
    return sum(bool(score.failures) or score.hits < least for score in scores.values())


if __name__ == "__main__":
    sys.exit(main())
