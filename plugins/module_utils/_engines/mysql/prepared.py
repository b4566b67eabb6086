# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a whole server: unpacked, made consistent, started, every table checked. As a drill, thrown away."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import typing as t

from ..._backups import Elsewhere
from ..._errors import MissingMeans, Refused, Stopped
from ..._records import Amount, Execution, Server, Tick, Work
from . import clients, drilling, hot_copy, throwaway
from .capabilities import MARIADB, flavour_of
from .connection import Link
from .xbstream import Stream

if t.TYPE_CHECKING:
    from ..._backups import Backup, Decryption

DATABASES = """
    SELECT SCHEMA_NAME FROM information_schema.SCHEMATA
     WHERE SCHEMA_NAME NOT IN ('information_schema', 'performance_schema', 'sys')"""


def drill(backup: Backup, server: Server, *, decrypt: Decryption | None, on: str | Elsewhere, stop: t.Any) -> Work:
    """Raises Refused, MissingMeans, Stopped."""
    where = on.folder if isinstance(on, Elsewhere) else ""
    if on == "same_server":
        raise Refused("a copy of a whole server is tried out on no server that runs", cure="Use drill_on: throwaway")
    bin_dir = drilling.bin_dir(server)
    number = flavour_of(backup.version, backup.engine).number
    tool = clients.client("hot", MARIADB, number, bin_dir)
    hot_copy.same_series(tool, number)
    place = throwaway.Throwaway(backup, bin_dir, where=where)
    try:
        stream = yield from filled(place, backup, decrypt=decrypt, tool=tool, stop=stop)
        yield from proven(place, stream, stop)
    finally:
        place.end()


def filled(
    place: throwaway.Throwaway, backup: Backup, *, decrypt: Decryption | None, tool: clients.Client, stop: t.Any
) -> t.Generator[Tick, t.Any, Stream]:
    """The server's files, all of one moment; what the stream told. Raises Refused, MissingMeans, Stopped."""
    stream = Stream()
    yield from _unpacked(place, backup, decrypt=decrypt, stream=stream, tool=tool, stop=stop)
    hot_copy.finish(backup, stream)
    # Where tables lay outside of the data directory, they say where: maybe the files of a server that runs.
    for link in glob.glob(os.path.join(glob.escape(place.data), "*", "*.isl")):
        os.unlink(link)
    yield from _made_consistent(place, tool, stop)
    return stream


def proven(place: throwaway.Throwaway, stream: Stream, stop: t.Any, *, stays: bool = False) -> Work:
    """A server runs on them, and has every table, sound; `stays`: it is shut down as it should. Raises as filled()."""
    for _second in place.start(stop, os.path.join(place.data, stream.path("settings"))):
        yield Tick()
    link = Link(place.login, Execution())
    with contextlib.closing(link):
        hot_copy.complete(hot_copy.tables(link, stream), hot_copy.there(link), "on the server that was made")
        for (name,) in link.rows(DATABASES):
            for tick in drilling.checked(link, str(name)):
                _go_on(stop)
                yield tick
        if stays:
            link.run("SHUTDOWN")
    for _second in place.shut_down(stop) if stays else ():
        yield Tick()


def _unpacked(
    place: throwaway.Throwaway,
    backup: Backup,
    *,
    decrypt: Decryption | None,
    stream: Stream,
    tool: clients.Client,
    stop: t.Any,
) -> Work:
    from ..._files import reader
    from ..._files.feeding import Fed, pumped
    from ..._files.pipeline import ProgramFailed

    beside = os.path.dirname(tool.path)
    program = shutil.which("mbstream", path=os.pathsep.join((beside, os.environ.get("PATH", os.defpath))))
    if program is None:
        raise MissingMeans("the program mbstream is not there", cure="Install the package mariadb-backup")
    for stored in backup.files:
        fed = Fed([*place.as_account(), program, "-x", "-C", place.data], env=clients.environment())
        with reader.opened(backup, stored, decrypt) as source:

            def read(most: int, source: t.BinaryIO = source) -> bytes:
                data = source.read(most)
                stream.feed(data)
                return data

            done = yield from _ticks(pumped(fed, read, stop))
        # It exits 0 where it could not write a file.
        if done.code or done.err.strip():
            raise ProgramFailed("mbstream", done.code, done.err.replace("\a", "")[-600:])


def _ticks(work: t.Generator[int, None, t.Any]) -> t.Generator[Tick, t.Any, t.Any]:
    with contextlib.closing(work):
        while True:
            try:
                more = next(work)
            except StopIteration as end:
                return end.value
            yield Tick(Amount(written=more))


def _made_consistent(place: throwaway.Throwaway, tool: clients.Client, stop: t.Any) -> Work:
    """What was written while the files were copied stands in the log that was copied with them."""
    words = [tool.path, "--prepare", f"--target-dir={place.data}", f"--tmpdir={place.tmp}"]
    work = place.run([*place.as_account(), *words], stop)
    said = ""
    with contextlib.closing(work):
        while True:
            try:
                next(work)
            except StopIteration as end:
                said = str(end.value)
                break
            yield Tick()
    if not hot_copy.well(said):
        raise Refused(f"{tool.name} --prepare did not say that all went well: {' '.join(said.split())[-600:]}")


def _go_on(stop: t.Any) -> None:
    if stop.is_set():
        raise Stopped("stopped")
