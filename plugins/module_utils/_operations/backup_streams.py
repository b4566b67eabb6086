# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHICH tables of a database are dumped beside the rest of it, so that more than one processor is at work. Pure."""

from __future__ import annotations

import typing as t

from .._records import Database, Ref, Table
from .._selection import Patterns, names_of

if t.TYPE_CHECKING:
    from .backup_options import Policy

# A stream more is a program more, which reads the whole catalog first: about a tenth of a second, and as long as a
# server takes to write out 10 to 20 MB of rows.
LEAST = 32 << 20  # bytes of a table that goes into another stream
WORTH = 128 << 20  # bytes of all tables


def streams(
    policy: Policy, databases: t.Sequence[Database], sizes: t.Mapping[str, int | None], name: str
) -> tuple[tuple[Ref, ...], ...]:
    """The tables of each stream beside the first; () where one is enough.

    Databases are dumped beside each other anyway: only one that outweighs the others keeps workers waiting in the end.
    """
    size = sizes.get(name) or 0
    others = sum(sizes.get(d.name) or 0 for d in databases if not d.system and d.name != name)
    if policy.jobs < 2 or size * policy.jobs <= size + others:
        return ()
    excluded = Patterns(policy.exclude, "exclude_tables") if policy.exclude else None
    large = next((d.large for d in databases if d.name == name), ())
    return divided([x for x in large if not (excluded and excluded.takes(*names_of(x.ref)))], policy.jobs)


def divided(tables: t.Sequence[Table], most: int) -> tuple[tuple[Ref, ...], ...]:
    """The largest first, each to where there is least so far; the first stream has what is small, and is not told."""
    apart = sorted((x for x in tables if x.bytes >= LEAST), key=lambda x: (-x.bytes, x.ref))
    whole = sum(x.bytes for x in tables)
    if not apart or whole < WORTH or whole - apart[0].bytes < LEAST:
        return ()
    loads = [whole - sum(x.bytes for x in apart), *[0] * (most - 1)]
    taken: list[list[Ref]] = [[] for _load in loads]
    for table in apart:
        place = loads.index(min(loads))
        loads[place] += table.bytes
        taken[place].append(table.ref)
    return tuple(tuple(sorted(refs)) for refs in taken[1:] if refs)
