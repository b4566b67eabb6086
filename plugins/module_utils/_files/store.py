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

import os
import threading
import typing as t
from contextlib import contextmanager, suppress
from datetime import datetime, timezone

from .._backups import Backup, Manner, Stored
from .._errors import DbFault, Refused
from .._process import mortal
from . import durable, private, spread, unfinished
from .backup_manifest import MANIFEST, PARTIAL, new_id, path_of, write_manifest
from .pipeline import Chain
from .pump import Feed, Pump, Worker
from .sinks import Disk, Sink, ending, sink_of, under_of
from .unfinished import Marker, folder_name, take_away

if t.TYPE_CHECKING:
    from .._tasks import Dump


class Tap(t.Protocol):
    """Sees the plain bytes pass by, before they are compressed. Used by one thread, not always the caller's."""

    def feed(self, data: bytes) -> None:
        """Up to 1 MB more. Raises DbFault: then the backup fails."""

    def end(self) -> None:
        """That was all, and every program has ended well. Raises DbFault: then the backup fails."""


class Part:
    """A backup that is being written."""

    def __init__(self, folder: str, manner: Manner, database: str) -> None:
        self.began = datetime.now(timezone.utc)
        self.id = new_id(self.began)
        self.folder = folder  # absolute; of the files and of the manifest
        self.said: dict[str, str] = {}  # by the programs that ended well on standard error, by their names
        self._manner, self._files, self._sealed = manner, t.cast("list[Stored]", []), False
        self._under = under_of(manner)
        self._names: list[str] = []  # in this folder, without PARTIAL: files, and folders of files
        self._database = database
        self._marker = Marker(folder, self.id, manner.identity, database)

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
        streams: int = 1,
    ) -> t.Generator[int, None, None]:
        """What programs write, the first one's output through the others, becomes the file `<id>.<ext>…`.

        Yields the plain bytes since the last time, at least once a second. `env` is all that the programs get, and only
        they. compress=False: what they write is compressed already. `streams`: so many of these run at once (see
        pump.together), and share processors and the limit of the rate. Raises ProgramFailed (pipeline.py), Refused,
        MissingMeans, Stopped, and what taps raise; closing the generator ends the programs.
        """
        name, disk, sink = self._begin(ext, compress, streams)
        try:
            chain = Chain(pipeline, env, cwd=cwd, under=self._under, hand_over=self._marker.shared)
        except BaseException:
            sink.abort()
            sink.close()
            raise
        limit = self._manner.rate_limit
        pump = Pump(chain, sink, taps, max(1, limit // streams) if limit else None)
        yield from pump.run(stop)
        self.said.update(pump.said)
        self._files.append(Stored(name, disk.bytes, disk.sha256, what, pump.bytes))

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
        name, disk, sink = self._begin(ext, compress)
        feed = Feed(sink, taps, self._manner.rate_limit)
        yield from feed.run(chunks, stop)
        self._files.append(Stored(name, disk.bytes, disk.sha256, what, feed.bytes))

    def place(self, ext: str) -> str:
        """A new empty folder, mode 0700, for a program that writes many files itself; its absolute path."""
        path = os.path.join(self.folder, self._name(ext) + PARTIAL)
        with durable.refusing(f"{path} cannot be made"):
            os.mkdir(path, 0o700)
            os.chmod(path, 0o700)
        return path

    def spread(
        self,
        argv: t.Sequence[str],
        env: t.Mapping[str, str],
        *,
        what: str,
        place: str,
        stop: threading.Event | None = None,
        cwd: str | None = None,
        named: t.Mapping[str, str] | None = None,
    ) -> t.Generator[int, None, None]:
        """A program writes into a place(); afterwards each file there is hashed, and is one of the backup's (0600).

        `named`: what files of these names are instead of `what`.

        Yields by how many bytes the place has grown (then hashed bytes as 0), at least once a second. Never encrypted,
        compressed as the program does it: raises Refused where the task wants it encrypted. Else as run().
        """
        if self._manner.encryption:
            raise Refused(
                f"{argv[0]} writes files itself: they would be on the disk before they are encrypted",
                cure="Take a method that streams, or leave out encrypt",
            )
        under = [*mortal(), *self._under]
        program = spread.Program(Chain([argv], env, cwd=cwd, under=under, hand_over=self._marker.shared), place)
        yield from program.run(stop)
        self.said.update(program.said)
        found: list[Stored] = []
        for _second in Worker(lambda: found.extend(spread.take(place, what, named))).ticks(stop):
            yield 0
        self._files += found

    def seal(self, backup: Backup) -> Backup:
        """Flushed, renamed, the manifest last: from here on it is a backup, and the result is what its manifest says.

        Of `backup`, these are set here: id, server, database, files, compression, encryption, pin, folder. Raises
        Refused.
        """
        manner = self._manner
        backup = backup._replace(
            id=self.id,
            server=manner.identity or backup.server,
            database=self._database,
            files=tuple(self._files),
            compression=manner.compression,
            encryption=manner.encryption.program if manner.encryption else "",
            pin=manner.pin,
            folder=self.folder,
        )
        if not self._files:
            raise Refused(f"the backup {self.id} has no files")
        with durable.refusing(f"the backup {path_of(backup)} could not be finished"):
            for name in self._names:
                path = os.path.join(self.folder, name)
                os.rename(path + PARTIAL, path)
            durable.sync_folder(self.folder)
            write_manifest(backup)
        self._sealed = True
        return backup

    def close(self) -> None:
        """What was not sealed is removed. Never raises: what cannot be removed is found by the next run."""
        with suppress(OSError):
            if not self._sealed:
                names = [name + tail for name in self._names for tail in (PARTIAL, "")]
                # The manifest first: flushing its name may have failed after it was there.
                take_away(self.folder, [self.id + MANIFEST], last="")
                take_away(self.folder, names, last="")
        with suppress(OSError):
            self._marker.drop()

    def _begin(self, ext: str, compress: bool, streams: int = 1) -> tuple[str, Disk, Sink]:
        name = self._name(ext + ending(self._manner, compress=compress))
        disk = Disk(os.path.join(self.folder, name + PARTIAL))
        try:
            return name, disk, sink_of(self._manner, disk, compress=compress, streams=streams)
        except DbFault:
            disk.close()
            raise

    def _name(self, ext: str) -> str:
        name = f"{self.id}.{ext}"
        with durable.refusing(f"{self.folder} cannot be written"):
            self._marker.add(name)
        self._names.append(name)
        return name


@contextmanager
def part(task: Dump) -> t.Iterator[Part]:
    """A new backup below task.manner.folder; what is not sealed is removed on leaving. Raises Refused, MissingMeans."""
    folder = os.path.join(os.path.abspath(task.manner.folder), folder_name(task.ref.database))
    with durable.refusing(f"{folder} cannot be written"):
        why_not = durable.why_not(os.path.abspath(task.manner.folder))
        if why_not:
            raise Refused(why_not, cure="Name a folder of the backup's user: backup_dir")
        if os.path.islink(folder):  # nobody who looks would follow it
            raise Refused(f"{folder} is a symbolic link", cure="Put a folder there, or mount what it points to")
        durable.make_folder(folder)
        unfinished.sweep(folder)
        private.sweep(folder)
        new = Part(folder, task.manner, task.ref.database)
    try:
        yield new
    finally:
        new.close()
