# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the journal's past means: growth, pace, how good predictions were. Pure; reading it is _run/history.py."""

from __future__ import annotations

import typing as t

from .._errors import BadInput
from .._health import CACHE_HITS, CONNECTIONS, DISK, STATEMENTS
from .._past import Past, PastStep, Series
from .._records import Ref, Sample
from .._selection import Patterns, names_of
from .._tuples import NamedTuple
from .._units import duration, size
from . import trend

OPTIONS: dict[str, t.Any] = {
    "since": {"type": "str", "default": "30d"},
    "servers": {"type": "list", "elements": "str", "default": []},
    "until_database_size": {"type": "str"},
    "until_table_size": {"type": "str"},
}
SPAN = trend.DAY  # seconds that samples have to cover before anybody is told when something is full
SHORTEST = 0.1  # seconds: below, what was predicted is the overhead
POINTS = 30  # of a database, for a chart
TABLES = 10  # of a database
READINGS = {  # of the server, in the order in which they are shown
    CONNECTIONS: ("connections", 1.0),
    STATEMENTS: ("statement_seconds", 1e-6),
    CACHE_HITS: ("cache_hit_percent", 100.0),
}


class Policy(NamedTuple):
    since: float  # seconds
    servers: Patterns | None
    tables: Patterns
    until_database: int | None
    until_table: int | None

    def takes(self, ref: Ref) -> bool:
        """Whether an object is selected; what is no table, such as a database, is."""
        return not ref.path or self.tables.takes(*names_of(ref))


class Growth(NamedTuple):
    """How a database or table grows. Where there is no trend `why` says so."""

    server: str
    ref: Ref
    samples: tuple[Sample, ...]
    bytes: trend.Trend | None
    rows: trend.Trend | None
    why: str

    @property
    def per_day(self) -> float:
        """Bytes, 0 where it is not known."""
        return self.bytes.per_day if self.bytes else 0.0


class Disk(NamedTuple):
    """A disk of data; `databases` None: all of the server."""

    server: str
    name: str
    databases: frozenset[str] | None
    last: Sample  # free and, as rows, total bytes
    per_day: float | None
    days: float | None
    why: str


class Reading(NamedTuple):
    """How a reading of the server changes; in its own unit."""

    server: str
    metric: str
    samples: tuple[Sample, ...]
    first: float | None
    last: float | None
    per_day: float | None
    most: int | None
    why: str


class Ratio(NamedTuple):
    """What came of it by what was expected."""

    steps: int
    median: float
    low: float  # a tenth of them is below
    high: float  # a tenth of them is above


class Prediction(NamedTuple):
    operation: str
    kind: str
    steps: int
    seconds: Ratio | None
    bytes: Ratio | None
    rows: Ratio | None


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    since = duration(params["since"], "since")
    if since < 1:
        raise BadInput(f"since: {params['since']} is no time to look back", cure="Write it as 7d or 30d")
    return Policy(
        since,
        Patterns(params["servers"], "servers") if params["servers"] else None,
        Patterns(params["tables"], "tables"),
        _size(params, "until_database_size"),
        _size(params, "until_table_size"),
    )


def _size(params: t.Mapping[str, t.Any], name: str) -> int | None:
    return None if params[name] is None else size(params[name], name)


# ---- growth ----------------------------------------------------------------------------------------------------------


def growths(policy: Policy, series: t.Sequence[Series]) -> list[Growth]:
    """Databases and tables, the fastest first; what has no trend last."""
    found = [_growth(s) for s in series if s.ref.database and policy.takes(s.ref)]
    return sorted(found, key=lambda g: (g.bytes is None, -g.per_day, g.server, g.ref))


def _growth(series: Series) -> Growth:
    slope = trend.of_bytes(series.samples)
    rows, why = trend.of_rows(series.samples), _why(slope, len(series.samples))
    return Growth(series.server, series.ref, series.samples, slope, rows, why)


def _why(slope: trend.Trend | None, points: int) -> str:
    if slope is None:
        return f"too few samples ({points} of {trend.LEAST})"
    return "the samples span less than a day" if slope.seconds < SPAN else ""


def days_until(growth: Growth, limit: int | None) -> float | None:
    """Days until it is as large as that, 0 where it is; None where that is not known, or will not be."""
    if limit is None or not growth.samples:
        return None
    room = limit - growth.samples[-1].bytes
    if room <= 0:
        return 0.0
    return trend.days_until(growth.bytes, room) if not growth.why else None


def disks(growths: t.Sequence[Growth], series: t.Sequence[Series]) -> list[Disk]:
    """The disks of data, and how long they last at the pace of all databases on them together."""
    found: dict[tuple[str, str], tuple[Sample, set[str]]] = {}
    for one in series:
        if one.ref.database or one.ref.path[:1] != (DISK,) or not one.samples:
            continue
        key, last = (one.server, one.ref.path[1]), one.samples[-1]
        newest, files = found.get(key, (last, set()))
        found[key] = (max(newest, last, key=lambda s: s.at), files.union(one.ref.path[2:]))
    return [_disk(growths, *key, *seen) for key, seen in sorted(found.items(), key=lambda item: item[0])]


def _disk(growths: t.Sequence[Growth], server: str, name: str, last: Sample, files: t.AbstractSet[str]) -> Disk:
    on_it = [g for g in growths if g.server == server and not g.ref.path and (not files or g.ref.database in files)]
    known = [g for g in on_it if g.bytes is not None]
    per_day = sum(g.per_day for g in known)
    why = "" if any(not g.why for g in known) else next((g.why for g in known or on_it), "no sizes were kept")
    days = last.bytes / per_day if per_day > 0 and not why else None
    return Disk(server, name, frozenset(files) or None, last, per_day if known else None, days, why)


def days_until_full(growth: Growth, disks: t.Sequence[Disk]) -> float | None:
    """Of the disk that a database is on; the soonest, where it is not known on which."""
    days = [
        d.days
        for d in disks
        if d.server == growth.server
        and d.days is not None
        and (d.databases is None or growth.ref.database in d.databases)
    ]
    return min(days, default=None)


def performance(series: t.Sequence[Series]) -> list[Reading]:
    """What the server was read at, and how that changes."""
    return [
        _reading(one, metric, unit)
        for ref, (metric, unit) in READINGS.items()
        for one in sorted(series, key=lambda s: s.server)
        if one.ref == ref
    ]


def _reading(series: Series, metric: str, unit: float) -> Reading:
    samples, counted = series.samples, metric != "connections"
    # What only counts up tells of the spans between.
    points = trend.spans(samples) if counted else [(s.at.timestamp(), float(s.bytes)) for s in samples]
    found = trend.slope(points)
    first, last = (points[0][1] * unit, points[-1][1] * unit) if points else (None, None)
    most = samples[-1].rows if samples and not counted else None
    per_day = found.per_day * unit if found else None
    return Reading(series.server, metric, samples, first, last, per_day, most, _why(found, len(points)))


# ---- predictions -----------------------------------------------------------------------------------------------------


def predictions(past: Past) -> list[Prediction]:
    """How good they were, by operation and kind of step; of steps that were done."""
    operations = {run.id: run.operation for run in past.runs}
    groups: dict[tuple[str, str], list[PastStep]] = {}
    for step in past.steps:
        if step.status == "done":
            groups.setdefault((operations.get(step.run, ""), past.things[step.thing].kind), []).append(step)
    return [_prediction(operation, kind, steps) for (operation, kind), steps in sorted(groups.items())]


def _prediction(operation: str, kind: str, steps: t.Sequence[PastStep]) -> Prediction:
    took = [(s.seconds or 0.0, s.expected_seconds) for s in steps]
    return Prediction(
        operation,
        kind,
        len(steps),
        ratio([(actual, expected) for actual, expected in took if max(actual, expected) >= SHORTEST]),
        ratio([(s.freed or 0, s.expected_bytes) for s in steps]),
        ratio([(s.rows or 0, s.expected_rows) for s in steps]),
    )


def ratio(pairs: t.Iterable[tuple[float, float]]) -> Ratio | None:
    """Of (actual, expected) pairs; None where nothing was expected."""
    found = sorted(actual / expected for actual, expected in pairs if expected > 0)
    return Ratio(len(found), quantile(found, 0.5), quantile(found, 0.1), quantile(found, 0.9)) if found else None


def quantile(values: t.Sequence[float], share: float) -> float:
    """Of sorted values, between two of them in proportion (as most programs do, Hyndman and Fan's type 7)."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)
