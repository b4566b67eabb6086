# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that a dump holds, counted in what pg_restore makes of it. Nothing runs here."""

from __future__ import annotations

import re
import typing as t

from ..._errors import Refused

END = b"\n\\.\n"  # of a table's rows. Source: the manual, COPY, Text Format
# One statement outside of them, with what stands before it; a name or a text may hold anything, a semicolon too (and a
# doubled quote is the end of one text and the beginning of another: as good for finding the end of the statement).
STATEMENT = re.compile(rb"""(?:[^'";-]|-(?!-)|--[^\n]*\n|'[^']*'|"[^"]*")*;\n""")
NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
COPY = re.compile(
    rb"(?:\s|--[^\n]*\n|\\[^\n]*\n)*COPY (" + NAME.encode() + rb"\." + NAME.encode() + rb") (?:\(.*\))? FROM stdin;\n",
    re.DOTALL,
)
QUALIFIED = re.compile(rf"({NAME})\.({NAME})", re.DOTALL)


class Rows:
    """Takes the script of `pg_restore --data-only` piece by piece; `counts` by table, named as pg_dump quotes it."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._rest = b""
        self._table = ""  # whose rows are passing by

    def feed(self, data: bytes) -> None:
        data = self._rest + data
        at: int | None = 0
        while at is not None:
            done = at
            at = self._rows(data, at) if self._table else self._statement(data, at)
        if self._table:
            # Its end may be cut in two.
            kept = max(done, len(data) - len(END) + 1)
            self.counts[self._table] += data.count(b"\n", done, kept)
            done = kept
        self._rest = data[done:]

    def _rows(self, data: bytes, at: int) -> int | None:
        """From the newline before the first row on, so that a table without rows ends like any other."""
        end = data.find(END, at)
        if end < 0:
            return None
        # The last row's own newline is left out for that one.
        self.counts[self._table] += data.count(b"\n", at, end)
        self._table = ""
        return end + len(END)

    def _statement(self, data: bytes, at: int) -> int | None:
        found = STATEMENT.match(data, at)
        if not found:
            return None
        copy = COPY.fullmatch(found.group())
        if not copy:
            return found.end()
        self._table = copy.group(1).decode("utf-8", "surrogateescape")
        self.counts.setdefault(self._table, 0)
        return found.end() - 1

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
