# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes and ports: running programs as the servers' user, knowing and ending processes. No database here."""

from __future__ import annotations

import os
import pwd
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .errors import FleetError

# Below the range from which Linux takes the ports of outgoing connections: a stopped server finds its port free again.
PORTS = (20000, 32000)


class Account(NamedTuple):
    """An unprivileged user of this machine."""

    uid: int
    gid: int


@cache
def server_account() -> Account | None:
    """Give the user that servers run as; None means the caller's own.

    Database servers refuse to run as root, so root's servers run as `nobody` (or as DBFLEET_USER says).
    """
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(os.environ.get("DBFLEET_USER", "nobody"))
    return Account(entry.pw_uid, entry.pw_gid)


def give_away(path: Path) -> None:
    """Make the servers' user the owner of one path."""
    account = server_account()
    if account:
        os.chown(path, account.uid, account.gid)


def plain_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give an environment without the caller's PG*, MYSQL* and locale: programs behave the same everywhere."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "LC_ALL": "C.UTF-8", "TZ": "UTC", **(extra or {})}


def spawn(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own (Ctrl-C at a terminal must not reach it), its output appended to `log`."""
    account = server_account()
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=plain_environment(env),
            start_new_session=True,
            umask=0o077,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    as_server: bool = False,
    timeout: float = 600,
) -> str:
    """Run a program to its end and give its standard output; FleetError with its standard error when it fails."""
    account = server_account() if as_server else None
    done = subprocess.run(
        [str(word) for word in argv],
        input=(text or "").encode(),
        capture_output=True,
        check=False,
        cwd="/",
        env=plain_environment(env),
        timeout=timeout,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or output.strip()
        raise FleetError(f"{Path(argv[0]).name} ended with {done.returncode}: {said}")
    return output


def free_port() -> int:
    """Find a TCP port that nothing on loopback uses now (another process may still take it first: retry the start)."""
    for _attempt in range(200):
        port = random.randint(*PORTS)
        with socket.socket() as probe:
            # What servers set too: a port in TIME_WAIT is free for them.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise FleetError(f"no free port on 127.0.0.1 in {PORTS[0]}-{PORTS[1]}")


def born(pid: int) -> str:
    """Give the start time of a living process in clock ticks since boot, "" when there is none.

    With the pid it names one process for ever: pids are reused.
    """
    try:
        # The program's name, in parentheses, may itself hold blanks and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def mentions(pid: int, text: str) -> bool:
    """Tell whether a process was started with `text` somewhere in its command line."""
    try:
        return text.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Give all living descendants of a process, nearest first."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = parents.get(waiting.pop(0), [])
        found += below
        waiting += below
    return found


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_family(pid: int) -> None:
    """SIGKILL a process and all its descendants; it is stopped first, so that it cannot start another meanwhile."""
    send(pid, signal.SIGSTOP)
    family = children(pid)
    for member in (pid, *family):
        send(member, signal.SIGKILL)
    wait_gone(*family)


def wait_gone(*pids: int, timeout: float = 10) -> bool:
    """Wait until none of these processes lives (a zombie does not live)."""
    end = time.monotonic() + timeout
    while any(born(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
