# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal that writes: every step, cursor and claim in a transaction of its own. Opening it is journal.py.

Losing the journal costs speed and history, never correctness: every write may fail, and then only warns.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
import typing as t
from datetime import datetime
from pathlib import Path

from .._records import Key, Outcome, Ref, Sample, Step, Tick
from .file import NotAJournal, is_corrupt, move_aside, open_for_writing, transaction
from .host import birth
from .journal import KEEP, Journal, Warn
from .memory import interrupted, recall, written

MEMORY = ("attempts", "cursors", "owned", "deferred", "notes")  # of each object one: kept however short history is
FADE = 0.95  # what a kind's rate keeps of its past at each step: the last twenty steps make most of it
PATIENCE = 3  # failed writes in a row after which the journal is left alone

Write = t.Callable[[sqlite3.Connection], object]


class FileJournal(Journal):
    """A journal that writes. Raises OSError, sqlite3.Error, NotAJournal when it is made, and nothing afterwards."""

    def __init__(self, path: Path, address: str, warn: Warn, keep: float = KEEP) -> None:
        super().__init__(path=path, address=address)
        self._file, self._address, self._warn, self._keep = path, address, warn, keep
        self._db: sqlite3.Connection | None = None
        self._module, self._run = "", 0
        self._rows: dict[Key, int] = {}
        self._closed: dict[Key, int] = {}  # the same of steps that have their outcome
        self._pending: dict[Key, str] = {}  # notes of steps that have not ended yet
        self._misses = 0
        self._earlier = 0.0  # when the run before this one began: a clock that jumps ahead makes nothing old
        try:
            self._open()
        except sqlite3.Error as error:
            if not is_corrupt(error):
                raise
            self._replace(error)

    def _open(self) -> None:
        db = open_for_writing(self._file)
        try:
            self._inode = self._file.stat().st_ino
            self._memory = recall(db, self._address, time.time())
        except BaseException:
            db.close()
            raise
        self._db = db

    def _replace(self, error: sqlite3.Error) -> None:
        """Moves a corrupt file aside and begins a new one."""
        self.shut()
        if self._file.exists() and self._file.stat().st_ino == getattr(self, "_inode", self._file.stat().st_ino):
            aside = move_aside(self._file)
            self._warn(f"The journal {self._file} is corrupt ({error}): it was moved to {aside} and a new one begun")
        remembered = self._memory
        self._open()
        self._memory = remembered
        self._rows.clear()
        if self._module:
            self.begin_run(self._module)

    def _write(self, write: Write) -> None:
        """One transaction; what goes wrong with it is a warning."""
        if self._db is None:
            return
        try:
            with transaction(self._db):
                write(self._db)
            self._misses = 0
        except sqlite3.ProgrammingError:  # a fault of ours, such as another thread: not to be hidden
            raise
        except sqlite3.Error as error:
            self._mishap(error)

    def _mishap(self, error: sqlite3.Error) -> None:
        self._misses += 1
        if self._misses == 1:
            self._warn(f"The journal {self._file} cannot be written ({error}): this run goes on without it")
        if self._misses >= PATIENCE:
            self.shut()
        elif is_corrupt(error):
            try:
                self._replace(error)
            except (OSError, sqlite3.Error, NotAJournal) as again:
                self._warn(f"No new journal can be begun: {again}")

    def begin_run(self, module: str, *, check: bool = False) -> None:
        if check:
            return
        self._module = module

        def write(db: sqlite3.Connection) -> None:
            _bury(db)
            last = db.execute("SELECT began FROM runs ORDER BY id DESC LIMIT 1").fetchone()
            self._earlier = last[0] if last else 0.0
            self._run = _insert(
                db,
                "runs",
                address=self._address,
                module=module,
                began=time.time(),
                status="running",
                host=socket.gethostname(),
                pid=os.getpid(),
                born=birth(os.getpid()),
            )

        self._write(write)

    def start(self, step: Step, statements: t.Sequence[str] = ()) -> None:
        self._write(lambda db: self._begin(db, step, statements))

    def _begin(self, db: sqlite3.Connection, step: Step, statements: t.Sequence[str] = ()) -> int:
        self._rows[step.key] = _insert(
            db,
            "steps",
            run=self._run,
            object=self._object(db, step.key),
            began=time.time(),
            status="running",
            reason=step.reason,
            statements=json.dumps(list(statements)),
            size=step.size,
            expected_bytes=step.expected.bytes,
            expected_rows=step.expected.rows,
            expected_seconds=step.expected.seconds,
        )
        return self._rows[step.key]

    def tick(self, step: Step, tick: Tick) -> None:
        if tick.note:
            self._pending[step.key] = tick.note
        if tick.cursor is None and not tick.owns and not tick.disowns:
            return

        def write(db: sqlite3.Connection) -> None:
            thing, now = self._object(db, step.key), time.time()
            if tick.cursor is not None:
                db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (thing, json.dumps(tick.cursor), now))
            if tick.owns:
                db.execute("INSERT OR REPLACE INTO owned VALUES (?, ?, ?)", (thing, json.dumps(tick.owns), now))
            if tick.disowns:
                db.execute("DELETE FROM owned WHERE object = ? AND owns = ?", (thing, json.dumps(tick.disowns)))

        self._write(write)

    def close(self, outcome: Outcome) -> None:
        self._write(lambda db: self._end(db, outcome))
        row = self._rows.pop(outcome.step.key, None)
        if row is not None:
            self._closed[outcome.step.key] = row
        self._pending.pop(outcome.step.key, None)

    def amend(self, outcome: Outcome) -> None:
        words = "UPDATE steps SET proven = ?, bytes_after = ?, error = ? WHERE id = ?"
        row = self._closed.get(outcome.step.key)
        values = (outcome.proven, outcome.bytes_after, _text(outcome.error), row)
        if row is not None:
            self._write(lambda db: db.execute(words, values))

    def put_off(self, outcomes: t.Sequence[Outcome]) -> None:
        now = time.time()
        words = "INSERT OR IGNORE INTO deferred VALUES (?, ?, ?)"
        if outcomes:
            self._write(
                lambda db: [db.execute(words, (self._object(db, o.step.key), _text(o.error), now)) for o in outcomes]
            )

    def _end(self, db: sqlite3.Connection, outcome: Outcome) -> None:
        step, actual = outcome.step, outcome.actual
        row = self._rows.get(step.key) or self._begin(db, step)
        db.execute(
            "UPDATE steps SET status = ?, bytes = ?, rows = ?, written = ?, seconds = ?, bytes_before = ?,"
            " bytes_after = ?, changed = ?, proven = ?, attempts = ?, error = ? WHERE id = ?",
            (
                *(outcome.status, actual.bytes, actual.rows, actual.written, actual.seconds, outcome.bytes_before),
                *(outcome.bytes_after, outcome.changed, outcome.proven, outcome.attempts, _text(outcome.error), row),
            ),
        )
        thing, now = self._object(db, step.key), time.time()
        db.execute("DELETE FROM deferred WHERE object = ?", (thing,))
        if outcome.status == "deferred":
            db.execute("INSERT INTO deferred VALUES (?, ?, ?)", (thing, _text(outcome.error), now))
        if outcome.status == "done":
            db.execute("DELETE FROM cursors WHERE object = ?", (thing,))
            self._disown(db, step, thing)
        # What takes bites has ended well at each of them.
        if step.key in self._pending and (outcome.status == "done" or getattr(step.task, "pace", None)):
            note = json.dumps(self._pending[step.key])
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (thing, note, now))
        self._learn(db, outcome, thing, now)

    def _disown(self, db: sqlite3.Connection, step: Step, thing: int) -> None:
        """What was made is finished, or, for a task that names what it removes, gone."""
        db.execute("DELETE FROM owned WHERE object = ?", (thing,))
        for name in getattr(step.task, "names", ()):
            db.execute(
                "DELETE FROM owned WHERE owns = ? AND object IN (SELECT id FROM objects WHERE address = ? AND ref = ?)",
                (json.dumps(name), self._address, written(step.task.ref)),
            )

    def _learn(self, db: sqlite3.Connection, outcome: Outcome, thing: int, now: float) -> None:
        """Takes the attempt into memory, by the rule that past() states, and into the rate of its kind."""
        step, seconds, ok = outcome.step, outcome.actual.seconds, outcome.status == "done"
        pace = getattr(step.task, "pace", None)
        seconds *= pace.duty if pace else 1.0  # of work: the next run may rest more or less
        if not ok and seconds <= 0:
            return  # never began
        before = step.size if outcome.bytes_before is None else outcome.bytes_before
        after = before if outcome.bytes_after is None else outcome.bytes_after
        if not ok:
            known = db.execute("SELECT ok, seconds FROM attempts WHERE object = ?", (thing,)).fetchone()
            if known and known[0] and known[1] >= seconds:
                return
        db.execute(
            "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (thing, now, seconds, before, after, step.expected.bytes, ok),
        )
        if ok and step.size and seconds > 0:
            db.execute(
                "INSERT INTO rates VALUES (?, ?, ?, ?) ON CONFLICT (address, kind) DO UPDATE"
                " SET bytes = bytes * ? + excluded.bytes, seconds = seconds * ? + excluded.seconds",
                (self._address, step.task.kind, step.size, seconds, FADE, FADE),
            )

    def end_run(self, status: str) -> None:
        ended = (time.time(), status, self._run)
        self._write(lambda db: db.execute("UPDATE runs SET ended = ?, status = ? WHERE id = ?", ended))
        self._prune(min(time.time(), self._earlier))

    def _prune(self, now: float) -> None:
        """Forgets what is too old: history by the option, and what the next steps are decided by after 400 days."""
        before = now - self._keep

        def write(db: sqlite3.Connection) -> None:
            # By its own time: a run while the clock stood in 1970 makes those before it no older.
            db.execute("DELETE FROM steps WHERE run IN (SELECT id FROM runs WHERE began < ?)", (before,))
            gone = db.execute("DELETE FROM runs WHERE began < ?", (before,)).rowcount
            gone += db.execute("DELETE FROM sizes WHERE at < ?", (before,)).rowcount
            for table in MEMORY:
                gone += db.execute(f"DELETE FROM {table} WHERE at < ?", (now - max(KEEP, self._keep),)).rowcount
            if gone:
                _sweep(db)

        self._write(write)

    def samples(self) -> t.Mapping[Ref, tuple[Sample, ...]]:
        if self._db is None:
            return {}
        from . import samples

        try:
            return samples.recall(self._db, self._address, time.time())
        except sqlite3.Error as error:
            self._mishap(error)
            return {}

    def sample_all(self, sizes: t.Sequence[tuple[Ref, int, int | None]], now: datetime) -> None:
        from . import samples

        self._write(lambda db: samples.keep(db, self._address, sizes, now, self._keep))

    def shut(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            try:
                db.close()
            except sqlite3.Error as error:
                self._warn(f"The journal {self._file} did not close: {error}")

    def _object(self, db: sqlite3.Connection, key: Key) -> int:
        named = (self._address, key[0], written(key[1]))
        db.execute("INSERT OR IGNORE INTO objects (address, kind, ref) VALUES (?, ?, ?)", named)
        found = db.execute("SELECT id FROM objects WHERE address = ? AND kind = ? AND ref = ?", named).fetchone()
        return int(found[0])


def _bury(db: sqlite3.Connection) -> None:
    """Closes runs that were killed: what they were in comes first in the next run."""
    for run in interrupted(db):
        db.execute(
            "INSERT OR REPLACE INTO deferred SELECT object, 'the run was killed', began FROM steps"
            " WHERE run = ? AND status = 'running'",
            (run,),
        )
        db.execute("UPDATE steps SET status = 'interrupted' WHERE run = ? AND status = 'running'", (run,))
        db.execute("UPDATE runs SET status = 'interrupted' WHERE id = ?", (run,))


def _sweep(db: sqlite3.Connection) -> None:
    used = " UNION ".join(f"SELECT object FROM {table}" for table in ("steps", "sizes", *MEMORY))
    db.execute(f"DELETE FROM objects WHERE id NOT IN ({used})")


def _insert(db: sqlite3.Connection, table: str, **values: str | float | None) -> int:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    texts = [_text(value) if isinstance(value, str) else value for value in values.values()]
    return int(db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", texts).lastrowid or 0)


def _text(value: str) -> str:
    """SQLite's text is UTF-8: a file name that is not becomes readable rather than an error."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
