# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VACUUM, ANALYZE and VACUUM FULL: what is announced runs, and nothing else; the guard lets one run in."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import greeting
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Held, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Rebuild, Task, Vacuum
from tests.fleet import Server

from .pg import client, transaction, use, writes

Make = Callable[[Server], str]
CHURN = """
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i;
DELETE FROM t WHERE id % 2 = 0;
"""


def test_what_is_announced_is_what_runs(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(CHURN, database=name)
    ref = Ref(name, ("public", "t"))
    tasks: list[Task] = [
        Vacuum(ref),
        Vacuum(ref, analyze=True, truncate=False),
        Vacuum(ref, freeze=True, cost_delay=0.5),
        Analyze(ref),
        Rebuild(ref, online=False),
    ]
    with use(postgresql) as pg, pg.engine.guard([name], 0):
        postgresql.mark_log()
        announced = [word for task in tasks for word in pg.carry_out(task)]
        assert writes(postgresql) == announced
    major = int(postgresql.installation.major)
    only = "ONLY " if major >= 18 else ""
    skip = ", SKIP_DATABASE_STATS" if major >= 16 else ""
    assert announced[1] == f'VACUUM (ANALYZE, TRUNCATE FALSE{skip}) {only}"public"."t"'
    assert announced[2:4] == ["SET vacuum_cost_delay = 0.5", f'VACUUM (FREEZE) {only}"public"."t"']
    assert announced[4] == f'ANALYZE {only}"public"."t"'


def test_a_rebuild_leaves_nothing_due(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(CHURN, database=name)
    ref = Ref(name, ("public", "t"))
    with use(postgresql) as pg:
        before = pg.table(name, "t")
        pg.carry_out(Rebuild(ref, online=False))
        after = pg.table(name, "t")
    assert after.total_bytes < 0.6 * before.total_bytes
    assert after.dead is not None
    assert (after.dead.rows, after.inserted, after.changed, after.missing_statistics) == (0, 0, 0, "")
    assert after.bloat is not None
    assert after.bloat.low < 10


def test_children_are_not_vacuumed_along(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        """
        CREATE TABLE parent (id int);
        CREATE TABLE child () INHERITS (parent);
        INSERT INTO parent SELECT generate_series(1, 100);
        INSERT INTO child SELECT generate_series(1, 100);
        """,
        database=name,
    )
    with use(postgresql) as pg:
        pg.carry_out(Vacuum(Ref(name, ("public", "parent")), analyze=True))
        assert pg.table(name, "parent").missing_statistics == ""
        assert pg.table(name, "child").missing_statistics == "the table"


def test_a_rebuild_gives_up_after_the_lock_timeout(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(CHURN, database=name)
    with use(postgresql, Execution(lock_timeout=0.3)) as pg, transaction(postgresql, name, "SELECT 1 FROM t LIMIT 1"):
        began = time.monotonic()
        with pytest.raises(Busy):
            pg.carry_out(Rebuild(Ref(name, ("public", "t")), online=False))
        assert time.monotonic() - began < 15
        with client(postgresql, name) as other:
            other.execute("SET statement_timeout = '500ms'; SELECT count(*) FROM t")


def test_autovacuum_gives_way(postgresql: Server, database: Make) -> None:
    """It is asked to only after deadlock_timeout, which a shorter wait for the lock would never reach."""
    name = database(postgresql)
    postgresql.script(
        """CREATE TABLE t (id int, v text) WITH (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1,
            autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0);
        INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i;
        DELETE FROM t WHERE id % 2 = 0;""",
        database=name,
    )
    postgresql.sql("ALTER SYSTEM SET autovacuum = on")
    postgresql.sql("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    postgresql.sql("SELECT pg_reload_conf()")
    try:
        working = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE datname = current_database()"
        deadline = time.monotonic() + 20
        while postgresql.sql(working, database=name) == [["0"]]:
            assert time.monotonic() < deadline, "no autovacuum began"
            time.sleep(0.1)
        with use(postgresql, Execution(lock_timeout=0.2)) as pg:
            pg.carry_out(Vacuum(Ref(name, ("public", "t"))))
    finally:
        postgresql.sql("ALTER SYSTEM RESET ALL")
        postgresql.sql("SELECT pg_reload_conf()")


def test_a_version_that_nobody_tested_is_not_rewritten(
    postgresql: Server, database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting, "NEWEST_TESTED", 12)
    with use(postgresql) as pg:
        assert "allow_untested" in pg.server.lacks["rewrite"]
    with use(postgresql, allow_untested=True) as pg:
        assert "rewrite" not in pg.server.lacks
        newer = pg.server._replace(number=(19, 0))
        words = pg.engine.spell(Rebuild(Ref(database(postgresql), ("public", "t"))), newer)
        assert words[0] == 'REPACK (CONCURRENTLY, ANALYZE) "public"."t"'


def test_a_table_that_went_away(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    with use(postgresql) as pg:
        for task in (Vacuum(Ref(name, ("public", "gone"))), Rebuild(Ref(name, ("public", "gone")), online=False)):
            with pytest.raises(Refused, match="not there"):
                pg.carry_out(task)


def test_an_error_in_a_function_of_an_index_names_it(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        """
        CREATE FUNCTION fussy(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN v; END';
        CREATE TABLE t AS SELECT i FROM generate_series(1, 10) i;
        CREATE INDEX ON t (fussy(i));
        CREATE OR REPLACE FUNCTION fussy(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql
            AS 'BEGIN RAISE ''too much''; END';
        """,
        database=name,
    )
    with use(postgresql) as pg, pytest.raises(Refused, match=r"too much .*function public\.fussy\(integer\)"):
        pg.carry_out(Analyze(Ref(name, ("public", "t"))))


def test_the_guard_lets_one_run_in(postgresql: Server, database: Make) -> None:
    name, other = database(postgresql), database(postgresql)
    with use(postgresql) as first, use(postgresql, login_db=name) as second:
        with first.engine.guard([name], 0):
            with second.engine.guard([other], 0):
                pass
            with pytest.raises(Held) as caught, second.engine.guard([other, name], 0.3):
                pass
            assert "postgres from 127.0.0.1" in str(caught.value)
            assert re.search(r"server process \d+", str(caught.value))
            with second.engine.guard([other], 0):
                pass
        with second.engine.guard([name], 0):
            pass


def test_the_guard_waits(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    entered = threading.Event()

    def hold() -> None:
        with use(postgresql) as one, one.engine.guard([name], 0):
            entered.set()
            time.sleep(0.5)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    with use(postgresql) as two, two.engine.guard([name], 10):
        # Ended, but for the moment that ending takes.
        thread.join(2)
        assert not thread.is_alive()


def test_a_lost_guard_is_taken_again_or_ends_the_run(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script("CREATE TABLE t (id int)", database=name)
    task = Vacuum(Ref(name, ("public", "t")))
    # Waits until it has ended.
    lose = """SELECT pg_terminate_backend(pid, 20000) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"""
    with use(postgresql) as pg, use(postgresql) as other, pg.engine.guard([name], 0):
        postgresql.sql(lose)
        pg.carry_out(task)
        with pytest.raises(Held), other.engine.guard([name], 0):
            pass
        postgresql.sql(lose)
        with other.engine.guard([name], 0), pytest.raises(Refused, match="guard was lost"):
            pg.carry_out(task)


def test_what_still_works_for_a_dead_run_is_seen(postgresql: Server, database: Make) -> None:
    """The server goes on with a VACUUM FULL whose client was killed."""
    name = database(postgresql)
    postgresql.script("CREATE TABLE t (id int); CREATE TABLE u (id int)", database=name)
    with client(postgresql, name, application_name="dbfleet") as orphan:
        orphan.execute("BEGIN")
        orphan.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        thread = threading.Thread(target=lambda: orphan.execute("SELECT pg_sleep(2)"))
        thread.start()
        time.sleep(0.2)
        with use(postgresql) as pg:
            found = pg.measure(name)
            (finding,) = [f for f in found.findings if f.code == "still_at_work"]
            assert "pg_cancel_backend" in finding.fix
            lacks = {x.ref.path[1]: set(x.lacks) for x in found.tables if x.kind == "table"}
            assert {"vacuum", "reclaim"} <= lacks["t"]
            assert "vacuum" not in lacks["u"]
        thread.join()


def test_psycopg_3_alone_will_do(postgresql: Server, database: Make) -> None:
    pytest.importorskip("psycopg", reason="NOT TESTED: psycopg 3 is not installed")
    name = database(postgresql)
    postgresql.script(CHURN, database=name)
    root = Path(__file__).parents[2]
    script = f"""
        import sys
        sys.modules["psycopg2"] = None
        sys.path[:0] = [{str(root)!r}, {str(root / ".dev/collections")!r}]
        from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import PostgreSQL
        from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import *
        from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import *
        from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import *
        engine = PostgreSQL({postgresql.login()!r}, Execution(lock_timeout=0.3))
        server = engine.greet()
        ref = Ref({name!r}, ("public", "t"))
        with engine.guard([{name!r}], 0), engine.session({name!r}) as session:
            wants = Wants(tables=True, bloat=True, leftovers=True, activity=True)
            before = engine.measure(session, wants, server)
            for task in (Vacuum(ref, analyze=True), Rebuild(ref, online=False)):
                list(engine.carry_out(session, task, server, None))
            after = [x for x in engine.measure(session, wants, server).tables if x.ref == ref][0]
            assert (after.dead.rows, after.rows, after.missing_statistics) == (0, 10000, ""), after
            worker = session.worker(lock_timeout=1)
            assert any("hello" in said for said in worker.run("DO $$ BEGIN RAISE WARNING 'hello'; END $$"))
            try:
                session.rows("SELECT * FROM nowhere")
            except Refused as error:
                assert "nowhere" in str(error)
        engine.close()
        try:
            PostgreSQL({{**{postgresql.login()!r}, "login_password": "wrong-and-secret"}}, Execution()).greet()
        except CannotConnect as error:
            assert "login_password" in str(error) and "secret" not in str(error), error
        print("fine")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "fine", done.stderr


def test_statistics_only_where_asked(postgresql: Server, database: Make) -> None:
    """No more is measured than is wanted: the queries of bloat and leftovers are left out."""
    name = database(postgresql)
    with use(postgresql) as pg:
        postgresql.mark_log()
        pg.measure(name, Wants(activity=True))
        said = " ".join(postgresql.statements())
    assert "pg_statistic" not in said
    assert "pg_trigger" not in said
