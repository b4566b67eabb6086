# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive files of one step, bite by bite. How they end is finish.py; what dead runs left, and age, wreck.py.

On disk while it runs: `<name>.partial` for each table, and one `<stem>.pending.json`, which is replaced before the rows
of a bite are appended: how much of each file is sure, how much there is with this bite, and how to find out whether the
bite was committed. So at any moment a file is a row of complete frames as far as the note says, and what lies beyond
was never flushed, hence never committed.
"""

from __future__ import annotations

import hashlib
import os
import typing as t
from contextlib import suppress
from datetime import datetime, timezone

from .._errors import DbFault, Refused
from .._records import Ref
from .._retention import Archive, Column, Frame
from . import durable
from .compression import Codec, codec
from .finish import finish
from .manifest import PARTIAL, PENDING, Entry, Extent, State, order, pending_text
from .names import file_name, owner
from .rows import encode
from .wreck import Wreck, look, remove, wrecks

__all__ = ["Shelf", "Wreck", "look", "remove", "wrecks"]


class _Data:
    """A file that is being written."""

    def __init__(self, fd: int, entry: Entry) -> None:
        self.fd, self.entry = fd, entry
        self.hash = hashlib.sha256()  # of what is sure
        self.next = self.hash  # with the bite


class Shelf:
    """Nothing is made before the first row. For one thread. Raises MissingMeans, BadInput when it is made."""

    def __init__(
        self, folder: str, identity: str, rule: str, table: Ref, archive: Archive, *, about: t.Mapping[str, str]
    ) -> None:
        self._folder, self._table, self._format = folder, table, archive.format
        self._codec: Codec = codec(archive.compression)
        self._state = State(identity, rule, archive.format, self._codec.name, dict(about), ())
        self._stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        self._pending = os.path.join(folder, f"{owner(rule, identity, self._stamp)}.{os.urandom(4).hex()}{PENDING}")
        self._data: dict[tuple[Ref, tuple[Column, ...]], _Data] = {}
        self._doubt = False  # a bite is under way
        self._broken: DbFault | None = None
        self._ready = False

    # ---- the four verbs of nibble.Shelf ------------------------------------------------------------------------------

    def put(self, frames: t.Sequence[Frame], mark: str) -> int:
        """On disk when it returns, and known to be unsettled. Returns the bytes written. Raises Refused.

        After it has raised, discard() takes out what it did, and nothing more can be put here.
        """
        if self._broken or self._doubt:
            why = self._broken or DbFault("nobody knows whether its last bite was committed")
            raise Refused(f"the archive in {self._folder} takes no more rows: {why.cause}", cure=why.cure)
        frames = [frame for frame in frames if frame.rows]
        if not frames:
            return 0
        self._doubt = True
        try:
            with durable.refusing(f"the archive in {self._folder} cannot be written"):
                return self._write(frames, mark)
        except BaseException as error:
            self._broken = error if isinstance(error, DbFault) else DbFault(str(error) or "it was interrupted")
            raise

    def settle(self) -> None:
        """What was put is committed. On disk it is said with the next bite, or at the end."""
        self._doubt = False
        for data in self._data.values():
            data.hash, data.entry = data.next, data.entry._replace(sure=data.entry.maybe)

    def discard(self) -> None:
        """What was put was certainly not committed. Where it cannot be taken out, the next run does it."""
        try:
            with durable.refusing(f"rows cannot be taken out of the archive in {self._folder} again"):
                for data in self._data.values():
                    os.ftruncate(data.fd, data.entry.sure.bytes)
                    os.lseek(data.fd, data.entry.sure.bytes, os.SEEK_SET)
                    data.next, data.entry = data.hash, data.entry._replace(maybe=data.entry.sure)
            self._doubt = False
        except Refused as error:
            self._broken = self._broken or error

    def close(self) -> None:
        """Finishes what is settled. Raises Refused where that cannot be done, and nobody was told yet.

        Whatever goes wrong here, the next run finishes it: the rows are where they belong.
        """
        try:
            if self._data and not self._doubt:
                self._finish()
        except Refused:
            if not self._broken:
                raise
        finally:
            for data in self._data.values():
                with suppress(OSError):
                    os.close(data.fd)
            self._data.clear()

    # ---- how ---------------------------------------------------------------------------------------------------------

    def _write(self, frames: t.Sequence[Frame], mark: str) -> int:
        if not self._ready:
            self._prepare()
        main = next((f for f in frames if f.table == self._table), None) or next((f for f in frames if f.last), None)
        parent = self._open(main, "").entry.name if main else ""
        parts: list[tuple[_Data, bytes]] = []
        keys: list[str] = []
        for frame in frames:
            data = self._open(frame, "" if frame is main else parent)
            parts.append((data, self._append(data, frame)))
            keys += frame.keys
        self._note(mark, tuple(keys))
        for data, packed in parts:
            durable.write_all(data.fd, packed)
        for data in {id(data): data for data, packed in parts}.values():
            os.fsync(data.fd)
        return sum(len(packed) for data, packed in parts)

    def _prepare(self) -> None:
        why_not = durable.why_not(self._folder)
        if why_not:
            raise Refused(why_not, cure="Name another folder")
        durable.make_folder(self._folder)
        self._ready = True

    def _open(self, frame: Frame, parent: str) -> _Data:
        """The file of a table; a new one, too, when its columns have changed meanwhile."""
        key = (frame.table, tuple(frame.columns))
        if key not in self._data:
            name = file_name(frame.table, self._state.rule, self._state.identity, self._stamp)
            name += f".{self._format}{self._codec.suffix}"
            fd = durable.create(os.path.join(self._folder, name + PARTIAL))
            entry = Entry(name, frame.table, tuple(frame.columns), Extent(), Extent(), parent)
            self._data[key] = _Data(fd, entry)
            durable.locked(fd)  # tells a run that lives from one that is dead
        return self._data[key]

    def _append(self, data: _Data, frame: Frame) -> bytes:
        """The frame as it will stand in the file; counted and hashed as if it stood there."""
        old = data.entry.maybe
        packed = self._codec.pack(encode(self._format, frame.columns, frame.rows, header=not old.bytes))
        data.next = data.next.copy()
        data.next.update(packed)
        dates = [date for date in (old.first, old.last, frame.first, frame.last) if date]
        new = Extent(
            bytes=old.bytes + len(packed),
            rows=old.rows + len(frame.rows),
            first=min(dates, key=order, default=""),
            last=max(dates, key=order, default=""),
            sha256=data.next.hexdigest(),
        )
        data.entry = data.entry._replace(maybe=new)
        return packed

    def _note(self, mark: str, keys: tuple[str, ...]) -> None:
        entries = tuple(data.entry for data in self._data.values())
        durable.replace(self._pending, pending_text(self._state._replace(entries=entries, mark=mark, keys=keys)))

    def _finish(self) -> None:
        with durable.refusing(f"the archive in {self._folder} could not be finished; the next run tries again"):
            if any(data.entry.sure.rows for data in self._data.values()):
                self._note("", ())  # what dies from here on is finished without a question
            entries = tuple(data.entry for data in self._data.values())
            finish(self._pending, self._state._replace(entries=entries), verify=False)
