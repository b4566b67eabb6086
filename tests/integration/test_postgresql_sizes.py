# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes that the file system tells are those that the server's functions tell, of every kind of relation."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Wants
from tests.fleet import Server

from .pg import client, role, use

Make = Callable[[Server], str]
KINDS = """
CREATE TABLE plain (id int PRIMARY KEY, v text, w text);
INSERT INTO plain SELECT i, md5(i::text), repeat(md5(i::text), 3) FROM generate_series(1, 20000) i;
CREATE TABLE wide (id int PRIMARY KEY, v text); ALTER TABLE wide ALTER v SET STORAGE EXTERNAL;
INSERT INTO wide SELECT i, repeat('x', 5000) FROM generate_series(1, 500) i;
CREATE UNLOGGED TABLE light (id int PRIMARY KEY, v text, words tsvector, p point);
INSERT INTO light SELECT i, md5(i::text), to_tsvector('simple', md5(i::text)), point(i, i)
  FROM generate_series(1, 5000) i;
CREATE INDEX light_hash ON light USING hash (v); CREATE INDEX light_gin ON light USING gin (words);
CREATE INDEX light_gist ON light USING gist (p); CREATE INDEX light_brin ON light USING brin (id);
CREATE INDEX light_spgist ON light USING spgist (p); CREATE INDEX light_lower ON light (lower(v)) WHERE id > 50;
CREATE MATERIALIZED VIEW seen AS SELECT * FROM plain; CREATE INDEX ON seen (v);
CREATE TABLE years (id int, at date) PARTITION BY RANGE (at); CREATE INDEX ON years (at);
CREATE TABLE years_1 PARTITION OF years FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
INSERT INTO years SELECT i, '2025-05-05' FROM generate_series(1, 3000) i;
CREATE TABLE nothing (id int);
DELETE FROM plain WHERE id > 100 AND id % 7 < 3; DELETE FROM wide WHERE id % 2 = 0;
"""
EVERYTHING = Wants(tables=True, bloat=True, indexes=True, index_bloat=True)
SIZES = """
SELECT c.relname, pg_relation_size(c.oid), pg_table_size(c.oid), pg_total_relation_size(c.oid)
  FROM pg_class c
 WHERE c.relkind IN ('r', 'm', 'i') AND c.relnamespace IN ('public'::regnamespace, 'pg_catalog'::regnamespace)
"""
BIGGEST = 1 << 30  # bytes of a relation's first file


def test_sizes_of_every_kind(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(KINDS, database=name)
    postgresql.sql("VACUUM ANALYZE", database=name)
    with role(postgresql, "reader", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", database=name) as login:
        told = {n: tuple(map(int, sizes)) for n, *sizes in postgresql.sql(SIZES, database=name)}
        with use(postgresql) as by_files, use(postgresql, **login) as by_functions:
            with by_files.engine.session(name) as session, by_functions.engine.session(name) as low:
                assert session.folder()
                assert low.folder() is None
            for found in (by_files.measure(name, EVERYTHING), by_functions.measure(name, EVERYTHING)):
                tables = {x.ref.path[1]: x for x in found.tables if x.kind != "partitioned"}
                indexes = {x.ref.path[1]: x.bytes for x in found.indexes if not x.partitioned}
                assert {"plain", "wide", "light", "seen", "years_1", "nothing", "pg_class", "pg_database"} <= set(
                    tables
                )
                for each, x in tables.items():
                    if each in told:
                        assert (each, x.bytes, x.total_bytes) == (each, *told[each][1:])
                assert {"light_hash", "light_gin", "light_brin", "plain_pkey", "years_1_at_idx"} <= set(indexes)
                assert indexes == {each: told[each][0] for each in indexes}


def test_what_is_larger_than_one_file(postgresql: Server, database: Make) -> None:
    """The first file says nothing then. Pages of zeroes are valid: new ones, that nobody has written to."""
    name = database(postgresql)
    postgresql.script(
        """CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 300000);
        CREATE TABLE small (id int PRIMARY KEY); VACUUM ANALYZE""",
        database=name,
    )
    folder = postgresql.sql("SELECT current_setting('data_directory')")[0][0]
    for each in ("t", "t_pkey"):
        postgresql.sql("CHECKPOINT")
        ((place,),) = postgresql.sql(f"SELECT pg_relation_filepath('{each}')", database=name)
        first = Path(folder) / place
        os.truncate(first, BIGGEST)
        second = first.with_name(f"{first.name}.1")
        second.write_bytes(bytes(16384))
        os.chown(second, first.stat().st_uid, first.stat().st_gid)
    with client(postgresql, name) as cursor:
        cursor.execute("SELECT pg_relation_size('t'), pg_table_size('t'), pg_relation_size('t_pkey')")
        sizes = cursor.fetchone()
    assert sizes[0] == sizes[2] == BIGGEST + 16384
    with use(postgresql) as pg:
        large = pg.measure(name, Wants(bloat=True, index_bloat=True, index_bloat_min_bytes=1 << 20))
        assert {x.ref.path[1]: x.bytes for x in large.tables}["t"] == sizes[1]
        assert [(x.ref, x.bytes) for x in large.indexes if x.ref.path[0] == "public"] == [
            (Ref(name, ("public", "t_pkey")), sizes[2])
        ]
