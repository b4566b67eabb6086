# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of cures that nobody carries out: the fixes of findings. Nothing is read here."""

from __future__ import annotations

import re
import typing as t

from ..._records import Ref, Server
from ..._tasks import AddKey, ConvertEngine, CreateIndex, Cure, DropIndex, EndPrepared, EndSession, Widen
from .foreign_keys import Reference
from .names import quoted, table_of
from .structure import LAST_OF_SEQUENCES, ROW_ID, Catalog, Column

Node = tuple[Ref, str]  # a table's column
ONLINE = ", ALGORITHM=INPLACE, LOCK=NONE"


def spell(task: Cure, server: Server, known: Catalog | None = None) -> list[str]:
    """`known`: what was read of the database that the task is about. Nothing where nothing would help."""
    known = known or Catalog()
    if isinstance(task, DropIndex):
        return [f"ALTER TABLE {table_of(task.table)} DROP INDEX {quoted(task.ref.path[-1])}{_how(task.table, known)}"]
    if isinstance(task, CreateIndex):
        columns = ", ".join(quoted(name) for name in task.columns)
        return [f"ALTER TABLE {table_of(task.ref)} ADD INDEX ({columns}){_how(task.ref, known)}"]
    if isinstance(task, EndSession):
        return [f"KILL {task.id}"]
    if isinstance(task, EndPrepared):
        return [f"XA ROLLBACK {task.name}"]
    if isinstance(task, ConvertEngine):
        return [f"ALTER TABLE {table_of(task.ref)} ENGINE = InnoDB"]
    if isinstance(task, AddKey):
        return [_key(task, known)]
    return _widened(task, known) if isinstance(task, Widen) else []


def _how(table: Ref, known: Catalog) -> str:
    """InnoDB refuses where it could not do so while others write; other engines know only one way."""
    return "" if table.path[0] in known.copied else ONLINE


def _key(task: AddKey, known: Catalog) -> str:
    """A column that counts, hidden from `SELECT *` and from INSERTs without a list of columns."""
    table, beside = task.ref.path[0], known.partitioned_by.get(task.ref.path[0], ())
    own = [name for (of, name), column in known.columns.items() if of == table and column.counts]
    if own:  # a table may have one such column
        columns = ", ".join(quoted(name) for name in dict.fromkeys((*own, *beside)))
        return f"ALTER TABLE {table_of(task.ref)} ADD PRIMARY KEY ({columns})"
    name = task.column or ROW_ID
    columns = ", ".join(quoted(part) for part in (name, *beside))
    column = f"{quoted(name)} bigint unsigned NOT NULL AUTO_INCREMENT INVISIBLE FIRST"
    return f"ALTER TABLE {table_of(task.ref)} ADD COLUMN {column}, ADD PRIMARY KEY ({columns})"


# ---- a larger type ---------------------------------------------------------------------------------------------------


def _widened(task: Widen, known: Catalog) -> list[str]:
    """A column's type changes together with that of all columns that refer to it: their foreign keys go meanwhile."""
    sequence = task.sequence or task.ref
    if not task.column and sequence.path[0] in known.ends:
        grows = known.ends[sequence.path[0]] < LAST_OF_SEQUENCES
        return [f"ALTER SEQUENCE {table_of(sequence)} MAXVALUE {LAST_OF_SEQUENCES}"] if grows else []
    own = known.columns.get((task.ref.path[0], task.column))
    kind = wider(own.type) if own else ""
    together = _together((task.ref, task.column), known.references)
    definitions = {node: known.columns.get((node[0].path[0], node[1])) for node in together}
    strange = any(
        column is None or "GENERATED" in column.extra.upper().replace("DEFAULT_GENERATED", "") or node[0].partition
        for node, column in definitions.items()
    )
    if not kind or strange or any(table.database != task.ref.database for table, name in together):
        return []
    touched = [x for x in known.references if together & {*_ends(x, parent=False), *_ends(x, parent=True)}]
    changes: dict[Ref, list[str]] = {}
    for (table, name), column in definitions.items():
        if column is not None:
            changes.setdefault(table, []).append(f"MODIFY {_definition(name, kind, column)}")
    drops = _by_table((x.key.table, f"DROP FOREIGN KEY {quoted(x.key.name)}") for x in touched)
    adds = _by_table((x.key.table, f"ADD {_constraint(x)}") for x in touched)
    return [*_altered(drops), *_altered(changes), *_altered(adds)]


def wider(column_type: str) -> str:
    """The type that holds more; nothing where there is none."""
    unsigned, filled = "unsigned" in column_type, " zerofill" if "zerofill" in column_type else ""
    if not column_type.startswith("bigint"):
        return ("bigint unsigned" if unsigned else "bigint") + filled
    return "" if unsigned else "bigint unsigned" + filled


def _ends(reference: Reference, *, parent: bool) -> list[Node]:
    key = reference.key
    if parent:
        return [(key.parent, name) for name in key.parent_columns]
    return [(key.table, name) for name in key.columns]


def _together(start: Node, references: t.Sequence[Reference]) -> set[Node]:
    """The columns that foreign keys tie to this one, over however many tables."""
    found, fresh = {start}, [start]
    while fresh:
        node = fresh.pop()
        for reference in references:
            for child, parent in zip(_ends(reference, parent=False), _ends(reference, parent=True)):
                other = parent if child == node else child if parent == node else None
                if other is not None and other not in found:
                    found.add(other)
                    fresh.append(other)
    return found


def _by_table(pairs: t.Iterable[tuple[Ref, str]]) -> dict[Ref, list[str]]:
    found: dict[Ref, list[str]] = {}
    for table, words in pairs:
        found.setdefault(table, []).append(words)
    return found


def _altered(changes: t.Mapping[Ref, t.Sequence[str]]) -> t.Iterator[str]:
    for table, words in sorted(changes.items()):
        yield f"ALTER TABLE {table_of(table)} {', '.join(words)}"


def _definition(name: str, kind: str, column: Column) -> str:
    """All that the column is, with another type: MODIFY forgets what is not repeated."""
    extra = column.extra.upper()
    words = [quoted(name), kind, "NULL" if column.nullable else "NOT NULL"]
    if column.default is not None and not column.counts:
        words.append(f"DEFAULT {_default(column)}")
    words += ["AUTO_INCREMENT"] if column.counts else []
    words += ["INVISIBLE"] if "INVISIBLE" in extra else []
    words += [f"COMMENT {_literal(column.comment)}"] if column.comment else []
    words += [f"CHECK ({column.check})"] if column.check else []
    return " ".join(words)


def _default(column: Column) -> str:
    """MariaDB shows an expression, MySQL a bare value unless it says that it generates the default."""
    text = column.default or ""
    if "DEFAULT_GENERATED" in column.extra.upper():
        return f"({text})"
    return text if text.upper() == "NULL" or re.fullmatch(r"-?\d+", text) else f"({text})"


def _constraint(reference: Reference) -> str:
    key = reference.key
    child, parent = (", ".join(quoted(n) for n in names) for names in (key.columns, key.parent_columns))
    rules = "".join(
        f" ON {event} {rule}"
        for event, rule in (("DELETE", reference.on_delete), ("UPDATE", reference.on_update))
        if rule not in ("NO ACTION", "RESTRICT")
    )
    return f"CONSTRAINT {quoted(key.name)} FOREIGN KEY ({child}) REFERENCES {table_of(key.parent)} ({parent}){rules}"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
