# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups read to their end: by pg_restore, which writes nothing but rows to be counted. No server is asked."""

from __future__ import annotations

import os
import typing as t
from datetime import datetime, timezone

from ..._backups import LEVELS, Backup, Decryption, Stored
from ..._errors import Refused, Stopped
from ..._files.feeding import Fed, mover, pumped, slices
from ..._process import Completed
from ..._records import Tick, Work
from ..._tasks import Verify
from .clients import Client, client
from .dumped_rows import Rows, differences
from .dumping import TRAILER, Trailer
from .session import Session

DUMPED = ("dump", "data")  # what files by pg_dump hold: a database, or rows that are not in that file


def restorer(backup: Backup, bin_dir: str) -> Client:
    """A pg_restore that can read what this pg_dump wrote. Raises MissingMeans, Refused."""
    return client("pg_restore", max(major(backup.version), major(backup.tool.rpartition(" ")[2])), bin_dir)


def major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdigit() else 0


class Reading:
    """pg_restore reads a dump and makes SQL of it, whose rows are counted. A tap of the dump as well."""

    def __init__(self, tool: Client, *, summed: bool = False) -> None:
        self._rows = Rows(summed=summed)
        # Only rows: a name of a function's text could not be told from a table's rows. What describes the tables stands
        # at the beginning of the archive and is read whole in any case.
        argv = [tool.path, "--data-only", "--file=-"]
        self._fed = Fed(argv, env={**os.environ, "LC_ALL": "C"}, take=self._rows.feed)

    @property
    def rows(self) -> dict[str, int]:
        """By table, named as pg_dump quotes it; complete after end()."""
        return self._rows.counts

    @property
    def sums(self) -> dict[str, int]:
        """Of the rows of each table, where they were asked for."""
        return self._rows.sums

    @property
    def values(self) -> dict[str, str]:
        """What is there beside rows, where sums were asked for."""
        return self._rows.values

    def feed(self, data: bytes) -> None:
        self._fed.give(data)

    def end(self) -> None:
        self._fed.close()
        self._judge(self._fed.wait())

    def _judge(self, done: Completed | None) -> None:
        if done is None or done.code:
            said = " ".join(done.err.split()) if done else ""
            raise Refused(f"pg_restore cannot read the dump: {said or 'it does not say why'}")
        self._rows.end()

    def read(self, source: t.BinaryIO, session: Session) -> t.Generator[int, None, None]:
        """All of it. Yields bytes since the last time. Raises what the source raises, Refused, Stopped."""
        done = yield from pumped(self._fed, slices(source), session.stopped, move=mover(source))
        self._judge(done)

    def stop(self) -> None:
        """Harmless where it has ended."""
        self._fed.close()
        self._fed.stop(0.0)


def verify(session: Session, task: Verify, backup: Backup, bin_dir: str) -> Work:
    """Up to `decode`; the manifest then says so. Raises Refused, MissingMeans, Stopped."""
    from ..._files import backups

    unreadable = bool(backup.encryption) and task.decrypt is None
    level = "checksum" if task.level == "checksum" or unreadable else "decode"
    rows: dict[str, int] = {}
    reading = hashed(session, backup) if level == "checksum" else read(session, backup, task.decrypt, bin_dir, rows)
    for _more in reading:
        yield Tick()
    backups.amend(backup, level=level, at=datetime.now(timezone.utc), rows=rows or None)
    if unreadable and LEVELS.index(max(level, backup.level, key=LEVELS.index)) < LEVELS.index(task.level):
        raise Refused(
            f"backup {backup.id} is encrypted: its files are as they were written, but nobody here can read them",
            cure="Let it be decoded while it is written, or give the key in decrypt",
        )
    yield Tick(note=backup.id)


def hashed(session: Session, backup: Backup) -> t.Generator[int, None, None]:
    from ..._files import reader

    for more in reader.checksum(backup):
        if session.stopped.is_set():
            raise Stopped("stopped")
        yield more


def read(
    session: Session,
    backup: Backup,
    decrypt: Decryption | None,
    bin_dir: str,
    rows: dict[str, int],
    *,
    sums: dict[str, str] | None = None,
) -> t.Generator[int, None, None]:
    """All of its files to their ends; fills `rows`, compared with the manifest's, and `sums` where they are wanted.

    Raises Refused, Stopped.
    """
    from ..._files import reader

    if backup.method == "physical":
        from . import tarballs

        yield from tarballs.read(session, backup, decrypt)
        return
    yield from _dumped(session, backup, decrypt, bin_dir, rows, sums=sums)
    for stored in backup.files:
        if stored.what in DUMPED:
            continue
        with reader.opened(backup, stored, decrypt) as source:
            yield from _read_globals(source)
    wrong = differences(backup.rows, rows) if backup.rows is not None else ""
    if wrong:
        raise Refused(f"backup {backup.id} does not hold what its manifest says: {wrong}")


def _dumped(
    session: Session,
    backup: Backup,
    decrypt: Decryption | None,
    bin_dir: str,
    rows: dict[str, int],
    *,
    sums: dict[str, str] | None,
) -> t.Generator[int, None, None]:
    """Those of pg_dump, as many at once as there are processors."""
    from ..._files import reader
    from ..._files.packing import threads
    from ..._files.pump import together

    found: list[tuple[str, Reading]] = []

    def one(stored: Stored) -> t.Generator[int, None, None]:
        with reader.opened(backup, stored, decrypt) as source:
            reading = Reading(restorer(backup, bin_dir), summed=sums is not None)
            try:
                yield from reading.read(source, session)
            finally:
                reading.stop()
        found.append((stored.what, reading))

    yield from together((one(stored) for stored in backup.files if stored.what in DUMPED), threads())
    rows.update(gathered(reading.rows for _what, reading in found))
    if sums is not None:
        sums.update(written(gathered(reading.sums for _what, reading in found)))
        # A sequence whose table has a stream of its own is in both, read at two moments: that one is restored last.
        for _what, reading in sorted(found, key=lambda each: each[0] != "dump"):
            sums.update(reading.values)


def gathered(found: t.Iterable[t.Mapping[str, int]]) -> dict[str, int]:
    """By table, of several streams; rows that are loaded through a partitioned table are in several under its name."""
    rows: dict[str, int] = {}
    for each in found:
        for name, count in each.items():
            rows[name] = rows.get(name, 0) + count
    return rows


def written(sums: t.Mapping[str, int]) -> dict[str, str]:
    """As they stand in a manifest: larger than what JSON's numbers hold for everybody."""
    return {name: f"{value:x}" for name, value in sums.items()}


def _read_globals(source: t.BinaryIO) -> t.Iterator[int]:
    end = Trailer(TRAILER)
    for data in iter(lambda: source.read(1 << 20), b""):
        end.feed(data)
        yield len(data)
    end.end()
