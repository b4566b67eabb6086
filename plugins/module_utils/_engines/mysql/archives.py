# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archive tables: whether they take what a table has, how they are made, how they grow. No row is moved here.

An archive is made by one statement, so that none is ever there by halves: the source's columns and its primary key,
without what counts, refers, computes or forbids. Generated columns become plain ones that keep their values.
"""

from __future__ import annotations

import re
import typing as t

from ..._errors import Refused
from ..._records import Ref
from ..._retention import Depot
from .capabilities import MARIADB
from .connection import Link
from .names import quoted, table_of
from .old_rows import BINARY, INTEGERS
from .privileges import Grants
from .stores import PRIMARY, Field, Store, read

SCHEMAS = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
# Each takes what those before it take.
TRIGGERS = """
    SELECT TRIGGER_NAME FROM information_schema.TRIGGERS
     WHERE EVENT_OBJECT_SCHEMA = %s AND EVENT_OBJECT_TABLE = %s AND EVENT_MANIPULATION = 'INSERT'
     ORDER BY TRIGGER_NAME"""
FAMILIES = (
    ("tinytext", "text", "mediumtext", "longtext"),
    ("tinyblob", "blob", "mediumblob", "longblob"),
    ("float", "double"),
    INTEGERS,
)
CHARSETS = {
    "utf8mb4": ("utf8mb4", "utf8mb3", "utf8", "latin1", "ascii"),
    "utf8mb3": ("utf8mb3", "utf8", "latin1", "ascii"),
}
GROWING = ("char", "varchar", "varbinary", "time", "datetime", "timestamp")
_SIZE = re.compile(r"\((\d+)(?:,(\d+))?\)")


def place(link: Link, database: str, name: str) -> Ref:
    """The table that the user means: `database.table` where there is such a database, else a name as it stands."""
    first, dot, rest = name.partition(".")
    if dot and rest and (first == database or link.rows(SCHEMAS, (first,))):
        return Ref(first, (rest,))
    return Ref(database, (name,))


def look(link: Link, source: Store, to: Ref, grants: Grants) -> Depot:
    """The archive as it is, and why rows cannot go there."""
    found = read(link, to.database, [to.path[0]]).get(to.path[0])
    if found is None:
        return Depot(to, False, why_not=_no_place(link, source, to, grants))
    missing = tuple((f.name, f.type) for f in source.fields if found.field(f.name) is None)
    needed = ["INSERT", *(["ALTER"] if missing else [])]
    lacking = grants.missing(needed, to.database, to.path[0])
    why = f"the login may not: {grants.statement(lacking, to.database, to.path[0])}" if lacking else ""
    triggers = tuple(str(row[0]) for row in link.rows(TRIGGERS, (to.database, to.path[0])))
    return Depot(to, True, missing, why or trouble(source, found), triggers)


def _no_place(link: Link, source: Store, to: Ref, grants: Grants) -> str:
    if not link.rows(SCHEMAS, (to.database,)):
        return f"there is no database {to.database}, or this login may not see it: create it first"
    if source.key is None:
        return "without a key rows cannot be told apart"
    lacking = grants.missing(["CREATE", "INSERT", "SELECT"], to.database, to.path[0])
    return f"the login may not: {grants.statement(lacking, to.database, to.path[0])}" if lacking else ""


def trouble(source: Store, found: Store) -> str:
    """Why a table that is there does not take the source's rows as they are."""
    if found.ref == source.ref:
        return "it is the table itself"
    if not found.transactional or found.type != "BASE TABLE":
        return f"it is no table with transactions ({found.engine or found.type.lower()})"
    for field in source.fields:
        other = found.field(field.name)
        if other is not None and other.generated and other.computed != field.computed:
            return f"its column {other.name} is computed, and does not take what the table has"
        if other is not None and not other.generated and not takes(field, other):
            return f"its column {other.name} ({_said(other)}) does not take {_said(field)}"
    for other in found.fields:
        counts = "auto_increment" in other.extra.lower()
        if source.field(other.name) is None and not (
            other.nullable or other.default is not None or other.generated or counts
        ):
            return f"its column {other.name} has no default, and the table has none of that name"
    return ""


def _said(field: Field) -> str:
    charset = f" {field.charset}" if field.charset else ""
    return f"{field.type}{charset}{'' if field.nullable else ' NOT NULL'}"


def takes(source: Field, into: Field) -> bool:
    """Whether a column holds every value of another one, unchanged."""
    if source.nullable and not into.nullable:
        return False
    if into.charset != source.charset and source.charset not in CHARSETS.get(into.charset, ()):
        return False
    if _bare(into) == _bare(source):
        return True
    return _wider(into, source)


def _bare(field: Field) -> str:
    """Without the width in which older servers show whole numbers."""
    text = re.sub(r"/\*.*?\*/", "", field.type.lower()).strip()
    return re.sub(r"\(\d+\)", "", text, count=1).replace(" zerofill", "") if field.data_type in INTEGERS else text


def _wider(field: Field, other: Field) -> bool:
    unsigned = [("unsigned" in f.type.lower()) for f in (field, other)]
    if unsigned[0] != unsigned[1]:
        return False
    if field.data_type != other.data_type:
        return any(
            field.data_type in x and other.data_type in x and x.index(field.data_type) > x.index(other.data_type)
            for x in FAMILIES
        )
    (size, scale), (of, some) = _sizes(field.type), _sizes(other.type)
    if field.data_type == "decimal":
        return scale >= some and size - scale >= of - some
    return field.data_type in GROWING and size >= of


def _sizes(column_type: str) -> tuple[int, int]:
    found = _SIZE.search(column_type)
    return (int(found.group(1)), int(found.group(2) or 0)) if found else (0, 0)


# ---- words -----------------------------------------------------------------------------------------------------------


def create_sql(source: Store, to: Ref, date: str, flavour: str) -> str:
    """One statement: rows are there with it, or it is not there."""
    primary = next((x.columns for x in source.indexes if x.name == PRIMARY), None)
    key = primary or tuple((c, None) for c in (source.key.columns if source.key else ()))
    parts = [_definition(f) for f in source.fields]
    if key:
        parts.append("PRIMARY KEY (" + ", ".join(quoted(c) + (f"({size})" if size else "") for c, size in key) + ")")
    if date and (not key or key[0][0] != date):
        parts.append(f"KEY ({quoted(date)})")
    options = " ENGINE=InnoDB"
    if re.search(r"encrypt(ion|ed)=\W?y", source.options):
        options += " ENCRYPTED=YES" if flavour == MARIADB else " ENCRYPTION='Y'"
    return f"CREATE TABLE {table_of(to)} ({', '.join(parts)}){options}"


def _definition(field: Field, *, null: bool = False) -> str:
    charset = (
        f" CHARACTER SET {field.charset} COLLATE {field.collation}" if field.charset and field.kind != BINARY else ""
    )
    if field.data_type == "json" or field.data_type in ("uuid", "inet4", "inet6"):
        charset = ""
    optional = null or field.nullable or field.generated
    return f"{quoted(field.name)} {field.type}{charset} {'NULL' if optional else 'NOT NULL'}"


def grow_sql(source: Store, to: Ref, missing: t.Iterable[str]) -> list[str]:
    """Rows that were archived before have no value there."""
    fields = [f for f in source.fields if f.name in set(missing)]
    if not fields:
        return []
    adds = ", ".join(f"ADD COLUMN {_definition(f, null=True)}" for f in fields)
    return [f"ALTER TABLE {table_of(to)} {adds}"]


def ready(link: Link, source: Store, to: Ref, date: str) -> Store:
    """Makes the archive, or adds what the source has got since; before any transaction. Raises Refused, Busy."""
    found = read(link, to.database, [to.path[0]]).get(to.path[0])
    if found is None:
        words = [create_sql(source, to, date, link.flavour.name)]
    else:
        words = grow_sql(source, to, [f.name for f in source.fields if found.field(f.name) is None])
    for statement in words:
        link.run(statement, obj=str(to))
    found = read(link, to.database, [to.path[0]]).get(to.path[0])
    why = trouble(source, found) if found else "it cannot be seen"
    if found is None or why:
        raise Refused(f"rows cannot go to {to}: {why}", database=source.ref.database, obj=str(source.ref))
    return found
