# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_cleanup on SQLite files: what check mode says is what the run does, and a second run does nothing."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.churn import folder_print
from tests.integration.cleanup import content, rows_in_files, rows_of
from tests.integration.lite import HOLD, closing, leave_hot_journal, make, other_process
from tests.integration.module_runner import Ran, run

TODAY = datetime.now(UTC).replace(tzinfo=None)


def at(days: float) -> str:
    return (TODAY - timedelta(days=days)).isoformat(" ", "seconds")


def shop(path: Path, *, wal: bool = False) -> Path:
    """Rows of 0 to 999 days; lines hang from some of them."""
    make(
        path,
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, deleted_at TEXT, note TEXT)",
        "CREATE INDEX od ON orders (deleted_at)",
        "CREATE TABLE lines (id INTEGER PRIMARY KEY, of INT REFERENCES orders ON DELETE CASCADE)",
        "CREATE INDEX lo ON lines (of)",
        wal=wal,
    )
    with closing(path) as db:
        db.execute("BEGIN")
        db.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(i, at(i + 0.5), f"order {i}") for i in range(1000)])
        db.executemany("INSERT INTO lines (of) VALUES (?)", [(i,) for i in range(0, 1000, 10)])
        db.execute("COMMIT")
    return path


def clean(path: Path, *rules: dict[str, Any], check: bool = False, **more: Any) -> Ran:
    options = {
        "engine": "sqlite",
        "databases": [str(path)],
        "rules": list(rules),
        "journal": str(path.parent / "journal"),
        **more,
    }
    return run("db_cleanup", options, check=check, fails=more.pop("fails", False))


SOFT: dict[str, Any] = {
    "name": "soft",
    "table": "orders",
    "date_column": "deleted_at",
    "archive_after": "365d",
    "delete_after": "730d",
    "refuse_over_percent": 100,
    "on_children": "archive",
}


def said(ran: Ran) -> list[tuple[Any, ...]]:
    return [
        (s["kind"], s["object"], s["measured"].get("rows"), s["expected"].get("children")) for s in ran.fact()["steps"]
    ]


def words(ran: Ran) -> list[str]:
    """Without the moment at which each of them began."""
    return [re.sub(r"'\d{4}-\d\d-\d\d[ 0-9:.]*'", "'…'", statement) for statement in ran.statements()]


@pytest.mark.parametrize("wal", [False, True])
@pytest.mark.parametrize("kind", ["table", "files"])
def test_the_check_is_the_run_and_the_second_run_does_nothing(tmp_path: Path, kind: str, wal: bool) -> None:
    (tmp_path / "data").mkdir()
    path, folder = shop(tmp_path / "data" / "a.db", wal=wal), tmp_path / "f"
    rule = {**SOFT, "archive_dir": str(folder)} if kind == "files" else SOFT
    before = folder_print(tmp_path)
    orders, lines = rows_of(path, "orders"), rows_of(path, "lines")
    check = clean(path, rule, check=True)
    assert check.changed
    assert folder_print(tmp_path) == before
    ran = clean(path, rule)
    assert ran.changed
    assert said(ran) == said(check)
    assert {s["status"] for s in ran.fact()["steps"]} == {"done"}
    assert all(s["proven"] for s in ran.fact()["steps"]), ran.fact()
    assert words(ran) == words(check)
    assert ran.fact()["summary"]["rows"] == 635
    archived, hung = (
        (rows_in_files(folder, "orders"), rows_in_files(folder, "lines"))
        if kind == "files"
        else (rows_of(path, "orders_archive"), rows_of(path, "lines_archive"))
    )
    assert len(archived) == 365
    assert content(archived, rows_of(path, "orders")) == content([r for r in orders if float(r["id"][1:]) < 730])
    assert content(hung, rows_of(path, "lines")) == content([r for r in lines if float(r["of"][1:]) < 730])
    again = clean(path, rule)
    assert not again.changed
    assert not again.fact()["steps"]
    assert not clean(path, rule, check=True, journal="none").changed


@pytest.mark.parametrize("kind", ["table", "files"])
def test_what_is_in_the_archive_leaves_it_in_turn(tmp_path: Path, kind: str) -> None:
    path, folder = shop(tmp_path / "a.db"), tmp_path / "f"
    rule = {**SOFT, "archive_dir": str(folder)} if kind == "files" else SOFT
    clean(path, {**rule, "archive_after": "500d", "delete_after": "2000d"})
    ran = clean(path, {**rule, "archive_after": "300d", "delete_after": "400d"}, check=True)
    kinds = [s["kind"] for s in ran.fact()["steps"] if s["kind"] != "analyze"]
    assert sorted(kinds) == sorted(["delete", "archive", "remove_archive" if kind == "files" else "delete"])
    ran = clean(path, {**rule, "archive_after": "300d", "delete_after": "400d"})
    left = rows_in_files(folder, "orders") if kind == "files" else rows_of(path, "orders_archive")
    assert sorted(float(row["id"][1:]) for row in left) == list(range(300, 400))
    assert not clean(path, {**rule, "archive_after": "300d", "delete_after": "400d"}).changed


def test_refusals_before_the_first_delete(tmp_path: Path) -> None:
    path = shop(tmp_path / "a.db")
    plain = {"name": "old", "table": "orders", "date_column": "deleted_at", "delete_after": "100d"}
    before = path.read_bytes()
    for rule, code in (
        ({**plain, "on_children": "delete"}, "too_many_rows"),
        ({**plain, "refuse_over_percent": 100}, "children"),
        ({**plain, "date_column": "note"}, "not_a_date"),
        ({**plain, "where": "1) OR (1"}, "bad_condition"),
        ({**plain, "table": "nowhere"}, "no_such_table"),
    ):
        ran = clean(path, rule)
        assert not ran.changed
        assert code in ran.codes()
    assert path.read_bytes() == before
    finding = next(
        f for f in clean(path, {**plain, "refuse_over_percent": 100}).fact()["findings"] if f["code"] == "children"
    )
    assert "90 rows of lines by of (on delete cascade)" in finding["message"]


def test_without_an_index_the_missing_one_is_named(tmp_path: Path) -> None:
    path = shop(tmp_path / "a.db")
    with closing(path) as db:
        db.execute("DROP INDEX od")
    ran = clean(path, {**SOFT, "on_children": "delete"}, check=True)
    (finding,) = [f for f in ran.fact()["findings"] if f["code"] == "no_date_index"]
    with closing(path) as db:
        db.execute(finding["fix"])
    assert "no_date_index" not in clean(path, {**SOFT, "on_children": "delete"}, check=True).codes()


def test_rows_of_one_run(tmp_path: Path) -> None:
    path = shop(tmp_path / "a.db")
    rule = {**SOFT, "on_children": "delete", "delete_after": "400d", "rows_per_run": 100}
    del rule["archive_after"]
    first = clean(path, rule).fact()["summary"]
    assert first["rows"] == 100
    assert len(rows_of(path, "orders")) == 900
    for _run in range(5):
        clean(path, rule)
    assert len(rows_of(path, "orders")) == 400
    assert not clean(path, rule).changed


def test_a_locked_file_fails_in_words_and_the_next_run_does_it(tmp_path: Path) -> None:
    path = shop(tmp_path / "a.db")
    with other_process(HOLD, path, "BEGIN IMMEDIATE") as other:
        options = {
            "engine": "sqlite",
            "databases": [str(path)],
            "rules": [SOFT],
            "journal": "none",
            "lock_timeout": "100ms",
        }
        ran = run("db_cleanup", {**options, "retries": 1}, fails=True)
        assert f"process {other.pid}" in ran.result["msg"]
        assert not ran.changed
    assert clean(path, SOFT).changed


def test_a_read_only_file_is_skipped_with_the_reason(tmp_path: Path) -> None:
    path = shop(tmp_path / "a.db")
    if os.geteuid() == 0:
        pytest.skip("root writes to everything")
    path.chmod(0o444)
    ran = clean(path, SOFT)
    assert not ran.changed
    assert {s["status"] for s in ran.fact()["steps"]} == {"skipped"}


def test_a_transaction_that_a_dead_process_left_is_rolled_back_first(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "ALTER TABLE t ADD COLUMN at TEXT DEFAULT '2020-01-01'", rows=3000)
    before = rows_of(path, "t")
    leave_hot_journal(path)
    rule = {"name": "old", "table": "t", "date_column": "at", "archive_after": "1d", "refuse_over_percent": 100}
    check = clean(path, rule, check=True)
    assert check.changed
    assert [s["kind"] for s in check.fact()["steps"]] == ["drop_leftover"]
    ran = clean(path, rule)
    assert [(s["kind"], s["status"]) for s in ran.fact()["steps"]] == [
        ("drop_leftover", "done"),
        ("archive", "done"),
        ("analyze", "done"),
    ]
    assert content(rows_of(path, "t_archive")) == content(before)
    assert not clean(path, rule).changed


def test_several_files_each_have_their_own_archive(tmp_path: Path) -> None:
    first, second = shop(tmp_path / "a.db"), shop(tmp_path / "b.db")
    folder = tmp_path / "f"
    ran = clean(first, {**SOFT, "archive_dir": str(folder)}, databases=[str(tmp_path / "*.db")])
    assert ran.fact()["summary"]["rows"] == 2 * 635
    assert len(rows_in_files(folder, "orders")) == 730
    assert len(list(folder.glob("*.manifest.json"))) == 4
    for path in (first, second):
        assert len(rows_of(path, "orders")) == 365
