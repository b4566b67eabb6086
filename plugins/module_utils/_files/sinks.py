# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the bytes of a backup go: through compressors and encryptors onto the disk, hashed. Knows no manifest."""

from __future__ import annotations

import hashlib
import os
import threading
import typing as t
from contextlib import contextmanager

from .._backups import Manner
from .._errors import Refused
from . import durable
from .packing import CURES, ENDINGS, Compressor, environment, locker, packer
from .pipeline import BLOCK, Chain, ProgramFailed, blocks

LONGEST = 10.0  # seconds that a thread gets to end when its programs have

Bytes = t.Union[bytes, memoryview]


class Sink(t.Protocol):
    """Used by one thread."""

    def write(self, data: Bytes) -> None:
        """Raises DbFault."""

    def finish(self) -> None:
        """That was all: it is on the disk. Raises DbFault."""

    def abort(self) -> None:
        """Ends what still runs, from any thread. Never raises."""

    def close(self) -> None:
        """Gives its descriptors back, when nobody writes any more."""


class Disk:
    """A new file, mode 0600; what it got is in `bytes` and `sha256`."""

    def __init__(self, path: str) -> None:
        with durable.refusing(f"{path} cannot be written"):
            self._fd = durable.create(path)
        self._path, self.bytes, self._hash = path, 0, hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: Bytes) -> None:
        with durable.refusing(f"{self._path} cannot be written"):
            durable.write_all(self._fd, data)
        self._hash.update(data)
        self.bytes += len(data)

    def finish(self) -> None:
        # Here, while somebody ticks: what the kernel still holds may be gigabytes.
        with durable.refusing(f"{self._path} cannot be written"):
            os.fsync(self._fd)
            self.close()

    def abort(self) -> None:
        pass

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Packed:
    """A library's compressor."""

    def __init__(self, compressor: Compressor, then: Sink) -> None:
        self._compressor, self._then = compressor, then

    def write(self, data: Bytes) -> None:
        more = self._compressor.compress(bytes(data))
        if more:
            self._then.write(more)

    def finish(self) -> None:
        self._then.write(self._compressor.flush())
        self._then.finish()

    def abort(self) -> None:
        self._then.abort()

    def close(self) -> None:
        self._then.close()


class Through:
    """Programs; what comes out of them is written on by a thread of its own."""

    def __init__(self, commands: t.Sequence[t.Sequence[str]], then: Sink, under: t.Sequence[str] = ()) -> None:
        self._chain = Chain(commands, environment(), fed=True, under=under)
        self._names = " | ".join(command[0] for command in commands)
        self._then, self._fault, self._wrote = then, t.cast("BaseException | None", None), False
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        try:
            for data in blocks(self._chain.output):
                self._wrote = True
                self._then.write(data)
        except BaseException as error:
            self._fault = error
        finally:
            os.close(self._chain.output)  # whoever goes on writing ends

    def write(self, data: Bytes) -> None:
        with self._reading_on():
            durable.write_all(self._chain.input, data)

    @contextmanager
    def _reading_on(self) -> t.Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._hang_up()
            self._judge()
            raise Refused(f"{self._names} ended before it had read everything") from None

    def pull(self, fd: int) -> t.Iterator[int]:
        """All that comes out of the descriptor, moved by the kernel and not copied; bytes moved. Raises DbFault."""
        with self._reading_on():
            yield from iter(lambda: os.splice(fd, self._chain.input, BLOCK), 0)

    def finish(self) -> None:
        self._hang_up()
        self._judge()
        if not self._wrote:
            raise Refused(f"{self._names} ended well and wrote nothing")
        self._then.finish()

    def _hang_up(self, seconds: float | None = None) -> None:
        fd, self._chain.input = self._chain.input, -1
        if fd >= 0:
            os.close(fd)
        self._thread.join(seconds)

    def _judge(self) -> None:
        """The disk first: programs that could not get rid of what they had are its victims."""
        if self._fault:
            raise self._fault
        try:
            self._chain.finish()
        except ProgramFailed as failed:
            known = "public key" in failed.said or "recipient" in failed.said
            failed.cure = CURES.get(failed.program, "") if known else ""
            raise

    def abort(self) -> None:
        self._chain.stop(0.0)
        self._then.abort()

    def close(self) -> None:
        self._hang_up(LONGEST)
        if not self._thread.is_alive():  # else the number of its descriptor must not become another file's
            self._then.close()


def ending(manner: Manner, *, compress: bool) -> str:
    """What is put behind the name of a file, so that it says what it is."""
    packed = ENDINGS.get(manner.compression, "") if compress else ""
    return packed + (ENDINGS.get(manner.encryption.program, "") if manner.encryption else "")


def under_of(manner: Manner) -> list[str]:
    """The kernel derives the priority on the disk from this one, where it has such a thing (man 2 ioprio_set)."""
    return ["nice", "-n", str(manner.nice)] if manner.nice else []


def sink_of(manner: Manner, disk: Disk, *, compress: bool, streams: int = 1) -> Sink:
    """All that one of so many streams passes on its way to the disk. Raises MissingMeans, BadInput."""
    pack = packer(manner.compression, manner.compression_level, streams) if compress else None
    programs = [pack] if isinstance(pack, list) else []
    programs += [locker(manner.encryption)] if manner.encryption else []
    sink: Sink = Through(programs, disk, under_of(manner)) if programs else disk
    return sink if pack is None or isinstance(pack, list) else Packed(pack, sink)
