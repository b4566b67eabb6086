# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a REINDEX CONCURRENTLY that was cut off leaves behind: ours is removed by the next run, others' stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import halfbuilt
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Execution,
    Leftover,
    Ref,
    Step,
    Wants,
    Work,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._run.journal import Journal, open_journal
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Reindex
from tests.fleet import Server

from .indexes import cut_off, invalid, lazy, options, reindexing
from .module_runner import Ran, run, start, until
from .pg import client, transaction, use
from .test_check_equals_run import shown, writes

Database = Callable[[Server], str]
KINDS = pytest.mark.parametrize("kind", ["ccnew", "ccold"])


def table(server: Server, database: str, *, index: str = "t_note") -> None:
    server.script(
        "CREATE TABLE t (id int PRIMARY KEY, note text, fat text);"
        "INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 2000) n;"
        f"CREATE INDEX {named(index)} ON t (note);",
        database=database,
    )


def named(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def killed(server: Server, database: str, tmp_path: Path, kind: str) -> str:
    """Our run, killed in the middle of it, and its server process after it. Returns the name of what is left."""
    child = start("db_reindex", options(server, database, tmp_path, force=True, indexes=["lazy_note"]))
    until(lambda: invalid(server, database), 30, "the new index")
    (name,) = invalid(server, database)
    if kind == "ccold":
        # A reader that came meanwhile keeps the old index, which is replaced already, from being dropped.
        with transaction(server, database, "SELECT 1 FROM lazy LIMIT 1"):
            until(lambda: "ccold" in "".join(invalid(server, database)), 60, "the old index")
            child.end()
            end(server)
        (name,) = invalid(server, database)
    else:
        child.end()
        end(server)
    return name


def end(server: Server) -> None:
    """Without its client the server would go on until it has finished."""
    for pid in reindexing(server):
        server.sql(f"SELECT pg_terminate_backend({pid})")
    until(lambda: not reindexing(server), 30, "the end of the server process")


@KINDS
def test_what_a_killed_run_left_is_dropped_by_the_next(
    postgresql: Server, database: Database, tmp_path: Path, kind: str
) -> None:
    name = database(postgresql)
    lazy(postgresql, name)
    left = killed(postgresql, name, tmp_path, kind)
    assert f"_{kind}" in left
    asked = options(postgresql, name, tmp_path)
    check = run("db_reindex", asked, check=True)
    assert invalid(postgresql, name) == [left]
    postgresql.mark_log()
    ran = run("db_reindex", asked)
    bare = left.partition(".")[2]
    assert writes(postgresql) == shown(check) == [f'DROP INDEX CONCURRENTLY IF EXISTS "public"."{bare}"']
    assert [(s["kind"], s["object"], s["status"], s["proven"]) for s in ran.fact()["steps"]] == [
        ("drop_leftover", "public.lazy_note", "done", True)
    ]
    assert invalid(postgresql, name) == []
    assert not run("db_reindex", asked).changed


@KINDS
def test_what_nobody_remembers_is_foreign(postgresql: Server, database: Database, tmp_path: Path, kind: str) -> None:
    """The journal is lost: then our own wreckage is like anybody's."""
    name = database(postgresql)
    lazy(postgresql, name)
    left = killed(postgresql, name, tmp_path, kind)
    (tmp_path / "journal" / "journal.sqlite").unlink()
    untouched(run("db_reindex", options(postgresql, name, tmp_path)), left)
    assert invalid(postgresql, name) == [left]


@KINDS
def test_foreign_wreckage_stays_unless_adopted(
    postgresql: Server, database: Database, tmp_path: Path, kind: str
) -> None:
    name = database(postgresql)
    table(postgresql, name)
    left = cut_off(postgresql, name, "t_note", kind)
    asked = options(postgresql, name, tmp_path)
    before = untouched(run("db_reindex", asked), left)
    assert invalid(postgresql, name) == [left]
    postgresql.mark_log()
    adopted = run("db_reindex", {**asked, "adopt_leftovers": True})
    assert writes(postgresql) == shown(adopted) == [before["fix"]]
    assert invalid(postgresql, name) == []
    assert not run("db_reindex", {**asked, "adopt_leftovers": True}).changed


def untouched(ran: Ran, left: str) -> dict[str, Any]:
    assert not ran.changed
    assert ran.steps() == []
    (found,) = [f for f in ran.fact()["findings"] if f["code"] == "foreign_leftover"]
    assert left.partition(".")[2] in found["message"]
    assert found["fix"].startswith("DROP INDEX CONCURRENTLY")
    return dict(found)


def test_who_could_not_begin_claims_nothing_that_others_make_later(
    postgresql: Server, database: Database, tmp_path: Path
) -> None:
    """Somebody else's wreckage may later have the name that a failed run would have used."""
    name = database(postgresql)
    table(postgresql, name)
    task = Reindex(Ref(name, ("public", "t_note")), Ref(name, ("public", "t")))
    journal = open_journal(str(tmp_path / "journal.sqlite"), "here", readonly=False)
    step = Step(task, "forced")
    with journal, use(postgresql, Execution(concurrent_wait=1.0)) as used, used.engine.session(name) as session:
        journal.begin_run("db_reindex")
        journal.start(step)
        work = used.engine.carry_out(session, task, used.server, None)
        while "ccnew" not in (tick := next(work)).owns:
            journal.tick(step, tick)
        journal.tick(step, tick)
        with transaction(postgresql, name, "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE"), pytest.raises(Busy):
            record(journal, step, work)
    with open_journal(str(tmp_path / "journal.sqlite"), "here", readonly=True) as reread:
        claimed = {claim for claims in reread.owned().values() for claim in claims}
    left = cut_off(postgresql, name, "t_note", "ccnew")
    assert left == "public.t_note_ccnew"
    with use(postgresql) as used:
        (found,) = reindex_leftovers(used.measure(name, Wants(indexes=True, leftovers=True)).leftovers)
    assert claimed
    assert not claimed & set(found.marks)


def record(journal: Journal, step: Step, work: Work) -> None:
    for tick in work:
        journal.tick(step, tick)


def test_what_is_being_built_is_neither_wreckage_nor_invalid(
    postgresql: Server, database: Database, tmp_path: Path
) -> None:
    name = database(postgresql)
    lazy(postgresql, name)

    def build(statement: str) -> None:
        with client(postgresql, name) as cursor:
            cursor.execute(statement)

    for statement in ("CREATE INDEX CONCURRENTLY other ON lazy (lazily(note))", "REINDEX INDEX CONCURRENTLY lazy_note"):
        builder = threading.Thread(target=build, args=(statement,))
        # A build waits for who writes to the table, once the new index is there.
        with transaction(postgresql, name, "LOCK TABLE lazy IN ROW EXCLUSIVE MODE"):
            builder.start()
            until(lambda: invalid(postgresql, name), 30, "the new index")
            ran = run("db_reindex", options(postgresql, name, tmp_path, adopt_leftovers=True), check=True)
            assert builder.is_alive()
        assert ran.steps() == []
        assert ran.codes() == {"leftover_in_use"}
        builder.join()
    assert invalid(postgresql, name) == []


LONG = [
    "t_note",
    "i" * 63,
    "ü" * 31,  # 62 bytes: cut between characters
    "x" + "ü" * 31,
    "€" * 21,
    "a_ccnew",
    'hostile"; --%s',
]


@pytest.mark.parametrize("index", LONG)
def test_names_are_foretold_and_traced_back(postgresql: Server, database: Database, index: str) -> None:
    """However the server cuts them; the names of two long indexes may differ only in what is cut off."""
    name = database(postgresql)
    table(postgresql, name, index=index)
    ref = Ref(name, ("public", index))
    for _number in range(2):  # the second one is counted
        with use(postgresql) as used, used.engine.session(name) as session:
            foretold = halfbuilt.about(session, ref).new_name
        cut_off(postgresql, name, named(index), "ccnew")
        with use(postgresql) as used:
            found = reindex_leftovers(used.measure(name, Wants(indexes=True, leftovers=True)).leftovers)
        assert foretold in {x.names[0] for x in found}
        assert {(x.ref, x.dead, x.why_not) for x in found} == {(ref, True, "")}


def reindex_leftovers(found: tuple[Leftover, ...]) -> list[Leftover]:
    return [x for x in found if x.what == "reindex"]


def test_wreckage_of_toast_indexes(postgresql: Server, database: Database, tmp_path: Path) -> None:
    """What a REINDEX of somebody else leaves on out-of-line values is adopted, too."""
    name = database(postgresql)
    table(postgresql, name)
    toast = postgresql.sql(
        "SELECT x.indexrelid::regclass FROM pg_class c JOIN pg_index x ON x.indrelid = c.reltoastrelid"
        " WHERE c.relname = 't'",
        database=name,
    )[0][0]
    holder = "INSERT INTO t SELECT 0, '', string_agg(md5(n::text), '') FROM generate_series(1, 2000) n"
    left = cut_off(postgresql, name, toast, "ccnew", holder=holder)
    assert left.startswith("pg_toast.")
    asked = options(postgresql, name, tmp_path)
    untouched(run("db_reindex", {**asked, "tables": ["t"]}), left)
    assert run("db_reindex", {**asked, "adopt_leftovers": True}).changed
    assert invalid(postgresql, name) == []


def test_wreckage_without_its_index_is_nobodys(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    table(postgresql, name)
    left = cut_off(postgresql, name, "t_note", "ccnew")
    postgresql.sql("DROP INDEX t_note", database=name)
    untouched(run("db_reindex", options(postgresql, name, tmp_path, adopt_leftovers=True)), left)
    assert invalid(postgresql, name) == [left]


def test_vacuum_leaves_the_wreckage_of_indexes_alone(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    table(postgresql, name)
    left = cut_off(postgresql, name, "t_note", "ccnew")
    asked = {k: v for k, v in options(postgresql, name, tmp_path).items() if k != "min_size"}
    run("db_vacuum", asked)
    assert invalid(postgresql, name) == [left]
    both = {k: v for k, v in asked.items() if k != "assume_free_space"}
    due = run("db_assess_facts", {**both, "vacuum": {}, "reindex": {"adopt_leftovers": True}}).fact()
    assert due["vacuum"]["steps"] == 0
    assert [s["kind"] for s in due["reindex"]["sample"]] == ["drop_leftover"]


def test_a_second_attempt_begins_with_what_the_first_left(
    postgresql: Server, database: Database, tmp_path: Path
) -> None:
    """The rebuild has succeeded, and a reader keeps the old index from being dropped: it is not built once more."""
    name = database(postgresql)
    lazy(postgresql, name)
    asked = options(postgresql, name, tmp_path, force=True, indexes=["lazy_note"], concurrent_wait="2s", retries=5)
    child = start("db_reindex", asked)
    until(lambda: invalid(postgresql, name), 30, "the new index")
    with client(postgresql, name) as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1 FROM lazy LIMIT 1")
        until(lambda: "ccold" in "".join(invalid(postgresql, name)), 60, "the old index")
        built = postgresql.sql("SELECT 'lazy_note'::regclass::oid", database=name)
        until(lambda: not reindexing(postgresql), 30, "the end of the wait")
        cursor.execute("COMMIT")
    ran = child.wait()
    assert [(s["status"], s["proven"]) for s in ran.fact()["steps"]] == [("done", True)]
    assert postgresql.sql("SELECT 'lazy_note'::regclass::oid", database=name) == built
    assert invalid(postgresql, name) == []
