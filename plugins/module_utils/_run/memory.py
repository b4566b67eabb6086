# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the journal remembers: read in one go when it is opened. Pure reading; writing stands in journal.py."""

from __future__ import annotations

import json
import socket
import sqlite3
import typing as t
from datetime import datetime, timezone

from .._past import Died
from .._records import Attempt, Key, Note, Ref
from .._tuples import NamedTuple
from .host import alive

FORGET_SECONDS = 30 * 86400.0  # deferred steps and cursors of runs so long ago mean nothing any more


TOLD_SECONDS = 3 * 86400.0  # a run that died is told for so long, unless one of its module comes to its end before


class Memory(NamedTuple):
    past: t.Mapping[Key, Attempt] = {}
    rates: t.Mapping[str, float] = {}  # bytes per second by kind of step
    overdue: frozenset[Key] = frozenset()
    cursors: t.Mapping[Key, str] = {}
    owned: t.Mapping[Key, tuple[str, ...]] = {}
    notes: t.Mapping[Key, Note] = {}
    died: tuple[Died, ...] = ()


def written(ref: Ref) -> str:
    return json.dumps([ref.database, list(ref.path), ref.partition])


def read_ref(text: str) -> Ref:
    database, path, partition = json.loads(text)
    return Ref(database, tuple(path), partition)


def recall(db: sqlite3.Connection, address: str, now: float) -> Memory:
    """Everything known of this server. Raises sqlite3.Error."""
    past = {}
    for kind, ref, at, seconds, before, after, expected, ok in db.execute(
        "SELECT o.kind, o.ref, a.at, a.seconds, a.bytes_before, a.bytes_after, a.expected_bytes, a.ok"
        "  FROM attempts a JOIN objects o ON o.id = a.object WHERE o.address = ?",
        (address,),
    ):
        when = datetime.fromtimestamp(at, timezone.utc)
        past[kind, read_ref(ref)] = Attempt(when, seconds, before, after, expected, bool(ok))
    rates = {
        kind: float(size) / seconds
        for kind, size, seconds in db.execute(
            "SELECT kind, bytes, seconds FROM rates WHERE address = ? AND bytes > 0 AND seconds > 0", (address,)
        )
    }
    cursors = {
        (kind, read_ref(ref)): str(json.loads(cursor))
        for kind, ref, cursor in db.execute(
            "SELECT o.kind, o.ref, c.cursor FROM cursors c JOIN objects o ON o.id = c.object"
            " WHERE o.address = ? AND c.at >= ?",
            (address, now - FORGET_SECONDS),
        )
    }
    owned: dict[Key, tuple[str, ...]] = {}
    for kind, ref, owns in db.execute(
        "SELECT o.kind, o.ref, w.owns FROM owned w JOIN objects o ON o.id = w.object WHERE o.address = ? ORDER BY w.at",
        (address,),
    ):
        key = (kind, read_ref(ref))
        owned[key] = (*owned.get(key, ()), str(json.loads(owns)))
    return Memory(
        past, rates, _overdue(db, address, now), cursors, owned, _notes(db, address), tuple(_died(db, address, now))
    )


def _notes(db: sqlite3.Connection, address: str) -> dict[Key, Note]:
    if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'notes'").fetchone()[0]:
        return {}  # a journal of an earlier version, opened for reading
    return {
        (kind, read_ref(ref)): Note(datetime.fromtimestamp(at, timezone.utc), str(json.loads(note)))
        for kind, ref, note, at in db.execute(
            "SELECT o.kind, o.ref, n.note, n.at FROM notes n JOIN objects o ON o.id = n.object WHERE o.address = ?",
            (address,),
        )
    }


def interrupted(db: sqlite3.Connection) -> list[int]:
    """Runs that never ended, and whose process is no more. Another host's processes cannot be judged from here."""
    return [
        run
        for run, pid, born in db.execute(
            "SELECT id, pid, born FROM runs WHERE status = 'running' AND host = ?", (socket.gethostname(),)
        )
        if not alive(pid, born)
    ]


def _died(db: sqlite3.Connection, address: str, now: float) -> t.Iterator[Died]:
    """The last run of each module, where it died. Also one that a later run of another module has found dead."""
    dead = set(interrupted(db))
    newest = "SELECT max(id) FROM runs WHERE address = ? GROUP BY module"
    for run, module, began, status, pid in db.execute(
        f"SELECT id, module, began, status, pid FROM runs WHERE id IN ({newest}) AND began >= ? ORDER BY id",
        (address, now - TOLD_SECONDS),
    ).fetchall():
        if run in dead or status == "interrupted":
            step = db.execute(
                "SELECT o.kind, o.ref FROM steps s JOIN objects o ON o.id = s.object"
                " WHERE s.run = ? AND s.status IN ('running', 'interrupted') ORDER BY s.id LIMIT 1",
                (run,),
            ).fetchone()
            yield Died(module, began, pid, *((step[0], read_ref(step[1])) if step else ()))


def _overdue(db: sqlite3.Connection, address: str, now: float) -> frozenset[Key]:
    """What an earlier run deferred, or was killed in."""
    rows = db.execute(
        "SELECT o.kind, o.ref FROM deferred d JOIN objects o ON o.id = d.object WHERE o.address = ? AND d.at >= ?",
        (address, now - FORGET_SECONDS),
    ).fetchall()
    for run in interrupted(db):
        rows += db.execute(
            "SELECT o.kind, o.ref FROM steps s JOIN objects o ON o.id = s.object"
            " WHERE s.run = ? AND s.status = 'running' AND o.address = ? AND s.began >= ?",
            (run, address, now - FORGET_SECONDS),
        ).fetchall()
    return frozenset((kind, read_ref(ref)) for kind, ref in rows)
