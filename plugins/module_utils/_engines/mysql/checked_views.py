# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Views with a check option, which the dump programs define too early. Reads nothing, and writes nothing itself.

They define views by their names, each on what stands in for those that come later: SELECT 1 AS …, which nobody can
update. A check option on that is an error (1368), and the dump cannot be restored (mysqldump 8.0 and 9.7, mariadb-dump
10.11). So such a view is made without its option where it stands, and anew with it when all the others are there.
"""

from __future__ import annotations

import re

from .renaming import NAME, needed

OPTION = b"/*!50002 WITH "
SECTION = re.compile(
    rb"^(?:/\*!50001 SET [^\n]*\n)*/\*!50001 CREATE ALGORITHM=[^\n]*\n/\*!50013 DEFINER=[^\n]*\n"
    rb"(/\*!50001 VIEW (" + NAME + rb") AS [^\n]*) \*/\n/\*!50002 WITH (?:CASCADED|LOCAL) CHECK OPTION \*/;\n"
    rb"(?:/\*!50001 SET [^\n]*\n)*",
    re.MULTILINE,
)
# By then the session is as it was before the dump: what a definition says depends on its mode.
AFTERWARDS = b"/*!40101 SET SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n"


class CheckedViews:
    """Of one dump, as they pass by."""

    def __init__(self) -> None:
        self._sections: dict[bytes, tuple[set[bytes], bytes]] = {}  # by quoted name: views it may need, its definition

    def taken_from(self, text: bytes) -> bytes:
        """The text without their options."""
        return SECTION.sub(self._taken, text) if OPTION in text else text

    def _taken(self, found: re.Match[bytes]) -> bytes:
        _name, needs = needed(found.group(1))
        self._sections[found.group(2)] = ({name for _database, name in needs}, found.group())
        head, _option, tail = found.group().partition(b" */\n" + OPTION)
        return head + b" */;\n" + tail.partition(b"\n")[2]

    def definitions(self) -> bytes:
        """With their options, those that others need first; nothing where there is none."""
        parts: list[bytes] = []
        left = dict(self._sections)
        while left:
            ready = [name for name, (needs, _text) in left.items() if not needs & (left.keys() - {name})]
            # A circle is none that a server would have made.
            parts += [b"/*!50001 DROP VIEW IF EXISTS " + name + b"*/;\n" + left[name][1] for name in ready or left]
            left = {name: left[name] for name in left if ready and name not in ready}
        return AFTERWARDS + b"".join(parts) if parts else b""
