# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dump says beside rows: tables, views, triggers, routines, events, sequences, as sums. Rows: scanning.py.

The text of one program of one version for the same object is the same, wherever it lies, but for what is left out here:
the name of the database, and the character sets that MySQL shows of a column only where somebody has once named them.
"""

from __future__ import annotations

import re
import zlib

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
RUN_AS = "definers of "
NAMELESS = ("events", "routines")  # of the database: its name is another one where it is restored beside itself
ALTER = re.compile(rb"^ALTER DATABASE `(?:[^`]|``)+`")
PART = rb"`(?:[^`]|``)*`"
DEFINER = re.compile(rb"DEFINER=" + PART + rb"(?:@" + PART + rb")?")
CHARSET = re.compile(rb" CHARACTER SET \w+(?= COLLATE)")
COUNTER = re.compile(rb"(?<=^\) ENGINE=InnoDB) AUTO_INCREMENT=(\d+)")
EVENT = b"/*!50106 CREATE*/"
NAME = rb"`(?:[^`]|``)+`"
SCHEDULE = re.compile(
    rb"^(/\*!50106 CREATE\*/ (?:/\*!50117 DEFINER[^\n]*?\*/ )?/\*!50106 EVENT "
    rb"(" + NAME + rb")"
    rb" ON SCHEDULE [^\n]*?ON COMPLETION (?:NOT )?PRESERVE )(ENABLE|DISABLE)\b",
    re.MULTILINE,
)


class Definitions:
    """Fed with every line that is not of rows. `asleep`: events that were put to sleep on their way here."""

    def __init__(self, asleep: frozenset[bytes] = frozenset()) -> None:
        self.sums: dict[str, int] = {}
        self.counters: dict[str, int] = {}  # by table: the next AUTO_INCREMENT, where that outlives a restart
        self._asleep = asleep
        self._about = ""
        self._table = ""

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

    def _titled(self, line: bytes) -> None:
        found = TITLE.fullmatch(line)
        if found:
            kind, name = TITLES[found.group(1)], found.group(2).decode("utf-8", "backslashreplace").strip("`'")
            self._table = name if kind == "table" else ""
            self._about = kind if kind in NAMELESS else f"{kind} {name}"

    def _plain(self, line: bytes, *, body: bool) -> bytes:
        if line.startswith(b"ALTER DATABASE "):
            return ALTER.sub(b"ALTER DATABASE", line)
        if b"DEFINER=" in line and line.startswith((b"/*!50", b"CREATE ")):
            self._run_as(line)
            line = DEFINER.sub(b"DEFINER", line, count=1)
        if self._asleep and line.startswith(EVENT):
            line = SCHEDULE.sub(self._awoken, line)
        if body or not self._table:
            return line
        if line.startswith(b") ENGINE="):
            found = COUNTER.search(line)
            if found:
                self.counters[self._table] = int(found.group(1))
            return re.sub(rb" AUTO_INCREMENT=\d+", b"", line, count=1)
        return CHARSET.sub(b"", line)

    def _run_as(self, line: bytes) -> None:
        """Apart from the rest: where nobody of the source is, they are somebody else."""
        found = DEFINER.search(line)
        if found:
            about = RUN_AS + self._about
            self.sums[about] = zlib.crc32(found.group(), self.sums.get(about, 0))

    def _awoken(self, found: re.Match[bytes]) -> bytes:
        status = b"ENABLE" if found.group(2) in self._asleep else found.group(3)
        return found.group(1) + status
