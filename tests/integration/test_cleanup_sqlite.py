# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows of SQLite files: counted, deleted, archived into a table or files; each of them is in exactly one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Archive
from tests.integration.cleanup import Application, Row, connection, content, digest, rows_in_files, rows_of
from tests.integration.lite import closing, make
from tests.integration.lite_retention import BEFORE, Room, rule

OLD, YOUNG = "2025-11-05 10:00:00", "2026-05-30T10:00:00+02:00"
KEYS = {
    "row number": "id INTEGER PRIMARY KEY",
    "counting": "id INTEGER PRIMARY KEY AUTOINCREMENT",
    "hidden": "id INTEGER",
    "text": "id TEXT PRIMARY KEY COLLATE NOCASE",
    "clustered": "id TEXT, part INTEGER DEFAULT 7",
}


def filled(path: Path, key: str = "row number", rows: int = 1000, *, indexed: bool = True, wal: bool = False) -> Path:
    """t: two rows in five are due, one has no date."""
    end = ", PRIMARY KEY (part, id)) WITHOUT ROWID" if key == "clustered" else ")"
    index = ["CREATE INDEX at ON t (at)"] if indexed else []
    make(path, f"CREATE TABLE t ({KEYS[key]}, at TEXT, note TEXT, data{end}", *index, wal=wal)
    with closing(path) as db:
        db.execute("BEGIN")
        for i in range(rows):
            at = (OLD, f"2025-{1 + i % 12:02}-{1 + i % 28:02}", YOUNG, "2026-05-31", None)[i % 5]
            data = (i, i / 3, f"ü\x00{i}", bytes([i % 256, 0]), None)[i % 5]
            number: Any = i if "INTEGER" in KEYS[key].split(",")[0] else f"key {i:05}"
            db.execute("INSERT INTO t (id, at, note, data) VALUES (?, ?, ?, ?)", (number, at, f"note {i}", data))
        db.execute("COMMIT")
    return path


def is_due(row: Row) -> bool:
    return row.get("at", "'9")[1:11] < BEFORE.date().isoformat()


def split(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    return [r for r in rows if is_due(r)], [r for r in rows if not is_due(r)]


@pytest.mark.parametrize("wal", [False, True])
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("key", KEYS)
def test_what_is_due_is_counted_and_deleted(tmp_path: Path, key: str, indexed: bool, wal: bool) -> None:
    room = Room(filled(tmp_path / "a.db", key, indexed=indexed, wal=wal))
    due, kept = split(rows_of(room.path, "t"))
    found = room.find(rule())
    assert (found.rows, found.of_rows, found.pieces[0].indexed) == (len(due), 1000, indexed)
    assert abs(found.pieces[0].bytes / len(due) - 45) < 15
    done = room.run(rule())
    assert (done.rows, done.bites > 3) == (len(due), True)
    assert digest(rows_of(room.path, "t")) == digest(kept)
    assert room.find(rule()).rows == 0
    assert room.run(rule()).rows == 0


@pytest.mark.parametrize("key", KEYS)
def test_archived_into_a_table_that_is_made_for_it(tmp_path: Path, key: str) -> None:
    room = Room(filled(tmp_path / "a.db", key))
    before = rows_of(room.path, "t")
    due, kept = split(before)
    sought = rule(archive=Archive(table="t_archive"))
    task = room.purge(room.find(sought))
    words = list(room.engine.spell(task, room.server))
    done = room.carry_out(task)
    assert done.rows == len(due)
    assert digest(rows_of(room.path, "t")) == digest(kept)
    assert digest(rows_of(room.path, "t_archive")) == digest(due)
    assert digest(rows_of(room.path, "t"), rows_of(room.path, "t_archive")) == digest(before)
    assert any(w.startswith("CREATE TABLE") for w in words)
    assert list(room.engine.spell(task, room.server)) == words
    # The archive is a table like others: its rows leave in turn.
    again = room.find(rule("t_archive"))
    assert (again.rows, again.pieces[0].indexed) == (len(due), True)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("key", KEYS)
def test_archived_into_files(tmp_path: Path, key: str, form: str) -> None:
    room, folder = Room(filled(tmp_path / "a.db", key)), tmp_path / "archive"
    before = rows_of(room.path, "t")
    due, _kept = split(before)
    sought = rule(archive=Archive(folder=str(folder), format=form, compression="gzip"))
    done = room.run(sought)
    assert (done.rows, done.written > 0) == (len(due), True)
    archived = rows_in_files(folder)
    assert content(archived) == content(due)
    assert digest(rows_of(room.path, "t"), archived) == digest(before)
    assert room.settle(sought) == 0
    assert room.run(sought).rows == 0
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("archive", [None, Archive(table="kept"), "files"], ids=["delete", "table", "files"])
@pytest.mark.parametrize("wal", [False, True])
def test_while_the_application_writes(tmp_path: Path, archive: Any, wal: bool) -> None:
    room, folder = Room(filled(tmp_path / "a.db", rows=3000, wal=wal), lock_timeout=5), tmp_path / "files"
    archive = Archive(folder=str(folder)) if archive == "files" else archive

    def insert(number: int) -> str:
        return f"INSERT INTO t (id, at, note) VALUES ({number}, '{OLD if number % 2 else YOUNG}', 'new')"

    ids = list(range(3000))
    with Application(lambda: connection(room.path), "t", ids, insert) as application:
        room.run(rule(archive=archive), pace=100 if not wal else 20)
    places = {"t": rows_of(room.path, "t")}
    if archive is None:
        gone = set(ids) - {number(row) for row in places["t"]}
        assert gone
        return
    places["archive"] = rows_in_files(folder) if archive.folder else rows_of(room.path, "kept")
    application.check(places)
    assert application.notes
    assert application.inserted


def number(row: Row) -> int:
    return int(float(row["id"][1:]))
