# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of what was told: read and replaced as a whole by one run at a time. What is in it: plugin_utils/_calls.py.

A run claims the file, sends, and says then what went out. The claim ends with the run, or after a while where that was
killed: then nobody wrote down that anything was told, and the next run tells it. Runs on the controller, or on a host.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
import typing as t
from pathlib import Path

from ._errors import Held

LEASE = 180.0  # seconds after which a run that did not come back is taken for dead: longer than all that it sends takes
LOOK = 0.2  # seconds between two looks at somebody else's claim
MODE = 0o600  # names of hosts and databases, errors of servers


def claim(path: Path, run: str, *, wait: float) -> str | None:
    """Waits until nobody else has claimed the file, claims it, and returns what is in it; None where there is none.

    Raises Held after `wait` seconds, and OSError.
    """
    until = time.monotonic() + wait
    while True:
        with _locked(path) as lock:
            if _holder(lock) in ("", run):
                _hold(lock, run)
                return _read(path)
        if time.monotonic() >= until:
            raise Held(f"another run is sending calls by {path}", cure="Try again when it has ended")
        time.sleep(LOOK)


def save(path: Path, run: str, content: str, *, end: bool, aside: bool = False) -> None:
    """Replaces the file; with `aside` what is there, and is damaged, stays beside it.

    Raises Held where the claim was lost meanwhile, and OSError.
    """
    with _locked(path) as lock:
        if _holder(lock) not in ("", run):
            raise Held(f"another run has taken {path} over", cure="What this run sent may be sent again")
        if aside:
            path.replace(path.with_name(f"{path.name}.damaged-{int(time.time())}"))
        _replace(path, content)
        _hold(lock, "" if end else run)


def peek(path: Path) -> str | None:
    """What is in the file, without a claim and without a trace: for check mode. Raises OSError."""
    return _read(path)


@contextlib.contextmanager
def _locked(path: Path) -> t.Iterator[t.IO[str]]:
    """The file beside it that says who has claimed it; locked only for moments."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, MODE)
    with os.fdopen(number, "r+", encoding="utf-8", errors="replace") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _holder(lock: t.IO[str]) -> str:
    """Whose claim holds; nobody's where it is too old, or from a clock that was far off."""
    lock.seek(0)
    run, space, at = lock.read().strip().rpartition(" ")
    try:
        age = time.time() - float(at)
    except ValueError:
        return ""
    return run if space and abs(age) < LEASE else ""


def _hold(lock: t.IO[str], run: str) -> None:
    lock.seek(0)
    lock.truncate()
    if run:
        lock.write(f"{run} {time.time()}\n")
    lock.flush()


def _read(path: Path) -> str | None:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise OSError(f"{path} is not a file")
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def _replace(path: Path, content: str) -> None:
    target = path.resolve()  # a link stays a link
    number, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as out:
            os.fchmod(number, MODE)
            out.write(content.encode("utf-8", "replace"))
            out.flush()
            os.fsync(number)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
