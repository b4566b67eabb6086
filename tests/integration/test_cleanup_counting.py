# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What db_cleanup counts on PostgreSQL, and what statistics that are wrong make of it. What leaves stands elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fleet import Server

from .module_runner import run
from .test_cleanup_postgresql import options

RULE = {"name": "old", "table": "t", "date_column": "at", "delete_after": "10d"}
MAKE = """
CREATE TABLE t (id serial PRIMARY KEY, at timestamptz) WITH (autovacuum_enabled = off);
CREATE INDEX ON t (at);
"""
OLD = "INSERT INTO t (at) SELECT now() - interval '100 days' - n * interval '1 s' FROM generate_series(1, {}) n;"
NEW = "INSERT INTO t (at) SELECT now() FROM generate_series(1, {});"


def made(server: Server, name: str, *words: str) -> None:
    server.script(MAKE + "".join(words), database=name)


def counts(server: Server) -> tuple[int, int]:
    """How often rows that are due were counted, and how often all of them were."""
    asked = [said.statement for said in server.logged() if "count(*) FROM" in said.statement]
    mine = [words for words in asked if re.search(r'ONLY "public"."t"', words)]
    return sum("WHERE" in words for words in mine), sum("WHERE" not in words for words in mine)


def test_a_run_counts_once(postgresql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    """Under the guard; before it, and as its proof, one row is looked for. Check mode says the same."""
    name = database(postgresql)
    made(postgresql, name, OLD.format(3000), NEW.format(5000))
    asked = options(postgresql, name, tmp_path, RULE)
    foreseen = run("db_cleanup", asked, check=True).fact()["steps"]
    postgresql.mark_log()
    ran = run("db_cleanup", asked).fact()["steps"]
    assert counts(postgresql)[0] == 1, postgresql.logged()
    postgresql.mark_log()
    assert not run("db_cleanup", asked).changed
    assert counts(postgresql)[0] == 0, postgresql.logged()
    told = [(s["kind"], s["reason"], s["measured"].get("rows"), s["measured"].get("of_rows")) for s in foreseen]
    assert told == [(s["kind"], s["reason"], s["measured"].get("rows"), s["measured"].get("of_rows")) for s in ran]
    (step,) = [s for s in ran if s["kind"] == "delete"]
    assert (step["proven"], step["actual"]["rows"], step["actual"]["rows_remaining"]) == (True, 3000, 0)


def test_a_row_that_came_behind_the_cursor_is_no_proof(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    """The proof looks for itself: what the last bite did not find says nothing of what has come since."""
    name = database(postgresql)
    late = """
    CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO t (at) SELECT now() - interval '1 year' FROM generate_series(1, 7)
       WHERE NOT EXISTS (SELECT FROM gone.once);
      INSERT INTO gone.once SELECT 1 WHERE NOT EXISTS (SELECT FROM gone.once);
      RETURN NULL;
    END $$;
    CREATE SCHEMA gone; CREATE TABLE gone.once (n int);
    CREATE TRIGGER late AFTER DELETE ON t EXECUTE FUNCTION late();
    """
    made(postgresql, name, OLD.format(3000), NEW.format(5000), late)
    ran = run("db_cleanup", options(postgresql, name, tmp_path, RULE))
    (step,) = [s for s in ran.fact()["steps"] if s["kind"] == "delete"]
    assert (step["proven"], step["actual"]["rows_remaining"]) == (False, 7), step
    assert "not_proven" in ran.codes()


def test_rows_that_a_trigger_keeps_are_no_change(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    """However often it runs; and it goes on to say that they are still due."""
    name = database(postgresql)
    keep = """
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN OLD.id > 5 THEN OLD END; END';
    CREATE TRIGGER keep BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION keep();
    """
    made(postgresql, name, OLD.format(20), NEW.format(5000), keep)
    said = []
    for _night in range(3):
        ran = run("db_cleanup", options(postgresql, name, tmp_path, RULE))
        (step,) = [s for s in ran.fact()["steps"] if s["kind"] == "delete"]
        assert (step["status"], step["proven"], step["actual"]["rows_remaining"]) == ("done", False, 5), step
        assert "not_proven" in ran.codes()
        said.append((ran.changed, step["actual"]["rows"]))
    assert said == [(True, 15), (False, 0), (False, 0)]


def test_a_trigger_that_keeps_rows_and_changes_them_is_a_change(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    name = database(postgresql)
    mark = """
    CREATE TABLE marked (id bigint, times int DEFAULT 1);
    CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql
      AS 'BEGIN INSERT INTO marked VALUES (OLD.id); RETURN NULL; END';
    CREATE TRIGGER mark BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION mark();
    """
    made(postgresql, name, OLD.format(20), NEW.format(5000), mark)
    ran = run("db_cleanup", options(postgresql, name, tmp_path, RULE))
    assert ran.changed and postgresql.sql("SELECT count(*) FROM marked", database=name) == [["20"]]
    assert "not_proven" in ran.codes()


# Thousands of rows when the statistics were made: old and new; what became of them; the limit; whether it is refused.
STALE = [
    # The statistics say 21 %, and it is 63 %.
    pytest.param((25, 95), "DELETE FROM t WHERE at > now() - interval '1 day' AND id % 19 < 16", 50, True, id="fewer"),
    # They say 83 %, and it is 24 %.
    pytest.param((100, 20), NEW.format(300_000), 50, False, id="more"),
    # They say 8 %, and it is 25 %.
    pytest.param((15, 165), "DELETE FROM t WHERE at > now() - interval '1 day' AND id % 11 < 8", 10, True, id="strict"),
    # They say 8 %, and it is 4 %.
    pytest.param((10, 115), NEW.format(125_000), 5, False, id="lax"),
    # Whatever the share, where all of it may go.
    pytest.param((100, 20), "DELETE FROM t WHERE at > now() - interval '1 day'", 100, False, id="all"),
]


@pytest.mark.parametrize(("rows", "then", "percent", "refused"), STALE)
@pytest.mark.parametrize("postgresql", ["postgresql-16"], indirect=True)
def test_statistics_that_are_wrong(
    postgresql: Server,
    database: Callable[[Server], str],
    tmp_path: Path,
    *,
    rows: tuple[int, int],
    then: str,
    percent: float,
    refused: bool,
) -> None:
    """No refusal for nothing, and none that is missed, be it decided by less than a whole count."""
    name = database(postgresql)
    made(postgresql, name, OLD.format(1000 * rows[0]), NEW.format(1000 * rows[1]), "ANALYZE t;", then)
    asked = options(postgresql, name, tmp_path, {**RULE, "refuse_over_percent": percent})
    check = run("db_cleanup", asked, check=True)
    ran = run("db_cleanup", asked)
    assert ran.changed is check.changed is not refused, ran.text
    assert ("too_many_rows" in ran.codes()) == ("too_many_rows" in check.codes()) == refused
    left = postgresql.sql("SELECT count(*) FROM t WHERE at < now() - interval '10 days'", database=name)
    assert left == [[str(1000 * rows[0] if refused else 0)]]
