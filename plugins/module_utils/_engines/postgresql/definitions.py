# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What describes a restored database, compared with the dump: object by object, as pg_dump words both. No rows.

The server words an expression anew each time: casts move, parentheses come and go, children of a table list columns in
another order. So of each object the words count, without casts, and not their order: a changed body, comment, owner or
privilege changes words.
"""

from __future__ import annotations

import os
import re
import typing as t
import zlib

from ..._backups import Backup, Decryption
from ..._errors import Refused, Stopped
from ..._records import Tick, Work
from .clients import client, environment, private_folder, target
from .connection import Kind
from .decoding import major, restorer
from .dumping import APPLICATION, Room, judge, milliseconds
from .session import Session

SECTIONS = ("--section=pre-data", "--section=post-data", "--no-tablespaces")
HEAD = b"-- Name: "
# The place of a thing is not compared: tablespaces need not be there.
WHERE = re.compile(rb"; Tablespace: [^\n]*")
# Set where it differs from the object before; said at the end; the key of this very script.
# Who granted: a superuser, as owners are on a throwaway server, grants in the name of the object's owner.
LEFT_OUT = (
    b"--",
    b"SET SESSION AUTHORIZATION",
    b"RESET SESSION AUTHORIZATION",
    b"SET default_tablespace",
    b"SET default_table_access_method",
    b"\\restrict",
    b"\\unrestrict",
)
IDENTIFIER = rb'(?:"(?:[^"]|"")*"|[^\W\d][\w$]*)'
# Types of several words: the manual, Data Types.
CAST = re.compile(
    rb"::" + IDENTIFIER + rb"(?:\." + IDENTIFIER + rb")?"
    rb"(?: varying| precision)?(?:\(\d+(?:, ?-?\d+)?\))?(?: with(?:out)? time zone)?(?:\[\])*"
)
WORD = re.compile(rb"[\w$]+|[^\s\w()'\",;\[\]]")
SHOWN = 5
NAMED = re.compile(rb"(.*?); Type: (.*?); Schema: (.*?); Owner: ")


class Definitions:
    """Takes a script of pg_dump or pg_restore piece by piece; `found`: a sum of the words by object."""

    def __init__(self) -> None:
        self.found: dict[bytes, int] = {}
        self._rest = b""
        self._head: bytes | None = None
        self._granted: set[bytes] = set()  # by this object's privileges, whoever granted them

    def feed(self, data: bytes | bytearray, size: int = -1) -> None:
        """The first `size` bytes of it."""
        text = self._rest + bytes(data if size < 0 else memoryview(data)[:size])
        *lines, self._rest = text.split(b"\n")
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        if line.startswith(HEAD):
            self._head = WHERE.sub(b"", line[len(HEAD) :])
            self.found.setdefault(self._head, 0)
            self._granted = set()
        elif self._head is not None and line and not line.startswith(LEFT_OUT) and line not in self._granted:
            if line.startswith(b"GRANT "):
                self._granted.add(line)
            self.found[self._head] += sum(map(zlib.crc32, WORD.findall(CAST.sub(b"", line))))

    def end(self) -> None:
        self._line(self._rest)


def same(
    session: Session, backup: Backup, decrypt: Decryption | None, room: Room, name: str, *, options: t.Sequence[str]
) -> Work:
    """The database describes what the dump describes; both by the words of `options`. Raises Refused, Stopped."""
    tool = client("pg_dump", major(backup.tool.rpartition(" ")[2]), room.bin_dir)
    if tool.version != backup.tool:
        return  # even a minor version may word something otherwise
    expected, actual = Definitions(), Definitions()
    words = [*SECTIONS, *(word for word in options if word not in SECTIONS)]
    yield from _expected(session, backup, decrypt, [restorer(backup, room.bin_dir).path, *words, "--file=-"], expected)
    argv = [tool.path, *target(room.connector, name), *words, f"--lock-wait-timeout={milliseconds(room.patience)}"]
    yield from _actual(session, argv, room, backup.about, actual)
    wrong = differences(expected.found, actual.found)
    if wrong:
        raise Refused(f"what was restored is not described as backup {backup.id} describes it: {wrong}")


def _expected(
    session: Session, backup: Backup, decrypt: Decryption | None, argv: t.Sequence[str], into: Definitions
) -> Work:
    """What stands at the beginning of the dump; the rest of it need not be read once more."""
    from ..._files import reader
    from ..._files.feeding import READ_BYTES, Fed, slices

    (stored,) = (file for file in backup.files if file.what == "dump")
    with reader.opened(backup, stored, decrypt) as source:
        fed, read = Fed(argv, env={**os.environ, "LC_ALL": "C"}, take=into.feed), slices(source)
        done = None
        try:
            for data in iter(lambda: read(READ_BYTES), b""):
                if not fed.give(data):
                    break
                _assure(session)
                yield Tick()
            fed.close()
            while done is None:
                done = fed.wait(1.0)
                _assure(session)
                yield Tick()
        finally:
            fed.close()
            if done is None:
                fed.stop(0.0)
    if done.code:
        raise Refused(f"pg_restore cannot read the dump: {' '.join(done.err.split())}")
    into.end()


def _assure(session: Session) -> None:
    if session.stopped.is_set():
        raise Stopped("stopped")


def _actual(session: Session, argv: t.Sequence[str], room: Room, about: t.Mapping[str, str], into: Definitions) -> Work:
    from ..._files.feeding import Fed
    from ..._files.pipeline import ProgramFailed

    with private_folder() as folder:
        env = environment(room.connector, folder, Kind(True, room.patience), APPLICATION, about)
        fed = Fed(argv, env=env, take=into.feed)
        done = None
        try:
            fed.close()
            while done is None:
                yield Tick()
                done = fed.wait(1.0)
                _assure(session)
        finally:
            fed.stop()
    if done.code:
        raise judge(ProgramFailed("pg_dump", done.code, done.err), room)
    into.end()


def differences(expected: t.Mapping[bytes, int], actual: t.Mapping[bytes, int]) -> str:
    """In words, the first few; "" where there are none."""
    wrong = []
    for head in sorted({*expected, *actual}):
        if expected.get(head) != actual.get(head):
            found = NAMED.match(head)
            what = (
                b" ".join(p for p in (found.group(2), found.group(3), found.group(1)) if p != b"-") if found else head
            )
            how = "is another" if head in expected and head in actual else "was not there"
            how = "is not there" if head not in actual else how
            wrong.append(f"{what.decode('utf-8', 'backslashreplace')} {how}")
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return "; ".join(wrong[:SHOWN]) + more
