# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is counted: cells of hits and failures, whatever is killed. No server and no module is known here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from tests.fleet import Fleet


class Cell(NamedTuple):
    engine: str
    kind: str
    phase: str
    means: str


class Broken(AssertionError):
    """Something is not what it was, or something is left behind."""


class Score:
    """Hits and failures of one cell."""

    def __init__(self) -> None:
        self.hits = 0
        self.failures: list[str] = []


class Field(Protocol):
    """Where one engine's cells are tested."""

    @property
    def version(self) -> str: ...

    def cells(self) -> Iterable[Cell]:
        """What can be hit on this engine."""

    def hit(self, cell: Cell, number: int) -> bool:
        """One test; whether it was stopped where it should be. Raises Broken, and whatever else goes wrong."""

    def recover(self) -> None:
        """After a failure: the next test finds nothing of this one."""


class How(NamedTuple):
    seed: int
    mutant: str


class What(NamedTuple):
    """A command of `./dev chaos`: the words of its table, and what stands behind them."""

    engines: Sequence[str]
    kinds: Sequence[str]
    phases: Sequence[str]
    means: Sequence[str]
    mutants: Sequence[str]
    field: Callable[[Fleet, str, How], Field]  # raises Missing
    together: int = 2  # engines at a time


def attack(field: Field, cell: Cell, hits: int) -> Score:
    """The cell is tried until it was hit that often, or three times as often in vain."""
    score = Score()
    for number in range(3 * hits):
        if score.hits >= hits:
            break
        try:
            score.hits += field.hit(cell, number)
        except Exception as error:
            score.hits += 1
            score.failures.append(f"{number}: {type(error).__name__}: {error}"[:1500])
            field.recover()
    return score


def sparse(what: What, wanted: Iterable[Cell]) -> Iterator[Cell]:
    """Each phase of each kind once; what strikes there changes from phase to phase, and from kind to kind."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in wanted:
        found.setdefault((cell.kind, cell.phase), []).append(cell)
    for (kind, phase), choice in found.items():
        yield choice[(what.kinds.index(kind) + what.phases.index(phase)) % len(choice)]
