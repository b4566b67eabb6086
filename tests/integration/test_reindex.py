# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_reindex on PostgreSQL: check mode shows what runs, a second run does nothing, and every sort of index is cured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, Server

from .churn import fingerprint
from .conftest import Pool
from .indexes import BLOATED, invalid, options, spoil, valid_names
from .module_runner import run
from .test_check_equals_run import shown, writes

Database = Callable[[Server], str]


def test_check_shows_what_runs(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    spoil(postgresql, name)
    indexes = valid_names(postgresql, name)
    asked = options(postgresql, name, tmp_path)
    before = fingerprint(postgresql, name)
    postgresql.mark_log()
    check = run("db_reindex", asked, check=True)
    assert writes(postgresql) == []
    assert fingerprint(postgresql, name) == before
    assert not (tmp_path / "journal").exists()
    assert check.changed
    assert {step[1] for step in check.steps()} == BLOATED | {"public.double_id"}

    postgresql.mark_log()
    real = run("db_reindex", asked)
    assert real.changed
    assert sorted(real.steps()) == sorted(check.steps())
    assert writes(postgresql) == shown(check) == shown(real)
    steps = real.fact()["steps"]
    assert {s["status"] for s in steps} == {"done"}
    assert all(s["proven"] for s in steps), real.text
    assert all(s["actual"]["bytes_freed"] > 0 for s in steps if s["object"] != "public.double_id")
    assert invalid(postgresql, name) == []
    assert valid_names(postgresql, name) == sorted([*indexes, "double_id"])
    # Safety first: the invalid index before all that are merely large.
    assert check.steps()[0][1] == "public.double_id"


def test_a_second_run_does_nothing(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    spoil(postgresql, name)
    asked = options(postgresql, name, tmp_path)
    assert run("db_reindex", asked).changed
    for forget in (False, True):
        if forget:
            (tmp_path / "journal" / "journal.sqlite").unlink()
        postgresql.mark_log()
        second = run("db_reindex", asked)
        assert not second.changed, second.text
        assert second.steps() == []
        assert writes(postgresql) == []
    spoil(postgresql, name, again=True)
    third = run("db_reindex", asked)
    assert {"public.orders_pkey", "public.orders_note"} <= {step[1] for step in third.steps()} < BLOATED
    assert {s["status"] for s in third.fact()["steps"]} == {"done"}


def test_an_exclusion_constraint_is_left_to_the_exclusive_way(
    postgresql: Server, database: Database, tmp_path: Path
) -> None:
    name = database(postgresql)
    spoil(postgresql, name)
    asked = options(postgresql, name, tmp_path, tables=["rooms"])
    online = run("db_reindex", asked)
    (found,) = [f for f in online.fact()["findings"] if f["code"] == "no_online_rebuild"]
    assert not online.changed
    assert found["object"] == "public.rooms_note_excl"
    assert found["fix"] == 'REINDEX INDEX "public"."rooms_note_excl"'
    check = run("db_reindex", {**asked, "method": "exclusive"}, check=True)
    postgresql.mark_log()
    exclusive = run("db_reindex", {**asked, "method": "exclusive"})
    assert writes(postgresql) == shown(check) == [found["fix"]]
    assert [s["proven"] for s in exclusive.fact()["steps"]] == [True]
    assert not run("db_reindex", {**asked, "method": "exclusive"}).changed
    assert not run("db_reindex", asked).fact()["findings"]


def test_force_rebuilds_what_is_named(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    spoil(postgresql, name)
    asked = options(postgresql, name, tmp_path, force=True)
    assert "force" in run("db_reindex", asked, fails=True).result["msg"]
    ran = run("db_reindex", {**asked, "indexes": ["quiet_*", "events_note"]})
    assert {step[1] for step in ran.steps()} == {
        "public.quiet_pkey",
        "public.quiet_note",
        # A partitioned index stores nothing: its parts stand for it.
        "public.events_early_note_n_idx",
        "public.events_late_note_n_idx",
    }
    assert {(s["status"], s["proven"], s["reason"]) for s in ran.fact()["steps"]} == {("done", True, "forced")}
    typing_error = run("db_reindex", {**asked, "indexes": ["quiet_noté"]})
    assert not typing_error.changed
    assert "no_such_index" in typing_error.codes()


def test_what_selects_and_what_limits(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    spoil(postgresql, name)

    def due(**more: Any) -> set[str]:
        return {step[1] for step in run("db_reindex", options(postgresql, name, tmp_path, **more), check=True).steps()}

    orders = {x for x in BLOATED if "orders" in x}
    assert due(tables=["orders"]) == orders
    assert due(tables=["orders"], indexes=["-orders_pkey"]) == orders - {"public.orders_pkey"}
    assert due(reasons=["invalid"]) == {"public.double_id"}
    assert due(reasons=["bloated"]) == BLOATED
    assert due(min_size="1GB") == {"public.double_id"}
    assert due(bloat_percent=99) == {"public.double_id"}
    assert due(tables=["events"]) == {x for x in BLOATED if "events" in x}


def test_an_invalid_parent_is_a_finding_with_a_cure(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    spoil(postgresql, name)
    postgresql.sql("CREATE INDEX events_n ON ONLY events (n)", database=name)
    ran = run("db_reindex", options(postgresql, name, tmp_path, reasons=["invalid"], tables=["events"]))
    assert not ran.changed
    (found,) = ran.fact()["findings"]
    assert (found["code"], found["object"]) == ("invalid_partitioned_index", "public.events_n")
    for part in ("early", "late"):
        postgresql.sql(f"CREATE INDEX CONCURRENTLY events_{part}_n ON events_{part} (n)", database=name)
        postgresql.sql(f"ALTER INDEX events_n ATTACH PARTITION events_{part}_n", database=name)
    assert run("db_reindex", options(postgresql, name, tmp_path, reasons=["invalid"])).fact()["findings"] == []


def test_the_assessment_says_what_a_run_would_do(postgresql: Server, database: Database, tmp_path: Path) -> None:
    name = database(postgresql)
    spoil(postgresql, name)
    asked = options(postgresql, name, tmp_path)
    mine = {key: asked[key] for key in ("databases", "journal")}
    assess = {**postgresql.login(), **mine, "reindex": {"min_size": "200kB"}, "vacuum": {}}
    postgresql.mark_log()
    due = run("db_assess_facts", assess).fact()["reindex"]
    assert writes(postgresql) == []
    assert due["due"] is True
    assert due["steps"] == len(BLOATED) + 1
    ran = run("db_reindex", asked)
    assert sorted(x["statements"][0] for x in due["sample"]) == shown(ran)
    assert run("db_assess_facts", assess).fact()["reindex"]["due"] is False


@pytest.mark.parametrize("key", ["postgresql-15", "postgresql-18"])
def test_a_collation_is_refreshed_after_all_that_it_sorts(
    pool: Pool, database: Database, tmp_path: Path, key: str
) -> None:
    server = pool.get(key)
    name = database(server)
    collation = versioned(server, name)
    asked = options(server, name, tmp_path)
    check = run("db_reindex", asked, check=True)
    assert [step[1:] for step in check.steps()] == [
        ("public.a_note", "reindex"),
        ("public.b_note", "reindex"),
        (collation, "refresh_collation"),
    ]
    server.mark_log()
    real = run("db_reindex", asked)
    assert writes(server) == shown(check) == shown(real)
    assert all(s["proven"] for s in real.fact()["steps"]), real.text
    assert not run("db_reindex", asked).changed


@pytest.mark.parametrize("key", ["postgresql-15", "postgresql-18"])
def test_a_collation_is_not_refreshed_while_anything_is_left(
    pool: Pool, database: Database, tmp_path: Path, key: str
) -> None:
    server = pool.get(key)
    name = database(server)
    collation = versioned(server, name)
    asked = options(server, name, tmp_path)
    half = run("db_reindex", {**asked, "indexes": ["a_note"]})
    assert [step[1:] for step in half.steps()] == [("public.a_note", "reindex")]
    assert [s["proven"] for s in half.fact()["steps"]] == [True]
    (found,) = [f for f in half.fact()["findings"] if f["code"] == "collation_mismatch"]
    assert found["object"] == collation
    assert "public.b_note" in found["message"]
    assert "public.a_note" not in found["message"]
    assert not run("db_reindex", {**asked, "indexes": ["a_note"]}).changed
    # Without the journal nobody knows that a_note was rebuilt: then it is, again.
    unknowing = run("db_reindex", {**asked, "journal": "none"}, check=True)
    assert [step[1] for step in unknowing.steps()] == ["public.a_note", "public.b_note", collation]
    rest = run("db_reindex", asked)
    assert [step[1] for step in rest.steps()] == ["public.b_note", collation]
    assert not run("db_reindex", {**asked, "journal": "none"}).changed


def test_a_check_that_sorts_is_left_to_the_user(pool: Pool, database: Database, tmp_path: Path) -> None:
    server = pool.get("postgresql-18")
    name = database(server)
    collation = versioned(server, name)
    server.sql("ALTER TABLE a ADD CONSTRAINT low CHECK (note < 'zz') NOT VALID", database=name)
    asked = options(server, name, tmp_path)
    ran = run("db_reindex", asked)
    assert {step[1] for step in ran.steps()} == {"public.a_note", "public.b_note"}
    (found,) = [f for f in ran.fact()["findings"] if f["code"] == "collation_mismatch"]
    assert "CHECK low" in found["message"]
    again = run("db_reindex", asked)
    assert not again.changed
    server.sql(found["fix"], database=name)
    assert collation in found["object"]
    assert run("db_reindex", asked).fact()["findings"] == []


def versioned(server: Server, database: str) -> str:
    """Two indexes sorted by a collation whose version on record is not its own; its name."""
    if int(server.installation.major) < 17:
        server.sql("CREATE COLLATION german (provider = icu, locale = 'de')", database=database)
        name = "public.german"
    else:
        name = "pg_catalog.pg_c_utf8"
    for table in ("a", "b"):
        server.script(
            f"CREATE TABLE {table} (id int PRIMARY KEY, note text COLLATE {name});"
            f"INSERT INTO {table} SELECT n, md5(n::text) FROM generate_series(1, 500) n;"
            f"CREATE INDEX {table}_note ON {table} (note);",
            database=database,
        )
    bare = name.partition(".")[2]
    server.sql(f"UPDATE pg_catalog.pg_collation SET collversion = '0' WHERE collname = '{bare}'", database=database)
    return name


def test_the_collation_of_a_database(fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.postgresql(18, name="collated")
    server.sql(
        "CREATE DATABASE shop LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8' TEMPLATE template0"
    )
    server.sql("CREATE TABLE a (note text UNIQUE, id int)", database="shop")
    server.sql("CREATE INDEX a_id ON a (id)", database="shop")
    server.sql("UPDATE pg_catalog.pg_database SET datcollversion = '0' WHERE datname = 'shop'")
    asked = options(server, "shop", tmp_path)
    check = run("db_reindex", asked, check=True)
    assert shown(check) == [
        'ALTER DATABASE "shop" REFRESH COLLATION VERSION',
        'REINDEX INDEX CONCURRENTLY "public"."a_note_key"',
    ]
    server.mark_log()
    real = run("db_reindex", asked)
    assert writes(server) == shown(check)
    assert {(s["status"], s["proven"]) for s in real.fact()["steps"]} == {("done", True)}
    assert not run("db_reindex", asked).changed
    server.stop()
