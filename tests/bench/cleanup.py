# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_cleanup against pt-archiver and one big DELETE; partitions, latency, memory. What is measured: README.md."""

from __future__ import annotations

import importlib
import os
import sys

PARTS = ("archiver", "delete", "partition", "partition_mysql", "latency", "memory")


def main() -> None:
    """All parts, or those that BENCH_PART names."""
    asked = os.environ.get("BENCH_PART", ",".join(PARTS)).split(",")
    if not set(asked) <= set(PARTS):
        sys.exit(f"BENCH_PART: there are {', '.join(PARTS)}")
    for part in asked:
        print(f"-- {part}", flush=True)
        importlib.import_module(f"tests.bench.cleanup_{part}").main()


if __name__ == "__main__":
    main()
