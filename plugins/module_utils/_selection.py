# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names a list of patterns takes: `*`, `?`, a leading `-` takes away. Order does not matter. Nothing else."""

from __future__ import annotations

import re
import typing as t

from ._errors import BadInput
from ._records import Ref

_ANY = "for such a character in a name write ?"


class Patterns:
    """A pattern list. A list of nothing but exclusions starts from everything."""

    def __init__(self, patterns: t.Sequence[str], option: str = "pattern") -> None:
        taken = [p for p in patterns if not str(p).startswith("-")]
        away = [str(p)[1:] for p in patterns if str(p).startswith("-")]
        for pattern in [*taken, *away]:
            _check(str(pattern), option)
        if not patterns:
            raise BadInput(f"{option}: the list is empty", cure='Write ["*"] for all')
        self.literal = tuple(str(p) for p in taken if not _wild(str(p)))
        self._take = [_compiled(str(p)) for p in taken or ["*"]]
        self._away = [_compiled(p) for p in away]
        self.everything = all(str(p) == "*" for p in patterns)  # asked first: most runs take all of many objects
        self.named = any(str(p).strip("*?.") for p in taken)  # at least one says more than that there is a name

    def takes(self, *names: str) -> bool:
        """Whether the object is selected; `names` are all the ways to write it."""
        return self.everything or (
            any(p.match(n) for p in self._take for n in names)
            and not any(p.match(n) for p in self._away for n in names)
        )


def names_of(ref: Ref) -> tuple[str, ...]:
    """How a user may write a table: `schema.table`, or `table` and `database.table` where there is no schema.

    A pattern `orders` takes `public.orders` too; a partition is taken with its table.
    """
    if not ref.path:
        return (ref.database,)
    if len(ref.path) < 2:
        return (ref.path[0], f"{ref.database}.{ref.path[0]}")
    return (".".join(ref.path), ref.path[-1])


def _wild(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _compiled(pattern: str) -> t.Pattern[str]:
    words = {"*": ".*", "?": "."}
    return re.compile("".join(words.get(c, re.escape(c)) for c in pattern) + r"\Z", re.DOTALL)


def _check(pattern: str, option: str) -> None:
    """A pattern that means something else to its writer must not silently select too much, or spare too little."""
    if not pattern.strip():
        raise BadInput(f"{option}: an empty pattern", cure="Remove it, or write * for all")
    if pattern != pattern.strip():
        raise BadInput(f"{option}: {pattern!r} begins or ends with white space", cure=f"Write it without; {_ANY}")
    if pattern.startswith("!"):
        raise BadInput(f"{option}: {pattern!r} begins with '!'", cure=f"A leading - takes away; {_ANY}")
    for sign in "[]{}%^$|\\":
        if sign in pattern and (_wild(pattern) or sign in "%|^"):
            raise BadInput(
                f"{option}: {pattern!r} has {sign!r}, which no pattern knows",
                cure=f"Patterns take * and ?, and a leading - takes away; {_ANY}",
            )
