# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of cures that nobody carries out: the fixes of findings. Nothing is read here."""

from __future__ import annotations

from ..._records import Server
from ..._tasks import AddKey, CreateIndex, Cure, DropIndex
from .catalog import quoted
from .indexes import TOKEN
from .structure import ROW_ID, Catalog, Text

ROW_NUMBERS = ("rowid", "oid", "_rowid_")


def spell(task: Cure, server: Server, known: Catalog | None = None) -> list[str]:
    """`known`: what was read of the file that the task is about. Nothing where nothing would help."""
    known = known or Catalog()
    if isinstance(task, DropIndex):
        return [f"DROP INDEX {quoted(task.ref.path[0])}"]
    if isinstance(task, CreateIndex):
        table = task.ref.path[0]
        taken = {text.name.lower() for text in known.texts}
        name = _free("_".join((table, *task.columns)), taken)
        return [f"CREATE INDEX {quoted(name)} ON {quoted(table)} ({', '.join(quoted(c) for c in task.columns)})"]
    return _keyed(task, known) if isinstance(task, AddKey) else []


def _free(name: str, taken: set[str]) -> str:
    names = (name, *(f"{name}_{n}" for n in range(2, len(taken) + 3)))
    return next(x for x in names if x.lower() not in taken and not x.lower().startswith("sqlite_"))


def _keyed(task: AddKey, known: Catalog) -> list[str]:
    """A table gets its key by being made anew: https://sqlite.org/lang_altertable.html#otheralter.

    The rows keep their numbers. References in views and triggers stay as they are written (legacy_alter_table).
    """
    table = task.ref.path[0]
    columns = known.columns.get(table, ())
    number = next((n for n in ROW_NUMBERS if n not in {c.name.lower() for c in columns}), "")
    own = next((text for text in known.texts if text.kind == "table" and text.name == table), None)
    if own is None or not number:
        return []
    key, new = quoted(task.column or ROW_ID), _free(f"{table}_new", {text.name.lower() for text in known.texts})
    names = ", ".join(quoted(column.name) for column in columns if not column.generated)
    beside = [text.sql for text in known.texts if text.table == table and text.kind in ("index", "trigger")]
    return [
        "-- Whoever inserts into it must name the columns from now on\nPRAGMA foreign_keys = OFF",
        "PRAGMA legacy_alter_table = ON",
        "BEGIN IMMEDIATE",
        _remade(own, new, key),
        f"INSERT INTO {quoted(new)} ({key}, {names}) SELECT {number}, {names} FROM {quoted(table)}",
        f"DROP TABLE {quoted(table)}",
        f"ALTER TABLE {quoted(new)} RENAME TO {quoted(table)}",
        *beside,
        "COMMIT",
        "PRAGMA legacy_alter_table = OFF",
    ]


def _remade(own: Text, name: str, key: str) -> str:
    """The same table by another name, with a key before its first column."""
    for found in TOKEN.finditer(own.sql):
        if found.group() == "(":
            return f"CREATE TABLE {quoted(name)} ({key} INTEGER PRIMARY KEY, {own.sql[found.end() :]}"
    return own.sql
