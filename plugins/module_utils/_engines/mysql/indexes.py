# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes as the dictionary describes them: definitions, sizes, scans, who needs them. Their bloat is elsewhere.

A few queries a database, however many tables it has. The size of an InnoDB primary key is that of the table's rows.
"""

from __future__ import annotations

import contextlib
import re
import typing as t
from collections import defaultdict
from datetime import datetime, timedelta, timezone

from ..._errors import DbFault, Refused
from ..._records import Ref, Server, Wants
from ..._structure import Index
from ..._tuples import NamedTuple
from .connection import Link
from .names import place, quoted

# Altering a table, be it to add an index, begins the counters of its uses anew. The time costs MariaDB more to tell.
TABLES = """
    SELECT TABLE_NAME, CREATE_OPTIONS, {made}
      FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"""
# CARDINALITY is left out: it alone makes the server open each table.
PARTS = """
    SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, COLLATION, NON_UNIQUE, INDEX_TYPE, {expression}, {visible}
      FROM information_schema.STATISTICS
     WHERE TABLE_SCHEMA = %s{only}
     ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"""
SIZES = """
    SELECT table_name, index_name, stat_value
      FROM mysql.innodb_index_stats
     WHERE database_name = %s AND stat_name = 'size'"""
ROWS = "SELECT table_name, n_rows FROM mysql.innodb_table_stats WHERE database_name = %s"
FOREIGN_KEYS = """
    SELECT CONSTRAINT_NAME, TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME,
           REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME
      FROM information_schema.KEY_COLUMN_USAGE
     WHERE {whose} AND REFERENCED_TABLE_NAME IS NOT NULL
     ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION"""
OURS, OTHERS = "TABLE_SCHEMA = %s", "REFERENCED_TABLE_SCHEMA = %s AND TABLE_SCHEMA <> %s"
# MariaDB opens every table, of all databases for OTHERS, to answer that: not where there is nothing to be told.
ANY_FOREIGN_KEYS = "SELECT FOR_NAME, REF_NAME FROM information_schema.INNODB_SYS_FOREIGN"
# Rows fetched, and changed, through each index.
SCANS = """
    SELECT OBJECT_NAME, INDEX_NAME, COUNT_STAR
      FROM performance_schema.table_io_waits_summary_by_index_usage
     WHERE OBJECT_TYPE = 'TABLE' AND OBJECT_SCHEMA = %s AND INDEX_NAME IS NOT NULL"""
# All of these must hold for the counters to count.
COUNTING = """
    SELECT (SELECT COUNT(*) FROM performance_schema.setup_instruments
             WHERE NAME = 'wait/io/table/sql/handler' AND ENABLED = 'YES'),
           (SELECT COUNT(*) FROM performance_schema.setup_consumers
             WHERE NAME = 'global_instrumentation' AND ENABLED = 'YES')"""
OBJECTS = """
    SELECT OBJECT_SCHEMA, ENABLED
      FROM performance_schema.setup_objects
     WHERE OBJECT_TYPE = 'TABLE' AND OBJECT_SCHEMA IN ('%%', %s)"""
# Whoever found no place in the counters' limited memory was not counted.
STATUS = """
    SHOW GLOBAL STATUS WHERE Variable_name IN ('Uptime', 'Performance_schema_table_instances_lost',
    'Performance_schema_table_handles_lost', 'Performance_schema_index_stat_lost')"""
BLOCK_SIZE = re.compile(r"key_block_size=(\d+)")
METHODS = {"BTREE": "btree", "FULLTEXT": "fulltext", "SPATIAL": "spatial", "RTREE": "spatial", "HASH": "hash"}


class Part(NamedTuple):
    """A column of an index, as a row of PARTS tells of it."""

    table: str
    name: str  # of the index
    column: str  # "" of an expression
    words: str
    whole: bool  # not only the column's beginning
    unique: bool
    method: str
    visible: bool


class ForeignKey(NamedTuple):
    """One side of a foreign key: the table here and its columns."""

    name: str
    table: str
    columns: tuple[str, ...]


class Counts(NamedTuple):
    """Uses by (table, index), and when the server began to count them."""

    uses: t.Mapping[tuple[str, str], int]
    begun: datetime


def read(link: Link, wants: Wants, server: Server) -> tuple[Index, ...]:
    """The indexes of the session's database, those of the wanted tables only where `only` names some."""
    only = sorted({ref.path[0] for ref in wants.only if ref.database == link.database and ref.path})
    parts: dict[tuple[str, str], list[Part]] = {}
    for part in _parts(link, only):
        parts.setdefault((part.table, part.name), []).append(part)
    counts = _counts(link, server)
    known = link.rows(TABLES.format(made="CREATE_TIME" if counts else "NULL"), (link.database,))
    tables = {str(row[0]): str(row[1] or "").lower() for row in known}
    made = {str(row[0]): row[2].replace(tzinfo=timezone.utc) for row in known if row[2]}
    counted, rows = _sizes(link, tables), _rows(link, tables)
    page = int(server.settings.get("innodb_page_size") or 16384)
    found = []
    for (table, name), its in parts.items():
        if table not in tables:
            continue  # dropped this moment, or a view's
        index = _index(Ref(link.database, (table, name)), its)
        squeezed = BLOCK_SIZE.search(tables[table])
        size = int(squeezed.group(1)) * 1024 if squeezed else page
        index = index._replace(bytes=counted.get((table, name), 0) * size, rows=rows.get(table, 0))
        if counts and index.method in ("btree", "hash"):  # nobody counts the others' uses
            since = max(counts.begun, made.get(table, counts.begun))
            index = index._replace(scans=counts.uses.get((table, name), 0), counted_since=since)
        found.append(index)
    return tuple(_needed(found, parts, _foreign_keys(link)))


def _parts(link: Link, only: t.Sequence[str]) -> t.Iterator[Part]:
    flavour = link.flavour
    query = PARTS.format(
        expression="EXPRESSION" if flavour.has("index expressions") else "NULL",
        visible="IS_VISIBLE"
        if flavour.has("invisible indexes")
        else "IF(IGNORED = 'YES', 'NO', 'YES')"
        if flavour.has("ignored indexes")
        else "'YES'",
        only=f" AND TABLE_NAME IN ({', '.join(['%s'] * len(only))})" if only else "",
    )
    for table, index, column, prefix, order, many, method, expression, visible in link.rows(
        query, [link.database, *only]
    ):
        words = quoted(str(column)) if column is not None else f"({expression})"
        words += f"({prefix})" if prefix else ""
        words += " DESC" if order == "D" else ""
        yield Part(
            str(table),
            str(index),
            str(column or ""),
            words,
            not prefix,
            not int(many),
            METHODS.get(str(method).upper(), str(method).lower()),
            str(visible).upper() == "YES",
        )


def _index(ref: Ref, parts: t.Sequence[Part]) -> Index:
    first = parts[0]
    primary = first.name == "PRIMARY"
    return Index(
        ref=ref,
        table=Ref(ref.database, ref.path[:1]),
        method=first.method,
        columns=tuple(part.column for part in parts),
        parts=tuple(part.words for part in parts),
        unique=first.unique,
        primary=primary,
        visible=first.visible,
        keep="primary key" if primary else "unique" if first.unique else "",
    )


def _sizes(link: Link, tables: t.Mapping[str, str]) -> dict[tuple[str, str], int]:
    """Pages by (table, index), those of partitions together; none where the login may not read them."""
    found: defaultdict[tuple[str, str], int] = defaultdict(int)
    partitioned = _partitioned(tables)
    for table, index, pages in _readable(link, SIZES):
        where = place(str(table), partitioned)
        if where:
            found[where.table, str(index)] += int(pages or 0)
    return found


def _rows(link: Link, tables: t.Mapping[str, str]) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    partitioned = _partitioned(tables)
    for table, rows in _readable(link, ROWS):
        where = place(str(table), partitioned)
        if where:
            found[where.table] += int(rows or 0)
    return found


def _readable(link: Link, query: str) -> list[tuple[t.Any, ...]]:
    try:
        return link.rows(query, (link.database,))
    except Refused:
        return []


def _partitioned(tables: t.Mapping[str, str]) -> dict[str, bool]:
    """Whether each table has partitions, from the options that it was made with."""
    return {name: "partitioned" in options for name, options in tables.items()}


def _counts(link: Link, server: Server) -> Counts | None:
    """None where uses are not counted, or cannot be read: unknown, which is not the same as unused."""
    if server.settings.get("performance_schema") in (0, "OFF", None):
        return None
    try:
        if not all(link.rows(COUNTING)[0]) or not _instrumented(link):
            return None
        status = {str(name).lower(): int(value) for name, value in link.rows(STATUS)}
        uptime = status.pop("uptime")
        if any(status.values()):
            return None
        uses = {(str(table), str(index)): int(count) for table, index, count in link.rows(SCANS, (link.database,))}
    except DbFault:
        return None
    return Counts(uses, server.now - timedelta(seconds=uptime))


def _instrumented(link: Link) -> bool:
    """What is said of this database comes before what is said of all."""
    rules: dict[str, list[bool]] = {}
    for schema, enabled in link.rows(OBJECTS, (link.database,)):
        rules.setdefault(str(schema), []).append(str(enabled) == "YES")
    own = rules.get(link.database) or rules.get("%") or [False]
    return all(own)


def _foreign_keys(link: Link) -> list[ForeignKey]:
    """Both sides of every foreign key that touches this database: an index of ours serves each of them."""
    found: dict[tuple[bool, str, str, str], list[tuple[str, str]]] = {}
    for query, values in _askable(link):
        for name, home, table, column, parent_home, parent, its in link.rows(query, values):
            whole = (str(home), str(table), str(name))
            if home == link.database:
                found.setdefault((True, *whole), []).append((str(table), str(column)))
            if parent_home == link.database:
                found.setdefault((False, *whole), []).append((str(parent), str(its)))
    return [
        ForeignKey(key[-1], columns[0][0], tuple(column for _table, column in columns))
        for key, columns in found.items()
    ]


def _askable(link: Link) -> t.Iterator[tuple[str, tuple[str, ...]]]:
    ours, others = True, True
    if link.flavour.has("file names"):
        with contextlib.suppress(Refused):
            sides = [[str(name).partition("/")[0] for name in row] for row in link.rows(ANY_FOREIGN_KEYS)]
            # As they stand in file names: one with an @ may be anybody's.
            mine = (link.database, *(name for side in sides for name in side if "@" in name))
            ours = any(child in mine for child, _parent in sides)
            others = any(parent in mine and child != link.database for child, parent in sides)
    if ours:
        yield FOREIGN_KEYS.format(whose=OURS), (link.database,)
    if others:
        yield FOREIGN_KEYS.format(whose=OTHERS), (link.database, link.database)


def _needed(
    indexes: t.Sequence[Index], parts: t.Mapping[tuple[str, str], t.Sequence[Part]], keys: t.Sequence[ForeignKey]
) -> t.Iterator[Index]:
    """Every foreign key needs one index on either side whose first columns are the key's.

    Where several could serve it, one is named: needed anyhow, else used, else the longest, of which the others may be
    mere beginnings.
    """
    by_table: defaultdict[str, list[Index]] = defaultdict(list)
    for index in indexes:
        by_table[index.table.path[0]].append(index)
    serves: defaultdict[Ref, list[str]] = defaultdict(list)
    for key in keys:
        able = [i for i in by_table.get(key.table, ()) if _serves(i, parts[i.ref.path[0], i.ref.path[1]], key)]
        if able:
            one = min(able, key=lambda i: (not i.keep, not i.scans, -len(i.columns), i.ref))
            serves[one.ref].append(key.name)
    for index in indexes:
        names = ", ".join(dict.fromkeys(serves.get(index.ref, ())))
        yield index._replace(keep=f"supports foreign key {names}") if names and not index.keep else index


def _serves(index: Index, parts: t.Sequence[Part], key: ForeignKey) -> bool:
    """The server asks for the key's columns first, whole, in their order, in an index that it can search by."""
    first = tuple(part.column.lower() for part in parts[: len(key.columns)] if part.whole)
    return index.method == "btree" and first == tuple(column.lower() for column in key.columns)
