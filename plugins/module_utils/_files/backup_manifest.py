# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the manifest of a backup looks like on the disk: written, read and distrusted. Looks at no other file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import typing as t
from datetime import datetime, timezone

from .._backups import LEVELS, Backup, Stored
from . import durable

FORMAT = 1
MANIFEST = ".manifest.json"
PARTIAL = ".partial"
USUAL = 1 << 16  # bytes
LONGEST = 1 << 26  # bytes; of a manifest with a million files
ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")
SHA256 = re.compile(r"[0-9a-f]{64}")
SELF = b',\n "manifest_sha256": "'  # of all bytes before this one
TEXTS = ("server", "address", "engine", "database", "method", "tool")
MORE_TEXTS = ("format", "compression", "encryption", "parent", "level")  # that may be left out


class Distrusted(ValueError):
    """Why what stands in a manifest cannot be believed."""


def new_id(now: datetime) -> str:
    return f"{now.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"


def path_of(backup: Backup) -> str:
    return os.path.join(backup.folder, backup.id + MANIFEST)


def plain(backup: Backup) -> dict[str, t.Any]:
    """As it stands in the file."""
    fields: dict[str, t.Any] = {"version": FORMAT, "id": backup.id, "version_of_server": backup.version}
    fields.update({name: getattr(backup, name) for name in (*TEXTS, *MORE_TEXTS)})
    fields["arguments"] = list(backup.arguments)
    fields["copies"], fields["copying"] = list(backup.copies), list(backup.copying)
    for name in ("began", "ended", "verified_at"):
        moment = getattr(backup, name)
        fields[name] = moment and moment.astimezone(timezone.utc).isoformat()
    fields["files"] = [file._asdict() for file in backup.files]
    fields["source_bytes"], fields["pin"] = backup.source_bytes, backup.pin
    fields["rows"] = None if backup.rows is None else dict(backup.rows)
    fields["sums"] = None if backup.sums is None else dict(backup.sums)
    fields["about"] = dict(backup.about)
    return fields


def text_of(fields: t.Mapping[str, t.Any]) -> bytes:
    """With a digest of itself: a flipped bit may be in the manifest as well. ASCII: names need not be Unicode."""
    told = {name: value for name, value in fields.items() if name != "manifest_sha256"}
    body = json.dumps(told, indent=1).encode("ascii")[: -len("\n}")]
    return body + SELF + hashlib.sha256(body).hexdigest().encode("ascii") + b'"\n}\n'


def write_manifest(backup: Backup) -> None:
    """Replaces what is there. Raises OSError."""
    durable.replace(path_of(backup), text_of(plain(backup)))


def read_fields(path: str) -> dict[str, t.Any]:
    """What stands in it, also what only a later version of the collection knows. Raises OSError, Distrusted."""
    return fields_of(_bytes_of(path))


def fields_of(data: bytes) -> dict[str, t.Any]:
    """The same of its bytes, wherever they come from. Raises Distrusted."""
    body, found, tail = data.rpartition(SELF)
    if not found or tail != hashlib.sha256(body).hexdigest().encode("ascii") + b'"\n}\n':
        raise Distrusted("it is damaged, or was changed by hand")
    try:
        fields = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise Distrusted("it is not JSON") from error
    if not isinstance(fields, dict):
        raise Distrusted("it is no manifest")
    if fields.get("version") != FORMAT:
        raise Distrusted(f"it is of another version of this collection: {fields.get('version')!r}")
    return fields


def _bytes_of(path: str) -> bytes:
    """One read for almost all of them: there may be a hundred thousand."""
    fd = durable.open_to_read(path)
    try:
        data = os.read(fd, USUAL)
        if len(data) == USUAL:
            more = [data]
            while data and len(more) <= LONGEST // USUAL:
                data = os.read(fd, USUAL)
                more.append(data)
            data = b"".join(more)
    finally:
        os.close(fd)
    return data


def read_manifest(path: str) -> Backup:
    """Every part of it is looked at. Raises OSError, Distrusted."""
    folder, name = os.path.split(path)
    backup = parse(read_fields(path), folder)
    if name != backup.id + MANIFEST:
        raise Distrusted("it is called otherwise than the backup that it describes")
    return backup


def parse(fields: t.Mapping[str, t.Any], folder: str) -> Backup:
    """Names can only be those of files of this backup in this folder, whoever wrote the manifest. Raises Distrusted."""
    try:
        return _parse(fields, folder)
    except (KeyError, TypeError, AttributeError) as error:
        raise Distrusted(f"something is missing or of another type: {error}") from error


def _parse(fields: t.Mapping[str, t.Any], folder: str) -> Backup:
    ident = _text(fields["id"])
    if not ID.fullmatch(ident):
        raise Distrusted("its id is none of ours")
    texts = {name: fields[name] for name in TEXTS}
    texts.update({name: fields.get(name, "") for name in MORE_TEXTS})
    texts["version"] = fields["version_of_server"]
    _all_texts(texts.values())
    if texts["level"] not in LEVELS:
        raise Distrusted(f"level {texts['level']!r} is not known")
    rows, sums = fields.get("rows"), fields.get("sums")
    verified = fields.get("verified_at")
    return Backup(
        id=ident,
        **texts,
        arguments=_texts(fields["arguments"]),
        began=_moment(fields["began"]),
        ended=_moment(fields["ended"]),
        files=_files(fields["files"], ident),
        source_bytes=_count(fields.get("source_bytes", 0)),
        rows=None if rows is None else {_text(name): _count(count) for name, count in rows.items()},
        sums=None if sums is None else _about(sums),
        pin=_boolean(fields.get("pin", False)),
        verified_at=None if verified is None else _moment(verified),
        copies=_texts(fields.get("copies", [])),
        copying=_texts(fields.get("copying", [])),
        about=_about(fields.get("about", {})),
        folder=folder,
    )


def _about(found: t.Mapping[str, str]) -> dict[str, str]:
    about = dict(found.items())
    _all_texts(about)
    _all_texts(about.values())
    return about


def _files(found: t.Any, ident: str) -> tuple[Stored, ...]:
    files = tuple([_stored(file, ident) for file in _list(found)])
    if len(files) > 1 and len({file.name for file in files}) != len(files):
        raise Distrusted("it names a file twice")
    return files


def _stored(file: t.Mapping[str, t.Any], ident: str) -> Stored:
    name, digest, what = file["name"], file["sha256"], file["what"]
    _all_texts((name, digest, what))
    if not is_name(name, ident):
        raise Distrusted(f"{name!r} is no file of this backup")
    if not SHA256.fullmatch(digest):
        raise Distrusted(f"the hash of {name!r} is none")
    return Stored(name, _count(file["bytes"]), digest, what, _count(file.get("plain_bytes", 0)))


def is_name(name: str, ident: str) -> bool:
    """Of a file, or of one in a folder, of the backup with this id: relative, and not the manifest itself."""
    if not name.startswith(ident + ".") or "\0" in name or name[len(ident) :] in (MANIFEST, PARTIAL):
        return False
    return "/" not in name or all(part not in ("", ".", "..") for part in name.split("/"))


def _all_texts(values: t.Iterable[t.Any]) -> None:
    if set(map(type, values)) - {str}:
        raise Distrusted("what should be text is none")


def _text(value: t.Any) -> str:
    if not isinstance(value, str):
        raise Distrusted(f"{value!r} is no text")
    return value


def _count(value: t.Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Distrusted(f"{value!r} is no count")
    return value


def _boolean(value: t.Any) -> bool:
    if not isinstance(value, bool):
        raise Distrusted(f"{value!r} is neither true nor false")
    return value


def _list(value: t.Any) -> list[t.Any]:
    if not isinstance(value, list):
        raise Distrusted(f"{value!r} is no list")
    return value


def _texts(value: t.Any) -> tuple[str, ...]:
    _all_texts(_list(value))
    return tuple(value)


def _moment(value: t.Any) -> datetime:
    try:
        found = datetime.fromisoformat(_text(value))
    except ValueError as error:
        raise Distrusted(f"{value!r} is no moment") from error
    if found.tzinfo is None:
        raise Distrusted(f"{value!r} does not say in which zone")
    return found if found.tzinfo is timezone.utc else found.astimezone(timezone.utc)
