# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By which program, or else by which library, backups are compressed and encrypted, and back. Runs nothing itself."""

from __future__ import annotations

import gzip
import os
import shutil
import typing as t
import zlib

from .._backups import Decryption, Encryption
from .._errors import BadInput, MissingMeans
from .compression import LEVEL_GZIP, LEVEL_ZSTD, library, stream_zstd

ENDINGS = {"zstd": ".zst", "gzip": ".gz", "gpg": ".gpg", "age": ".age", "none": "", "": ""}
MOST_THREADS = 8
NO_ZSTD = "Install the package zstd on the host, or ask for compression: gzip"
CURES = {
    "gpg": "Import the recipient's public key into the key ring of the user that the module runs as",
    "age": "Name a recipient as age-keygen shows it (age1…), an ssh public key, or a file of them by its whole path",
}
# gpg's and age's own settings: nothing else of whoever runs the module reaches them, and no login of a database.
ENVIRONMENT = ("PATH", "HOME", "GNUPGHOME", "TMPDIR", "USER", "LOGNAME")


class Compressor(t.Protocol):
    """In this process, for one thread."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def environment() -> dict[str, str]:
    """Of programs that see nothing but the stream."""
    return {**{name: os.environ[name] for name in ENVIRONMENT if name in os.environ}, "LC_ALL": "C"}


def threads() -> int:
    """That compress: as many as this process may use, within reason."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, MOST_THREADS)


def packer(compression: str, level: int | None, streams: int = 1) -> list[str] | Compressor | None:
    """A program or, where it is not there, a library's compressor; None for `none`. Raises MissingMeans, BadInput.

    `streams`: so many of these are at work at once, and divide the processors: threads that wait for each other cost a
    tenth of the time of a backup of two streams (two processors, zstd 1.5.4).
    """
    share = max(1, threads() // streams)
    if compression == "none":
        return None
    if compression == "gzip":
        level = LEVEL_GZIP if level is None else level
        if shutil.which("pigz"):
            return ["pigz", "-c", "-p", str(share), f"-{level}"]
        return zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    if compression != "zstd":
        raise BadInput(f"compression: {compression!r} is not known", cure="It is one of zstd, gzip, none")
    level = LEVEL_ZSTD if level is None else level
    if shutil.which("zstd"):
        pace = [f"--fast={-level}"] if level < 0 else [f"-{level}"]
        return ["zstd", "-q", "-c", f"-T{share}", *(["--ultra"] if level > 19 else []), *pace]
    if not library():
        raise MissingMeans("zstd is not there, neither the program nor a library of Python's", cure=NO_ZSTD)
    return t.cast("Compressor", stream_zstd(level, share))


def unpacker(compression: str) -> list[str] | t.Callable[[t.BinaryIO], t.BinaryIO]:
    """The way back: a program, or what makes a reader of plain bytes from a compressed one. Raises MissingMeans."""
    if compression == "gzip":
        if shutil.which("pigz"):
            return ["pigz", "-d", "-c"]
        return lambda raw: t.cast("t.BinaryIO", gzip.GzipFile(fileobj=raw, mode="rb"))
    if shutil.which("zstd"):
        return ["zstd", "-q", "-d", "-c", "--long=31"]
    found = library()
    if not found:
        raise MissingMeans("zstd is not there, neither the program nor a library of Python's", cure=NO_ZSTD)
    name, module = found
    if name == "zstandard":
        decompressor = module.ZstdDecompressor(max_window_size=1 << 31)
        return lambda raw: t.cast("t.BinaryIO", decompressor.stream_reader(raw, read_across_frames=True))
    return lambda raw: t.cast("t.BinaryIO", module.ZstdFile(raw, "r"))


def locker(encryption: Encryption) -> list[str]:
    """The program that encrypts. Raises MissingMeans, BadInput."""
    if not encryption.recipients:
        raise BadInput("encrypt: nobody is named who could read it", cure="Name a recipient")
    if encryption.program == "gpg":
        _there("gpg", "gnupg")
        # The key is named by the user, so nobody has to have signed it; what is compressed already stays as it is.
        words = ["gpg", "--batch", "--no-tty", "--quiet", "--no-armor", "--no-auto-key-locate"]
        words += ["--trust-model", "always", "--compress-algo", "none", "--output", "-", "--encrypt"]
        return words + [f"--recipient={recipient}" for recipient in encryption.recipients]
    if encryption.program != "age":
        raise BadInput(f"encrypt: {encryption.program!r} is not known", cure="It is gpg or age")
    _there("age", "age")
    words = ["age", "--encrypt"]
    for name in encryption.recipients:
        words += ["--recipients-file" if os.path.isabs(name) else "--recipient", name]
    return words


def opener(program: str, decrypt: Decryption | None, passphrase_fd: int = -1) -> list[str]:
    """The program that decrypts; a passphrase comes by that descriptor. Raises MissingMeans, BadInput."""
    if program == "gpg":
        _there("gpg", "gnupg")
        words = ["gpg", "--batch", "--no-tty", "--quiet", "--output", "-"]
        words += ["--homedir", decrypt.home] if decrypt and decrypt.home else []
        words += ["--pinentry-mode", "loopback", "--passphrase-fd", str(passphrase_fd)] if passphrase_fd >= 0 else []
        return [*words, "--decrypt"]
    if program != "age":
        raise BadInput(f"the backup is encrypted by {program!r}, which is not known here")
    _there("age", "age")
    if not (decrypt and decrypt.identity):
        raise BadInput("the backup is encrypted", cure="Name the file with age's identity: decrypt")
    return ["age", "--decrypt", "--identity", decrypt.identity]


def _there(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise MissingMeans(f"{program} is not there", cure=f"Install the package {package} on the host")
