# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guide lets people practise on: it comes out as it is shown there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from .module_runner import run

GUIDE = (Path(__file__).parents[2] / "docs/docsite/rst/guide_first_hour.rst").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The first code block that begins with a comment of this file's name."""
    found = re.search(rf"^  # {re.escape(name)}\n((?:  .*\n|\n)+)", GUIDE, re.MULTILINE)
    assert found, f"the guide has no {name}"
    return "".join(line.removeprefix("  ") for line in found[1].splitlines(keepends=True))


def test_the_file_to_practise_on(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", block("make_practice.py")], cwd=tmp_path, check=True)
    host = yaml.safe_load(block("inventory.yml"))["all"]["hosts"]["practice"]
    options = {name.removeprefix("vacuum_"): value for name, value in host.items() if name.startswith("vacuum_")}
    options |= {"engine": host["db_engine"], "databases": [str(tmp_path / "practice.sqlite3")]}
    planned = run("db_vacuum", {**options, "journal": "none"}, check=True).fact()["steps"]
    assert len(planned) == 2
    for step in planned:
        assert step["reason"] in GUIDE
        assert all(statement in GUIDE for statement in step["statements"])
