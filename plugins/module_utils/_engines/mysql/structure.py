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
from ..._structure import Counter, Index, Structure
from ..._tuples import NamedTuple
from . import foreign_keys
from .connection import Link
from .foreign_keys import Reference, some
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
TRANSACTIONAL = frozenset(["innodb", "rocksdb", "tokudb", "ndbcluster", "xpand"])
# They keep no rows of their own, or can have no key.
KEYLESS_BY_NATURE = frozenset(
    ["csv", "blackhole", "archive", "federated", "mrg_myisam", "connect", "spider", "sequence", "s3", "columnstore"]
)
# Those that keep rows and were chosen by habit. What is in memory, elsewhere, compressed or nowhere is so on purpose.
CONVERTIBLE = frozenset(["myisam", "aria"])
BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
EXACT_UP_TO = {"float": 2**24, "double": 2**53}
ROW_ID = "my_row_id"  # as MySQL calls the primary key that it makes by itself
LAST_OF_SEQUENCES = 2**63 - 2  # https://mariadb.com/kb/en/create-sequence/
AT_ONCE = 200  # sequences read in one statement


class Column(NamedTuple):
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


class Catalog(NamedTuple):
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
    references = foreign_keys.read(link, indexes)
    columns = _columns(link, tables, references)
    keyed = {table for (table, _name), column in columns.items() if column.key == "PRI"}
    engines = {name: str(row[1]) for name, row in tables.items()}
    keyless = [n for n, engine in engines.items() if n not in keyed and engine.lower() not in KEYLESS_BY_NATURE]
    copied = {n for n, engine in engines.items() if engine.lower() not in TRANSACTIONAL}
    foreign = {n: engine for n, engine in engines.items() if engine.lower() in CONVERTIBLE}
    sequences = tuple(_sequences(link, [str(row[0]) for row in rows if str(row[4]) == "SEQUENCE"]))
    structure = Structure(
        foreign_keys=foreign_keys.weighed(link, server, [x.key for x in references]),
        keyless=tuple(Ref(database, (name,)) for name in sorted(keyless)),
        free_columns=_free(link, keyless),
        counters=(*_counters(database, tables, columns), *sequences),
        foreign_engines=tuple((Ref(database, (name,)), engine) for name, engine in sorted(foreign.items())),
    )
    split = [name for name in keyless if "partitioned" in str(tables[name][3]).lower()]
    known = Catalog(
        columns,
        tuple(references),
        frozenset(copied),
        _partitioned_by(link, split),
        {counter.ref.path[0]: counter.most for counter in sequences},
    )
    return structure, known


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


# ---- keys and counters -----------------------------------------------------------------------------------------------


def _free(link: Link, keyless: t.Sequence[str]) -> dict[Ref, str]:
    """A column's name that is free in each of these tables."""
    taken: defaultdict[str, set[str]] = defaultdict(set)
    for row in some(link, NAMES, keyless):
        taken[str(row[0])].add(str(row[1]).lower())
    found = {}
    for table in keyless:
        names = (ROW_ID, *(f"{ROW_ID}_{n}" for n in range(2, len(taken[table]) + 3)))
        found[Ref(link.database, (table,))] = next(name for name in names if name not in taken[table])
    return found


def _partitioned_by(link: Link, tables: t.Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in some(link, PARTITIONS, tables):
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
            found = Counter(ref, min(most, max(0, used)), most, cycles=bool(row[5]), column_type="bigint")
            # Without an end that somebody chose it has the last one there is.
            yield found._replace(chosen=step < 0 or high < LAST_OF_SEQUENCES)
