# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on real servers, as cron and AWX run them: what is done, what is left alone, what is said."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server
from tests.playbook import play, steps, variables

from .churn import churn, fingerprint, folder_print
from .conftest import Pool
from .playing import GONE, SERVERS, Hosts, Inventory, churned, leave_an_invalid_index, said, write_hosts


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return partial(write_hosts, tmp_path)


@pytest.fixture
def files(lite: Callable[[str], Path]) -> Callable[..., Hosts]:
    return partial(churned, lite)


# ---- the main thing --------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(pool: Pool, database: Callable[[Server], str], files: Callable[..., Hosts]) -> Hosts:
    """A churned database on every engine."""
    hosts = files("file")
    for key in SERVERS:
        server = pool.get(key)
        name = database(server)
        churn(server, name)
        hosts[key] = {**variables(server), "db_databases": [name]}
    leave_an_invalid_index(pool.get("postgresql-16"), hosts["postgresql-16"]["db_databases"][0])
    return hosts


def test_a_mixed_fleet_is_checked_maintained_and_then_left_alone(mixed: Hosts, inventory: Inventory) -> None:
    where = inventory(mixed)
    check = play("maintenance", where, "--check", "--diff")
    first = play("maintenance", where, "--diff")
    again = play("maintenance", where)
    assert [check.code, first.code, again.code] == [0, 0, 0], said(first)
    assert steps(check.calls) == steps(first.calls)
    assert set(first.of("db_assess_facts")) == set(first.of("db_vacuum")) == set(mixed)
    assert all(call.result["changed"] for call in first.of("db_vacuum").values())
    for module in ("db_reindex", "db_refresh_views"):
        assert set(first.of(module)) == {"postgresql-16"}
        assert first.of(module)["postgresql-16"].result["changed"]
    order = [call.module for call in first.calls if call.host == "postgresql-16"]
    assert order == ["db_assess_facts", "db_vacuum", "db_reindex", "db_refresh_views"]
    assert all(step["statements"][0] in check.text for call in check.calls for step in call.fact.get("steps", ()))
    # Nothing due: one module call a host, and nothing changed.
    assert len(again.calls) == len(mixed)
    assert set(again.of("db_assess_facts")) == set(mixed)
    for host in mixed:
        assert again.recap(host)["changed"] == 0
        assert f'"{host}: nothing due"' in again.text


def test_assess_shows_what_is_due_and_only_reads(mixed: Hosts, inventory: Inventory, pool: Pool) -> None:
    where = inventory(mixed)
    name = mixed["mysql"]["db_databases"][0]
    file = Path(mixed["file"]["db_databases"][0])
    before = (fingerprint(pool.get("mysql"), name), databases_in(file.parent))
    assessed = play("assess", where)
    assert (fingerprint(pool.get("mysql"), name), databases_in(file.parent)) == before
    assert assessed.code == 0, said(assessed)
    assert set(assessed.of("db_assess_facts")) == set(mixed)
    assert len(assessed.calls) == len(mixed)
    for host, call in assessed.of("db_assess_facts").items():
        assert call.fact["vacuum"]["due"]
        assert f"{host}:   due         {call.fact['vacuum']['sample'][0]['kind']} of" in assessed.text
        assert f"{host}:   server      " in assessed.text
    due = assessed.of("db_assess_facts")["postgresql-16"].fact
    assert (due["reindex"]["steps"], due["refresh_views"]["steps"]) == (1, 1)


def databases_in(folder: Path) -> dict[str, Any]:
    """What lies there, but for the journal, which keeps sizes for trends."""
    return {name: state for name, state in folder_print(folder).items() if not name.startswith("journal")}


def test_recommendations_are_shown_with_their_cure(
    pool: Pool, database: Callable[[Server], str], inventory: Inventory
) -> None:
    server = pool.get("postgresql-16")
    name = database(server)
    server.script(
        """
        CREATE TABLE customers (id int PRIMARY KEY);
        CREATE TABLE invoices (id int PRIMARY KEY, customer int REFERENCES customers);
        INSERT INTO customers SELECT generate_series(0, 30000);
        INSERT INTO invoices SELECT n, n FROM generate_series(1, 30000) n;
        DELETE FROM customers WHERE id = 0;
        CREATE INDEX one ON customers (id, (id + 1));
        CREATE INDEX two ON customers (id, (id + 1));
        ANALYZE;
        """,
        database=name,
    )
    where = inventory({"db": {**variables(server), "db_databases": [name]}}, maintenance_operations=["refresh_views"])
    assessed = play("assess", where)
    assert assessed.code == 0, said(assessed)
    assert '"db:     fix       CREATE INDEX CONCURRENTLY ON' in assessed.text
    assert '"db:     fix       DROP INDEX CONCURRENTLY' in assessed.text
    quiet = play("assess", where, "-e", "maintenance_statistics=false")
    assert "fix  " not in quiet.text
    assert "db: nothing due" in quiet.text


def test_what_vacuum_rebuilds_is_not_reindexed_in_the_same_night(
    pool: Pool, database: Callable[[Server], str], files: Callable[..., Hosts], inventory: Inventory
) -> None:
    """And so the check names what the run does, though only the run has rebuilt the tables when it is asked."""
    server = pool.get("postgresql-16")
    name = database(server)
    for table in ('"we""ird [1] %s"', "jobs", "logins"):
        server.script(
            f"""
            CREATE TABLE {table} (id int PRIMARY KEY, token text);
            INSERT INTO {table} SELECT n, md5(n::text) FROM generate_series(1, 20000) n;
            CREATE INDEX ON {table} (token);
            DELETE FROM {table} WHERE id % 10 < 7;
            VACUUM ANALYZE {table};
            """,
            database=name,
        )
    # The one whose space is used again needs its index rebuilt, and nothing else.
    server.sql("INSERT INTO logins SELECT n, 'z' || n FROM generate_series(1, 20000) n WHERE n % 10 < 7", database=name)
    server.sql("VACUUM ANALYZE logins", database=name)
    db = {**variables(server), "db_databases": [name], "vacuum_reclaim_method": "exclusive"}
    where = inventory({"db": db, **files("file")}, reindex_min_size="100kB")
    check = play("maintenance", where, "--check")
    first = play("maintenance", where)
    assert [check.code, first.code] == [0, 0], said(first)
    assert steps(check.calls) == steps(first.calls)
    reclaimed = {s["object"] for s in first.of("db_vacuum")["db"].fact["steps"] if s["kind"] == "reclaim"}
    assert reclaimed == {'public.we"ird [1] %s', "public.jobs"}
    assert {s["object"] for s in first.of("db_reindex")["db"].fact["steps"]} == {"public.logins_token_idx"}
    assert not [c for c in play("maintenance", where).calls if c.module != "db_assess_facts"]


# ---- trouble ---------------------------------------------------------------------------------------------------------


def test_hosts_with_trouble_neither_stop_the_others_nor_hide(
    pool: Pool, files: Callable[..., Hosts], inventory: Inventory
) -> None:
    secret = "s3cret-that-is-wrong"
    refused = {**variables(pool.get("postgresql-16")), "db_login_password": secret}
    played = play("maintenance", inventory({"gone": GONE, "refused": refused, **files("file"), "empty": {}}), "-vvv")
    assert played.code == 2
    assert played.of("db_vacuum").keys() == {"file"}
    assert played.recap("file")["changed"] == 1
    assert [played.recap(host)["failed"] for host in ("gone", "refused", "empty", "file")] == [1, 1, 1, 0]
    last = played.text.split("PLAY [Trouble]")[1]
    assert "gone: out of reach: " in last
    assert "refused: " in last
    assert "password authentication failed" in last
    assert "empty: " in last
    assert "set db_engine" in last
    assert "file: " not in last.split("PLAY RECAP")[0]
    assert secret not in played.text
    assert pool.get("postgresql-16").password not in played.text


def test_a_run_in_which_all_hosts_fail_says_so(inventory: Inventory, tmp_path: Path) -> None:
    missing = {"db_engine": "sqlite", "db_databases": [str(tmp_path / "missing.sqlite3")]}
    hosts = {"gone": GONE, "missing": missing}
    for playbook in ("maintenance", "assess"):
        played = play(playbook, inventory(hosts))
        assert played.code == 2
        last = played.text.split("PLAY [Trouble]")[1]
        assert "gone: out of reach" in last
        assert "missing: " in last


def test_limit_reaches_the_last_play(files: Callable[..., Hosts], inventory: Inventory) -> None:
    where = inventory({"gone": GONE, **files("file")})
    bad = play("maintenance", where, "--limit", "gone")
    assert bad.code == 2
    assert "gone: out of reach" in bad.text.split("PLAY [Trouble]")[1]
    assert not bad.of("db_vacuum")
    good = play("maintenance", where, "--limit", "file")
    assert good.code == 0, said(good)
    assert good.of("db_vacuum").keys() == {"file"}


def test_a_step_that_fails_fails_its_host_with_all_results_in_place(
    pool: Pool, database: Callable[[Server], str], files: Callable[..., Hosts], inventory: Inventory
) -> None:
    import psycopg2

    server = pool.get("postgresql-16")
    name = database(server)
    churn(server, name)
    server.sql("CREATE MATERIALIZED VIEW quiet_count AS SELECT count(*) FROM quiet", database=name)
    held = {**variables(server), "db_databases": [name], "maintenance_lock_timeout": "200ms", "maintenance_retries": 0}
    login: dict[str, Any] = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    holder = psycopg2.connect(dbname=name, **login)
    try:
        holder.cursor().execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        played = play("maintenance", inventory({"held": held, **files("file")}))
    finally:
        holder.close()
    assert played.code == 2
    assert played.recap("file")["failed"] == 0
    vacuumed = played.of("db_vacuum")["held"]
    assert {s["object"] for s in vacuumed.fact["steps"] if s["status"] == "failed"} == {"public.orders"}
    assert any(s["status"] == "done" for s in vacuumed.fact["steps"])
    # What reads other tables is refreshed all the same.
    refreshed = played.of("db_refresh_views")["held"].fact["steps"]
    assert {s["object"]: s["status"] for s in refreshed} == {"public.totals": "failed", "public.quiet_count": "done"}
    last = played.text.split("PLAY [Trouble]")[1]
    assert "steps failed: vacuum of public.orders" in last
    assert "steps failed: refresh of public.totals" in last
