# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hangs from a table by foreign keys, over all levels, and the words that find such rows. No row is read here.

Foreign keys are enforced by connections, not by files (PRAGMA foreign_keys, off by default): whatever the application's
do, rows that hang from others count as children here.
"""

from __future__ import annotations

import sqlite3
import typing as t

from ..._records import Ref
from ..._retention import Child
from ..._tuples import NamedTuple
from . import shapes
from .catalog import quoted
from .shapes import Shape

_KEYS = """
SELECT m.name, f.id, f."table", f."from", f."to", f.on_delete
  FROM main.sqlite_schema AS m, pragma_foreign_key_list(m.name, 'main') AS f
 WHERE m.type = 'table' AND m.rootpage > 0
 ORDER BY m.name, f.id, f.seq
"""


class Key(NamedTuple):
    """A foreign key."""

    child: str
    columns: tuple[str, ...]
    parent: str  # as it is written, which need not be its case
    parent_columns: tuple[str, ...]  # empty: its primary key
    action: str
    number: int


class Hanging(NamedTuple):
    """A child with what both tables are made of."""

    child: Child
    shape: Shape
    parent: Shape

    def hangs(self, condition: str) -> str:
        """The condition on the child for rows that hang from those of the parent for which `condition` holds."""
        child = self.child
        # Foreign keys compare by the parent's collation: https://sqlite.org/foreignkeys.html#fk_basics
        pairs = zip(child.columns, child.parent_columns)
        left = ", ".join(f"{quoted(c)} COLLATE {self.parent.collation(p)}" for c, p in pairs)
        columns = ", ".join(quoted(p) for p in child.parent_columns)
        return f"({left}) IN (SELECT {columns} FROM {self.parent.words} WHERE {condition})"


class Family:
    """A table and all that hangs from it, leaf first. Raises nothing: what cannot be walked says so when it is due."""

    def __init__(self, db: sqlite3.Connection, database: str, root: Shape) -> None:
        self.root, self.hanging = root, list[Hanging]()
        self._db, self._database = db, database
        self._keys: dict[str, list[Key]] = {}
        for key in _keys(db):
            self._keys.setdefault(key.parent.lower(), []).append(key)
        self._shapes = {root.name: root}
        self._done: list[str] = []
        self._visit(root, ())
        self.hanging.sort(key=lambda h: self._done.index(h.shape.name))

    def _visit(self, parent: Shape, path: tuple[str, ...]) -> None:
        path = (*path, parent.name)
        for key in self._keys.get(parent.name.lower(), ()):
            shape = self._shape(key.child)
            circular = key.child in path
            if not circular and key.child not in self._done:
                self._visit(shape, path)
            self.hanging.append(self._hanging(key, shape, parent, circular))
        self._done.append(parent.name)

    def _shape(self, name: str) -> Shape:
        if name not in self._shapes:
            sql = self._db.execute("SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?", (name,))
            self._shapes[name] = shapes.read(self._db, name, sql.fetchone()[0])
        return self._shapes[name]

    def _hanging(self, key: Key, shape: Shape, parent: Shape, circular: bool) -> Hanging:
        own = sorted((c for c in parent.columns if c.key), key=lambda c: c.key)
        targets = key.parent_columns or tuple(c.name for c in own)
        walk = shape.key()
        child = Child(
            table=Ref(self._database, (shape.name,)),
            columns=key.columns,
            parent=Ref(self._database, (parent.name,)),
            parent_columns=targets,
            action=key.action.lower(),
            indexed=_serves(shape, key.columns),
            name=str(key.number),
            circular=circular,
            walk=walk.names if walk else (),
        )
        return Hanging(child, shape, parent)

    @property
    def tables(self) -> list[Shape]:
        """Leaf first, the root last; each once."""
        return [self._shapes[name] for name in self._done]

    def due(self, root: str) -> list[tuple[Hanging, str]]:
        """Each foreign key with the condition on its table for rows that hang from rows for which `root` holds.

        A row that hangs by two of them counts with the first.
        """
        sets: dict[str, list[str]] = {self.root.name: [root]}
        out: dict[Hanging, str] = {}
        for parent in reversed(self.tables):
            of_parent = " OR ".join(f"({one})" for one in sets.get(parent.name, []))
            for one in (h for h in self.hanging if h.parent.name == parent.name and of_parent):
                hangs = one.hangs(of_parent)
                earlier = sets.setdefault(one.shape.name, []) if not one.child.circular else []
                out[one] = " AND ".join([f"({hangs}) IS TRUE", *(f"({e}) IS NOT TRUE" for e in earlier)])
                earlier.append(hangs)
        return [(one, out[one]) for one in self.hanging if one in out]


def _keys(db: sqlite3.Connection) -> t.Iterator[Key]:
    grouped: dict[tuple[str, int], list[tuple[t.Any, ...]]] = {}
    for row in db.execute(_KEYS):
        grouped.setdefault((row[0], row[1]), []).append(row)
    for (child, number), rows in grouped.items():
        targets = tuple(row[4] for row in rows if row[4])
        yield Key(child, tuple(row[3] for row in rows), rows[0][2], targets, rows[0][5], number)


def _serves(shape: Shape, columns: tuple[str, ...]) -> bool:
    """Whether an index begins with these columns; the row number is the table's own order."""
    wanted = {c.lower() for c in columns}
    if wanted == {shape.number_column.lower()}:
        return True
    starts = [{c.lower() for c in index.columns[: len(columns)]} for index in shape.indexes if not index.partial]
    return wanted in starts
