# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a restored database holds the rows of its dump: dumped once more, and compared row by row. No restore."""

from __future__ import annotations

import typing as t

from ..._backups import Backup
from ..._errors import Refused, Stopped
from ..._records import Tick, Work
from .clients import client, environment, private_folder, target
from .connection import Kind
from .decoding import major, written
from .dumped_rows import Rows, differences, parts
from .dumped_values import is_value
from .dumping import APPLICATION, Room, judge, milliseconds
from .session import Session


def matched(session: Session, backup: Backup, room: Room, version: int, name: str) -> Work:
    """As many rows in each table as the manifest says, and the same ones, in any order; `version`: of this server.

    By pg_dump, since only so both sides are written with the same settings. Raises Refused, MissingMeans, Stopped.
    """
    from ..._files.feeding import Fed
    from ..._files.pipeline import ProgramFailed

    # The tool's version decides how names are quoted, and which partitions are loaded through their table.
    tool = client("pg_dump", max(version, major(backup.tool.rpartition(" ")[2])), room.bin_dir)
    rows = Rows(summed=True)
    argv = [tool.path, *target(room.connector, name), "--data-only"]
    argv.append(f"--lock-wait-timeout={milliseconds(room.patience)}")
    with private_folder() as folder:
        env = environment(room.connector, folder, Kind(True, room.patience), APPLICATION, backup.about)
        fed = Fed(argv, env=env, take=rows.feed)
        try:
            fed.close()
            done = None
            while done is None:
                yield Tick()
                done = fed.wait(1.0)
                if session.stopped.is_set():
                    raise Stopped("stopped")
        finally:
            fed.stop()
    if done.code:
        raise judge(ProgramFailed("pg_dump", done.code, done.err), room)
    rows.end()
    wrong = _differences(backup.rows or {}, rows.counts)
    wrong = wrong or _differences(backup.sums or {}, {**written(rows.sums), **rows.values})
    if wrong:
        raise Refused(f"what was restored is not what backup {backup.id} held: {wrong}")


def _differences(expected: t.Mapping[str, t.Any], actual: t.Mapping[str, t.Any]) -> str:
    """In words. What was left out of the dump is there, and empty; another version may quote other names."""
    found = {_known(name): value for name, value in actual.items()}
    there = {name: found[_known(name)] for name in expected if _known(name) in found}
    return differences(expected, there)


def _known(name: str) -> t.Hashable:
    return name if is_value(name) else parts(name)
