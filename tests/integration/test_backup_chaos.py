# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill test of backups in small, and that it can fail. All of it: `./dev chaos backup`."""

from __future__ import annotations

import re

import pytest

from .chaos import chaos

CELLS = {
    "files": [("rotate copies", "marked", "killed"), ("rotate copies", "deleted", "killed")],
    "sqlite": [
        ("dump", "manifest half", "killed"),
        ("dump", "copy there", "killed"),
        ("restore", "reading", "killed"),
        ("gpg", "writing", "client killed"),
    ],
    "bucket": [
        ("copy to bucket", "part there", "killed"),
        ("fetch", "fetching", "killed"),
        ("rotate bucket", "deleted there", "killed"),
    ],
    "postgresql": [
        ("streams", "writing", "killed"),
        ("restore", "founded", "killed"),
        ("drill beside", "comparing", "session ended"),
        ("drill", "started", "killed"),
    ],
    "mariadb": [
        ("streams", "moment", "killed"),
        ("streams", "writing", "session ended"),
        ("restore", "founded", "killed"),
        ("restore", "loading", "killed"),
        ("physical", "writing", "killed"),
        ("drill beside", "loading", "killed"),
    ],
    "pg site": [("whole", "started", "client killed")],
    "maria site": [("whole", "moving", "killed")],
    "repository": [("pgbackrest", "at work", "killed")],
}


@pytest.mark.parametrize("engine", list(CELLS))
def test_whatever_dies_the_backup_before_it_is_whole_and_the_next_run_succeeds(engine: str) -> None:
    """The seed says which passage of a phase it is, and what comes afterwards."""
    words = [f"--cell={'/'.join(cell)}" for cell in CELLS[engine]]
    code, said = chaos("backup", f"--engine={engine}", f"--seed={list(CELLS).index(engine)}", *words)
    assert code == 0, said


@pytest.mark.parametrize(
    ("mutant", "engine", "cell", "said"),
    [
        ("manifest first", "sqlite", "dump/manifest there/killed", r"sqlite3.zst is missing"),
        ("previous deleted first", "sqlite", "dump/writing/killed", "the earlier backup is gone"),
        ("files before the marker", "files", "rotate/deleted/killed", "is missing"),
        ("copies that are not noted", "bucket", "copy to bucket/part there/killed", "left behind: ..upload of"),
        ("keystone first", "maria site", "whole/moving/killed", "no server runs on the directory"),
    ],
)
def test_what_is_done_in_a_wrong_order_is_found(mutant: str, engine: str, cell: str, said: str) -> None:
    # With this seed one hit of each comes where what is wrong shows: before a run that goes on with something else.
    code, text = chaos("backup", f"--engine={engine}", f"--cell={cell}", f"--mutant={mutant}", "--seed=2029")
    assert code == 1 and re.search(f"FAILED.*{said}", text), text
