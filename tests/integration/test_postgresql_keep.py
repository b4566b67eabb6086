# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an index of PostgreSQL is needed though nobody scans it, and what sorts by a collation that has changed."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Wants
from tests.fleet import Server

from .conftest import Pool
from .pg import use

Make = Callable[[Server], str]
KEPT = {
    "t_pkey": "primary key",
    "t_code": "unique",
    "t_alone": "exclusion constraint t_alone",
    "t_identity": "unique, replica identity",
    "t_cluster": "clustered",
    "t_lower": "supplies statistics of an expression",
    "t_parent": "supports foreign key t_parent_fkey",
    "t_pair": "supports foreign key t_pair_fkey",
    "t_some": "supports foreign key t_parent_fkey",
    "t_few": "",
    "t_note": "",
    "t_behind": "",
}


def test_why_an_index_is_kept(postgresql: Server, database: Make) -> None:
    name = database(postgresql)
    postgresql.script(
        """
        CREATE TABLE p (id int PRIMARY KEY, a int, b int, UNIQUE (a, b));
        CREATE TABLE t (id int PRIMARY KEY, code int, span int4range, note text, twin int NOT NULL, at int,
            parent int CONSTRAINT t_parent_fkey REFERENCES p, a int, b int,
            CONSTRAINT t_pair_fkey FOREIGN KEY (a, b) REFERENCES p (a, b),
            CONSTRAINT t_alone EXCLUDE USING gist (span WITH &&));
        CREATE UNIQUE INDEX t_code ON t (code);
        CREATE UNIQUE INDEX t_identity ON t (twin); ALTER TABLE t REPLICA IDENTITY USING INDEX t_identity;
        CREATE INDEX t_cluster ON t (at); ALTER TABLE t CLUSTER ON t_cluster;
        CREATE INDEX t_lower ON t (lower(note)); CREATE INDEX t_note ON t (note);
        CREATE INDEX t_parent ON t (parent); CREATE INDEX t_pair ON t (b, a, note);
        CREATE INDEX t_some ON t (parent) WHERE parent IS NOT NULL;
        CREATE INDEX t_few ON t (parent) WHERE parent > 7; CREATE INDEX t_behind ON t (note, parent);
        """,
        database=name,
    )
    with use(postgresql) as pg:
        found = {x.ref.path[1]: x.keep for x in pg.measure(name, Wants(indexes=True)).indexes if x.table.path[1] == "t"}
    assert found == KEPT


def test_what_a_changed_collation_has_sorted(pool: Pool, database: Make) -> None:
    """Only what depends on its order: not what is sorted by bytes, nor what only asks whether two are equal."""
    server = pool.get("postgresql-15")  # built with ICU
    name = database(server)
    server.script(
        """
        CREATE COLLATION theirs (provider = icu, locale = 'de');
        CREATE TABLE t (id int PRIMARY KEY, v text COLLATE theirs, n int);
        CREATE INDEX t_sorted ON t (v); CREATE INDEX t_second ON t (n, v); CREATE INDEX t_upper ON t (upper(v));
        CREATE INDEX t_where ON t (n) WHERE v > 'm';
        CREATE INDEX t_bytes ON t (v text_pattern_ops); CREATE INDEX t_hash ON t USING hash (v);
        CREATE INDEX t_c ON t (v COLLATE "C"); CREATE INDEX t_equal ON t (n) WHERE v = 'm';
        """,
        database=name,
    )
    with use(server) as pg:
        before = pg.measure(name, Wants(indexes=True))
        assert (before.collations, [x for x in before.indexes if x.stale]) == ((), [])
        change = "UPDATE pg_catalog.pg_collation SET collversion = 'old' WHERE collname = 'theirs'"
        server.sql(change, database=name)
        after = pg.measure(name, Wants(indexes=True))
    (collation,) = after.collations
    sorted_by_it = {"t_sorted", "t_second", "t_upper", "t_where"}
    assert collation.ref.path == ("public", "theirs")
    assert {ref.path[1] for ref in collation.dependents} == sorted_by_it
    assert {x.ref.path[1] for x in after.indexes if x.stale} == sorted_by_it
