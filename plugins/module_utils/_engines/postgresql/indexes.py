# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes as the catalogs describe them. Their bloat stands in btree.py, collations in collations.py."""

from __future__ import annotations

import time
import typing as t
from datetime import datetime

from ..._errors import Busy
from ..._records import Bloat, Database, Ref, Server, Wants
from ..._structure import Index
from ..._tuples import NamedTuple
from . import catalog
from .catalog import DATABASE_OWNER, MAY_MAINTAIN, settings_of
from .session import Session
from .versions import has, major_of

# Sizes, and expressions and predicates in words, open the table or the index and would wait for whoever holds it
# exclusively: there the size is taken from the last vacuum or analyze, and a hash stands for the words.
INDEXES = """
WITH held AS MATERIALIZED (
    SELECT DISTINCT l.relation AS oid
      FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
       AND l.database IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                               WHERE d.datname = pg_catalog.current_database()))
), chosen AS MATERIALIZED (
    SELECT i.*, i.xmin AS made, i.indrelid IN (SELECT oid FROM held) OR i.indexrelid IN (SELECT oid FROM held) AS closed
      FROM pg_catalog.pg_index i
     WHERE {only}
), parts AS MATERIALIZED (
    SELECT p.indexrelid,
           pg_catalog.array_agg(coalesce(a.attname::pg_catalog.text, '') ORDER BY p.place) AS names,
           pg_catalog.array_agg(pg_catalog.concat_ws(' ',
               CASE WHEN p.attnum <> 0 THEN NULL
                    WHEN p.closed THEN 'expression ' || pg_catalog.md5(p.indexprs::pg_catalog.text)
                    ELSE pg_catalog.pg_get_indexdef(p.indexrelid, p.place::pg_catalog.int4, true) END,
               CASE WHEN o.opcnamespace <> 'pg_catalog'::pg_catalog.regnamespace
                    THEN o.opcnamespace::pg_catalog.regnamespace::pg_catalog.text || '.' || o.opcname
                    ELSE o.opcname::pg_catalog.text END,
               '(' || pg_catalog.array_to_string(x.attoptions, ', ') || ')',
               CASE WHEN l.collnamespace <> 'pg_catalog'::pg_catalog.regnamespace
                    THEN l.collnamespace::pg_catalog.regnamespace::pg_catalog.text || '.' || l.collname
                    ELSE l.collname::pg_catalog.text END,
               CASE WHEN p.option & 1 = 1 THEN 'DESC' END,
               CASE WHEN p.option & 2 = 2 THEN 'NULLS FIRST' END) ORDER BY p.place) AS texts
      FROM (
        SELECT c.*, g.place, g.attnum, c.indclass[g.place - 1] AS class,
               c.indcollation[g.place - 1] AS collation, c.indoption[g.place - 1] AS option
          FROM chosen c, pg_catalog.unnest(c.indkey::pg_catalog.int2[]) WITH ORDINALITY AS g (attnum, place)
      ) p
      LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = p.indrelid AND a.attnum = p.attnum AND p.attnum <> 0
      LEFT JOIN pg_catalog.pg_attribute x ON x.attrelid = p.indexrelid AND x.attnum = p.place
           AND x.attoptions IS NOT NULL
      LEFT JOIN pg_catalog.pg_opclass o ON o.oid = p.class
      LEFT JOIN pg_catalog.pg_collation l ON l.oid = p.collation
     GROUP BY p.indexrelid
)
SELECT i.indexrelid, i.indrelid,
       kn.nspname::pg_catalog.text, k.relname::pg_catalog.text,
       cn.nspname::pg_catalog.text, c.relname::pg_catalog.text,
       m.amname::pg_catalog.text, k.relkind::pg_catalog.text, k.relpersistence::pg_catalog.text,
       cn.nspname IN ('pg_catalog', 'information_schema'), i.closed,
       CASE WHEN k.relkind = 'I' THEN 0
            WHEN i.closed THEN k.relpages::pg_catalog.int8 * %(block)s
            ELSE {size} END,
       k.reltuples::pg_catalog.float8, k.relpages, k.reloptions,
       c.reltuples::pg_catalog.float8, pg_catalog.pg_stat_get_live_tuples(c.oid),
       pg_catalog.pg_stat_get_dead_tuples(c.oid), pg_catalog.pg_stat_get_mod_since_analyze(c.oid),
       i.indnkeyatts::pg_catalog.int4, i.indkey::pg_catalog.text, p.names, p.texts,
       CASE WHEN i.indpred IS NULL THEN ''
            WHEN i.closed THEN 'predicate ' || pg_catalog.md5(i.indpred::pg_catalog.text)
            ELSE pg_catalog.pg_get_expr(i.indpred, i.indrelid, true) END,
       i.indisunique, i.indisprimary, i.indisexclusion, i.indisvalid, i.indisreplident, i.indisclustered,
       coalesce(q.conname::pg_catalog.text, ''),
       un.nspname::pg_catalog.text, u.relname::pg_catalog.text,
       CASE WHEN pg_catalog.current_setting('track_counts')::pg_catalog.bool
            THEN pg_catalog.pg_stat_get_numscans(k.oid) END,
       {last_scan},
       {may_maintain},
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'),
       pg_catalog.concat_ws(' ', CASE WHEN {nulls_equal} THEN 'NULLS NOT DISTINCT' END,
                            CASE WHEN NOT i.indimmediate THEN 'DEFERRABLE' END,
                            CASE WHEN m.amname NOT IN ('btree', 'hash', 'gist')
                                 THEN pg_catalog.array_to_string(k.reloptions, ', ') END),
       pg_catalog.age(i.made)
  FROM chosen i
  JOIN pg_catalog.pg_class k ON k.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace kn ON kn.oid = k.relnamespace
  JOIN pg_catalog.pg_am m ON m.oid = k.relam
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid AND c.relkind IN ('r', 'm', 'p')
  JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
  JOIN parts p ON p.indexrelid = i.indexrelid
  LEFT JOIN pg_catalog.pg_constraint q ON q.conindid = i.indexrelid AND q.contype IN ('p', 'u', 'x')
       AND q.conrelid = i.indrelid
  LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = i.indexrelid
  LEFT JOIN pg_catalog.pg_class u ON u.oid = h.inhparent
  LEFT JOIN pg_catalog.pg_namespace un ON un.oid = u.relnamespace
 ORDER BY i.indexrelid
"""
# TOAST tables have one index each, which belongs to them.
EVERYTHING = "true"
# Where nothing but bloat is asked for: tables with an index that is large enough, with all of their indexes.
LARGE = """i.indrelid = ANY (ARRAY(
    SELECT b.indrelid FROM pg_catalog.pg_index b JOIN pg_catalog.pg_class s ON s.oid = b.indexrelid AND s.relkind = 'i'
     WHERE b.indexrelid IN (SELECT oid FROM held) OR pg_catalog.pg_relation_size(b.indexrelid) >= %(least)s))"""
UNKNOWN = "CASE WHEN k.oid = ANY (%(unknown)s::pg_catalog.oid[]) THEN pg_catalog.pg_relation_size(k.oid) END"
ONLY = "(i.indexrelid = ANY (ARRAY({named})) OR i.indrelid = ANY (ARRAY({named})))"
# By relname first: there is an index on it. The names are those of indexes or of tables.
NAMED = """
      SELECT r.oid FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
       WHERE r.relname = ANY (%(names)s::pg_catalog.name[])
         AND (n.nspname::pg_catalog.text, r.relname::pg_catalog.text) IN (
          SELECT * FROM ROWS FROM (pg_catalog.unnest(%(schemas)s::pg_catalog.text[]),
                                   pg_catalog.unnest(%(names)s::pg_catalog.text[])) AS o (schema, name))"""
LAST_SCAN = {True: "pg_catalog.pg_stat_get_lastscan(k.oid)", False: "NULL::pg_catalog.timestamptz"}
AGAIN = 3  # an index may be locked between the look at the locks and the look at its size
Sizes = t.Mapping[int, t.Mapping[int, int]]  # see catalog.index_sizes()
ONLINE, EXCLUSIVE = "online rebuild", "exclusive rebuild"


class Row(NamedTuple):
    """One row of INDEXES."""

    oid: int
    table_oid: int
    schema: str
    name: str
    table_schema: str
    table_name: str
    method: str
    relkind: str
    persistence: str
    catalog: bool
    closed: bool
    bytes: int
    reltuples: float
    relpages: int
    options: list[str] | None
    table_reltuples: float
    live: int  # rows of the table, by its counters
    dead: int
    changed: int
    keys: int  # columns of the key; what follows is included
    attnums: str  # "2 0 5": of the table, 0 is an expression
    names: list[str]
    texts: list[str]
    where: str
    unique: bool
    primary: bool
    exclusion: bool
    valid: bool
    identity: bool
    clustered: bool
    constraint: str
    parent_schema: str | None
    parent_name: str | None
    scans: int | None
    last_scan: datetime | None
    may_maintain: bool
    may_name: bool
    equality: str = ""  # what makes its uniqueness another one, or how coarse it is
    age: int = 0  # transactions since it was made, or made valid

    @property
    def columns(self) -> tuple[int, ...]:
        """The table's columns by number: of the key, then the included; 0 is an expression."""
        return tuple(map(int, self.attnums.split()))

    def option(self, name: str) -> float | None:
        return settings_of(self.options).get(name)


def read(
    session: Session, wants: Wants, server: Server, found: Database, tables: t.Sequence[catalog.Row] = ()
) -> Database:
    """The database with its indexes and mismatched collations; with the bloat of indexes where that is wanted.

    `tables` are those of the database, where they are known already: perhaps with the sizes of their indexes.
    """
    rows = _patiently(session, wants, server, tables)
    bloats = _bloats(session, wants, server, rows)
    if not (wants.indexes or wants.only):
        return found._replace(indexes=tuple([sized(row, session.database, bloats.get(row.oid)) for row in rows]))
    made = {row.oid: index(row, session.database, server, bloats.get(row.oid)) for row in rows}
    if wants.indexes and rows:
        from . import needs

        keep, (since, doubt) = needs.reasons(session, rows), needs.counted_since(session, rows)
        made = {o: i._replace(counted_since=since[o], keep=keep[o], doubt=doubt) for o, i in made.items()}
    if wants.indexes:
        from . import collations

        changed, stale = collations.read(session, server)
        found = found._replace(collations=changed)
        made.update({o: made[o]._replace(stale=x.why, state=x.state) for o, x in stale.items() if o in made})
    return found._replace(indexes=tuple(made.values()))


def _bloats(session: Session, wants: Wants, server: Server, rows: t.Sequence[Row]) -> dict[int, Bloat]:
    """By oid. Where nothing is large enough to be looked at, what looks is not even imported."""
    if not wants.index_bloat or not (wants.exact or any(r.bytes >= wants.index_bloat_min_bytes for r in rows)):
        return {}
    from . import index_bloat

    found = index_bloat.estimates(session, wants, server, rows)
    return {**found, **index_bloat.exact(session, wants, rows, found, int(server.settings["block_size"]))}


def _patiently(session: Session, wants: Wants, server: Server, tables: t.Sequence[catalog.Row]) -> list[Row]:
    sizes = catalog.index_sizes(tables)
    lean = bool(sizes) and not wants.indexes and not wants.only
    for left in reversed(range(AGAIN)):
        try:
            if lean:
                from . import large_indexes

                return large_indexes.read(session, wants, server, tables, sizes)
            return rows_of(session, wants, server, sizes)
        except Busy:
            if not left:
                raise
            time.sleep(0.1)
    return []


def rows_of(session: Session, wants: Wants, server: Server, sizes: Sizes) -> list[Row]:
    """All indexes of the session's database but those of TOAST tables, or those that `wants.only` names."""
    major = major_of(server)
    paths = [ref.path for ref in wants.only if len(ref.path) == 2]
    known = {} if wants.only else {oid: size for its in sizes.values() for oid, size in its.items()}
    statement = INDEXES.format(
        only=_which(wants),
        size=UNKNOWN if known else "pg_catalog.pg_relation_size(k.oid)",
        last_scan="pg_catalog.pg_stat_get_lastscan(k.oid)"
        if has("last scan", major)
        else "NULL::pg_catalog.timestamptz",
        may_maintain=f"({MAY_MAINTAIN[has('maintain', major)]} OR {DATABASE_OWNER})",
        nulls_equal="i.indnullsnotdistinct" if has("nulls not distinct", major) else "false",
    )
    values = {
        "block": int(server.settings["block_size"]),
        "least": wants.index_bloat_min_bytes,
        "schemas": [path[0] for path in paths],
        "names": [path[1] for path in paths],
        "unknown": [oid for oid, size in known.items() if size < 0],
    }
    # A size is NULL where an index was dropped meanwhile, or made since the others were known.
    found = ((row, known.get(row[0], -1)) for row in session.rows(statement, values))
    sized = ((*row[:11], size if row[11] is None else row[11], *row[12:]) for row, size in found)
    return [Row(*row) for row in sized if row[11] >= 0]


def _which(wants: Wants) -> str:
    if wants.only:
        return ONLY.format(named=NAMED)
    return EVERYTHING if wants.indexes else LARGE


def sized(row: Row, database: str, bloat: Bloat | None) -> Index:
    """Its size alone, of which there may be many thousands."""
    return Index(
        Ref(database, (row.schema, row.name)),
        Ref(database, (row.table_schema, row.table_name)),
        row.method,
        row.bytes,
        max(0, int(row.reltuples)),
        valid=row.valid,
        partitioned=row.relkind == "I",
        bloat=bloat,
    )


def index(row: Row, database: str, server: Server, bloat: Bloat | None = None) -> Index:
    """What the catalogs say of one index; what it is needed for and collations are added by those who know."""
    parent = Ref(database, (row.parent_schema or "", row.parent_name)) if row.parent_name else None
    last = " ".join((row.texts[row.keys - 1], row.equality)).strip() if row.texts else ""
    return Index(
        ref=Ref(database, (row.schema, row.name)),
        table=Ref(database, (row.table_schema, row.table_name)),
        method=row.method,
        bytes=row.bytes,
        rows=max(0, int(row.reltuples)),
        columns=tuple(row.names[: row.keys]),
        parts=(*row.texts[: row.keys - 1], last) if row.texts else (),
        included=tuple(row.names[row.keys :]),
        where=row.where,
        unique=row.unique,
        primary=row.primary,
        constraint=row.constraint,
        valid=row.valid,
        partitioned=row.relkind == "I",
        partition_of=parent,
        scans=row.scans,
        last_scan=row.last_scan,
        bloat=bloat,
        lacks=_lacks(row, server),
    )


def _lacks(row: Row, server: Server) -> dict[str, str]:
    for lacking, why in (
        (not row.may_maintain, "the login may not maintain its table"),
        (not row.may_name, "the login may not use its schema"),
        (row.persistence == "t", "a temporary table of another session"),
        (row.relkind == "I", "a parent without storage of its own: its partitions are rebuilt"),
    ):
        if lacking:
            return {ONLINE: why, EXCLUSIVE: why}
    if row.exclusion:
        return {ONLINE: "the index of an exclusion constraint cannot be rebuilt concurrently"}
    if row.catalog:
        return {ONLINE: "an index of a system catalog cannot be rebuilt concurrently"}
    if server.number[:1] == (14,) and server.number < (14, 4):
        return {ONLINE: f"REINDEX CONCURRENTLY of PostgreSQL {server.version} can damage indexes: 14.4 mends it"}
    return {}
