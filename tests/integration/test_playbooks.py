# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on real servers, as cron and AWX run them: what is done, what is left alone, what is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server
from tests.fleet.errors import FleetError
from tests.playbook import Played, environment, play, steps, variables, write_inventory

from .churn import churn, churn_file, fingerprint, folder_print
from .conftest import Pool
from .module_runner import start, until

Hosts = dict[str, dict[str, Any]]
Inventory = Callable[..., Path]
# What the small test databases need to be worth anything.
SMALL = {"vacuum_reclaim_min_size": "100kB", "vacuum_min_dead_rows": 100}
SERVERS = ("postgresql-16", "mariadb", "mysql")
# What a failed CREATE UNIQUE INDEX CONCURRENTLY leaves behind; it is in nobody's way once the twin is gone.
TWINS = "CREATE TABLE twins (id int); INSERT INTO twins VALUES (1), (1)"
INVALID = "CREATE UNIQUE INDEX CONCURRENTLY twins_id ON twins (id)"
GONE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9, "db_engine": "postgresql"}


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """Writes an inventory whose hosts share a journal of the test's own."""

    def write(hosts: Hosts, **shared: Any) -> Path:
        own = {"maintenance_journal": str(tmp_path / "journal.sqlite"), **SMALL, **shared}
        return write_inventory(tmp_path / "inventory.yml", hosts, **own)

    return write


@pytest.fixture
def files(lite: Callable[[str], Path]) -> Callable[..., Hosts]:
    """Makes churned SQLite files, each a host."""

    def make(*names: str) -> Hosts:
        for name in names:
            churn_file(lite(name))
        exclusive = {"db_engine": "sqlite", "vacuum_reclaim_method": "exclusive"}
        return {name: {**exclusive, "db_databases": [str(lite(name))]} for name in names}

    return make


def said(played: Played) -> str:
    """What the playbook printed, for the message of a failed assertion and for looking into."""
    return played.text


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


def leave_an_invalid_index(server: Server, name: str) -> None:
    server.sql(TWINS, database=name)
    with pytest.raises(FleetError, match="could not create unique index"):
        server.sql(INVALID, database=name)
    server.sql("DELETE FROM twins WHERE ctid = '(0,1)'", database=name)


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


# ---- what is asked for -----------------------------------------------------------------------------------------------


def test_tags_and_operations_pick(files: Callable[..., Hosts], inventory: Inventory) -> None:
    where = inventory(files("file"))
    for arguments in (("--skip-tags", "vacuum"), ("--tags", "backup"), ("-e", '{"maintenance_operations": []}')):
        played = play("maintenance", where, *arguments)
        assert played.code == 0, said(played)
        assert played.of("db_assess_facts").keys() == {"file"}
        assert not played.of("db_vacuum")
    for arguments in (("--tags", "vacuum"), ("-e", '{"maintenance_operations": ["vacuum"]}')):
        played = play("maintenance", where, "--check", *arguments)
        assert played.code == 0, said(played)
        assert played.of("db_vacuum")["file"].fact["summary"]["planned"] > 0


def test_each_operation_has_a_tag_of_its_name(
    pool: Pool, database: Callable[[Server], str], inventory: Inventory
) -> None:
    server = pool.get("postgresql-16")
    name = database(server)
    churn(server, name)
    leave_an_invalid_index(server, name)
    where = inventory({"db": {**variables(server), "db_databases": [name]}})
    for arguments, modules in (
        (("--tags", "reindex"), {"db_reindex"}),
        (("-e", '{"maintenance_operations": ["refresh_views"]}'), {"db_refresh_views"}),
        (("--skip-tags", "reindex"), {"db_vacuum", "db_refresh_views"}),
    ):
        played = play("maintenance", where, "--check", *arguments)
        assert played.code == 0, said(played)
        assert {c.module for c in played.calls} == {"db_assess_facts", *modules}


def test_an_operation_that_is_none_is_refused_before_anything_is_touched(
    files: Callable[..., Hosts], inventory: Inventory
) -> None:
    played = play("maintenance", inventory(files("file")), "-e", '{"maintenance_operations": ["vacuum", "vacum"]}')
    assert played.code == 2
    assert "there is no vacum. There are: vacuum" in played.text
    assert not any(call.status == "ok" for call in played.calls)


def test_a_survey_hands_over_text(files: Callable[..., Hosts], inventory: Inventory) -> None:
    survey = {"maintenance_hosts": "one", "maintenance_jobs": "4", "vacuum_dead_percent": "20", "vacuum_force": "false"}
    arguments = [word for name, value in survey.items() for word in ("-e", f"{name}={value}")]
    played = play("maintenance", inventory(files("one", "two")), *arguments)
    assert played.code == 0, said(played)
    assert played.of("db_vacuum").keys() == {"one"}
    asked = played.of("db_vacuum")["one"].result["invocation"]["module_args"]
    assert (asked["jobs"], asked["dead_percent"], asked["force"]) == (4, 20.0, False)


def test_variables_reach_assessment_and_module_alike(files: Callable[..., Hosts], inventory: Inventory) -> None:
    wanted = {
        "vacuum_reclaim_percent": 99,
        "reindex_bloat_percent": 44,
        "refresh_views_max_age": "1d",
        "maintenance_statistics": True,
        "statistics_long_query": "7m",
        "maintenance_jobs": 3,
        "maintenance_time_budget": "1h",
        "db_tables": ["jobs"],
    }
    played = play("maintenance", inventory({"file": {**files("file")["file"], **wanted}}), "--check")
    assessed = played.of("db_assess_facts")["file"].result["invocation"]["module_args"]
    vacuumed = played.of("db_vacuum")["file"].result["invocation"]["module_args"]
    assert assessed["reindex"]["bloat_percent"] == 44
    assert assessed["refresh_views"]["max_age"] == "1d"
    assert assessed["statistics_options"]["long_query"] == "7m"
    policy = {name: vacuumed[name] for name in assessed["vacuum"]}
    assert policy == assessed["vacuum"]
    assert policy["reclaim_percent"] == 99
    assert vacuumed["time_budget"] == "1h"
    for asked in (assessed, vacuumed):
        assert asked["jobs"] == 3
        assert asked["tables"] == ["jobs"]


# ---- preflight -------------------------------------------------------------------------------------------------------


def test_outside_the_window_nothing_is_done_and_nothing_is_wrong(
    files: Callable[..., Hosts], inventory: Inventory
) -> None:
    hosts = files("file")
    file = Path(hosts["file"]["db_databases"][0])
    hour = datetime.now(UTC).hour
    later = f"{(hour + 3) % 24:02}:00-{(hour + 5) % 24:02}:00"
    before = file.read_bytes()
    played = play("maintenance", inventory(hosts, maintenance_window=later))
    assert played.code == 0, said(played)
    assert not played.of("db_vacuum")
    assert file.read_bytes() == before
    assert "file: not started: it is " in played.text


def test_a_host_that_lacks_free_space_is_not_touched_and_fails(
    files: Callable[..., Hosts], inventory: Inventory
) -> None:
    hosts = files("file")
    file = Path(hosts["file"]["db_databases"][0])
    before = file.read_bytes()
    played = play("maintenance", inventory(hosts), "-e", "preflight_min_free_percent=100")
    assert played.code == 2
    assert not played.of("db_vacuum")
    assert file.read_bytes() == before
    assert "file: Not started: " in played.text.split("PLAY [Trouble]")[1]


# ---- stop ------------------------------------------------------------------------------------------------------------


def test_stop_reaches_a_run_that_is_at_work(
    pool: Pool, database: Callable[[Server], str], inventory: Inventory, tmp_path: Path
) -> None:
    import psycopg2

    server = pool.get("postgresql-16")
    name = database(server)
    churn(server, name)
    login: dict[str, Any] = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    where = inventory({"db": variables(server)})
    # Others may be at work on this machine, too: only runs beside the test's own journal are meant.
    here = ("-e", '{"stop_directories": []}')
    patient = {"lock_timeout": "1m", "jobs": 1, "journal": str(tmp_path / "journal.sqlite"), "databases": [name]}
    holder = psycopg2.connect(dbname=name, **login)
    try:
        holder.cursor().execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        running = start("db_vacuum", {**server.login(), **patient})
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'VACUUM%'"
        until(lambda: server.sql(waiting) != [["0"]], what="the run waits for the lock")
        asked = play("stop", where, "--check", *here)
        assert asked.code == 0, said(asked)
        assert f"At work: db_vacuum on {server.host}:{server.port}" in asked.text
        assert running.poll() is None
        stopped = play("stop", where, *here)
        assert stopped.code == 0, said(stopped)
        assert f"Stopped: db_vacuum on {server.host}:{server.port}" in stopped.text
    finally:
        holder.close()
    ended = running.wait(30)
    assert any("stop request" in (step["error"] or "") for step in ended.fact()["steps"])
    again = play("stop", where, *here)
    assert again.code == 0
    assert again.recap("db") == {**again.recap("db"), "ok": 1, "changed": 0}


def test_stop_does_not_wait_for_the_dead(inventory: Inventory, tmp_path: Path) -> None:
    tested_state = tmp_path / "state"
    registered = tested_state / "running"
    registered.mkdir(parents=True)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    about = '{"pid": %d, "born": "%s", "module": "db_vacuum", "address": "x"}'
    (registered / f"{ended.pid}.json").write_text(about % (ended.pid, "1"))
    # The number of another process: ours, born at another time.
    (registered / f"{os.getpid()}.json").write_text(about % (os.getpid(), "1"))
    arguments = ("-e", f'{{"stop_directories": ["{tested_state}"], "stop_timeout": 5}}')
    played = play("stop", inventory({"db": {"db_engine": "sqlite"}}), *arguments)
    assert played.code == 0, said(played)
    assert played.recap("db")["changed"] == 0
    assert not list(registered.glob("*.stop"))


# ---- the roles by themselves -----------------------------------------------------------------------------------------

ALONE = """
- hosts: all
  gather_facts: false
  module_defaults:
    group/dbfleet.maintenance.all: {{engine: sqlite, databases: ["{file}"], journal: none}}
  roles:
    - role: dbfleet.maintenance.preflight
    - role: dbfleet.maintenance.vacuum
    - role: dbfleet.maintenance.reindex
    - role: dbfleet.maintenance.refresh_views
"""


def _alone(tmp_path: Path, where: Path, file: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    playbook = tmp_path / "alone.yml"
    playbook.write_text(ALONE.format(file=file))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(where), str(playbook), *arguments]
    env = {**os.environ, **environment()}
    return subprocess.run(command, env=env, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_roles_work_without_the_playbooks(files: Callable[..., Hosts], inventory: Inventory, tmp_path: Path) -> None:
    hosts = files("file")
    where = inventory(hosts)
    (file,) = hosts["file"]["db_databases"]
    first = _alone(tmp_path, where, file)
    assert first.returncode == 0, first.stdout
    assert "changed=1" in first.stdout
    again = _alone(tmp_path, where, file)
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout
    refused = _alone(tmp_path, where, file, "-e", "preflight_min_free_percent=100")
    assert refused.returncode == 2
    assert "Maintenance must not start: " in refused.stdout
    wrong = _alone(tmp_path, where, file, "-e", "vacuum_reclaim_method=quick")
    assert wrong.returncode == 2
    assert "value of vacuum_reclaim_method must be one of: online, exclusive" in wrong.stdout
