# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bloat of values stored out of line against the truth: what VACUUM FULL makes of the table and of its TOAST table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import bloat, catalog
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref, Wants
from tests.fleet import Server

from .conftest import Pool
from .module_runner import run
from .pg import role, transaction, use

Make = Callable[[Server], str]
ESTIMATE = Wants(tables=True, bloat=True)
# name: storage, the values, rows
VALUES = {
    "brief": ("EXTERNAL", "left(repeat(md5(i::text), 66), 2100)", 1500),
    "middle": ("EXTERNAL", "left(repeat(md5(i::text), 160), 5000)", 900),
    "long": ("EXTERNAL", "left(repeat(md5(i::text), 3200), 100000)", 60),
    "mixed": ("EXTERNAL", "left(repeat(md5(i::text), 270), 2050 + (i * 7919) % 6000)", 900),
    "packed": (
        "EXTENDED",
        "(SELECT string_agg(md5((i * 1000 + j)::text), '') FROM generate_series(1, 80 + (i * 7919) % 500) j)",
        400,
    ),
    "seldom": (
        "EXTERNAL",
        "CASE WHEN i % 4 = 0 THEN left(repeat(md5(i::text), 160), 5000) ELSE repeat('x', i % 90) END",
        3000,
    ),
}
CHURN: dict[str, tuple[str, ...]] = {
    "fresh": (),
    "half": ("DELETE FROM {t} WHERE id % 2 = 0",),
    "swept": ("DELETE FROM {t} WHERE id % 8 < 4", "VACUUM {t}"),
    "tenth": ("DELETE FROM {t} WHERE id % 10 <> 4", "VACUUM {t}"),
    "all": ("UPDATE {t} SET v = v || 'x'", "VACUUM {t}"),
}
SIZE = """
SELECT pg_relation_size(c.oid), pg_relation_size(c.reltoastrelid) FROM pg_class c WHERE c.oid = '{t}'::regclass
"""


def fill(server: Server, database: str, table: str, of: str) -> None:
    """Makes a table of these VALUES."""
    storage, values, rows = VALUES[of]
    server.script(
        f"CREATE TABLE {table} (id int, note text, v text); ALTER TABLE {table} ALTER v SET STORAGE {storage}",
        database=database,
    )
    # Not by a program: when that has ended the server may still have to count what it did.
    server.sql(
        f"INSERT INTO {table} SELECT i, 'note ' || i % 70, {values} FROM generate_series(1, {rows}) i",
        database=database,
    )


def sizes(server: Server, database: str, table: str) -> tuple[int, int]:
    ((heap, toast),) = server.sql(SIZE.format(t=table), database=database)
    return int(heap), int(toast)


def freed(server: Server, database: str, table: str) -> float:
    """What VACUUM FULL frees of rows and values together, in percent."""
    before = sum(sizes(server, database, table))
    server.sql(f"VACUUM FULL {table}", database=database)
    return max(0.0, 100.0 * (1 - sum(sizes(server, database, table)) / before))


def worn(server: Server, database: str) -> list[str]:
    """Tables of all VALUES after all CHURN."""
    made = []
    for values in VALUES:
        for churn, statements in CHURN.items():
            table = f"{values}_{churn}"
            fill(server, database, table, values)
            for statement in statements:
                server.sql(statement.format(t=table), database=database)
            made.append(table)
    server.sql("ANALYZE", database=database)
    return made


def test_the_estimate_meets_the_truth(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    tables = worn(postgresql, name)
    second = postgresql.installation.major == "15"
    if second:
        postgresql.sql("CREATE EXTENSION pgstattuple", database=name)
    refs = tuple(Ref(name, ("public", table)) for table in tables)
    with use(postgresql) as pg:
        looks = [pg.measure(name, ESTIMATE._replace(only=refs))]
        looks += [pg.measure(name, ESTIMATE._replace(only=refs, exact=refs))] if second else []
    found = [{x.ref.path[1]: x.bloat for x in look.tables} for look in looks]
    wrong: list[str] = []
    for table in tables:
        truth = freed(postgresql, name, table)
        for seen in (f[table] for f in found):
            assert seen is not None
            said = f"{table}: truth {truth:.1f}, {seen.method} {seen.percent:.1f} ({seen.low:.1f} to {seen.high:.1f})"
            print(said)
            near = abs(seen.percent - truth) <= (20 if seen.method == "estimate" else 4)
            if not (seen.low - 0.5 <= truth <= seen.high + 0.5 and near and 0 <= seen.outside <= seen.bytes):
                wrong.append(said)
            if table.endswith("fresh") and (seen.low > 0.5 or seen.percent >= 10):
                wrong.append(f"called bloated: {said}")
            if table.endswith("tenth") and seen.low < 75:
                wrong.append(f"unsure: {said}")
            if table.startswith("long") and seen.high - seen.low > 4:
                wrong.append(f"unsure though it is clear how many chunks fit: {said}")
    assert wrong == []
    assert {b.method for f in found for b in f.values() if b} == {
        "estimate",
        *(["pgstattuple_approx"] if second else []),
    }


def test_what_lies_out_of_line_makes_a_table_due(postgresql: Server, database: Make, tmp_path: Path) -> None:
    """Its rows are a hundredth of the table: with them alone nothing would ever be due."""
    name = database(postgresql)
    fill(postgresql, name, "t", "middle")
    fill(postgresql, name, "fresh", "middle")
    postgresql.sql("UPDATE t SET v = v || 'x'", database=name)
    postgresql.sql("VACUUM ANALYZE", database=name)
    facts = {**postgresql.login(), "databases": [name], "tables": ["public.*"]}
    objects = run("db_bloat_facts", {**facts, "method": "estimate"}).result["ansible_facts"]["db_bloat"]["objects"]
    seen = {o["object"]: o for o in objects if o["kind"] == "table"}
    assert seen["public.t"]["bloated"]
    assert not seen["public.fresh"]["bloated"]
    assert 0.9 * seen["public.t"]["bloat_bytes"] < seen["public.t"]["outside_bytes"] < seen["public.t"]["bloat_bytes"]
    options = {**facts, "journal": str(tmp_path / "journal"), "actions": ["reclaim"], "reclaim_min_size": "1MB"}
    options["reclaim_method"] = "exclusive"
    check, real = run("db_vacuum", options, check=True), run("db_vacuum", options)
    assert check.steps() == real.steps() == [(name, "public.t", "reclaim")]
    (step,) = real.fact()["steps"]
    assert step["proven"], real.text
    assert abs(step["expected"]["bytes_freed"] - step["actual"]["bytes_freed"]) < 0.1 * step["actual"]["bytes_before"]
    again = run("db_vacuum", options)
    assert not again.changed, again.text


def test_what_nobody_has_counted_is_unknown(postgresql: Server, database: Make) -> None:
    """Counters of before the last vacuum are lost: what it found still counts; without one it may be anything."""
    name = database(postgresql)
    for table in ("never", "once", "since"):
        fill(postgresql, name, table, "middle")
        postgresql.sql(f"DELETE FROM {table} WHERE id % 2 = 0", database=name)
    postgresql.sql("VACUUM once", database=name)
    postgresql.sql("ANALYZE", database=name)
    postgresql.sql("SELECT pg_stat_reset()", database=name)
    postgresql.sql("DELETE FROM since WHERE id % 8 = 1", database=name)
    with use(postgresql) as pg:
        never, once, since = (pg.table(name, table, ESTIMATE).bloat for table in ("never", "once", "since"))
    assert since is not None
    assert since.low < 5, "deletions alone were counted"
    assert never is not None
    assert once is not None
    assert never.low < 5
    assert never.high > 95
    assert never.outside == 0
    assert once.low > 40
    assert once.low <= freed(postgresql, name, "once") <= once.high


def test_what_a_session_reports_after_its_vacuum_is_not_deleted_twice(postgresql: Server, database: Make) -> None:
    """Counters come up to a second late: a tenth is left, and they say that there is nothing."""
    name = database(postgresql)
    fill(postgresql, name, "t", "mixed")
    postgresql.script("SELECT 1; DELETE FROM t WHERE id % 10 <> 4; VACUUM t; ANALYZE t", database=name)
    with use(postgresql) as pg:
        seen = pg.table(name, "t", ESTIMATE).bloat
    assert seen is not None
    assert seen.low - 0.5 <= freed(postgresql, name, "t") <= seen.high + 0.5


def test_the_values_of_a_dropped_column_may_be_all_there_is(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    fill(postgresql, name, "t", "middle")
    postgresql.sql("ALTER TABLE t DROP COLUMN v", database=name)
    postgresql.sql("VACUUM ANALYZE t", database=name)
    with use(postgresql) as pg:
        seen = pg.table(name, "t", ESTIMATE).bloat
    truth = freed(postgresql, name, "t")
    assert seen is not None
    assert truth > 95
    assert seen.low <= truth <= seen.high


def test_the_second_look_of_a_poor_login(pool: Pool, database: Make) -> None:
    """pg_toast is a schema that few may use; and who may not scan has the estimate."""
    server = pool.get("postgresql-15")
    name = database(server)
    fill(server, name, "t", "brief")
    server.sql("DELETE FROM t WHERE id % 2 = 0", database=name)
    server.sql("CREATE EXTENSION pgstattuple", database=name)
    server.sql("VACUUM ANALYZE t", database=name)
    ref = Ref(name, ("public", "t"))
    wants = ESTIMATE._replace(only=(ref,), exact=(ref,))
    grants = ("GRANT SELECT ON t TO scanner", "GRANT pg_stat_scan_tables TO scanner")
    with role(server, "scanner", *grants, database=name) as login, use(server, **login) as pg:
        (table,) = pg.measure(name, wants).tables
        (small,) = pg.measure(name, wants._replace(scan_budget=1 << 20)).tables
    assert table.bloat is not None
    assert small.bloat is not None
    assert table.bloat.method == "pgstattuple_approx"
    assert abs(table.bloat.percent - 50) < 4
    assert small.bloat.method == "estimate", "values count for the scan budget"


def test_a_table_that_is_locked_after_the_first_look_keeps_its_estimate(pool: Pool, database: Make) -> None:
    server = pool.get("postgresql-15")
    name = database(server)
    fill(server, name, "t", "middle")
    server.sql("CREATE EXTENSION pgstattuple", database=name)
    server.sql("VACUUM ANALYZE t", database=name)
    ref = Ref(name, ("public", "t"))
    wants = ESTIMATE._replace(only=(ref,), exact=(ref,))
    with use(server, Execution(lock_timeout=0.2)) as pg, pg.engine.session(name) as session:
        rows = catalog.read(session, wants, pg.server)
        with transaction(server, name, "LOCK TABLE t"):
            first = bloat.estimates(session, wants, pg.server, rows)
            assert bloat.exact(session, wants, pg.server, {ref: rows[0]}, first) == {}
        assert first[rows[0].oid].whole.percent < 10
        assert bloat.exact(session, wants, pg.server, {ref: rows[0]}, first)[ref].method == "pgstattuple_approx"
