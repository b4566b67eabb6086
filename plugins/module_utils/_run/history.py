# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal read as history, without a byte of it changed. What it means is _operations/history.py."""

from __future__ import annotations

import sqlite3
import typing as t
from pathlib import Path

from .._errors import BadInput, Refused
from .._past import Backed, Known, Past, PastRun, PastStep, Series, Streak, Thing
from .._tuples import NamedTuple
from . import samples
from .file import NotAJournal, reading
from .host import state_directories
from .memory import interrupted, read_ref

KNOWN = """
SELECT address, max(runs), max(last)
  FROM (SELECT address, count(*) AS runs, max(began) AS last FROM runs GROUP BY address
        UNION ALL SELECT DISTINCT address, 0, NULL FROM objects)
 GROUP BY address ORDER BY address
"""
RUNS = """
SELECT id, address, CAST(module AS TEXT), CAST(began AS REAL), CAST(ended AS REAL), CAST(status AS TEXT)
  FROM runs WHERE began >= ? ORDER BY id
"""
# Cast, since a damaged page may hold values of other kinds than were written.
STEPS = """
SELECT s.id, CAST(s.run AS INTEGER), CAST(s.object AS INTEGER), CAST(s.began AS REAL), CAST(s.status AS TEXT),
       CAST(s.reason AS TEXT), coalesce(CAST(s.expected_bytes AS INTEGER), 0),
       coalesce(CAST(s.expected_rows AS INTEGER), 0), coalesce(CAST(s.expected_seconds AS REAL), 0.0),
       CAST(s.bytes AS INTEGER), CAST(s.rows AS INTEGER), CAST(s.written AS INTEGER), CAST(s.seconds AS REAL),
       CAST(s.bytes_before AS INTEGER), CAST(s.bytes_after AS INTEGER), CAST(s.changed AS INTEGER),
       CAST(s.proven AS INTEGER), CAST(s.error AS TEXT)
  FROM steps s JOIN runs r ON r.id = s.run
 WHERE r.began >= ?
 ORDER BY s.id
"""
# Of the whole journal: what fails once a week does so more often than the last days tell.
STREAKS = """
SELECT s.object, r.module, count(*), min(s.began), max(s.began), s.error, max(s.id)
  FROM steps s JOIN runs r ON r.id = s.run
  LEFT JOIN (SELECT object, max(id) AS id FROM steps WHERE status = 'done' GROUP BY object) d ON d.object = s.object
 WHERE (s.status IN ('failed', 'interrupted') OR (s.status = 'running' AND s.run IN ({dead})))
   AND s.id > coalesce(d.id, 0)
 GROUP BY s.object
HAVING max(s.began) >= ?
"""
BACKED = """
SELECT o.address, o.ref, o.kind, max(s.began)
  FROM objects o JOIN steps s ON s.object = o.id
 WHERE o.kind IN ('dump', 'verify') AND s.status = 'done'
 GROUP BY o.id
"""


class History(NamedTuple):
    """`path` is None where there is no journal; `why` says so."""

    path: str | None
    why: str
    past: Past


def read(path: str | None, chosen: t.Callable[[str], bool], *, since: float, now: float) -> History:
    """What the journal at `path` (None: at the default place, "none": nowhere) knows of the servers `chosen`.

    `since` and `now` in seconds since 1970. Raises BadInput for a path that cannot be used, Refused for a journal that
    cannot be read.
    """
    if path == "none":
        return History(None, "the option journal says none", Past())
    place = _given(path) if path else _default()
    if place is None:
        return History(None, "no journal was begun yet", Past())
    try:
        with reading(place) as db:
            if db is None:
                return History(None, f"no journal was begun yet at {place}", Past())
            return History(str(place), "", _past(db, chosen, since, now))
    except NotAJournal as error:
        raise BadInput(f"journal: {error}", cure="Name the journal that the other modules use") from error
    except (OSError, sqlite3.Error, TypeError, ValueError, OverflowError) as error:
        # The last three: a damaged page that can be read, and holds no names or times.
        cure = "A run that writes moves a corrupt journal aside and begins a new one; see its owner and mode otherwise"
        raise Refused(f"the journal {place} cannot be read: {error}", cure=cure) from error


def _given(path: str) -> Path:
    try:
        place = Path(path).expanduser()
    except RuntimeError as error:
        raise BadInput(f"journal: {path!r} cannot be used: {error}", cure="Name its absolute path") from error
    if not place.is_absolute() or (place.exists() and not place.is_file()):
        raise BadInput(f"journal: {path!r} is no absolute path of a file", cure="Name its absolute path")
    return place


def _default() -> Path | None:
    """Where the modules keep it by default, the first place that has one."""
    places = [directory / "journal.sqlite" for directory in state_directories()]
    return next((place for place in places if place.exists()), None)


def _past(db: sqlite3.Connection, chosen: t.Callable[[str], bool], since: float, now: float) -> Past:
    known = tuple(Known(*row) for row in db.execute(KNOWN))
    servers = {k.server for k in known if chosen(k.server)}
    dead = set(interrupted(db))
    things = _things(db, servers)
    runs = (PastRun(*row) for row in db.execute(RUNS, (since,)))
    steps = (PastStep(*row) for row in db.execute(STEPS, (since,)))
    return Past(
        known,
        db.execute("SELECT min(began) FROM runs").fetchone()[0],
        tuple(r._replace(status="interrupted") if r.id in dead else r for r in runs if r.server in servers),
        tuple(_buried(s) if s.run in dead else s for s in steps if s.thing in things),
        things,
        tuple(_streaks(db, things, dead, since)),
        tuple(_series(db, servers, since, now)),
        tuple(_backed(db, servers)),
    )


def _buried(step: PastStep) -> PastStep:
    return step._replace(status="interrupted") if step.status == "running" else step


def _things(db: sqlite3.Connection, servers: t.AbstractSet[str]) -> dict[int, Thing]:
    found = {}
    for number, server, kind, ref in db.execute("SELECT id, address, kind, ref FROM objects WHERE kind <> ''"):
        if server in servers:
            plain, _space, rule = kind.partition(" ")
            found[number] = Thing(server, plain, rule, read_ref(ref))
    return found


def _streaks(
    db: sqlite3.Connection, things: t.Mapping[int, Thing], dead: t.AbstractSet[int], since: float
) -> t.Iterator[Streak]:
    words = STREAKS.format(dead=", ".join(str(int(run)) for run in dead))
    for thing, operation, times, first, last, error, _newest in db.execute(words, (since,)):
        if thing in things:
            yield Streak(thing, operation, times, first, last, error or "")


def _series(db: sqlite3.Connection, servers: t.AbstractSet[str], since: float, now: float) -> t.Iterator[Series]:
    for server in sorted(servers):
        for ref, found in samples.recall(db, server, now, seconds=now - since).items():
            yield Series(server, ref, found)


def _backed(db: sqlite3.Connection, servers: t.AbstractSet[str]) -> t.Iterator[Backed]:
    found: dict[tuple[str, str], Backed] = {}
    for server, ref, kind, at in db.execute(BACKED):
        if server in servers:
            key = (server, read_ref(ref).database)
            known = found.get(key, Backed(*key))
            if kind == "dump":
                found[key] = known._replace(dumped=max(at, known.dumped or at))
            else:
                found[key] = known._replace(verified=max(at, known.verified or at))
    yield from found.values()
