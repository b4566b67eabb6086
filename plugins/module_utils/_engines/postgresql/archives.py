# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archive tables: found, compared with the table that their rows come from, made and widened. No row is moved here."""

from __future__ import annotations

import typing as t

from ..._records import Ref
from ..._retention import Depot
from .names import quoted, table_name
from .session import Session
from .subject import Column, Subject, subjects

SCHEMAS = """
SELECT n.nspname::pg_catalog.text, pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       pg_catalog.has_schema_privilege(n.oid, 'CREATE')
  FROM pg_catalog.pg_namespace n
 WHERE n.nspname::pg_catalog.text = ANY (%s)
"""
THERE = """
SELECT c.oid::pg_catalog.int8, pg_catalog.has_table_privilege(c.oid, 'INSERT'),
       pg_catalog.pg_has_role(c.relowner, 'USAGE')
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s
"""
TRIGGERS = """
SELECT g.tgname::pg_catalog.text FROM pg_catalog.pg_trigger g
 WHERE g.tgrelid = %s::pg_catalog.oid AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND g.tgtype & 4 = 4
 ORDER BY 1
"""
SAME_TREE = """
SELECT pg_catalog.pg_partition_root(%s::pg_catalog.oid::pg_catalog.regclass)
     = pg_catalog.pg_partition_root(%s::pg_catalog.oid::pg_catalog.regclass)
"""
# A wider type of the same kind: every value of the first fits into each of the others, and comes back as it was.
WIDER: t.Mapping[str, tuple[str, ...]] = {
    "smallint": ("integer", "bigint", "numeric"),
    "integer": ("bigint", "numeric"),
    "bigint": ("numeric",),
    "real": ("double precision",),
    "character varying": ("text",),
}
LENGTHS = ("character varying", "bit varying")  # what does not fit is an error there, never cut off


def place(session: Session, name: str, source: Ref) -> tuple[Ref, str]:
    """Which table is meant by `name`, and why it cannot be. Without a schema: in that of the source.

    Names may have dots in them: the schema is the longest beginning that is one.
    """
    parts = name.split(".")
    splits = [(".".join(parts[:n]), ".".join(parts[n:])) for n in range(len(parts) - 1, 0, -1)]
    known = {row[0] for row in session.rows(SCHEMAS, ([schema for schema, table in splits],))} if splits else set()
    for schema, table in splits:
        if schema in known and table:
            return source._replace(path=(schema, table)), ""
    if splits and "." not in source.path[-1]:
        return source._replace(path=splits[-1]), f"there is no schema {splits[-1][0]}"
    return source._replace(path=(source.path[0], name)), ""


def depot(session: Session, source: Subject, name: str, user: str) -> Depot:
    """The archive table of a source as it is."""
    ref, why = place(session, name, source.ref(session.database))
    return Depot(ref, exists=False, why_not=why) if why else existing(session, source, ref, user)


def existing(session: Session, source: Subject, ref: Ref, user: str) -> Depot:
    """This very table as it is, as an archive of the source."""
    found = session.rows(THERE, ref.path)
    if not found:
        return Depot(ref, exists=False, why_not=_may_create(session, ref, user))
    oid, may_insert, owns = found[0]
    there = subjects(session, [oid]).get(oid)
    if there is None or there.oid == source.oid:
        return Depot(ref, exists=True, why_not="it is the table itself" if there else "it has just gone")
    missing = _missing(source, there)
    why = _related(session, source, there) or _unfit(source, there, user, bool(may_insert))
    if missing and not owns and not why:
        why = f"it lacks {missing[0][0]}, and {user} may not add columns to it"
    triggers = tuple(name for (name,) in session.rows(TRIGGERS, (oid,)))
    return Depot(ref, exists=True, missing=missing, why_not=why, triggers=triggers)


def _may_create(session: Session, ref: Ref, user: str) -> str:
    ((_schema, use, create),) = session.rows(SCHEMAS, ([ref.path[0]],))
    return "" if use and create else f"{user} may not create it: GRANT USAGE, CREATE ON SCHEMA {quoted(ref.path[0])}"


def _missing(source: Subject, there: Subject) -> tuple[tuple[str, str], ...]:
    return tuple((c.name, c.type) for c in source.columns if there.column(c.name) is None)


def _related(session: Session, source: Subject, there: Subject) -> str:
    """Rows that leave one partition would come back into another one of the same table."""
    parted = all(one.partition or one.kind == "p" for one in (source, there))
    same = parted and session.rows(SAME_TREE, (source.oid, there.oid))[0][0]
    return "both are parts of one partitioned table" if same else ""


def _unfit(source: Subject, there: Subject, user: str, may_insert: bool) -> str:
    if there.kind not in ("r", "p"):
        return "it is no table"
    if there.unlogged and not source.unlogged:
        return "it is UNLOGGED: after a crash of the server its rows would be gone"
    if not (there.may_name and may_insert and there.may_read):
        return f"{user} may not write to it: GRANT SELECT, INSERT ON {there.spelled} TO {quoted(user)}"
    if there.hidden:
        return f"row security of it holds for {user}"
    if there.insert_rule:
        return "a rule (CREATE RULE … ON INSERT) turns an INSERT into something else"
    for column in there.columns:
        why = _column_unfit(source.column(column.name), column)
        if why:
            return why
    return ""


def _column_unfit(mine: Column | None, theirs: Column) -> str:
    if mine is None:
        if theirs.not_null and not theirs.defaults:
            return f"its column {theirs.name} must be filled, and the table has none of that name"
        return ""
    if theirs.generated:
        return f"its column {theirs.name} is computed, and does not take what the table has"
    if theirs.not_null and not mine.not_null:
        return f"its column {theirs.name} must be filled, and may be NULL in the table"
    if not _takes(mine, theirs):
        return f"its column {theirs.name} is {theirs.type}, and does not take {mine.type}"
    return ""


def _takes(mine: Column, theirs: Column) -> bool:
    """Whether every value comes back as it was; numbers with fewer digits would be rounded without a word."""
    if mine.type_oid == theirs.type_oid:
        longer = mine.base in LENGTHS and -1 < mine.modifier <= theirs.modifier
        return theirs.modifier in (-1, mine.modifier) or longer
    return theirs.type in WIDER.get(mine.base, ())


# ---- the words -------------------------------------------------------------------------------------------------------


def statements(source: Subject, ref: Ref, found: Depot, date: str) -> list[str]:
    """What makes the archive table fit: made like the source, without what watches, counts or points elsewhere."""
    table = table_name(ref)
    if found.exists:
        return [f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}" for name, kind in found.missing]
    words = [f"CREATE TABLE {table} (LIKE {source.spelled})"]
    primary = next((index for index in source.indexes if index.primary), None)
    if primary and None not in primary.columns:
        columns = ", ".join(quoted(name or "") for name in primary.columns)
        words.append(f"ALTER TABLE {table} ADD PRIMARY KEY ({columns})")
    if date and not (primary and primary.columns[:1] == (date,)):
        words.append(f"CREATE INDEX ON {table} ({quoted(date)})")
    return words
