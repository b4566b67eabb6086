# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a dump of SQL to its end, at the speed of its writing: is it whole, and what is in it? Knows no file.

What is relied on: mysqldump and mariadb-dump write each row's line breaks as `\\n`, so that a line break inside of the
data is always their own; and each table's rows between LOCK TABLES and UNLOCK TABLES.
"""

from __future__ import annotations

import re
import typing as t
import zlib

from ..._errors import Refused
from ..._tuples import NamedTuple
from .definitions import Definitions

TRAILER = b"-- Dump completed"
LOCK = re.compile(rb"LOCK TABLES (`(?:[^`]|``)+`) WRITE;\n")
POSITION = re.compile(rb"-- CHANGE MASTER TO MASTER_LOG_FILE='([^']+)', MASTER_LOG_POS=(\d+);\n")
GTID = re.compile(rb"-- SET GLOBAL gtid_slave_pos='([^']*)';\n")
END_OF_ROWS = b");\n"
SEMICOLONS = 64  # in one piece of text, that are looked at one by one
STRING = re.compile(rb"'[^'\\]*(?:\\.[^'\\]*)*(?:'|\Z)", re.DOTALL)
REST_OF_STRING = re.compile(rb"[^'\\]*(?:\\.[^'\\]*)*'", re.DOTALL)
LONGEST_LINE = 16 << 20  # bytes, outside of rows: a routine's line, a table's definition


class Content(NamedTuple):
    """What a dump holds, as far as its text tells."""

    rows: dict[str, int]  # by table
    sums: dict[str, int]  # CRC-32 of each table's rows as they are written
    position: str = ""  # in the binary log: file and offset
    gtid: str = ""
    definitions: t.Mapping[str, int] = {}  # CRC-32 of what else is there, by what it is about
    counters: t.Mapping[str, int] = {}  # by table: the next AUTO_INCREMENT
    longest: int = 0  # bytes of the longest statement that has rows
    foreign: t.Sequence[str] = ()  # views that need another database


class Scanner:
    """A Tap: fed with the dump piece by piece, it raises Refused as soon as the text cannot be a whole dump."""

    def __init__(
        self,
        database: str = "",
        *,
        trailer: bool = True,
        asleep: frozenset[bytes] = frozenset(),
        compared: t.Container[str] = frozenset(),
    ) -> None:
        """`database`: whose dump it is; `asleep`: names of events that were put to sleep before; `compared`: tables
        whose checksums somebody compares with those of a dump whose lines were looked at: they are the same lines."""
        self._trailer, self._compared = trailer, compared
        self._definitions = Definitions(database, asleep)
        self._rest = b""
        self._table: bytes | None = None  # between LOCK TABLES and UNLOCK TABLES
        self._body = False  # between DELIMITER ;; and DELIMITER ;
        self._rows: _Rows | None = None  # inside an INSERT
        self._last = b""
        self.content = Content({}, {})

    def feed(self, data: bytes) -> None:
        """The next piece. Raises Refused."""
        cut = 0
        if self._rest and not (self._rows and not self._rows.by_line):
            # Only the line that was begun is put together: copying all would cost as much as looking at it.
            cut = data.find(b"\n") + 1
            self._take(self._rest + data[:cut])
        self._take(self._rest + data[cut:] if self._rest else data, 0 if self._rest else cut)
        if not self._rows and len(self._rest) > LONGEST_LINE:
            raise _broken(f"a line of it has more than {LONGEST_LINE:,} bytes")

    def _take(self, text: bytes, at: int = 0) -> None:
        while at < len(text):
            step = self._in_rows(text, at) if self._rows else self._in_text(text, at)
            if step == at:
                break
            at = step
        self._rest = text[at:]

    def end(self) -> None:
        """That was all. Raises Refused where the dump ends before its end."""
        if self._rows:
            raise _broken(f"it ends in the middle of the rows of {self._name()}")
        if self._table is not None:
            raise _broken(f"the rows of {self._name()} have no end")
        if self._body:
            raise _broken("it ends in the middle of a routine, a trigger or an event")
        last = self._rest or self._last
        if self._trailer and not last.startswith(TRAILER):
            raise _broken(f"its last line is not {TRAILER.decode()}")
        found = self._definitions
        self.content = self.content._replace(definitions=found.sums, counters=found.counters, foreign=found.foreign())

    def _name(self) -> str:
        return _plain(self._table) if self._table else ""

    # ---- structure: line by line ----

    def _in_text(self, text: bytes, at: int) -> int:
        if self._table is not None and not self._body and text.startswith(b"INSERT INTO `", at):
            return self._inserting(text, at)  # of which one line may be longer than all that fits in memory
        end = text.find(b"\n", at)
        if end < 0:
            return at
        line = text[at : end + 1]
        body = self._body
        if self._body:
            self._body = line != b"DELIMITER ;\n"
        elif line.startswith(b"LOCK TABLES `"):
            return self._locked(text, at)
        elif line == b"UNLOCK TABLES;\n":
            self._table = None
        elif line.startswith(b"DELIMITER ;;"):
            self._body = True
        else:
            self._told(line)
        if line.strip():
            self._last = line
            self._definitions.take(line, body=body)
        return end + 1

    def _locked(self, text: bytes, at: int) -> int:
        """The name of a table may have line breaks of its own."""
        found = LOCK.match(text, at)
        if not found:
            return at
        if self._table is not None:
            raise _broken(f"the rows of {self._name()} have no end")
        self._table = found.group(1)
        self.content.rows.setdefault(self._name(), 0)
        self.content.sums.setdefault(self._name(), 0)
        self._last = b""
        return found.end()

    def _inserting(self, text: bytes, at: int) -> int:
        """`INSERT INTO t VALUES` and a line break, where each row has a line of its own; else all of it is one line."""
        head = b"INSERT INTO " + (self._table or b"")
        first = text.find(b" VALUES", at + len(head))
        if len(text) < at + len(head) or first < 0 or len(text) < first + 8:
            if len(text) - at > LONGEST_LINE:
                raise _broken(f"an INSERT into {self._name()} has no end")
            return at
        if not text.startswith(head, at):
            raise _broken(f"there are rows of another table among those of {self._name()}")
        by_line = text[first + 7 : first + 8] == b"\n"
        name = self._name()
        self._rows = _Rows(by_line=by_line, checksum=self.content.sums[name], compared=name in self._compared)
        return first + 8

    def _told(self, line: bytes) -> None:
        if not line.startswith(b"-- "):
            return
        position, gtid = POSITION.match(line), GTID.match(line)
        if position:
            self.content = self.content._replace(position=f"{position.group(1).decode()} {position.group(2).decode()}")
        elif gtid:
            self.content = self.content._replace(gtid=gtid.group(1).decode())

    # ---- rows: in bulk ----

    def _in_rows(self, text: bytes, at: int) -> int:
        rows = self._rows
        if rows is None:
            return at
        end = _end_of_rows(text, at)
        if end < 0:
            # Whole lines, or all but what the end may begin with.
            cut = text.rfind(b"\n", at) + 1 if rows.by_line else len(text) - len(END_OF_ROWS)
            if cut > at:
                rows.take(text, at, cut)
            return max(at, cut)
        end += len(END_OF_ROWS)
        rows.take(text, at, end)
        if rows.size > self.content.longest:
            self.content = self.content._replace(longest=rows.size)
        name, self._rows = self._name(), None
        self.content.rows[name] += rows.finish(name)
        self.content.sums[name] = rows.checksum
        self._last = END_OF_ROWS
        return end


class _Rows:
    """The rows of one INSERT: what stands after VALUES, with the line break that ends the statement."""

    def __init__(self, *, by_line: bool, checksum: int, compared: bool = False) -> None:
        self.by_line, self.checksum, self._compared = by_line, checksum, compared
        self.size = 0
        self._lines = self._ended = 0  # lines, and those that end as a row does
        self._carried = b""
        self._outside = b"  "  # the end of what stands outside of strings
        self._string = False  # the last piece ended inside of one
        self._between = 0

    def take(self, text: bytes, at: int, end: int) -> None:
        """That part of the text; whole lines, where each row has its own."""
        self.checksum = zlib.crc32(memoryview(text)[at:end], self.checksum)
        self.size += end - at
        if not self.by_line:
            self._strip(text[at:end])
            return
        self._lines += text.count(b"\n", at, end)
        if not self._compared:
            self._ended += text.count(b"),\n", at, end) + text.endswith(END_OF_ROWS, at, end)

    def finish(self, name: str) -> int:
        """How many rows there were. Raises Refused where the text is not made of rows."""
        if self.by_line:
            if not self._compared and self._lines != self._ended:
                raise _broken(f"the rows of {name} are damaged")
            return self._lines
        if self._string or self._carried or not self._outside.endswith(b");"):
            raise _broken(f"the rows of {name} are damaged")
        return self._between + 1

    def _strip(self, data: bytes) -> None:
        """Counts what stands between two rows, `),(`: outside of strings."""
        data = self._carried + data
        odd = (len(data) - len(data.rstrip(b"\\"))) % 2
        self._carried, data = (b"\\", data[:-1]) if odd else (b"", data)
        if self._string:
            rest = REST_OF_STRING.match(data)
            if not rest:
                return
            data, self._string = data[rest.end() :], False
        if b"'" in data:
            pairs = data.replace(b"\\\\", b"")
            self._string = bool((pairs.count(b"'") - pairs.count(b"\\'")) % 2)
            data = STRING.sub(b"", data)
        # With their history, rows are written on lines of their own but for the first.
        outside = self._outside[-2:] + data.replace(b"\n", b"")
        self._between += outside.count(b"),(")
        self._outside = outside[-2:]


def _end_of_rows(text: bytes, at: int) -> int:
    """As text.find(END_OF_ROWS, at). Python looks for one sign ten times as fast as for several: where semicolons are
    rare, that is most of the work."""
    for _each in range(SEMICOLONS):
        found = text.find(b";", at + 1)
        if found < 0:
            return -1
        if text.startswith(END_OF_ROWS, found - 1):
            return found - 1
        at = found
    return text.find(END_OF_ROWS, at)


def _plain(name: bytes) -> str:
    return name[1:-1].replace(b"``", b"`").decode("utf-8", "backslashreplace")


def _broken(why: str) -> Refused:
    return Refused(f"the dump is not whole: {why}", cure="Do not count on this backup: take another one")
