# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One step that archives into files, what must be left of it, and how that is looked at. Runs alone, too: dies, often.

`python -m tests.unit.files.scenario FOLDER` kills a process at each call of the step, lets the next run settle what it
left, and writes what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.manifest import MANIFEST
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.reading import read
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.shelf import Shelf, look, wrecks
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Archive, Column, Frame
from tests.unit.files.disk import Disk

ORDERS, ITEMS = Ref("shop", ("public", "orders")), Ref("shop", ("public", "items"))
COLUMNS = (Column("id", "bigint", "number"), Column("what", "text", "text"))
IDENTITY, RULE = "server 1, shop, public.orders", "old orders"


def day(number: int) -> str:
    return f"2026-01-{number:02}T00:00:00+00:00"


def bite(number: int) -> list[Frame]:
    """Two rows and, now and then, something that hangs from them."""
    return frames(number, 2, 0 if number == 2 else 1)


def frames(number: int, orders: int, items: int) -> list[Frame]:
    """So many rows of each table, their numbers told by the bite's."""
    found = []
    if items:
        found.append(Frame(ITEMS, COLUMNS, [[100 * number + place, "item"] for place in range(items)]))
    rows = [[100 * number + place, None if place else f"order {number}"] for place in range(orders)]
    return [*found, Frame(ORDERS, COLUMNS, rows, (str(number),), day(number), day(number + 1))]


def shelf(folder: Path, compression: str = "gzip", form: str = "jsonl") -> Shelf:
    return Shelf(
        str(folder), IDENTITY, RULE, ORDERS, Archive("", str(folder), form, compression), about={"server": "one"}
    )


class World:
    """The database's side: which bites were committed. Outlives whatever happens to the archive."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.pause: Callable[[], None] = lambda: None  # a moment in which it may die

    @property
    def committed(self) -> list[int]:
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def commit(self, number: int) -> None:
        with self.log.open("a") as file:
            file.write(f"{number}\n")


class Bite(NamedTuple):
    """What is put, and whether it is committed."""

    frames: list[Frame]
    commits: bool = True


PLAN: Mapping[int, Bite] = MappingProxyType(
    {
        1: Bite(bite(1)),
        2: Bite(bite(2)),
        3: Bite(bite(3), commits=False),
        4: Bite(bite(4)),
    }
)


def step(folder: Path, world: World, plan: Mapping[int, Bite] = PLAN) -> None:
    """Bites as nibble takes them."""
    files = shelf(folder)
    try:
        for number, part in plan.items():
            try:
                files.put(part.frames, str(number))
            except BaseException:
                files.discard()
                raise
            world.pause()
            if not part.commits:
                files.discard()
                continue
            world.commit(number)
            world.pause()
            files.settle()
    finally:
        files.close()


def recover(folder: Path, world: World) -> None:
    """The next run."""
    for wreck in wrecks(str(folder), IDENTITY, RULE):
        if wreck.pending is None or int(wreck.pending.mark) in world.committed:
            wreck.keep()
        else:
            wreck.cut()


def archived(folder: Path) -> list[tuple[str, str]]:
    """(table, id) of all rows in finished files."""
    found = []
    for path in sorted(folder.glob("*" + MANIFEST)):
        manifest = json.loads(path.read_text())
        rows = list(read(str(path).removesuffix(MANIFEST)))
        if len(rows) != manifest["rows"]:
            found.append(("rows", str(len(rows))))
        found += [(manifest["table"]["path"][-1], row[0]) for row in rows]
    return sorted(found)


def expected(world: World, plan: Mapping[int, Bite]) -> list[tuple[str, str]]:
    return sorted(
        (frame.table.path[-1], str(row[0]))
        for number in world.committed
        for frame in plan[number].frames
        for row in frame.rows
    )


def complaints(folder: Path, world: World, plan: Mapping[int, Bite] = PLAN) -> list[str]:
    """What is not as it should be once everything is settled."""
    found = []
    names = sorted(path.name for path in folder.iterdir())
    data = [name for name in names if name.endswith(".gz")]
    if names != sorted(data + [name + MANIFEST for name in data]):
        found.append(f"strays: {names}")
    if look(str(folder), IDENTITY, RULE, None).unsettled:
        found.append("unsettled files")
    if archived(folder) != expected(world, plan):
        found.append(f"{archived(folder)} instead of {expected(world, plan)}")
    return found


def run(base: Path, stop: int, again: int | None) -> dict[str, Any]:
    """Killed at call `stop` of the step; the next run at call `again`; then one that is left alone."""
    folder, world = base / "archive", World(base / "log")
    shutil.rmtree(base, ignore_errors=True)
    folder.mkdir(parents=True)
    disk = Disk(folder, stop, kill=True)
    world.pause = disk.pause
    pid = os.fork()
    if pid == 0:
        with disk.watched():
            step(folder, world)
        os._exit(0)
    ended = os.waitpid(pid, 0)[1] == 0
    if again is not None:
        pid = os.fork()
        if pid == 0:
            with Disk(folder, again, kill=True).watched():
                recover(folder, world)
            os._exit(0)
        os.waitpid(pid, 0)
    recover(folder, world)
    return {"stop": stop, "again": again, "ended": ended, "complaints": complaints(folder, world)}


def main() -> None:
    base = Path(sys.argv[1])
    seen: list[dict[str, Any]] = []
    stop = 0
    while not seen or not seen[-1]["ended"]:
        stop += 1
        seen.append(run(base, stop, None))
        if not seen[-1]["ended"]:
            seen.insert(-1, run(base, stop, 1 + stop % 9))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
