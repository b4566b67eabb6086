# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What materialized views read, and whether it has changed: the server's counters as one fingerprint a view.

What no counter shows (the clock, foreign tables, functions that look elsewhere) is named.
"""

from __future__ import annotations

import typing as t

from ..._errors import Vanished
from ..._records import Ref
from ..._tuples import NamedTuple
from .session import Session

# From each view down: what its rule depends on, through plain views and to all partitions and children, as far as the
# next materialized view. Dependencies on what the server itself brings along are not recorded: those stand in the
# rule's tree only, and so do the functions of operators. OIDs below 16384 are the server's own (transam.h).
# A table's line: rows inserted, updated and deleted since the counters began. TRUNCATE is not counted, and gives it a
# new file; so does a rebuild, which changes no row: the file matters where the table looks empty only. A view's file
# always does: a plain refresh that leaves no row is not counted either. Expressions of generated columns can be
# replaced, and so can views and functions. Counters begin anew after a crash, with a new time of the background
# writer's reset, and when somebody resets them.
SOURCES = """
WITH RECURSIVE reached (root, oid) AS (
    SELECT c.oid, c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY (%(views)s::pg_catalog.oid[])
     UNION
    SELECT r.root, below.oid
      FROM reached r
      JOIN pg_catalog.pg_class c ON c.oid = r.oid AND c.oid >= 16384
     CROSS JOIN LATERAL (
        SELECT d.refobjid
          FROM pg_catalog.pg_rewrite w
          JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
               AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
         WHERE w.ev_class = c.oid AND w.ev_type = '1' AND (c.relkind = 'v' OR c.oid = r.root)
         UNION ALL
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid AND c.relkind IN ('r', 'p', 'f')
     ) below (oid)
), rules AS MATERIALIZED (
    SELECT w.ev_class AS oid, w.ev_action::pg_catalog.text AS tree
      FROM pg_catalog.pg_rewrite w
     WHERE w.ev_type = '1' AND w.ev_class >= 16384 AND w.ev_class IN (SELECT oid FROM reached)
), calls AS MATERIALIZED (
    SELECT DISTINCT u.oid, m[1]::pg_catalog.oid AS called
      FROM rules u, pg_catalog.regexp_matches(u.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)', 'g') m
), reasons AS MATERIALIZED (
    SELECT k.oid, 'calls ' || p.proname || '()' AS why
      FROM calls k
      JOIN pg_catalog.pg_proc p ON p.oid = k.called
     WHERE p.provolatile = 'v'
        OR p.provolatile = 's' AND (p.oid >= 16384 OR p.proname ~ %(looking)s OR p.proname = 'age' AND p.pronargs = 1)
     UNION ALL
    SELECT u.oid, 'looks at the clock' FROM rules u WHERE u.tree ~ '\\{SQLVALUEFUNCTION :op [0-8] '
     UNION ALL
    SELECT u.oid, 'takes a random sample' FROM rules u WHERE u.tree ~ '\\{TABLESAMPLECLAUSE '
     UNION ALL
    SELECT u.oid, 'reads the catalog ' || c.relname
      FROM rules u, pg_catalog.regexp_matches(u.tree, ':relid ([0-9]+)', 'g') m
      JOIN pg_catalog.pg_class c ON c.oid = m[1]::pg_catalog.oid AND c.oid < 16384
     UNION ALL
    SELECT c.oid, CASE c.relkind WHEN 'f' THEN 'reads the foreign table ' ELSE 'reads the sequence ' END || c.relname
      FROM pg_catalog.pg_class c
     WHERE c.relkind IN ('f', 'S') AND c.oid IN (SELECT oid FROM reached)
), lines AS MATERIALIZED (
    SELECT c.oid, c.relkind, c.relowner, c.relrowsecurity, c.relforcerowsecurity,
           c.nspname, c.relname,
           pg_catalog.concat_ws(':', c.oid, c.relnatts,
             CASE WHEN c.relkind IN ('r', 'm') THEN
               pg_catalog.concat_ws(':', pg_catalog.pg_stat_get_tuples_inserted(c.oid),
                                    pg_catalog.pg_stat_get_tuples_updated(c.oid),
                                    pg_catalog.pg_stat_get_tuples_deleted(c.oid)) END,
             CASE WHEN c.relkind = 'm'
                    OR c.relkind = 'r' AND c.relpages = 0 AND pg_catalog.pg_stat_get_live_tuples(c.oid) = 0
                  THEN c.relfilenode END,
             CASE WHEN c.relkind IN ('r', 'p') THEN
               (SELECT pg_catalog.string_agg(d.oid::pg_catalog.text, ',' ORDER BY d.oid)
                  FROM pg_catalog.pg_attribute a
                  JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                 WHERE a.attrelid = c.oid AND a.attgenerated <> '') END) AS counters,
           pg_catalog.concat_ws(':', c.oid,
             (SELECT pg_catalog.hashtextextended(u.tree, 0) FROM rules u WHERE u.oid = c.oid),
             (SELECT pg_catalog.string_agg(p.oid::pg_catalog.text || '.' || p.xmin::pg_catalog.text, ',' ORDER BY p.oid)
                FROM calls k JOIN pg_catalog.pg_proc p ON p.oid = k.called AND p.oid >= 16384
               WHERE k.oid = c.oid)) AS definition
      FROM (SELECT x.*, n.nspname
              FROM pg_catalog.pg_class x JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
             WHERE x.oid >= 16384 AND x.oid IN (SELECT oid FROM reached)) c
)
SELECT r.root::pg_catalog.int8,
       pg_catalog.hashtextextended(
         pg_catalog.concat_ws(' ',
           (SELECT pg_catalog.concat_ws(' ', extract(epoch FROM pg_catalog.pg_stat_get_db_stat_reset_time(d.oid)),
                                        extract(epoch FROM pg_catalog.pg_stat_get_bgwriter_stat_reset_time()))
              FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
           pg_catalog.string_agg(CASE WHEN l.relkind = 'v' OR l.oid = r.root THEN l.definition ELSE l.counters END, ' '
                                 ORDER BY l.oid)), 0)::pg_catalog.text,
       pg_catalog.count(*) FILTER (WHERE l.relkind IN ('r', 'm') AND l.oid <> r.root),
       pg_catalog.array_agg(ARRAY[l.nspname::pg_catalog.text, l.relname::pg_catalog.text] ORDER BY l.nspname, l.relname)
         FILTER (WHERE l.relkind = 'm' AND l.oid <> r.root),
       (SELECT pg_catalog.array_agg(DISTINCT w.why) FROM reasons w
         WHERE w.oid IN (SELECT x.oid FROM reached x LEFT JOIN lines y ON y.oid = x.oid
                          WHERE x.root = r.root AND (x.oid = r.root OR y.relkind IS DISTINCT FROM 'm'))),
       pg_catalog.max(l.relname) FILTER (
         WHERE l.relrowsecurity AND (l.relowner <> o.relowner OR l.relforcerowsecurity)
           AND NOT (o.rolsuper OR o.rolbypassrls)),
       pg_catalog.current_setting('track_counts')::pg_catalog.bool,
       EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) g
                WHERE g ~* '^track_counts=(f|n|of|0)'
                  AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                                             WHERE d.datname = pg_catalog.current_database())))
  FROM reached r
  JOIN lines l ON l.oid = r.oid
  JOIN (SELECT c.oid, c.relowner, a.rolsuper, a.rolbypassrls
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles a ON a.oid = c.relowner) o ON o.oid = r.root
 GROUP BY r.root
"""
# Stable functions of the server itself depend on settings (time zone, formats), which count as constant; these look at
# the clock, at the catalogs or at the session.
LOOKING = (
    "^(now|statement_timestamp|transaction_timestamp|current_.*|.*_to_xml.*|txid_.*|pg_(?!typeof|column).*"
    "|has_.*_privilege|.*_description|to_reg.*|inet_.*|row_security_active)$"
)
OID = """
SELECT c.oid::pg_catalog.int8
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s
"""
NO_STATE = "unknown"
NAMED = 3  # reasons that are named


class Row(NamedTuple):
    """One row of SOURCES."""

    oid: int
    fingerprint: str
    tables: int
    views: list[list[str]] | None  # schema and name
    reasons: list[str] | None
    guarded: str | None  # a table with row level security
    counted: bool
    uncounted_somewhere: bool  # for some role or database


class Sources(NamedTuple):
    """What one materialized view reads."""

    state: str | None = None
    tables: int = 0
    views: tuple[tuple[str, str], ...] = ()  # materialized views: schema and name
    unknown: str = ""


def read(session: Session, views: t.Sequence[int]) -> dict[int, Sources]:
    """By the view's oid."""
    if not views:
        return {}
    found = session.rows(SOURCES, {"views": list(views), "looking": LOOKING})
    return {row[0]: _sources(Row(*row)) for row in found}


def state(session: Session, ref: Ref) -> str:
    """The fingerprint as a note to be compared with later ones. Raises Vanished."""
    found = session.rows(OID, ref.path)
    if not found:
        raise Vanished("it is not there any more", database=ref.database, obj=str(ref))
    oid = int(found[0][0])
    return read(session, [oid]).get(oid, Sources()).state or NO_STATE


def _sources(row: Row) -> Sources:
    whys = sorted(row.reasons or [])
    whys += [f"reads {row.guarded}, whose row level security decides what it sees"] if row.guarded else []
    if not row.counted or row.uncounted_somewhere:
        whys.insert(0, f"reads tables whose changes are not {'all ' * row.counted}counted (track_counts is off)")
    more = [f"{len(whys) - NAMED} more reasons"] if len(whys) > NAMED else []
    known = row.counted and (row.tables > 0 or not whys)
    return Sources(
        state=row.fingerprint if known else None,
        tables=row.tables,
        views=tuple((schema, name) for schema, name in row.views or ()),
        unknown=", ".join([*whys[:NAMED], *more]),
    )
