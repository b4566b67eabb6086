# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed files that are made of complete frames, one after the other. Knows nothing of rows.

Any tool reads such a file as one (RFC 8878 and RFC 1952 both say that frames may follow each other), and it may be
cut after any of them.
"""

from __future__ import annotations

import gzip
import importlib
import io
import typing as t

from .._errors import BadInput, MissingMeans
from .._tuples import NamedTuple

LEVEL_ZSTD = 3  # zstd's own default
LEVEL_GZIP = 6  # gzip's own default
# Part of Python since 3.14; the two libraries that older ones have, the better kept first.
LIBRARIES = ("compression.zstd", "zstandard", "pyzstd")


class Codec(NamedTuple):
    """For one thread: the libraries' compressors are not made for more."""

    name: str  # zstd, gzip
    suffix: str
    pack: t.Callable[[bytes], bytes]  # a complete frame


def codec(asked: str) -> Codec:
    """`auto` is zstd where there is a library for it. Raises MissingMeans, BadInput."""
    if asked not in ("auto", "zstd", "gzip"):
        raise BadInput(f"archive_compression: {asked!r} is not known", cure="It is one of auto, zstd, gzip")
    if asked != "gzip":
        found = library()
        if found:
            return Codec("zstd", ".zst", _packer(*found))
        if asked == "zstd":
            raise MissingMeans(
                "archive_compression: zstd needs a library that Python does not have here",
                cure="Install the Python package zstandard on the host (part of Python from 3.14 on), or ask for gzip",
            )
    return Codec("gzip", ".gz", _gzip)


def opened(path: str) -> t.BinaryIO:
    """A file of either kind for reading, as its name says; all its frames. Raises OSError, MissingMeans."""
    if not path.endswith(".zst"):
        return t.cast("t.BinaryIO", gzip.open(path, "rb"))
    found = library()
    if not found:
        codec("zstd")
        raise MissingMeans("zstd is not there")
    name, module = found
    if name == "zstandard":
        reader = module.ZstdDecompressor().stream_reader
        return t.cast("t.BinaryIO", reader(io.FileIO(path), read_across_frames=True))
    return t.cast("t.BinaryIO", module.ZstdFile(path, "r"))


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, LEVEL_GZIP, mtime=0)  # the same rows are the same bytes


def library() -> tuple[str, t.Any] | None:
    """The best of the libraries for zstd that are there, and its name."""
    for name in LIBRARIES:
        try:
            return name, importlib.import_module(name)
        except ImportError:
            continue
    return None


def stream_zstd(level: int, threads: int) -> t.Any:
    """A compressor of one frame whose bytes come by and by, with a checksum. Raises MissingMeans."""
    found = library()
    if not found:
        raise MissingMeans("zstd needs a library that Python does not have here")
    name, module = found
    if name == "zstandard":
        return module.ZstdCompressor(level=level, write_checksum=True, threads=threads).compressobj()
    if name == "pyzstd":
        kinds = module.CParameter
        return module.ZstdCompressor(
            {kinds.compressionLevel: level, kinds.checksumFlag: 1, kinds.nbWorkers: threads if threads > 1 else 0}
        )
    kinds = module.CompressionParameter
    return module.ZstdCompressor(options={kinds.compression_level: level, kinds.checksum_flag: 1})


def _packer(name: str, library: t.Any) -> t.Callable[[bytes], bytes]:
    """With a checksum in each frame: `zstd -t` then tells a damaged file from a sound one."""
    pack: t.Callable[[bytes], bytes]
    if name == "zstandard":
        pack = library.ZstdCompressor(level=LEVEL_ZSTD, write_checksum=True).compress
        return pack
    kinds = library.CParameter if name == "pyzstd" else library.CompressionParameter
    level, checksum = (
        (kinds.compressionLevel, kinds.checksumFlag)
        if name == "pyzstd"
        else (kinds.compression_level, kinds.checksum_flag)
    )
    settings = {level: LEVEL_ZSTD, checksum: 1}

    def with_settings(data: bytes) -> bytes:
        if name == "pyzstd":
            return bytes(library.compress(data, settings))
        return bytes(library.compress(data, options=settings))

    return with_settings
