# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that are killed in the middle of what they do with a backup: before call number so and so to the system.

`python -m tests.unit.files.dying` reads lines of JSON (WHAT, NUMBER, FOLDER), does each in a child of its own, and
prints for each how the child ended and how many calls it made where it came to its end: starting Python anew for each
takes longer than what they do.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, copies
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.store import part
from tests.unit.files.backing import NOON, fill, look, record, task

# All that changes a file or a folder, and what a file is handed over with.
CALLS = ("open", "write", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "chmod", "fchmod", "close", "readv")


def dying(number: int) -> Callable[[], int]:
    """From now on calls are counted, in all threads, and the one with that number is not made."""
    counter, made = itertools.count(1), [0]

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            made[0] = next(counter)
            if made[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **keywords)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))
    return lambda: made[0]


def write(folder: Path) -> None:
    """Two files of one backup, one of them in a folder of its own, in both ways."""
    with part(task(folder)) as new:
        fill(new, "seq 1 100000")
        list(new.feed([b"x" * 1000] * 3, what="globals", ext="globals"))
        place = new.place("dir")
        list(new.spread(["sh", "-c", f"seq 1 1000 > {place}/toc"], dict(os.environ), what="x", place=place))
        new.seal(record(new.id, began=NOON + timedelta(hours=1)))


def amend(folder: Path) -> None:
    backups.amend(look(folder).backups[-1], level="decode")


def remove(folder: Path) -> None:
    backups.remove(look(folder).backups[-1])


def copy(folder: Path) -> None:
    list(copies.copy(look(folder).backups[-1], str(folder.parent / "there")))


def clear(folder: Path) -> None:
    for left in look(folder).unfinished:
        backups.clear(str(folder), left)


DEEDS = {"write": write, "amend": amend, "remove": remove, "copy": copy, "clear": clear}


def _child(deed: str, number: int, folder: str, tell: int) -> None:
    status = 1
    try:
        real = os.write
        count = dying(number)
        DEEDS[deed](Path(folder))
        real(tell, str(count()).encode())
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Until there is nothing more to read."""
    for line in sys.stdin:
        deed, number, folder = json.loads(line)
        heard, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(heard)
            _child(deed, number, folder, tell)
        os.close(tell)
        with os.fdopen(heard) as pipe:
            count = int(pipe.read() or 0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, count]), flush=True)


if __name__ == "__main__":
    main()
