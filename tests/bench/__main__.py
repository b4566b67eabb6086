# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev bench [name ...]`: runs the benchmarks named, or all. What each measures: README.md beside this."""

from __future__ import annotations

import importlib
import os
import sys

BENCHMARKS = ("vacuum", "fleet", "reindex", "bloat", "cleanup", "backup", "history", "report")


def main() -> int:
    """Every benchmark prints what it measured; 2 for a name that is none."""
    asked = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in asked if name not in BENCHMARKS]
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    os.environ["DBFLEET_FORK"] = "0"  # start-up counts
    for name in asked:
        print(f"== {name} ==", flush=True)
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
