# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bottom shelf: the records and protocols in which all parts speak. No SQL, no I/O, no threshold.

NamedTuples rather than dataclasses: defining forty dataclasses costs every module run about 30 ms, NamedTuples 6 ms.
"""

from __future__ import annotations

import typing as t
from datetime import datetime

from ._tuples import NamedTuple

if t.TYPE_CHECKING:
    from ._backups import Repository, Shelf, Sheltered
    from ._health import Health
    from ._retention import Expired, Missing, Sought
    from ._structure import Collation, Index, Structure, View
    from ._tasks import Cure, Task

# ---- what a step is about --------------------------------------------------------------------------------------------


class Ref(NamedTuple):
    """An object of a server. Structured for ever: never parsed back out of text such as `public.orders`."""

    database: str  # "" is the server itself; for SQLite the path of the file
    path: tuple[str, ...] = ()  # () the database, (schema, name), or (name,) where there are no schemas
    partition: str = ""  # of a table whose partitions are not tables of their own (MySQL, MariaDB)

    def __str__(self) -> str:
        name = ".".join(self.path) or self.database or "server"
        return f"{name} partition {self.partition}" if self.partition else name


Key = tuple[str, Ref]  # (kind of step, object): identifies a step across check mode, runs and the journal


# ---- measured --------------------------------------------------------------------------------------------------------


class Dead(NamedTuple):
    """Rows that are deleted but still take space."""

    rows: int
    percent: float  # of live and dead rows together
    removable: int | None = None  # when something pins the horizon: how many of them a vacuum could remove now


class Bloat(NamedTuple):
    """Space that a rebuild would give back: `percent` of the object, the truth expected between `low` and `high`."""

    bytes: int
    percent: float
    low: float
    high: float
    method: str
    outside: int = 0  # of `bytes`: in values stored out of line


class Table(NamedTuple):
    """One table, materialized view, catalog, partitioned parent, index or database file.

    None in a field: this engine has no such thing, or the login may not see it (then a finding says so).
    """

    ref: Ref
    kind: str = "table"  # table, partitioned, partition, matview, catalog, index, file
    bytes: int = 0  # own storage with out-of-line values, without indexes
    total_bytes: int = 0  # with its indexes
    rows: int = 0
    dead: Dead | None = None
    inserted: int | None = None  # rows since the last vacuum
    insert_limit: float | None = None  # the server's own threshold for `inserted`; None: it has none
    changed: int | None = None  # rows since the last analyze
    analyzed: datetime | None = None
    missing_statistics: str = ""  # what the optimizer has no statistics for: "the table", "column a", …
    freeze_percent: float | None = None  # of the age at which the server freezes by force
    freeze_floor: float = 0.0  # freezing cannot get below this: the age of what pins the horizon, in the same percent
    bloat: Bloat | None = None
    own: t.Mapping[str, float] = {}  # the object's own settings that override the policy's field of that name
    lacks: t.Mapping[str, str] = {}  # capability -> why it is not there, see CAPABILITIES
    pinned_by: str = ""  # who keeps dead rows of this table from being removed
    indexes: int = 0


# Capabilities a server or a table may lack; `lacks` maps each missing one to the reason in words.
CAPABILITIES = (
    "write",  # a standby; a read-only database
    "session",  # a pooler in between: session locks and settings do not hold
    "rewrite",  # a major version newer than any that was tested
    "vacuum",  # dead rows are the engine's own business
    "freeze",
    "analyze",
    "cost delay",
    "truncate",  # giving back empty pages at the end would cancel queries on standbys
    "reclaim",  # space is given back by another object (a table inside a file that is rebuilt whole)
    "online rebuild",
    "exclusive rebuild",
    "local rebuild",  # a rebuild is replayed by replicas or a cluster
    "refresh",  # there are no materialized views
)


class Activity(NamedTuple):
    """Who is at work on the server, as far as the login may see."""

    oldest_seconds: float | None = None  # of the longest open transaction that is not ours
    oldest_who: str = ""
    connections: int | None = None
    max_connections: int | None = None


class Space(NamedTuple):
    """A file system of the server: `free` and `total` bytes, None when they cannot be read from where we run."""

    name: str  # data, wal, tmp, tablespace NAME, the file
    free: int | None = None
    total: int | None = None


class Leftover(NamedTuple):
    """Wreckage of work that died: measured like everything else and cured by a step of its own."""

    ref: Ref  # the object that carries it
    what: str  # kind of wreckage, for example "pg_repack"
    names: tuple[str, ...]  # what there is to remove, for the reason and the statement
    bytes: int = 0
    dead: bool = True  # provably nobody works on it any more
    why_not: str = ""  # when not dead: who still works on it; else why only who made it knows that it can go
    table: Ref | None = None  # where `ref` is an index
    marks: tuple[str, ...] = ()  # what `owned` says of it where a run of ours was making it


class Finding(NamedTuple):
    """What no step can cure. Priority 1 is urgent, 2 needs a decision, 3 is worth knowing."""

    priority: int
    code: str
    ref: Ref
    message: str
    cure: Cure | None = None  # a task that nobody carries out; the engine spells it as the fix
    fix: str = ""  # where no task fits: a statement or an action in words


class DatabaseInfo(NamedTuple):
    """A database as the server lists it, before anybody connected to it."""

    name: str
    bytes: int | None = None
    system: bool = False  # templates and the server's own: looked at for transaction-id age only
    why_not: str = ""  # why it cannot be connected to
    freeze_percent: float | None = None


class Server(NamedTuple):
    engine: str  # what the server says it is: postgresql, mysql, mariadb, sqlite
    version: str
    number: tuple[int, ...]  # (18, 4), (10, 11, 19), (9, 7, 4)
    address: str  # host:port or socket; names the server in errors and in the journal
    role: str  # primary, standby (PostgreSQL), replica (MySQL, MariaDB)
    now: datetime  # the server's clock, with zone: `now` is measured, too
    databases: tuple[DatabaseInfo, ...] = ()
    lacks: t.Mapping[str, str] = {}
    settings: t.Mapping[str, t.Any] = {}  # what the engine needs to know of the server's settings
    findings: tuple[Finding, ...] = ()


class Database(NamedTuple):
    """One measured database."""

    name: str
    system: bool = False
    tables: tuple[Table, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    findings: tuple[Finding, ...] = ()
    lacks: t.Mapping[str, str] = {}
    activity: Activity | None = None  # when asked for
    spaces: tuple[Space, ...] = ()  # when activity was asked for
    indexes: tuple[Index, ...] = ()
    collations: tuple[Collation, ...] = ()  # mismatches, when indexes were asked for
    views: tuple[View, ...] = ()
    structure: Structure | None = None
    expired: tuple[Expired, ...] = ()
    without: tuple[Missing, ...] = ()  # rules whose table this database does not have
    bytes: int | None = None  # of its tables; when backups were asked for, where the list of databases has no sizes
    large: tuple[Table, ...] = ()  # whose rows a backup may write apart, largest first; when backups were asked for
    repository: Repository | None = None  # of the server, when asked for: backups that another program keeps
    wreck: bool = False  # a restore is under way in it, or has died; when backups were asked for
    bare: bool = False  # there is nothing in it; when backups were asked for, where a restore may die before its mark


class Attempt(NamedTuple):
    """From the journal: how a step of this kind on this object went last time."""

    at: datetime
    seconds: float
    bytes_before: int
    bytes_after: int
    expected_bytes: int  # what it was expected to free
    ok: bool


class Note(NamedTuple):
    """From the journal: what a step left for the next one of its kind on this object."""

    at: datetime
    text: str  # of the engine's own making; only ever compared


class Sample(NamedTuple):
    """From the journal: how large an object was."""

    at: datetime
    bytes: int
    rows: int | None


class Measured(NamedTuple):
    server: Server
    databases: tuple[Database, ...]
    past: t.Mapping[Key, Attempt] = {}  # the journal's memory: may be empty, never needed for correctness
    overdue: frozenset[Key] = frozenset()  # deferred by an earlier run
    owned: t.Mapping[Key, tuple[str, ...]] = {}  # what a dead run was making when it died, by the step that made it
    notes: t.Mapping[Key, Note] = {}  # what the last such step that ended well left for the next
    samples: t.Mapping[Ref, tuple[Sample, ...]] = {}  # sizes of earlier days, oldest first; when asked for
    health: Health | None = None
    shelf: Shelf | None = None  # the backup folder, when asked for
    blocked: t.Mapping[Key, str] = {}  # steps that a limit would stop now, and why: other needs get steps of their own
    glimpsed: bool = False  # rows were looked for, and not counted: unknown is no news yet


class Wants(NamedTuple):
    """What a planner needs measured. Wants of several operations are merged: one measurement serves all."""

    tables: bool = False  # sizes, rows, dead rows, statistics, ages
    bloat: bool = False
    bloat_min_bytes: int = 0  # smaller objects need no estimate
    indexes: bool = False  # definitions, sizes, scans, and collations whose version changed
    index_bloat: bool = False
    index_bloat_min_bytes: int = 0
    views: bool = False  # materialized views
    structure: bool = False  # foreign keys, primary keys, counters
    health: bool = False  # of the server: measured once, not in each database
    samples: bool = False  # the journal's sizes
    expired: tuple[Sought, ...] = ()  # rows that are due to leave
    backups: Sheltered | None = None  # the backup folder: looked at once, not in each database
    leftovers: bool = False
    activity: bool = False  # open transactions, connections, free space
    freeze_from: float | None = None  # look into system and unselected databases from this freeze_percent on
    exact: tuple[Ref, ...] = ()  # second look: only where a threshold lies between low and high
    scan_budget: int | None = None  # bytes that exact measurement may read
    only: tuple[Ref, ...] = ()  # the proof measures what was touched, nothing else: tables, indexes, views
    shared: bool = False  # of many proofs: who else is at work may have been read for another one a moment ago
    counting: str = "exact"  # of `expired`: exact; enough: totals as exact as Sought.share needs; any: is there a row?

    def merge(self, other: Wants) -> Wants:
        smallest = [w.bloat_min_bytes for w in (self, other) if w.bloat]
        ages = [w.freeze_from for w in (self, other) if w.freeze_from is not None]
        least = [w.index_bloat_min_bytes for w in (self, other) if w.index_bloat]
        budgets = [w.scan_budget for w in (self, other) if w.scan_budget is not None]
        return Wants(
            tables=self.tables or other.tables,
            bloat=self.bloat or other.bloat,
            bloat_min_bytes=min(smallest, default=0),
            indexes=self.indexes or other.indexes,
            index_bloat=self.index_bloat or other.index_bloat,
            index_bloat_min_bytes=min(least, default=0),
            views=self.views or other.views,
            structure=self.structure or other.structure,
            health=self.health or other.health,
            samples=self.samples or other.samples,
            expired=tuple(dict.fromkeys(self.expired + other.expired)),
            backups=self.backups.merge(other.backups) if self.backups else other.backups,
            leftovers=self.leftovers or other.leftovers,
            activity=self.activity or other.activity,
            freeze_from=min(ages, default=None),
            exact=tuple(dict.fromkeys(self.exact + other.exact)),
            scan_budget=max(budgets, default=None),
            only=tuple(dict.fromkeys(self.only + other.only)),
        )


class Execution(NamedTuple):
    """The options of how to carry out, in seconds and bytes; the same for every module."""

    jobs: int = 2
    time_budget: float | None = None
    hard_stop: bool = True
    lock_timeout: float = 1.0  # longest wait for a lock that others would queue behind
    concurrent_wait: float = 1800.0  # longest wait of work that nobody queues behind
    retries: int = 3
    if_running: str = "fail"  # fail, skip, wait
    replicas: tuple[str, ...] = ()
    max_replica_lag: float | None = None
    stop_file: str = ""
    assume_free_space: int | None = None  # where the server's free space cannot be read


class Amount(NamedTuple):
    """What was, or is expected to be, done: bytes freed, rows, bytes written, seconds."""

    bytes: int = 0
    rows: int = 0
    seconds: float = 0.0
    written: int = 0
    bites: int = 0  # committed one by one
    children: int = 0  # rows that hung from others, and left with them

    def plus(self, more: Amount) -> Amount:
        return Amount(
            self.bytes + more.bytes,
            self.rows + more.rows,
            self.seconds + more.seconds,
            self.written + more.written,
            self.bites + more.bites,
            self.children + more.children,
        )


class Pace(NamedTuple):
    """How large the next bite may be, and how long it should take."""

    rows: int
    seconds: float
    duty: float = 1.0  # the share of the time in which bites work; the rest of it belongs to others


# ---- planned and carried out -----------------------------------------------------------------------------------------


class Limit(NamedTuple):
    """Holds before a step starts and at each tick: preflight and throttle are the same thing. Unknown is too much."""

    gauge: str  # replica_lag, oldest_snapshot (seconds), disk_missing, wal_missing, tmp_missing (bytes): more is worse
    worst: float
    otherwise: str  # wait | skip


class Step(NamedTuple):
    task: Task
    reason: str
    measured: t.Mapping[str, t.Any] = {}
    expected: Amount = Amount()  # what it will free, and (from the journal's experience) the seconds it will take
    rank: tuple[int, float] = (0, 0.0)  # safety class, then gain: larger first
    size: int = 0  # bytes of the object, which the time it takes depends on
    after: tuple[Key, ...] = ()
    limits: tuple[Limit, ...] = ()
    skip: str = ""  # why it will not be carried out (standby, no means)
    fails: bool = False  # where it is skipped, the run has failed: what it is for is not there without it
    projected: bool = False  # due only because of a step before it: the planner is asked again before it starts

    @property
    def key(self) -> Key:
        rule = getattr(self.task, "rule", "")  # two rules may take rows of one table
        return (f"{self.task.kind} {rule}" if rule else self.task.kind, self.task.ref)

    @property
    def unstarted(self) -> str:
        """Its status where `skip` keeps it from being started."""
        return "failed" if self.fails else "skipped"


class Plan(NamedTuple):
    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...] = ()
    shown: t.Mapping[str, t.Sequence[t.Any]] = {}  # lists that the module's fact has besides


class Outcome(NamedTuple):
    step: Step
    status: str  # planned done skipped deferred failed
    actual: Amount = Amount()
    bytes_before: int | None = None
    bytes_after: int | None = None
    changed: bool = False  # deferred or failed steps may have changed something: they say so
    proven: bool | None = None  # the planner, shown the new measurement, asks for it no more
    error: str = ""
    attempts: int = 1
    rows_left: int | None = None  # that are still due


class Proof(NamedTuple):
    proven: bool
    bytes_after: int | None = None
    findings: tuple[Finding, ...] = ()
    rows_left: int | None = None  # that are still due


# ---- work: a generator is a step under way ---------------------------------------------------------------------------


class Tick(NamedTuple):
    """What was done since the last tick. With a cursor all is committed: the runner may stop here, to go on later."""

    amount: Amount = Amount()
    cursor: str | None = None  # opaque to the runner
    owns: str = ""  # journaled before the act goes on: wreckage that the next run may remove
    disowns: str = ""  # what the step said it would make under this name, and did not
    waited: float = 0.0  # seconds of the amount's that a smaller bite would take, too: those of its commit
    note: str = ""  # journaled when the step ends well: what the next step of this kind on this object may know
    found: Finding | None = None  # what the work came upon, and went on without
    touched: bool = False  # something was changed that the amount does not tell of


class Seen(NamedTuple):
    """What a server says of a step under way, in its own views of progress."""

    phase: str = ""  # in the server's words
    percent: float | None = None  # of that phase; of all the step's work where `whole`
    whole: bool = False
    rows: int | None = None
    bytes: int | None = None


Work = t.Generator[Tick, Pace, None]  # every amount travels by a tick: no second way
