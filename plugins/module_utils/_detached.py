# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that goes on alone: whoever started it may lose the connection, and comes back for its result.

The module itself steps aside rather than being wrapped by Ansible's async: no second module is carried to the host, no
arguments (and passwords) lie there in a file while it runs, and nothing ends it after a time. The other half, on the
controller, is plugin_utils/_job.py.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import typing as t
from contextlib import suppress
from pathlib import Path

from ._files import durable
from ._run.control import PROGRESS
from ._run.host import birth, make_private

MARK = "dbfleet_job"  # in what the starting process says
RESULT = ".result"
KEPT = 7 * 86400.0  # seconds for which somebody may come back for a result


def detach(places: t.Sequence[Path]) -> None:
    """From here on this is a process of its own, whose result is written into a file in one of the places' `running`.

    The process that was started says which file and which process that is, and ends. Where none of the places can be
    written nothing changes: the run goes on as it was started.
    """
    for place in places:
        folder = place / "running"
        try:
            make_private(place)
            make_private(folder)
            _sweep(folder)
            path = folder / f"{secrets.token_hex(8)}{RESULT}"
            result = durable.create(str(path))
        except OSError:
            continue
        _part(folder, path, result)
        return


def _part(folder: Path, path: Path, result: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    heard, tell = os.pipe()
    try:
        pid = os.fork()
    except OSError:  # no more processes for this user: it stays where it is
        for fd in (result, heard, tell):
            os.close(fd)
        path.unlink()
        return
    if pid:
        os.close(tell)
        os.read(heard, 1)  # until the other one has left the session, whose end could be its own before
        facts = {"pid": pid, "born": birth(pid), "result": str(path), "progress": str(folder / f"{pid}{PROGRESS}")}
        sys.stdout.write(json.dumps({"changed": False, MARK: facts}) + "\n")
        sys.stdout.flush()
        # Not by way of what the module's wrapper does at the end: the other one needs what that would remove.
        os._exit(0)
    os.setsid()  # the end of the session that started it is not its own
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, stream in ((0, nothing), (1, result), (2, nothing)):
        os.dup2(stream, number)
    os.close(nothing)
    # Its lock, held by descriptor 1, says that it is still written.
    os.close(result)
    durable.locked(1)
    os.close(heard)
    os.close(tell)


def _sweep(folder: Path) -> None:
    """Removes results that nobody has come for. Raises OSError."""
    for file in folder.glob(f"*{RESULT}"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime < KEPT:
                continue
            fd = durable.open_again(str(file))
            try:
                if durable.locked(fd):
                    file.unlink()
            finally:
                os.close(fd)
