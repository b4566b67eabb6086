# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as text: JSON Lines and CSV that keep every value exactly. What reads them back is reading.py; no I/O here.

JSON Lines: one object a row. Numbers stand as they are, digit for digit; what JSON has no number for (NaN, Infinity)
is text. Bytes are text, `\\x` and hexadecimal digits, as PostgreSQL writes them; where a column's values say themselves
what they are (SQLite), bytes are {"$hex": …} and such a number {"$number": …}. Text that is not Unicode is
{"$bytes": …} or, where it never was bytes, {"$utf8": …} (surrogates encoded like other characters).

CSV, RFC 4180: a header line, CRLF, quotes doubled. An empty field is NULL, a quoted empty one the empty text. Where
values say themselves what they are, text is quoted and all else is not (bytes: `0x` and digits). Text that is not
Unicode is `\\x` or `\\u` and digits, not quoted; text that begins with a backslash is quoted.
"""

from __future__ import annotations

import json
import math
import re
import typing as t
from json.encoder import encode_basestring as quoted

from .._retention import Column

JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?\Z", re.ASCII)
CSV_QUOTED = re.compile('[",\r\n]|^[ \t\\\\]|[ \t]$|^$')

Write = t.Callable[[t.Any], str]
Rows = t.Sequence[t.Sequence[t.Any]]


def encode(form: str, columns: t.Sequence[Column], rows: Rows, *, header: bool) -> bytes:
    """The rows as they stand in the file. `header`: the file begins with them."""
    lines = _json_lines if form == "jsonl" else _csv_lines
    text = lines(columns, rows, _as_it_is)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:  # rare: looking for it in each value would cost every row
        data = lines(columns, rows, unicode_or_bytes).encode("utf-8")
    if header and form == "csv":
        names = ",".join('"' + column.name.replace('"', '""') + '"' for column in columns)
        data = (names + "\r\n").encode("utf-8", "backslashreplace") + data
    return data


def number(value: t.Any) -> str:
    """Digit for digit: repr() of a float is the shortest text that reads back as the same float."""
    if isinstance(value, float):
        if math.isfinite(value):
            return repr(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return str(int(value)) if isinstance(value, bool) else str(value)


def unicode_or_bytes(text: str) -> tuple[str, str] | None:
    """(how, hexadecimal digits) of text that no UTF-8 can hold."""
    try:
        text.encode("utf-8")
        return None
    except UnicodeEncodeError:
        pass
    try:  # what Python made of bytes that are no UTF-8
        raw = text.encode("utf-8", "surrogateescape")
        if raw.decode("utf-8", "surrogateescape") == text:
            return "bytes", raw.hex()
    except UnicodeEncodeError:
        pass
    return "utf8", text.encode("utf-8", "surrogatepass").hex()


def _as_it_is(text: str) -> tuple[str, str] | None:
    return None


Odd = t.Callable[[str], t.Optional["tuple[str, str]"]]


# ---- JSON Lines ------------------------------------------------------------------------------------------------------


def _json_lines(columns: t.Sequence[Column], rows: Rows, odd: Odd) -> str:
    def text(value: t.Any) -> str:
        strange = odd(value)
        return f'{{"${strange[0]}": "{strange[1]}"}}' if strange else quoted(value)

    def some_number(value: t.Any) -> str:
        digits = number(value)
        return digits if JSON_NUMBER.match(digits) else text(digits)

    def any_value(value: t.Any) -> str:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f'{{"$hex": "{bytes(value).hex()}"}}'
        if isinstance(value, bool):
            return boolean(value)
        digits = number(value)
        return digits if JSON_NUMBER.match(digits) else f'{{"$number": "{digits}"}}'

    writers = _writers({"number": some_number, "text": text, "hex": lambda v: f'"\\\\x{bytes(v).hex()}"'}, any_value)
    parts = [(json.dumps(column.name) + ": ", writers(column)) for column in columns]
    return "".join(
        "{" + ", ".join([name + ("null" if v is None else write(v)) for (name, write), v in zip(parts, row)]) + "}\n"
        for row in rows
    )


# ---- CSV -------------------------------------------------------------------------------------------------------------


def _csv_lines(columns: t.Sequence[Column], rows: Rows, odd: Odd) -> str:
    def always(value: str) -> str:
        strange = odd(value)
        if strange:
            return f"\\{'x' if strange[0] == 'bytes' else 'u'}{strange[1]}"
        return '"' + value.replace('"', '""') + '"'

    def text(value: t.Any) -> str:
        if value.isalnum():  # most values, and faster than to look for what must be quoted
            return str(value)
        return always(value) if CSV_QUOTED.search(value) or odd(value) else str(value)

    def any_value(value: t.Any) -> str:
        if isinstance(value, str):
            return always(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"0x{bytes(value).hex()}"
        return boolean(value) if isinstance(value, bool) else number(value)

    writers = _writers(
        {
            "number": lambda v: text(v if isinstance(v, str) else number(v)),
            "text": text,
            "hex": lambda v: f"\\x{bytes(v).hex()}",
        },
        any_value,
    )
    parts = [writers(column) for column in columns]
    return "".join(",".join(["" if v is None else write(v) for write, v in zip(parts, row)]) + "\r\n" for row in rows)


def boolean(value: t.Any) -> str:
    return "true" if value else "false"


def _writers(own: t.Mapping[str, Write], other: Write) -> t.Callable[[Column], Write]:
    return lambda column: boolean if column.encoding == "boolean" else own.get(column.encoding, other)
