# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hangs from the rows of a bite, removed with them: locked from the root down, deleted from the leaves up.

A row that is locked FOR UPDATE gets no new children, and keeps its own keys: what was found stays all there is.
"""

from __future__ import annotations

import typing as t

from ..._errors import Busy, Refused
from ..._records import Ref
from ..._retention import Child, Frame
from ..._tuples import NamedTuple
from .connection import Connection
from .foreign_keys import SILENT, Edge
from .names import literal, quoted
from .removal import Removal
from .session import Session
from .subject import Subject, delete_refused, subjects

Rows = t.Sequence[t.Sequence[t.Any]]


class Held(NamedTuple):
    """Columns of locked rows, as text."""

    columns: tuple[str, ...]
    rows: Rows

    def keys(self, edge: Edge) -> str:
        """The keys that the rows of `edge` may hang by, as a FROM item called `gone`."""
        places = [self.columns.index(column) for column in edge.parent_columns]
        found = dict.fromkeys(tuple(row[place] for place in places) for row in self.rows)
        return gone(edge.parent_columns, edge.types, [key for key in found if None not in key])


def gone(columns: t.Sequence[str], types: t.Sequence[str], keys: t.Sequence[t.Sequence[str]]) -> str:
    """These values as a FROM item, constants of the columns' own types."""
    lists = [
        f"pg_catalog.unnest(ARRAY[{', '.join(literal(key[place]) for key in keys)}]::{kind}[])"
        for place, kind in enumerate(types)
    ]
    return f"ROWS FROM ({', '.join(lists)}) AS gone ({', '.join(quoted(column) for column in columns)})"


class Hanging:
    """All foreign keys that lead to the rule's table, leaf first, and what becomes of the rows behind them."""

    def __init__(
        self, session: Session, root: int, edges: t.Sequence[Edge], *, told: t.Sequence[Child], user: str
    ) -> None:
        """Raises Refused where rows of a child cannot be removed."""
        self.root, self.edges, self.database = root, edges, session.database
        self.told = {(child.table, child.name): child for child in told}
        found = subjects(session, sorted({edge.table for edge in edges})) if told else {}
        self.subjects = found
        for subject in found.values():
            why, cure = delete_refused(subject, user)
            if why:
                raise Refused(why, database=self.database, obj=str(subject.ref(self.database)), cure=cure)

    def assure_lockable(self, subject: Subject, user: str) -> None:
        """Raises Refused: FOR UPDATE needs a privilege that DELETE does not."""
        for locked in (subject, *(s for s in self.subjects.values() if self.needed(s.oid))):
            if self.matters and not locked.may_lock:
                raise Refused(
                    f"{user} may not lock its rows, and others hang from them",
                    database=self.database,
                    obj=str(locked.ref(self.database)),
                    cure=f"GRANT UPDATE ON {locked.spelled} TO {quoted(user)}",
                )

    @property
    def matters(self) -> bool:
        """Whether rows have to be locked first: to take others along, or to see that none goes silently."""
        return bool(self.told) or any(edge.action in SILENT for edge in self.edges if edge.parent == self.root)

    def needed(self, table: int) -> tuple[str, ...]:
        """Columns of a table that others hang by."""
        return tuple(dict.fromkeys(c for edge in self.edges if edge.parent == table for c in edge.parent_columns))

    def assure_alone(self, connection: Connection, held: Held) -> None:
        """Raises Busy where the server itself would remove or change rows of others without a word."""
        for edge in self.edges:
            if edge.parent == self.root and (edge.circular or not self.told) and held.rows:
                apart = self._apart(edge, held)
                keys = held.keys(edge)
                words = (
                    f"SELECT EXISTS (SELECT FROM {edge.source} AS child, {keys} WHERE {edge.matches('child', 'gone')}"
                )
                if connection.rows(f"{words}{apart})")[0][0]:
                    raise Busy(
                        f"rows of {edge.ref(self.database)} hang from due ones by now (on delete {edge.action})",
                        database=self.database,
                        cure="Run again: they are counted first",
                    )

    def _apart(self, edge: Edge, held: Held) -> str:
        """A row that hangs from itself goes with itself."""
        if edge.table != edge.parent:
            return ""
        same = " AND ".join(
            f"child.{quoted(mine)} OPERATOR({quoted(schema)}.=) child.{quoted(theirs)}"
            for mine, theirs, schema in zip(edge.columns, edge.parent_columns, edge.schemas)
        )
        return f" AND ({same}) IS NOT TRUE"

    def take(self, connection: Connection, held: Held, *, in_memory: bool) -> tuple[int, list[Frame]]:
        """Removes what hangs from the locked rows, over all levels. How many rows, and those that go into files."""
        known = {self.root: held}
        for edge in reversed(self.edges):
            if not edge.circular and self.needed(edge.table):
                self._lock(connection, edge, known)
        count, frames = 0, []
        for edge in self.edges:
            if not edge.circular and edge.parent in known and known[edge.parent].rows:
                rows, frame = self._remove(connection, edge, known[edge.parent], in_memory)
                count += rows
                frames += [frame] if frame else []
        return count, frames

    def _lock(self, connection: Connection, edge: Edge, known: dict[int, Held]) -> None:
        """Locks the rows that hang from known ones by this key, and remembers what hangs from them in turn."""
        columns, before = self.needed(edge.table), known.get(edge.table)
        known[edge.table] = before or Held(columns, [])
        above = known.get(edge.parent)
        if above is None or not above.rows:
            return
        what = ", ".join(f"child.{quoted(column)}::pg_catalog.text" for column in columns)
        words = f"SELECT {what} FROM {edge.source} AS child WHERE {self._hangs(edge, above)} FOR UPDATE"
        rows = connection.rows(words)
        known[edge.table] = Held(columns, [*known[edge.table].rows, *rows])

    def _hangs(self, edge: Edge, above: Held) -> str:
        return f"EXISTS (SELECT FROM {above.keys(edge)} WHERE {edge.matches('child', 'gone')})"

    def _remove(self, connection: Connection, edge: Edge, above: Held, in_memory: bool) -> tuple[int, Frame | None]:
        ref = edge.ref(self.database)
        child = self.told.get((ref, edge.name))
        if child is None:
            raise Busy(f"the foreign key {edge.name} of {ref} is new", database=self.database, cure="Run again")
        removal = Removal(
            self.subjects[edge.table],
            ref,
            f"{edge.source} AS child",
            "child",
            to=child.to if child.archived else None,
            in_memory=in_memory and child.archived,
        )
        return removal.run(connection, self._hangs(edge, above))


def depots(found: Hanging) -> dict[Ref, Subject]:
    """Archive tables of children, and what their rows come from."""
    names = {(edge.ref(found.database), edge.name): edge for edge in found.edges}
    return {
        child.to: found.subjects[names[key].table]
        for key, child in found.told.items()
        if child.archived and child.to is not None and key in names
    }
