# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a run of db_cleanup can be stopped: the verbs of nibble's protocols and the journal's tick are wrapped."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines import nibble
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import purge
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Gone
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import finish, shelf
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention_steps
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run import journal, keeper

from .process import Gate, Run, Stop, put

# Where a bite can be stopped, in its order. "unanswered": committed, and the answer never came back.
PHASES = ("taken", "written", "flushed", "committed", "unanswered", "settled", "cursor saved", "named")
BITE = 8  # rows


class Bites:
    """The engine's verbs, with the gate between them."""

    def __init__(self, inner: Any, gate: Gate) -> None:
        self._inner, self._gate, self._rows = inner, gate, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def take(self, cursor: str | None, end: str) -> Any:
        taken = self._inner.take(cursor, end)
        self._rows = taken.rows
        if taken.rows:
            self._gate.passes("taken")
        return taken

    def commit(self) -> None:
        self._inner.commit()
        if self._rows:
            self._gate.passes("committed")
            if self._gate.passes("unanswered"):
                raise Gone("the connection was lost before the answer came")


class Shelf:
    """The shelf's verbs, with the gate between them."""

    def __init__(self, inner: Any, gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(self, frames: Sequence[Any], mark: str) -> int:
        written = int(self._inner.put(frames, mark))
        self._gate.passes("flushed")
        return written

    def settle(self) -> None:
        self._inner.settle()
        self._gate.passes("settled")


class _System:
    """The module os as shelf.py sees it: what was written is not flushed yet."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        self._gate.passes("written")
        os.fsync(fd)


def _arm(gate: Gate) -> None:
    """Only ever in a child."""
    real, name_one = nibble.nibble, finish._name

    def nibbled(bites: Any, task: Any, files: Any, cursor: str | None) -> Any:
        return real(Bites(bites, gate), task, Shelf(files, gate) if files else None, cursor)

    def named(folder: str, entry: Any) -> None:
        name_one(folder, entry)
        gate.passes("named")

    def told(tick: Callable[..., None]) -> Callable[..., None]:
        def ticked(self: Any, step: Any, said: Any) -> None:
            tick(self, step, said)
            if said.cursor is not None and said.amount.rows:
                gate.passes("cursor saved")

        return ticked

    put(nibble, nibble=nibbled)
    put(shelf, os=_System(gate))
    put(finish, _name=named)
    for kind in (journal.Journal, keeper.FileJournal):
        put(kind, tick=told(kind.tick))


# ---- mutants: two phases swapped -------------------------------------------------------------------------------------


def _commit_before_put(bites: Any, files: Any, cursor: str | None, end: str) -> tuple[Any, int, float]:
    taken, written = bites.take(cursor, end), 0
    mark = bites.mark() if files and taken.frames else ""
    bites.commit()
    if files and taken.frames:
        written = files.put(taken.frames, mark)
        files.settle()
    return taken, written, 0.0


def _settle_before_commit(bites: Any, files: Any, cursor: str | None, end: str) -> tuple[Any, int, float]:
    taken, written = bites.take(cursor, end), 0
    if files and taken.frames:
        written = files.put(taken.frames, bites.mark())
        files.settle()
    bites.commit()
    return taken, written, 0.0


MUTANTS = {"commit before put": _commit_before_put, "settle before commit": _settle_before_commit}


def begin(options: Mapping[str, Any], output: Path, *, stop: Stop | None = None, mutant: str = "") -> Run:
    """A run of db_cleanup with small bites, so that there are some."""

    def arm(gate: Gate) -> None:
        _arm(gate)
        if mutant:
            put(nibble, _bite=MUTANTS[mutant])
        put(retention_steps, FIRST_BITE=BITE, MOST_ROWS=BITE)
        put(purge, LEAST=BITE // 2)

    return Run("db_cleanup", options, output, arm=arm, stop=stop)
