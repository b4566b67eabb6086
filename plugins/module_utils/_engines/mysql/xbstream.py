# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading mariadb-backup's stream to its end: is it whole, and which files are in it? Unpacks nothing.

mbstream itself does not tell: where a stream ends between two chunks, or in a file that is there already, it exits 0
(tried with 10.11). Source of the format: extra/mariabackup/xbstream.h and xbstream_write.cc of MariaDB.
"""

from __future__ import annotations

import struct
import zlib

from ..._errors import Refused

MAGIC = b"XBSTCK01"
HEAD = struct.Struct("<8sBcI")  # magic, flags, kind, length of the path
PAYLOAD = struct.Struct("<QQI")  # length, offset, CRC-32
REWRITE = 0x02  # flag: it goes over what was written before
LONGEST_PATH = 4096
KEPT = 64 << 10  # bytes of a file that is small and tells of the backup
# What the program writes about the backup itself. The first name is that of 11.1 and newer.
INFO = {
    "checkpoints": ("mariadb_backup_checkpoints", "xtrabackup_checkpoints"),
    "info": ("mariadb_backup_info", "xtrabackup_info"),
    "binlog": ("mariadb_backup_binlog_info", "xtrabackup_binlog_info"),
    "settings": ("backup-my.cnf",),
    "log": ("ib_logfile0",),
}
NEEDED = ("checkpoints", "info", "settings", "log")


class Stream:
    """A Tap: fed with the stream piece by piece, it raises Refused as soon as that cannot be a whole one."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}  # by path: bytes so far
        self._open: set[str] = set()
        self._told: dict[str, bytearray] = {name: bytearray() for names in INFO.values() for name in names}
        self._rest = b""
        self._path = ""  # of the payload under way
        self._left = self._crc = self._wanted = 0

    def feed(self, data: bytes) -> None:
        """The next piece. Raises Refused."""
        text, at = (self._rest + data, 0) if self._rest else (data, 0)
        self._rest = b""
        while at < len(text):
            step = self._payload(text, at) if self._left else self._chunk(text, at)
            if step == at:
                self._rest = text[at:]
                return
            at = step

    def end(self) -> None:
        """That was all. Raises Refused where it ends before its end."""
        if self._left or self._rest:
            raise _broken(f"it ends in the middle of {self._path or 'a chunk'}")
        if self._open:
            raise _broken(f"{min(self._open)} has no end")
        missing = [name for name in NEEDED if not self.path(name)]
        if missing:
            raise _broken(f"{', '.join(INFO[name][-1] for name in missing)} is not in it")
        if "backup_type = full" not in self.told("checkpoints"):
            raise _broken(f"{self.path('checkpoints')} does not say that it is a full one")

    def path(self, name: str) -> str:
        """Of one of INFO; "" where it is not there."""
        return next((path for path in INFO[name] if path in self.files), "")

    def told(self, name: str) -> str:
        """What stands in one of INFO."""
        return self._told.get(self.path(name), b"").decode("utf-8", "replace")

    def tables(self) -> list[str]:
        """Tables and views as `database/table`, as file names have them; without what a dead ALTER has left."""
        return sorted(path[:-4] for path in self.files if path.endswith(".frm") and "/#sql" not in path)

    def _chunk(self, text: bytes, at: int) -> int:
        """Takes a chunk's head; where it is not all there yet, `at`."""
        if len(text) - at < HEAD.size:
            return at
        magic, flags, kind, length = HEAD.unpack_from(text, at)
        if magic != MAGIC or not 0 < length <= LONGEST_PATH:
            raise _broken("no chunk begins where one has to")
        start = at + HEAD.size + length
        if len(text) < self._least(kind, text, start):
            return at
        path = text[start - length : start].decode("utf-8", "surrogateescape")
        path = path.removeprefix("./")
        if path.startswith("/") or ".." in path.split("/"):
            raise _broken(f"{path!r} is no file of a data directory")
        return self._taken(text, start, kind, flags, path)

    def _least(self, kind: bytes, text: bytes, start: int) -> int:
        """Up to where the text has to go, so that this kind of chunk can be taken."""
        if kind == b"R":
            (length,) = struct.unpack_from("<I", text, start) if len(text) >= start + 4 else (0,)
            if length > LONGEST_PATH:
                raise _broken("the name of a file has no end")
            return start + 4 + int(length)
        return start + {b"P": PAYLOAD.size, b"S": 8}.get(kind, 0)

    def _taken(self, text: bytes, at: int, kind: bytes, flags: int, path: str) -> int:
        if kind == b"P":
            return self._begun(text, at, flags, path)
        if kind == b"E":
            self._open.discard(path)
            self.files.setdefault(path, 0)
            return at
        if kind == b"S":  # a hole
            self.files[path] = int(struct.unpack_from("<Q", text, at)[0])
            self._open.add(path)
            return at + 8
        if kind == b"D":  # dropped meanwhile
            self.files.pop(path, None)
            return at
        if kind == b"R":
            (length,) = struct.unpack_from("<I", text, at)
            name = text[at + 4 : at + 4 + length].decode("utf-8", "surrogateescape")
            self.files[name.removeprefix("./")] = self.files.pop(path, 0)
            return at + 4 + int(length)
        raise _broken(f"it has a chunk of an unknown kind, {kind!r}")

    def _begun(self, text: bytes, at: int, flags: int, path: str) -> int:
        length, offset, self._wanted = PAYLOAD.unpack_from(text, at)
        if path in self.files and path not in self._open:
            raise _broken(f"{path} is in it twice")
        if offset != self.files.get(path, 0) and not flags & REWRITE:
            raise _broken(f"{path} has a gap")
        self._open.add(path)
        self.files[path] = max(self.files.get(path, 0), offset + length)
        self._path, self._left, self._crc = path, length, 0
        return at + PAYLOAD.size

    def _payload(self, text: bytes, at: int) -> int:
        end = min(len(text), at + self._left)
        self._crc = zlib.crc32(memoryview(text)[at:end], self._crc)
        kept = self._told.get(self._path)
        if kept is not None and len(kept) < KEPT:
            kept += text[at : min(end, at + KEPT)]
        self._left -= end - at
        if not self._left and self._crc != self._wanted:
            raise _broken(f"{self._path} is damaged")
        return end


def _broken(why: str) -> Refused:
    return Refused(f"the stream is not whole: {why}", cure="Do not count on this backup: take another one")
