# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cleanups of SQLite files that die, go on, and find what others left: no row is lost, none is in two places."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Archive
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropLeftover
from tests.integration.cleanup import content, rows_in_files, rows_of
from tests.integration.lite import closing, leave_hot_journal, make, other_process
from tests.integration.lite_retention import Room, rule

ROOT = Path(__file__).parents[2]
SHOP = (
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, at TEXT, note TEXT)",
    """CREATE TABLE lines (no INTEGER, of INTEGER REFERENCES orders ON DELETE SET NULL, PRIMARY KEY (of, no))
       WITHOUT ROWID""",
    """CREATE TABLE parcels (code TEXT, "order" TEXT COLLATE NOCASE, no INT,
       FOREIGN KEY ("order", no) REFERENCES LINES (of, no) ON DELETE CASCADE)""",
    """CREATE TABLE notes (id INTEGER PRIMARY KEY, line_of INT, line INT, of INT REFERENCES orders,
       FOREIGN KEY (line_of, line) REFERENCES lines (of, no))""",
    "CREATE INDEX oa ON orders (at)",
)
TABLES = ("orders", "lines", "parcels", "notes")


def shop(path: Path, *, wal: bool = False) -> Path:
    """Orders with lines, their parcels, and notes that hang from lines, from orders, or from both."""
    make(path, *SHOP, wal=wal)
    with closing(path) as db:
        db.execute("BEGIN")
        for i in range(300):
            db.execute(
                "INSERT INTO orders VALUES (?, ?, ?)", (i, "2026-05-30" if i % 3 else "2025-05-30", f"order {i}")
            )
            db.executemany("INSERT INTO lines VALUES (?, ?)", [(n, i) for n in range(i % 4)])
            db.execute("INSERT INTO parcels VALUES (?, ?, 1)", (f"parcel {i}", i))
            db.execute("INSERT INTO notes VALUES (?, ?, 0, ?)", (i, i if i % 2 else None, (i + 1) if i % 5 else None))
        db.execute("COMMIT")
    return path


def family(path: Path) -> dict[str, set[str]]:
    """What must leave, by its own reckoning."""
    with closing(path) as db:
        ask = {
            "orders": "SELECT id FROM orders WHERE at < '2026'",
            "lines": "SELECT of || ' ' || no FROM lines WHERE of % 3 = 0",
            "parcels": 'SELECT code FROM parcels WHERE "order" % 3 = 0 AND "order" % 4 > 1',
            "notes": "SELECT id FROM notes WHERE (line_of % 3 = 0 AND line_of % 4 > 0) OR (of % 3 = 0 AND of < 300)",
        }
        return {table: {str(row[0]) for row in db.execute(sql)} for table, sql in ask.items()}


@pytest.mark.parametrize("archive", ["delete", "table", "files"])
@pytest.mark.parametrize("enforced", [False, True])
def test_children_leave_with_their_parents(tmp_path: Path, archive: str, enforced: bool) -> None:
    """As many as were counted, whatever the foreign keys would have done."""
    path = shop(tmp_path / "a.db")
    before, due = {name: rows_of(path, name) for name in TABLES}, family(path)
    folder = tmp_path / "f"
    where = {"delete": None, "table": Archive(table="old_orders"), "files": Archive(folder=str(folder))}[archive]
    room = Room(path)
    sought = rule("orders", archive=where)
    found = room.find(sought)
    counts = {name: sum(c.rows or 0 for c in found.children if c.table.path == (name,)) for name in TABLES[1:]}
    assert counts == {name: len(due[name]) for name in TABLES[1:]}
    assert {c.action for c in found.children} == {"set null", "cascade", "no action"}
    assert {c.table.path[0]: c.indexed for c in found.children}["lines"]
    order = [c.table.path[0] for c in found.children]
    assert order.index("parcels") < order.index("lines")
    task = room.purge(found, children="archive" if where else "delete", pace=17)
    assert room.engine.spell(task, room.server)
    done = room.carry_out(task)
    assert (done.rows, done.children) == (len(due["orders"]), sum(counts.values()))
    archived: dict[str, Any] = {}
    if archive == "files":
        archived = {name: rows_in_files(folder, name) for name in TABLES}
    elif archive == "table":
        archived = {n: rows_of(path, "old_orders" if n == "orders" else f"{n}_archive") for n in TABLES}
    for name in TABLES:
        assert len(before[name]) - len(rows_of(path, name)) == len(due[name])
        if where:
            assert content(archived[name], rows_of(path, name)) == content(before[name])
    with closing(path) as db:
        if enforced:
            db.execute("PRAGMA foreign_keys = ON")
        assert not [row for row in db.execute("PRAGMA foreign_key_check") if row[0] != "notes" and row[0] != "parcels"]
    assert room.run(sought, children="delete").children == 0


def test_what_hangs_from_its_own_kind_is_refused(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT, parent INT REFERENCES t)",
        "INSERT INTO t VALUES (1, '2020', NULL), (2, '2026-05-31', 1), (3, '2020-01-01', 4), (4, '2020-01-01', 3)",
        "UPDATE t SET at = '2020-01-01' WHERE id = 1",
    )
    room = Room(path)
    (child,) = room.find(rule()).children
    assert (child.circular, child.rows) == (True, 3)
    with pytest.raises(Refused, match="their own kind"):
        room.run(rule(), children="delete")
    assert len(rows_of(path, "t")) == 4
    with closing(path) as db:
        db.execute("UPDATE t SET parent = NULL WHERE id = 2")
    assert room.run(rule(), children="delete").rows == 3


@pytest.mark.parametrize("archive", [None, Archive(table="kept")])
def test_children_that_came_since_are_not_left_behind(tmp_path: Path, archive: Archive | None) -> None:
    """Foreign keys are not enforced on our connection, and would cascade on others."""
    path = make(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)",
        "CREATE TABLE c (of REFERENCES t ON DELETE CASCADE)",
        "INSERT INTO t VALUES (1, '2020-01-01'), (2, '2020-01-01')",
    )
    room = Room(path)
    task = room.purge(room.find(rule(archive=archive)))
    assert room.engine.spell(task, room.server)
    with closing(path) as db:
        db.execute("INSERT INTO c VALUES (2)")
    with pytest.raises(Refused, match="rows of c hang"):
        room.carry_out(task)
    assert (len(rows_of(path, "t")), len(rows_of(path, "c"))) == (2, 1)
    with closing(path) as db:
        db.execute("DELETE FROM c")
    assert room.carry_out(task).rows == 2


# ---- cursors ---------------------------------------------------------------------------------------------------------


def test_a_cursor_goes_on_and_comes_round(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)", "CREATE INDEX i ON t (at)")
    with closing(path) as db:
        db.executemany("INSERT INTO t (at) VALUES (?)", [(f"2025-01-{1 + i % 28:02}",) for i in range(100)])
    room = Room(path)
    task = room.purge(room.find(rule()), pace=30)
    with room.engine.session(room.database) as session:
        work = room.engine.carry_out(session, task, room.server, None)
        tick = next(work)
        work.close()
    assert tick.amount.rows == 30
    with closing(path) as db:
        db.execute("INSERT INTO t (at) VALUES ('2020-01-01')")
    done = room.ticks(task, tick.cursor)
    assert [t.amount.rows for t in done] == [30, 30, 10, 1]
    assert not rows_of(path, "t")


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("cursor", [None, 17])
def test_rows_of_one_date_are_bitten_in_two(tmp_path: Path, cursor: int | None, clustered: bool) -> None:
    """Rows that stay, by the rule's condition, are passed once; a bite may end within a date, or go over several."""
    key = "id INTEGER, at TEXT, PRIMARY KEY (id)) WITHOUT ROWID" if clustered else "id INTEGER PRIMARY KEY, at TEXT)"
    path = make(tmp_path / "a.db", f"CREATE TABLE t ({key}", "CREATE INDEX i ON t (at)")
    with closing(path) as db:
        rows = [(i, f"2025-01-{1 + (i // 25 if i % 100 < 50 else 20):02}") for i in range(400)]
        db.executemany("INSERT INTO t VALUES (?, ?)", rows)
    room = Room(path)
    for archive in (None, Archive(table="kept")):
        sought = rule(where=f"id % 4 = {3 if archive else 1}", archive=archive)
        task = room.purge(room.find(sought), pace=13)
        begin = None
        if cursor is not None:
            with room.engine.session(room.database) as session:
                work = room.engine.carry_out(
                    session, task._replace(pace=task.pace._replace(rows=cursor)), room.server, None
                )
                begin = next(work).cursor
                work.close()
        room.ticks(task, begin)
        assert room.find(sought).rows == 0
    assert len(rows_of(path, "t")) == 200
    assert len(rows_of(path, "kept")) == 100


def test_a_cursor_of_something_else_is_none(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)")
    with closing(path) as db:
        db.executemany("INSERT INTO t (at) VALUES (?)", [("2025-01-01",)] * 40)
    room = Room(path)
    first = room.ticks(room.purge(room.find(rule(where="id <= 20")), pace=10))[0].cursor
    for cursor in (first, "", "nonsense", "[]", '["x", 1]', '{"a": 1}', "7"):
        with closing(path) as db:
            db.execute("INSERT INTO t (at) VALUES ('2025-01-01')")
        ticks = room.ticks(room.purge(room.find(rule()), pace=1000), cursor)
        assert len(ticks) == 1
        assert not rows_of(path, "t")


def test_rows_of_a_run(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)", "CREATE INDEX i ON t (at)")
    with closing(path) as db:
        db.executemany("INSERT INTO t (at) VALUES (?)", [("2025-01-01",)] * 100)
    room = Room(path)
    assert room.run(rule(), pace=30, rows=70).rows == 70
    assert room.find(rule()).rows == 30


# ---- death -----------------------------------------------------------------------------------------------------------

# Children of one process die: to start Python anew for each takes longer than all that they do.
DIE = """
import json, os, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from tests.integration.lite_retention import Archive, Room, rule
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import purge
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import shelf

def die(path, to, where, turn):
    owner, name = {"taken": (purge.Bites, "take"), "written": (shelf.Shelf, "put"),
                   "committed": (purge.Bites, "commit"), "settled": (shelf.Shelf, "settle"),
                   "closed": (shelf.Shelf, "close")}[where]
    real, count = getattr(owner, name), [0]
    def passed(*args):
        found = real(*args)
        count[0] += 1
        if count[0] == turn:
            os.kill(os.getpid(), 9)
        return found
    setattr(owner, name, passed)
    room = Room(Path(path))
    archive = Archive(folder=to) if to.startswith("/") else Archive(table=to)
    found = room.find(rule("orders", archive=archive))
    room.carry_out(room.purge(found, children="archive", pace=20))

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            die(*json.loads(line))
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def mortals() -> Iterator[subprocess.Popen[str]]:
    """The process whose children die."""
    command = [sys.executable, "-c", DIE, str(ROOT), str(ROOT / ".dev" / "collections")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.communicate(timeout=30)
    assert process.returncode == 0


def die(mortals: subprocess.Popen[str], path: Path, to: str, phase: str, turn: int) -> None:
    """A run archives to the folder or the table `to`, and is killed when it has done that so many times."""
    assert mortals.stdin and mortals.stdout
    mortals.stdin.write(json.dumps([str(path), to, phase, turn]) + "\n")
    mortals.stdin.flush()
    assert int(mortals.stdout.readline()) == -signal.SIGKILL


PHASES = {"table": ("taken", "committed"), "files": ("taken", "written", "committed", "settled", "closed")}
# Files are closed once.
DEATHS = [
    (kind, phase, turn) for kind in PHASES for phase in PHASES[kind] for turn in (1, 3)[: 1 + (phase != "closed")]
]


@pytest.mark.parametrize("wal", [False, True])
@pytest.mark.parametrize("death", DEATHS, ids=lambda death: "-".join(map(str, death)))
def test_killed_in_each_phase(
    tmp_path: Path, mortals: subprocess.Popen[str], death: tuple[str, str, int], wal: bool
) -> None:
    kind, phase, turn = death
    path, folder = shop(tmp_path / "a.db", wal=wal), tmp_path / "f"
    before = {name: rows_of(path, name) for name in TABLES}
    to = str(folder) if kind == "files" else "kept"
    die(mortals, path, to, phase, turn)
    room = Room(path)
    sought = rule("orders", archive=Archive(folder=to) if kind == "files" else Archive(table=to))
    with room.engine.guard([room.database], 0):
        settled = room.settle(sought)
        # Before anything else is done: each row is in exactly one place.
        assert_once(path, folder, before, kind)
        room.run(sought, children="archive", pace=20)
    assert bool(settled) == (kind == "files" and phase != "closed" and not (phase == "taken" and turn == 1))
    assert_once(path, folder, before, kind)
    assert len(rows_of(path, "orders")) == 200
    assert {p.name for p in tmp_path.iterdir()} <= {"a.db", "f"}
    assert room.settle(sought) == 0


def assert_once(path: Path, folder: Path, before: dict[str, Any], kind: str) -> None:
    for name in TABLES:
        if kind == "files":
            archived = rows_in_files(folder, name)
        else:
            with closing(path) as db:
                there = {row[0] for row in db.execute("SELECT name FROM sqlite_schema")}
            table = "kept" if name == "orders" else f"{name}_archive"
            archived = rows_of(path, table) if table in there else []
        assert content(archived, rows_of(path, name)) == content(before[name])


def test_a_step_settles_what_an_earlier_attempt_left(tmp_path: Path, mortals: subprocess.Popen[str]) -> None:
    path, folder = shop(tmp_path / "a.db"), tmp_path / "f"
    before = {name: rows_of(path, name) for name in TABLES}
    die(mortals, path, str(folder), "committed", 2)
    room = Room(path)
    room.run(rule("orders", archive=Archive(folder=str(folder))), children="archive")
    assert_once(path, folder, before, "files")


@pytest.mark.parametrize("changed", ["UPDATE orders SET note = 'x'", "UPDATE orders SET note = 'x' WHERE id > 0", ""])
@pytest.mark.parametrize("phase", ["written", "committed"])
def test_rows_that_the_application_changed_since(
    tmp_path: Path, mortals: subprocess.Popen[str], changed: str, phase: str
) -> None:
    """Known by key and date, and a number that was given again is another row."""
    path, folder = shop(tmp_path / "a.db"), tmp_path / "f"
    ids = {row["id"] for row in rows_of(path, "orders")}
    die(mortals, path, str(folder), phase, 1)
    with closing(path) as db:
        if changed:
            db.execute(changed)
        if phase == "committed":
            db.execute("INSERT INTO orders VALUES (0, '2026-05-31', 'another')")
    room = Room(path)
    room.settle(rule("orders", archive=Archive(folder=str(folder))))
    archived = [row["id"] for row in rows_in_files(folder, "orders")]
    assert len(archived) == (20 if phase == "committed" else 0)
    kept = {row["id"] for row in rows_of(path, "orders") if row.get("note") != "'another"}
    assert kept | set(archived) == ids
    assert not kept & set(archived)


def test_hidden_row_numbers_that_a_vacuum_gave_to_others(tmp_path: Path, mortals: subprocess.Popen[str]) -> None:
    """Rows of one day, half of them archived by a run that died before it could say so."""
    path, folder = make(tmp_path / "a.db", "CREATE TABLE orders (at TEXT, note TEXT)"), tmp_path / "f"
    with closing(path) as db:
        db.executemany("INSERT INTO orders VALUES ('2025-01-01', ?)", [(f"note {i}",) for i in range(40)])
    before = rows_of(path, "orders")
    die(mortals, path, str(folder), "committed", 1)
    with closing(path) as db:
        db.execute("VACUUM")
        assert db.execute("SELECT min(rowid), count(*) FROM orders").fetchone() == (1, 20)
    room = Room(path)
    assert room.settle(rule("orders", archive=Archive(folder=str(folder)))) == 1
    assert content(rows_in_files(folder), rows_of(path, "orders")) == content(before)


def test_a_hot_journal_is_told_in_check_mode_and_rolled_back_under_the_guard(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "ALTER TABLE t ADD COLUMN at TEXT DEFAULT '2020-01-01'", rows=3000)
    before = rows_of(path, "t")
    leave_hot_journal(path)
    room = Room(path)
    found = room.find(rule())
    assert (found.rows, found.pieces, [left.what for left in found.detaching]) == (0, (), ["transaction"])
    assert Path(f"{path}-journal").exists()
    with room.engine.guard([room.database], 0):
        found = room.find(rule())
        assert (found.rows, [left.what for left in found.detaching]) == (3000, ["transaction"])
        assert content(rows_of(path, "t")) == content(before)
        (left,) = found.detaching
        room.carry_out(DropLeftover(left.ref, left.what, left.names))
        assert not room.look(Wants(expired=(rule(),), only=(left.ref,), leftovers=True)).leftovers
        assert room.carry_out(room.purge(found)).rows == 3000


TURNS = """
    import select, time
    print("ready", flush=True)
    waits = []
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        began = time.monotonic()
        db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
        db.execute("UPDATE t SET v = 'y' WHERE id = 1")
        db.close()
        waits.append(time.monotonic() - began)
    print(max(waits), flush=True)
"""


COUNT = (
    "(WITH RECURSIVE n(i) AS (SELECT {start} UNION ALL SELECT i + 1 FROM n WHERE i < {start} + {more})"
    " SELECT max(i) FROM n)"
)


def counts_for(path: Path, seconds: float) -> int:
    """How far SQLite counts in this time, on this machine."""
    more, took = 1000, 0.0
    with closing(path) as db:
        while took < seconds:
            more *= 2
            began = time.perf_counter()
            db.execute(f"SELECT {COUNT.format(start=0, more=more)}").fetchone()
            took = time.perf_counter() - began
    return int(more * seconds / took)


def test_the_application_gets_its_turn(tmp_path: Path) -> None:
    """Who waits for the lock looks again every 100 ms; without pauses it waits for about as long as all bites take."""
    path = make(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT, v TEXT)", wal=True)
    with closing(path) as db:
        db.executemany("INSERT INTO t VALUES (?, '2025-01-01', 'x')", [(i,) for i in range(200)])
    room = Room(path, lock_timeout=10)
    task = room.purge(room.find(rule()), pace=20)
    # A bite takes a quarter of a second wherever this runs, and half of that is more than 100 ms.
    dear = COUNT.format(start="t.id", more=counts_for(path, 0.25 / 20))
    task = task._replace(expiry=task.expiry._replace(where=f"{dear} > 0"))
    with other_process(TURNS, path) as other:
        done = room.carry_out(task)
        out, _err = other.communicate("end", timeout=60)
    assert done.rows == 200
    assert 0 < float(out) < done.seconds / 2
