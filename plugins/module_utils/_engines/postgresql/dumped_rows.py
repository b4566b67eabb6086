# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that a dump holds, counted in what pg_restore makes of it. Nothing runs here."""

from __future__ import annotations

import re
import typing as t
import zlib

from ..._errors import Refused
from .dumped_values import Values
from .encodings import codec

END = b"\n\\.\n"  # of a table's rows. Source: the manual, COPY, Text Format
# One statement outside of them, with what stands before it; a name or a text may hold anything, a semicolon too (and a
# doubled quote is the end of one text and the beginning of another: as good for finding the end of the statement).
STATEMENT = re.compile(rb"""(?:[^'";-]|-(?!-)|--[^\n]*\n|'[^']*'|"[^"]*")*;\n""")
NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
COPY = re.compile(
    rb"(?:\s|--[^\n]*\n|\\[^\n]*\n)*COPY (" + NAME.encode() + rb"\." + NAME.encode() + rb") (?:\(.*\))? FROM stdin;\n",
    re.DOTALL,
)
ENCODED = re.compile(rb"SET client_encoding = '(\w+)';\n\Z")
QUALIFIED = re.compile(rf"({NAME})\.({NAME})", re.DOTALL)


class Rows:
    """Takes the script of `pg_restore --data-only` piece by piece; `counts` by table, named as pg_dump quotes it.

    `sums`, where asked for: of the CRC-32 of each row, so that rows in another order are the same rows. That takes as
    long as pg_restore itself, and counting a tenth of it.
    """

    def __init__(self, *, summed: bool = False) -> None:
        self.counts: dict[str, int] = {}
        self.sums: dict[str, int] = {}
        self._values = Values() if summed else None
        self._pass = self._sum if summed else self._count
        self._crc = 0  # of the row that has begun
        self._rest = b""
        self._table = ""  # whose rows are passing by
        self._codec = "utf-8"

    @property
    def values(self) -> dict[str, str]:
        """What is there beside rows, where sums were asked for; see dumped_values.py."""
        return self._values.found if self._values else {}

    def feed(self, data: bytes | bytearray, size: int = -1) -> None:
        """The first `size` bytes of it; nothing is copied but what is cut at their end."""
        size, at = len(data) if size < 0 else size, 0
        if self._rest:
            if not self._table or size < len(END) or END in self._rest + data[: len(END)]:
                data, size = self._rest + data[:size], len(self._rest) + size
            else:
                self._pass(self._rest, 0, len(self._rest))
        while at < size:
            after = self._rows(data, at, size) if self._table else self._statement(data, at, size)
            if after < 0:
                break
            at = after
        if self._table:
            # Its end may be cut in two.
            kept = max(at, size - len(END) + 1)
            self._pass(data, at, kept)
            at = kept
        self._rest = bytes(data[at:size])

    def _rows(self, data: bytes | bytearray, at: int, size: int) -> int:
        """From the newline before the first row on, so that a table without rows ends like any other."""
        # Most pieces hold no backslash at all, and one byte is found fifty times faster than four.
        end = data.find(END, at, size) if data.find(b"\\", at, size) >= 0 else -1
        if end < 0:
            return -1
        # The last row's own newline is left out for that one.
        self._pass(data, at, end)
        self.sums[self._table] = self.sums.get(self._table, 0) + self._crc
        self._crc, self._table = 0, ""
        return end + len(END)

    def _count(self, data: bytes | bytearray, start: int, end: int) -> None:
        self.counts[self._table] += data.count(b"\n", start, end)

    def _sum(self, data: bytes | bytearray, start: int, end: int) -> None:
        """What is empty before the first row adds nothing: its sum is 0."""
        first, *rows = bytes(memoryview(data)[start:end]).split(b"\n")
        self._crc = zlib.crc32(first, self._crc)
        if rows:
            self.counts[self._table] += len(rows)
            last = rows.pop()
            self.sums[self._table] = self.sums.get(self._table, 0) + self._crc + sum(map(zlib.crc32, rows))
            self._crc = zlib.crc32(last)

    def _statement(self, data: bytes | bytearray, at: int, size: int) -> int:
        found = STATEMENT.match(data, at, size)
        if not found:
            return -1
        copy = COPY.fullmatch(found.group())
        if not copy:
            self._learn(found.group())
            if self._values:
                self._values.learn(found.group(), self._codec)
            return found.end()
        self._table = copy.group(1).decode(self._codec, "backslashreplace")
        self.counts.setdefault(self._table, 0)
        return found.end() - 1

    def _learn(self, statement: bytes) -> None:
        """The script is in the database's encoding, and says so before the first name."""
        said = ENCODED.search(statement)
        if said:
            self._codec = codec(said.group(1).decode("ascii")) or self._codec

    def end(self) -> None:
        """Raises Refused where it ends in the middle of something."""
        if self._table:
            raise Refused(f"it ends within the rows of {self._table}")


def parts(name: str) -> tuple[str, str]:
    """Schema and table of a name as pg_dump quotes it. Raises Refused for what is none: a manifest may lie."""
    found = QUALIFIED.fullmatch(name)
    if not found:
        raise Refused(f"{name!r} in the manifest is no name of a table")
    schema, table = (p[1:-1].replace('""', '"') if p.startswith('"') else p for p in found.groups())
    return schema, table


def differences(expected: t.Mapping[str, int], actual: t.Mapping[str, int]) -> str:
    """In words, the first few; "" where there are none."""
    wrong = [
        f"{name}: {actual.get(name, 'not there')} instead of {expected.get(name, 'none')}"
        for name in sorted({*expected, *actual})
        if expected.get(name) != actual.get(name)
    ]
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return "; ".join(wrong[:5]) + more
