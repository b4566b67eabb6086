# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked of an engine: one small record a kind of step. Beside _records.py on the bottom shelf.

A planner names an intent; the engine spells it. `ref` is what the step is about, and `lane` (where there is one) the
table whose other steps must not run at the same time.
"""

from __future__ import annotations

import typing as t

from ._records import Pace, Ref
from ._tuples import NamedTuple

if t.TYPE_CHECKING:
    from ._backups import Backup, Bucket, Decryption, Elsewhere, Manner, Stanza
    from ._retention import Archive, Child, Expiry


class Vacuum(NamedTuple):
    ref: Ref
    freeze: bool = False
    analyze: bool = False
    truncate: bool = True  # giving back empty pages at the end takes an exclusive lock for a moment
    cost_delay: float | None = None  # milliseconds

    @property
    def kind(self) -> str:
        return "freeze" if self.freeze else "vacuum"


class Analyze(NamedTuple):
    ref: Ref
    partitioned: bool = False  # the parent only; its partitions have steps of their own

    @property
    def kind(self) -> str:
        return "analyze"


class Rebuild(NamedTuple):
    """Gives space back to the file system: online, or exclusively while writers wait."""

    ref: Ref
    online: bool = True

    @property
    def kind(self) -> str:
        return "reclaim"


class Reindex(NamedTuple):
    """Builds an index anew: online, or exclusively while writers wait.

    Where indexes are rebuilt with their table only (`single rebuild` is lacking), `ref` is the table.
    """

    ref: Ref
    table: Ref
    online: bool = True

    @property
    def kind(self) -> str:
        return "reindex"

    @property
    def lane(self) -> Ref:
        return self.table


class RefreshCollation(NamedTuple):
    """Says that everything which depends on the collation has been rebuilt since its library changed."""

    ref: Ref  # () the database's default

    @property
    def kind(self) -> str:
        return "refresh_collation"


class RefreshView(NamedTuple):
    ref: Ref
    concurrently: bool = False  # readers go on meanwhile

    @property
    def kind(self) -> str:
        return "refresh"


class DropLeftover(NamedTuple):
    ref: Ref
    what: str  # kind of wreckage: "pg_repack", "reindex", …
    names: tuple[str, ...]
    table: Ref | None = None  # where `ref` is an index
    folder: str = ""  # of backups that died: `names` are relative to it

    @property
    def kind(self) -> str:
        return "drop_leftover"

    @property
    def lane(self) -> Ref:
        return self.table or self.ref


class Purge(NamedTuple):
    """Takes rows that are due out of a table, in small bites: for good, or into an archive."""

    ref: Ref  # the table, or one of its partitions
    table: Ref  # the rule's table
    expiry: Expiry
    walk: tuple[str, ...]  # the columns in whose order it is walked
    children: tuple[Child, ...] = ()  # leaf first: what hangs from a row leaves with it, in the same bite
    archive: Archive | None = None
    to: Ref | None = None  # the archive table
    pace: Pace = Pace(1000, 0.2)
    most: int = 50_000  # rows of a bite, however fast they are: what is archived in files passes through memory
    rows: int | None = None  # that this run may take; None: all
    due: int | None = None  # rows, when it was planned; None: unknown

    @property
    def kind(self) -> str:
        return "archive" if self.archive else "delete"

    @property
    def lane(self) -> Ref:
        return self.table

    @property
    def rule(self) -> str:
        return self.expiry.rule


class DropPartition(NamedTuple):
    """A partition goes whole, without a row being read."""

    ref: Ref
    table: Ref  # the partitioned one
    rule: str
    concurrently: bool = False
    empty: bool = False  # its rows were archived before: where there are any, it stays
    rows: int | None = None  # that go with it, counted when it was planned
    undated: str = ""  # a column: where there are rows without it by now, the partition stays

    @property
    def kind(self) -> str:
        return "drop_partition"

    @property
    def lane(self) -> Ref:
        return self.table


class Settle(NamedTuple):
    """Archive files of a dead run: what its last bite took is there once, in the table or in the file."""

    ref: Ref  # the table that the rows came from
    expiry: Expiry
    archive: Archive
    files: tuple[str, ...]

    @property
    def kind(self) -> str:
        return "settle"

    @property
    def rule(self) -> str:
        return self.expiry.rule


class RemoveFiles(NamedTuple):
    """Archive files all of whose rows have reached the end of their time."""

    ref: Ref  # the table that the rows came from
    rule: str
    folder: str
    files: tuple[str, ...]

    @property
    def kind(self) -> str:
        return "remove_archive"


class Dump(NamedTuple):
    """A backup is written: of a database; or (`ref` is the server) of all of it, or of what belongs to no database."""

    ref: Ref
    method: str  # dump, physical, pgbackrest, globals
    manner: Manner
    jobs: int = 1  # parallel workers inside this one
    exclude: tuple[str, ...] = ()  # patterns of tables whose rows are left out
    decode: bool = False  # parsed to its end while it streams by, since nobody here can read it afterwards
    parent: Backup | None = None  # the backup that an incremental one builds on
    stanza: Stanza | None = None  # of pgBackRest
    streams: tuple[tuple[Ref, ...], ...] = ()  # tables whose rows are written apart, beside the rest, of one moment

    @property
    def kind(self) -> str:
        return "dump"


class Verify(NamedTuple):
    """A backup is read again; its manifest then says how far it was verified."""

    ref: Ref
    backup: Backup | None  # None: the one that the step before it writes
    manner: Manner
    level: str  # checksum, decode, restore
    decrypt: Decryption | None = None
    on: str | Elsewhere = "throwaway"  # where a drill is done: throwaway, same_server, another server
    stanza: Stanza | None = None  # of pgBackRest, where it is one of its backups

    @property
    def kind(self) -> str:
        return "verify"


class CopyBackup(NamedTuple):
    ref: Ref
    backup: Backup | None  # None: the one that the steps before it write and verify
    manner: Manner
    to: str  # a folder, or s3://bucket/prefix
    bucket: Bucket | None = None  # how the service is reached, where `to` is a bucket
    source: str = ""  # it is fetched from there, to where the backup's folder is

    @property
    def kind(self) -> str:
        return "fetch" if self.source else "copy"


class RemoveBackup(NamedTuple):
    """Files that a manifest names, and the manifest."""

    ref: Ref
    backup: Backup
    copies: tuple[str, ...] = ()
    bucket: Bucket | None = None  # how the service of copies is reached

    @property
    def kind(self) -> str:
        return "remove_backup"


class Restore(NamedTuple):
    """A backup becomes a database; as a drill, one that is compared with the manifest and thrown away.

    A whole server's becomes a data directory.
    """

    ref: Ref  # the database that comes to be; or ("", (site,))
    backup: Backup
    drill: bool = False
    replace: bool = False
    globals: Backup | None = None  # roles and tablespaces, restored before
    jobs: int = 1
    decrypt: Decryption | None = None
    on: str | Elsewhere = "throwaway"  # where a drill is done: throwaway, same_server, another server
    site: str = ""  # the data directory that comes to be
    spaces: str = ""  # the folder of its tablespaces, where it has any
    owner: str = ""  # the account that it belongs to; "": the engine's choice
    prove: bool = True  # a server is started on it, and stopped, before it is called done
    parents: tuple[Backup, ...] = ()  # what an incremental one builds on, the full one first
    founded: bool = False  # the database was being made by a run of ours that died: while bare, it is nobody's

    @property
    def kind(self) -> str:
        return "restore"


# Cures that nobody carries out: the engine spells them as the fix of a finding.


class DropIndex(NamedTuple):
    ref: Ref
    table: Ref
    partitioned: bool = False  # with the indexes of all partitions

    @property
    def kind(self) -> str:
        return "drop_index"


class CreateIndex(NamedTuple):
    ref: Ref  # the table
    columns: tuple[str, ...]
    partitioned: bool = False

    @property
    def kind(self) -> str:
        return "create_index"


class EndSession(NamedTuple):
    ref: Ref
    id: int

    @property
    def kind(self) -> str:
        return "end_session"


class EndPrepared(NamedTuple):
    """Rolls back a prepared transaction that nobody came back for."""

    ref: Ref  # its database
    name: str

    @property
    def kind(self) -> str:
        return "end_prepared"


class DropSlot(NamedTuple):
    ref: Ref
    name: str

    @property
    def kind(self) -> str:
        return "drop_slot"


class Widen(NamedTuple):
    """A counter that runs out gets a larger type; with its column, where one is known."""

    ref: Ref  # the table, or a sequence without one
    column: str = ""
    sequence: Ref | None = None

    @property
    def kind(self) -> str:
        return "widen"


class AddKey(NamedTuple):
    """A primary key for a table without one: a new column that counts."""

    ref: Ref
    column: str = ""  # a name that is free there; "": the engine's choice

    @property
    def kind(self) -> str:
        return "add_key"


class ConvertEngine(NamedTuple):
    """A table moves into the transactional storage engine."""

    ref: Ref

    @property
    def kind(self) -> str:
        return "convert_engine"


Task = t.Union[
    Vacuum,
    Analyze,
    Rebuild,
    Reindex,
    RefreshCollation,
    RefreshView,
    DropLeftover,
    Purge,
    DropPartition,
    Settle,
    RemoveFiles,
    Dump,
    Verify,
    CopyBackup,
    RemoveBackup,
    Restore,
]
Cure = t.Union[Task, DropIndex, CreateIndex, EndSession, EndPrepared, DropSlot, Widen, AddKey, ConvertEngine]


def lane_of(task: Task) -> Ref:
    """What no other step may work on meanwhile."""
    lane = getattr(task, "lane", None)
    return lane if isinstance(lane, Ref) else task.ref
