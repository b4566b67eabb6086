# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archive files read back: each value as it was. What wrote them is rows.py; nothing here decides anything.

Numbers come back as text, digit for digit, except where a column's values say themselves what they are.
"""

from __future__ import annotations

import io
import json
import re
import typing as t

from .._retention import Column
from .compression import opened
from .manifest import MANIFEST

CSV_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)', re.DOTALL)
WHOLE = re.compile(r"-?\d+\Z", re.ASCII)

Row = tuple[t.Any, ...]


class Digits(str):
    """A number as it stood in JSON, which text never is."""

    __slots__ = ()


def read(path: str) -> t.Iterator[Row]:
    """The rows of a finished file, as its manifest says; one at a time. Raises OSError, MissingMeans, ValueError."""
    with open(path + MANIFEST, "rb") as file:
        manifest = json.loads(file.read())
    columns = [Column(**column) for column in manifest["columns"]]
    with opened(path) as data:
        yield from decode(manifest["format"], columns, data)


def decode(form: str, columns: t.Sequence[Column], data: t.BinaryIO) -> t.Iterator[Row]:
    """The rows in `data`, which is not compressed any more. Raises ValueError."""
    encodings = [column.encoding for column in columns]
    with io.TextIOWrapper(data, encoding="utf-8", newline="\n" if form == "jsonl" else "") as lines:
        rows = _json_rows(lines) if form == "jsonl" else _csv_rows(lines)
        values = _json_value if form == "jsonl" else _csv_value
        for row in rows:
            if len(row) != len(encodings):
                raise ValueError(f"a row has {len(row)} values for {len(encodings)} columns")
            yield tuple([values(encoding, value) for encoding, value in zip(encodings, row)])


def _json_rows(lines: t.Iterable[str]) -> t.Iterator[t.Sequence[t.Any]]:
    for line in lines:
        yield list(json.loads(line, parse_int=Digits, parse_float=Digits).values())


def _json_value(encoding: str, value: t.Any) -> t.Any:
    if isinstance(value, dict):
        ((how, text),) = value.items()
        return float(text) if how == "$number" else _raw(how[1:], text)
    if encoding == "hex" and value is not None:
        return bytes.fromhex(value[2:])
    if isinstance(value, Digits):
        return str(value) if encoding == "number" else _python_number(value)
    return value


def _csv_rows(lines: t.Iterable[str]) -> t.Iterator[t.Sequence[t.Any]]:
    """Rows of (quoted text, or None; text that was not quoted), without the header."""
    header, record = True, ""
    for line in lines:
        record += line
        if record.count('"') % 2 or not record.endswith("\r\n"):
            continue
        if not header:
            yield [field.group(1, 2) for field in CSV_FIELD.finditer(record)]
        header, record = False, ""
    if record:
        raise ValueError("the file ends in the middle of a row")


def _csv_value(encoding: str, field: tuple[str | None, str]) -> t.Any:
    quoted, plain = field
    if quoted is not None:
        return quoted.replace('""', '"')
    if plain == "":
        return None
    if encoding in ("text", "any") and plain[:2] in ("\\x", "\\u"):
        return _raw("bytes" if plain[1] == "x" else "utf8", plain[2:])
    if encoding in ("number", "text"):
        return plain
    if encoding == "hex":
        return bytes.fromhex(plain[2:])
    if plain in ("true", "false"):
        return plain == "true"
    return bytes.fromhex(plain[2:]) if plain.startswith("0x") else _python_number(plain)


def _raw(how: str, digits: str) -> t.Any:
    data = bytes.fromhex(digits)
    return data if how == "hex" else data.decode("utf-8", "surrogateescape" if how == "bytes" else "surrogatepass")


def _python_number(digits: str) -> int | float:
    return int(digits) if WHOLE.match(digits) else float(digits)
