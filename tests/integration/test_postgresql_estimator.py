# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The estimator against the truth, on tables and b-trees drawn by chance: bytes freed by VACUUM FULL and by REINDEX."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from typing import NamedTuple

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Bloat, Ref, Wants
from tests.fleet import Server

from .conftest import Pool
from .module_runner import run, until
from .pg import client, role, use
from .shapes import shapes

pytestmark = pytest.mark.every_server

Make = Callable[[Server], str]
ESTIMATE = Wants(tables=True, bloat=True, index_bloat=True)
SMALLEST = 64 * 8192  # half of what db_bloat_facts looks at by default: below, one page more or less is a point


class Judged(NamedTuple):
    """One object, in percent of its size before the rebuild."""

    name: str
    fresh: bool
    truth: float
    bloat: Bloat

    @property
    def error(self) -> float:
        return abs(self.bloat.percent - self.truth)

    @property
    def inside(self) -> bool:
        return self.bloat.low - 1e-6 <= self.truth <= self.bloat.high + 1e-6

    def __str__(self) -> str:
        b = self.bloat
        return f"{self.name}: truth {self.truth:.1f}, {b.method} {b.percent:.1f} ({b.low:.1f} to {b.high:.1f})"


def freed(server: Server, database: str, name: str, how: str) -> float | None:
    """What a rebuild frees, in percent. None where the object is too small to be judged."""
    size = f"SELECT pg_catalog.pg_relation_size('{name}'::regclass)"
    before = int(server.sql(size, database=database)[0][0])
    if before < SMALLEST:
        return None
    server.sql(f"{how} {name}", database=database)
    return max(0.0, 100.0 * (1 - int(server.sql(size, database=database)[0][0]) / before))


def report(what: str, judged: list[Judged]) -> tuple[float, float]:
    """The error's 90th percentile and its worst, in points of percent."""
    errors = sorted(j.error for j in judged)
    p90, worst = errors[int(0.9 * (len(errors) - 1))], errors[-1]
    print(f"{what}: {len(judged)}, p90 {p90:.2f}, worst {worst:.2f}, {sum(j.inside for j in judged)} inside")
    for j in sorted(judged, key=lambda j: -j.error)[:4]:
        print(f"  {j}")
    return p90, worst


def test_estimates_of_shapes_drawn_by_chance(postgresql: Server, database: Make) -> None:
    seed = int(os.environ.get("DBFLEET_SEED") or random.randrange(10**6))
    print(f"DBFLEET_SEED={seed}")
    name = database(postgresql)
    drawn = shapes(seed, tables=28, size=4e6)
    for shape in drawn:
        # Each in a session of its own: its counters arrive before anything is analyzed.
        postgresql.script(";\n".join((shape.make, *shape.churn)), database=name)
    postgresql.sql("VACUUM ANALYZE", database=name)
    with use(postgresql) as pg:
        found = pg.measure(name, ESTIMATE)
    bloat = {x.ref.path[1]: x.bloat for x in found.tables}
    bloat.update({x.ref.path[1]: x.bloat for x in found.indexes})
    tables: list[Judged] = []
    indexes: list[Judged] = []
    for shape in drawn:
        for each, how, judged in (
            *((i, "REINDEX INDEX", indexes) for i in shape.indexes),
            (shape.name, "VACUUM FULL", tables),
        ):
            truth, seen = freed(postgresql, name, each, how), bloat[each]
            if truth is not None:
                assert seen is not None, f"{each} has statistics, and no estimate"
                judged.append(Judged(each, shape.fresh, truth, seen))
    assert len(tables) >= 20
    assert len(indexes) >= 25
    p90, worst = report("tables", tables)
    assert p90 <= 3
    assert worst <= 8
    p90, worst = report("b-trees", indexes)
    assert p90 <= 5
    assert worst <= 10
    judged = [*tables, *indexes]
    assert sum(j.inside for j in judged) >= 0.95 * len(judged)
    assert [str(j) for j in judged if j.fresh and j.bloat.low >= 10] == [], "nothing fresh is called bloated"


DEPENDENT = """
CREATE TABLE {t} AS SELECT i AS id, i % 20000 AS a, (i % 20000) * 7 AS b FROM generate_series(1, 120000) i;
CREATE INDEX {t}_ab ON {t} (a, b);
DELETE FROM {t} WHERE id % 2 = 0;
"""


def test_columns_that_depend_on_each_other(postgresql: Server, database: Make) -> None:
    """Without extended statistics nobody knows: the interval holds the truth. With them it is estimated."""
    name = database(postgresql)
    postgresql.script(DEPENDENT.format(t="plain"), database=name)
    postgresql.script(DEPENDENT.format(t="told") + "CREATE STATISTICS s (ndistinct) ON a, b FROM told;", database=name)
    postgresql.sql("VACUUM ANALYZE", database=name)
    with use(postgresql) as pg:
        bloat = {x.ref.path[1]: x.bloat for x in pg.measure(name, ESTIMATE).indexes}
    for table in ("plain", "told"):
        truth, seen = freed(postgresql, name, f"{table}_ab", "REINDEX INDEX"), bloat[f"{table}_ab"]
        assert truth is not None
        assert seen is not None
        judged = Judged(table, False, truth, seen)
        assert judged.inside, str(judged)
        if table == "told":
            assert judged.error <= 5, str(judged)


UNMEASURED = {"13": (13, 17), "14": (14, 24), "15": (15, 19), "16": (16, 15), "17": (17, 12), "18": (18, 5)}


def test_blanks_where_nobody_knows_whether_they_share_entries(postgresql: Server, database: Make) -> None:
    """On versions that nobody has measured the interval holds both; on those of the tests the estimate is right."""
    name = database(postgresql)
    postgresql.script(
        """CREATE TABLE t AS
        SELECT lpad((i % 500)::text, 11, '0')::char(11) AS c, i AS id FROM generate_series(1, 100000) i;
        CREATE INDEX t_c ON t (c); DELETE FROM t WHERE id % 5 < 2""",
        database=name,
    )
    postgresql.sql("VACUUM ANALYZE t", database=name)
    with use(postgresql) as pg, pg.engine.session(name) as session:
        known, unknown = (
            {x.ref.path[1]: x.bloat for x in pg.engine.measure(session, ESTIMATE, server).indexes}["t_c"]
            for server in (pg.server, pg.server._replace(number=UNMEASURED.get(postgresql.installation.major, (12, 0))))
        )
    truth = freed(postgresql, name, "t_c", "REINDEX INDEX")
    assert truth is not None
    assert known is not None
    assert unknown is not None
    assert abs(known.percent - truth) <= 5
    assert known.high - known.low < 20
    assert unknown.low <= truth <= unknown.high
    assert unknown.low <= known.percent <= unknown.high


CHANGED = "SELECT pg_catalog.pg_stat_get_mod_since_analyze('t'::regclass)"


def test_partial_indexes_that_statistics_found_empty(postgresql: Server, database: Make) -> None:
    """Expressions have no statistics then. What no sample met, and what has come since, lies within the interval."""
    name = database(postgresql)
    postgresql.script(
        """
        CREATE TABLE t (id int, state text, v text) WITH (autovacuum_enabled = false);
        CREATE INDEX gone ON t (lower(v)) WHERE state = 'new';
        CREATE INDEX refilled ON t (lower(v)) WHERE state = 'new' OR id < 0;
        INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN 'new' ELSE 'done' END, md5(i::text)
          FROM generate_series(1, 80000) i;
        UPDATE t SET state = 'done' WHERE state = 'new';
        """,
        database=name,
    )
    postgresql.sql("VACUUM ANALYZE t", database=name)
    with use(postgresql) as pg:
        gone = {x.ref.path[1]: x.bloat for x in pg.measure(name, ESTIMATE).indexes}["gone"]
        postgresql.sql("INSERT INTO t SELECT -i, 'done', md5(i::text) FROM generate_series(1, 9000) i", database=name)
        until(lambda: int(postgresql.sql(CHANGED, database=name)[0][0]) >= 9000, what="its counters")
        refilled = {x.ref.path[1]: x.bloat for x in pg.measure(name, ESTIMATE).indexes}["refilled"]
    for index, bloat in (("gone", gone), ("refilled", refilled)):
        truth = freed(postgresql, name, index, "REINDEX INDEX")
        assert truth is not None
        assert bloat is not None, index
        judged = Judged(index, False, truth, bloat)
        assert judged.inside, str(judged)
    assert gone is not None
    assert gone.low > 90


def test_what_has_no_estimate_is_unknown(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        """
        CREATE TABLE t (id int PRIMARY KEY, words tsvector, span int4range, n int);
        INSERT INTO t SELECT i, to_tsvector('simple', md5(i::text)), int4range(i, i + 5), i
          FROM generate_series(1, 20000) i;
        CREATE INDEX t_gin ON t USING gin (words); CREATE INDEX t_gist ON t USING gist (span);
        CREATE INDEX t_hash ON t USING hash (n); CREATE INDEX t_brin ON t USING brin (n);
        CREATE INDEX t_late ON t ((n + 1));
        """,
        database=name,
    )
    with use(postgresql) as pg:
        assert [x.ref for x in pg.measure(name, ESTIMATE).indexes if x.bloat and x.ref.path[0] == "public"] == []
        postgresql.sql("VACUUM ANALYZE t", database=name)
        found = {x.ref.path[1]: x for x in pg.measure(name, ESTIMATE).indexes if x.ref.path[0] == "public"}
        assert {n for n, x in found.items() if x.bloat} == {"t_pkey", "t_late"}
        assert all(x.bytes > 0 for x in found.values())
        few = pg.measure(name, ESTIMATE._replace(index_bloat_min_bytes=1 << 30))
        assert not any(x.bloat for x in few.indexes)


def test_the_second_look_at_indexes(pool: Pool, database: Make) -> None:
    """Deleted and empty pages count, and so does the fillfactor; nothing over the budget is read."""
    server = pool.get("postgresql-15")
    name = database(server)
    server.script(
        """
        CREATE SCHEMA elsewhere; CREATE EXTENSION pgstattuple SCHEMA elsewhere;
        CREATE TABLE t AS SELECT i AS id, i % 50 AS few FROM generate_series(1, 150000) i;
        CREATE UNIQUE INDEX holes ON t (id); CREATE INDEX loose ON t (id) WITH (fillfactor = 50);
        CREATE INDEX shared ON t (few);
        DELETE FROM t WHERE id BETWEEN 20000 AND 110000;
        """,
        database=name,
    )
    server.sql("VACUUM ANALYZE t", database=name)
    names = ("holes", "loose", "shared")
    refs = tuple(Ref(name, ("public", n)) for n in names)
    wants = Wants(index_bloat=True, exact=refs, only=refs)
    with use(server) as pg:
        seen = {x.ref.path[1]: x.bloat for x in pg.measure(name, wants).indexes if x.ref in refs}
        small = {x.ref.path[1]: x.bloat for x in pg.measure(name, wants._replace(scan_budget=3 << 20)).indexes}
        with role(server, "reader", "GRANT SELECT ON t TO reader", database=name) as login, use(server, **login) as low:
            unable = {x.ref.path[1]: x.bloat for x in low.measure(name, wants).indexes if x.ref in refs}
    for each in names:
        bloat, truth = seen[each], freed(server, name, each, "REINDEX INDEX")
        assert truth is not None
        assert bloat is not None
        judged = Judged(each, False, truth, bloat)
        assert bloat.method == "pgstatindex"
        assert judged.inside, str(judged)
        assert judged.error <= 3, str(judged)
        assert truth > 50
    assert {b.method for b in small.values() if b} == {"pgstatindex", "estimate"}
    assert unable == {}, "without the right to it there is no second look, and the first one stands"


def test_many_objects_take_a_handful_of_queries(postgresql: Server, database: Make) -> None:
    """3,000 tables and 9,000 indexes: counted in the server's own log."""
    name = database(postgresql)
    with client(postgresql, name) as cursor:
        cursor.execute("SET log_statement = none; SET synchronous_commit = off")
        for first in range(0, 3000, 100):
            cursor.execute(
                "".join(
                    f"CREATE TABLE t{n} (id int PRIMARY KEY, a text, b int); CREATE INDEX ON t{n} (a);"
                    f"CREATE INDEX ON t{n} (b, lower(a)) WHERE b > 3;"
                    for n in range(first, first + 100)
                )
            )
        cursor.execute("INSERT INTO t7 SELECT i, md5(i::text), i % 9 FROM generate_series(1, 60000) i; ANALYZE t7")
    postgresql.mark_log()
    found = run("db_bloat_facts", {**postgresql.login(), "databases": [name]}).result["ansible_facts"]["db_bloat"]
    said = [s.statement for s in postgresql.logged() if s.application == "dbfleet"]
    reads = [s for s in said if re.match(r"\s*(SELECT|WITH)\b", s)]
    # Five greet the server; the database itself is asked eleven times, once for what lies outside of its tables.
    assert 0 < len(reads) <= 16, "\n".join(" ".join(s.split())[:70] for s in reads)
    assert {o["object"] for o in found["objects"]} >= {"public.t7", "public.t7_pkey", "public.t7_a_idx"}
    assert found["databases"][name]["indexes"] >= 9000
    assert found["databases"][name]["unknown"] == found["databases"][name]["indexes_unknown"] == 0


@pytest.mark.parametrize("held", ["t", "t_pkey"])
def test_what_somebody_holds_exclusively_holds_nothing_up(postgresql: Server, database: Make, held: str) -> None:
    name = database(postgresql)
    postgresql.script(
        """CREATE TABLE t (id int PRIMARY KEY, v text);
        INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
        CREATE INDEX t_lower ON t (lower(v)) WHERE id > 3; VACUUM ANALYZE t""",
        database=name,
    )
    statement = "LOCK TABLE t IN ACCESS EXCLUSIVE MODE" if held == "t" else "ALTER INDEX t_pkey SET (fillfactor = 80)"
    with use(postgresql) as pg, client(postgresql, name) as cursor:
        cursor.execute("BEGIN")
        cursor.execute(statement)
        indexes = pg.measure(name, Wants(indexes=True, index_bloat=True)).indexes
        found = {x.ref.path[1]: x for x in indexes if x.table.path == ("public", "t")}
        assert found.keys() == {"t_pkey", "t_lower"}
        assert all(x.bytes > 0 and x.bloat for x in found.values())
        assert found["t_lower"].where != ""
