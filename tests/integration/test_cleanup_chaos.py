# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill test of db_cleanup in small, and that it can fail. All of it: `./dev chaos cleanup`."""

from __future__ import annotations

import re

import pytest

from .chaos import chaos


@pytest.mark.parametrize("engine", ["postgresql", "mariadb", "mysql", "sqlite"])
def test_each_row_is_in_one_place_wherever_a_run_dies(engine: str) -> None:
    means = ["--means=killed", *([] if engine == "sqlite" else ["--means=session ended"])]
    code, said = chaos("cleanup", f"--engine={engine}", "--sparse", *means)
    assert code == 0, said


@pytest.mark.parametrize("engine", ["postgresql", "mariadb", "mysql"])
def test_each_row_is_in_one_place_when_the_server_is_stopped_hard(engine: str) -> None:
    phases = ["--phase=flushed", "--phase=unanswered"]
    code, said = chaos("cleanup", f"--engine={engine}", "--kind=files", "--means=server stopped", *phases)
    assert code == 0, said


@pytest.mark.parametrize("engine", ["postgresql", "mariadb", "mysql", "sqlite"])
def test_a_bite_committed_before_it_is_in_the_file_loses_rows(engine: str) -> None:
    words = ["--kind=files", "--phase=committed", "--means=killed", "--mutant=commit before put"]
    code, said = chaos("cleanup", f"--engine={engine}", *words)
    assert code == 1 and re.search(r"archive of t: 0 rows too many \[\], [1-8] too few", said), said


@pytest.mark.parametrize("engine", ["postgresql", "mariadb", "mysql"])
def test_a_bite_settled_before_it_is_committed_is_archived_twice(engine: str) -> None:
    words = ["--kind=files", "--phase=settled", "--means=session ended", "--mutant=settle before commit"]
    code, said = chaos("cleanup", f"--engine={engine}", *words)
    assert code == 1 and re.search(r"archive of t: [1-8] rows too many .* 0 too few", said), said
