# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's command line: `python -m tests.fleet available | install | unpack NAME | stop FOLDER`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .fleet import OWNER, end
from .install import install
from .installations import available
from .strangers import STRANGERS, unpack


def main() -> int:
    """Do what the command line says and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("available", help="name the servers that are on this machine")
    commands.add_parser("install", help="install the servers that are missing (as root on Debian)")
    unpacked = commands.add_parser("unpack", help="unpack a version that the tests do not meet each time")
    unpacked.add_argument("name", choices=sorted(STRANGERS))
    commands.add_parser("stop", help="stop and remove a fleet that was kept").add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.command == "available":
        return _available()
    if asked.command == "install":
        return _install()
    if asked.command == "unpack":
        return _unpack(asked.name)
    return _stop(asked.folder.absolute())


def _available() -> int:
    for name, version in available().items():
        print(f"{name:<18}{version}")
    return 0


def _install() -> int:
    missing = install()
    for line in missing:
        print(f"missing: {line}", file=sys.stderr)
    _available()
    # Without a server its tests are skipped: loudly at a desk, never in CI.
    return 1 if missing and (os.environ.get("CI") == "true" or os.geteuid() == 0) else 0


def _unpack(name: str) -> int:
    words = (f'{key}="{value}"' for key, value in unpack(name).items())
    print(" ".join((*words, "./dev integration")))
    return 0


def _stop(folder: Path) -> int:
    if not (folder / OWNER).is_file():
        print(f"{folder} is no fleet", file=sys.stderr)
        return 2
    end(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
