# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's own manifest of a backup: what is wrong with files that were hashed. Reads no file, and no archive."""

from __future__ import annotations

import hashlib
import json
import typing as t

from ..._errors import Refused

MANIFEST = "backup_manifest"
LIST = "manifest"  # Stored.what: that manifest as a file of its own
OWN = (MANIFEST, "postgresql.auto.conf", "standby.signal", "recovery.signal")  # that no manifest names

Found = dict[str, tuple[int, str]]  # size and SHA-256 of each file, by its name in the data directory


def is_whole(manifest: bytes) -> bool:
    """By the checksum of itself that is its last line."""
    hashed = manifest[: manifest.rfind(b"\n", 0, manifest.rfind(b"\n")) + 1]
    try:
        return bool(json.loads(manifest)["Manifest-Checksum"] == hashlib.sha256(hashed).hexdigest())
    except (ValueError, KeyError, TypeError):
        return False


def assure(manifest: bytes, found: Found) -> None:
    """Every file is as the manifest says, and the log that a start needs is there. Raises Refused."""
    wrong = list(_faults(manifest, found))
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise Refused(f"the archive is not what its manifest says: {'; '.join(wrong[:5])}{more}")


def _faults(manifest: bytes, found: Found) -> t.Iterator[str]:
    """Source: the manual, Backup Manifest Format."""
    if not manifest:
        yield f"no {MANIFEST} is in it"
        return
    try:
        said = json.loads(manifest)
        files = {_path(each): (int(each["Size"]), str(each["Checksum"]).lower()) for each in said["Files"]}
        ranges = [
            (int(each["Timeline"]), _lsn(each["Start-LSN"]), _lsn(each["End-LSN"])) for each in said["WAL-Ranges"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        yield f"{MANIFEST} cannot be read: {error}"
        return
    if not is_whole(manifest):
        yield f"{MANIFEST} has another checksum"
    for name, (size, digest) in sorted(files.items()):
        if name not in found:
            yield f"{name} is missing"
        elif found[name] != (size, digest):
            yield f"{name} is another file"
    for name in sorted(found.keys() - files.keys()):
        if name not in OWN and not name.startswith("pg_wal/"):
            yield f"{name} is not in the manifest"
    yield from (f"{name} is missing" for name in _segments(ranges, found) if name not in found)


def _path(entry: t.Mapping[str, str]) -> str:
    return entry["Path"] if "Path" in entry else bytes.fromhex(entry["Encoded-Path"]).decode("utf-8", "surrogateescape")


def _lsn(text: str) -> int:
    high, _slash, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _segments(ranges: t.Sequence[tuple[int, int, int]], found: Found) -> t.Iterator[str]:
    """The files of the log without which no start is possible. All of them have one size."""
    sizes = {size for name, (size, _digest) in found.items() if name.startswith("pg_wal/0") and len(name) == 31}
    if len(sizes) != 1:
        yield "pg_wal"
        return
    (size,) = sizes
    for timeline, first, last in ranges:
        for number in range(first // size, max(first, last - 1) // size + 1):
            high, low = divmod(number, (1 << 32) // size)
            yield f"pg_wal/{timeline:08X}{high:08X}{low:08X}"
