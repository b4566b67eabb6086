# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev chaos` in small, as tests use it. No test lives here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .conftest import missing

ROOT = Path(__file__).parents[2]


def chaos(what: str, *words: str) -> tuple[int, str]:
    """Its exit status and what it printed; each cell is hit once."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", what, "--hits=1", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if "NOT TESTED" in done.stdout:
        missing(done.stdout)
    return done.returncode, done.stdout
