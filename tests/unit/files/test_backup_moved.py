# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup moved into a program: by the kernel where that can be, read to its end and compared in any case."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import reader
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.feeding import Fed, mover, pumped, slices
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.pump import together
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.store import part

from . import backing


def moved(backup: Backup, *argv: str) -> bytes:
    """What the program writes that is given the backup."""
    out = bytearray()
    fed = Fed(argv, env=dict(os.environ), take=lambda data, size: out.extend(data[:size]))
    try:
        with reader.opened(backup, backup.files[0]) as source:
            list(pumped(fed, slices(source), move=mover(source)))
    finally:
        fed.stop(0.0)
    return bytes(out)


@pytest.fixture(params=["zstd", "none"])
def backup(request: pytest.FixtureRequest, tmp_path: Path) -> Backup:
    """`none` is no program's output: it passes through this process."""
    with part(backing.task(tmp_path, compression=request.param)) as new:
        backing.fill(new)
        return new.seal(backing.record(new.id))


def test_all_of_it_arrives(backup: Backup) -> None:
    assert moved(backup, "cat") == backing.LINES


def test_who_wants_only_the_beginning_gets_no_more_and_all_is_compared(backup: Backup) -> None:
    assert moved(backup, "head", "-c", "9") == backing.LINES[:9]
    (stored,) = backup.files
    path = Path(backup.folder) / stored.name
    body = path.read_bytes()
    path.write_bytes(body[:-3] + bytes([body[-3] ^ 1]) + body[-2:])
    with pytest.raises(Refused):
        moved(backup, "head", "-c", "9")
    with pytest.raises(Refused):
        moved(backup, "cat")
    path.write_bytes(body[:-3])
    with pytest.raises(Refused):
        moved(backup, "cat")


def test_together_as_many_as_may_be_and_the_first_error_ends_all() -> None:
    running: list[int] = []
    most: list[int] = []

    def work(number: int, steps: int, fault: str = "") -> Generator[int, None, None]:
        running.append(number)
        try:
            for _step in range(steps):
                most.append(len(running))
                yield number
            if fault:
                raise ValueError(fault)
        finally:
            running.remove(number)

    assert sorted(together([work(1, 2), work(2, 1), work(3, 3)], 2)) == [1, 1, 2, 3, 3, 3]
    assert (running, max(most)) == ([], 2)
    with pytest.raises(ValueError, match="the second"):
        list(together([work(1, 99), work(2, 2, "the second"), work(3, 99)]))
    assert running == []
    both = together([work(1, 9), work(2, 9)])
    assert [next(both), next(both)] == [1, 2]
    both.close()
    assert running == []
