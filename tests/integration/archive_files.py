# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archive files as somebody reads them who has only their documentation: no code of the collection is used here."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST = ".manifest.json"


class Number(str):
    """A number, digit for digit."""

    __slots__ = ()


class Bare(str):
    """A field of CSV without quotes."""

    __slots__ = ()


class Column(NamedTuple):
    name: str
    encoding: str


class Archived(NamedTuple):
    """A finished file."""

    path: Path
    manifest: dict[str, Any]

    @property
    def table(self) -> str:
        return ".".join(self.manifest["table"]["path"])

    @property
    def columns(self) -> list[Column]:
        return [Column(one["name"], one["encoding"]) for one in self.manifest["columns"]]

    def read(self) -> list[list[Any]]:
        """Its rows: None, bool, Number, str or bytes."""
        text = decompressed(self.path).decode("utf-8", "surrogatepass")
        names = [column.name for column in self.columns]
        if ".csv" in self.path.suffixes:
            header, *rows = csv_rows(text)
            if header != names:
                raise AssertionError(f"{self.path} begins with {header}, not with {names}")
            kinds = [column.encoding for column in self.columns]
            return [[_of_field(field, kind) for field, kind in zip(row, kinds, strict=True)] for row in rows]
        return [[_plain(row.get(name)) for name in names] for row in json_rows(text)]


def finished(folder: Path, *, pending: bool = False) -> list[Archived]:
    """The files of an archive: each with a manifest that is true; unless `pending`, nothing else is there."""
    found = []
    known = set()
    for path in sorted(folder.rglob(f"*{MANIFEST}")) if folder.is_dir() else []:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        data = path.with_name(path.name.removesuffix(MANIFEST))
        known |= {path, data}
        one = Archived(data, manifest)
        if hashlib.sha256(data.read_bytes()).hexdigest() != manifest["sha256"]:
            raise AssertionError(f"{data} is not what its manifest says")
        if len(one.read()) != manifest["rows"]:
            raise AssertionError(f"{data} has {len(one.read())} rows, its manifest says {manifest['rows']}")
        found.append(one)
    strays = [str(path) for path in folder.rglob("*") if path.is_file() and path not in known]
    if strays and not pending:
        raise AssertionError(f"unfinished or foreign files: {strays}")
    return found


def decompressed(path: Path) -> bytes:
    """zstd by the program of that name, not by the library that wrote it."""
    if path.suffix != ".zst":
        return gzip.decompress(path.read_bytes())
    if not shutil.which("zstd"):
        raise AssertionError("the program zstd is not there: what was archived cannot be read")
    return subprocess.run(["zstd", "-dc", str(path)], check=True, capture_output=True).stdout


def json_rows(text: str) -> Iterator[dict[str, Any]]:
    """One object a line; only a line feed ends a line."""
    for line in text.split("\n"):
        if line:
            yield json.loads(line, parse_int=Number, parse_float=Number, parse_constant=Number)


def _plain(value: Any) -> Any:
    """What JSON has no words for."""
    if not isinstance(value, dict):
        return value
    ((how, text),) = value.items()
    if how == "$number":
        return Number(text)
    data = bytes.fromhex(text)
    if how == "$hex":
        return data
    return data.decode("utf-8", "surrogateescape" if how == "$bytes" else "surrogatepass")


def _of_field(field: str | None, encoding: str) -> Any:
    """Quotes tell text from all else; a backslash without them begins text that is not Unicode, or bytes."""
    if not isinstance(field, Bare) or encoding == "hex":
        return field
    if field[:2] in ("\\x", "\\u"):
        return bytes.fromhex(field[2:]).decode("utf-8", "surrogateescape" if field[1] == "x" else "surrogatepass")
    if encoding != "any":
        return str(field)
    return bytes.fromhex(field[2:]) if field.startswith("0x") else Number(field)


def csv_rows(text: str) -> Iterator[list[str | None]]:
    """RFC 4180; an empty field without quotes is NULL. The standard library's reader does not tell the two apart."""
    row: list[str | None] = []
    at = 0
    while at < len(text):
        field, at = _field(text, at)
        row.append(field)
        if at >= len(text) or text[at] != ",":
            yield row
            row = []
            at += 2 if text[at : at + 2] == "\r\n" else 1
        else:
            at += 1


def _field(text: str, at: int) -> tuple[str | None, int]:
    if text[at] != '"':
        end = min((i for i in (text.find(c, at) for c in ",\r\n") if i >= 0), default=len(text))
        return Bare(text[at:end]) if end > at else None, end
    parts = []
    while True:
        end = text.index('"', at + 1)
        parts.append(text[at + 1 : end])
        if text[end + 1 : end + 2] != '"':
            return '"'.join(parts), end + 1
        at = end + 1
