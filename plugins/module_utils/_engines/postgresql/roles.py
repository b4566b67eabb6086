# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles and tablespaces restored from what pg_dumpall wrote: those that are missing, and what belongs to them."""

from __future__ import annotations

import re
import typing as t

from ..._backups import Backup, Decryption
from ..._errors import Refused
from ..._records import Finding, Ref, Tick, Work
from .connection import Connection
from .dumped_rows import NAME, STATEMENT
from .session import Session

THERE = """
SELECT 'ROLE', r.rolname::pg_catalog.text FROM pg_catalog.pg_roles r
UNION ALL SELECT 'TABLESPACE', s.spcname::pg_catalog.text FROM pg_catalog.pg_tablespace s
"""
BEFORE = re.compile(r"\A(?:\s|--[^\n]*\n|\\[^\n]*\n)*")
ABOUT = tuple(
    re.compile(expression.replace("NAME", f"({NAME})"), re.DOTALL)
    for expression in (
        r"(CREATE|ALTER) (ROLE|TABLESPACE) NAME[\s;]",
        r"COMMENT (ON) (ROLE|TABLESPACE) NAME[\s;]",
        r"(?:GRANT|REVOKE) .* (ON) (TABLESPACE) NAME ",
        r"SECURITY LABEL FOR .*? (ON) (ROLE|TABLESPACE) NAME IS ",
    )
)
# Of other roles, or the right to set a parameter (since 15).
MEMBER = re.compile(f"GRANT (?:{NAME}|[A-Z, ]+ ON PARAMETER {NAME}) TO ({NAME})", re.DOTALL)
LABEL = "SECURITY LABEL "
MOST = 64 << 20  # bytes of such a file: the words of some hundred thousand roles


def restore(session: Session, backup: Backup, decrypt: Decryption | None) -> Work:
    """What is there stays as it is, its password too. Raises Refused, MissingMeans, what the server says."""
    if backup.method != "globals" or backup.engine != "postgresql":
        raise Refused(f"backup {backup.id} holds no roles of PostgreSQL")
    yield from replay(session.worker(lock_timeout=session.lock_timeout), backup, decrypt)


def replay(worker: Connection, backup: Backup, decrypt: Decryption | None, *, drill: bool = False) -> Work:
    """`drill`: where neither folders are there nor libraries."""
    there: set[tuple[str, str]] = set(worker.rows(THERE))
    for kind, words in missing(_text(backup, decrypt), there):
        if drill and (kind == "TABLESPACE" or words.startswith(LABEL)):
            continue
        try:
            worker.rows(words)
        except Refused as fault:
            if not (words.startswith(LABEL) and "is not loaded" in fault.cause):
                raise
            yield Tick(found=_unlabelled(words, fault))
        yield Tick()


def _unlabelled(words: str, fault: Refused) -> Finding:
    message = f"a security label was not restored: {fault.cause}"
    return Finding(2, "labels_not_restored", Ref(""), message, fix=f"Load its library, and: {words}")


def missing(text: bytes, there: set[tuple[str, str]]) -> t.Iterator[tuple[str, str]]:
    """Of what kind, and the statements that make what is not there yet."""
    made: set[tuple[str, str]] = set()
    at = 0
    found = STATEMENT.match(text, at)
    while found:
        words, at = found.group().decode("utf-8", "surrogateescape"), found.end()
        words = BEFORE.sub("", words, count=1)
        what = next((m for m in (each.match(words) for each in ABOUT) if m), None)
        if what:
            key = (what.group(2), plain(what.group(3)))
            if what.group(1) == "CREATE" and key not in there:
                made.add(key)
            if key in made:
                yield what.group(2), words
        else:
            member = MEMBER.match(words)
            if member and ("ROLE", plain(member.group(1))) in made:
                yield "ROLE", words
        found = STATEMENT.match(text, at)


def plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _text(backup: Backup, decrypt: Decryption | None) -> bytes:
    from ..._files import reader

    (stored,) = (x for x in backup.files if x.what == "globals")
    text = bytearray()
    with reader.opened(backup, stored, decrypt) as source:
        for data in iter(lambda: source.read(1 << 20), b""):
            text += data
            if len(text) > MOST:
                raise Refused(f"backup {backup.id} is too large to hold roles")
    return bytes(text)
