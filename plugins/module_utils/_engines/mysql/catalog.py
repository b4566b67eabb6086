# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tables there are in a database, how large, how changed, when analyzed. Only reads; bloat is in bloat.py."""

from __future__ import annotations

import typing as t
from collections import defaultdict
from datetime import datetime, timezone

from ..._errors import Refused
from ..._records import Bloat, Finding, Ref, Server, Table, Wants
from ..._tuples import NamedTuple
from . import dictionary, privileges
from .activity import Running
from .capabilities import Flavour
from .names import Place, place
from .privileges import Grants

BASE_TABLES = """
    SELECT TABLE_NAME, ENGINE, CREATE_OPTIONS, TABLE_TYPE
      FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"""
# Opens every table that it shows: only for engines that keep no dictionary, and for logins that may not see InnoDB's.
SIZES = """
    SELECT TABLE_NAME, TABLE_ROWS, DATA_LENGTH, INDEX_LENGTH, DATA_FREE
      FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"""
# A TIMESTAMP, so it comes in the session's time zone, which is UTC.
STATISTICS = """
    SELECT table_name, last_update, n_rows, clustered_index_size, sum_of_other_index_sizes
      FROM mysql.innodb_table_stats
     WHERE database_name = %s"""
ANALYZABLE = ("InnoDB", "MyISAM", "Aria")
COPYING = ("MyISAM", "Aria")


class Base(NamedTuple):
    """A row of the list of tables."""

    name: str
    engine: str
    options: str
    type: str = "BASE TABLE"

    @property
    def partitioned(self) -> bool:
        return "partitioned" in self.options

    def persistent(self, default: t.Any) -> bool:
        """Whether statistics are kept in a table; else InnoDB makes new ones by itself, and none can be out of date."""
        if "stats_persistent=" in self.options:
            return "stats_persistent=1" in self.options
        return default not in (0, "OFF")

    def recalculated(self, default: t.Any) -> bool:
        """Whether the server makes new statistics by itself once a tenth of the rows has changed."""
        if "stats_auto_recalc=" in self.options:
            return "stats_auto_recalc=1" in self.options
        return default not in (0, "OFF")


class Sizes(NamedTuple):
    rows: int
    data: int
    indexed: int
    free: int


class Statistics(NamedTuple):
    updated: datetime
    rows: int
    clustered_pages: int
    other_pages: int


class Stored(NamedTuple):
    """All that was read about one table or partition, before it becomes a Table."""

    ref: Ref
    base: Base
    pieces: tuple[dictionary.Piece, ...] = ()
    statistics: tuple[Statistics, ...] = ()
    parts: tuple[Stored, ...] = ()  # of a partitioned table
    sizes: Sizes | None = None  # what information_schema.TABLES says, where nothing better is there

    @property
    def total_bytes(self) -> int:
        if self.pieces:
            return sum(p.bytes for p in self.pieces)
        if not self.sizes:
            return 0
        # InnoDB's free extents lie beside its data, others' free rows within it.
        free = self.sizes.free if self.base.engine == "InnoDB" else 0
        return self.sizes.data + self.sizes.indexed + free

    @property
    def data_bytes(self) -> int:
        """Without secondary indexes."""
        if self.pieces and self.statistics:
            other = sum(s.other_pages for s in self.statistics) * self.pieces[0].page_bytes
        elif self.pieces:
            other = sum(p.other_pages * p.page_bytes for p in self.pieces)
        else:
            other = self.sizes.indexed if self.sizes else 0
        return max(0, self.total_bytes - other)

    @property
    def rows(self) -> int:
        """InnoDB counts on from the statistics for a table that it has open; for others the statistics say it."""
        if self.parts:
            return sum(part.rows for part in self.parts)
        if self.pieces and all(p.known for p in self.pieces):
            return sum(p.rows for p in self.pieces)
        if self.sizes:
            return self.sizes.rows
        return sum(s.rows for s in self.statistics) if self.statistics else sum(p.rows for p in self.pieces)

    @property
    def counted(self) -> bool:
        """Whether `rows` is a number that somebody counted."""
        return bool(self.statistics or self.sizes or (self.pieces and all(p.known for p in self.pieces)))

    @property
    def indexes(self) -> int:
        return max((p.indexes for p in self.pieces), default=0)

    @property
    def index_types(self) -> int:
        found = 0
        for piece in self.pieces:
            found |= piece.index_types
        return found


class Contents(NamedTuple):
    """One database: its tables and, beside them, the partitions of those that have any."""

    tables: tuple[Stored, ...]
    partitions: tuple[Stored, ...]
    findings: tuple[Finding, ...] = ()


def read(
    link: t.Any, wants: Wants, pieces: t.Mapping[str, t.Sequence[dictionary.Piece]] | None, grants: Grants
) -> Contents:
    """The tables that are wanted. `pieces` is None where the login may not see InnoDB's dictionary."""
    database = link.database
    query, values = _only(BASE_TABLES, database, wants.only)
    bases = [
        Base(str(row[0]), str(row[1] or ""), str(row[2] or "").lower(), str(row[3])) for row in link.rows(query, values)
    ]
    known = {base.name: base.partitioned for base in bases}
    stored: defaultdict[Place, list[dictionary.Piece]] = defaultdict(list)
    for piece in (pieces or {}).get(database, ()):
        where = place(piece.name, known)
        if where:
            stored[where].append(piece)
    statistics = _statistics(link, known)
    places: dict[str, list[Place]] = {}
    for where in sorted({*stored, *statistics}):
        places.setdefault(where.table, []).append(where)
    tables, partitions = [], []
    for base in bases:
        whole = Stored(Ref(database, (base.name,)), base)
        parts = [
            Stored(whole.ref._replace(partition=where.partition), base, tuple(stored[where]), tuple(statistics[where]))
            for where in places.get(base.name, ())
        ]
        if base.partitioned:
            partitions += parts
        tables.append(
            whole._replace(
                pieces=tuple(piece for part in parts for piece in part.pieces),
                statistics=tuple(numbers for part in parts for numbers in part.statistics),
                parts=tuple(parts) if base.partitioned else (),
            )
        )
    hidden = pieces is None or any(not p.counters for stored in tables for p in stored.pieces)
    sizes = _sizes(link, wants, tables, everything=hidden)
    tables = [stored._replace(sizes=sizes.get(stored.base.name)) for stored in tables]
    return Contents(tuple(tables), tuple(partitions), tuple(_missing(grants, database, bases)))


def _only(query: str, database: str, only: t.Sequence[Ref]) -> tuple[str, list[str]]:
    wanted = sorted({ref.path[0] for ref in only if ref.database == database and ref.path})
    if not wanted:
        return query, [database]
    return f"{query} AND TABLE_NAME IN ({', '.join(['%s'] * len(wanted))})", [database, *wanted]


def _statistics(link: t.Any, known: t.Mapping[str, bool]) -> defaultdict[Place, list[Statistics]]:
    """Persistent statistics; none where the login may not read them (greeting.py says so in a finding)."""
    found: defaultdict[Place, list[Statistics]] = defaultdict(list)
    try:
        rows = link.rows(STATISTICS, (link.database,))
    except Refused:
        return found
    for row in rows:
        where = place(str(row[0]), known)
        if where:
            numbers = [int(n or 0) for n in row[2:5]]
            found[where].append(Statistics(row[1].replace(tzinfo=timezone.utc), *numbers))
    return found


def _sizes(link: t.Any, wants: Wants, tables: t.Sequence[Stored], *, everything: bool) -> dict[str, Sizes]:
    others = tuple(stored.ref for stored in tables if not stored.counted)
    if not everything and not others:
        return {}
    only = () if everything else others
    query, values = _only(SIZES, link.database, only or wants.only)
    return {str(row[0]): Sizes(*(int(n or 0) for n in row[1:5])) for row in link.rows(query, values)}


def _missing(grants: Grants, database: str, bases: t.Sequence[Base]) -> t.Iterator[Finding]:
    """One finding an operation that the login may not do on some table of the database."""
    for doing, needed in (("analyze", privileges.ANALYZE), ("rebuild", privileges.REBUILD)):
        lacking = [base.name for base in bases if grants.missing(needed, database, base.name)]
        if lacking:
            names = ", ".join(lacking[:5]) + (" …" if len(lacking) > 5 else "")
            message = f"the login may not {doing} {len(lacking)} of {len(bases)} tables: {names}"
            yield Finding(2, "missing_privilege", Ref(database), message, fix=grants.statement(needed, database))


def table(stored: Stored, server: Server, grants: Grants, bloat: Bloat | None, running: t.Sequence[Running]) -> Table:
    """The record that the planners see."""
    whole = not stored.ref.partition
    innodb = stored.base.engine == "InnoDB"
    persistent = innodb and stored.base.persistent(server.settings.get("innodb_stats_persistent"))
    counted = whole and persistent and any(p.counters for p in stored.pieces)
    return Table(
        ref=stored.ref,
        kind="table" if whole else "partition",
        bytes=stored.data_bytes,
        total_bytes=stored.total_bytes,
        rows=stored.rows,
        changed=sum(p.modified for p in stored.pieces) if counted else None,
        analyzed=min((s.updated for s in stored.statistics), default=None) if counted else None,
        bloat=bloat,
        lacks=lacks(stored, server, grants, running),
        indexes=stored.indexes,
    )


def lacks(stored: Stored, server: Server, grants: Grants, running: t.Sequence[Running]) -> dict[str, str]:
    """What cannot be done to this table, so that check mode promises nothing that the server would refuse."""
    database, name = stored.ref.database, stored.ref.path[0]
    found: dict[str, str] = {}
    why = _no_online(stored, Flavour(server.engine, server.version, server.number))
    if why:
        found["online rebuild"] = why
    if stored.base.partitioned and not stored.ref.partition:
        found["exclusive rebuild"] = "its partitions are rebuilt one by one"
    if stored.base.engine not in ANALYZABLE:
        why = f"the storage engine {stored.base.engine or 'of the table'} is not maintained"
        found.update({"analyze": why, "online rebuild": why, "exclusive rebuild": why})
    needed = grants.missing(privileges.ANALYZE, database, name)
    if needed:
        found["analyze"] = f"the login may not: {grants.statement(needed, database, name)}"
    needed = grants.missing(privileges.REBUILD, database, name)
    why = f"the login may not: {grants.statement(needed, database, name)}" if needed else ""
    for other in running:
        if other.touches(stored.ref._replace(partition="")):
            why = f"connection {other.id} has been rebuilding it for {other.seconds:.0f} s"
    if why:
        found.update({"online rebuild": why, "exclusive rebuild": why})
    return found


def _no_online(stored: Stored, flavour: Flavour) -> str:
    """Refusals of LOCK=NONE, tried on MySQL 9.7 and MariaDB 10.11 and 11.8."""
    if stored.ref.partition:
        return "REBUILD PARTITION lets writers of the whole table wait (rebuilding the whole table does not)"
    if stored.base.engine in COPYING:
        return f"{stored.base.engine} tables are copied while their writers wait"
    if stored.index_types & dictionary.FULLTEXT:
        return "it has a FULLTEXT index"
    if stored.index_types & dictionary.SPATIAL:
        return "it has a SPATIAL index"
    if stored.index_types & dictionary.VIRTUAL and not flavour.has("online with virtual indexes"):
        return "it has an index on a virtual column"
    return ""
