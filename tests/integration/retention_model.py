# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random tables with dates of every kind, and in plain Python which of their rows leave. No test lives here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from tests.fleet import Server
from tests.integration.cleanup import connection

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia")
UNITS = {"seconds": 1, "milliseconds": 1000}
# Of dates: how a column of each kind is declared.
KINDS: dict[str, dict[str, str]] = {
    "postgresql": {
        "moment": "timestamptz",
        "wall": "timestamp",
        "day": "date",
        "seconds": "bigint",
        "milliseconds": "numeric",
    },
    "mysql": {"moment": "timestamp", "wall": "datetime(3)", "day": "date", "seconds": "int", "milliseconds": "bigint"},
    "sqlite": {"moment": "TEXT", "wall": "TEXT", "day": "TEXT", "seconds": "INTEGER", "milliseconds": "INTEGER"},
}
KEYS = ("number", "text", "composite", "unique", "none")
NAMES = ("t", "Ta ble", 'quo"te', "o'clock", "per%cent", "back`tick", "ünï", "select", "%s", "a\\b")
STATES = (None, "paid", "open", "%s", "it's")
WHERE: dict[str, Callable[[str | None], bool]] = {
    "": lambda state: True,
    "state = 'paid'": lambda state: state == "paid",
    "state <> 'paid' -- and so on": lambda state: state is not None and state != "paid",
    "state = 'paid' OR state IS NULL": lambda state: state in ("paid", None),
    "state LIKE '%s%' OR state = 'it''s'": lambda state: state in ("%s", "it's"),
}


class Row(NamedTuple):
    number: int
    at: timedelta | None  # before now
    state: str | None


class World(NamedTuple):
    """A table, its children and a rule for it."""

    name: str
    column: str
    key: str
    kind: str
    zone: str
    rows: tuple[Row, ...]
    children: tuple[int, ...]  # numbers of their parents
    indexed: bool
    archive: timedelta | None
    delete: timedelta | None
    folder: bool
    format: str
    where: str
    on_children: str
    rows_per_run: int | None


class Fate(NamedTuple):
    """Numbers of rows, by what becomes of them; of children by their parents."""

    stay: frozenset[int]
    archived: frozenset[int]
    deleted: frozenset[int]


# ---- drawing ---------------------------------------------------------------------------------------------------------


def edges(now: datetime, zone: str) -> list[timedelta]:
    """How long ago clocks in this zone were put forward or back, in the last year."""
    found, place = [], ZoneInfo(zone)
    before = (now - timedelta(days=366)).astimezone(place).utcoffset()
    for hour in range(366 * 24, 24, -1):
        at = now - timedelta(hours=hour - 1)
        after = at.astimezone(place).utcoffset()
        if after != before:
            found.append(now - at.replace(minute=0, second=0, microsecond=0))
        before = after
    return found


@st.composite
def worlds(draw: st.DrawFn, engine: str) -> World:
    """Ages stand around the cutoffs, and cutoffs sometimes around the hours in which clocks are changed."""
    zone = draw(st.sampled_from(ZONES))
    near = [days * timedelta(days=1) for days in (30, 90)]
    for edge in edges(datetime.now(UTC), zone):
        near += [edge + timedelta(minutes=minutes) for minutes in (-95, -25, 25, 95)]
    ages = sorted(draw(st.lists(st.sampled_from(near), min_size=2, max_size=2, unique=True)))
    which = draw(st.sampled_from(["delete", "archive", "both"]))
    archive = ages[0] if which != "delete" else None
    delete = ages[1] if which != "archive" else None
    minutes = draw(st.lists(st.integers(-4000, 4000).map(lambda m: 2 * m + 1), max_size=12))
    wide = st.sampled_from([timedelta(days=days) for days in (0, 1, 400, 4000, -40)])
    off = st.one_of(
        wide,
        *[st.sampled_from([age + timedelta(minutes=m) for m in (-63, -33, -7, 7, 33, 63, *minutes)]) for age in ages],
    )
    made = draw(st.lists(st.tuples(st.one_of(st.none(), off), st.sampled_from(STATES)), min_size=3, max_size=30))
    rows = tuple(Row(number, at, state) for number, (at, state) in enumerate(made, 1))
    key = draw(st.sampled_from([k for k in KEYS if engine != "mysql" or k != "none"]))
    parents = (
        st.lists(st.sampled_from([row.number for row in rows]), max_size=8) if rows and key == "number" else st.just([])
    )
    children = tuple(draw(parents))
    modes = ["fail", "delete"] + (["archive"] if archive else [])
    return World(
        name=draw(st.sampled_from(NAMES)),
        column=draw(st.sampled_from(["at", "we ird", 'q"', "ünï", "%s"])),
        key=key,
        kind=draw(st.sampled_from(list(KINDS[engine]))),
        zone=zone,
        rows=rows,
        children=children,
        indexed=draw(st.booleans()),
        archive=archive,
        delete=delete,
        folder=draw(st.booleans()),
        format=draw(st.sampled_from(["jsonl", "csv"])),
        where=draw(st.sampled_from(list(WHERE))),
        on_children=draw(st.sampled_from(modes)),
        rows_per_run=draw(st.sampled_from([None, None, 1, 4])),
    )


# ---- the model -------------------------------------------------------------------------------------------------------


def stored(world: World, moment: datetime) -> Any:
    """What stands in the column for a moment: something that compares as the rule says."""
    if world.kind in UNITS:
        return int(moment.timestamp() * UNITS[world.kind])
    wall = moment.astimezone(ZoneInfo(world.zone)).replace(tzinfo=None)
    return {"moment": moment, "wall": wall, "day": wall.date()}[world.kind]


def fate(world: World, made: datetime, now: datetime) -> Fate:
    """What a run at this moment does, of rows that were made at that."""
    places: dict[str, set[int]] = {"stay": set(), "archived": set(), "deleted": set()}
    for row in world.rows:
        places[_place(world, row, made, now)].add(row.number)
    if world.on_children == "fail" and any(number not in places["stay"] for number in world.children):
        return Fate(frozenset(row.number for row in world.rows), frozenset(), frozenset())
    return Fate(*(frozenset(numbers) for numbers in places.values()))


def _place(world: World, row: Row, made: datetime, now: datetime) -> str:
    if row.at is None or not WHERE[world.where](row.state):
        return "stay"
    value = stored(world, made - row.at)
    if world.delete is not None and value < stored(world, now - world.delete):
        return "deleted"
    if world.archive is not None and value < stored(world, now - world.archive):
        return "archived"
    return "stay"


# ---- the database ----------------------------------------------------------------------------------------------------


class Place:
    """A database of one engine in which worlds are made, one after the other."""

    def __init__(self, where: Server | Path, database: str = "") -> None:
        self.where, self.database = where, database
        engine = where.engine if isinstance(where, Server) else "sqlite"
        self.engine = "mysql" if engine == "mariadb" else engine

    def quoted(self, name: str) -> str:
        mark = "`" if self.engine == "mysql" else '"'
        return mark + name.replace(mark, 2 * mark) + mark

    def literal(self, value: Any) -> str:
        if value is None or isinstance(value, int):
            return "NULL" if value is None else str(value)
        if isinstance(value, datetime) and value.tzinfo and self.engine == "mysql":
            value = value.astimezone(UTC).replace(tzinfo=None)
        text = (
            value.isoformat(*([" "] if isinstance(value, datetime) else [])) if hasattr(value, "isoformat") else value
        )
        return "'" + str(text).replace("'", "''") + "'"

    def make(self, world: World, made: datetime) -> None:
        with connection(self.where, self.database) as db:
            cursor = db.cursor()
            for statement in self._statements(world, made):
                cursor.execute(statement)

    def drop(self, world: World) -> None:
        with connection(self.where, self.database) as db:
            cursor = db.cursor()
            for name in ("hangs", "hangs_archive", world.name, f"{world.name}_archive"):
                cursor.execute(f"DROP TABLE IF EXISTS {self.quoted(name)}")

    def _statements(self, world: World, made: datetime) -> Iterator[str]:
        table, column = self.quoted(world.name), self.quoted(world.column)
        if self.engine == "mysql":
            yield "SET time_zone = '+00:00'"
        yield f"CREATE TABLE {table} ({', '.join(self._columns(world, column))})"
        if world.indexed:
            yield f"CREATE INDEX by_date ON {table} ({column})"
        if world.rows:
            yield f"INSERT INTO {table} VALUES {', '.join(self._values(world, made))}"
        if world.children:
            fields = "c int PRIMARY KEY, n int NOT NULL"
            yield f"CREATE TABLE hangs ({fields}, FOREIGN KEY (n) REFERENCES {table} (n))"
            rows = ", ".join(f"({c}, {n})" for c, n in enumerate(world.children, 1))
            yield f"INSERT INTO hangs VALUES {rows}"

    def _columns(self, world: World, column: str) -> Iterable[str]:
        # SQLite has no type for dates; the alias of a row number is spelled out.
        number = "n INTEGER" if self.engine == "sqlite" else "n int"
        kind = KINDS[self.engine][world.kind] + (" NULL" if self.engine == "mysql" else "")
        yield f"{number} {'PRIMARY KEY' if world.key == 'number' else 'NOT NULL'}"
        yield "k varchar(60) NOT NULL"
        yield f"{column} {kind}"
        yield "state varchar(20)"
        keys = {"text": "PRIMARY KEY (k)", "composite": "PRIMARY KEY (k, n)", "unique": "UNIQUE (n)"}
        if world.key in keys:
            yield keys[world.key]

    def _values(self, world: World, made: datetime) -> Iterator[str]:
        for row in world.rows:
            at = None if row.at is None else stored(world, made - row.at)
            word = f"{'k' if world.key == 'composite' and row.number % 3 else f'{row.number % 7} {row.number}'} ü'%s"
            yield f"({row.number}, {self.literal(word)}, {self.literal(at)}, {self.literal(row.state)})"

    def options(self, world: World, folder: Path) -> dict[str, Any]:
        login = self.where.login() if isinstance(self.where, Server) else {"engine": "sqlite"}
        rule: dict[str, Any] = {"name": "drawn", "table": world.name, "date_column": world.column}
        rule |= {"refuse_over_percent": 100, "timezone": world.zone, "on_children": world.on_children}
        for option, age in (("archive_after", world.archive), ("delete_after", world.delete)):
            if age is not None:
                rule[option] = f"{age.total_seconds():.0f}s"
        if world.archive is not None and world.folder:
            rule |= {"archive_dir": str(folder), "archive_format": world.format}
        if world.kind in UNITS:
            rule["date_unit"] = world.kind
        if world.where:
            rule["where"] = world.where
        if world.rows_per_run:
            rule["rows_per_run"] = world.rows_per_run
        databases = [self.database or str(self.where)]
        return {**login, "databases": databases, "rules": [rule], "journal": "none"}
