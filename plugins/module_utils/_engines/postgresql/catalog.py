# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables as the catalogs and the statistics describe them: one query for all of a database. No threshold, no bloat."""

from __future__ import annotations

import operator
import typing as t
from datetime import datetime

from ..._records import Bloat, Dead, Ref, Server, Table, Wants
from ..._tuples import NamedTuple
from . import beside
from .files import files
from .session import Session
from .versions import has, major_of

# Which half is left out is said, since an optimizer that is told which is taken expects one row in two hundred.
# A size function opens the table and its indexes and would wait for whoever holds them exclusively: those are left out
# and their size is taken from the last vacuum or analyze. Statistics come by function: the view joins all indexes.
TABLES = """
WITH held AS MATERIALIZED (
    SELECT DISTINCT l.relation AS oid
      FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
       AND l.database IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                               WHERE d.datname = pg_catalog.current_database()))
), shut AS MATERIALIZED (
    SELECT oid FROM held
     UNION SELECT i.indrelid FROM held JOIN pg_catalog.pg_index i ON i.indexrelid = held.oid
), closed AS MATERIALIZED (
    SELECT oid FROM shut
     UNION SELECT c.oid FROM shut JOIN pg_catalog.pg_class c ON c.reltoastrelid = shut.oid
), chosen AS MATERIALIZED (
    SELECT c.*, n.nspname
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm', 'p') AND {only}
       AND pg_catalog.mod(c.oid::pg_catalog.int8, %(halves)s) <> %(other)s
)
SELECT c.oid, c.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text,
       c.relpersistence::pg_catalog.text,
       c.nspname IN ('pg_catalog', 'information_schema'),
       closed.oid IS NOT NULL,
       CASE WHEN closed.oid IS NULL THEN coalesce(cf.main, pg_catalog.pg_relation_size(c.oid))
            ELSE c.relpages::pg_catalog.int8 * %(block)s END,
       CASE WHEN closed.oid IS NULL
            THEN coalesce(cf.whole + CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE tf.whole + y.bytes END,
                          pg_catalog.pg_table_size(c.oid))::pg_catalog.int8
            ELSE (c.relpages::pg_catalog.int8 + coalesce(t.relpages, 0)) * %(block)s END,
       CASE WHEN closed.oid IS NULL THEN coalesce(x.bytes, pg_catalog.pg_indexes_size(c.oid))
            ELSE coalesce(x.pages, 0) * %(block)s END,
       c.reltuples::pg_catalog.float8, c.relpages, {all_frozen},
       coalesce(x.number, 0),
       pg_catalog.pg_stat_get_live_tuples(c.oid), pg_catalog.pg_stat_get_dead_tuples(c.oid),
       pg_catalog.pg_stat_get_mod_since_analyze(c.oid),
       {upkeep},
       c.reloptions, t.reloptions,
       {may_maintain},
       coalesce(x.keyed, false),
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'),
       pg_catalog.current_setting('track_counts')::pg_catalog.bool,
       x.sizes
  FROM chosen c
  LEFT JOIN {files} cf ON true
  LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
  LEFT JOIN {toast_files} tf ON true
  LEFT JOIN closed ON closed.oid = c.oid
  LEFT JOIN (
    SELECT i.indrelid, pg_catalog.count(*) AS number, pg_catalog.sum(k.relpages)::pg_catalog.int8 AS pages,
           CASE WHEN pg_catalog.count(*) = pg_catalog.count(kf.whole)
                THEN pg_catalog.sum(kf.whole)::pg_catalog.int8 END AS bytes,
           {index_sizes} AS sizes,
           {keyed} AS keyed
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class k ON k.oid = i.indexrelid
      LEFT JOIN {index_files} kf ON true
     WHERE i.indrelid IN (SELECT oid FROM chosen)
     GROUP BY i.indrelid
  ) x ON x.indrelid = c.oid
  LEFT JOIN (
    SELECT i.indrelid, CASE WHEN pg_catalog.count(*) = pg_catalog.count(jf.whole)
                            THEN pg_catalog.sum(jf.whole)::pg_catalog.int8 END AS bytes
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class j ON j.oid = i.indexrelid
      LEFT JOIN {toast_index_files} jf ON true
     WHERE i.indrelid IN (SELECT reltoastrelid FROM chosen)
     GROUP BY i.indrelid
  ) y ON y.indrelid = c.reltoastrelid
"""
# What only those who maintain it want to know.
UPKEEP = """pg_catalog.pg_stat_get_ins_since_vacuum(c.oid),
       greatest(pg_catalog.pg_stat_get_last_vacuum_time(c.oid), pg_catalog.pg_stat_get_last_autovacuum_time(c.oid)),
       greatest(pg_catalog.pg_stat_get_last_analyze_time(c.oid), pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid)),
       CASE WHEN c.relfrozenxid <> '0'::pg_catalog.xid THEN pg_catalog.age(c.relfrozenxid) END,
       CASE WHEN c.relminmxid <> '0'::pg_catalog.xid THEN pg_catalog.mxid_age(c.relminmxid) END,
       CASE WHEN t.relfrozenxid <> '0'::pg_catalog.xid THEN pg_catalog.age(t.relfrozenxid) END,
       CASE WHEN t.relminmxid <> '0'::pg_catalog.xid THEN pg_catalog.mxid_age(t.relminmxid) END"""
KEYED = {
    False: """pg_catalog.bool_or(i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indimmediate
                              AND 0 <> ALL (i.indkey)
                              AND (i.indisprimary OR NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                                               WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                                                 AND NOT a.attnotnull)))""",
    # The index of the replica identity. Tried on 19rc1: neither FULL, NOTHING nor a deferrable key will do.
    True: """pg_catalog.bool_or(i.indisvalid AND (i.indisreplident
                   OR (i.indisprimary AND i.indimmediate
                       AND (SELECT r.relreplident = 'd' FROM pg_catalog.pg_class r WHERE r.oid = i.indrelid))))""",
}
NO_UPKEEP = "0, NULL, NULL, NULL, NULL, NULL, NULL"
INDEX_SIZES = "pg_catalog.string_agg(k.oid || ':' || coalesce(kf.main, -1), ' ') FILTER (WHERE k.relkind = 'i')"
EVERYTHING = "n.nspname <> 'pg_toast'"
# By relname first: there is an index on it.
ONLY = """c.relname = ANY (%(names)s::pg_catalog.name[])
   AND (n.nspname::pg_catalog.text, c.relname::pg_catalog.text) IN (
    SELECT * FROM ROWS FROM (pg_catalog.unnest(%(schemas)s::pg_catalog.text[]),
                             pg_catalog.unnest(%(names)s::pg_catalog.text[])) AS o (schema, name))"""
# Since 17 a privilege, before the owner's: of the table or, but for what all databases share, of the database.
MAY_MAINTAIN = {
    True: "pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')",
    False: "pg_catalog.pg_has_role(c.relowner, 'USAGE')",
}
DATABASE_OWNER = """(NOT c.relisshared AND pg_catalog.pg_has_role(
    (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()), 'USAGE'))"""
# The partitions below each partitioned table, as far as they hold rows, and the rows changed since its last analyze. A
# partition's counter starts at its own last analyze. When that was the later one, all it counts has come since; and
# when it was more than an hour later (not by one and the same run, then), as much had changed before as makes the
# server analyze a table. When it was the earlier one (ANALYZE ONLY), less than that had changed by then.
PARENTS = """
WITH RECURSIVE below (root, oid) AS (
    SELECT c.oid, i.inhrelid
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_inherits i ON i.inhparent = c.oid
     WHERE c.relkind = 'p' AND {only}
     UNION ALL
    SELECT b.root, i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid
), leaves AS (
    SELECT b.root, pg_catalog.pg_stat_get_mod_since_analyze(c.oid) AS changed,
           CASE WHEN c.reltuples > 0 THEN c.reltuples ELSE pg_catalog.pg_stat_get_live_tuples(c.oid) END AS live,
           greatest(c.reltuples, 0) * %(share)s AS due,
           greatest(pg_catalog.pg_stat_get_last_analyze_time(c.oid),
                    pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed,
           pg_catalog.pg_stat_get_last_analyze_time(b.root) AS parent
      FROM below b
      JOIN pg_catalog.pg_class c ON c.oid = b.oid AND c.relkind = 'r'
)
SELECT l.root, pg_catalog.sum(l.live)::pg_catalog.int8,
       pg_catalog.sum(CASE WHEN l.parent IS NULL THEN l.changed
                           WHEN l.analyzed IS NULL OR l.analyzed < l.parent THEN greatest(0, l.changed - l.due)
                           WHEN l.analyzed > l.parent + '1 hour'::pg_catalog.interval THEN l.changed + l.due
                           ELSE l.changed END)::pg_catalog.int8
  FROM leaves l
 GROUP BY l.root
"""
# What a table may set for itself, and the policy's field that it overrides.
OWN = {
    "autovacuum_vacuum_scale_factor": ("dead_percent", 100.0),
    "autovacuum_vacuum_threshold": ("min_dead_rows", 1.0),
    "autovacuum_analyze_scale_factor": ("changed_percent", 100.0),
    "autovacuum_analyze_threshold": ("min_changed_rows", 1.0),
}


class Row(NamedTuple):
    """One row of TABLES."""

    oid: int
    schema: str
    name: str
    relkind: str
    persistence: str
    catalog: bool
    closed: bool
    heap_bytes: int
    table_bytes: int  # with TOAST
    index_bytes: int
    reltuples: float
    relpages: int
    all_frozen: int | None
    indexes: int
    live: int
    dead: int
    changed: int
    inserted: int
    vacuumed: datetime | None
    analyzed: datetime | None
    xid_age: int | None
    mxid_age: int | None
    toast_xid_age: int | None
    toast_mxid_age: int | None
    options: list[str] | None
    toast_options: list[str] | None
    may_maintain: bool
    keyed: bool  # has an index that names every row: what pg_repack needs, and REPACK
    may_name: bool = True  # the login has USAGE on its schema
    counted: bool = True  # the server counts changes at all (track_counts)
    index_sizes: str | None = None  # "16390:8192 16391:-1": of its indexes by oid, where files were asked

    @property
    def total_bytes(self) -> int:
        return self.table_bytes + self.index_bytes

    @property
    def rows(self) -> int:
        """Live rows as the planner of the server sees them; as the counters do where it never looked."""
        return int(self.reltuples) if self.reltuples > 0 else self.live

    @property
    def live_rows(self) -> int:
        """Live rows by the counters, unless a crash or a reset has lost them."""
        return self.live if 2 * (self.live + self.dead) >= self.reltuples else max(int(self.reltuples), self.live)

    def option(self, name: str) -> float | None:
        return settings_of(self.options).get(name)


def scope(wants: Wants) -> tuple[str, dict[str, t.Any]]:
    """The condition that chooses tables, and its values."""
    if not wants.only:
        return EVERYTHING, {}
    paths = [ref.path for ref in wants.only if len(ref.path) == 2]
    return ONLY, {"schemas": [p[0] for p in paths], "names": [p[1] for p in paths]}


def read(session: Session, wants: Wants, server: Server) -> list[Row]:
    """All tables, catalogs, materialized views and partitioned tables of the session's database."""
    major = major_of(server)
    only, values = scope(wants)
    folder = session.folder()
    statement = TABLES.format(
        only=only,
        files=files("c", folder),
        toast_files=files("t", folder),
        toast_index_files=files("j", folder),
        index_files=files("k", folder),
        upkeep=UPKEEP if wants.tables else NO_UPKEEP,
        keyed=KEYED[has("repack", major)] if wants.tables else "false",
        index_sizes=INDEX_SIZES if folder else "NULL::pg_catalog.text",
        all_frozen="c.relallfrozen" if has("all frozen pages", major) else "NULL::pg_catalog.int4",
        may_maintain=f"({MAY_MAINTAIN[has('maintain', major)]} OR {DATABASE_OWNER})",
    )
    values.update(folder=folder, block=int(server.settings["block_size"]), halves=1, other=1)
    with session.twin(wanted=beside.wanted(wants, server)) as twin:
        found = session.rows(statement, values) if twin is None else _halves(session, twin, statement, values)
    found.sort(key=operator.itemgetter(0))  # in one order, however they were asked for
    rows = [Row(*row) for row in found if None not in row[7:10]]  # a size is NULL where a table was dropped meanwhile
    if not any(row.relkind == "p" for row in rows):
        return rows
    below = partitions(session, wants, server)
    return [_summed(row, *below.get(row.oid, (0, 0))) if row.relkind == "p" else row for row in rows]


def _halves(session: Session, twin: Session, statement: str, values: dict[str, t.Any]) -> list[t.Any]:
    """Its rows, one half of the tables asked in each session."""
    one, other = beside.both(
        session,
        twin,
        lambda asked: asked.rows(statement, {**values, "halves": 2, "other": 0}),
        lambda asked: asked.rows(statement, {**values, "halves": 2, "other": 1}),
    )
    # Each half is of a moment of its own: a table that was dropped and made anew in between is in both, as two. The
    # younger one is there.
    return list({(row[1], row[2]): row for row in sorted([*one, *other], key=operator.itemgetter(0))}.values())


def index_sizes(rows: t.Iterable[Row]) -> dict[int, dict[int, int]]:
    """By oid of the table those of its indexes, in bytes by oid; -1: not by one file. Nothing where none were asked."""
    found = {}
    for row in rows:
        if row.index_sizes:
            numbers = iter(map(int, row.index_sizes.replace(":", " ").split(" ")))
            found[row.oid] = dict(zip(numbers, numbers))
    return found


def partitions(session: Session, wants: Wants, server: Server) -> dict[int, tuple[int, int]]:
    """For each partitioned table, by oid: live rows, and rows changed since its last analyze, in its partitions."""
    only, values = scope(wants)
    share = float(server.settings["autovacuum_analyze_scale_factor"])
    found = session.rows(PARENTS.format(only=only), {**values, "share": share})
    return {root: (live, changed) for root, live, changed in found}


def _summed(parent: Row, live: int, changed: int) -> Row:
    return parent._replace(reltuples=float(max(live, parent.reltuples)), live=live, changed=changed)


def settings_of(options: list[str] | None) -> dict[str, float]:
    """Storage parameters that are numbers."""
    found = {}
    for option in options or ():
        name, value = option.split("=", 1)
        try:
            found[name] = float(value)
        except ValueError:
            continue
    return found


def table(row: Row, ref: Ref, server: Server) -> Table:
    """What the numbers say; who pins the horizon, statistics, bloat and means are added by those who know."""
    stores = row.relkind != "p"
    counts = stores and row.counted  # counters that stand still would ask for the same step for ever
    live = row.live_rows
    return Table(
        ref=ref,
        kind=kind_of(row),
        bytes=row.table_bytes,
        total_bytes=row.total_bytes,
        rows=row.rows,
        dead=Dead(row.dead, 100.0 * row.dead / max(live + row.dead, 1)) if counts else None,
        inserted=row.inserted if counts else None,
        insert_limit=insert_limit(row, server) if counts else None,
        changed=row.changed if row.counted else None,
        analyzed=row.analyzed,
        freeze_percent=freeze_percent(row, server) if stores else None,
        own=own_settings(row),
        indexes=row.indexes,
    )


def sized(row: Row, ref: Ref, bloat: Bloat | None) -> Table:
    """Its sizes alone, of which there may be many thousands."""
    return Table(ref, kind_of(row), row.table_bytes, row.total_bytes, row.rows, bloat=bloat, indexes=row.indexes)


def kind_of(row: Row) -> str:
    if row.catalog:
        return "catalog"
    return {"m": "matview", "p": "partitioned"}.get(row.relkind, "table")


def own_settings(row: Row) -> dict[str, float]:
    found = settings_of(row.options)
    return {field: found[name] * factor for name, (field, factor) in OWN.items() if name in found}


def insert_limit(row: Row, server: Server) -> float | None:
    """The server's own threshold. Source: relation_needs_vacanalyze() in autovacuum.c."""
    settings, own = server.settings, settings_of(row.options)
    base = own.get("autovacuum_vacuum_insert_threshold", float(settings["autovacuum_vacuum_insert_threshold"]))
    if base < 0:
        return None
    scale = own.get("autovacuum_vacuum_insert_scale_factor", float(settings["autovacuum_vacuum_insert_scale_factor"]))
    unfrozen = 1.0
    if row.all_frozen and row.relpages > 0:
        unfrozen = 1.0 - min(row.all_frozen, row.relpages) / row.relpages
    return base + scale * max(row.reltuples, 0.0) * unfrozen


def freeze_percent(row: Row, server: Server) -> float | None:
    """The oldest transaction or multixact id, of the table or its TOAST table, in percent of the forced freeze.

    A TOAST table without settings of its own follows its table; a table can only lower the server's limit.
    """
    own, toast = settings_of(row.options), settings_of(row.toast_options)
    shares = []
    for name, main, out_of_line in (
        ("autovacuum_freeze_max_age", row.xid_age, row.toast_xid_age),
        ("autovacuum_multixact_freeze_max_age", row.mxid_age, row.toast_mxid_age),
    ):
        limit = float(server.settings[name])
        own_limit = min(limit, own.get(name, limit))
        shares += [100.0 * main / own_limit] if main is not None else []
        shares += [100.0 * out_of_line / min(limit, toast.get(name, own_limit))] if out_of_line is not None else []
    return max(shares, default=None)
