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
from .definitions import EVENT, PART, SCHEDULE
from .names import quoted

LONGEST = 32 << 20  # bytes of a line that is looked at: rows may be longer, what is mended here is not


RUN_AS = re.compile(rb"^((?:CREATE |/\*!\d{5} )[^`\n]{0,60}?DEFINER=)" + PART + rb"(?:@" + PART + rb")?", re.MULTILINE)


class Mended:
    """Reads from `read`; `old` to `new`: the name of the database; asleep: events are made disabled, and noted there;
    own: whoever restores owns all, where the accounts of the source are not.

    The dump programs put ALTER DATABASE with the name of its source around routines whose character set is another one:
    restored beside it, a dump would change its own source.
    """

    def __init__(
        self,
        read: t.Callable[[int], bytes],
        *,
        old: str,
        new: str,
        asleep: set[bytes] | None = None,
        own: bool = False,
    ) -> None:
        self._read, self._asleep, self._own = read, asleep, own
        self._new = quoted(new).encode()
        self._alter = re.compile(rb"^ALTER DATABASE " + re.escape(quoted(old).encode()) + rb"(?= )", re.MULTILINE)
        self._renamed = old != new
        self._rest = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """Whole lines; b"" at the end. Raises Refused, and what the source raises."""
        while not self._ended:
            data = self._read(size)
            if not data:
                self._ended = True
                return self._mend(self._rest)
            whole = self._rest + data
            cut = len(whole) if len(whole) > LONGEST else whole.rfind(b"\n") + 1
            self._rest = whole[cut:]
            if cut:
                return self._mend(whole[:cut])
        return b""

    def _mend(self, text: bytes) -> bytes:
        if self._renamed and b"ALTER DATABASE `" in text:
            text = self._alter.sub(lambda _found: b"ALTER DATABASE " + self._new, text)
        if self._asleep is not None and EVENT in text:
            heads = len(re.findall(rb"^/\*!50106 CREATE\*/ ", text, re.MULTILINE))
            self._asleep.update(found.group(2) for found in SCHEDULE.finditer(text) if found.group(3) == b"ENABLE")
            text, mended = SCHEDULE.subn(rb"\1DISABLE", text)
            if mended != heads:
                raise Refused("an event of the dump cannot be put to sleep", cure="Use drill_on: throwaway")
        return RUN_AS.sub(rb"\1CURRENT_USER", text) if self._own else text
