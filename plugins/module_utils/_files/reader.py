# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a backup read back: decrypted, decompressed, compared with the manifest. Decides nothing."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import typing as t
from contextlib import contextmanager, suppress

from .._backups import Backup, Decryption, Stored
from .._errors import DbFault, Refused
from . import durable
from .packing import ENDINGS, environment, opener, unpacker
from .pipeline import BLOCK, Chain, ProgramFailed

LONGEST = 10.0  # seconds for a thread to end when its program has
AGAIN = "Take another backup, and look at what stores these"


@contextmanager
def opened(backup: Backup, stored: Stored, decrypt: Decryption | None = None) -> t.Iterator[t.BinaryIO]:
    """The plain bytes of one file. Its last read raises DbFault where anything is wrong: hash, size, program, end.

    So a read that returns b"" says that all of it was read and is as it was written. It has no descriptor: a program
    gets its bytes through a pipe. Closing it early ends the programs without an error. Raises Refused, MissingMeans.
    """
    path = os.path.join(backup.folder, stored.name)
    secret = _secret(decrypt.passphrase) if decrypt and decrypt.passphrase else -1
    through: _Through | None = None
    raw: _Hashed | None = None
    try:
        commands, wrap = _way_back(backup, stored, decrypt, secret)
        with durable.refusing(f"{path} cannot be read"):
            raw = _Hashed(path, stored)
        plain: io.RawIOBase = raw
        if commands:
            plain = through = _Through(raw, commands, secret)
        inner: t.Any = wrap(t.cast("t.BinaryIO", io.BufferedReader(plain, BLOCK))) if wrap else plain
        yield t.cast("t.BinaryIO", io.BufferedReader(_Checked(inner, raw, stored), BLOCK))
    finally:
        if secret >= 0:
            os.close(secret)
        if through is not None:
            through.end()
        if raw is not None:
            raw.close()


def _way_back(
    backup: Backup, stored: Stored, decrypt: Decryption | None, secret: int
) -> tuple[list[list[str]], t.Callable[[t.BinaryIO], t.BinaryIO] | None]:
    """Programs and a library's reader behind them, as the name of the file says that it was packed."""
    name, commands = stored.name, t.cast("list[list[str]]", [])
    locked = ENDINGS.get(backup.encryption, "")
    if locked and name.endswith(locked):
        name = name[: -len(locked)]
        commands.append(opener(backup.encryption, decrypt, secret))
    packed = ENDINGS.get(backup.compression, "")
    if not packed or not name.endswith(packed):
        return commands, None
    unpack = unpacker(backup.compression)
    if isinstance(unpack, list):
        return [*commands, unpack], None
    return commands, unpack


class _Reads(t.Protocol):
    def readinto(self, space: memoryview | bytearray, /) -> int: ...


class _Hashed(io.RawIOBase):
    """The file as it lies there; at its end it has to be what the manifest says."""

    def __init__(self, path: str, stored: Stored) -> None:
        super().__init__()
        self._path, self._stored, self._hash, self._bytes = path, stored, hashlib.sha256(), 0
        self._fd = durable.open_to_read(path)
        self.whole = False

    def readable(self) -> bool:
        return True

    def readinto(self, space: t.Any) -> int:
        with durable.refusing(f"{self._path} cannot be read"):
            size = os.readv(self._fd, [space])
        if size:
            self._hash.update(memoryview(space)[:size])
            self._bytes += size
        elif not self.whole:
            compare(self._path, self._stored, self._bytes, self._hash.hexdigest())
            self.whole = True
        return size

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def compare(path: str, stored: Stored, size: int, sha256: str) -> None:
    """Raises Refused where a file is not what it was."""
    if size != stored.bytes:
        raise Refused(f"{path} has {size} bytes instead of {stored.bytes}", cure=AGAIN)
    if sha256 != stored.sha256:
        raise Refused(f"{path} was changed since it was written: its SHA-256 is {sha256}", cure=AGAIN)


class _Through(io.RawIOBase):
    """What programs make of it; fed by a thread."""

    def __init__(self, raw: _Hashed, commands: list[list[str]], secret: int) -> None:
        super().__init__()
        self._raw, self._fault = raw, t.cast("BaseException | None", None)
        self._chain = Chain(commands, environment(), fed=True, hand_over=[secret] if secret >= 0 else [])
        self._ended = False
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        space = memoryview(bytearray(BLOCK))
        try:
            while True:
                size = self._raw.readinto(space)
                if not size:
                    return
                durable.write_all(self._chain.input, space[:size])
        except BrokenPipeError:
            pass  # the program says why
        except BaseException as error:
            self._fault = error
        finally:
            os.close(self._chain.input)

    def readable(self) -> bool:
        return True

    def readinto(self, space: t.Any) -> int:
        size = os.readv(self._chain.output, [space])
        if not size:
            self._judge()
        return size

    def into(self, fd: int) -> t.Iterator[int]:
        """All of it moved by the kernel, and not copied. Yields bytes; raises what the last read would, OSError."""
        yield from iter(lambda: os.splice(self._chain.output, fd, BLOCK), 0)
        self._judge()

    def _judge(self) -> None:
        """The file before the program that chokes on it."""
        self._thread.join()
        try:
            self._chain.finish()
        except ProgramFailed:
            self._rest()
            raise
        if self._fault:
            raise self._fault
        self._rest()

    def _rest(self) -> None:
        """Raises what is wrong with the file, also behind what the program has read of it."""
        if self._fault:
            raise self._fault
        space = bytearray(BLOCK)
        while self._raw.readinto(space):
            pass

    def end(self) -> None:
        """Ends what still runs."""
        if self._ended:
            return
        self._ended = True
        self._chain.stop(0.0)
        self._thread.join(LONGEST)
        os.close(self._chain.output)


def _secret(passphrase: str) -> int:
    """A pipe with the passphrase in it: neither a command line nor an environment nor a file has it."""
    reader, writer = os.pipe()
    try:
        os.write(writer, passphrase.encode("utf-8", "surrogateescape") + b"\n")
    finally:
        os.close(writer)
    return reader


class _Checked(io.RawIOBase):
    """The end is an end only where all was read and nothing is wrong."""

    def __init__(self, plain: _Reads, raw: _Hashed, stored: Stored) -> None:
        super().__init__()
        self._plain, self._raw, self._stored, self._bytes = plain, raw, stored, 0

    def readable(self) -> bool:
        return True

    def readinto(self, space: t.Any) -> int:
        try:
            size = self._plain.readinto(space)
        except DbFault:
            raise
        except Exception as error:  # the libraries have errors of their own
            self._sound()
            raise Refused(f"{self._stored.name} cannot be decompressed: {error}", cure=AGAIN) from error
        self._bytes += size
        if not size:
            self._whole()
        return size

    def into(self, fd: int) -> t.Iterator[int] | None:
        """All of it into a pipe, without passing through this process; bytes, and at the end what a read would raise.

        None where that cannot be (splice: Linux, since Python 3.10). Whoever stops may read on.
        """
        if not isinstance(self._plain, _Through) or not hasattr(os, "splice"):
            return None
        return self._moved(self._plain, fd)

    def _moved(self, plain: _Through, fd: int) -> t.Iterator[int]:
        for size in plain.into(fd):
            self._bytes += size
            yield size
        self._whole()

    def _whole(self) -> None:
        self._sound()
        if self._stored.plain_bytes and self._bytes != self._stored.plain_bytes:
            wanted = f"{self._stored.plain_bytes} bytes"
            raise Refused(f"{self._stored.name} holds {self._bytes} bytes instead of {wanted}", cure=AGAIN)

    def _sound(self) -> None:
        """Raises where the file itself is at fault: read to its end by now, whoever stopped before."""
        space = bytearray(BLOCK)
        while self._raw.readinto(space):
            pass


def checksum(backup: Backup) -> t.Iterator[int]:
    """Reads each file from the disk again and hashes it; yields bytes since the last time. Raises Refused."""
    for stored in backup.files:
        path = os.path.join(backup.folder, stored.name)
        with durable.refusing(f"{path} cannot be read"):
            yield from _checksum(path, stored)


def _checksum(path: str, stored: Stored) -> t.Iterator[int]:
    space = memoryview(bytearray(BLOCK))
    found, done = hashlib.sha256(), 0
    fd = durable.open_to_read(path)
    try:
        forget(fd)
        while True:
            size = os.readv(fd, [space])
            if not size:
                break
            found.update(space[:size])
            done += size
            yield size
    finally:
        os.close(fd)
    compare(path, stored, done, found.hexdigest())


def forget(fd: int) -> None:
    """What the kernel has in memory proves nothing about the disk."""
    with suppress(OSError, AttributeError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
