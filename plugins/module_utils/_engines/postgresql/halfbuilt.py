# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What REINDEX CONCURRENTLY makes beside an index: its name, who works on it, and what is left of it. Only reading."""

from __future__ import annotations

from ..._errors import Vanished
from ..._records import Leftover, Ref, Wants
from ..._tuples import NamedTuple
from .session import Session

REINDEX = "reindex"  # the kind of wreckage
# A name as the server makes it of another one and a suffix, cut where they are too long together, between characters.
# Source: makeObjectName() in indexcmds.c.
MADE_OF = """
pg_catalog.left({name}, (
    SELECT pg_catalog.max(u.length) FROM pg_catalog.generate_series(0, pg_catalog.length({name})) u (length)
     WHERE pg_catalog.octet_length(pg_catalog.left({name}, u.length)) + pg_catalog.octet_length({suffix})
           <= pg_catalog.current_setting('max_identifier_length')::pg_catalog.int4)) || {suffix}
"""
HERE = "(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())"
# Every invalid index; for those called like the helpers of a concurrent reindex the index that they are made for. Its
# size would wait for whoever builds or drops it: those hold locks that neither reading nor writing a table takes.
INVALID = f"""
WITH invalid AS MATERIALIZED (
    SELECT i.indexrelid AS oid, i.indrelid, c.relname::pg_catalog.text AS name, c.relnamespace, c.relpages, c.relowner,
           coalesce(pg_catalog.substring(c.relname::pg_catalog.text, '_cc(?:new|old)[0-9]*$'), '') AS suffix
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
     WHERE NOT i.indisvalid AND c.relkind = 'i'
), busy AS MATERIALIZED (
    SELECT l.relation AS oid, l.pid
      FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'relation' AND l.database = {HERE} AND l.pid IS NOT NULL
       AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                      'AccessExclusiveLock')
     UNION
    SELECT p.index_relid, p.pid FROM pg_catalog.pg_stat_progress_create_index p WHERE p.datid = {HERE}
)
SELECT w.oid::pg_catalog.int8, n.nspname::pg_catalog.text, w.name, w.suffix <> '',
       base.name, coalesce(base.valid, false),
       tn.nspname::pg_catalog.text, t.relname::pg_catalog.text,
       CASE WHEN who.pid IS NULL THEN coalesce(pg_catalog.pg_relation_size(w.oid), 0)
            ELSE w.relpages::pg_catalog.int8 * pg_catalog.current_setting('block_size')::pg_catalog.int8 END,
       who.pid, pg_catalog.pg_has_role(w.relowner, 'USAGE')
  FROM invalid w
  JOIN pg_catalog.pg_namespace n ON n.oid = w.relnamespace
  LEFT JOIN pg_catalog.pg_class owner ON owner.reltoastrelid = w.indrelid
  JOIN pg_catalog.pg_class t ON t.oid = coalesce(owner.oid, w.indrelid)
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
  LEFT JOIN LATERAL (
    SELECT k.relname::pg_catalog.text AS name, j.indisvalid AS valid
      FROM pg_catalog.pg_index j
      JOIN pg_catalog.pg_class k ON k.oid = j.indexrelid
     WHERE w.suffix <> '' AND j.indrelid = w.indrelid AND k.relnamespace = w.relnamespace
       AND w.name = {MADE_OF.format(name="k.relname::pg_catalog.text", suffix="w.suffix")}
     ORDER BY j.indisvalid DESC, k.relname
     LIMIT 1
  ) base ON true
  LEFT JOIN LATERAL (SELECT b.pid FROM busy b WHERE b.oid = w.oid ORDER BY b.pid LIMIT 1) who ON true
 ORDER BY w.oid
"""
# One index, and the name that the server will give to the one that it builds beside it.
ABOUT = f"""
SELECT i.indexrelid::pg_catalog.int8, i.indrelid::pg_catalog.int8, i.indisvalid, c.relfilenode::pg_catalog.int8,
       coalesce((SELECT f.name
                   FROM pg_catalog.generate_series(0, 99) g (number),
                        LATERAL (SELECT '_ccnew' || coalesce(nullif(g.number, 0)::pg_catalog.text, '')) s (suffix),
                        LATERAL (SELECT {MADE_OF.format(name="c.relname::pg_catalog.text", suffix="s.suffix")}) f (name)
                  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class x
                                     WHERE x.relnamespace = c.relnamespace AND x.relname = f.name::pg_catalog.name)
                  ORDER BY g.number LIMIT 1), '')
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
 WHERE n.nspname = %s AND c.relname = %s
"""
# Building it, the server holds this lock on the old index and on the new one until the end, across all transactions.
NEW = f"""
SELECT i.indexrelid::pg_catalog.int8, i.indisvalid,
       EXISTS (SELECT FROM pg_catalog.pg_index o WHERE o.indexrelid = %(old)s)
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_index i ON i.indexrelid = l.relation
 WHERE l.locktype = 'relation' AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted
   AND l.pid = %(pid)s AND l.database = {HERE}
   AND i.indrelid = %(table)s AND i.indexrelid <> %(old)s
 ORDER BY i.indisvalid
"""


class About(NamedTuple):
    oid: int
    table: int
    valid: bool
    file: int
    new_name: str  # of the index that REINDEX CONCURRENTLY would make now


class Half(NamedTuple):
    """An invalid index."""

    oid: int
    schema: str
    name: str
    helper: bool  # called like what REINDEX CONCURRENTLY makes beside an index
    base: str | None  # the index that it was to replace, or was replaced by
    base_valid: bool
    table_schema: str
    table: str
    bytes: int
    pid: int | None  # of the server process that works on it
    droppable: bool  # MAINTAIN lets a login reindex, but not drop what is left of that


def about(session: Session, ref: Ref) -> About:
    """Raises Vanished when the index is not there any more."""
    found = session.rows(ABOUT, ref.path)
    if not found:
        raise Vanished("it is not there any more", database=ref.database, obj=str(ref))
    return About(*found[0])


def new_indexes(session: Session, old: About, pid: int) -> list[int]:
    """What the server process is building in the place of `old`, or nothing yet.

    Somebody else's rebuild may have replaced `old` before the process got the table: then what it replaces follows.
    """
    found = session.rows(NEW, {"pid": pid, "table": old.table, "old": old.oid})
    begun = any(there or not valid for _oid, valid, there in found)
    return [int(oid) for oid, _valid, _there in found] if begun else []


def halves(session: Session) -> list[Half]:
    return [Half(*row) for row in session.rows(INVALID)]


def mark(oid: int) -> str:
    """What the journal says of an index that is being made, or replaced: names are given again, oids are not."""
    return f"index {oid}"


def leftovers(session: Session, wants: Wants) -> tuple[Leftover, ...]:
    """What is left of dead builds, and what is invalid because somebody is at work on it."""
    found = [_leftover(session.database, half) for half in halves(session) if half.helper or half.pid is not None]
    return tuple(x for x in found if not wants.only or x.ref in wants.only or x.table in wants.only)


def _leftover(database: str, half: Half) -> Leftover:
    why = ""
    if half.pid is not None:
        why = f"server process {half.pid} is at work on it"
    elif half.base is None:
        why = "there is no index that it was to replace: look at it yourself"
    elif not half.droppable:
        why = "only its owner may drop it"
    elif not half.base_valid:
        why = f"{half.base} is invalid, too: look at both yourself"
    return Leftover(
        ref=Ref(database, (half.schema, half.base or half.name)),
        what=REINDEX,
        names=(half.name,),
        bytes=half.bytes,
        dead=half.pid is None,
        why_not=why,
        table=Ref(database, (half.table_schema, half.table)),
        marks=(mark(half.oid), half.name) if half.droppable else (),
    )
