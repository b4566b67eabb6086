# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns of tables and indexes as the optimizer's statistics describe them: widths, nulls, repeated values.

What they mean for sizes stands in layout.py and btree.py.
"""

from __future__ import annotations

import json
import typing as t
from collections import Counter

from ..._tuples import NamedTuple
from . import layout
from .session import Session
from .versions import has

# One text a column, one row a relation: columns that are alike are read, and thought about, once. The texts are made
# before they are put in order: else the statistics would be, which are wide, and do not fit into work_mem.
STATEMENT = """
{classes}
SELECT c.owner, pg_catalog.string_agg(c.said, ' ' ORDER BY c.attnum)
  FROM (
    SELECT {owner} AS owner, a.attnum, pg_catalog.concat(
               a.attlen, '|', a.attalign, '|', a.attisdropped, '|', {expression}, '|', {same_image}, '|', {unsure}, '|',
               {width}, '|', {nulls}, '|', {distinct}, '|', {known}, '|', {shares}, '|', {common_sizes}, '|',
               {bound_sizes}) AS said
      FROM {relations}
      JOIN pg_catalog.pg_type y ON y.oid = CASE WHEN a.attisdropped THEN 25 ELSE a.atttypid END
      {source}
     WHERE a.attnum > 0 AND {owner} = ANY (%(oids)s::pg_catalog.oid[]) AND {readable}
    OFFSET 0
  ) c
 GROUP BY c.owner
"""
# How often values repeat is told of indexes; of tables where it weighs the sizes of values.
TABLES = {
    "classes": "",
    "owner": "a.attrelid",
    "expression": "false",
    "same_image": "false",
    "unsure": "false",
    "relations": "pg_catalog.pg_attribute a",
    "relation": "a.attrelid",
    "number": "a.attnum",
    "table": "a.attrelid",
    "repeats": "y.typlen = -1",
    "statistics": """SELECT * FROM pg_catalog.pg_statistic t
     WHERE t.starelid = a.attrelid AND t.staattnum = a.attnum AND NOT t.stainherit""",
}
# Equal values may share an entry where they are the same bytes. Source: _bt_allequalimage() in nbtutils.c, which knows
# of some types, too, that they are not.
INDEXES = {
    "classes": """WITH classes AS MATERIALIZED (
    SELECT o.oid, o.opcintype = ANY (%(unsure)s::pg_catalog.oid[]) AS unsure,
           o.opcintype <> ALL (%(unlike)s::pg_catalog.oid[]) AND EXISTS (
               SELECT FROM pg_catalog.pg_amproc p
                WHERE p.amprocfamily = o.opcfamily AND p.amproclefttype = o.opcintype
                  AND p.amprocrighttype = o.opcintype AND p.amprocnum = 4) AS same
      FROM pg_catalog.pg_opclass o
)""",
    "owner": "i.indexrelid",
    "expression": "i.indkey[a.attnum - 1] = 0",
    "same_image": "(o.same AND coalesce(l.collisdeterministic, true)) IS TRUE",
    "unsure": "o.unsure IS TRUE",
    "relations": """pg_catalog.pg_index i
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indexrelid
  LEFT JOIN classes o ON o.oid = i.indclass[a.attnum - 1]
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = i.indcollation[a.attnum - 1]""",
    "relation": "CASE WHEN i.indkey[a.attnum - 1] = 0 THEN i.indexrelid ELSE i.indrelid END",
    "number": "CASE WHEN i.indkey[a.attnum - 1] = 0 THEN a.attnum ELSE i.indkey[a.attnum - 1] END",
    "table": "i.indrelid",
    "repeats": "true",
    # One after the other by index: the server would read and sort all of them, and hardly any is asked for.
    "statistics": """SELECT * FROM pg_catalog.pg_statistic t
     WHERE t.starelid = CASE WHEN i.indkey[a.attnum - 1] = 0 THEN i.indexrelid ELSE i.indrelid END
       AND t.staattnum = CASE WHEN i.indkey[a.attnum - 1] = 0 THEN a.attnum ELSE i.indkey[a.attnum - 1] END
       AND NOT t.stainherit OFFSET 0""",
}
# The values that the statistics hold are measured too: a mean width says nothing about padding. The function scan packs
# them as rows are packed. Wide ones are left out, since there the padding is a small share and reading them is not.
SIZES = """CASE WHEN NOT (y.typlen = -1 AND {width} <= 300) THEN NULL
            WHEN y.typcategory = 'S' THEN ARRAY(SELECT pg_catalog.pg_column_size(v)
                 FROM pg_catalog.unnest(({values})::pg_catalog.text::pg_catalog.text[]) v)
            WHEN y.typcategory = 'N' THEN ARRAY(SELECT pg_catalog.pg_column_size(v)
                 FROM pg_catalog.unnest(({values})::pg_catalog.text::pg_catalog.numeric[]) v)
            WHEN y.typcategory = 'I' THEN ARRAY(SELECT pg_catalog.pg_column_size(v)
                 FROM pg_catalog.unnest(({values})::pg_catalog.text::pg_catalog.inet[]) v)
            WHEN y.oid = 'pg_catalog.jsonb'::pg_catalog.regtype THEN ARRAY(SELECT pg_catalog.pg_column_size(v)
                 FROM pg_catalog.unnest(({values})::pg_catalog.text::pg_catalog.jsonb[]) v) END"""
STATISTIC = {
    "width": "s.stawidth",
    "nulls": "s.stanullfrac",
    "distinct": "CASE WHEN {repeats} THEN s.stadistinct END",
    "known": "s.starelid IS NOT NULL",
    "common": "CASE WHEN s.stakind1 = 1 THEN s.stavalues1 END",
    "shares": "CASE WHEN s.stakind1 = 1 AND {repeats} THEN s.stanumbers1 END",
    "bounds": "CASE WHEN s.stakind1 = 2 THEN s.stavalues1 WHEN s.stakind2 = 2 THEN s.stavalues2 END",
    "source": "LEFT JOIN LATERAL ({statistics}) s ON true",
    "readable": "true",
}
# What a login sees that may not read pg_statistic: nothing of a table that it may not read, and nothing is said then.
STATS = {
    "width": "s.avg_width",
    "nulls": "s.null_frac",
    "distinct": "CASE WHEN {repeats} THEN s.n_distinct END",
    "known": "s.attname IS NOT NULL",
    "common": "s.most_common_vals",
    "shares": "CASE WHEN {repeats} THEN s.most_common_freqs END",
    "bounds": "s.histogram_bounds",
    "source": """JOIN pg_catalog.pg_class c ON c.oid = {relation}
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute b ON b.attrelid = {relation} AND b.attnum = {number}
  LEFT JOIN pg_catalog.pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
    AND s.attname = b.attname AND NOT s.inherited""",
    "readable": """pg_catalog.has_table_privilege({table}, 'SELECT')
   AND NOT pg_catalog.row_security_active({table})""",
}
# Extended statistics count combinations; nobody needs to have made them.
COMBINATIONS = """
SELECT e.stxrelid, d.stxdndistinct::pg_catalog.text
  FROM pg_catalog.pg_statistic_ext e
  JOIN pg_catalog.pg_statistic_ext_data d ON d.stxoid = e.oid {own}
 WHERE d.stxdndistinct IS NOT NULL AND e.stxrelid = ANY (%s::pg_catalog.oid[])
"""
INTERVAL, BPCHAR = 1186, 1042
# Equal values of character(n) may differ in trailing blanks. Commit 18740523a of October 2026 ("Rescind unsafe
# deduplication support") took their shared entries back. Measured: 13.16, 14.23, 16.14, 17.11 and 18.4 share, 15.20
# and 19rc1 do not. What comes between, and other major versions, was not measured: there both may be.
BPCHAR_SHARED, BPCHAR_APART = {13: 16, 14: 23, 16: 14, 17: 11, 18: 4}, {15: 20, 19: 0}
SAMPLES = {"common_sizes": "common", "bound_sizes": "bounds"}
ALIGN = {"c": 1, "s": 2, "i": 4, "d": 8}


class Known(NamedTuple):
    """One column and its statistics. None of them is known of a column that was never analyzed."""

    length: int
    align: str
    dropped: bool
    expression: bool
    same_image: bool  # of an index: equal values may share an entry
    unsure: bool  # of an index: perhaps they may not
    width: int | None
    nulls: float | None
    distinct: float | None  # values; negative: as a share of the rows
    known: bool
    shares: list[float] | None  # of the rows, by the most common values
    common_sizes: list[int] | None
    bound_sizes: list[int] | None
    column: layout.Column | None = None  # as it lies on a page. None: nothing is known of it

    def laid(self) -> layout.Column | None:
        """What becomes `column`."""
        if self.dropped:  # null in every row that is written anew
            return layout.Column(1, 1, 0.0, 1.0)
        if not self.known or self.width is None or self.length == -2:
            return None
        nulls, align = float(self.nulls or 0.0), ALIGN[self.align]
        if self.length > 0:
            return layout.Column(self.length, align, float(self.width), nulls)
        # What an expression makes is measured with the long header that it does not keep.
        width = float(self.width - 3 if self.expression and self.width <= layout.SHORT + 3 else self.width)
        return layout.sampled(align, width, nulls, self.sizes(nulls))

    def sizes(self, nulls: float) -> list[tuple[int, float]]:
        """Of the most common values with their shares, of the others by quantiles of equal weight."""
        found = list(zip(self.common_sizes or (), self.shares or ()))
        if self.bound_sizes:
            each = max(0.0, 1.0 - nulls - sum(self.shares or ())) / len(self.bound_sizes)
            found += [(size, number * each) for size, number in Counter(self.bound_sizes).items()]
        return found


def of_tables(session: Session, oids: t.Sequence[int]) -> dict[int, list[Known]]:
    """By oid, in order; tables that the login may not look into are left out."""
    return _read(session, TABLES, oids)


def of_indexes(session: Session, oids: t.Sequence[int], version: tuple[int, ...]) -> dict[int, list[Known]]:
    """By oid, in order, included columns last; those of tables that the login may not look into are left out."""
    return _read(session, INDEXES, oids, shares_blanks(version))


def shares_blanks(version: tuple[int, ...]) -> bool | None:
    """Whether equal values of character(n) share entries. None: nobody has measured it on this version."""
    major, minor = version[:2]
    if major in BPCHAR_APART and minor >= BPCHAR_APART[major]:
        return False
    return True if minor <= BPCHAR_SHARED.get(major, -1) else None


def _read(
    session: Session, where: t.Mapping[str, str], oids: t.Sequence[int], blanks: bool | None = None
) -> dict[int, list[Known]]:
    source = STATISTIC if session.sees_statistics() else STATS
    parts = {name: text.format(**where) for name, text in source.items()}
    sizes = {name: SIZES.format(width=parts["width"], values=parts[of]) for name, of in SAMPLES.items()}
    # Types whose equal values may be different bytes though their operator class does not say so.
    values = {
        "oids": list(oids),
        "unlike": [INTERVAL, BPCHAR] if blanks is False else [INTERVAL],
        "unsure": [BPCHAR] if blanks is None else [],
    }
    read = _Reader()
    rows = session.rows(STATEMENT.format(**{**where, **parts, **sizes}), values)
    return {owner: [read[each] for each in texts.split(" ")] for owner, texts in rows}


class _Reader(dict[str, Known]):
    """Columns by the text that STATEMENT makes of them: one record for all that are alike."""

    def __missing__(self, text: str) -> Known:
        length, align, dropped, expression, same, unsure, *rest = text.split("|")
        width, nulls, distinct, known, shares, common, bounds = rest
        found = Known(
            int(length),
            align,
            dropped == "t",
            expression == "t",
            same == "t",
            unsure == "t",
            int(width) if width else None,
            float(nulls) if nulls else None,
            float(distinct) if distinct else None,
            known == "t",
            list(map(float, _several(shares))) if shares else None,
            list(map(int, _several(common))) if common else None,
            list(map(int, _several(bounds))) if bounds else None,
        )
        self[text] = found = Known(*found[:-1], found.laid())
        return found


def _several(text: str) -> list[str]:
    """The elements of an array of numbers: `{1,2}`."""
    return text[1:-1].split(",") if len(text) > 2 else []


def combinations(session: Session, major: int, oids: t.Sequence[int]) -> dict[int, dict[frozenset[int], float]]:
    """By oid of the table, how many combinations of these of its columns the server has counted."""
    if not session.sees_statistics():
        return {}
    own = "AND NOT d.stxdinherit" if has("statistics of parents", major) else ""
    found: dict[int, dict[frozenset[int], float]] = {}
    for oid, counted in session.rows(COMBINATIONS.format(own=own), (list(oids),)):
        found.setdefault(oid, {}).update(_counted(counted))
    return found


def _counted(text: str) -> t.Iterator[tuple[frozenset[int], float]]:
    """`{"1, 2": 7}`; since 19 `[{"attributes": [1, 2], "ndistinct": 7}]`."""
    said = json.loads(text)
    if isinstance(said, dict):
        for names, number in said.items():
            yield frozenset(map(int, names.split(","))), float(number)
    else:
        for each in said:
            yield frozenset(each["attributes"]), float(each["ndistinct"])
