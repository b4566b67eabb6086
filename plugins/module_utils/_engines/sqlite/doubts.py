# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a bite of a dead run was committed: its rows tell. And values as text, for that and for cursors.

SQLite has nothing that would tell a committed transaction from one that was rolled back. What a dead run took is not
committed when any of its rows is there still, by its key and its date. Where the key is a row number that no column
shows, VACUUM may have given it to another row: there the whole row is compared, and most of them must be there.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import typing as t

from ..._retention import Pending
from .catalog import quoted
from .connection import Session
from .shapes import Shape, Walk
from .sources import Source


class Doubts:
    """Whether bites of dead runs were committed."""

    def __init__(self, session: Session, db: sqlite3.Connection, source: Source | None) -> None:
        self.session, self.db, self.source = session, db, source

    def committed(self, pending: Pending) -> bool:
        """The first lock rolls back what a dead process left half-done. True where nobody can tell: no row is lost."""
        self.session.check()
        self.db.execute("BEGIN IMMEDIATE")
        try:
            key = self.source and self.source.shape.key()
            if self.source is None or key is None:
                return True
            unseen = hidden(self.source.shape)
            there = sum(self._there(self.source, key, text, unseen) for text in pending.keys)
            return not there if not unseen else 2 * there < len(pending.keys)
        finally:
            self.db.execute("ROLLBACK")

    def _there(self, source: Source, key: Walk, text: str, unseen: bool) -> bool:
        values = [unplain(value) for value in json.loads(text)]
        if len(values) != len(key.words) + 1 + unseen:
            return False
        asked, bound = zip(*(binding(f"key_{i}", value) for i, value in enumerate(values[: len(key.words)])))
        columns = f"{source.dates.column}, {columns_of(source.shape)}" if unseen else source.dates.column
        where = f"({', '.join(key.words)}) = ({', '.join(asked)})"
        names = {f"key_{i}": value for i, value in enumerate(bound)}
        row = self.db.execute(f"SELECT {columns} FROM {source.shape.words} WHERE {where}", names).fetchone()
        if row is None:
            return False
        found = [row[0], digest(row[1:])] if unseen else [row[0]]
        return [plain(value) for value in found] == [plain(value) for value in values[len(key.words) :]]


def columns_of(shape: Shape) -> str:
    return ", ".join(quoted(column.name) for column in shape.columns)


def hidden(shape: Shape) -> bool:
    """Whether the key is a row number that no column shows."""
    return not shape.clustered and not shape.number_column


# ---- values ----------------------------------------------------------------------------------------------------------


def plain(value: t.Any) -> t.Any:
    """As JSON has it, and the other way round; what is not Unicode travels as Python's surrogates."""
    if isinstance(value, bytes):
        return {"x": value.hex()}
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return {"f": repr(value)}
    return value


def unplain(value: t.Any) -> t.Any:
    if not isinstance(value, dict):
        return value
    return bytes.fromhex(value["x"]) if "x" in value else float(value["f"])


def digest(row: t.Sequence[t.Any]) -> str:
    return hashlib.sha256(json.dumps([plain(value) for value in row]).encode()).hexdigest()[:32]


def binding(name: str, value: t.Any) -> tuple[str, t.Any]:
    """How a value is bound: text that is no UTF-8 goes as bytes; a plus keeps the cast from lending its affinity."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"+CAST(:{name} AS TEXT)", value.encode("utf-8", "surrogateescape")
    return f":{name}", value
