# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client programs: started here and nowhere else, in a process group of their own, without a shell."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import typing as t

from ._errors import MissingMeans
from ._tuples import NamedTuple


class Completed(NamedTuple):
    code: int
    out: str
    err: str


class Program:
    """A client program under way: `wait` in slices, `stop` from any thread. SIGINT first: most clean up then."""

    def __init__(self, argv: t.Sequence[str], *, env: t.Mapping[str, str], package: str = "") -> None:
        if shutil.which(argv[0]) is None:
            raise MissingMeans(f"{argv[0]} is not there", cure=f"Install the package {package or argv[0]}")
        # Threads use this: AnsibleModule.run_command cannot be stopped, and its output cannot be read as it comes.
        self._child = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._read: list[str] = ["", ""]
        pipes = (self._child.stdout, self._child.stderr)
        self._readers = [threading.Thread(target=self._drain, args=(n, p), daemon=True) for n, p in enumerate(pipes)]
        for reader in self._readers:
            reader.start()

    def _drain(self, number: int, pipe: t.IO[str] | None) -> None:
        if pipe:
            with pipe:
                self._read[number] = pipe.read()

    def wait(self, seconds: float) -> Completed | None:
        """What it said, once it has ended; None while it runs."""
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        for reader in self._readers:
            reader.join(5)
        return Completed(code, *self._read)

    def stop(self, patience: float = 10.0) -> None:
        """Ends the whole process group."""
        for sign, seconds in ((signal.SIGINT, patience), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            if self._child.poll() is not None:
                return
            try:
                os.killpg(self._child.pid, sign)
            except ProcessLookupError:
                return
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
