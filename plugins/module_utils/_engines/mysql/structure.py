# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys, primary keys, AUTO_INCREMENT, storage engines: what the schema says beside its indexes. Only reads.

What the cures of its findings need to know of the catalog is kept beside it; their words are in cures.py.
"""

from __future__ import annotations

import contextlib
import re
import typing as t
from collections import defaultdict

from ..._errors import Refused
from ..._records import Ref, Server
from ..._structure import Counter, ForeignKey, Index, Structure
from .connection import Link
from .names import quoted

# With AUTO_INCREMENT the server opens each table: 0.1 s for 3,000 of them.
TABLES = """
    SELECT TABLE_NAME, ENGINE, AUTO_INCREMENT, CREATE_OPTIONS, TABLE_TYPE
      FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE')"""
# Where there is no primary key, the columns of a unique one without NULL are called PRI:
# https://dev.mysql.com/doc/refman/8.4/en/show-columns.html
COLUMNS = """
    SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, COLUMN_COMMENT, COLUMN_KEY
      FROM information_schema.COLUMNS
     WHERE TABLE_SCHEMA = %s AND (COLUMN_KEY = 'PRI' OR EXTRA LIKE '%%auto_increment%%'{named})"""
REFERENCES = """
    SELECT TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME,
           REFERENCED_COLUMN_NAME
      FROM information_schema.KEY_COLUMN_USAGE
     WHERE TABLE_SCHEMA = %s AND REFERENCED_TABLE_NAME IS NOT NULL
     ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION"""
RULES = """
    SELECT TABLE_NAME, CONSTRAINT_NAME, UPDATE_RULE, DELETE_RULE
      FROM information_schema.REFERENTIAL_CONSTRAINTS
     WHERE CONSTRAINT_SCHEMA = %s"""
LEADING = """
    SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME
      FROM information_schema.STATISTICS
     WHERE TABLE_SCHEMA = %s AND INDEX_TYPE IN ('BTREE', 'HASH')
     ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"""
CHECKS = """
    SELECT TABLE_NAME, CONSTRAINT_NAME, CHECK_CLAUSE
      FROM information_schema.CHECK_CONSTRAINTS
     WHERE CONSTRAINT_SCHEMA = %s AND LEVEL = 'Column'"""
# Of some tables only.
NAMES = "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s"
PARTITIONS = """
    SELECT DISTINCT TABLE_NAME, PARTITION_EXPRESSION, SUBPARTITION_EXPRESSION
      FROM information_schema.PARTITIONS
     WHERE TABLE_SCHEMA = %s"""
SIZES = """
    SELECT TABLE_NAME, TABLE_ROWS, DATA_LENGTH + INDEX_LENGTH
      FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s"""
CHANGES = """
    SELECT OBJECT_SCHEMA, OBJECT_NAME, COUNT_UPDATE + COUNT_DELETE
      FROM performance_schema.table_io_waits_summary_by_table
     WHERE OBJECT_TYPE = 'TABLE'"""

TRANSACTIONAL = frozenset(["innodb", "rocksdb", "tokudb", "ndbcluster", "xpand"])
# They keep no rows of their own, or can have no key.
KEYLESS_BY_NATURE = frozenset(
    ["csv", "blackhole", "archive", "federated", "mrg_myisam", "connect", "spider", "sequence", "s3", "columnstore"]
)
BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
EXACT_UP_TO = {"float": 2**24, "double": 2**53}
ROW_ID = "my_row_id"  # as MySQL calls the primary key that it makes by itself
AT_ONCE = 200  # sequences read in one statement


class Column(t.NamedTuple):
    """What a column's definition must keep when its type changes."""

    type: str
    nullable: bool
    default: str | None
    extra: str
    comment: str
    key: str
    check: str = ""

    @property
    def counts(self) -> bool:
        return "auto_increment" in self.extra.lower()


class Reference(t.NamedTuple):
    """A foreign key with its rules."""

    key: ForeignKey
    on_update: str
    on_delete: str


class Catalog(t.NamedTuple):
    """What cures.py spells from: (table, column) -> its definition, and so on."""

    columns: t.Mapping[tuple[str, str], Column] = {}
    references: tuple[Reference, ...] = ()
    copied: frozenset[str] = frozenset()  # tables that their engine can only change by copying them
    partitioned_by: t.Mapping[str, tuple[str, ...]] = {}  # of keyless tables: columns that every unique key must have
    ends: t.Mapping[str, int] = {}  # of sequences


def read(link: Link, server: Server, indexes: t.Sequence[Index] = ()) -> tuple[Structure, Catalog]:
    """The structure of the session's database: no row of a table is read, and nothing is asked table by table.

    `indexes`: those of the database, where they have been read already.
    """
    database = link.database
    rows = link.rows(TABLES, (database,))
    tables = {str(row[0]): row for row in rows if row[1] and str(row[4]) != "SEQUENCE"}
    references = _references(link, indexes)
    columns = _columns(link, tables, references)
    keyed = {table for (table, _name), column in columns.items() if column.key == "PRI"}
    engines = {name: str(row[1]) for name, row in tables.items()}
    keyless = [n for n, engine in engines.items() if n not in keyed and engine.lower() not in KEYLESS_BY_NATURE]
    foreign = {n: engine for n, engine in engines.items() if engine.lower() not in TRANSACTIONAL}
    sequences = tuple(_sequences(link, [str(row[0]) for row in rows if str(row[4]) == "SEQUENCE"]))
    structure = Structure(
        foreign_keys=_weighed(link, server, [x.key for x in references]),
        keyless=tuple(Ref(database, (name,)) for name in sorted(keyless)),
        free_columns=_free(link, keyless),
        counters=(*_counters(database, tables, columns), *sequences),
        foreign_engines=tuple((Ref(database, (name,)), engine) for name, engine in sorted(foreign.items())),
    )
    split = [name for name in keyless if "partitioned" in str(tables[name][3]).lower()]
    known = Catalog(
        columns,
        tuple(references),
        frozenset(foreign),
        _partitioned_by(link, split),
        {counter.ref.path[0]: counter.most for counter in sequences},
    )
    return structure, known


def _some(link: Link, query: str, names: t.Sequence[str]) -> list[tuple[t.Any, ...]]:
    """Rows of these tables only."""
    if not names:
        return []
    marks = ", ".join(["%s"] * len(names))
    return link.rows(f"{query} AND TABLE_NAME IN ({marks})", (link.database, *names))


def _columns(link: Link, tables: t.Container[str], references: t.Sequence[Reference]) -> dict[tuple[str, str], Column]:
    """Those of keys, those that count, and those that foreign keys tie to them."""
    tied = sorted({name for x in references for name in (*x.key.columns, *x.key.parent_columns)})
    named = f" OR COLUMN_NAME IN ({', '.join(['%s'] * len(tied))})" if tied else ""
    checks: dict[tuple[str, str], str] = {}
    if tied and link.flavour.name == "mariadb":
        # MySQL keeps them apart from the columns. A column that counts can have none.
        with contextlib.suppress(Refused):
            checks = {(str(row[0]), str(row[1])): str(row[2]) for row in link.rows(CHECKS, (link.database,))}
    found = {}
    for table, name, kind, nullable, default, extra, comment, key in link.rows(
        COLUMNS.format(named=named), (link.database, *tied)
    ):
        if table in tables:
            check = checks.get((table, name), "")
            found[table, name] = Column(kind.lower(), nullable == "YES", default, extra, comment, key, check)
    return found


# ---- foreign keys ----------------------------------------------------------------------------------------------------


def _references(link: Link, indexes: t.Sequence[Index]) -> list[Reference]:
    database = link.database
    pairs: dict[tuple[str, str], list[tuple[t.Any, ...]]] = {}
    for row in link.rows(REFERENCES, (database,)):
        pairs.setdefault((str(row[0]), str(row[1])), []).append(row)
    if not pairs:
        return []
    rules = {(str(row[0]), str(row[1])): (str(row[2]), str(row[3])) for row in link.rows(RULES, (database,))}
    leading = _leading(link, indexes)
    found = []
    for (table, name), rows in sorted(pairs.items()):
        columns = tuple(str(row[2]) for row in rows)
        key = ForeignKey(
            table=Ref(database, (table,)),
            name=name,
            columns=columns,
            parent=Ref(str(rows[0][3]), (str(rows[0][4]),)),
            parent_columns=tuple(str(row[5]) for row in rows),
            indexed=any(set(index[: len(columns)]) == set(columns) for index in leading.get(table, ())),
        )
        found.append(Reference(key, *rules.get((table, name), ("NO ACTION", "NO ACTION"))))
    return found


def _leading(link: Link, indexes: t.Sequence[Index]) -> dict[str, list[t.Sequence[str]]]:
    """Columns of every index, by table."""
    read: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in link.rows(LEADING, (link.database,)) if not indexes else ():
        read[str(row[0]), str(row[1])].append(str(row[2] or ""))
    found: defaultdict[str, list[t.Sequence[str]]] = defaultdict(list)
    for (table, _name), columns in read.items():
        found[table].append(columns)
    for index in indexes:
        if index.method in ("btree", "hash"):
            found[index.table.path[0]].append(index.columns)
    return found


def _weighed(link: Link, server: Server, keys: t.Sequence[ForeignKey]) -> tuple[ForeignKey, ...]:
    """With sizes where an index is missing. InnoDB makes one for each foreign key, and lets it go only while

    foreign_key_checks is off.
    """
    bare = sorted({key.table.path[0] for key in keys if not key.indexed})
    if not bare:
        return tuple(keys)
    sizes = {str(row[0]): (int(row[1] or 0), int(row[2] or 0)) for row in _some(link, SIZES, bare)}
    changes = _changes(link, server)
    found = []
    for key in keys:
        if not key.indexed:
            rows, size = sizes.get(key.table.path[0], (0, 0))
            changed = changes.get((key.parent.database, key.parent.path[0])) if changes is not None else None
            found.append(key._replace(rows=rows, bytes=size, parent_changes=changed))
        else:
            found.append(key)
    return tuple(found)


def _changes(link: Link, server: Server) -> dict[tuple[str, str], int] | None:
    """Updates and deletes of every table since the server started; None where nobody counts them."""
    if server.settings.get("performance_schema") in (0, "OFF", None):
        return None
    try:
        return {(str(row[0]), str(row[1])): int(row[2] or 0) for row in link.rows(CHANGES)}
    except Refused:
        return None


# ---- keys and counters -----------------------------------------------------------------------------------------------


def _free(link: Link, keyless: t.Sequence[str]) -> dict[Ref, str]:
    """A column's name that is free in each of these tables."""
    taken: defaultdict[str, set[str]] = defaultdict(set)
    for row in _some(link, NAMES, keyless):
        taken[str(row[0])].add(str(row[1]).lower())
    found = {}
    for table in keyless:
        names = (ROW_ID, *(f"{ROW_ID}_{n}" for n in range(2, len(taken[table]) + 3)))
        found[Ref(link.database, (table,))] = next(name for name in names if name not in taken[table])
    return found


def _partitioned_by(link: Link, tables: t.Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in _some(link, PARTITIONS, tables):
        words = " ".join(str(value) for value in row[1:3] if value)
        names = [name.replace("``", "`") for name in re.findall(r"`((?:[^`]|``)+)`", words)]
        found[str(row[0])] = tuple(dict.fromkeys((*found.get(str(row[0]), ()), *names)))
    return found


def most_of(column_type: str) -> int:
    """The largest value of a column that counts: `int unsigned`, `bigint(20)`, `double`; 0 for others."""
    name = re.split(r"[ (]", column_type, maxsplit=1)[0]
    if name in EXACT_UP_TO:
        return int(EXACT_UP_TO[name])
    bits = BITS.get(name, 0)
    return 2 ** (bits if "unsigned" in column_type else bits - 1) - 1 if bits else 0


def _counters(
    database: str, tables: t.Mapping[str, t.Sequence[t.Any]], columns: t.Mapping[tuple[str, str], Column]
) -> t.Iterator[Counter]:
    for (table, name), column in sorted(columns.items()):
        most = most_of(column.type) if column.counts else 0
        if most:
            ref = Ref(database, (table,))
            used = min(most, max(0, int(tables[table][2] or 1) - 1))  # what is given next
            yield Counter(ref, used, most, name, ref, "auto_increment", column_type=column.type)


def _sequences(link: Link, names: t.Sequence[str]) -> t.Iterator[Counter]:
    """MariaDB's; those that the login may not read are left out."""
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        query = " UNION ALL ".join(
            f"SELECT {n}, next_not_cached_value, minimum_value, maximum_value, increment, cycle_option"
            f" FROM {quoted(link.database, name)}"
            for n, name in enumerate(some)
        )
        try:
            rows = link.rows(query)
        except Refused:
            continue
        for row in rows:
            ref = Ref(link.database, (some[int(row[0])],))
            following, low, high, step = (int(value) for value in row[1:5])
            used, most = (high - following, high - low) if step < 0 else (following - 1, high)
            yield Counter(ref, min(most, max(0, used)), most, cycles=bool(row[5]), column_type="bigint")
