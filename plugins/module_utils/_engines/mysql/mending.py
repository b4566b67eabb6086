# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump on its way into another database than the one it was taken from. Reads nothing, and writes nothing itself.

In rows a line break is always written as `\\n`, so what is looked for at the beginning of a line is never data.
"""

from __future__ import annotations

import re
import typing as t

from ..._errors import Refused
from .checked_views import CheckedViews
from .definitions import EVENT, PART, SCHEDULE
from .names import quoted
from .renaming import NAME, Own

LONGEST = 32 << 20  # bytes of a line that is looked at: rows may be longer, what is mended here is not


RUN_AS = re.compile(rb"^((?:CREATE |/\*!\d{5} )[^`\n]{0,60}?DEFINER=)" + PART + rb"(?:@" + PART + rb")?", re.MULTILINE)

MODE = b", SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n"
MODE_OF_RESTORES = b", SQL_MODE='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES' */;\n"
LOCK = b"LOCK TABLES `"
# Lines that are looked at together with those around them: a view's definition.
HELD_BACK = (b"/*!50001 ", b"/*!50013 ", b"/*!50002 ")
FINAL_VIEW = (
    rb"^/\*!50001 DROP VIEW IF EXISTS (?:NAMES)\*/;\n"
    rb"|^/\*!50001 CREATE ALGORITHM=[^\n]*\n/\*!50013 DEFINER=[^\n]*\n/\*!50001 VIEW (?:NAMES) AS [^\n]*\n"
    rb"(?:/\*!50002 [^\n]*\n)?"
)
LOCKED = re.compile(rb"^LOCK TABLES " + NAME + rb" WRITE;\n(/\*!40000 ALTER TABLE )", re.MULTILINE)


def _end(text: bytes) -> int:
    """Where its whole lines end."""
    cut = text.rfind(b"\n") + 1
    while cut:
        last = text.rfind(b"\n", 0, cut - 1) + 1
        if not text.endswith(b"` WRITE;\n", 0, cut) and not text.startswith(HELD_BACK, last, cut):
            break
        cut = last
    return cut


class Mended:
    """Reads from `read`; `old` to `new`: the name of the database; asleep: events are made disabled, and noted there;
    own: whoever restores owns all, where the accounts of the source are not; without: views that stay what stands in
    for them until all tables are there, since what they need is not.

    The dump programs put ALTER DATABASE with the name of its source around routines whose character set is another one:
    restored beside it, a dump would change its own source. Dates that ALLOW_INVALID_DATES once let in would silently
    become zero. And no row comes into a locked table whose default is a sequence (MariaDB); nobody else is there yet.
    Views with a check option: see checked_views.py.
    """

    def __init__(
        self,
        read: t.Callable[[int], bytes],
        *,
        old: str,
        new: str,
        asleep: set[bytes] | None = None,
        own: bool = False,
        without: t.Sequence[str] = (),
    ) -> None:
        self._read, self._asleep, self._own = read, asleep, own
        names = b"|".join(re.escape(quoted(name).encode()) for name in without)
        self._without = re.compile(FINAL_VIEW.replace(b"NAMES", names), re.MULTILINE) if without else None
        self._new = quoted(new).encode()
        self._alter = re.compile(rb"^ALTER DATABASE " + re.escape(quoted(old).encode()) + rb"(?= )", re.MULTILINE)
        self._renamed, self._names = old != new, Own(old)
        self._rest = b""
        self._checked = CheckedViews()
        self._ended = self._begun = False

    def read(self, size: int) -> bytes:
        """Whole lines; b"" at the end. Raises Refused, and what the source raises."""
        while not self._ended:
            data = self._read(size)
            if not data:
                self._ended = True
                return self._mend(self._rest) + self._checked.definitions()
            whole = self._rest + data
            cut = len(whole) if len(whole) > LONGEST else _end(whole)
            self._rest = whole[cut:]
            mended = self._mend(whole[:cut]) if cut else b""
            if mended:  # nothing at all would be the end
                return mended
        return b""

    def _mend(self, text: bytes) -> bytes:
        if self._renamed:
            if b"ALTER DATABASE `" in text:
                text = self._alter.sub(lambda _found: b"ALTER DATABASE " + self._new, text)
            text = self._names.of_views(text, self._new + b".")
            text = self._names.of_sequences(text, self._new + b".")
        if not self._begun and MODE in text:
            self._begun, text = True, text.replace(MODE, MODE_OF_RESTORES, 1)
        if LOCK in text:
            text = LOCKED.sub(rb"\1", text)
        if self._asleep is not None and EVENT in text:
            heads = len(re.findall(rb"^/\*!50106 CREATE\*/ ", text, re.MULTILINE))
            self._asleep.update(found.group(2) for found in SCHEDULE.finditer(text) if found.group(3) == b"ENABLE")
            text, mended = SCHEDULE.subn(rb"\1DISABLE", text)
            if mended != heads:
                raise Refused("an event of the dump cannot be put to sleep", cure="Use drill_on: throwaway")
        if self._without and b"/*!50001 " in text:
            text = self._without.sub(b"", text)
        if self._own:
            text = RUN_AS.sub(rb"\1CURRENT_USER", text)
        return self._checked.taken_from(text)
