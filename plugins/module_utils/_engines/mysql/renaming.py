# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the text of a dump names its own database, and so would reach back into it from another name. No stream.

The servers leave the name out only while everything in a view is in that database: with one table of another one in it,
however far down, all are written with it (tried with MariaDB 10.11); sequences in defaults always are.
"""

from __future__ import annotations

import re
import typing as t

from .names import quoted

NAME = rb"`(?:[^`]|``)+`"
TEXT = re.compile(rb"'(?:[^'\\]|\\.)*'", re.DOTALL)
NEEDS = re.compile(rb"(?:from|join) \(*(" + NAME + rb")(?:\.(" + NAME + rb"))?|(" + NAME + rb")\." + NAME + rb"\(")
# A view's definition stands on one line, whatever its name holds.
VIEW = re.compile(rb"^/\*!50001 VIEW " + NAME + rb" AS [^\n]*", re.MULTILINE)

VIEW_NAME = re.compile(rb"/\*!50001 VIEW (" + NAME + rb") AS ")


def needed(line: bytes) -> tuple[bytes, set[tuple[bytes, bytes]]]:
    """A view's quoted name, and what it is made of: quoted database or b"", quoted table or b"" (a function)."""
    head = VIEW_NAME.match(line)
    name = head.group(1) if head else b""
    found = set()
    for one, two, database in NEEDS.findall(TEXT.sub(b"''", line)):
        found.add((database, b"") if database else (one, two) if two else (b"", one))
    return name, found


class Own:
    """The database's own name in definitions."""

    def __init__(self, database: str) -> None:
        name = re.escape(quoted(database).encode())
        self._mark = quoted(database).encode() + b"."
        # Texts are left alone: group 1. A table, a column of a table, a function.
        table = rb"(?:(?<=from )|(?<=join )|(?<=\())" + name + rb"\.(?=`)"
        column = name + rb"\.(?=" + NAME + rb"\.`)"
        function = name + rb"\.(?=" + NAME + rb"\()"
        self._view = re.compile(rb"('(?:[^'\\]|\\.)*')|" + b"|".join((table, column, function)), re.DOTALL)
        self._alias = re.compile(rb"` " + name)
        self._sequence = re.compile(rb"(^  `[^\n]*? DEFAULT \(?(?:next|last|set)val\()" + name + rb"\.", re.MULTILINE)

    def of_views(self, text: bytes, new: bytes) -> bytes:
        """All views' definitions in the text; `new`: what stands there afterwards, its dot included."""
        if self._mark not in text:
            return text
        return VIEW.sub(lambda found: self._of_view(found.group(), new), text)

    def _of_view(self, line: bytes, new: bytes) -> bytes:
        if self._mark not in line or self._alias.search(line):  # then it may be the alias
            return line

        def moved(found: re.Match[bytes]) -> bytes:
            return t.cast("bytes", found.group(1)) if found.group(1) else new

        return self._view.sub(moved, line)

    def of_sequences(self, text: bytes, new: bytes) -> bytes:
        """Sequences that give columns their defaults."""
        if self._mark not in text:
            return text
        return self._sequence.sub(lambda found: found.group(1) + new, text)
