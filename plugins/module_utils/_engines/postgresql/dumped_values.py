# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dump holds beside rows: values of sequences, large objects. Nothing runs here."""

from __future__ import annotations

import re
import zlib

SEQUENCE, OBJECTS = "sequence ", "large objects"  # among sums; a table's name there has no space outside of quotes
BEFORE = rb"(?:\s|--[^\n]*\n|\\[^\n]*\n)*"
# As pg_dump and pg_restore write them. Source: pg_dump.c dumpSequenceData(), pg_backup_null.c.
SETVAL = re.compile(BEFORE + rb"SELECT pg_catalog\.setval\('((?:[^']|'')*)', (-?\d+), (true|false)\);\n")
OPEN = re.compile(BEFORE + rb"SELECT pg_catalog\.lo_open\('(\d+)', \d+\);\n")
WRITE = re.compile(BEFORE + rb"SELECT pg_catalog\.lowrite\(0, '\\+x([0-9a-f]*)'\);\n")
CLOSE = re.compile(BEFORE + rb"SELECT pg_catalog\.lo_close\(0\);\n")


class Values:
    """Takes statements one by one."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._object = b""  # whose content passes by
        self._crc = self._sum = self._objects = 0

    def learn(self, statement: bytes, codec: str) -> None:
        """Of content only what it is counts, not in which pieces it is written."""
        if b"pg_catalog.lo" in statement:
            self._learn_object(statement)
            return
        found = SETVAL.fullmatch(statement) if b"setval" in statement else None
        if found:
            name = found.group(1).decode(codec, "backslashreplace").replace("''", "'")
            called = "" if found.group(3) == b"true" else " (not called)"
            self._found[SEQUENCE + name] = found.group(2).decode() + called

    def _learn_object(self, statement: bytes) -> None:
        opened, more = OPEN.fullmatch(statement), WRITE.fullmatch(statement)
        if opened:
            self._object, self._crc = opened.group(1), zlib.crc32(opened.group(1))
        elif more:
            self._crc = zlib.crc32(more.group(1), self._crc)
        elif CLOSE.fullmatch(statement) and self._object:
            self._sum, self._objects = self._sum + self._crc, self._objects + 1
            self._object = b""

    @property
    def found(self) -> dict[str, str]:
        """By what it is, as it stands in a manifest."""
        objects = {OBJECTS: f"{self._objects}:{self._sum:x}"} if self._objects else {}
        return {**self._found, **objects}


def is_value(name: str) -> bool:
    """Whether that is one of these, and no table's sum."""
    return name.startswith(SEQUENCE) or name == OBJECTS
