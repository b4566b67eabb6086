# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""InnoDB's dictionary: files, sizes, rows, change counters of every table and partition, read once for all databases.

Each view is generated whole by the server whatever is asked of it, so a server with a thousand databases must not be
asked a thousand times.
"""

from __future__ import annotations

import typing as t

from ..._errors import Busy
from ..._tuples import NamedTuple
from . import names

TABLES = "SELECT TABLE_ID, NAME, SPACE, SPACE_TYPE, ZIP_PAGE_SIZE FROM information_schema.{tables}"
SPACES = "SELECT SPACE, NAME, FILE_SIZE, ALLOCATED_SIZE FROM information_schema.{tablespaces}"
STATS = """
    SELECT TABLE_ID, STATS_INITIALIZED, NUM_ROWS, CLUST_INDEX_SIZE, OTHER_INDEX_SIZE, MODIFIED_COUNTER
      FROM information_schema.{tablestats}"""
# TYPE is a set of bits: 1 clustered, 2 unique, 32 full-text, 64 spatial, 128 on a virtual column.
INDEXES = """
    SELECT TABLE_ID, COUNT(*), BIT_OR(TYPE)
      FROM information_schema.{indexes}
     WHERE NAME NOT IN ('GEN_CLUST_INDEX', 'FTS_DOC_ID_INDEX')
     GROUP BY TABLE_ID"""
FULLTEXT, SPATIAL, VIRTUAL = 32, 64, 128
# MySQL's views but this one wait for every table's definition: one table that somebody waits to alter hides them all.
FILES = """
    SELECT SPACE, NAME, SPACE, SPACE_TYPE, ZIP_PAGE_SIZE, FILE_SIZE, ALLOCATED_SIZE
      FROM information_schema.{tablespaces}
     WHERE SPACE_TYPE = 'Single'"""
SPECIAL = """
    SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME, INDEX_TYPE FROM information_schema.STATISTICS
     WHERE INDEX_TYPE IN ('FULLTEXT', 'SPATIAL')"""


class Piece(NamedTuple):
    """One clustered index with its secondary indexes: a table, a partition or a subpartition."""

    database: str
    name: str  # plain, `#` and all: see names.place
    own_file: bool
    file_bytes: int  # 0 where the file is shared
    sparse: bool  # pages are compressed into holes of the file
    page_bytes: int
    counters: bool  # the dictionary shows them
    known: bool  # the counters below have been read since the server opened the table
    rows: int
    clustered_pages: int
    other_pages: int
    modified: int
    indexes: int = 0
    index_types: int = 0

    @property
    def bytes(self) -> int:
        """Size on disk, or of the pages in a shared file."""
        return self.file_bytes if self.own_file else self.page_bytes * (self.clustered_pages + self.other_pages)


class Dictionary(NamedTuple):
    """All pieces by database; without counters where a locked table hid them: `incomplete` says so in words."""

    pieces: dict[str, list[Piece]]
    incomplete: str = ""


def read(link: t.Any, page_size: int) -> Dictionary:
    """The whole dictionary, or the files alone where the rest cannot be read now. Raises Refused without PROCESS."""
    try:
        return Dictionary(_whole(link, page_size))
    except Busy as busy:
        why = f"a table is locked, which hides the change counters of all: no ANALYZE is planned now ({busy.cause})"
        return Dictionary(_files(link, page_size), why)


def _files(link: t.Any, page_size: int) -> dict[str, list[Piece]]:
    special = {
        (str(row[0]), str(row[1])): FULLTEXT if str(row[2]) == "FULLTEXT" else SPATIAL for row in link.rows(SPECIAL)
    }
    found: dict[str, list[Piece]] = {}
    for row in link.rows(FILES.format(tablespaces=link.flavour.view("TABLESPACES"))):
        database, name = str(row[1]).partition("/")[::2]
        file = (row[0], row[1], row[5], row[6])
        piece = _piece((database, name), row, file, None, page_size)
        found.setdefault(database, []).append(
            piece._replace(counters=False, index_types=special.get((database, name), 0))
        )
    return found


def _whole(link: t.Any, page_size: int) -> dict[str, list[Piece]]:
    views = {name: link.flavour.view(name.upper()) for name in ("tables", "tablespaces", "tablestats", "indexes")}
    tables, spaces, stats, indexes = (link.rows(query.format(**views)) for query in (TABLES, SPACES, STATS, INDEXES))
    files = {int(row[0]): row for row in spaces}
    numbers = {int(row[0]): row for row in stats}
    kinds = {int(row[0]): (int(row[1]), int(row[2] or 0)) for row in indexes}
    found: dict[str, list[Piece]] = {}
    for database, name, row in _named(link, tables, files):
        table = int(row[0])
        piece = _piece((database, name), row, files.get(int(row[2])), numbers.get(table), page_size)
        piece = piece._replace(indexes=kinds.get(table, (0, 0))[0], index_types=kinds.get(table, (0, 0))[1])
        found.setdefault(database, []).append(piece)
    return found


def _piece(
    names: tuple[str, str],
    row: t.Sequence[t.Any],
    file: t.Sequence[t.Any] | None,
    numbers: t.Sequence[t.Any] | None,
    page_size: int,
) -> Piece:
    own = file is not None and str(row[3]) == "Single"
    size, allocated = (int(file[2] or 0), int(file[3] or 0)) if file and own else (0, 0)
    known = numbers is not None and str(numbers[1]) in ("1", "Initialized")
    rows, clustered, other, modified = (int(n or 0) for n in numbers[2:6]) if numbers and known else (0, 0, 0, 0)
    return Piece(
        database=names[0],
        name=names[1],
        own_file=own,
        file_bytes=size,
        # Blocks that the file system has not yet given to a new file do not make it sparse.
        sparse=0 < allocated < size // 2,
        page_bytes=int(row[4] or 0) or page_size,
        counters=True,
        known=known,
        rows=rows,
        clustered_pages=clustered,
        other_pages=other,
        modified=modified,
    )


def _named(
    link: t.Any, tables: t.Sequence[t.Sequence[t.Any]], files: t.Mapping[int, t.Sequence[t.Any]]
) -> t.Iterator[tuple[str, str, t.Sequence[t.Any]]]:
    """Each table with its plain names.

    MySQL's tablespaces carry them as they are. MariaDB decodes what its file names encode when it is asked to; the
    marks of partitions are no part of the encoding, so the parts between them are decoded one by one.
    """
    plain: dict[str, str] = {}
    if link.flavour.has("file names"):
        parts = [p for row in tables for p in (names.pieces(str(row[1]))[0], *names.pieces(str(row[1]))[1])]
        plain = decoded(link, names.odd(parts))
    for row in tables:
        file = files.get(int(row[2]))
        if not plain and file and str(row[3]) == "Single" and not link.flavour.has("file names"):
            database, name = str(file[1]).partition("/")[::2]
        else:
            encoded, parts = names.pieces(str(row[1]))
            database, name = plain.get(encoded, encoded), "#".join(plain.get(p, p) for p in parts)
        yield database, name, row


def decoded(link: t.Any, parts: t.Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(parts), 500):
        some = parts[start : start + 500]
        words = ", ".join(["CONVERT(CAST(%s AS BINARY) USING filename)"] * len(some))
        found.update(zip(some, (str(value) for value in link.rows(f"SELECT {words}", some)[0])))
    return found
