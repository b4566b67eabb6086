# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task that may take so many rows in one run takes no more, however often it has to begin anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Amount, Pace, Ref, Step, Tick, Work

from .engines import Files, anything, carry_out, count, make_file


class Some(NamedTuple):
    """Deletes some rows, a bite at a time."""

    ref: Ref
    pace: Pace = Pace(100, 60.0)
    rows: int | None = None

    @property
    def kind(self) -> str:
        return "delete"


class Interrupted(Files):
    """Somebody else holds a lock after each bite."""

    def _delete(self, session: Any, task: Any, cursor: str | None) -> Work:
        rows = min(100, 1000 if task.rows is None else task.rows)
        if rows:
            session.execute(f"DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT {rows})")
            yield Tick(Amount(rows=rows), "1")
            raise Busy("locked")


def taken(path: str, rows: int | None) -> int:
    carry_out(Interrupted(), Step(anything(Some(Ref(path, ("orders",)), rows=rows)), "old"), retries=3)
    return 1000 - count(path)


def test_rows_that_earlier_attempts_took_are_not_taken_again(tmp_path: Path) -> None:
    assert taken(make_file(tmp_path / "a.sqlite"), 150) == 150
    assert taken(make_file(tmp_path / "b.sqlite"), 100) == 100


def test_without_a_limit_each_attempt_takes_what_it_can(tmp_path: Path) -> None:
    assert taken(make_file(tmp_path / "a.sqlite"), None) == 400
