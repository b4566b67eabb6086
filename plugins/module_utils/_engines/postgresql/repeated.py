# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often the values of an index repeat, by the statistics of its columns. What that means for pages: btree.py."""

from __future__ import annotations

import itertools
import math
import typing as t

from ..._tuples import NamedTuple
from . import btree
from .columns import Known
from .indexes import Row
from .layout import Column

SEEN_WHOLE = 30000  # rows that ANALYZE reads by default: of smaller tables it has seen every value
ALIKE = 1.2  # common values are taken together where they are common alike
MOST_PARTS = 4  # of a column among several


class Part(NamedTuple):
    """Some values of a column that are common alike."""

    number: float
    share: float  # of the rows, all of them together
    null: bool = False


def values(
    row: Row, known: t.Sequence[Known], laid: t.Sequence[Column], rows: float, together: float | None
) -> list[btree.Values]:
    """The nulls, the common and the other values, of several columns in all their combinations."""
    table = max(row.table_reltuples, rows, 1.0)
    columns = [list(parts(k, table, math.inf if len(known) == 1 else MOST_PARTS)) for k in known]
    sizes: dict[tuple[bool, ...], tuple[float, bool]] = {}
    found = []
    for combination in itertools.product(*columns):
        share = math.prod(p.share for p in combination)
        occurring = _left(_occurring(combination, table), share * table, rows / table)
        nulls = tuple(p.null for p in combination)
        if nulls not in sizes:
            sizes[nulls] = btree.entry([c._replace(null_share=float(n)) for c, n in zip(laid, nulls)])
        if share * rows > 0:
            number = min(occurring, share * rows)
            found.append(btree.Values(number, share * rows / number, *sizes[nulls]))
    counted = sum(v.number for v in found)
    return _scaled(found, _left(together, table, rows / table) / counted) if together and counted else found


def doubt(
    row: Row, known: t.Sequence[Known], rows: float, found: list[btree.Values], together: float | None
) -> tuple[list[btree.Values], list[btree.Values]]:
    """The same with as few, and as many values as there may be."""
    table, counted = max(row.table_reltuples, rows, 1.0), sum(v.number for v in found)
    unsure = 1.0 + min(1.0, 0.25 * math.log10(table / SEEN_WHOLE)) if table > SEEN_WHOLE else 1.0
    fewest = counted / unsure
    if len(known) > 1 and not together:
        fewest = min(fewest, max(_left(number(k, table), table, rows / table) for k in known))
    few = _scaled(found, fewest / counted) if fewest < counted else found
    return few, _scaled(found, unsure) if unsure > 1 else found


def _scaled(found: t.Sequence[btree.Values], factor: float) -> list[btree.Values]:
    """So many times as many values, in as many rows."""
    made = []
    for v in found:
        factor_here = max(min(factor, v.times), min(1.0, 1.0 / v.number))
        made.append(v._replace(number=v.number * factor_here, times=v.times / factor_here))
    return made


def parts(known: Known, table: float, most: float) -> t.Iterator[Part]:
    """Nulls, common values in groups of those that are common alike, and the rest."""
    nulls = float(known.nulls or 0.0)
    if nulls:
        yield Part(1.0, nulls, True)
    shares = sorted(known.shares or (), reverse=True)
    groups: list[list[float]] = []
    for share in shares:
        if groups and (groups[-1][0] <= ALIKE * share or len(groups) >= most):
            groups[-1].append(share)
        else:
            groups.append([share])
    for group in groups:
        yield Part(float(len(group)), sum(group))
    rest = 1.0 - nulls - sum(shares)
    others = distinct(known, table) - len(shares)
    if rest * table >= 1 and (others > 0.5 or not shares):
        yield Part(min(max(1.0, others), rest * table), rest)


def distinct(known: Known, table: float) -> float:
    """Values that are not null."""
    said = float(known.distinct or 0.0)
    return max(1.0, said if said > 0 else -said * table if said < 0 else table)


def number(known: Known, table: float) -> float:
    """Values, null among them."""
    return min(table, distinct(known, table) + (1.0 if known.nulls else 0.0))


def _occurring(combination: t.Sequence[Part], table: float) -> float:
    """How many of all combinations of these values there are, when columns do not depend on each other.

    Each value of the column that has most of them occurs as often as it does, and meets the others by chance.
    """
    first, *others = sorted(combination, key=lambda p: -p.number)
    if not others:
        return first.number
    times, possible = table * first.share / first.number, math.prod(p.number for p in others)
    chance = min(1.0, math.prod(p.share for p in others) / possible)
    return first.number * possible * (1.0 - math.pow(1.0 - chance, times))


def _left(occurring: float, in_table: float, share: float) -> float:
    """Of the values in so many rows those that are left in a share of them, chosen by chance."""
    if share >= 1.0:
        return occurring
    return occurring * (1.0 - math.pow(1.0 - share, in_table / max(1.0, occurring)))
