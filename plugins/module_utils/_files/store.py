# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a backup gets into its folder: whole, hashed and on the disk, or not at all. Knows no engine.

with part(task) as new:
    for more in new.run([argv], env, what="dump", ext="dump", stop=session.stopped, taps=[tap]):
        yield Tick(Amount(written=more))
    backup = new.seal(Backup(id=new.id, ...))
"""

from __future__ import annotations

import threading
import typing as t
from contextlib import contextmanager
from datetime import datetime

from .._backups import Backup
from .._tasks import Dump


class Tap(t.Protocol):
    """Sees the plain bytes pass by, before they are compressed. Called from a thread of its own, one call at a time."""

    def feed(self, data: bytes) -> None:
        """Up to 1 MB more. Raises DbFault: then the backup fails."""

    def end(self) -> None:
        """That was all, and every program has ended well. Raises DbFault: then the backup fails."""


class Part:
    """A backup that is being written."""

    id: str  # of the backup
    began: datetime
    said: dict[str, str]  # what programs that ended well said on standard error, by the name of the program
    folder: str  # absolute; of the files and of the manifest

    def run(
        self,
        pipeline: t.Sequence[t.Sequence[str]],
        env: t.Mapping[str, str],
        *,
        what: str,
        ext: str,
        stop: threading.Event | None = None,
        taps: t.Sequence[Tap] = (),
        compress: bool = True,
        cwd: str | None = None,
    ) -> t.Generator[int, None, None]:
        """What programs write, the first one's output through the others, becomes the file `<id>.<ext>…`.

        Yields the plain bytes since the last time, at least once a second. `env` is all that the programs get, and only
        they. compress=False: what they write is compressed already. Raises ProgramFailed (pipeline.py), Refused,
        MissingMeans, Stopped, and what taps raise; closing the generator ends the programs.
        """
        raise NotImplementedError

    def feed(
        self,
        chunks: t.Iterable[bytes],
        *,
        what: str,
        ext: str,
        stop: threading.Event | None = None,
        taps: t.Sequence[Tap] = (),
        compress: bool = True,
    ) -> t.Generator[int, None, None]:
        """The same from Python; `chunks` are asked for in the caller's thread. Raises as run() does."""
        raise NotImplementedError

    def place(self, ext: str) -> str:
        """A new empty folder, mode 0700, for a program that writes many files itself; its absolute path."""
        raise NotImplementedError

    def spread(
        self,
        argv: t.Sequence[str],
        env: t.Mapping[str, str],
        *,
        what: str,
        place: str,
        stop: threading.Event | None = None,
        cwd: str | None = None,
    ) -> t.Generator[int, None, None]:
        """A program writes into a place(); afterwards each file there is hashed, and is one of the backup's (0600).

        Yields by how many bytes the place has grown (then hashed bytes as 0), at least once a second. Never encrypted,
        compressed as the program does it: raises Refused where the task wants it encrypted. Else as run().
        """
        raise NotImplementedError

    def seal(self, backup: Backup) -> Backup:
        """Flushed, renamed, the manifest last: from here on it is a backup, and the result is what its manifest says.

        Of `backup`, these are set here: id, server, files, compression, encryption, pin, folder. Raises Refused.
        """
        raise NotImplementedError


@contextmanager
def part(task: Dump) -> t.Iterator[Part]:
    """A new backup below task.manner.folder; what is not sealed is removed on leaving. Raises Refused, MissingMeans."""
    yield Part()
    raise NotImplementedError
