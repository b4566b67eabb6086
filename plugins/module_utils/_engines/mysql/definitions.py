# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dump says beside rows: tables, views, triggers, routines, events, sequences, as sums. Rows: scanning.py.

The text of one program of one version for the same object is the same, wherever it lies, but for what is left out here:
the name of the database, and the character sets that MySQL shows of a column only where somebody has once named them.
"""

from __future__ import annotations

import re
import typing as t
import zlib

from .names import quoted
from .renaming import NAME, Own, needed

# What a section is about, by the title that the programs write before it; triggers follow the rows of their table.
TITLES = {
    b"Table structure for table": "table",
    b"Temporary table structure for view": "view",
    b"Temporary view structure for view": "view",
    b"Final view structure for view": "view",
    b"Sequence structure for": "sequence",
    b"Dumping data for table": "triggers of",
    b"Dumping events for database": "events",
    b"Dumping routines for database": "routines",
}
TITLE = re.compile(rb"-- (" + b"|".join(TITLES) + rb") (.*)\n", re.DOTALL)
LAST_WORDS = re.compile(rb"/\*M?!\d+ SET \w+=@OLD_")  # where several programs wrote, each of them has its own
VIEW = b"/*!50001 VIEW "
RUN_AS = "definers of "
NAMELESS = ("events", "routines")  # of the database: its name is another one where it is restored beside itself
ALTER = re.compile(rb"^ALTER DATABASE `(?:[^`]|``)+`")
PART = rb"`(?:[^`]|``)*`"
DEFINER = re.compile(rb"DEFINER=" + PART + rb"(?:@" + PART + rb")?")
CHARSET = re.compile(rb" CHARACTER SET \w+(?= COLLATE)")
COUNTER = re.compile(rb"(?<=^\) ENGINE=InnoDB) AUTO_INCREMENT=(\d+)")
EVENT = b"/*!50106 CREATE*/"
SCHEDULE = re.compile(
    rb"^(/\*!50106 CREATE\*/ (?:/\*!50117 DEFINER[^\n]*?\*/ )?/\*!50106 EVENT "
    rb"(" + NAME + rb")"
    rb" ON SCHEDULE [^\n]*?ON COMPLETION (?:NOT )?PRESERVE )(ENABLE|DISABLE)\b",
    re.MULTILINE,
)

STATUS = re.compile(rb"( ON COMPLETION (?:NOT )?PRESERVE )(?:ENABLE|DISABLE)\b")


class Definitions:
    """Fed with every line that is not of rows. `database`: whose they are; `asleep`: events that were put to sleep."""

    def __init__(self, database: str = "", asleep: frozenset[bytes] = frozenset()) -> None:
        self.sums: dict[str, int] = {}
        self.counters: dict[str, int] = {}  # by table: the next AUTO_INCREMENT, where that outlives a restart
        self._own, self._asleep = Own(database), asleep
        self._database, self._views = quoted(database).encode(), t.cast("dict[bytes, set[tuple[bytes, bytes]]]", {})
        self._about = self._table = ""
        self._broken_name = False  # of an event, over two lines

    def take(self, line: bytes, *, body: bool) -> None:
        """`body`: the line belongs to a routine, a trigger or an event."""
        if not body and line.startswith(b"--"):
            self._titled(line)
            return
        if not body and LAST_WORDS.match(line):
            self._about = ""
        if self._about:
            plain = self._plain(line, body=body)
            self.sums[self._about] = zlib.crc32(plain, self.sums.get(self._about, 0))

    def foreign(self) -> list[str]:
        """Views that need something of another database, be it by other views."""
        found: set[bytes] = set()
        while True:
            more = {v for v, needs in self._views.items() if any(self._is_foreign(*each, found) for each in needs)}
            if more <= found:
                return sorted(name[1:-1].replace(b"``", b"`").decode("utf-8", "backslashreplace") for name in found)
            found |= more

    def _is_foreign(self, database: bytes, name: bytes, found: t.Collection[bytes]) -> bool:
        return database not in (b"", self._database) or name in found

    def _titled(self, line: bytes) -> None:
        found = TITLE.fullmatch(line)
        if found:
            kind, name = TITLES[found.group(1)], found.group(2).decode("utf-8", "backslashreplace")
            name = name.strip("`").replace("``", "`")
            self._table = name if kind == "table" else ""
            self._about = kind if kind in NAMELESS else f"{kind} {name}"

    def _plain(self, line: bytes, *, body: bool) -> bytes:
        if line.startswith(b"ALTER DATABASE "):
            return ALTER.sub(b"ALTER DATABASE", line)
        if b"DEFINER=" in line and line.startswith((b"/*!50", b"CREATE ")):
            self._run_as(line)
            line = DEFINER.sub(b"DEFINER", line, count=1)
        if self._about == "events":
            line = self._of_event(line)
        if line.startswith(VIEW):
            self._views.update([needed(line)])
            return self._own.of_views(line, b"")
        if body or not self._table:
            return line
        if line.startswith(b") ENGINE="):
            found = COUNTER.search(line)
            if found:
                self.counters[self._table] = int(found.group(1))
            return re.sub(rb" AUTO_INCREMENT=\d+", b"", line, count=1)
        return self._own.of_sequences(CHARSET.sub(b"", line), b"")

    def _run_as(self, line: bytes) -> None:
        """Apart from the rest: where nobody of the source is, they are somebody else."""
        found = DEFINER.search(line)
        if found:
            about = RUN_AS + self._about
            self.sums[about] = zlib.crc32(found.group(), self.sums.get(about, 0))

    def _of_event(self, line: bytes) -> bytes:
        """As it was before it was put to sleep; where its name has a line break, nobody knows, and it is left out."""
        if line.startswith(EVENT):
            self._broken_name = not SCHEDULE.match(line)
            return SCHEDULE.sub(self._awoken, line) if self._asleep else line
        if self._broken_name and STATUS.search(line):
            self._broken_name = False
            return STATUS.sub(rb"\1", line, count=1)
        return line

    def _awoken(self, found: re.Match[bytes]) -> bytes:
        status = b"ENABLE" if found.group(2) in self._asleep else found.group(3)
        return found.group(1) + status
