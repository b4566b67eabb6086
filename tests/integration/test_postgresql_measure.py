# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL's catalogs and statistics become: needs that arise, and that end when the work is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Vacuum
from tests.fleet import Server

from .churn import fingerprint
from .module_runner import run
from .pg import ALL, transaction, use, writes
from .test_check_equals_run import options

Make = Callable[[Server], str]


def test_dead_inserted_and_changed_rows_come_and_go(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        """
        CREATE TABLE t (id int PRIMARY KEY, v text);
        INSERT INTO t SELECT i, 'x' FROM generate_series(1, 4000) i;
        DELETE FROM t WHERE id % 4 = 0;
        """,
        database=name,
    )
    with use(postgresql) as pg:
        before = pg.table(name, "t")
        assert before.dead is not None
        assert (before.dead.rows, round(before.dead.percent)) == (1000, 25)
        assert before.inserted == 4000
        assert before.insert_limit is not None
        assert before.inserted > before.insert_limit
        assert before.changed == 5000
        assert before.analyzed is None
        assert before.missing_statistics == "the table"
        assert before.bloat is None, "no statistics, no guess"
        assert before.indexes == 1
        assert before.total_bytes > before.bytes > 0
        pg.carry_out(Vacuum(before.ref, analyze=True))
        after = pg.table(name, "t")
        assert after.dead is not None
        assert (after.dead.rows, after.inserted, after.changed, after.missing_statistics) == (0, 0, 0, "")
        assert after.rows == 3000
        assert after.analyzed is not None
        assert abs((after.analyzed - pg.server.now).total_seconds()) < 60
        assert after.bloat is not None


def test_tables_own_settings(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        """
        CREATE TABLE t (id int) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 7,
            autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 5, fillfactor = 80,
            autovacuum_vacuum_insert_threshold = -1, autovacuum_freeze_max_age = 100000);
        CREATE TABLE lower (id int, v text) WITH (toast.autovacuum_freeze_max_age = 100000);
        CREATE TABLE inserts (id int) WITH (autovacuum_vacuum_insert_threshold = 10,
            autovacuum_vacuum_insert_scale_factor = 0.5);
        INSERT INTO inserts SELECT generate_series(1, 100);
        """,
        database=name,
    )
    postgresql.sql("ANALYZE inserts", database=name)
    # Transaction ids go on, so that there is an age.
    postgresql.script("SELECT txid_current();" * 50, database=name)
    with use(postgresql) as pg:
        t, lower, inserts = (pg.table(name, n) for n in ("t", "lower", "inserts"))
    assert t.own == {"dead_percent": 1, "min_dead_rows": 7, "changed_percent": 2, "min_changed_rows": 5}
    assert t.insert_limit is None
    assert inserts.insert_limit == pytest.approx(60)
    for small in (t, lower):
        assert small.freeze_percent is not None
        assert small.freeze_percent >= 100 * 50 / 100000
    assert inserts.freeze_percent is not None
    assert inserts.freeze_percent < 0.01


def test_freezing_brings_the_age_down(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.sql(
        "CREATE TABLE t AS SELECT i AS id, repeat(md5(i::text), 100) AS v FROM generate_series(1, 200) i", database=name
    )
    postgresql.script("SELECT txid_current();" * 100, database=name)
    with use(postgresql) as pg:
        before = pg.table(name, "t").freeze_percent or 0.0
        pg.carry_out(Vacuum(Ref(name, ("public", "t")), freeze=True))
        assert (pg.table(name, "t").freeze_percent or 0.0) < before
        catalogs = [x for x in pg.measure(name).tables if x.kind == "catalog"]
        assert any(x.ref.path == ("pg_catalog", "pg_class") for x in catalogs)
        assert all(x.freeze_percent is not None for x in catalogs)
        words = pg.carry_out(Vacuum(Ref(name, ("pg_catalog", "pg_class")), freeze=True))
        assert not any("SKIP_DATABASE_STATS" in w for w in words), "the database's own age must come down"


@pytest.mark.parametrize("setup", [
    "CREATE INDEX e ON t (lower(v))",
    "CREATE STATISTICS s (dependencies) ON id, v FROM t",
    "ALTER TABLE t ADD COLUMN w int DEFAULT 1",
    "CREATE TABLE child () INHERITS (t)",
])  # fmt: skip
def test_missing_statistics_end_with_an_analyze(postgresql: Server, database: Make, setup: str) -> None:
    name = database(postgresql)
    postgresql.script("CREATE TABLE t AS SELECT i AS id, 'x'::text AS v FROM generate_series(1, 100) i", database=name)
    postgresql.sql("ANALYZE t", database=name)
    with use(postgresql) as pg:
        assert pg.table(name, "t").missing_statistics == ""
        postgresql.sql(setup, database=name)
        found = pg.table(name, "t").missing_statistics
        words = {"INDEX": "index", "STATISTICS": "extended statistics", "TABLE": "children", "COLUMN": "column w"}
        assert words["COLUMN" if "COLUMN" in setup else setup.split()[1]] in found
        pg.carry_out(Analyze(Ref(name, ("public", "t"))))
        assert pg.table(name, "t").missing_statistics == ""


def test_statistics_that_nobody_collects_are_not_missed(postgresql: Server, database: Make) -> None:
    """Else the step would come back each night."""
    name = database(postgresql)
    postgresql.script(
        """
        CREATE TABLE t (id int, skipped text, j json, p point);
        ALTER TABLE t ALTER skipped SET STATISTICS 0;
        CREATE STATISTICS s (dependencies) ON id, skipped FROM t;
        INSERT INTO t SELECT i, 'x', '{}', '(1,2)' FROM generate_series(1, 100) i;
        CREATE TABLE empty (id int);
        CREATE TABLE emptied AS SELECT 1 AS id;
        DELETE FROM emptied;
        """,
        database=name,
    )
    with use(postgresql) as pg:
        assert pg.table(name, "empty").missing_statistics == ""
        for table in ("t", "emptied"):
            pg.carry_out(Analyze(Ref(name, ("public", table))))
            assert pg.table(name, table).missing_statistics == ""


def test_partitioned_tables_are_analyzed_once(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        """
        CREATE TABLE p (id int, v text) PARTITION BY RANGE (id);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000) PARTITION BY RANGE (id);
        CREATE TABLE p1a PARTITION OF p1 FOR VALUES FROM (0) TO (1000);
        CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (2000);
        CREATE TABLE vacant (id int) PARTITION BY RANGE (id);
        INSERT INTO p SELECT i, 'x' FROM generate_series(1, 1999) i;
        """,
        database=name,
    )
    parent = Ref(name, ("public", "p"))
    with use(postgresql) as pg:
        before = pg.table(name, "p")
        assert (before.kind, before.rows, before.changed, before.missing_statistics) == (
            "partitioned",
            1999,
            1999,
            "the table",
        )
        assert before.dead is None
        assert pg.table(name, "vacant").missing_statistics == ""
        words = pg.carry_out(Analyze(parent, partitioned=True))
        assert "ONLY" not in words[0]
        after = pg.table(name, "p")
        assert (after.changed, after.missing_statistics) == (0, "")
        for leaf in ("p1a", "p2", "p1"):
            pg.carry_out(Analyze(Ref(name, ("public", leaf)), partitioned=leaf == "p1"))
    with use(postgresql) as pg:
        again = pg.table(name, "p")
        assert (again.changed, again.missing_statistics) == (0, "")
        postgresql.sql("UPDATE p SET v = 'y' WHERE id < 900", database=name)
        changed = pg.table(name, "p").changed
        assert changed is not None
        assert changed > 700


def test_a_locked_table_does_not_hold_the_measurement_up(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int); INSERT INTO t VALUES (1)", database=name
    )
    patient = Execution(lock_timeout=60.0)  # who waited for the lock would wait that long
    with use(postgresql, patient) as pg, transaction(postgresql, name, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
        began = time.monotonic()
        found = {x.ref.path[1] for x in pg.measure(name).tables}
        assert {"t", "u"} <= found
        assert time.monotonic() - began < 30
    with use(postgresql) as pg, transaction(postgresql, name, "REINDEX INDEX t_pkey"):
        assert {x.ref.path[1] for x in pg.measure(name).tables} >= {"t", "u"}


def test_three_thousand_tables_take_well_under_a_second(postgresql: Server, database: Make, tmp_path: Path) -> None:
    name = database(postgresql)
    for part in range(0, 3000, 500):
        postgresql.script(
            f"""DO $$ BEGIN FOR i IN {part}..{part + 499} LOOP
            EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY, a text, b numeric, c timestamptz)', i);
            END LOOP; END $$""",
            database=name,
        )
    with use(postgresql) as pg:
        pg.measure(name)
        seconds, reference = [], []
        for _turn in range(3):
            began = time.monotonic()
            postgresql.sql("SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r'", database=name)
            reference.append(time.monotonic() - began)
            postgresql.mark_log()
            began = time.monotonic()
            found = pg.measure(name)
            seconds.append(time.monotonic() - began)
        queries = len(postgresql.statements())
    assert len([x for x in found.tables if x.kind == "table"]) == 3000
    assert queries < 20
    # On a busy machine everything takes long: the sizes alone are the measure.
    assert min(seconds) < max(1.0, 5 * min(reference)), (seconds, reference)
    print(f"3,000 tables: {min(seconds):.2f} s, {queries} queries; their sizes alone {min(reference):.2f} s")
    # The same of a whole run that has nothing to do.
    postgresql.mark_log()
    began = time.monotonic()
    ran = run("db_vacuum", options(postgresql, name, tmp_path))
    assert not ran.changed
    asked = [x.statement[:80] for x in postgresql.logged() if x.application != "fleet"]
    assert len(asked) < 60, asked
    # A bound against quadratic work, generous enough for a busy machine; the benchmarks hold the real figures.
    assert time.monotonic() - began < 20


def test_measuring_changes_nothing(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id; DELETE FROM t WHERE id < 500", database=name
    )
    before = fingerprint(postgresql, name)
    postgresql.mark_log()
    with use(postgresql) as pg:
        pg.measure(name, ALL)
        pg.measure(name, Wants(tables=True, exact=(Ref(name, ("public", "t")),)))
        pg.gauge("disk_missing", Vacuum(Ref(name, ("public", "t"))))
        pg.gauge("oldest_snapshot", Vacuum(Ref(name, ("public", "t"))))
        assert writes(postgresql) == []
        with pg.engine.session(name) as session, pytest.raises(Exception, match="read-only"):
            session.rows("DELETE FROM public.t")
    assert fingerprint(postgresql, name) == before


def test_temporary_and_foreign_tables_are_left_alone(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        """
        CREATE FOREIGN DATA WRAPPER nowhere;
        CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
        CREATE FOREIGN TABLE distant (id int) SERVER far;
        CREATE UNLOGGED TABLE unlogged (id int);
        """,
        database=name,
    )
    with transaction(postgresql, name, "CREATE TEMP TABLE mine (id int)") as cursor:
        cursor.execute("COMMIT")
        with use(postgresql) as pg:
            names = {x.ref.path[1] for x in pg.measure(name).tables if x.kind != "catalog"}
    assert names == {"unlogged"}
