# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The estimate of bloat against the truth: the size after VACUUM FULL. And space: what is missing before a rebuild."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Rebuild, Vacuum
from tests.fleet import Fleet, Server
from tests.fleet.processes import give_away

from .conftest import Pool, missing
from .pg import use

pytestmark = pytest.mark.every_server

Make = Callable[[Server], str]
ROWS = 20000
# name: columns, values, churn
TABLES = {
    "fresh_narrow": ("id int", "i", ""),
    "fresh_text": ("id bigint, a text, b text", "i, repeat('x', (i * 7) % 60), md5(i::text)", ""),
    "fresh_wide": ("id int, a char(1700)", "i, 'x'", ""),
    "fresh_nulls": ("id int, a int, b text, c int", "i, CASE WHEN i % 2 = 0 THEN i END, NULL, i", ""),
    "fresh_toast": ("id int, a text", "i, CASE WHEN i % 50 = 0 THEN repeat(md5(i::text), 200) ELSE 'x' END", ""),
    "half_deleted": ("id int PRIMARY KEY, a text", "i, repeat('x', 20 + i % 40)", "DELETE FROM {t} WHERE id % 2 = 0"),
    "updated": ("id int, a text", "i, md5(i::text)", "UPDATE {t} SET a = a; UPDATE {t} SET a = a"),
    "wide": ("id int, a char(900), b char(800)", "i, 'x', 'y'", "DELETE FROM {t} WHERE id % 3 < 2"),
    "aligned": (
        "a boolean, b bigint, c smallint, d numeric, e boolean, f timestamptz, g text",
        "true, i, 3, i * 1.5, false, now(), repeat('y', i % 9)",
        "DELETE FROM {t} WHERE b % 10 < 3",
    ),
    "nulls": (
        "id int, a int, b int, c int, d int",
        "i, i, CASE WHEN i % 2 = 0 THEN i END, NULL, i",
        "DELETE FROM {t} WHERE id % 10 < 4",
    ),
    "json": (
        "id int, j jsonb",
        "i, jsonb_build_object('k', repeat('v', (i * 13) % 300))",
        "DELETE FROM {t} WHERE id % 10 < 6",
    ),
    "dropped": (
        "id int, gone text, keep text",
        "i, md5(i::text) || md5(i::text), 'abc'",
        "ALTER TABLE {t} DROP COLUMN gone",
    ),
}
FILLED = {"fresh_text": 70, "updated": 80}


def test_the_estimate_meets_the_truth(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    for table, (columns, values, churn) in TABLES.items():
        postgresql.script(
            f"CREATE TABLE {table} ({columns}) WITH (fillfactor = {FILLED.get(table, 100)});"
            f"INSERT INTO {table} SELECT {values} FROM generate_series(1, {ROWS}) i; {churn.format(t=table)};",
            database=name,
        )
        postgresql.sql(f"ANALYZE {table}", database=name)
    has_pgstattuple = postgresql.installation.major == "15"
    if has_pgstattuple:
        postgresql.script("CREATE SCHEMA elsewhere; CREATE EXTENSION pgstattuple SCHEMA elsewhere", database=name)
    refs = tuple(Ref(name, ("public", table)) for table in TABLES)
    with use(postgresql) as pg:
        estimated = {x.ref: x.bloat for x in pg.measure(name).tables}
        closer = {x.ref: x.bloat for x in pg.measure(name, Wants(bloat=True, exact=refs)).tables}
    for ref in refs:
        table = ref.path[1]
        size = f"""SELECT pg_relation_size(oid) + coalesce(pg_relation_size(nullif(reltoastrelid, 0)), 0)
            FROM pg_class WHERE oid = '{table}'::regclass"""
        before = int(postgresql.sql(size, database=name)[0][0])
        postgresql.sql(f"VACUUM FULL {table}", database=name)
        after = int(postgresql.sql(size, database=name)[0][0])
        truth = 100 * (before - after) / before
        for bloat in (estimated[ref], closer[ref]):
            assert bloat is not None
            print(
                f"{table}: truth {truth:.1f}, {bloat.method} {bloat.percent:.1f}, {bloat.low:.1f} to {bloat.high:.1f}"
            )
            assert bloat.low - 0.5 <= truth <= bloat.high + 0.5, table
            assert abs(bloat.percent - truth) < 6, table
            if table.startswith("fresh"):
                assert bloat.low < 10, "a fresh table is never bloated"
    if has_pgstattuple:
        assert {bloat.method for bloat in closer.values() if bloat} == {"pgstattuple_approx", "estimate"}, (
            "dropped columns show on no page"
        )


def test_a_load_that_is_counted_twice(postgresql: Server, database: Make) -> None:
    """One session loads and analyzes: its own counters arrive after the analyze, which has seen the rows already."""
    name = database(postgresql)
    postgresql.script(
        """CREATE TABLE t (id int PRIMARY KEY, v text);
        INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i; DELETE FROM t WHERE id % 2 = 0;
        ANALYZE t;
        CREATE TABLE u AS SELECT i AS id, repeat('x', 200) AS v FROM generate_series(1, 20000) i; ANALYZE u""",
        database=name,
    )
    with use(postgresql) as pg:
        t, u = (pg.table(name, table).bloat for table in ("t", "u"))
    assert t is not None
    assert u is not None
    assert t.high >= 50
    assert u.low < 10


def test_the_scan_budget_holds(pool: Pool, database: Make) -> None:
    server = pool.get("postgresql-15")
    name = database(server)
    server.script(
        """CREATE EXTENSION pgstattuple;
        CREATE TABLE small AS SELECT generate_series(1, 10000) AS id;
        CREATE TABLE large AS SELECT generate_series(1, 50000) AS id;
        ANALYZE""",
        database=name,
    )
    refs = tuple(Ref(name, ("public", table)) for table in ("large", "small"))
    with use(server) as pg:
        found = pg.measure(name, Wants(bloat=True, exact=refs, only=refs, scan_budget=1 << 20)).tables
    assert {x.ref.path[1]: x.bloat.method for x in found if x.bloat} == {
        "small": "pgstattuple_approx",
        "large": "estimate",
    }


def test_small_tables_are_left_out(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script("CREATE TABLE t AS SELECT 1 AS id; ANALYZE t", database=name)
    with use(postgresql) as pg:
        assert pg.table(name, "t").bloat is not None
        assert pg.table(name, "t", Wants(tables=True, bloat=True, bloat_min_bytes=1 << 20)).bloat is None


@pytest.fixture
def tiny_disk(fleet: Fleet) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = fleet.folder(f"tiny-{os.urandom(3).hex()}")
    if os.geteuid() != 0:
        missing("root, to mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        missing(f"a small file system: {mounted.stderr.decode().strip()}")
    try:
        give_away(folder)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(postgresql: Server, database: Make, tiny_disk: Path) -> None:
    name = database(postgresql)
    postgresql.sql(f"CREATE TABLESPACE tiny LOCATION '{tiny_disk}'")
    try:
        postgresql.script(
            """CREATE TABLE t (id int PRIMARY KEY, v text) TABLESPACE tiny;
            INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 28000) i;
            DELETE FROM t WHERE id % 10 = 0;
            CREATE TABLE ballast (v text) TABLESPACE tiny""",
            database=name,
        )
        postgresql.sql("VACUUM ANALYZE t", database=name)
        task = Rebuild(Ref(name, ("public", "t")), online=False)
        with use(postgresql) as pg:
            size = pg.table(name, "t").total_bytes
            missing_bytes = pg.gauge("disk_missing", task, size)
            assert missing_bytes is not None
            assert missing_bytes > 0, "it cannot fit, and that is known before"
            assert (pg.gauge("disk_missing", Rebuild(Ref(name, ("public", "ballast"))), 1000) or 0) < 0
            before = postgresql.sql("SELECT count(*), sum(id) FROM t", database=name)
            with pytest.raises(Refused, match=r"(?i)no space left") as caught:
                pg.carry_out(task)
            assert "disk is full" in str(caught.value)
            assert postgresql.sql("SELECT count(*), sum(id) FROM t", database=name) == before
            assert pg.table(name, "t").total_bytes == pytest.approx(size, rel=0.05)
            assert sum(p.stat().st_size for p in tiny_disk.rglob("*") if p.is_file()) < 1.2 * size, (
                "nothing is left behind"
            )
            spaces = {s.name: s for s in pg.measure(name).spaces}
            assert spaces["tablespace tiny"].total == 24 << 20
    finally:
        postgresql.sql(f"DROP DATABASE {name} WITH (FORCE)")
        postgresql.sql("DROP TABLESPACE tiny")


def test_free_space_is_known_only_on_the_servers_own_machine(
    postgresql: Server, database: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import space

    name = database(postgresql)
    postgresql.script("CREATE TABLE t AS SELECT generate_series(1, 3000) AS id", database=name)
    task = Vacuum(Ref(name, ("public", "t")))
    names = ("disk_missing", "wal_missing", "tmp_missing")
    with use(postgresql) as pg:
        assert pg.server.settings["here"]
        assert all((pg.gauge(gauge, task, 1 << 20) or 0.0) <= 0 for gauge in names)
        needed = pg.gauge("disk_missing", task, 1 << 60)
        assert needed is not None
        assert needed > 0
    # A process of the same number that is somebody else's: what a server in a container looks like from outside.
    monkeypatch.setattr(space, "PROC", Path("/nowhere"))
    with use(postgresql) as pg:
        assert not pg.server.settings["here"]
        assert [pg.gauge(gauge, task, 1 << 20) for gauge in names] == [None, None, None]
        assert all(s.free is None for s in pg.measure(name).spaces)
    with use(postgresql, Execution(assume_free_space=1 << 30)) as pg:
        assert (pg.gauge("disk_missing", task, 1 << 20) or 0.0) < 0
        assert (pg.gauge("disk_missing", task, 2 << 30) or 0.0) > 0
