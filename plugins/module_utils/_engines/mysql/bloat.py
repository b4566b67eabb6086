# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a table's files a rebuild would give back: live rows by sample, packed as a rebuild packs them.

No threshold. DATA_FREE, which knows wholly free extents only, does not see rows deleted here and there.
"""

from __future__ import annotations

import math
import re
import typing as t

from ..._errors import Busy, DbFault, Refused
from ..._records import Bloat, Finding, Ref, Server, Wants
from ..._tuples import NamedTuple
from . import keyspace, sampling
from .catalog import Contents, Stored
from .names import quoted, table_of
from .natural import rebuilt_bytes
from .rows import row_sql
from .shapes import Shape, entry_sql, read_shapes

PURGE = re.compile(r"undo n:o < (\d+) state: .*?\nHistory list length (\d+)", re.DOTALL)

LEAST_BYTES = 1 << 20  # a smaller file grows by single pages: there is nothing to give back
RANGES, CLOSER_RANGES = 64, 512
FEW_ROWS = 50  # fewer say nothing: the keys lie in a small part of their range
BYTES_EACH = 64 << 10  # of rows in one range, so a first look reads about 4 MB of a table, a closer one 32 MB
# Bytes of a table whose rows may be counted one by one: at once, and by a closer look where nobody said a budget.
COUNT_AT_ONCE, COUNT_BUDGET = 32 << 20, 256 << 20

# Of a natural size: how far rebuilt tables of many shapes lay from this model (tests/integration holds them to it).
MODEL_ERROR = 0.03
# Standard error of the rows in InnoDB's own statistics, which come from 20 pages an index.
STATISTICS_ERROR = 0.10
GOOD_ERROR = 0.07  # a sample with less needs no second opinion
KEYLESS_ERROR = 0.05  # of a row's average where only the table's beginning could be looked at
# Purge is behind when it is in the middle of a huge transaction, or this many transactions wait for it.
PURGE_ROWS, PURGE_TRANSACTIONS = 1000, 100_000
MOST_SECONDS = 3.0  # of one query: where purge is behind, even the smallest key is a long search


class Rows(NamedTuple):
    """How many live rows there are: the most likely number, and what it lies between."""

    likely: float
    low: float
    high: float
    sampled: bool = False  # by the same ranges as the averages: their error is in `low` and `high` already


class Look(NamedTuple):
    """What was learned of one table or partition by looking at some of its rows."""

    shape: Shape
    rows: Rows
    averages: tuple[float, ...]  # bytes of a row, pages beside it, bytes of an entry of each of `keys`
    keys: tuple[str, ...]  # b-trees beside the primary key
    seen: int
    error: float = 0.0  # of the averages, as a share

    def entry(self, key: str) -> float | None:
        """Average bytes of an index entry."""
        return self.averages[2 + self.keys.index(key)] if key in self.keys else None


class Asked(NamedTuple):
    """How closely one table is looked at."""

    budget: int  # bytes that may be read to count its rows: more than 0 asks for a closer look
    counted: bool  # whether its statistics can be of no other time


class Findings(NamedTuple):
    """Bloat by table, what it was told from, and what keeps it from being true."""

    bloat: dict[Ref, Bloat]
    looks: dict[Ref, Look]
    findings: list[Finding]


def estimates(
    link: t.Any, wants: Wants, contents: Contents, server: Server, indexed: t.Collection[Ref] = ()
) -> Findings:
    """Bloat of the tables and partitions that are large enough, and of `indexed`, which have large indexes."""
    found = Findings({}, {}, [])
    least = max(LEAST_BYTES, wants.bloat_min_bytes)
    closer = {ref._replace(path=ref.path[:1]) for ref in wants.exact}  # an index's table
    large = [
        s
        for s in (*contents.tables, *contents.partitions)
        if s.total_bytes >= least and (wants.bloat or _among(s, closer) or s.ref in indexed)
    ]
    if not large:
        return found
    behind = purge_pending(link)
    if behind:
        found.findings.append(Finding(3, "purge_pending", Ref(link.database), behind))
    default = server.settings.get("innodb_stats_auto_recalc")
    trusted = {s.ref for s in large if s.base.recalculated(default) or all(p.known for p in s.pieces)}
    shapes = read_shapes(link, [s.ref.path[0] for s in large if s.base.engine == "InnoDB"], server)
    with link.at_most(MOST_SECONDS):
        for stored in large:
            try:
                budget = (wants.scan_budget or COUNT_BUDGET) if _among(stored, closer) else 0
                asked = Asked(budget, stored.ref in trusted)
                _one(link, stored, shapes.get(stored.ref.path[0]), asked, found)
            except (Busy, Refused) as fault:
                # Locked, gone meanwhile, over the time, or not for this login to read: the others are measured still.
                message = f"its bloat is not known, its rows could not be sampled: {fault.cause}"
                found.findings.append(Finding(3, "bloat_unknown", stored.ref, message))
    return found


def _among(stored: Stored, refs: t.Collection[Ref]) -> bool:
    """The partitions of a table are meant with it."""
    return stored.ref in refs or stored.ref._replace(partition="") in refs


def purge_pending(link: t.Any) -> str:
    """Why deleted rows still lie in the pages, in words; empty when purge keeps up, or nobody may know."""
    try:
        text = str(link.rows("SHOW ENGINE INNODB STATUS")[0][2])
    except (DbFault, IndexError):
        return ""
    numbers = PURGE.search(text)
    undo, history = (int(n) for n in numbers.groups()) if numbers else (0, 0)
    if undo < PURGE_ROWS and history < PURGE_TRANSACTIONS:
        return ""
    what = f"{history:,} transactions wait" if history >= PURGE_TRANSACTIONS else "it is within a large transaction"
    return f"InnoDB has not yet purged what was deleted ({what}): space is not yet what it will be"


def _one(link: t.Any, stored: Stored, shape: Shape | None, asked: Asked, found: Findings) -> None:
    if stored.base.engine in ("MyISAM", "Aria"):
        free = _from_free(stored)
        if free:
            found.bloat[stored.ref] = free
        return
    if shape is None or stored.base.engine != "InnoDB" or not stored.counted:
        return
    if not all(p.own_file and not p.sparse for p in stored.pieces):
        return  # a shared file gives nothing back; holes in a file are no bloat
    look = _look(link, stored, shape, asked)
    found.looks[stored.ref] = look
    found.bloat[stored.ref] = _from_look(stored, look)


def _from_free(stored: Stored) -> Bloat | None:
    """These engines know every free byte between their rows."""
    sizes = stored.sizes
    total = sizes.data + sizes.indexed if sizes else 0
    if not sizes or not total:
        return None
    percent = 100 * min(1.0, sizes.free / total)
    return Bloat(sizes.free, percent, percent, percent, "free space of the file")


def _from_look(stored: Stored, look: Look) -> Bloat:
    """The size after a rebuild, by the same model for the likely, the least and the most rows."""
    layout, files = look.shape.layout, max(1, len(stored.pieces))

    def size(rows: float, factor: float, slack: int = 0) -> float:
        averages = [n * factor for n in look.averages]
        return rebuilt_bytes(rows, averages, layout, files=files, slack=slack)

    error = math.hypot(MODEL_ERROR, 2 * look.error)
    likely = size(look.rows.likely, 1.0)
    least, most = size(look.rows.low, 1 - error, -1), size(look.rows.high, 1 + error, 1)
    method = f"sample of {look.seen:,} rows" if look.seen else "no rows"
    smallest = min((p.page_bytes for p in stored.pieces), default=layout.page)
    if smallest < layout.page and look.seen:
        # How far pages compress is not known: between not at all and to the size of the compressed page.
        least, method = least * smallest / layout.page, f"{method}, compressed"
        likely = (least + most) / 2
    whole = stored.total_bytes

    def share(bytes_left: float) -> float:
        return 100 * min(1.0, max(0.0, 1 - bytes_left / whole))

    percent = share(likely)
    return Bloat(int(whole * percent / 100), percent, share(most), share(least), method)


def _look(link: t.Any, stored: Stored, shape: Shape, asked: Asked) -> Look:
    keys = [key for key in shape.others if key.kind == "BTREE"]
    expressions = [*row_sql(shape.columns, shape.layout), *(entry_sql(key, shape) for key in keys)]
    sample = _sample(link, stored, shape, expressions, closer=asked.budget > 0)
    names = tuple(key.name for key in keys)
    if sample is None:
        return Look(shape, Rows(0, 0, 0), (0.0,) * len(expressions), names, 0)
    rows = _rows(link, stored, sample, asked)
    # Where ranges were cut off, only the beginnings of some long stretches were seen.
    everywhere = shape.key_type and sample.rows is not None
    error = math.hypot(0.0 if rows.sampled else sample.spread, 0.0 if everywhere else KEYLESS_ERROR)
    return Look(shape, rows, sample.averages, names, sample.seen, error)


def _sample(
    link: t.Any, stored: Stored, shape: Shape, expressions: t.Sequence[str], *, closer: bool
) -> sampling.Sample | None:
    """Rows from all over the table; None when it is empty."""
    table = _from(stored)
    ranges = CLOSER_RANGES if closer else max(8, min(RANGES, stored.total_bytes >> 19))
    each = max(4, min(200, BYTES_EACH * max(stored.rows, 1) // max(stored.total_bytes, 1)))
    found = None
    if shape.primary and shape.key_type:
        key = shape.primary.columns[0][0]
        first, last = link.rows(f"SELECT MIN({quoted(key)}), MAX({quoted(key)}) FROM {table}")[0]
        if first is None:
            return None
        keys = keyspace.keys_of(shape.key_type, key, first, last)
        if keys:
            table += " FORCE INDEX (PRIMARY)"
            found = sampling.keyed(link, table, keys, expressions, ranges=ranges, rows_each=each, rows=stored.rows)
            if found is None or (found.seen < FEW_ROWS and found.error):
                found = sampling.dives(link, table, keys, expressions, places=ranges, rows_each=max(4, each // 4))
    return found or sampling.beginning(link, _from(stored), expressions, ranges * each // 4)


def _from(stored: Stored) -> str:
    part = f" PARTITION ({quoted(stored.ref.partition)})" if stored.ref.partition else ""
    # Rows of the past take space as those of today do.
    past = " FOR SYSTEM_TIME ALL" if stored.base.type == "SYSTEM VERSIONED" and not part else ""
    return table_of(stored.ref) + part + past


def _rows(link: t.Any, stored: Stored, sample: sampling.Sample, asked: Asked) -> Rows:
    """The sample's own number where it is good and the statistics do not gainsay it; else a count where that is cheap.

    What can be neither is between all that was said.
    """
    said, error = _statistics(stored, sample, asked.counted)
    by_statistics = Rows(said, said * (1 - 2 * error), said * (1 + 2 * error))
    if sample.rows is not None:
        known = Rows(sample.rows, sample.rows * (1 - 2 * sample.error), sample.rows * (1 + 2 * sample.error), True)
        agreed = known.low <= by_statistics.high and by_statistics.low <= known.high
        if agreed and sample.error < GOOD_ERROR:
            return _no_fewer(known, sample.seen)
    counted = _count(link, stored, max(asked.budget, COUNT_AT_ONCE))
    if counted is not None:
        return Rows(counted, counted, counted)
    if sample.rows is None:
        return _no_fewer(by_statistics, sample.seen)
    nearer = known if sample.error <= error else by_statistics
    return _no_fewer(
        Rows(nearer.likely, min(known.low, by_statistics.low), max(known.high, by_statistics.high)), sample.seen
    )


def _no_fewer(rows: Rows, seen: int) -> Rows:
    return rows._replace(**{name: max(float(seen), getattr(rows, name)) for name in ("likely", "low", "high")})


def _statistics(stored: Stored, sample: sampling.Sample, counted: bool) -> tuple[float, float]:
    """Rows as InnoDB's statistics have them, and their standard error as a share.

    InnoDB counts on from its last estimate, of whose error a large delete leaves all, and few rows. Where it has not
    counted since, there may be any number of them.
    """
    rows = float(max(stored.rows, sample.seen))
    estimated = float(sum(s.rows for s in stored.statistics))
    error = STATISTICS_ERROR * max(1.0, estimated / rows) if counted else 1.0
    if not all(p.known for p in stored.pieces):
        # Nobody counted since the estimate: if the files have another size by now, it is of another time.
        pages = sum(s.clustered_pages + s.other_pages for s in stored.statistics)
        written = pages * min((p.page_bytes for p in stored.pieces), default=0)
        error += abs(1 - written / stored.total_bytes) / 2 if written else 0.5
    return rows, min(1.0, error)


def _count(link: t.Any, stored: Stored, budget: int) -> float | None:
    """All of them, where that many bytes may be read for it, and it takes no longer than a query may."""
    if stored.data_bytes > budget:
        return None
    try:
        return float(link.rows(f"SELECT COUNT(*) FROM {_from(stored)}")[0][0])
    except Refused:
        return None
