# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes, materialized views, keys and counters as measured. Beside _records.py on the bottom shelf."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ._tuples import NamedTuple

if t.TYPE_CHECKING:
    from ._records import Bloat, Ref

# Capabilities that an index or a view may lack: `lacks` maps each missing one to the reason in words.
#   "online rebuild", "exclusive rebuild"   of an index
#   "single rebuild"                        of a server: an index is rebuilt with its whole table
#   "refresh"                               of a view


class Index(NamedTuple):
    """One index. None in a field: the server does not know, or the login may not see it."""

    ref: Ref  # (schema, index) PostgreSQL, (table, index) MySQL and MariaDB, (index,) SQLite
    table: Ref
    method: str = "btree"  # btree, hash, gin, gist, spgist, brin, bloom …, fulltext, spatial
    bytes: int = 0
    rows: int = 0  # entries
    columns: tuple[str, ...] = ()  # of the key, in order; "" stands for an expression
    parts: tuple[str, ...] = ()  # one a key column: all that makes it differ from another (opclass, collation, order …)
    included: tuple[str, ...] = ()
    where: str = ""  # the predicate of a partial index
    unique: bool = False
    primary: bool = False
    constraint: str = ""  # the constraint that stands on it
    valid: bool = True
    visible: bool = True  # to the optimizer: an invisible (ignored) one is kept up to date and never used
    partitioned: bool = False  # a parent without storage of its own
    partition_of: Ref | None = None  # the partitioned index that this one belongs to
    scans: int | None = None  # since `counted_since`
    last_scan: datetime | None = None
    counted_since: datetime | None = None
    doubt: str = ""  # why uses may have been counted for less long than `counted_since` says
    keep: str = ""  # why it is needed though nobody scans it: "unique", "supports foreign key x" …
    bloat: Bloat | None = None
    settles: float = 0.0  # percent of bloat that comes back by itself, where entries come in no order
    stale: str = ""  # why its order may be wrong: "collation de_DE.utf8 was version 2.28, is 2.36"
    state: str = ""  # of a stale one: differs after each rebuild, and with each version of the collation's library
    lacks: t.Mapping[str, str] = {}


class Collation(NamedTuple):
    """A collation whose library has changed. Its version is refreshed once all that depends on it is rebuilt."""

    ref: Ref  # () the database's default, (schema, name) a collation of its own
    recorded: str
    actual: str
    dependents: tuple[Ref, ...] = ()  # indexes that sort by it and are not proven to be rebuilt since
    others: tuple[str, ...] = ()  # dependents that no reindexing cures: range partition bounds, CHECK constraints …


class View(NamedTuple):
    """A materialized view."""

    ref: Ref
    bytes: int = 0
    populated: bool = True
    unique: str = ""  # the index that lets it be refreshed concurrently
    reads: tuple[Ref, ...] = ()  # materialized views that it reads, directly or through plain views
    state: str | None = None  # differs when a source has changed; None: nothing that it reads is counted
    unknown: str = ""  # what it depends on and no counter shows: "reads the foreign table x, calls now()"
    sources: int = 0  # tables that it reads
    lacks: t.Mapping[str, str] = {}
    fix: str = ""  # the statement that gives the login what it lacks


class ForeignKey(NamedTuple):
    """A foreign key, seen from the table that holds it."""

    table: Ref
    name: str
    columns: tuple[str, ...]
    parent: Ref
    parent_columns: tuple[str, ...]
    rows: int = 0  # of the table
    bytes: int = 0
    parent_changes: int | None = None  # deletes and updates of the parent that were counted
    indexed: bool = True  # an index of the table begins with these columns, in any order


class Counter(NamedTuple):
    """A sequence, identity or AUTO_INCREMENT column that can run out."""

    ref: Ref  # the sequence, or the table
    used: int
    most: int  # the last value that fits: of the sequence or of the column that it fills, whichever ends first
    column: str = ""  # of `table`
    table: Ref | None = None
    kind: str = "sequence"  # sequence, identity, auto_increment
    cycles: bool = False
    column_type: str = ""
    hindered: str = ""  # what has to be seen to before its type can change: "the view v reads the column"
    chosen: bool = False  # somebody set an end that is nearer than that of its type

    @property
    def percent(self) -> float:
        return 100.0 * self.used / self.most if self.most > 0 else 100.0


class Structure(NamedTuple):
    """What the schema of one database says beside its tables and indexes."""

    foreign_keys: tuple[ForeignKey, ...] = ()
    keyless: tuple[Ref, ...] = ()  # tables without a primary key
    free_columns: t.Mapping[Ref, str] = {}  # of those: a column's name that is free there
    counters: tuple[Counter, ...] = ()
    foreign_engines: tuple[tuple[Ref, str], ...] = ()  # tables in another storage engine than the transactional one
    unknown: t.Mapping[str, str] = {}  # field -> why it is not all there
