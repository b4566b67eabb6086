# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows, and where they go: the records of db_cleanup. Beside _records.py on the bottom shelf."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ._tuples import NamedTuple

if t.TYPE_CHECKING:
    from ._records import Leftover, Ref


class Expiry(NamedTuple):
    """Which rows of a table leave: their date is in [since, before), and the user's condition holds."""

    rule: str  # its name
    table: str  # as the user wrote it: `schema.table`, or `table`
    database: str  # "": every selected database that has the table
    column: str
    before: datetime  # with zone: a moment on the server's clock, the same for the whole run
    since: datetime | None = None  # None: from the beginning. Rows without a date never leave
    where: str = ""  # the user's SQL, unread
    unit: str = ""  # of a whole number: seconds, milliseconds, microseconds since 1970; "": the column is no number
    zone: str = "UTC"  # of a column that has none itself


class Archive(NamedTuple):
    """Where rows go: into a table, or into files."""

    table: str = ""  # as the user wrote it
    folder: str = ""  # an absolute path on the host where the module runs
    format: str = "jsonl"  # jsonl, csv
    compression: str = "auto"  # auto (zstd where there is a library for it), zstd, gzip


class Sought(NamedTuple):
    """What is to be found out for one stage of a rule."""

    expiry: Expiry
    archive: Archive | None = None  # None: rows are deleted
    optional: bool = False  # a table that is not there is no news: a preset's
    partitions: bool = True  # whole partitions may be dropped
    timeout: float | None = None  # seconds that counting may take; afterwards rows are unknown
    files_before: datetime | None = None  # archive files whose rows are all older than this are to go
    gently: bool = False  # others come first: one processor of the server is enough for counting
    share: float = 0.0  # percent: the table's total has to tell whether more than this is due; 0: it is wanted exactly


class Child(NamedTuple):
    """A foreign key by which rows of `table` hang from rows of `parent`."""

    table: Ref
    columns: tuple[str, ...]
    parent: Ref
    parent_columns: tuple[str, ...]
    action: str  # on delete: no action, restrict, cascade, set null, set default
    rows: int | None = None  # that hang, over all levels, from rows that are due; None: not counted
    indexed: bool = True  # an index begins with `columns`: without one each row of the parent costs a scan
    name: str = ""  # of the constraint
    circular: bool = False  # the table hangs from itself, or from its own children
    archived: bool = False  # its rows are archived, too, and not only deleted: the planner says so in a Purge
    to: Ref | None = None  # into which table, where the rule archives into tables
    walk: tuple[str, ...] = ()  # its own key


class Piece(NamedTuple):
    """A table that stores rows that are due: the rule's own, or one of its partitions."""

    ref: Ref
    rows: int | None = None  # due, without those of partitions that can be dropped; None: unknown
    bytes: int = 0  # that these rows take, estimated from the mean size of a row; without indexes
    walk: tuple[str, ...] = ()  # the columns in whose order it is walked; empty: it cannot be, see `why_not`
    indexed: bool = False  # the walk begins with the date: rows that stay are not read
    why_not: str = ""  # why its rows cannot be taken in bites; with what to do about it
    row_bytes: int = 0  # of a row, on average


class Part(NamedTuple):
    """A partition all of whose rows are due."""

    ref: Ref
    rows: int | None = None
    bytes: int = 0  # with indexes
    concurrently: bool = False  # it can be detached while readers and writers go on
    undated: str = ""  # the date column, where rows without a date would lie in this partition: they never leave


class Depot(NamedTuple):
    """The archive table as it is."""

    ref: Ref
    exists: bool
    missing: tuple[tuple[str, str], ...] = ()  # (column, type) that the source has and it has not
    why_not: str = ""  # why rows cannot go there
    triggers: tuple[str, ...] = ()  # that fire for each row that comes: they may put another one there


class Files(NamedTuple):
    """The archive's folder as it is."""

    unsettled: tuple[str, ...] = ()  # files that a dead run left behind; absolute paths
    outdated: tuple[str, ...] = ()  # files whose rows are all older than `files_before`
    outdated_rows: int = 0
    outdated_bytes: int = 0
    why_not: str = ""  # why nothing can be written there


class Expired(NamedTuple):
    """What one stage of a rule finds in one database."""

    sought: Sought
    ref: Ref  # the table, resolved
    rows: int | None = None  # due, partitions included; None: unknown
    of_rows: int | None = None  # that the table has; exact where an estimate would be too near to tell
    pieces: tuple[Piece, ...] = ()
    parts: tuple[Part, ...] = ()
    children: tuple[Child, ...] = ()  # leaf first
    triggers: tuple[str, ...] = ()  # that fire for each row that is deleted
    heirs: tuple[str, ...] = ()  # tables whose rows a query of this one shows as well; no rule on it looks at them
    depot: Depot | None = None
    files: Files | None = None
    detaching: tuple[Leftover, ...] = ()  # partitions whose detaching, or dropping afterwards, was interrupted
    why_not: str = ""  # why the rule cannot be applied here: no such column, no date, …
    cure: str = ""
    code: str = ""  # of the finding that says `why_not`: no_such_column, not_a_date, …; "": not_applicable
    ambiguous: tuple[Ref, ...] = ()  # several tables are called so


class Missing(NamedTuple):
    """A rule whose table this database does not have."""

    sought: Sought
    database: str


# ---- what passes through memory on its way into files ----------------------------------------------------------------


class Column(NamedTuple):
    name: str
    type: str  # as the server writes it
    encoding: str  # of its values in `Frame.rows`: number, boolean, text, hex, any (each value says what it is)


class Frame(NamedTuple):
    """The rows that one bite took out of one table.

    Values are None, bool, int, float, str (text; and numbers that must keep every digit, where the column says number)
    or bytes (only in columns of encoding hex and any). Nothing else: engines turn what they read into these.
    """

    table: Ref
    columns: tuple[Column, ...]
    rows: t.Sequence[t.Sequence[t.Any]]
    keys: t.Sequence[str] = ()  # of the rule's table: what tells the rows apart, in the engine's own words
    first: str = ""  # smallest and largest date as ISO 8601 in UTC; "" for children
    last: str = ""


class Pending(NamedTuple):
    """The last bite of a file of which nobody knows whether it was committed."""

    mark: str  # what the engine noted of the transaction
    keys: tuple[str, ...]


class Taken(NamedTuple):
    """What a bite removed, children included; not committed."""

    rows: int = 0
    bytes: int = 0  # estimated, of the rule's rows
    children: int = 0  # rows
    frames: tuple[Frame, ...] = ()  # where they go into files
    touched: bool = False  # no row left, and something was written all the same: by a trigger that keeps rows
