# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables as retention looks at them: columns, keys, and in what order their rows can be walked. Only reads."""

from __future__ import annotations

import typing as t
from collections import defaultdict

from ..._records import Ref
from ..._tuples import NamedTuple
from .connection import Link
from .names import quoted, table_of
from .old_rows import DATES, INTEGERS, KINDS

TABLES = """
    SELECT TABLE_NAME, TABLE_TYPE, ENGINE, CREATE_OPTIONS, TABLE_ROWS, AVG_ROW_LENGTH
      FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN ({})"""
COLUMNS = """
    SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, DATA_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, IS_NULLABLE,
           COLUMN_DEFAULT, EXTRA, GENERATION_EXPRESSION
      FROM information_schema.COLUMNS
     WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN ({})
     ORDER BY ORDINAL_POSITION"""
KEYS = """
    SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, INDEX_TYPE, COLLATION, NON_UNIQUE, {seen}
      FROM information_schema.STATISTICS
     WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN ({{}})
     ORDER BY INDEX_NAME, SEQ_IN_INDEX"""
PRIMARY = "PRIMARY"
TRANSACTIONAL = "InnoDB"


class Field(NamedTuple):
    """A column."""

    name: str
    type: str  # in full
    data_type: str
    charset: str
    collation: str
    nullable: bool
    default: str | None
    extra: str
    computed: str = ""  # by which expression

    @property
    def generated(self) -> bool:
        return "GENERATED" in self.extra.upper().replace("DEFAULT_GENERATED", "")

    @property
    def kind(self) -> str:
        """Of a key's column; "": it cannot be walked along."""
        return KINDS.get(self.data_type, "")


class Way(NamedTuple):
    """An index along which rows can be walked: all columns by which it is sorted."""

    via: str  # the index
    columns: tuple[str, ...]


class Sorting(NamedTuple):
    """An index as the catalog shows it."""

    name: str
    columns: tuple[tuple[str, int | None], ...]  # with the length of a prefix
    unique: bool
    plain: bool  # B-tree, seen by the optimizer, ascending, of whole columns and no expression


class Store(NamedTuple):
    """One table."""

    ref: Ref
    type: str
    engine: str
    options: str
    rows: int  # estimated
    row_bytes: int
    fields: tuple[Field, ...]
    indexes: tuple[Sorting, ...]
    definition: str = ""  # as a table beside it repeats it, where one of its partitions leaves by way of one

    @property
    def sql(self) -> str:
        return table_of(self.ref)

    @property
    def transactional(self) -> bool:
        return self.engine == TRANSACTIONAL

    @property
    def partitioned(self) -> bool:
        return "partitioned" in self.options

    @property
    def versioned(self) -> bool:
        return self.type == "SYSTEM VERSIONED"

    def field(self, name: str) -> Field | None:
        """Names of columns are the same in any case."""
        return next((f for f in self.fields if f.name.casefold() == name.casefold()), None)

    def kinds(self, columns: t.Iterable[str]) -> list[str]:
        return [(self.field(name) or _NOTHING).kind for name in columns]

    def _sorted(self, sorting: Sorting) -> bool:
        return sorting.plain and all(self.kinds(name for name, _prefix in sorting.columns))

    def _sure(self, sorting: Sorting) -> bool:
        """Whether none of its columns can be NULL."""
        return not any((self.field(name) or _NOTHING).nullable for name, _prefix in sorting.columns)

    @property
    def key(self) -> Way | None:
        """What tells its rows apart, and sorts them exactly."""
        fits = [x for x in self.indexes if x.unique and self._sorted(x) and self._sure(x)]
        best = min(fits, key=lambda x: (x.name != PRIMARY, len(x.columns)), default=None)
        return Way(best.name, tuple(name for name, _prefix in best.columns)) if best else None

    def by_date(self, column: str) -> Way | None:
        """An index that begins with the date. Those of InnoDB end with the primary key; the fewest columns are best."""
        key = self.key
        found = []
        for sorting in self.indexes:
            names = tuple(name for name, _prefix in sorting.columns)
            if names[:1] != (column,) or not self._sorted(sorting):
                continue
            rest = sorting._replace(columns=sorting.columns[1:])
            if not self._sure(rest):
                continue
            if sorting.name == PRIMARY or (sorting.unique and key):
                found.append(Way(sorting.name, names))
            elif self.transactional and key and key.via == PRIMARY:
                found.append(Way(sorting.name, (*names, *(c for c in key.columns if c not in names))))
        return min(found, key=lambda way: (len(way.columns), way.via), default=None)

    def way(self, columns: t.Sequence[str], date: str) -> Way | None:
        """The index that sorts by just these columns."""
        return next((w for w in (self.by_date(date), self.key) if w and w.columns == tuple(columns)), None)


_NOTHING = Field("", "", "", "", "", True, None, "")


def read(link: Link, database: str, names: t.Iterable[str]) -> dict[str, Store]:
    """Of one database, by three queries. What the login may not see is not there."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    marks, values = ", ".join(["%s"] * len(wanted)), [database, *wanted]
    fields: defaultdict[str, list[Field]] = defaultdict(list)
    for row in link.rows(COLUMNS.format(marks), values):
        texts = [str(value or "") for value in row]
        default = None if row[7] is None else str(row[7])
        filled = texts[6] == "YES", default, texts[8], texts[9]
        fields[texts[0]].append(Field(texts[1], texts[2], texts[3].lower(), texts[4], texts[5], *filled))
    indexes = _indexes(link, marks, values)
    found = {}
    for name, kind, engine, options, rows, length in link.rows(TABLES.format(marks), values):
        found[str(name)] = Store(
            ref=Ref(database, (str(name),)),
            type=str(kind),
            engine=str(engine or ""),
            options=str(options or "").lower(),
            rows=int(rows or 0),
            row_bytes=int(length or 0),
            fields=tuple(fields[str(name)]),
            indexes=tuple(indexes[str(name)]),
        )
    return found


def _indexes(link: Link, marks: str, values: t.Sequence[str]) -> defaultdict[str, list[Sorting]]:
    seen = "'YES'"
    if link.flavour.has("invisible indexes"):
        seen = "IS_VISIBLE"
    elif link.flavour.has("ignored indexes"):
        seen = "IF(IGNORED = 'YES', 'NO', 'YES')"
    rows: defaultdict[tuple[str, str], list[t.Any]] = defaultdict(list)
    for row in link.rows(KEYS.format(seen=seen).format(marks), values):
        rows[str(row[0]), str(row[1])].append(row)
    found: defaultdict[str, list[Sorting]] = defaultdict(list)
    for (table, name), parts in rows.items():
        plain = all(
            row[2] is not None
            and row[3] is None
            and str(row[4]) == "BTREE"
            and str(row[5]) == "A"
            and str(row[7]) == "YES"
            for row in parts
        )
        columns = tuple((str(row[2] or ""), int(row[3]) if row[3] else None) for row in parts)
        found[table].append(Sorting(name, columns, str(parts[0][6]) == "0", plain))
    return found


def date_trouble(field: Field, unit: str) -> str:
    """Why a column cannot say how old a row is; "" where it can."""
    if field.data_type in INTEGERS:
        return "" if unit else f"it is a whole number ({field.type}): date_unit has to say of what"
    if field.data_type not in DATES:
        return f"it is no date ({field.type})"
    return f"date_unit is for whole numbers, and it is of the type {field.type}" if unit else ""


def names_sql(fields: t.Iterable[Field], of: str = "") -> str:
    before = f"{quoted(of)}." if of else ""
    return ", ".join(before + quoted(field.name) for field in fields)
