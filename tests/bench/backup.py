# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups against what each engine brings along. See README.md beside this; BENCH_BACKUP=postgresql: one of them."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

ENGINES = ("postgresql", "mysql")


def main() -> None:
    """Each engine's part, one after the other."""
    asked = os.environ.get("BENCH_BACKUP", " ".join(ENGINES)).split()
    for engine in ENGINES:
        if engine in asked and (Path(__file__).parent / f"backup_{engine}.py").exists():
            importlib.import_module(f"tests.bench.backup_{engine}").main()


if __name__ == "__main__":
    main()
