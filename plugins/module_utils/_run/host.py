# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where state lives on the host that a module runs on, and which processes live there. Knows no run and no step."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM_DIRECTORY = Path("/var/lib/dbfleet")


def state_directories() -> tuple[Path, ...]:
    """Where state may be kept, the best place first. Makes nothing: check mode and the run that follows must agree."""
    places = []
    nearest = SYSTEM_DIRECTORY if SYSTEM_DIRECTORY.exists() else SYSTEM_DIRECTORY.parent
    if os.access(nearest, os.W_OK | os.X_OK):
        places.append(SYSTEM_DIRECTORY)
    base = Path(os.environ.get("XDG_STATE_HOME") or "")
    if not base.is_absolute():  # the XDG specification: a relative path is to be ignored
        try:
            base = Path.home() / ".local" / "state"
        except RuntimeError:  # a user without a home has no place of its own
            return tuple(places)
    return (*places, base / "dbfleet")


def make_private(directory: Path) -> None:
    """Makes the directory, mode 0700, where it is not there. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_private(file: Path, text: str) -> None:
    """A new file, mode 0600, in the place of whatever had its name. Raises OSError."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)


def replace_private(file: Path, text: str) -> None:
    """The same, and whoever reads it meanwhile reads all of it, old or new. Not flushed to the disk. Raises OSError."""
    fresh = file.with_suffix(f"{file.suffix}.new")
    write_private(fresh, text)
    fresh.replace(file)


def birth(pid: int) -> str:
    """What tells a process from a later one with the same number; empty where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19] if len(fields) > 19 else ""  # proc(5): starttime, ticks after boot


def alive(pid: int, born: str | None) -> bool:
    """Whether the process that had this number, and was born then, is still there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another user's process: there, but not ours to signal
    now = birth(pid)
    return not (born and now and born != now)
